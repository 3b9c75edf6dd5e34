// SPDX-License-Identifier: MIT OR Apache-2.0
//! Operands and results of PVALIDATE and RMPADJUST (APM volume 3).

use bitfield_struct::bitfield;

use crate::address::Vmpl;

/// What a VMPL may do with a page: bits 15:8 of RMPADJUST's RDX.
#[bitfield(u8)]
#[derive(PartialEq, Eq)]
pub struct RmpPermissions {
    /// Read.
    pub read: bool,
    /// Write; needs read.
    pub write: bool,
    /// Execute in user mode.
    pub execute_user: bool,
    /// Execute in supervisor mode.
    pub execute_supervisor: bool,
    /// Supervisor shadow stack.
    pub shadow_stack: bool,
    #[bits(3)]
    __: u8,
}

impl RmpPermissions {
    /// No access.
    pub const NONE: Self = Self::new();
    /// Read only.
    pub const READ: Self = Self::new().with_read(true);
    /// Read, write, execute in both modes.
    pub const READ_WRITE_EXECUTE: Self = Self::READ
        .with_write(true)
        .with_execute_user(true)
        .with_execute_supervisor(true);

    /// Whether everything allowed here is allowed by `other` too.
    pub const fn within(&self, other: Self) -> bool {
        self.into_bits() & !other.into_bits() == 0
    }
}

/// RDX of RMPADJUST.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct RmpAdjustTarget {
    /// The VMPL whose permissions change; numerically higher than the caller's.
    pub vmpl: u8,
    /// [`RmpPermissions`] as bits.
    pub permissions: u8,
    /// Make the page a VMSA; from VMPL0 only.
    pub vmsa: bool,
    #[bits(47)]
    __: u64,
}

impl RmpAdjustTarget {
    /// Give `vmpl` exactly these permissions.
    pub const fn grant(vmpl: Vmpl, permissions: RmpPermissions) -> Self {
        Self::new()
            .with_vmpl(vmpl.number())
            .with_permissions(permissions.into_bits())
    }

    /// Take every permission from `vmpl`.
    pub const fn revoke(vmpl: Vmpl) -> Self {
        Self::grant(vmpl, RmpPermissions::NONE)
    }

    /// The permissions.
    pub const fn rmp_permissions(&self) -> RmpPermissions {
        RmpPermissions::from_bits(self.permissions())
    }
}

/// EAX after PVALIDATE and RMPADJUST.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(transparent)]
pub struct InstructionCode(pub u32);

impl InstructionCode {
    /// Done.
    pub const SUCCESS: Self = Self(0);
    /// An operand is illegal.
    pub const FAIL_INPUT: Self = Self(1);
    /// The caller's VMPL may not do this.
    pub const FAIL_PERMISSION: Self = Self(2);
    /// The page is in use.
    pub const FAIL_INUSE: Self = Self(3);
    /// The RMP entry has another size.
    pub const FAIL_SIZEMISMATCH: Self = Self(6);
}

impl core::fmt::Debug for InstructionCode {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match *self {
            Self::SUCCESS => "SUCCESS",
            Self::FAIL_INPUT => "FAIL_INPUT",
            Self::FAIL_PERMISSION => "FAIL_PERMISSION",
            Self::FAIL_INUSE => "FAIL_INUSE",
            Self::FAIL_SIZEMISMATCH => "FAIL_SIZEMISMATCH",
            Self(other) => return write!(f, "InstructionCode({other})"),
        })
    }
}

/// What PVALIDATE reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PvalidateResult {
    /// EAX.
    pub code: InstructionCode,
    /// CF: the page already was in the wanted state, nothing changed.
    pub unchanged: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_targets() {
        let grant = RmpAdjustTarget::grant(Vmpl::Vmpl2, RmpPermissions::READ_WRITE_EXECUTE);
        assert_eq!(grant.into_bits(), 0x0F02);
        assert_eq!(RmpAdjustTarget::revoke(Vmpl::Vmpl2).into_bits(), 0x0002);
        let vmsa = RmpAdjustTarget::grant(Vmpl::Vmpl2, RmpPermissions::READ).with_vmsa(true);
        assert_eq!(vmsa.into_bits(), 0x1_0102);
    }

    #[test]
    fn permissions_are_ordered_by_inclusion() {
        assert!(RmpPermissions::READ.within(RmpPermissions::READ_WRITE_EXECUTE));
        assert!(!RmpPermissions::READ_WRITE_EXECUTE.within(RmpPermissions::READ));
    }
}
