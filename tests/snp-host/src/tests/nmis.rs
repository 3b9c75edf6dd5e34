// SPDX-License-Identifier: MIT OR Apache-2.0
//! NMIs between CPUs: who gets one, when it is injected, what blocks it, and that none is lost.

use snp::address::{GuestPhysicalAddress, Vmpl};
use snp::ghcb::{exit_code, offset};
use snp::ghcb_msr::{Request, response};
use snp::psc::PscOperation;

use super::bench::{Bench, FREE};
use super::several_cpus::{halt, running_vmpl2};
use crate::counters::Event;
use crate::hardware::PhysicalMemory;
use crate::residence::Step;
use crate::svsm_calls::Form;
use crate::vcpu::{Cpu, WokenBy};
use crate::vmcb::event;

const GHCB: u64 = FREE;
const BUFFER: u64 = GHCB + 0x800;
const COMMAND: u64 = 0xFEE0_0300;
const NEW_VMSA: u64 = FREE + 0x4000;
const CREATE: u16 = 1;

/// What the next entries inject, none of which takes place.
fn entries<const N: usize>(bench: &mut Bench, cpu: &mut Cpu) -> [u64; N] {
    [(); N].map(|()| {
        cpu.vcpu_mut().vmcb.control.event_injection = 0;
        assert_eq!(bench.machine.next_step(cpu), Step::Guest);
        cpu.vcpu().vmcb.control.event_injection
    })
}

/// The CPU's VMPL sends itself one.
fn send(bench: &mut Bench, cpu: &Cpu) -> bool {
    bench.machine.send_nmi(cpu, [cpu.apic_id].into_iter())
}

fn count(bench: &Bench) -> [u64; 3] {
    [Event::NmiSent, Event::NmiMerged, Event::NmiInjected]
        .map(|event| bench.machine.counters.events(event))
}

/// A request of `cpu` in the GHCB, with four bytes of data.
fn ask(bench: &mut Bench, cpu: &mut Cpu, code: u64, info_1: u64, data: u64) {
    let page = GuestPhysicalAddress::new(GHCB);
    cpu.vcpu_mut().registered_ghcb = Some(page);
    let set = |field: usize, value| bench.machine.hardware.write_u64(GHCB + field as u64, value);
    set(offset::SW_EXIT_CODE, code);
    set(offset::SW_EXIT_INFO_1, info_1);
    set(offset::SW_EXIT_INFO_2, 4);
    set(offset::SW_SCRATCH, BUFFER);
    set(offset::VALID_BITMAP, u64::MAX);
    set(offset::VALID_BITMAP + 8, u64::MAX);
    set(offset::PROTOCOL_VERSION - 2, 2 << 16);
    bench.machine.hardware.write_u64(BUFFER, data);
    assert_eq!(bench.machine.ghcb_exit(cpu, page), Ok(()));
    let info_1 = GHCB + offset::SW_EXIT_INFO_1 as u64;
    assert_eq!(bench.machine.hardware.read_u64(info_1), 0);
}

fn share_ghcb(bench: &mut Bench) {
    let page = GuestPhysicalAddress::new(GHCB);
    let request = Request::page_state_change(page, PscOperation::Shared);
    assert_eq!(bench.request(request.encode()), 0x15);
}

#[test]
fn the_guest_sends_and_completes_them_by_its_ghcb() {
    let (mut bench, mut other) = running_vmpl2();
    share_ghcb(&mut bench);
    // All but self: CPU 0 is at VMPL 0, and is kicked.
    bench.machine.hardware.woken.borrow_mut().clear();
    ask(
        &mut bench,
        &mut other,
        exit_code::MMIO_WRITE,
        COMMAND,
        0xC_0400,
    );
    assert_eq!(*bench.machine.hardware.woken.borrow(), [0]);
    assert_eq!(bench.machine.hardware.input.get(), 0, "no APIC sees it");
    // All: itself needs no kick, and CPU 0 has one that waits.
    ask(
        &mut bench,
        &mut other,
        exit_code::MMIO_WRITE,
        COMMAND,
        0x8_0400,
    );
    assert_eq!(count(&bench), [3, 0, 0]);
    assert_eq!(entries(&mut bench, &mut other), [0x8000_0202, 0]);
    // Its logical destination is what it wrote.
    bench.machine.hardware.input.set(2 << 24);
    ask(
        &mut bench,
        &mut other,
        exit_code::MMIO_WRITE,
        COMMAND,
        0xC00,
    );
    assert_eq!(count(&bench), [3, 0, 1], "nobody has that one");
    ask(
        &mut bench,
        &mut other,
        exit_code::MMIO_WRITE,
        0xFEE0_00D0,
        2 << 24,
    );
    ask(
        &mut bench,
        &mut other,
        exit_code::MMIO_WRITE,
        COMMAND,
        0xC00,
    );
    assert_eq!(entries(&mut bench, &mut other), [0, 0], "it is blocked");
    ask(&mut bench, &mut other, exit_code::NMI_COMPLETE, 0, 0);
    assert_eq!(entries(&mut bench, &mut other), [event::NMI, 0]);
    assert_eq!(count(&bench), [4, 0, 2]);
    assert_eq!(bench.machine.counters.events(Event::InterruptRefused), 0);
}

