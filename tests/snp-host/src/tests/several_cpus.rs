// SPDX-License-Identifier: MIT OR Apache-2.0
//! Two CPUs over one machine: what one registers, takes back or waits for, and what the other sees.

use snp::address::{GuestPhysicalAddress, PageSize, Vmpl};
use snp::ghcb::ApCreation;
use snp::ghcb_msr::response;
use snp::operands::{RmpAdjustTarget, RmpPermissions};
use snp::vmsa::{EFER_SVME, Vmsa};
use snp_model::run_vmpl::Refusal;
use zerocopy::{FromZeros, IntoBytes};

use super::bench::{Bench, CODE, FREE};
use crate::counters::Event;
use crate::hardware::PhysicalMemory;
use crate::permission_maps::PermissionMaps;
use crate::record::ExitCode;
use crate::residence::Step;
use crate::svsm_calls::Form;
use crate::switches::Switches;
use crate::translations::Translations;
use crate::vcpu::{Cpu, WokenBy};
use crate::vmcb::exit_code;

const VMSA: u64 = FREE + 0x1000;
const VMSA_2: u64 = FREE + 0x2000;
const VMSA_3: u64 = FREE + 0x3000;
const CREATE_ON_INIT: u16 = 0;
const CREATE: u16 = 1;
const DESTROY: u16 = 2;
const PVALIDATE: [u8; 4] = [0xF2, 0x0F, 0x01, 0xFF];
const INVLPGB: [u8; 4] = [0x0F, 0x01, 0xFE, 0x90];
const TLBSYNC: [u8; 4] = [0x0F, 0x01, 0xFF, 0x90];
const RMPADJUST: [u8; 4] = [0xF3, 0x0F, 0x01, 0xFE];

/// The boot CPU's bench, and the second CPU.
fn two_cpus(switches: Switches) -> (Bench, Cpu) {
    let mut bench = Bench::with(switches);
    bench.machine.cpus = 2;
    (bench, Cpu::new(1, &PermissionMaps::new(false), false))
}

impl Bench {
    pub fn vmsa(&mut self, gpa: u64, vmpl: u8) {
        self.validate(gpa);
        let target = RmpAdjustTarget::grant(Vmpl::Vmpl2, RmpPermissions::READ).with_vmsa(true);
        self.adjust(gpa, target);
        let mut vmsa = Vmsa::new_zeroed();
        (vmsa.vmpl, vmsa.efer, vmsa.sev_features, vmsa.rip) = (vmpl, EFER_SVME, 1, CODE);
        let host = self.machine.plan.private_page(self.index(gpa));
        self.machine.hardware.write(host, vmsa.as_bytes());
    }

    pub fn start(&mut self, operation: u16, vmpl: u8, apic_id: u32, vmsa: u64) -> bool {
        let request = ApCreation::new()
            .with_operation(operation)
            .with_vmpl(vmpl)
            .with_apic_id(apic_id);
        self.machine.create_vcpu(&mut self.cpu, request, vmsa, 1)
    }

    fn in_use(&mut self, gpa: u64) -> bool {
        let index = self.index(gpa);
        self.rmp().entry(index).is_some_and(|entry| entry.in_use)
    }
}

#[test]
fn a_cpu_starts_when_its_vmsa_is_registered() {
    let (mut bench, mut other) = two_cpus(Switches::new());
    let idle = Step::Wait { interrupts: false };
    assert_eq!(bench.machine.next_step(&mut other), idle);
    bench.vmsa(VMSA, 0);
    assert!(!bench.start(CREATE, 0, 2, VMSA), "no such CPU");
    assert!(!bench.start(CREATE, 0, 0, VMSA), "the caller itself");
    assert!(!bench.start(CREATE_ON_INIT, 0, 1, VMSA), "INIT never comes");
    assert_eq!(*bench.machine.hardware.woken.borrow(), []);
    assert!(bench.start(CREATE, 0, 1, VMSA));
    assert_eq!(*bench.machine.hardware.woken.borrow(), [1]);
    assert_eq!(bench.machine.next_step(&mut other), Step::Guest);
    assert_eq!(other.vcpu().vmcb.save.rip, CODE);
    assert!(bench.in_use(VMSA));
    assert!(!bench.start(CREATE, 0, 1, VMSA), "it runs already");
}

#[test]
fn a_lower_vmpl_reaches_its_own_level_of_other_cpus_only() {
    let (mut bench, mut other) = two_cpus(Switches::new());
    bench.vmsa(VMSA, 0);
    bench.vmsa(VMSA_2, 2);
    bench.cpu.current = Vmpl::Vmpl2;
    assert!(!bench.start(CREATE, 0, 1, VMSA), "a higher level");
    assert!(!bench.start(CREATE, 2, 0, VMSA_2), "itself");
    assert!(bench.start(CREATE, 2, 1, VMSA_2));
    bench.machine.next_step(&mut other);
    let registered = Some(GuestPhysicalAddress::new(VMSA_2));
    assert_eq!(other.at(Vmpl::Vmpl2).vmsa, registered);
    assert!(bench.start(DESTROY, 2, 1, 0));
    bench.machine.next_step(&mut other);
    assert_eq!(other.at(Vmpl::Vmpl2).vmsa, None);
    // Nor does another CPU replace the boot CPU's VMPL 0.
    let request = ApCreation::new().with_operation(CREATE);
    assert!(!bench.machine.create_vcpu(&mut other, request, VMSA, 1));
}

