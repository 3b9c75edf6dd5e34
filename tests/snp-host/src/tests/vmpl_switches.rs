// SPDX-License-Identifier: MIT OR Apache-2.0
use snp::address::{GuestPhysicalAddress, Vmpl};
use snp::ghcb::ApCreation;
use snp::ghcb_msr::{Request, response};
use snp::operands::{RmpAdjustTarget, RmpPermissions};
use snp::vmsa::{EFER_SVME, Vmsa};
use zerocopy::{FromZeros, IntoBytes};

use super::bench::{Bench, CODE, FREE};
use crate::counters::Event;
use crate::hardware::PhysicalMemory;
use crate::recurrence::Recurrence;
use crate::svsm_calls::Form;
use crate::switch_manner::SwitchManner;
use crate::vmcb::exit_code;

const VMSA: u64 = FREE + 0x1000;
const FEATURES: u64 = 1;
const CREATE: u16 = 1;
const DESTROY: u16 = 2;

impl Bench {
    fn write_vmsa(&self, vmpl: u8, efer: u64) {
        self.write_vmsa_at(VMSA, vmpl, efer);
    }

    fn write_vmsa_at(&self, gpa: u64, vmpl: u8, efer: u64) {
        self.write(gpa, vmpl, efer, FEATURES);
    }

    /// A runnable VMSA of VMPL 2 with other features.
    fn write_features(&self, features: u64) {
        self.write(VMSA, 2, EFER_SVME, features);
    }

    fn write(&self, gpa: u64, vmpl: u8, efer: u64, features: u64) {
        let mut vmsa = Vmsa::new_zeroed();
        (vmsa.vmpl, vmsa.efer, vmsa.sev_features, vmsa.rip) = (vmpl, efer, features, CODE);
        (vmsa.rax, vmsa.event_injection) = (5, 7);
        let host = self.machine.plan.private_page(self.index(gpa));
        self.machine.hardware.write(host, vmsa.as_bytes());
    }

    /// A page with the VMSA bit.
    fn make_vmsa(&mut self) {
        self.make_vmsa_at(VMSA);
    }

    fn make_vmsa_at(&mut self, gpa: u64) {
        self.validate(gpa);
        let target = RmpAdjustTarget::grant(Vmpl::Vmpl2, RmpPermissions::READ).with_vmsa(true);
        self.adjust(gpa, target);
        self.write_vmsa_at(gpa, 2, EFER_SVME);
    }

    fn create(&mut self, operation: u16, vmsa: u64, features: u64) -> bool {
        let request = ApCreation::new().with_operation(operation).with_vmpl(2);
        self.machine
            .create_vcpu(&mut self.cpu, request, vmsa, features)
    }

    /// A VMPL 2 that can run.
    pub fn add_vmpl_2(&mut self) {
        self.make_vmsa();
        assert!(self.create(CREATE, VMSA, FEATURES));
    }

    pub fn run_vmpl(&mut self, vmpl: Vmpl) -> u64 {
        self.request(Request::run_vmpl(vmpl).encode())
    }
}

#[test]
fn a_vmsa_is_checked_before_it_is_registered() {
    let mut bench = Bench::new();
    assert!(!bench.create(CREATE, VMSA, FEATURES), "shared");
    bench.validate(VMSA);
    bench.write_vmsa(2, EFER_SVME);
    assert!(!bench.create(CREATE, VMSA, FEATURES), "no VMSA bit");
    bench.make_vmsa();
    assert!(!bench.create(CREATE, VMSA + 8, FEATURES), "misaligned");
    bench.make_vmsa_at(0x60_0000);
    assert!(!bench.create(CREATE, 0x60_0000, FEATURES), "2 MiB aligned");
    assert!(!bench.create(CREATE, 1 << 40, FEATURES), "no RAM");
    assert!(!bench.create(CREATE, VMSA, FEATURES | 8), "other features");
    bench.write_features(FEATURES | 1 << 4);
    assert!(!bench.create(CREATE, VMSA, FEATURES | 1 << 4), "not served");
    bench.write_features(FEATURES | 1 << 21);
    assert!(bench.create(CREATE, VMSA, FEATURES | 1 << 21), "served");
    assert!(bench.create(DESTROY, VMSA, FEATURES));
    bench.write_vmsa(2, EFER_SVME);
    assert!(!bench.create(9, VMSA, FEATURES), "no operation");
    bench.write_vmsa(3, EFER_SVME);
    assert!(!bench.create(CREATE, VMSA, FEATURES), "another level");
    bench.write_vmsa(2, EFER_SVME);
    let other_cpu = ApCreation::new()
        .with_operation(CREATE)
        .with_vmpl(2)
        .with_apic_id(1);
    assert!(
        !bench
            .machine
            .create_vcpu(&mut bench.cpu, other_cpu, VMSA, FEATURES)
    );
    let itself = ApCreation::new().with_operation(CREATE);
    assert!(
        !bench
            .machine
            .create_vcpu(&mut bench.cpu, itself, VMSA, FEATURES)
    );
    assert!(bench.create(CREATE, VMSA, FEATURES));
    assert_eq!(
        bench.cpu.at(Vmpl::Vmpl2).vmsa,
        Some(GuestPhysicalAddress::new(VMSA))
    );
    assert!(bench.create(DESTROY, VMSA, FEATURES));
    assert_eq!(bench.run_vmpl(Vmpl::Vmpl2), response::run_vmpl(1));
}

