// SPDX-License-Identifier: MIT OR Apache-2.0
use snp::address::{PageSize, Vmpl};
use snp_model::access::AccessKind;

use super::bench::{Bench, CODE, DESCRIPTORS, FREE, HANDLER, SHARED, STACK, TABLES};
use crate::counters::Event;
use crate::guest_memory::{Translation, Unreachable};
use crate::memory_plan::DEVICE_BASE;
use crate::record::ExitCode;
use crate::switches::Switches;
use crate::vmcb::{event, exit_code};

const C: u64 = 1 << 51;
/// EXITINFO1: a read, a fetch, a walk that writes.
const READ: u64 = 1 << 32;
const FETCH: u64 = READ | (1 << 4);
const WALK: u64 = (1 << 33) | (1 << 1);

/// Error code and interrupted RIP of the frame on top of the stack.
fn frame(bench: &Bench) -> (u64, u64) {
    let rsp = bench.cpu.vcpu().vmcb.save.rsp;
    (bench.peek(rsp), bench.peek(rsp + 8))
}

#[test]
fn a_page_that_is_not_validated_is_the_guests_affair() {
    let mut bench = Bench::new();
    let index = bench.index(FREE);
    bench
        .machine
        .convert(index, PageSize::Size4K, false)
        .unwrap();
    assert_eq!(bench.exit(exit_code::NESTED_FAULT, READ, FREE | C), Ok(()));
    assert_eq!(bench.rip(), HANDLER);
    assert_eq!(frame(&bench), (0x404, CODE));
    assert_eq!(bench.cpu.vcpu().vmcb.save.rsp, STACK + 0x1000 - 6 * 8);
    assert_eq!(bench.machine.counters.events(Event::NotValidated), 1);
}

#[test]
fn instructions_of_the_strict_machine_are_communication_exceptions() {
    for code in [exit_code::CPUID, exit_code::IOIO, exit_code::WBINVD] {
        let mut bench = Bench::new();
        assert_eq!(bench.exit(code, 0, 0), Ok(()));
        assert_eq!((bench.rip(), frame(&bench)), (HANDLER, (code, CODE)));
    }
    let mut bench = Bench::new();
    assert_eq!(bench.exit(exit_code::VMRUN, 0, 0), Ok(()));
    assert_eq!(
        bench.cpu.vcpu().vmcb.control.event_injection,
        event::INVALID_OPCODE
    );
}

#[test]
fn an_exception_nobody_can_take_ends_the_run() {
    let mut bench = Bench::new();
    bench.poke(DESCRIPTORS + 0x100 + 29 * 16, 0);
    assert_eq!(bench.exit(exit_code::CPUID, 0, 0), Err(ExitCode::Died));
    assert!(
        bench
            .records()
            .contains("died what=undeliverable-vc vmpl=0\n")
    );
    let mut bench = Bench::new();
    bench.cpu.vcpu_mut().vmcb.save.rsp = FREE + 0x1000;
    assert_eq!(bench.exit(exit_code::CPUID, 0, 0), Err(ExitCode::Died));
    let mut bench = Bench::new();
    assert_eq!(bench.exit(exit_code::SHUTDOWN, 0, 0), Err(ExitCode::Died));
}

#[test]
fn an_exception_without_a_stack_is_a_double_fault_on_a_stack_of_its_own() {
    const LOST: u64 = FREE + 0x1000;
    // So that the first stack's address is aligned.
    const TASK: u64 = DESCRIPTORS + 0x804;
    let mut bench = Bench::new();
    // The gate of #DF: the handler's page, the first stack of the TSS.
    let gate = HANDLER + 0x100;
    let low = (gate & 0xFFFF) | (8 << 16) | (0x8E01 << 32) | ((gate >> 16) << 48);
    bench.poke(DESCRIPTORS + 0x100 + 8 * 16, low);
    bench.poke(TASK + 0x24, STACK + 0x800);
    let save = &mut bench.cpu.vcpu_mut().vmcb.save;
    (save.rsp, save.tr.base) = (LOST, TASK);
    assert_eq!(bench.exit(exit_code::CPUID, 0, 0), Ok(()));
    assert_eq!((bench.rip(), frame(&bench)), (gate, (0, CODE)));
    let rsp = bench.cpu.vcpu().vmcb.save.rsp;
    assert_eq!(rsp, STACK + 0x800 - 6 * 8);
    assert_eq!(bench.peek(rsp + 0x20), LOST);
}

