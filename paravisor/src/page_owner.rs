// SPDX-License-Identifier: MIT OR Apache-2.0
//! Pages change hands by [`svsm_swiotlb::ownership`]; this puts the plan of the memory in front of it.
//!
//! Boot and core protocol go through here, so that neither can validate or rescind a page of the window
//! or a launch page of ours (invariant W1). CONVERT, in the service, uses the same instructions and
//! takes state words, which those pages do not have or do not give away. Who calls holds the pages'
//! state words, or runs before any guest does.

use snp::address::{GuestPhysicalAddress, PageSize};
use snp::operands::RmpAdjustTarget;
use svsm_swiotlb::ownership;
pub use svsm_swiotlb::ownership::OwnError;
use svsm_swiotlb::platform::PageInstructions;

use crate::boot_plan::BootPlan;
use crate::range_list::PhysRange;

/// Page ownership on a machine.
#[derive(Debug)]
pub struct PageOwner<'a, M> {
    plan: &'a BootPlan<'a>,
    machine: &'a M,
}

impl<'a, M: PageInstructions> PageOwner<'a, M> {
    /// Ownership by `plan`.
    pub const fn new(plan: &'a BootPlan<'a>, machine: &'a M) -> Self {
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

    fn check(&self, page: GuestPhysicalAddress, size: PageSize) -> Result<(), OwnError> {
        if self.may_change(page, size) {
            Ok(())
        } else {
            Err(OwnError::Forbidden)
        }
    }

    /// Validates a page, zeroes it, and only then lets the guest at it: the host may have put a page
    /// of somebody else there.
    ///
    /// # Errors
    /// [`OwnError`].
    pub fn give(&self, page: GuestPhysicalAddress, size: PageSize) -> Result<(), OwnError> {
        self.check(page, size)?;
        ownership::give(self.machine, page, size)
    }

    /// Validates a page and zeroes it, for our own use.
    ///
    /// # Errors
    /// [`OwnError`].
    pub fn keep(&self, page: GuestPhysicalAddress, size: PageSize) -> Result<(), OwnError> {
        self.check(page, size)?;
        ownership::keep(self.machine, page, size)
    }

    /// Lets the guest read, write and execute a valid page.
    ///
    /// # Errors
    /// [`OwnError::Unchanged`] and [`OwnError::Lost`].
    pub fn grant(&self, page: GuestPhysicalAddress, size: PageSize) -> Result<(), OwnError> {
        ownership::grant(self.machine, page, size)
    }

    /// Takes a page from all lower levels. The caller flushes before it relies on it.
    ///
    /// # Errors
    /// [`OwnError::Unchanged`] when the very first instruction refuses, else [`OwnError::Lost`].
    pub fn revoke(&self, page: GuestPhysicalAddress, size: PageSize) -> Result<(), OwnError> {
        ownership::revoke(self.machine, page, size)
    }

    /// Takes a valid page from the guest and rescinds its validation. The caller flushes once per
    /// batch.
    ///
    /// # Errors
    /// [`OwnError`].
    pub fn take(&self, page: GuestPhysicalAddress, size: PageSize) -> Result<(), OwnError> {
        self.check(page, size)?;
        ownership::revoke(self.machine, page, size)?;
        ownership::rescind(self.machine, page, size).map_err(|error| match error {
            // Revoked already, so it is not what it was.
            OwnError::Unchanged(_) => OwnError::Lost,
            other => other,
        })
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
        ownership::adjust(self.machine, page, size, target)
    }
}
