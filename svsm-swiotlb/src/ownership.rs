// SPDX-License-Identifier: MIT OR Apache-2.0
//! The instructions that make a page the guest's or take it away, in their only legal order.
//!
//! Boot, core protocol and CONVERT all go through here, so an image has one PVALIDATE(1) (invariants W1, P1 and P2). Who
//! calls has checked that the page may change hands at all: it holds the page's state word, which no page of the window
//! and no page of the paravisor gives away, or it runs before any guest does and asks its plan of the memory.

use snp::address::{GuestPhysicalAddress, PAGE_SIZE, PageSize, Vmpl};
use snp::operands::{InstructionCode, RmpAdjustTarget, RmpPermissions};

use crate::platform::{Fault, PageInstructions};

/// The levels that lose access when a page is taken away.
const LOWER_LEVELS: [Vmpl; 3] = [Vmpl::Vmpl1, Vmpl::Vmpl2, Vmpl::Vmpl3];

/// Why a page did not change hands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OwnError {
    /// The integrator's plan keeps the page from changing hands; nothing was done.
    Forbidden,
    /// The first instruction refused with this code; nothing changed.
    Unchanged(InstructionCode),
    /// PVALIDATE(1) found the page valid: somebody validated behind our back, or the host maps one page twice. Nothing
    /// can be trusted any more.
    Tampered,
    /// PVALIDATE(0) found the page invalid: the host took it away earlier. Its state is unknown.
    NotValid,
    /// A fault or refusal half-way. The state of the page is unknown.
    Lost,
}

impl OwnError {
    /// Nothing changed, because the RMP holds the page in smaller entries than the instruction asked for.
    pub fn is_size_mismatch(self) -> bool {
        self == Self::Unchanged(InstructionCode::FAIL_SIZEMISMATCH)
    }
}

impl From<Fault> for OwnError {
    fn from(_: Fault) -> Self {
        Self::Lost
    }
}

/// The 4 KiB pages of a page.
pub fn small_pages(
    page: GuestPhysicalAddress,
    size: PageSize,
) -> impl Iterator<Item = GuestPhysicalAddress> {
    (0..size.pages()).map(move |number| {
        let offset = number.saturating_mul(PAGE_SIZE);
        GuestPhysicalAddress::new(page.bits().saturating_add(offset))
    })
}

/// Validates a page that is not valid by the page-state map, and has caches forget it before anybody uses it. Its contents
/// are undefined after.
///
/// # Errors
/// [`OwnError`].
pub fn validate<M: PageInstructions>(
    machine: &M,
    page: GuestPhysicalAddress,
    size: PageSize,
) -> Result<(), OwnError> {
    let result = machine.pvalidate(page, size, true)?;
    match result.code {
        InstructionCode::SUCCESS if result.unchanged => Err(OwnError::Tampered),
        InstructionCode::SUCCESS => Ok(machine.evict(page, size)?),
        code => Err(OwnError::Unchanged(code)),
    }
}

/// Validates a page and zeroes it: the host may have put a page of somebody else there.
///
/// # Errors
/// [`OwnError`].
pub fn keep<M: PageInstructions>(
    machine: &M,
    page: GuestPhysicalAddress,
    size: PageSize,
) -> Result<(), OwnError> {
    validate(machine, page, size)?;
    Ok(machine.zero(page, size)?)
}

/// Validates a page, zeroes it, and only then lets the guest at it.
///
/// # Errors
/// [`OwnError`].
pub fn give<M: PageInstructions>(
    machine: &M,
    page: GuestPhysicalAddress,
    size: PageSize,
) -> Result<(), OwnError> {
    keep(machine, page, size)?;
    match grant(machine, page, size) {
        // The host split the RMP entry meanwhile, as it may at any time.
        Err(error) if error.is_size_mismatch() => {
            small_pages(page, size).try_for_each(|part| grant(machine, part, PageSize::Size4K))
        }
        granted => granted,
    }
    .map_err(|_| OwnError::Lost)
}

/// Lets the guest read, write and execute a valid page.
///
/// # Errors
/// [`OwnError::Unchanged`] and [`OwnError::Lost`].
pub fn grant<M: PageInstructions>(
    machine: &M,
    page: GuestPhysicalAddress,
    size: PageSize,
) -> Result<(), OwnError> {
    let all = RmpPermissions::READ_WRITE_EXECUTE;
    adjust(
        machine,
        page,
        size,
        RmpAdjustTarget::grant(Vmpl::Vmpl2, all),
    )
}

/// Takes a page from all lower levels. The caller flushes before it relies on it.
///
/// # Errors
/// [`OwnError::Unchanged`] when the very first instruction refuses, else [`OwnError::Lost`].
pub fn revoke<M: PageInstructions>(
    machine: &M,
    page: GuestPhysicalAddress,
    size: PageSize,
) -> Result<(), OwnError> {
    for (position, vmpl) in LOWER_LEVELS.into_iter().enumerate() {
        let code = machine.rmpadjust(page, size, RmpAdjustTarget::revoke(vmpl))?;
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

/// Rescinds the validation of a page that was revoked: permissions outlive PVALIDATE(0) and would be back after the next
/// PVALIDATE(1).
///
/// # Errors
/// [`OwnError::Unchanged`], [`OwnError::NotValid`] and [`OwnError::Lost`].
pub fn rescind<M: PageInstructions>(
    machine: &M,
    page: GuestPhysicalAddress,
    size: PageSize,
) -> Result<(), OwnError> {
    let result = machine.pvalidate(page, size, false)?;
    match result.code {
        InstructionCode::SUCCESS if result.unchanged => Err(OwnError::NotValid),
        InstructionCode::SUCCESS => Ok(()),
        code => Err(OwnError::Unchanged(code)),
    }
}

/// Sets permissions, or makes a page a VMSA or an ordinary page again.
///
/// # Errors
/// [`OwnError::Unchanged`] and [`OwnError::Lost`].
pub fn adjust<M: PageInstructions>(
    machine: &M,
    page: GuestPhysicalAddress,
    size: PageSize,
    target: RmpAdjustTarget,
) -> Result<(), OwnError> {
    match machine.rmpadjust(page, size, target)? {
        InstructionCode::SUCCESS => Ok(()),
        code => Err(OwnError::Unchanged(code)),
    }
}
