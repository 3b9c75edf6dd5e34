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
fn a_running_vmsa_is_out_of_reach() {
    let mut entries = entries();
    let mut rmp = Rmp::new(&mut entries);
    rmp.pvalidate(600, PageSize::Size4K, true, Vmpl::Vmpl0);
    assert!(!rmp.set_in_use(600, true), "not a VMSA yet");
    let vmsa = RmpAdjustTarget::grant(Vmpl::Vmpl2, RmpPermissions::READ).with_vmsa(true);
    rmp.rmpadjust(600, PageSize::Size4K, vmsa, Vmpl::Vmpl0);
    assert!(rmp.set_in_use(600, true));
    assert!(!rmp.set_in_use(600, true), "one processor at a time");
    let revoke = RmpAdjustTarget::revoke(Vmpl::Vmpl2);
    assert_eq!(
        rmp.rmpadjust(600, PageSize::Size4K, revoke, Vmpl::Vmpl0),
        Outcome::Done(InstructionCode::FAIL_INUSE)
    );
    assert!(rmp.entry(600).unwrap().vmsa);
    assert!(rmp.set_in_use(600, false));
    assert_eq!(
        rmp.rmpadjust(600, PageSize::Size4K, revoke, Vmpl::Vmpl0),
        Outcome::Done(InstructionCode::SUCCESS)
    );
    assert!(!rmp.entry(600).unwrap().vmsa);
}

#[test]
fn a_level_cannot_grant_more_than_it_has() {
    let mut entries = entries();
    let mut rmp = Rmp::new(&mut entries);
    rmp.pvalidate(600, PageSize::Size4K, true, Vmpl::Vmpl0);
    let read = |vmpl| RmpAdjustTarget::grant(vmpl, RmpPermissions::READ);
    rmp.rmpadjust(600, PageSize::Size4K, read(Vmpl::Vmpl1), Vmpl::Vmpl0);
    let mut adjust = |target| rmp.rmpadjust(600, PageSize::Size4K, target, Vmpl::Vmpl1);
    assert_eq!(
        adjust(read(Vmpl::Vmpl2)),
        Outcome::Done(InstructionCode::SUCCESS)
    );
    assert_eq!(
        adjust(GRANT),
        Outcome::Done(InstructionCode::FAIL_PERMISSION)
    );
    assert_eq!(
        rmp.entry(600).unwrap().permissions(Vmpl::Vmpl2),
        RmpPermissions::READ
    );
}

#[test]
fn a_query_shows_what_an_adjustment_set() {
    let mut entries = entries();
    let mut rmp = Rmp::new(&mut entries);
    let query = |rmp: &Rmp<'_>, index, target| rmp.rmpquery(index, target, Vmpl::Vmpl0);
    rmp.pvalidate(0, PageSize::Size2M, true, Vmpl::Vmpl0);
    rmp.rmpadjust(0, PageSize::Size2M, GRANT, Vmpl::Vmpl0);
    assert_eq!(
        query(&rmp, 5, Vmpl::Vmpl2),
        Outcome::Done(Ok((GRANT, PageSize::Size2M)))
    );
    assert_eq!(
        query(&rmp, 5, Vmpl::Vmpl0),
        Outcome::Done(Err(InstructionCode::FAIL_PERMISSION))
    );
    rmp.rmpupdate(5, PageSize::Size4K, false);
    assert_eq!(query(&rmp, 5, Vmpl::Vmpl2), Outcome::NotAssigned);
    assert_eq!(query(&rmp, 4096, Vmpl::Vmpl2), Outcome::NoPage);
}

#[test]
fn taking_a_part_of_a_large_entry_keeps_the_rest() {
    let mut entries = entries();
    let mut rmp = Rmp::new(&mut entries);
    rmp.pvalidate(0, PageSize::Size2M, true, Vmpl::Vmpl0);
    assert!(rmp.rmpupdate(7, PageSize::Size4K, false));
    assert_eq!(*rmp.entry(7).unwrap(), RmpEntry::default());
    assert!(rmp.entry(8).unwrap().validated && !rmp.entry(8).unwrap().large);
    assert!(rmp.rmpupdate(0, PageSize::Size2M, true));
    let filled = rmp.entry(7).unwrap();
    assert!(filled.assigned && !filled.validated && !filled.large);
    assert!(
        rmp.entry(8).unwrap().validated,
        "assigned pages stay as they were"
    );
}

