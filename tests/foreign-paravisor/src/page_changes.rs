// SPDX-License-Identifier: MIT OR Apache-2.0
//! The instructions that give a page to the guest and take it away, in their only order. Whoever calls holds the words.

use snp::address::{GuestPhysicalAddress, PAGE_SIZE, PageSize, Vmpl};
use snp::operands::{InstructionCode, RmpAdjustTarget, RmpPermissions};
use svsm_swiotlb::platform::{Fault, PageInstructions};

/// Why a page did not change hands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unchanged {
    /// The first instruction refused with this code: the page is what it was.
    Refused(InstructionCode),
    /// Half-way, or the host was there: nobody knows what the page is.
    Lost,
    /// PVALIDATE(1) found a page valid that our account calls invalid. Nothing can be trusted any more (P1).
    ValidatedTwice,
}

impl From<Fault> for Unchanged {
    fn from(_: Fault) -> Self {
        Self::Lost
    }
}

// [give-and-take]
/// Validates a page, has caches forget it, zeroes it, and only then lets the guest at it (P2).
///
/// # Errors
/// [`Unchanged`].
pub fn give<P: PageInstructions>(
    platform: &P,
    page: GuestPhysicalAddress,
    size: PageSize,
) -> Result<(), Unchanged> {
    let result = platform.pvalidate(page, size, true)?;
    match result.code {
        InstructionCode::SUCCESS if result.unchanged => return Err(Unchanged::ValidatedTwice),
        InstructionCode::SUCCESS => {}
        code => return Err(Unchanged::Refused(code)),
    }
    platform.evict(page, size)?;
    platform.zero(page, size)?;
    match grant(platform, page, size)? {
        InstructionCode::SUCCESS => Ok(()),
        // The host may split a large RMP entry at any time.
        InstructionCode::FAIL_SIZEMISMATCH => (0..size.pages()).try_for_each(|number| {
            let part = GuestPhysicalAddress::new(page.bits() + number * PAGE_SIZE);
            match grant(platform, part, PageSize::Size4K)? {
                InstructionCode::SUCCESS => Ok(()),
                _ => Err(Unchanged::Lost),
            }
        }),
        _ => Err(Unchanged::Lost),
    }
}

/// Takes a page from all lower levels, waits until none can use an old translation, and rescinds it (P2). Permissions go
/// first: they outlive PVALIDATE(0) and would be back after the next PVALIDATE(1).
///
/// # Errors
/// [`Unchanged`].
pub fn take<P: PageInstructions>(
    platform: &P,
    page: GuestPhysicalAddress,
    size: PageSize,
) -> Result<(), Unchanged> {
    for (position, level) in [Vmpl::Vmpl1, Vmpl::Vmpl2, Vmpl::Vmpl3]
        .into_iter()
        .enumerate()
    {
        match platform.rmpadjust(page, size, RmpAdjustTarget::revoke(level))? {
            InstructionCode::SUCCESS => {}
            code if position == 0 => return Err(Unchanged::Refused(code)),
            _ => return Err(Unchanged::Lost),
        }
    }
    platform.flush();
    let result = platform.pvalidate(page, size, false)?;
    match result.code {
        InstructionCode::SUCCESS if !result.unchanged => Ok(()),
        _ => Err(Unchanged::Lost),
    }
}
// [end]

fn grant<P: PageInstructions>(
    platform: &P,
    page: GuestPhysicalAddress,
    size: PageSize,
) -> Result<InstructionCode, Fault> {
    let all = RmpPermissions::READ_WRITE_EXECUTE;
    platform.rmpadjust(page, size, RmpAdjustTarget::grant(Vmpl::Vmpl2, all))
}
