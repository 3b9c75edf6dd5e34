// SPDX-License-Identifier: MIT OR Apache-2.0
//! What firmware needs that a guest in 64-bit mode does not.

use snp::address::GuestPhysicalAddress;
use snp::ghcb_msr::Request;
use snp::vmsa::VmsaSegment;

use super::bench::{Bench, CODE, DESCRIPTORS, FREE, HANDLER, STACK};
use crate::record::ExitCode;
use crate::switches::Switches;
use crate::vmcb::exit_code;

/// A guest in protected mode without paging, as after its launch, with a #VC gate of 8 bytes.
fn protected_mode() -> Bench {
    let mut bench = Bench::launched(Switches::new(), &[]).unwrap();
    // A code segment whose base is 0x0012_3000.
    bench.poke(DESCRIPTORS + 8, 0x00CF_9B12_3000_FFFF);
    let gate = (HANDLER & 0xFFFF) | (8 << 16) | (0x8E00 << 32) | ((HANDLER >> 16) << 48);
    bench.poke(DESCRIPTORS + 0x100 + 29 * 8, gate);
    let save = &mut bench.cpu.vcpu_mut().vmcb.save;
    save.gdtr.base = DESCRIPTORS;
    save.idtr.base = DESCRIPTORS + 0x100;
    save.idtr.limit = 30 * 8 - 1;
    save.ss.base = 0;
    save.cs.selector = 0x38;
    save.rsp = STACK + 0x1000;
    save.rflags = 0x202;
    bench
}

#[test]
fn protected_mode_gets_four_words_on_its_own_stack() {
    let mut bench = protected_mode();
    assert_eq!(bench.exit(exit_code::CPUID, 0, 0), Ok(()));
    let save = &bench.cpu.vcpu().vmcb.save;
    assert_eq!((save.rip, save.rsp), (HANDLER, STACK + 0xFF0));
    assert_eq!((save.cs.selector, save.cs.base), (8, 0x0012_3000));
    assert_eq!(save.cs.attributes, VmsaSegment::CODE_32);
    assert_eq!(save.rflags & (1 << 9), 0, "an interrupt gate");
    assert_eq!(bench.peek(STACK + 0xFF0), (CODE << 32) | exit_code::CPUID);
    assert_eq!(bench.peek(STACK + 0xFF8), (0x1_0202 << 32) | 0x38);
}

#[test]
fn an_exception_without_a_gate_or_in_real_mode_ends_the_machine() {
    let mut bench = protected_mode();
    bench.cpu.vcpu_mut().vmcb.save.idtr.limit -= 1;
    assert_eq!(bench.exit(exit_code::CPUID, 0, 0), Err(ExitCode::Died));
    let mut bench = protected_mode();
    bench.cpu.vcpu_mut().vmcb.save.cr0 &= !1;
    assert_eq!(bench.exit(exit_code::CPUID, 0, 0), Err(ExitCode::Died));
    assert!(bench.records().contains("undeliverable-vc"));
}

#[test]
fn a_ghcb_that_was_never_private_is_shared_by_its_registration() {
    let mut bench = Bench::new();
    bench.request(Request::RegisterGhcb(GuestPhysicalAddress::new(FREE)).encode());
    assert_eq!(bench.machine.shared_view.shared_bytes(), 4096);
    // A private page stays what it is: its GHCB is refused later.
    let private = GuestPhysicalAddress::new(CODE);
    bench.request(Request::RegisterGhcb(private).encode());
    assert_eq!(bench.machine.shared_view.shared_bytes(), 4096);
}