#[test]
fn one_more_is_kept_while_one_is_not_complete() {
    let (mut bench, mut other) = running_vmpl2();
    // Two before the first is taken, and no third one.
    for kept in 1..=3 {
        assert!(send(&mut bench, &other));
        assert_eq!(count(&bench), [kept.min(2), kept - kept.min(2), 0]);
    }
    assert_eq!(entries(&mut bench, &mut other), [event::NMI, 0, 0]);
    // One waits, and that is as many as there may be.
    assert!(send(&mut bench, &other));
    assert_eq!(count(&bench), [2, 2, 1]);
    bench.machine.nmi_complete(&other);
    assert_eq!(entries(&mut bench, &mut other), [event::NMI, 0]);
    bench.machine.nmi_complete(&other);
    assert_eq!(entries(&mut bench, &mut other), [0]);
    // Complete with none: nothing comes of it.
    bench.machine.nmi_complete(&other);
    assert_eq!(entries(&mut bench, &mut other), [0]);
}

#[test]
fn vmpl_0_neither_takes_nor_sends_one() {
    let (mut bench, mut other) = running_vmpl2();
    let boot = bench.cpu.clone();
    assert!(!send(&mut bench, &boot), "restricted injection");
    assert_eq!(count(&bench), [0; 3]);
    assert!(send(&mut bench, &other));
    // Before it is taken VMPL 0 runs, for as long as it likes.
    assert_eq!(bench.machine.switch_vmpl(&mut other, 0, Form::Msr), Ok(()));
    assert_eq!(entries(&mut bench, &mut other), [0, 0]);
    other.vcpu_mut().ghcb_msr = response::run_vmpl(0);
    assert_eq!(bench.machine.switch_vmpl(&mut other, 2, Form::Msr), Ok(()));
    assert_eq!(entries(&mut bench, &mut other), [event::NMI, 0]);
    // The same where VMPL 0 is one that takes events: it is the guest's NMI.
    assert!(send(&mut bench, &other));
    assert_eq!(bench.machine.switch_vmpl(&mut other, 0, Form::Msr), Ok(()));
    assert!(!other.vcpu().features.restricted_injection());
    assert_eq!(entries(&mut bench, &mut other), [0, 0]);
    // Nor is the guest complete with it because VMPL 0 says so.
    bench.machine.nmi_complete(&other);
    assert_eq!(bench.machine.switch_vmpl(&mut other, 2, Form::Msr), Ok(()));
    assert_eq!(entries(&mut bench, &mut other), [0, 0]);
    bench.machine.nmi_complete(&other);
    assert_eq!(entries(&mut bench, &mut other), [event::NMI, 0]);
}

#[test]
fn it_comes_behind_an_event_that_is_injected() {
    let (mut bench, mut other) = running_vmpl2();
    assert!(send(&mut bench, &other));
    other.vcpu_mut().vmcb.control.event_injection = event::INVALID_OPCODE;
    assert_eq!(bench.machine.next_step(&mut other), Step::Guest);
    let injected = other.vcpu().vmcb.control.event_injection;
    assert_eq!(injected, event::INVALID_OPCODE);
    assert_eq!(bench.machine.hardware.leaves.get(), 1);
    assert_eq!(entries(&mut bench, &mut other), [event::NMI, 0]);
    assert_eq!(bench.machine.hardware.leaves.get(), 1);
}

#[test]
fn it_ends_a_wait_but_that_of_a_reset_hold() {
    for interrupt_flag in [1 << 9, 0] {
        let (mut bench, mut other) = running_vmpl2();
        assert_ne!(halt(&mut bench, &mut other, interrupt_flag), Step::Guest);
        assert!(send(&mut bench, &other));
        assert_eq!(entries(&mut bench, &mut other), [event::NMI]);
        // One that is blocked does not; its completion is the guest's, which waits.
        assert_ne!(halt(&mut bench, &mut other, interrupt_flag), Step::Guest);
        assert!(send(&mut bench, &other));
        assert_ne!(bench.machine.next_step(&mut other), Step::Guest);
    }
    let (mut bench, mut other) = running_vmpl2();
    other.has_news = false;
    bench.machine.halt(&mut other, WokenBy::Registration);
    assert!(send(&mut bench, &other));
    let held = bench.machine.next_step(&mut other);
    assert_eq!(held, Step::Wait { interrupts: false });
}

#[test]
fn who_cannot_take_it_is_not_kicked() {
    let (mut bench, mut other) = running_vmpl2();
    let mut sender = bench.cpu.clone();
    sender.current = Vmpl::Vmpl2;
    let woken = |bench: &mut Bench| {
        bench.machine.hardware.woken.borrow_mut().clear();
        assert!(bench.machine.send_nmi(&sender, [1].into_iter()));
        bench.machine.hardware.woken.borrow().clone()
    };
    assert_eq!(woken(&mut bench), [1]);
    assert_eq!(entries(&mut bench, &mut other), [event::NMI]);
    assert_eq!(woken(&mut bench), []);
}

#[test]
fn a_new_vmsa_knows_nothing_of_what_was_pending() {
    let (mut bench, mut other) = running_vmpl2();
    assert!(send(&mut bench, &other));
    bench.vmsa(NEW_VMSA, 2);
    assert!(bench.start(CREATE, 2, 1, NEW_VMSA));
    // What comes before the CPU has looked is the new one's.
    assert!(send(&mut bench, &other));
    assert_eq!(entries(&mut bench, &mut other), [event::NMI]);
    bench.machine.nmi_complete(&other);
    assert_eq!(entries(&mut bench, &mut other), [0]);
    assert_eq!(
        other.at(Vmpl::Vmpl2).vmsa.map(GuestPhysicalAddress::bits),
        Some(NEW_VMSA)
    );
}
