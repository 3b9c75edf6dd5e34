// SPDX-License-Identifier: MIT OR Apache-2.0
//! The machine's own rules.

use snp::address::{GuestPhysicalAddress, PageSize, Vmpl};
use snp::operands::{RmpAdjustTarget, RmpPermissions};
use snp::psc::{PscDescriptor, PscEntry, PscHeader, PscOperation};
use svsm_swiotlb::platform::{Fault, GuestMemory, HostPages, Issue, PageInstructions};

use super::{AccessFault, Machine};
use crate::access::AccessOutcome;
use crate::layout::Range;

const PAGE: GuestPhysicalAddress = GuestPhysicalAddress::new(0x20_0000);
const NEXT: GuestPhysicalAddress = GuestPhysicalAddress::new(0x20_1000);
const ALL: RmpPermissions = RmpPermissions::READ_WRITE_EXECUTE;

fn machine() -> Machine {
    Machine::new(&[Range {
        base: 0,
        bytes: 4 << 20,
    }])
}

fn share(machine: &Machine, operation: PscOperation) -> PscDescriptor {
    let mut descriptor = PscDescriptor::new();
    descriptor.header = PscHeader::default();
    descriptor.entries[0] = PscEntry::request(PAGE, PageSize::Size2M, operation);
    machine.page_state_change(&mut descriptor, Issue::First);
    descriptor
}

fn make_private(machine: &Machine) {
    share(machine, PscOperation::Private);
    machine.pvalidate(PAGE, PageSize::Size2M, true).unwrap();
}

fn grant(machine: &Machine, page: GuestPhysicalAddress, permissions: RmpPermissions) {
    let target = RmpAdjustTarget::grant(Vmpl::Vmpl2, permissions);
    machine.rmpadjust(page, PageSize::Size4K, target).unwrap();
}

fn host_reads(machine: &Machine) -> [u8; 8] {
    let mut seen = [0; 8];
    machine.device_read(PAGE, &mut seen).unwrap();
    seen
}

#[test]
fn the_host_reads_private_memory_encrypted_and_cannot_write_to_it() {
    let machine = machine();
    make_private(&machine);
    machine.write(PAGE, b"a secret").unwrap();
    let seen = host_reads(&machine);
    assert_ne!(&seen, b"a secret");
    assert_eq!(machine.host_finds(b"a secret"), None);
    machine.write(PAGE, b"a SECRET").unwrap();
    assert_ne!(host_reads(&machine), seen, "a change shows");
    let (mut private, mut shared) = ([0; 6], [0; 6]);
    machine.read(NEXT, &mut private).unwrap();
    machine.device_read(NEXT, &mut shared).unwrap();
    assert_ne!(private, shared, "nor is an untouched page what it seems");
    assert_eq!(
        machine.device_write(PAGE, b"attack"),
        Err(AccessFault::GuestOwned)
    );
    machine.read(PAGE, &mut private).unwrap();
    assert_eq!(&private, b"a SECR");
}

#[test]
fn a_conversion_leaves_the_bits() {
    let machine = machine();
    make_private(&machine);
    // At an odd place, in two pieces.
    machine.write(PAGE, b"a se").unwrap();
    let rest = PAGE.checked_add(4).unwrap();
    machine.write(rest, b"cret").unwrap();
    let encrypted = host_reads(&machine);
    share(&machine, PscOperation::Shared);
    assert_eq!(machine.read(PAGE, &mut [0; 6]), Err(Fault));
    assert_eq!(host_reads(&machine), encrypted, "what the key has left");
    make_private(&machine);
    let mut seen = [0; 8];
    machine.read(PAGE, &mut seen).unwrap();
    assert_eq!(&seen, b"a secret", "zeroing is not the hardware's");
    share(&machine, PscOperation::Shared);
    machine.device_write(PAGE, b"public").unwrap();
    make_private(&machine);
    machine.read(PAGE, &mut seen).unwrap();
    assert_ne!(&seen[..6], b"public");
    assert_eq!(&seen[6..], b"et");
}

#[test]
fn without_encryption_the_host_finds_what_the_guest_wrote() {
    let machine = machine();
    machine.encrypt_no_more();
    make_private(&machine);
    machine.write(NEXT, b"a secret").unwrap();
    assert_eq!(machine.host_finds(b"a secret"), Some(NEXT.bits()));
    machine.zero(NEXT, PageSize::Size4K).unwrap();
    assert_eq!(machine.host_finds(b"a secret"), None);
}

#[test]
fn repeating_a_change_changes_nothing() {
    let machine = machine();
    make_private(&machine);
    machine.write(PAGE, b"secret").unwrap();
    share(&machine, PscOperation::Private);
    let mut seen = [0; 6];
    machine.read(PAGE, &mut seen).unwrap();
    assert_eq!(&seen, b"secret");
    assert_eq!(machine.counters().pages_private, 512);
    assert_eq!(machine.counters().psc_exits, 2);
}