/// CPU 1 runs VMPL 2 under its VMPL 0.
pub fn running_vmpl2() -> (Bench, Cpu) {
    let (mut bench, mut other) = two_cpus(Switches::new());
    bench.vmsa(VMSA, 0);
    bench.vmsa(VMSA_2, 2);
    assert!(bench.start(CREATE, 0, 1, VMSA) && bench.start(CREATE, 2, 1, VMSA_2));
    assert_eq!(bench.machine.next_step(&mut other), Step::Guest);
    other.vcpu_mut().ghcb_msr = response::run_vmpl(0);
    let switched = bench.machine.switch_vmpl(&mut other, 2, Form::Msr);
    assert_eq!(switched, Ok(()));
    assert_eq!((bench.in_use(VMSA), bench.in_use(VMSA_2)), (false, true));
    (bench, other)
}

pub fn halt(bench: &mut Bench, cpu: &mut Cpu, interrupt_flag: u64) -> Step {
    cpu.has_news = false;
    let vcpu = cpu.vcpu_mut();
    vcpu.vmcb.control.exit_code = exit_code::HLT;
    vcpu.vmcb.save.rflags = 2 | interrupt_flag;
    assert_eq!(bench.machine.handle_exit(cpu), Ok(()));
    bench.machine.next_step(cpu)
}

#[test]
fn a_vcpu_that_waits_is_not_in_use_and_goes_on_behind_its_hlt() {
    let (mut bench, mut other) = running_vmpl2();
    let waits = halt(&mut bench, &mut other, 1 << 9);
    assert_eq!(waits, Step::Wait { interrupts: true });
    assert!(!bench.in_use(VMSA_2));
    other.is_halted = false;
    assert_eq!(bench.machine.next_step(&mut other), Step::Guest);
    assert_eq!(other.current, Vmpl::Vmpl2);
    assert_eq!(other.vcpu().vmcb.save.rip, CODE + 1);
    assert!(bench.in_use(VMSA_2));
    let deaf = halt(&mut bench, &mut other, 0);
    assert_eq!(deaf, Step::Wait { interrupts: false });
    assert_eq!(bench.machine.counters.events(Event::Wait), 2);
}

#[test]
fn a_vmsa_in_use_is_not_written() {
    const WRITE: u64 = 1 << 1;
    const C: u64 = 1 << 51;
    let (mut bench, mut other) = running_vmpl2();
    let write = |bench: &mut Bench| bench.exit(exit_code::NESTED_FAULT, WRITE, (VMSA_2 + 0xD0) | C);
    assert_eq!(write(&mut bench), Err(ExitCode::Violation));
    let records = bench.records();
    assert!(
        records.contains("what=write-to-vmsa-in-use gpa=0x5020d0 vmpl=0"),
        "{records}"
    );
    // The vCPU has stopped between the fault and its handling.
    halt(&mut bench, &mut other, 1 << 9);
    assert_eq!(write(&mut bench), Ok(()));
}

#[test]
fn vmpl_0_gets_the_cpu_when_the_one_that_waits_may_not_run_any_more() {
    let (mut bench, mut other) = running_vmpl2();
    halt(&mut bench, &mut other, 1 << 9);
    bench.poke(VMSA_2 + 0xD0, 0); // EFER
    other.is_halted = false;
    assert_eq!(bench.machine.next_step(&mut other), Step::Guest);
    assert_eq!(other.current, Vmpl::Vmpl0);
    let answer = response::run_vmpl(Refusal::NotRunnable as u32);
    assert_eq!(other.vcpu().ghcb_msr, answer);
}

