// SPDX-License-Identifier: MIT OR Apache-2.0
//! Page-state changes the guest asks the host for itself: making its own RAM private.
//!
//! Two ways: one page for each exit by the MSR protocol, which needs no GHCB, and up to 253 entries
//! for each exit by a GHCB. The host's answer is a claim only; PVALIDATE is the proof.

use snp::address::{GuestPhysicalAddress, LARGE_PAGE_SIZE, PAGE_SIZE, PageSize};
use snp::ghcb::exit_code;
use snp::psc::{MAX_ENTRIES, PscDescriptor, PscEntry, PscHeader, PscOperation};
use zerocopy::{FromBytes, IntoBytes};

use crate::arena::Range;
use crate::ghcb_channel::{Exit, ExitError, GhcbChannel, GhcbPage};

/// Exits after which a descriptor that makes no progress is given up.
const MAX_IDLE_EXITS: u32 = 16;

/// Why pages did not change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PageStateError {
    /// The exit failed.
    Exit(ExitError),
    /// The host reports this error in SW_EXITINFO2.
    Refused(u64),
    /// The host's reply breaks the rules of GHCB specification 4.1.6.
    Misbehaved,
    /// The host returns again and again without progress.
    NoProgress,
    /// The range is not made of whole pages.
    Misaligned,
}

/// Asks for `operation` on every page of `range`, with 2 MiB entries where it holds whole ones.
///
/// # Errors
/// [`PageStateError`]; part of the range may have changed.
pub fn change<P: GhcbPage>(
    channel: &GhcbChannel<P>,
    range: Range,
    operation: PscOperation,
) -> Result<(), PageStateError> {
    if !range.start.is_multiple_of(PAGE_SIZE) || !range.end.is_multiple_of(PAGE_SIZE) {
        return Err(PageStateError::Misaligned);
    }
    let mut descriptor = PscDescriptor::new();
    let mut address = range.start;
    while address < range.end {
        let mut used = 0;
        for entry in descriptor.entries.iter_mut() {
            if address >= range.end {
                break;
            }
            let size = largest_page(address, range.end);
            *entry = PscEntry::request(GuestPhysicalAddress::new(address), size, operation);
            address += size.bytes();
            used += 1;
        }
        submit(channel, &mut descriptor, used)?;
    }
    Ok(())
}

/// Asks for these entries in one exit, or more where the host returns early.
///
/// # Errors
/// [`PageStateError`]; part of them may have changed.
pub fn change_entries<P: GhcbPage>(
    channel: &GhcbChannel<P>,
    entries: &[PscEntry],
) -> Result<(), PageStateError> {
    let mut descriptor = PscDescriptor::new();
    for (slot, entry) in descriptor.entries.iter_mut().zip(entries) {
        *slot = *entry;
    }
    submit(channel, &mut descriptor, entries.len())
}

/// The largest page that begins at `address` and ends at or before `end`.
#[must_use]
pub const fn largest_page(address: u64, end: u64) -> PageSize {
    if address.is_multiple_of(LARGE_PAGE_SIZE) && end - address >= LARGE_PAGE_SIZE {
        PageSize::Size2M
    } else {
        PageSize::Size4K
    }
}