#[test]
fn a_frame_is_behind_one_page() {
    let machine = machine();
    machine.launch(PAGE, 0x2000);
    machine.write(PAGE, b"one").unwrap();
    machine.write(NEXT, b"two").unwrap();
    let seen = |page| {
        let mut seen = [0; 3];
        machine.read(page, &mut seen).map(|()| seen)
    };
    assert!(machine.host_remaps(PAGE, NEXT));
    assert_eq!(
        [seen(PAGE), seen(NEXT)],
        [Err(Fault); 2],
        "neither is valid"
    );
    machine.pvalidate(PAGE, PageSize::Size4K, true).unwrap();
    assert_eq!(seen(PAGE), Ok(*b"two"), "with its key");
    assert_eq!(seen(NEXT), Err(Fault));
    assert!(machine.host_changes(NEXT, PageSize::Size4K, PscOperation::Private));
    machine.pvalidate(NEXT, PageSize::Size4K, true).unwrap();
    assert_eq!(seen(NEXT), Ok(*b"one"));
}

#[test]
fn a_lower_level_needs_a_grant() {
    let machine = machine();
    machine.launch(PAGE, 0x1000);
    let refused = AccessFault::Refused(AccessOutcome::VmplViolation);
    let read = || machine.guest_read(Vmpl::Vmpl2, true, PAGE, &mut [0]);
    assert_eq!(read(), Err(refused));
    grant(&machine, PAGE, RmpPermissions::READ);
    assert_eq!(read(), Ok(()));
}

#[test]
fn a_grant_without_zeroing_is_noticed() {
    let machine = machine();
    make_private(&machine);
    for (page, zeroed) in [(PAGE, true), (NEXT, false)] {
        if zeroed {
            machine.zero(page, PageSize::Size4K).unwrap();
        }
        assert_eq!(machine.granted_with_contents(), None);
        grant(&machine, page, ALL);
    }
    assert_eq!(machine.granted_with_contents(), Some(NEXT.bits()));
}

#[test]
fn a_processor_goes_by_its_translation_until_the_flush() {
    let machine = machine();
    machine.launch(PAGE, 0x1000);
    grant(&machine, PAGE, ALL);
    let [first, second] = [0, 1].map(|number| machine.processor(number));
    let write = |bytes: &[u8]| first.write(Vmpl::Vmpl2, true, PAGE, bytes);
    let refused = |outcome| Err(AccessFault::Refused(outcome));
    assert_eq!(write(b"old"), Ok(()));
    grant(&machine, PAGE, RmpPermissions::NONE);
    assert_eq!(machine.stronger_translation(), Some(PAGE.bits()));
    let other = second.read(Vmpl::Vmpl2, true, PAGE, &mut [0; 3]);
    assert_eq!(other, refused(AccessOutcome::VmplViolation), "it had none");
    machine.pvalidate(PAGE, PageSize::Size4K, false).unwrap();
    machine.host_changes(PAGE, PageSize::Size4K, PscOperation::Shared);
    machine.device_write(PAGE, b"public").unwrap();
    assert_eq!(write(b"stale"), Ok(()), "it lands in what is shared");
    assert_ne!(&host_reads(&machine)[..6], b"public");
    machine.flush();
    assert_eq!(machine.stronger_translation(), None);
    assert_eq!(write(b"late"), refused(AccessOutcome::NotAssigned));
}

#[test]
fn a_translation_for_reading_is_not_one_for_writing() {
    let machine = machine();
    machine.launch(PAGE, 0x1000);
    grant(&machine, PAGE, RmpPermissions::READ);
    let processor = machine.processor(0);
    let write = || processor.write(Vmpl::Vmpl2, true, PAGE, b"new");
    processor.read(Vmpl::Vmpl2, true, PAGE, &mut [0]).unwrap();
    let refused = AccessFault::Refused(AccessOutcome::VmplViolation);
    assert_eq!(write(), Err(refused));
    grant(&machine, PAGE, ALL);
    assert_eq!(write(), Ok(()), "a fault walks again");
    // A frame that the host has put elsewhere is still where the translation leads.
    assert!(machine.host_remaps(PAGE, NEXT));
    assert_eq!(machine.stronger_translation(), Some(PAGE.bits()));
    assert_eq!(write(), Ok(()));
}

#[test]
fn the_nth_call_fails_once() {
    let machine = machine();
    machine.launch(PAGE, 0x1000);
    machine.fail_platform_call(2);
    assert_eq!(machine.write(PAGE, b"a"), Ok(()));
    assert_eq!(machine.write(PAGE, b"b"), Err(Fault));
    assert_eq!(machine.write(PAGE, b"c"), Ok(()));
    assert_eq!(machine.counters().guest_writes, 3);
    assert_eq!(machine.counters().guest_reads, 0);
}