/// What Linux and OVMF do to a CPU that waits in a reset hold: a new VMSA, with the old one still registered.
#[test]
fn a_new_vmsa_takes_a_cpu_out_of_its_hold_and_keeps_its_ghcb() {
    let (mut bench, mut other) = running_vmpl2();
    let ghcb = Some(GuestPhysicalAddress::new(FREE));
    (other.vcpu_mut().ghcb_msr, other.vcpu_mut().registered_ghcb) = (FREE, ghcb);
    bench.machine.halt(&mut other, WokenBy::Registration);
    other.has_news = false;
    bench.machine.halt(&mut other, WokenBy::Registration);
    let held = bench.machine.next_step(&mut other);
    assert_eq!(held, Step::Wait { interrupts: false });
    assert!(!bench.in_use(VMSA_2), "RMPADJUST may retire it");
    bench.vmsa(VMSA_3, 2);
    assert!(bench.start(CREATE, 2, 1, VMSA_3));
    bench.poke(VMSA_3 + 0xD0, 0); // EFER: VMPL 0 has not let it run yet.
    assert_eq!(bench.machine.next_step(&mut other), Step::Guest);
    assert_eq!(other.current, Vmpl::Vmpl0);
    let answer = response::run_vmpl(Refusal::NotRunnable as u32);
    assert_eq!(other.vcpu().ghcb_msr, answer);
    bench.poke(VMSA_3 + 0xD0, EFER_SVME);
    let switched = bench.machine.switch_vmpl(&mut other, 2, Form::Msr);
    assert_eq!(switched, Ok(()));
    assert!(bench.in_use(VMSA_3));
    let vcpu = other.vcpu();
    assert_eq!((vcpu.ghcb_msr, vcpu.registered_ghcb), (FREE, ghcb));
}

#[test]
fn news_end_the_wait_even_when_they_come_before_it() {
    let (mut bench, mut other) = running_vmpl2();
    assert!(bench.start(DESTROY, 3, 1, 0));
    other.vcpu_mut().vmcb.control.exit_code = exit_code::NMI;
    assert_eq!(bench.machine.handle_exit(&mut other), Ok(()));
    other.vcpu_mut().vmcb.control.exit_code = exit_code::HLT;
    assert_eq!(bench.machine.handle_exit(&mut other), Ok(()));
    assert_eq!(bench.machine.next_step(&mut other), Step::Guest);
}

#[test]
fn what_is_taken_back_is_flushed_everywhere_and_what_is_given_is_not() {
    for (manner, kicks) in [(0, 1), (1, 0), (2, 0)] {
        let (mut bench, _) = two_cpus(Switches::new().with_kick_manner(manner));
        bench.validate(FREE);
        // That was no exit, which would have ended with the kick.
        bench.machine.translations = Translations::default();
        let run = |bench: &mut Bench, bytes, rdx: u64| {
            let vcpu = bench.cpu.vcpu_mut();
            (vcpu.vmcb.save.rax, vcpu.registers.rcx, vcpu.registers.rdx) = (FREE, 0, rdx);
            let before = bench.machine.hardware.kicks.get();
            assert_eq!(bench.execute(bytes, exit_code::INVALID_OPCODE), Ok(()));
            bench.machine.hardware.kicks.get() - before
        };
        assert_eq!(
            run(&mut bench, RMPADJUST, 0x0302),
            0,
            "read and write granted"
        );
        assert_eq!(
            run(&mut bench, RMPADJUST, 0x0102),
            kicks,
            "write taken back"
        );
        assert_eq!(run(&mut bench, RMPADJUST, 0x0102), 0, "nothing changed");
        assert_eq!(run(&mut bench, PVALIDATE, 1), 0, "it is validated");
        assert_eq!(run(&mut bench, PVALIDATE, 0), kicks, "rescinded");
        assert_eq!(run(&mut bench, PVALIDATE, 1), 0, "validated");
    }
}

#[test]
fn a_flush_is_an_invlpgb_of_everything_and_the_tlbsync_behind_it() {
    const EVERYTHING: u64 = 8;
    const ONE_ADDRESS: u64 = 9;
    for (manner, kicks) in [(0, [1, 1, 1, 1, 1]), (1, [0; 5]), (2, [0, 0, 0, 0, 1])] {
        let (mut bench, _) = two_cpus(Switches::new().with_kick_manner(manner));
        let steps = [
            (TLBSYNC, 0),
            (INVLPGB, ONE_ADDRESS),
            (TLBSYNC, 0),
            (INVLPGB, EVERYTHING),
            (TLBSYNC, 0),
        ];
        let kicked = steps.map(|(bytes, rax)| {
            bench.cpu.vcpu_mut().vmcb.save.rax = rax;
            let before = bench.machine.hardware.kicks.get();
            assert_eq!(bench.execute(bytes, exit_code::INVALID_OPCODE), Ok(()));
            bench.machine.hardware.kicks.get() - before
        });
        assert_eq!(kicked, kicks);
    }
}

#[test]
fn a_page_that_the_host_takes_leaves_translations_alone_but_by_manner_0() {
    for (manner, kicks) in [(0, 1), (2, 0)] {
        let (mut bench, _) = two_cpus(Switches::new().with_kick_manner(manner));
        bench.validate(FREE);
        bench.machine.translations = Translations::default();
        let index = bench.index(FREE);
        let taken = bench.machine.convert(index, PageSize::Size4K, true);
        assert_eq!(taken, Ok(()));
        let before = bench.machine.hardware.kicks.get();
        bench.machine.flush_others(&bench.cpu);
        assert_eq!(bench.machine.hardware.kicks.get() - before, kicks);
    }
}
