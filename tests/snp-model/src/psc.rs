// SPDX-License-Identifier: MIT OR Apache-2.0
//! How a host works through a page-state-change descriptor (GHCB specification, 4.1.6).
//!
//! The honest host checks what KVM checks. The others do what a guest must survive; the manner is
//! the first thing a test chooses.

use snp::address::{GuestPhysicalAddress, LARGE_PAGE_SIZE, PAGE_SIZE, PageSize};
use snp::psc::{MAX_ENTRIES, PscEntry, PscHeader, PscOperation, error};

/// What kind of host this is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HostManner {
    /// Does what is asked.
    #[default]
    Honest,
    /// Refuses every entry with a generic error.
    Refuse,
    /// Completes this many entries of each exit, then returns early without an error: legal.
    StopAfter(u16),
    /// Completes this many entries of each exit, then reports a generic error.
    FailAfter(u16),
    /// Claims success and does nothing.
    Lie,
    /// Returns early after the first entry, as it may, and then moves the cursor back. With nothing
    /// to go back to, in a list of one entry, the cursor wraps.
    CursorBackwards,
    /// Does everything, then moves the cursor beyond the end.
    CursorBeyondEnd,
    /// Does everything, then claims that more entries were submitted.
    EnlargeEnd,
    /// Does everything, then sets the reserved word.
    ReservedBits,
    /// Returns early, for ever, without doing anything.
    NoProgress,
    /// Changes this many pages of 4 KiB in each exit, then returns early without an error, if need be inside a
    /// 2 MiB entry: legal. `current_page` of the entry in the shared buffer says where it goes on.
    StopInside(u16),
}

impl HostManner {
    /// The manner a number stands for: what a launch blob's switches carry. Bits 7:0 are the
    /// manner, bits 15:8 its count. `None` for an unknown number.
    pub fn from_bits(bits: u16) -> Option<Self> {
        let count = bits >> 8;
        Some(match bits & 0xFF {
            0 => Self::Honest,
            1 => Self::Refuse,
            2 => Self::StopAfter(count.max(1)),
            3 => Self::FailAfter(count),
            4 => Self::Lie,
            5 => Self::CursorBackwards,
            6 => Self::CursorBeyondEnd,
            7 => Self::EnlargeEnd,
            8 => Self::ReservedBits,
            9 => Self::NoProgress,
            10 => Self::StopInside(count.max(1)),
            _ => return None,
        })
    }
}

/// Why a page cannot change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostError;

/// What the host writes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PscReply {
    /// The descriptor's header.
    pub header: PscHeader,
    /// SW_EXITINFO2; 0 without an error.
    pub exit_info_2: u64,
}