#[test]
fn an_interrupted_user_program_loses_its_privilege_level() {
    let mut bench = Bench::new();
    let save = &mut bench.cpu.vcpu_mut().vmcb.save;
    (save.cpl, save.ss.attributes, save.tr.base) = (3, 0xCF3, DESCRIPTORS + 0x800);
    bench.poke(DESCRIPTORS + 0x800, (STACK + 0x800) << 32);
    assert_eq!(bench.exit(exit_code::CPUID, 0, 0), Ok(()));
    let save = &bench.cpu.vcpu().vmcb.save;
    assert_eq!(
        (save.cpl, save.ss.attributes & 0x60, save.ss.selector),
        (0, 0, 0)
    );
    assert_eq!(save.rsp, STACK + 0x800 - 6 * 8);
}

#[test]
fn a_wrong_c_bit_stops_the_machine_or_converts() {
    let mut bench = Bench::new();
    let stopped = bench.exit(exit_code::NESTED_FAULT, READ, FREE | C);
    assert_eq!(stopped, Err(ExitCode::Violation));
    let what = "violation what=private-access-to-shared-page gpa=0x500000 vmpl=0 rip=0x410000\n";
    assert!(bench.records().contains(what), "{}", bench.records());
    let stopped = bench.exit(exit_code::NESTED_FAULT, READ, CODE);
    assert_eq!(stopped, Err(ExitCode::Violation));

    let mut bench = Bench::with(Switches::new().with_implicit_conversion(true));
    assert_eq!(bench.exit(exit_code::NESTED_FAULT, READ, FREE | C), Ok(()));
    let index = bench.index(FREE);
    assert!(bench.rmp().entry(index).unwrap().assigned);
    assert_eq!(bench.exit(exit_code::NESTED_FAULT, READ, FREE), Ok(()));
    assert!(!bench.rmp().entry(index).unwrap().assigned);
    assert_eq!(bench.machine.counters.events(Event::ConvertImplicit), 2);
}

#[test]
fn fetches_and_walks_are_private_without_c_bit() {
    let mut bench = Bench::new();
    assert_eq!(bench.exit(exit_code::NESTED_FAULT, FETCH, CODE), Ok(()));
    assert_eq!(bench.exit(exit_code::NESTED_FAULT, WALK, STACK), Ok(()));
    assert_eq!(bench.machine.counters.events(Event::Alias), 2);
    assert_eq!(bench.rip(), CODE);
    let fetched = bench.exit(exit_code::NESTED_FAULT, FETCH, FREE);
    assert_eq!(fetched, Err(ExitCode::Violation));
}

#[test]
fn a_lower_level_needs_permission() {
    let mut bench = Bench::new();
    bench.cpu.current = Vmpl::Vmpl2;
    bench.cpu.at_mut(Vmpl::Vmpl2).vmcb = bench.cpu.at(Vmpl::Vmpl0).vmcb.clone();
    let stopped = bench.exit(exit_code::NESTED_FAULT, READ, STACK | C);
    assert_eq!(stopped, Err(ExitCode::Violation));
    assert!(
        bench
            .records()
            .contains("violation what=vmpl-permission gpa=0x412000 vmpl=2")
    );
    let at = Translation {
        gpa: STACK,
        c_bit: true,
    };
    let vcpu = bench.cpu.vcpu();
    assert!(bench.machine.reach(vcpu, at, AccessKind::Read).is_err());
}