#[test]
fn a_call_goes_there_and_back() {
    let mut bench = Bench::new();
    bench.make_vmsa();
    assert!(bench.create(CREATE, VMSA, FEATURES));
    assert_eq!(bench.run_vmpl(Vmpl::Vmpl2), response::run_vmpl(0));
    assert_eq!(bench.cpu.current, Vmpl::Vmpl2);
    let vcpu = bench.cpu.vcpu_mut();
    assert_eq!((vcpu.vmcb.save.rax, vcpu.vmcb.save.rip), (5, CODE));
    assert_eq!(vcpu.vmcb.control.event_injection, 7);
    assert_eq!(bench.peek(VMSA + 0x3E0), 0, "taken once");
    let vcpu = bench.cpu.vcpu_mut();
    vcpu.vmcb.save.rax = 6;
    let index = bench.index(VMSA);
    assert!(bench.rmp().entry(index).unwrap().in_use);

    // Back by the MSR protocol; VMPL 2 here runs unpaged and may not read its code: the answer is
    // set up without an exit.
    bench.cpu.vcpu_mut().vmcb.control.exit_code = exit_code::VMMCALL;
    assert_eq!(
        bench.machine.switch_vmpl(&mut bench.cpu, 0, Form::Msr),
        Ok(())
    );
    assert_eq!(bench.cpu.current, Vmpl::Vmpl0);
    assert!(!bench.rmp().entry(index).unwrap().in_use);
    assert_eq!(bench.peek(VMSA + 0x1F8), 6);
    assert_eq!(bench.peek(VMSA + 0x3C0), 0x403);
    assert_eq!(bench.peek(VMSA + 0x3E0), 0);
    assert_eq!(bench.peek(VMSA + 0xC8) >> 16 & 0xFF, 2);
}

#[test]
fn a_level_that_may_not_run_does_not() {
    let mut bench = Bench::new();
    assert_eq!(bench.run_vmpl(Vmpl::Vmpl2), response::run_vmpl(1));
    assert_eq!(bench.run_vmpl(Vmpl::Vmpl0), response::run_vmpl(0));
    bench.make_vmsa();
    assert!(bench.create(CREATE, VMSA, FEATURES));
    bench.write_vmsa(2, 0);
    assert_eq!(bench.run_vmpl(Vmpl::Vmpl2), response::run_vmpl(2));
    bench.write_vmsa(2, EFER_SVME);
    bench.adjust(VMSA, RmpAdjustTarget::revoke(Vmpl::Vmpl2));
    assert_eq!(bench.run_vmpl(Vmpl::Vmpl2), response::run_vmpl(3));
    assert_eq!(bench.request((9 << 32) | 0x16), response::run_vmpl(1));
    assert_eq!(bench.cpu.current, Vmpl::Vmpl0);
}

#[test]
fn a_swallowed_call_is_answered_and_never_served() {
    let mut bench = Bench::new();
    bench.make_vmsa();
    assert!(bench.create(CREATE, VMSA, FEATURES));
    bench.machine.switch_manner = SwitchManner::Swallow(Recurrence::every(1));
    for served in [true, false] {
        assert_eq!(bench.run_vmpl(Vmpl::Vmpl2), response::run_vmpl(0));
        assert_eq!(bench.cpu.current, Vmpl::Vmpl2, "switches from VMPL 0 work");
        assert_eq!(
            bench.machine.switch_vmpl(&mut bench.cpu, 0, Form::Msr),
            Ok(())
        );
        assert_eq!(bench.cpu.current == Vmpl::Vmpl0, served);
    }
    assert_eq!(
        bench.machine.switch_vmpl(&mut bench.cpu, 0, Form::Msr),
        Ok(())
    );
    assert_eq!(bench.cpu.current, Vmpl::Vmpl0, "the next one is served");
    let counters = &bench.machine.counters;
    assert_eq!(counters.events(Event::SwitchSwallowed), 1);
}

#[test]
fn a_spurious_return_comes_back_without_the_guest() {
    let mut bench = Bench::new();
    bench.make_vmsa();
    assert!(bench.create(CREATE, VMSA, FEATURES));
    bench.machine.switch_manner = SwitchManner::Spurious(Recurrence::every(0));
    assert_eq!(bench.run_vmpl(Vmpl::Vmpl2), response::run_vmpl(0));
    assert_eq!(bench.cpu.current, Vmpl::Vmpl0);
    assert_eq!(bench.peek(VMSA + 0x3E0), 7, "nothing was loaded");
    let counters = &bench.machine.counters;
    assert_eq!(counters.events(Event::SwitchSpurious), 1);
    assert_eq!(counters.events(Event::VmplSwitch), 0);
}