/// Works through a descriptor: `entries` are those in the shared buffer, `apply` changes a page.
///
/// As on KVM, `current_page` of an entry counts its pages that are done: an entry is entered there and what is left of
/// it is done in 4 KiB pages. Whoever holds the shared buffer keeps the entries for the next exit.
pub fn process(
    header: PscHeader,
    manner: HostManner,
    entries: &mut [PscEntry],
    mut apply: impl FnMut(GuestPhysicalAddress, PageSize, PscOperation) -> Result<(), HostError>,
) -> PscReply {
    let PscHeader {
        cur_entry: first,
        end_entry: end,
        ..
    } = header;
    let reply = |cur_entry, exit_info_2| PscReply {
        header: PscHeader {
            cur_entry,
            ..header
        },
        exit_info_2,
    };
    // The reserved word is not looked at, as KVM does not: OVMF leaves there what the buffer held.
    if usize::from(end) >= MAX_ENTRIES {
        return reply(first, error::INVALID_HEADER);
    }
    let (allowance, failing) = match manner {
        HostManner::Refuse => return reply(first, error::GENERIC),
        HostManner::NoProgress => return reply(first, 0),
        HostManner::Lie => return reply(end.saturating_add(1), 0),
        HostManner::StopAfter(count) => (count, false),
        HostManner::FailAfter(count) => (count, true),
        HostManner::CursorBackwards if first > 0 => return reply(first - 1, 0),
        HostManner::CursorBackwards if end > 0 => (1, false),
        _ => (u16::MAX, false),
    };
    let mut pages_left = match manner {
        HostManner::StopInside(pages) => u64::from(pages),
        _ => u64::MAX,
    };
    let mut current = first;
    while current <= end {
        if current - first >= allowance {
            return reply(current, if failing { error::GENERIC } else { 0 });
        }
        let Some(entry) = entries.get_mut(usize::from(current)) else {
            return reply(current, error::INVALID_HEADER);
        };
        let Some((page, size, operation)) = check(*entry) else {
            return reply(current, error::INVALID_ENTRY);
        };
        let done = u64::from(entry.current_page());
        let stop = size.pages().min(done.saturating_add(pages_left));
        let result = if done == 0 && stop == size.pages() {
            apply(page, size, operation)
        } else {
            (done..stop).try_for_each(|number| {
                let page = page.checked_add(number * PAGE_SIZE).ok_or(HostError)?;
                apply(page, PageSize::Size4K, operation)
            })
        };
        if result.is_err() {
            return reply(current, error::GENERIC);
        }
        pages_left -= stop - done;
        // At most 512, as `check` has seen to.
        entry.set_current_page(u16::try_from(stop).unwrap_or(u16::MAX));
        if stop < size.pages() {
            return reply(current, 0);
        }
        current += 1;
    }
    let mut done = reply(current, 0);
    match manner {
        HostManner::CursorBackwards => done.header.cur_entry = u16::MAX,
        HostManner::CursorBeyondEnd => done.header.cur_entry = end.saturating_add(2),
        HostManner::EnlargeEnd => done.header.end_entry = end.saturating_add(1),
        HostManner::ReservedBits => done.header.reserved = 1,
        _ => {}
    }
    done
}

