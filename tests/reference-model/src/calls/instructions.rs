// SPDX-License-Identifier: MIT OR Apache-2.0
//! The instructions of a conversion, taken off the transcript in the order of clauses P-5.9.5 to P-5.9.7.

use snp::address::PageSize;
use snp::operands::{InstructionCode, PvalidateResult, RmpAdjustTarget};

use crate::{Event, Executed, Violation, require};

/// What RMPADJUST is given: no permission; read, write and execute in both modes.
const NOTHING: u8 = 0;
const EVERYTHING: u8 = 0b1111;
/// The level of the guest.
const GUEST: u8 = 2;

/// How a step on all of a page ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Done,
    /// The RMP holds the page in smaller entries; nothing was done.
    Smaller,
    /// PVALIDATE to validate found the page valid (clause P-5.9.11).
    Tampered,
    /// Anything else (clause P-5.9.10).
    Lost,
}

/// A page of an entry, or a part of one.
pub(super) type Page = (u64, PageSize);

/// The 4 KiB pages of a page.
pub(super) fn parts((page, size): Page) -> impl Iterator<Item = Page> {
    (0..size.pages()).map(move |part| (page + part * 4096, PageSize::Size4K))
}

/// All permissions of VMPL 1 to 3, in any order.
pub(super) fn revoke(page: Page, events: &mut &[Event]) -> Result<Step, Violation> {
    let mut left = vec![1, 2, 3];
    while !left.is_empty() {
        let (target, code) = rmpadjust(page, events)?;
        let place = left.iter().position(|vmpl| *vmpl == target.vmpl());
        let Some(place) = place.filter(|_| target.permissions() == NOTHING) else {
            return Err(format!("P-5.9.5: {target:?} of {page:x?}, not {left:?}"));
        };
        match code {
            Some(InstructionCode::SUCCESS) => {}
            Some(InstructionCode::FAIL_SIZEMISMATCH) if left.len() == 3 => {
                return Ok(Step::Smaller);
            }
            _ => return Ok(Step::Lost),
        }
        left.remove(place);
    }
    Ok(Step::Done)
}

/// Validation is taken from the page.
pub(super) fn rescind(page: Page, events: &mut &[Event]) -> Result<Step, Violation> {
    Ok(match pvalidate(page, false, events)? {
        Some(PvalidateResult {
            code: InstructionCode::SUCCESS,
            unchanged: false,
        }) => Step::Done,
        Some(PvalidateResult {
            code: InstructionCode::FAIL_SIZEMISMATCH,
            ..
        }) => Step::Smaller,
        _ => Step::Lost,
    })
}

/// P-5.9.6: validated, evicted, zeroed, granted, in this order.
pub(super) fn give(page: Page, events: &mut &[Event]) -> Result<Step, Violation> {
    match pvalidate(page, true, events)? {
        Some(PvalidateResult {
            code: InstructionCode::SUCCESS,
            unchanged: false,
        }) => {}
        Some(PvalidateResult {
            code: InstructionCode::SUCCESS,
            unchanged: true,
        }) => return Ok(Step::Tampered),
        Some(PvalidateResult {
            code: InstructionCode::FAIL_SIZEMISMATCH,
            ..
        }) => return Ok(Step::Smaller),
        _ => return Ok(Step::Lost),
    }
    match next(events)? {
        Executed::Evict {
            page: at,
            size,
            done,
        } if (at, size) == page => {
            if !done {
                return Ok(Step::Lost);
            }
        }
        other => return Err(format!("P-5.9.6: {page:x?} evicted, not {other:x?}")),
    }
    match next(events)? {
        Executed::Zero {
            page: at,
            size,
            done,
        } if (at, size) == page => {
            if !done {
                return Ok(Step::Lost);
            }
        }
        other => return Err(format!("P-5.9.6, P2: {page:x?} zeroed, not {other:x?}")),
    }
    match grant(page, events)? {
        // P-5.9.7; the host splits entries whenever it likes.
        Step::Smaller => {
            for part in parts(page) {
                if grant(part, events)? != Step::Done {
                    return Ok(Step::Lost);
                }
            }
            Ok(Step::Done)
        }
        granted => Ok(granted),
    }
}

fn grant(page: Page, events: &mut &[Event]) -> Result<Step, Violation> {
    let (target, code) = rmpadjust(page, events)?;
    require!(
        target.vmpl() == GUEST && target.permissions() == EVERYTHING,
        "P-5.9.6: {target:?} of {page:x?}"
    );
    Ok(match code {
        Some(InstructionCode::SUCCESS) => Step::Done,
        Some(InstructionCode::FAIL_SIZEMISMATCH) => Step::Smaller,
        _ => Step::Lost,
    })
}

/// P-5.9.5: one flush.
pub(super) fn flush(events: &mut &[Event]) -> Result<(), Violation> {
    match next(events)? {
        Executed::Flush => Ok(()),
        other => Err(format!("P-5.9.5, P2: a flush, not {other:x?}")),
    }
}

fn pvalidate(
    page: Page,
    to: bool,
    events: &mut &[Event],
) -> Result<Option<PvalidateResult>, Violation> {
    match next(events)? {
        Executed::Pvalidate {
            page: at,
            size,
            validate,
            result,
        } if (at, size) == page && validate == to => Ok(result),
        other => Err(format!("P2: PVALIDATE({to}) of {page:x?}, not {other:x?}")),
    }
}

fn rmpadjust(
    page: Page,
    events: &mut &[Event],
) -> Result<(RmpAdjustTarget, Option<InstructionCode>), Violation> {
    match next(events)? {
        Executed::Rmpadjust {
            page: at,
            size,
            target,
            result,
        } if (at, size) == page => {
            let plain = RmpAdjustTarget::new()
                .with_vmpl(target.vmpl())
                .with_permissions(target.permissions());
            require!(target == plain, "P-5.9.5: {target:?} of {page:x?}");
            Ok((target, result))
        }
        other => Err(format!("P2: RMPADJUST of {page:x?}, not {other:x?}")),
    }
}

/// The next platform call, which has to be an instruction.
fn next(events: &mut &[Event]) -> Result<Executed, Violation> {
    match events.split_first() {
        Some((Event::Executed(executed), rest)) => {
            *events = rest;
            Ok(*executed)
        }
        other => Err(format!(
            "P2: an instruction, not {:x?}",
            other.map(|(event, _)| event)
        )),
    }
}
