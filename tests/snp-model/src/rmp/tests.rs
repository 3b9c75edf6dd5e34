// SPDX-License-Identifier: MIT OR Apache-2.0
use std::vec;
use std::vec::Vec;

use proptest::prelude::*;

use super::*;

const GRANT: RmpAdjustTarget =
    RmpAdjustTarget::grant(Vmpl::Vmpl2, RmpPermissions::READ_WRITE_EXECUTE);

fn validated(code: InstructionCode, unchanged: bool) -> Outcome<PvalidateResult> {
    Outcome::Done(PvalidateResult { code, unchanged })
}

/// Two large blocks; the first assigned large, the second small.
fn entries() -> Vec<RmpEntry> {
    let mut entries = vec![RmpEntry::default(); 1024];
    let mut rmp = Rmp::new(&mut entries);
    assert!(rmp.rmpupdate(0, PageSize::Size2M, true));
    for index in 512..1024 {
        assert!(rmp.rmpupdate(index, PageSize::Size4K, true));
    }
    entries
}

#[test]
fn pvalidate_result_codes() {
    let mut entries = entries();
    let mut rmp = Rmp::new(&mut entries);
    let mut pvalidate = |index, size, on| rmp.pvalidate(index, size, on, Vmpl::Vmpl0);
    use InstructionCode as Code;
    use PageSize::{Size2M, Size4K};
    assert_eq!(
        pvalidate(512, Size2M, true),
        validated(Code::FAIL_SIZEMISMATCH, false)
    );
    assert_eq!(
        pvalidate(513, Size2M, true),
        validated(Code::FAIL_INPUT, false)
    );
    assert_eq!(pvalidate(7, Size4K, true), Outcome::NeedsSmash);
    assert_eq!(pvalidate(0, Size2M, true), validated(Code::SUCCESS, false));
    assert_eq!(pvalidate(0, Size2M, true), validated(Code::SUCCESS, true));
    assert_eq!(
        pvalidate(512, Size4K, true),
        validated(Code::SUCCESS, false)
    );
    assert_eq!(
        pvalidate(513, Size4K, false),
        validated(Code::SUCCESS, true)
    );
    assert_eq!(pvalidate(4096, Size4K, true), Outcome::NoPage);
}

#[test]
fn only_vmpl0_validates() {
    let mut entries = entries();
    let mut rmp = Rmp::new(&mut entries);
    let outcome = rmp.pvalidate(600, PageSize::Size4K, true, Vmpl::Vmpl2);
    assert_eq!(outcome, validated(InstructionCode::FAIL_PERMISSION, false));
    assert!(!rmp.entry(600).unwrap().validated);
}

#[test]
fn rescinding_keeps_the_permissions() {
    let mut entries = entries();
    let mut rmp = Rmp::new(&mut entries);
    rmp.pvalidate(600, PageSize::Size4K, true, Vmpl::Vmpl0);
    rmp.rmpadjust(600, PageSize::Size4K, GRANT, Vmpl::Vmpl0);
    rmp.pvalidate(600, PageSize::Size4K, false, Vmpl::Vmpl0);
    let entry = rmp.entry(600).unwrap();
    assert!(!entry.validated);
    assert_eq!(
        entry.permissions(Vmpl::Vmpl2),
        RmpPermissions::READ_WRITE_EXECUTE
    );
}

#[test]
fn rmpupdate_clears_what_the_guest_did() {
    let mut entries = entries();
    let mut rmp = Rmp::new(&mut entries);
    rmp.pvalidate(600, PageSize::Size4K, true, Vmpl::Vmpl0);
    rmp.rmpadjust(600, PageSize::Size4K, GRANT.with_vmsa(true), Vmpl::Vmpl0);
    assert!(rmp.entry(600).unwrap().vmsa);
    assert!(
        rmp.rmpupdate(600, PageSize::Size4K, true),
        "assigning again is no change"
    );
    assert!(rmp.entry(600).unwrap().validated);
    rmp.rmpupdate(600, PageSize::Size4K, false);
    rmp.rmpupdate(600, PageSize::Size4K, true);
    assert_eq!(*rmp.entry(600).unwrap(), RmpEntry::assigned(false));
}

