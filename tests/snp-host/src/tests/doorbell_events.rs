// SPDX-License-Identifier: MIT OR Apache-2.0
use snp::address::{GuestPhysicalAddress, Vmpl};
use snp::ghcb_msr::Request;
use snp::msr;

use super::bench::{Bench, FREE};
use crate::counters::Event;
use crate::hardware::PhysicalMemory;
use crate::machine::Flow;
use crate::record::ExitCode;
use crate::switches::Switches;
use crate::vmcb::{event, exit_code};

const DOORBELL: u64 = FREE;
/// NoFurtherSignal and a vector.
const SIGNALLED: u64 = 0x8020;
const VMGEXIT: [u8; 4] = [0xF3, 0x0F, 0x01, 0xD9];

/// VMPL 0 with a doorbell page, which wants to run a VMPL that has no VMSA: each entry fails, and
/// that is all the same to the events.
fn bench(manner: u8) -> Bench {
    let switches = Switches::new().with_doorbell_manner(manner);
    let mut bench = Bench::with(switches.with_doorbell_turns(1));
    bench.cpu.vcpu_mut().doorbell = Some(GuestPhysicalAddress::new(DOORBELL));
    bench.acknowledge();
    bench
}

impl Bench {
    /// The write of the request; the event it is interrupted by.
    fn write_request(&mut self) -> u64 {
        let request = Request::run_vmpl(Vmpl::Vmpl2).encode();
        let vcpu = self.cpu.vcpu_mut();
        vcpu.registers.rcx = u64::from(msr::GHCB);
        (vcpu.vmcb.save.rax, vcpu.registers.rdx) = (request & 0xFFFF_FFFF, request >> 32);
        self.exit(exit_code::MSR, 1, 0).unwrap();
        self.cpu.vcpu().vmcb.control.event_injection
    }

    /// The VMGEXIT; the event that comes instead of it.
    fn exit_or_event(&mut self) -> Flow<u64> {
        let rip = self.rip() & !7;
        self.execute(VMGEXIT, exit_code::VMMCALL)?;
        let event = self.cpu.vcpu().vmcb.control.event_injection;
        assert_eq!(self.rip(), if event == 0 { rip + 4 } else { rip });
        Ok(event)
    }

    fn doorbell(&self) -> u64 {
        self.machine.hardware.read_u64(DOORBELL)
    }

    fn acknowledge(&self) {
        self.machine.hardware.write_u64(DOORBELL, 0);
    }

    fn signalled_and_injected(&self) -> (u64, u64) {
        let counters = &self.machine.counters;
        (
            counters.events(Event::HvSignalled),
            counters.events(Event::HvInjected),
        )
    }
}

#[test]
fn events_come_at_every_moment_of_a_switch() {
    let mut bench = bench(2);
    let expected = [
        // (behind the request, at the exit, page)
        (0, event::HV, SIGNALLED),
        (0, 0, SIGNALLED),
        (event::HV, 0, SIGNALLED),
        (0, event::HV, SIGNALLED),
    ];
    for (behind_request, at_exit, page) in expected {
        assert_eq!(bench.write_request(), 0);
        assert_eq!(bench.exit_or_event(), Ok(0), "an honest turn");
        assert_eq!(bench.doorbell(), 0);
        assert_eq!(bench.write_request(), behind_request);
        if at_exit != 0 {
            assert_eq!(bench.exit_or_event(), Ok(at_exit));
        }
        assert_eq!(bench.doorbell(), page);
        bench.acknowledge();
    }
    assert_eq!(bench.signalled_and_injected(), (4, 3));
}

#[test]
fn one_event_is_one() {
    let mut bench = bench(1);
    bench.write_request();
    assert_eq!(bench.exit_or_event(), Ok(0));
    bench.write_request();
    assert_eq!(bench.exit_or_event(), Ok(event::HV));
    bench.acknowledge();
    for _ in 0..5 {
        assert_eq!(bench.write_request(), 0);
        assert_eq!(bench.exit_or_event(), Ok(0));
    }
    assert_eq!(bench.signalled_and_injected(), (1, 1));
}

#[test]
fn running_the_guest_over_an_event_stops_the_machine() {
    let mut bench = bench(2);
    bench.write_request();
    assert_eq!(bench.exit_or_event(), Ok(0));
    bench.write_request();
    assert_eq!(bench.exit_or_event(), Ok(event::HV));
    assert_eq!(bench.exit_or_event(), Err(ExitCode::Violation));
    assert!(
        bench
            .records()
            .contains("violation what=entered-over-hv-event gpa=0x500000 vmpl=0")
    );
}

#[test]
fn without_a_shared_doorbell_page_there_is_no_event() {
    let mut bench = bench(2);
    bench.validate(DOORBELL);
    for _ in 0..4 {
        assert_eq!(bench.write_request(), 0);
        assert_eq!(bench.exit_or_event(), Ok(0));
    }
    bench.cpu.vcpu_mut().doorbell = None;
    assert_eq!(bench.write_request(), 0);
    assert_eq!(bench.exit_or_event(), Ok(0));
    assert_eq!(bench.signalled_and_injected(), (0, 0));
}
