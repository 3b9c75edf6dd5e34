// SPDX-License-Identifier: MIT OR Apache-2.0
//! What an access of a guest does (APM volume 2, 15.36.10 and table 15-39).

use snp::address::Vmpl;

use crate::rmp::RmpEntry;

/// Kinds of accesses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessKind {
    /// Data read.
    Read,
    /// Data write.
    Write,
    /// Instruction fetch: always private.
    Execute,
    /// A read of a guest page table: always private.
    TableWalk,
}

/// Which bytes an address means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    /// Encrypted with the guest's key.
    Private,
    /// What the host and devices see.
    Shared,
}

/// What becomes of an access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessOutcome {
    /// It happens, on this view.
    Allowed(View),
    /// #VC 0x404 in the guest.
    NotValidated,
    /// Nested page fault with the VMPL bit: the host cannot resolve it.
    VmplViolation,
    /// A write to the VMSA of a vCPU that runs at this moment: nested page fault, again until the vCPU has stopped
    /// (APM volume 2, 15.36.10). The host sees a guest that stalls.
    InUse,
    /// Private access to a page the guest does not own: nested page fault.
    NotAssigned,
    /// Shared access to a page the guest owns. Hardware lets reads see ciphertext; no guest has a
    /// use for that, so the model reports both directions.
    SharedAccessToPrivate,
}

/// The outcome for a page with this entry.
pub fn access(entry: &RmpEntry, vmpl: Vmpl, c_bit: bool, kind: AccessKind) -> AccessOutcome {
    let private = c_bit || matches!(kind, AccessKind::Execute | AccessKind::TableWalk);
    if !private {
        return if entry.assigned {
            AccessOutcome::SharedAccessToPrivate
        } else {
            AccessOutcome::Allowed(View::Shared)
        };
    }
    if !entry.assigned {
        return AccessOutcome::NotAssigned;
    }
    if !entry.validated {
        return AccessOutcome::NotValidated;
    }
    if entry.in_use && kind == AccessKind::Write {
        return AccessOutcome::InUse;
    }
    let permissions = entry.permissions(vmpl);
    let allowed = match kind {
        AccessKind::Read | AccessKind::TableWalk => permissions.read(),
        AccessKind::Write => permissions.write(),
        AccessKind::Execute => permissions.execute_supervisor() || permissions.execute_user(),
    };
    if allowed {
        AccessOutcome::Allowed(View::Private)
    } else {
        AccessOutcome::VmplViolation
    }
}

#[cfg(test)]
mod tests {
    use snp::address::PageSize;
    use snp::operands::{RmpAdjustTarget, RmpPermissions};

    use super::*;
    use crate::rmp::Rmp;

    #[test]
    fn a_vmsa_in_use_is_read_and_not_written() {
        let mut entries = [RmpEntry::default()];
        let mut rmp = Rmp::new(&mut entries);
        rmp.rmpupdate(0, PageSize::Size4K, true);
        rmp.pvalidate(0, PageSize::Size4K, true, Vmpl::Vmpl0);
        let vmsa = RmpAdjustTarget::grant(Vmpl::Vmpl2, RmpPermissions::READ).with_vmsa(true);
        rmp.rmpadjust(0, PageSize::Size4K, vmsa, Vmpl::Vmpl0);
        let by_vmpl0 = |rmp: &Rmp<'_>, kind| access(rmp.entry(0).unwrap(), Vmpl::Vmpl0, true, kind);
        let allowed = AccessOutcome::Allowed(View::Private);
        assert_eq!(by_vmpl0(&rmp, AccessKind::Write), allowed);
        assert!(rmp.set_in_use(0, true));
        assert_eq!(by_vmpl0(&rmp, AccessKind::Write), AccessOutcome::InUse);
        assert_eq!(by_vmpl0(&rmp, AccessKind::Read), allowed);
        assert!(rmp.set_in_use(0, false));
        assert_eq!(by_vmpl0(&rmp, AccessKind::Write), allowed);
    }

    #[test]
    fn every_state_of_a_page() {
        let mut entries = [RmpEntry::default()];
        let mut rmp = Rmp::new(&mut entries);
        let check =
            |rmp: &Rmp<'_>, vmpl, c_bit, kind| access(rmp.entry(0).unwrap(), vmpl, c_bit, kind);
        use AccessKind::{Execute, Read, TableWalk, Write};
        use Vmpl::{Vmpl0, Vmpl2};

        assert_eq!(
            check(&rmp, Vmpl2, false, Write),
            AccessOutcome::Allowed(View::Shared)
        );
        assert_eq!(check(&rmp, Vmpl2, true, Read), AccessOutcome::NotAssigned);
        assert_eq!(
            check(&rmp, Vmpl2, false, Execute),
            AccessOutcome::NotAssigned
        );

        rmp.rmpupdate(0, PageSize::Size4K, true);
        assert_eq!(check(&rmp, Vmpl0, true, Read), AccessOutcome::NotValidated);
        assert_eq!(
            check(&rmp, Vmpl0, false, Read),
            AccessOutcome::SharedAccessToPrivate
        );

        rmp.pvalidate(0, PageSize::Size4K, true, Vmpl0);
        assert_eq!(
            check(&rmp, Vmpl0, true, Write),
            AccessOutcome::Allowed(View::Private)
        );
        assert_eq!(check(&rmp, Vmpl2, true, Read), AccessOutcome::VmplViolation);

        let read = RmpAdjustTarget::grant(Vmpl2, RmpPermissions::READ);
        rmp.rmpadjust(0, PageSize::Size4K, read, Vmpl0);
        assert_eq!(
            check(&rmp, Vmpl2, false, TableWalk),
            AccessOutcome::Allowed(View::Private)
        );
        assert_eq!(
            check(&rmp, Vmpl2, true, Write),
            AccessOutcome::VmplViolation
        );
        assert_eq!(
            check(&rmp, Vmpl2, true, Execute),
            AccessOutcome::VmplViolation
        );
    }
}