#[test]
fn device_memory_is_an_exception_and_the_rest_does_not_exist() {
    let mut bench = Bench::new();
    assert_eq!(
        bench.exit(exit_code::NESTED_FAULT, READ, DEVICE_BASE + 0x1000),
        Ok(())
    );
    assert_eq!(frame(&bench).0, 0x400);
    let stopped = bench.exit(exit_code::NESTED_FAULT, READ, 0x7000_0000);
    assert_eq!(stopped, Err(ExitCode::Violation));
    assert!(bench.machine.is_device(0xFFFF_F000, 4096));
    assert!(!bench.machine.is_device(0xFFFF_F000, 4097));
    assert!(!bench.machine.is_device(4 << 30, 8));
}

/// Two pages that follow each other for the guest alone.
#[test]
fn bytes_of_two_pages_are_reached_through_both() {
    const TABLE: u64 = FREE;
    let mut bench = Bench::new();
    bench.validate(TABLE);
    bench.poke(TABLE, STACK | C | 3);
    bench.poke(TABLE + 8, CODE | C | 3);
    let entry = TABLES + 0x2000 + 8 * (SHARED >> 21);
    bench.poke(entry, TABLE | C | 3);
    bench.poke(STACK + 0xFF8, 0x0403_0201_0000_0000);
    bench.poke(CODE, 0x0807_0605);
    let mut bytes = [0; 8];
    let read = |bench: &Bench, bytes: &mut [u8]| {
        let vcpu = bench.cpu.vcpu();
        bench.machine.read_linear(vcpu, SHARED + 0xFFC, bytes)
    };
    assert_eq!(read(&bench, &mut bytes), Ok(()));
    assert_eq!(bytes, [1, 2, 3, 4, 5, 6, 7, 8]);
    bench.cpu.vcpu_mut().vmcb.save.rip = SHARED + 0xFFE;
    let vcpu = bench.cpu.vcpu();
    assert_eq!(bench.machine.instruction_bytes(vcpu), [3, 4, 5, 6]);
    // An exception's frame of 48 bytes, of which 32 are on the second page.
    bench.cpu.vcpu_mut().vmcb.save.rsp = SHARED + 0x1020;
    assert_eq!(bench.exit(exit_code::CPUID, 0, 0), Ok(()));
    let words = [STACK + 0xFF0, STACK + 0xFF8, CODE + 0x10].map(|at| bench.peek(at));
    assert_eq!(words, [exit_code::CPUID, SHARED + 0xFFE, SHARED + 0x1020]);
    // The second page is gone.
    bench.poke(TABLE + 8, 0);
    assert_eq!(read(&bench, &mut bytes), Err(Unreachable::NotMapped));
    let vcpu = bench.cpu.vcpu();
    assert_eq!(bench.machine.instruction_bytes(vcpu)[2..], [0, 0]);
}

#[test]
fn an_event_whose_delivery_faults_is_delivered_again() {
    let interrupted = event::GENERAL_PROTECTION;
    // Taken away by implicit conversion; not validated, which is an exception of its own.
    for (switches, event, rip) in [
        (
            Switches::new().with_implicit_conversion(true),
            interrupted,
            CODE,
        ),
        (Switches::new(), 0, HANDLER),
    ] {
        let mut bench = Bench::with(switches);
        let index = bench.index(FREE);
        let shared = switches.implicit_conversion();
        bench
            .machine
            .convert(index, PageSize::Size4K, shared)
            .unwrap();
        bench.cpu.vcpu_mut().vmcb.control.exit_interrupt_info = interrupted;
        assert_eq!(bench.exit(exit_code::NESTED_FAULT, READ, FREE | C), Ok(()));
        assert_eq!(bench.cpu.vcpu().vmcb.control.event_injection, event);
        assert_eq!(bench.rip(), rip);
    }
    // A fault of the guest's own.
    let mut bench = Bench::with(Switches::new().with_implicit_conversion(true));
    let index = bench.index(FREE);
    bench
        .machine
        .convert(index, PageSize::Size4K, true)
        .unwrap();
    assert_eq!(bench.exit(exit_code::NESTED_FAULT, READ, FREE | C), Ok(()));
    assert_eq!(bench.cpu.vcpu().vmcb.control.event_injection, 0);
}
