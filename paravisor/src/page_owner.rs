// SPDX-License-Identifier: MIT OR Apache-2.0
//! The instructions that make a page the guest's or take it away, in their only legal order.
//!
//! Boot and core protocol both go through here, so there is one PVALIDATE(1) in the image and one
//! check in front of it (invariants W1, P1 and P2). Who calls holds the pages' state words, or runs
//! before any guest does.

use snp::address::{GuestPhysicalAddress, PAGE_SIZE, PageSize, Vmpl};
use snp::operands::{InstructionCode, RmpAdjustTarget, RmpPermissions};
use svsm_swiotlb::platform::{Fault, PageInstructions};

use crate::boot_plan::BootPlan;
use crate::range_list::PhysRange;

/// The levels that lose access when a page is taken away.
const LOWER_LEVELS: [Vmpl; 3] = [Vmpl::Vmpl1, Vmpl::Vmpl2, Vmpl::Vmpl3];

/// Why a page did not change hands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OwnError {
    /// The page may never be validated by us; nothing was done.
    Forbidden,
    /// The first instruction refused with this code; nothing changed.
    Unchanged(InstructionCode),
    /// PVALIDATE(1) found the page valid: somebody validated behind our back, or the host maps one
    /// page twice. Nothing can be trusted any more.
    Tampered,
    /// PVALIDATE(0) found the page invalid: the host took it away earlier. Its state is unknown.
    NotValid,
    /// A fault or refusal half-way. The state of the page is unknown.
    Lost,
}

impl From<Fault> for OwnError {
    fn from(_: Fault) -> Self {
        Self::Lost
    }
}

/// Page ownership on a machine.
#[derive(Debug)]
pub struct PageOwner<'a, M> {
    plan: &'a BootPlan,
    machine: &'a M,
}

impl<'a, M: PageInstructions> PageOwner<'a, M> {
    /// Ownership by `plan`.
    pub const fn new(plan: &'a BootPlan, machine: &'a M) -> Self {
        Self { plan, machine }
    }

    /// The machine.
    pub const fn machine(&self) -> &'a M {
        self.machine
    }

    /// Whether pages of a range may be validated and rescinded at all: RAM, no window page, no launch
    /// page of ours.
    #[must_use]
    pub fn may_change(&self, page: GuestPhysicalAddress, size: PageSize) -> bool {
        PhysRange::new(page.bits(), size.bytes())
            .is_some_and(|range| self.plan.may_validate(&range))
    }

    /// Validates a page that is not valid by the page-state map. Its contents are undefined after.
    ///
    /// # Errors
    /// [`OwnError`].
    pub fn validate(&self, page: GuestPhysicalAddress, size: PageSize) -> Result<(), OwnError> {
        if !self.may_change(page, size) {
            return Err(OwnError::Forbidden);
        }
        let result = self.machine.pvalidate(page, size, true)?;
        match result.code {
            InstructionCode::SUCCESS if result.unchanged => Err(OwnError::Tampered),
            InstructionCode::SUCCESS => Ok(()),
            code => Err(OwnError::Unchanged(code)),
        }
    }

    /// Validates a page, zeroes it, and only then lets the guest at it: the host may have put a page
    /// of somebody else there.
    ///
    /// # Errors
    /// [`OwnError`].
    pub fn give(&self, page: GuestPhysicalAddress, size: PageSize) -> Result<(), OwnError> {
        self.keep(page, size)?;
        match self.grant(page, size) {
            // The host split the RMP entry meanwhile, as it may at any time.
            Err(OwnError::Unchanged(InstructionCode::FAIL_SIZEMISMATCH)) => {
                self.grant_in_steps(page, size)
            }
            granted => granted,
        }
        .map_err(|_| OwnError::Lost)
    }

    /// [`Self::grant`], 4 KiB at a time.
    fn grant_in_steps(&self, page: GuestPhysicalAddress, size: PageSize) -> Result<(), OwnError> {
        (0..size.pages()).try_for_each(|number| {
            let part = GuestPhysicalAddress::new(page.bits() + number * PAGE_SIZE);
            self.grant(part, PageSize::Size4K)
        })
    }

    /// Validates a page and zeroes it, for our own use.
    ///
    /// # Errors
    /// [`OwnError`].
    pub fn keep(&self, page: GuestPhysicalAddress, size: PageSize) -> Result<(), OwnError> {
        self.validate(page, size)?;
        Ok(self.machine.zero(page, size)?)
    }

    /// Lets the guest read, write and execute a valid page.
    ///
    /// # Errors
    /// [`OwnError::Unchanged`] and [`OwnError::Lost`].
    pub fn grant(&self, page: GuestPhysicalAddress, size: PageSize) -> Result<(), OwnError> {
        let all = RmpPermissions::READ_WRITE_EXECUTE;
        self.adjust(page, size, RmpAdjustTarget::grant(Vmpl::Vmpl2, all))
    }

    /// Takes a page from all lower levels. The caller flushes before it relies on it.
    ///
    /// # Errors
    /// [`OwnError::Unchanged`] when the very first instruction refuses, else [`OwnError::Lost`].
    pub fn revoke(&self, page: GuestPhysicalAddress, size: PageSize) -> Result<(), OwnError> {
        for (position, vmpl) in LOWER_LEVELS.into_iter().enumerate() {
            let code = self
                .machine
                .rmpadjust(page, size, RmpAdjustTarget::revoke(vmpl))?;
            if code != InstructionCode::SUCCESS {
                let first = position == 0;
                return Err(if first {
                    OwnError::Unchanged(code)
                } else {
                    OwnError::Lost
                });
            }
        }
        Ok(())
    }

    /// Takes a valid page from the guest and rescinds its validation. Permissions go first: they
    /// outlive PVALIDATE(0) and would be back after the next PVALIDATE(1). The caller flushes once
    /// per batch.
    ///
    /// # Errors
    /// [`OwnError`].
    pub fn take(&self, page: GuestPhysicalAddress, size: PageSize) -> Result<(), OwnError> {
        if !self.may_change(page, size) {
            return Err(OwnError::Forbidden);
        }
        self.revoke(page, size)?;
        let result = self.machine.pvalidate(page, size, false)?;
        match result.code {
            InstructionCode::SUCCESS if result.unchanged => Err(OwnError::NotValid),
            InstructionCode::SUCCESS => Ok(()),
            _ => Err(OwnError::Lost),
        }
    }

    /// Sets permissions, or makes a page a VMSA or an ordinary page again.
    ///
    /// # Errors
    /// [`OwnError::Unchanged`] and [`OwnError::Lost`].
    pub fn adjust(
        &self,
        page: GuestPhysicalAddress,
        size: PageSize,
        target: RmpAdjustTarget,
    ) -> Result<(), OwnError> {
        match self.machine.rmpadjust(page, size, target)? {
            InstructionCode::SUCCESS => Ok(()),
            code => Err(OwnError::Unchanged(code)),
        }
    }
}