/// Exits with the first `used` entries until the host has done them all.
fn submit<P: GhcbPage>(
    channel: &GhcbChannel<P>,
    descriptor: &mut PscDescriptor,
    used: usize,
) -> Result<(), PageStateError> {
    let end = used
        .checked_sub(1)
        .and_then(|last| u16::try_from(last).ok());
    let end = end.ok_or(PageStateError::Misaligned)?;
    descriptor.header = PscHeader {
        cur_entry: 0,
        end_entry: end,
        reserved: 0,
    };
    debug_assert!(used <= MAX_ENTRIES);
    let mut idle = 0;
    // The buffer is filled once: the host counts the pages it has done in the entries themselves.
    channel.fill_buffer(descriptor.as_bytes());
    loop {
        let error = channel
            .exit_with_error(Exit {
                code: exit_code::PAGE_STATE_CHANGE,
                uses_buffer: true,
                ..Exit::default()
            })
            .map_err(PageStateError::Exit)?;
        let mut bytes = [0; size_of::<PscHeader>()];
        channel.read_buffer(&mut bytes);
        let reply = PscHeader::read_from_bytes(&bytes).map_err(|_| PageStateError::Misbehaved)?;
        let before = descriptor.header.cur_entry;
        if reply.reserved != 0 || reply.end_entry != end || reply.cur_entry < before {
            return Err(PageStateError::Misbehaved);
        }
        if error != 0 {
            return Err(PageStateError::Refused(error));
        }
        if reply.cur_entry > end {
            return Ok(());
        }
        idle = if reply.cur_entry == before {
            idle + 1
        } else {
            0
        };
        if idle == MAX_IDLE_EXITS {
            return Err(PageStateError::NoProgress);
        }
        descriptor.header = reply;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ghcb_channel::fake::{FakePage, answer};
    use std::cell::RefCell;
    use std::rc::Rc;
    use std::vec::Vec;

    fn header(buffer: &[u8]) -> PscHeader {
        PscHeader::read_from_bytes(&buffer[..8]).expect("eight bytes")
    }

    /// Runs a change of 254 small pages and one large one against `host`, which moves the cursor.
    fn run(
        host: impl Fn(PscHeader) -> PscHeader + 'static,
    ) -> (Result<(), PageStateError>, Vec<u64>) {
        let seen: Rc<RefCell<Vec<u64>>> = Rc::default();
        let log = Rc::clone(&seen);
        let page = FakePage::new(move |ghcb| {
            assert_eq!(ghcb.sw_exit_code, exit_code::PAGE_STATE_CHANGE);
            let before = header(&ghcb.shared_buffer);
            if before.cur_entry == 0 {
                let entries = ghcb.shared_buffer[8..].chunks_exact(8);
                let used = usize::from(before.end_entry) + 1;
                log.borrow_mut().extend(
                    entries
                        .take(used)
                        .map(|e| u64::from_le_bytes(e.try_into().expect("8"))),
                );
            }
            ghcb.shared_buffer[..8].copy_from_slice(host(before).as_bytes());
            answer(ghcb, 0);
        });
        let range = Range::new(0x20_0000 - 254 * 0x1000, 0x40_0000);
        let result = change(&GhcbChannel::new(page), range, PscOperation::Private);
        (result, seen.take())
    }

    #[test]
    fn all_pages_are_asked_for_in_batches() {
        let done = |header: PscHeader| PscHeader {
            cur_entry: header.end_entry + 1,
            ..header
        };
        let (result, entries) = run(done);
        assert_eq!(result, Ok(()));
        assert_eq!(entries.len(), 255);
        assert_eq!(entries[0], 0x0010_0000_0010_2000);
        assert_eq!(
            entries[254], 0x0110_0000_0020_0000,
            "one large page at the end"
        );
    }

    #[test]
    fn a_slow_host_is_asked_again() {
        let slow = |h: PscHeader| PscHeader {
            cur_entry: (h.cur_entry + 100).min(h.end_entry + 1),
            ..h
        };
        assert_eq!(run(slow).0, Ok(()));
        assert_eq!(run(|header| header).0, Err(PageStateError::NoProgress));
    }

    #[test]
    fn a_reply_that_breaks_the_rules_is_refused() {
        let enlarged = |h: PscHeader| PscHeader {
            end_entry: h.end_entry + 1,
            ..h
        };
        assert_eq!(run(enlarged).0, Err(PageStateError::Misbehaved));
        let reserved = |h: PscHeader| PscHeader {
            reserved: 1,
            cur_entry: h.end_entry + 1,
            ..h
        };
        assert_eq!(run(reserved).0, Err(PageStateError::Misbehaved));
        let backwards = |h: PscHeader| PscHeader {
            cur_entry: if h.cur_entry == 0 { 5 } else { 4 },
            ..h
        };
        assert_eq!(run(backwards).0, Err(PageStateError::Misbehaved));
    }
}