#[test]
fn rmpadjust_result_codes() {
    let mut entries = entries();
    let mut rmp = Rmp::new(&mut entries);
    let small = PageSize::Size4K;
    let code = Outcome::Done;
    assert_eq!(
        rmp.rmpadjust(600, small, GRANT, Vmpl::Vmpl0),
        Outcome::NotValidated
    );
    rmp.pvalidate(600, small, true, Vmpl::Vmpl0);
    let mut adjust = |target, caller| rmp.rmpadjust(600, small, target, caller);
    let write_only = RmpPermissions::new().with_write(true);
    let malformed = RmpAdjustTarget::grant(Vmpl::Vmpl2, write_only);
    assert_eq!(
        adjust(malformed, Vmpl::Vmpl0),
        code(InstructionCode::FAIL_INPUT)
    );
    let itself = RmpAdjustTarget::revoke(Vmpl::Vmpl2);
    assert_eq!(
        adjust(itself, Vmpl::Vmpl2),
        code(InstructionCode::FAIL_PERMISSION)
    );
    assert_eq!(
        adjust(GRANT.with_vmpl(9), Vmpl::Vmpl0),
        code(InstructionCode::FAIL_INPUT)
    );
    assert_eq!(
        adjust(GRANT, Vmpl::Vmpl1),
        code(InstructionCode::FAIL_PERMISSION)
    );
    assert_eq!(adjust(GRANT, Vmpl::Vmpl0), code(InstructionCode::SUCCESS));
    assert_eq!(
        rmp.rmpadjust(0, PageSize::Size4K, GRANT, Vmpl::Vmpl0),
        Outcome::NeedsSmash
    );
}

#[test]
fn only_vmpl0_makes_a_vmsa() {
    let mut entries = entries();
    let mut rmp = Rmp::new(&mut entries);
    rmp.pvalidate(600, PageSize::Size4K, true, Vmpl::Vmpl0);
    let all = RmpAdjustTarget::grant(Vmpl::Vmpl1, RmpPermissions::READ_WRITE_EXECUTE);
    rmp.rmpadjust(600, PageSize::Size4K, all, Vmpl::Vmpl0);
    let vmsa = GRANT.with_vmsa(true);
    let outcome = rmp.rmpadjust(600, PageSize::Size4K, vmsa, Vmpl::Vmpl1);
    assert_eq!(outcome, Outcome::Done(InstructionCode::SUCCESS));
    assert!(!rmp.entry(600).unwrap().vmsa);
}

#[test]
fn a_smash_keeps_state_and_ends_large_operations() {
    let mut entries = entries();
    let mut rmp = Rmp::new(&mut entries);
    rmp.pvalidate(0, PageSize::Size2M, true, Vmpl::Vmpl0);
    rmp.psmash(300);
    assert!(rmp.entry(511).unwrap().validated && !rmp.entry(511).unwrap().large);
    let outcome = rmp.pvalidate(0, PageSize::Size2M, false, Vmpl::Vmpl0);
    assert_eq!(
        outcome,
        validated(InstructionCode::FAIL_SIZEMISMATCH, false)
    );
    assert!(!rmp.rmpupdate(1, PageSize::Size2M, true));
}

proptest! {
    /// Whatever is executed, a page the host owns is never validated and never a VMSA, and large
    /// entries come in whole blocks.
    #[test]
    fn no_sequence_validates_a_shared_page(
        operations in prop::collection::vec((0_u8..5, 0_usize..1024, any::<bool>(), any::<bool>(), 0_u8..3), 1..200),
    ) {
        let mut entries = entries();
        let mut rmp = Rmp::new(&mut entries);
        for (operation, index, large, flag, caller) in operations {
            let size = if large { PageSize::Size2M } else { PageSize::Size4K };
            let caller = Vmpl::try_from(caller).unwrap();
            match operation {
                0 => { rmp.pvalidate(index, size, flag, caller); }
                1 => { rmp.rmpadjust(index, size, GRANT.with_vmsa(flag), caller); }
                2 => { rmp.rmpupdate(index, size, flag); }
                3 => rmp.psmash(index),
                _ => { rmp.set_launch_page(index); }
            }
            if operation == 4 {
                // A launch page inside a large entry: the launch never does that.
                rmp.psmash(index);
            }
        }
        for entry in &entries {
            prop_assert!(entry.assigned || *entry == RmpEntry::default());
        }
        for block in entries.chunks(512) {
            prop_assert!(block.iter().all(|entry| entry.large == block[0].large));
            prop_assert!(!block[0].large || block.iter().all(|entry| entry == &block[0]));
        }
    }
}