/// The checks KVM makes of an entry.
fn check(entry: PscEntry) -> Option<(GuestPhysicalAddress, PageSize, PscOperation)> {
    let (page, size) = (entry.page(), entry.size());
    let operation = PscOperation::try_from(entry.operation()).ok()?;
    let misaligned = size == PageSize::Size2M && !page.is_aligned(LARGE_PAGE_SIZE);
    let overrun = u64::from(entry.current_page()) > size.pages();
    (entry.reserved() == 0 && !misaligned && !overrun).then_some((page, size, operation))
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;

    fn entries(count: u64) -> Vec<PscEntry> {
        let page = |n| GuestPhysicalAddress::new(n * LARGE_PAGE_SIZE);
        (0..count)
            .map(|n| PscEntry::request(page(n), PageSize::Size2M, PscOperation::Shared))
            .collect()
    }

    fn run(manner: HostManner, cur_entry: u16, entries: &[PscEntry]) -> (PscReply, usize) {
        let end_entry = u16::try_from(entries.len() - 1).unwrap();
        let header = PscHeader {
            cur_entry,
            end_entry,
            reserved: 0,
        };
        let mut changed = 0;
        let reply = process(header, manner, &mut entries.to_vec(), |_, _, _| {
            changed += 1;
            Ok(())
        });
        (reply, changed)
    }

    #[test]
    fn an_honest_host_completes() {
        let (reply, changed) = run(HostManner::Honest, 0, &entries(5));
        assert_eq!(
            (reply.header.cur_entry, reply.exit_info_2, changed),
            (5, 0, 5)
        );
        let (reply, changed) = run(HostManner::Honest, 3, &entries(5));
        assert_eq!((reply.header.cur_entry, changed), (5, 2));
    }

    #[test]
    fn an_early_return_names_the_next_entry() {
        let (reply, changed) = run(HostManner::StopAfter(2), 0, &entries(5));
        assert_eq!(
            (reply.header.cur_entry, reply.exit_info_2, changed),
            (2, 0, 2)
        );
        let (reply, changed) = run(HostManner::FailAfter(2), 0, &entries(5));
        assert_eq!(
            (reply.header.cur_entry, reply.exit_info_2, changed),
            (2, error::GENERIC, 2)
        );
    }

    #[test]
    fn a_liar_changes_nothing() {
        assert_eq!(run(HostManner::Lie, 0, &entries(5)).1, 0);
        assert_eq!(
            run(HostManner::NoProgress, 0, &entries(5))
                .0
                .header
                .cur_entry,
            0
        );
        assert_eq!(
            run(HostManner::Refuse, 0, &entries(5)).0.exit_info_2,
            error::GENERIC
        );
    }

    #[test]
    fn broken_replies_are_broken() {
        let reply = |manner| run(manner, 0, &entries(2)).0.header;
        assert_eq!(reply(HostManner::CursorBeyondEnd).cur_entry, 3);
        assert_eq!(reply(HostManner::EnlargeEnd).end_entry, 2);
        assert_eq!(reply(HostManner::ReservedBits).reserved, 1);
    }

    #[test]
    fn the_cursor_goes_back_once_it_has_moved() {
        let back = |cur_entry, count| {
            let (reply, changed) = run(HostManner::CursorBackwards, cur_entry, &entries(count));
            (reply.header.cur_entry, changed)
        };
        assert_eq!(back(0, 3), (1, 1));
        assert_eq!(back(1, 3), (0, 0));
        assert_eq!(back(0, 1), (u16::MAX, 1));
    }

    #[test]
    fn malformed_entries_are_named() {
        let mut list = entries(3);
        list[1] = list[1].with_frame(5);
        let (reply, changed) = run(HostManner::Honest, 0, &list);
        assert_eq!(
            (reply.header.cur_entry, reply.exit_info_2, changed),
            (1, error::INVALID_ENTRY, 1)
        );
        list[1] = entries(3)[1].with_operation(9);
        assert_eq!(
            run(HostManner::Honest, 0, &list).0.exit_info_2,
            error::INVALID_ENTRY
        );
        list[1] = entries(3)[1].with_reserved(1);
        assert_eq!(
            run(HostManner::Honest, 0, &list).0.exit_info_2,
            error::INVALID_ENTRY
        );
        list[1] = entries(3)[1].with_current_page(513);
        assert_eq!(
            run(HostManner::Honest, 0, &list).0.exit_info_2,
            error::INVALID_ENTRY
        );
    }

    #[test]
    fn a_malformed_header_is_refused() {
        let refused = |end_entry, reserved| {
            let header = PscHeader {
                cur_entry: 0,
                end_entry,
                reserved,
            };
            let entry = entries(1)[0];
            let mut list = [entry; MAX_ENTRIES];
            let reply = process(header, HostManner::Honest, &mut list, |_, _, _| Ok(()));
            reply.exit_info_2 == error::INVALID_HEADER
        };
        assert!(refused(253, 0), "beyond the buffer");
        assert!(!refused(0, 1), "reserved word");
        assert!(!refused(252, 0));
    }

    #[test]
    fn a_stop_inside_an_entry_is_resumed_at_its_page() {
        let mut list = entries(2);
        let mut header = PscHeader {
            cur_entry: 0,
            end_entry: 1,
            reserved: 0,
        };
        let mut changed = Vec::new();
        let mut cursors = Vec::new();
        for _ in 0..4 {
            let reply = process(
                header,
                HostManner::StopInside(300),
                &mut list,
                |page, size, _| {
                    assert_eq!(size, PageSize::Size4K);
                    changed.push(page.frame());
                    Ok(())
                },
            );
            assert_eq!(reply.exit_info_2, 0);
            header = reply.header;
            cursors.push((
                header.cur_entry,
                list[0].current_page(),
                list[1].current_page(),
            ));
        }
        assert_eq!(
            cursors,
            [(0, 300, 0), (1, 512, 88), (1, 512, 388), (2, 512, 512)]
        );
        assert!(changed.into_iter().eq(0..1024), "each page once");
    }

    #[test]
    fn a_whole_entry_is_changed_at_its_size() {
        let (reply, changed) = run(HostManner::StopInside(512), 0, &entries(2));
        assert_eq!((reply.header.cur_entry, changed), (1, 1));
    }

    #[test]
    fn every_number_up_to_ten_is_a_manner() {
        assert!((0..=10).all(|bits| HostManner::from_bits(bits).is_some()));
        assert_eq!(HostManner::from_bits(11), None);
        assert_eq!(
            HostManner::from_bits(0x0302),
            Some(HostManner::StopAfter(3))
        );
    }
}