#[test]
fn launch_pages_are_ready_for_vmpl0_only() {
    let mut entries = entries();
    let mut rmp = Rmp::new(&mut entries);
    assert!(rmp.set_launch_page(5) && !rmp.set_launch_page(4096));
    let entry = rmp.entry(5).unwrap();
    assert!(entry.assigned && entry.validated && !entry.large);
    assert_eq!(entry.permissions(Vmpl::Vmpl1), RmpPermissions::NONE);
    assert!(!rmp.entry(6).unwrap().large && rmp.entry(6).unwrap().assigned);
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

/// One thing a guest or the host does to the table.
#[derive(Clone, Copy, Debug)]
enum Operation {
    Pvalidate {
        validate: bool,
        caller: Vmpl,
    },
    RmpAdjust {
        target: RmpAdjustTarget,
        caller: Vmpl,
    },
    RmpUpdate {
        assign: bool,
    },
    Psmash,
    Launch,
}

type Step = (Operation, usize, PageSize);

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let level = || prop::sample::select(Vmpl::ALL.to_vec());
    let permissions = prop::sample::select(vec![
        RmpPermissions::NONE,
        RmpPermissions::READ,
        RmpPermissions::READ_WRITE_EXECUTE,
    ]);
    let operation = prop_oneof![
        3 => (any::<bool>(), level())
            .prop_map(|(validate, caller)| Operation::Pvalidate { validate, caller }),
        6 => (level(), permissions, any::<bool>(), level()).prop_map(
            |(vmpl, permissions, vmsa, caller)| Operation::RmpAdjust {
                target: RmpAdjustTarget::grant(vmpl, permissions).with_vmsa(vmsa),
                caller,
            }
        ),
        1 => any::<bool>().prop_map(|assign| Operation::RmpUpdate { assign }),
        1 => Just(Operation::Psmash),
        1 => Just(Operation::Launch),
    ];
    // Few pages, so that operations meet: the starts of the large block and of the small one.
    let page = prop_oneof![0_usize..4, 512_usize..516];
    let size = prop_oneof![4 => Just(PageSize::Size4K), 1 => Just(PageSize::Size2M)];
    prop::collection::vec((operation, page, size), 1..200)
}

fn apply(rmp: &mut Rmp<'_>, (operation, index, size): Step) {
    match operation {
        Operation::Pvalidate { validate, caller } => {
            rmp.pvalidate(index, size, validate, caller);
        }
        Operation::RmpAdjust { target, caller } => {
            rmp.rmpadjust(index, size, target, caller);
        }
        Operation::RmpUpdate { assign } => {
            rmp.rmpupdate(index, size, assign);
        }
        Operation::Psmash => rmp.psmash(index),
        Operation::Launch => {
            rmp.set_launch_page(index);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 4 } else { 256 }))]

    /// Whatever is executed, a page the host owns is never validated and never a VMSA, and large
    /// entries come in whole blocks.
    #[test]
    fn no_sequence_validates_a_shared_page(steps in steps()) {
        let mut entries = entries();
        let mut rmp = Rmp::new(&mut entries);
        for step in steps {
            apply(&mut rmp, step);
        }
        for entry in &entries {
            prop_assert!(entry.assigned || *entry == RmpEntry::default());
        }
        for block in entries.chunks(512) {
            prop_assert!(block.iter().all(|entry| entry.large == block[0].large));
            prop_assert!(!block[0].large || block.iter().all(|entry| entry == &block[0]));
        }
    }

    /// Only PVALIDATE at VMPL 0 and the launch validate a page, only VMPL 0 makes a VMSA, and no
    /// level changes its own permissions, those of a more privileged one, or grants what it lacks.
    #[test]
    fn privilege_comes_from_vmpl0(steps in steps()) {
        let mut entries = entries();
        let mut rmp = Rmp::new(&mut entries);
        for step in steps {
            let (operation, index, _) = step;
            let old = *rmp.entry(index).unwrap();
            apply(&mut rmp, step);
            let new = *rmp.entry(index).unwrap();
            let by_vmpl0 = matches!(
                operation,
                Operation::Pvalidate { caller: Vmpl::Vmpl0, .. }
                    | Operation::RmpAdjust { caller: Vmpl::Vmpl0, .. }
                    | Operation::Launch
            );
            prop_assert!(by_vmpl0 || !new.validated || old.validated, "{step:?}");
            prop_assert!(by_vmpl0 || !new.vmsa || old.vmsa, "{step:?}");
            if let Operation::RmpAdjust { caller, .. } = operation {
                for vmpl in Vmpl::ALL {
                    let (before, after) = (old.permissions(vmpl), new.permissions(vmpl));
                    if vmpl <= caller {
                        prop_assert_eq!(before, after, "{:?}", step);
                    } else {
                        let own = old.permissions(caller);
                        prop_assert!(before == after || after.within(own), "{step:?}");
                    }
                }
            }
        }
    }
}
