// SPDX-License-Identifier: MIT OR Apache-2.0
//! Accepting RAM: the host assigns the pages, the SVSM validates them.
//!
//! Needed where the paravisor left guest RAM unvalidated (`ram=firmware`). The first stretch is
//! accepted before there is a GHCB, page by page through the MSR protocol; the rest by 2 MiB
//! entries. PVALIDATE goes through the core protocol, since VMPL2 may not execute it
//! (SVSM specification, 6.2).

use snp::address::{GuestPhysicalAddress, LARGE_PAGE_SIZE, PAGE_SIZE, PageSize};
use snp::svsm::core_protocol;
use snp::svsm::{CallId, CallRegisters, PvalidateListEntry, PvalidateListHeader, ResultCode};
use zerocopy::{FromBytes, IntoBytes};

use crate::arena::Range;
use crate::page_state::largest_page;

/// Entries of a list: what fits behind the header in the calling area (510, SVSM specification 6.2)
/// is more than one call has to hold.
pub const LIST_ENTRIES: usize = 256;
/// Answers BUSY after which a call is given up.
const MAX_RETRIES: u32 = 1000;
/// PVALIDATE reported another page size in the RMP.
pub const SIZE_MISMATCH: ResultCode = ResultCode::protocol_error(6);

/// What acceptance needs of the machine.
pub trait AcceptancePlatform {
    /// Asks the host to assign the range to the guest. False when it refuses.
    fn make_private(&mut self, range: Range) -> bool;
    /// Makes an SVSM call; `None` when the SVSM did not see it.
    fn call(&mut self, registers: CallRegisters) -> Option<CallRegisters>;
    /// Address of a private, page-aligned page for lists.
    fn list_address(&self) -> u64;
    /// Copies the list to that page.
    fn write_list(&mut self, bytes: &[u8]);
    /// Copies the first bytes of that page out.
    fn read_list(&self, bytes: &mut [u8]);
}

/// Why RAM was not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AcceptanceError {
    /// The host did not assign the pages.
    HostRefused,
    /// The SVSM did not see the call.
    NotSeen,
    /// The SVSM answered with this code.
    Svsm(ResultCode),
    /// The SVSM's cursor makes no sense.
    Cursor,
}

/// Accepts every page of `range`, which holds nothing yet.
///
/// # Errors
/// [`AcceptanceError`]; part of the range may be accepted.
pub fn accept<P: AcceptancePlatform>(
    platform: &mut P,
    range: Range,
) -> Result<(), AcceptanceError> {
    if !platform.make_private(range) {
        return Err(AcceptanceError::HostRefused);
    }
    let mut address = range.start;
    while address < range.end {
        let size = largest_page(address, range.end);
        match validate_run(platform, address, range.end, size) {
            Ok(next) => address = next,
            // The host keeps this stretch in small RMP entries.
            Err((at, AcceptanceError::Svsm(SIZE_MISMATCH))) if size == PageSize::Size2M => {
                let end = at + LARGE_PAGE_SIZE;
                address = at;
                while address < end {
                    address = validate_run(platform, address, end, PageSize::Size4K)
                        .map_err(|(_, error)| error)?;
                }
            }
            Err((_, error)) => return Err(error),
        }
    }
    Ok(())
}

/// Takes validation away from one page, so that the host may have it.
///
/// # Errors
/// [`AcceptanceError`].
pub fn rescind<P: AcceptancePlatform>(platform: &mut P, page: u64) -> Result<(), AcceptanceError> {
    let entry =
        PvalidateListEntry::request(GuestPhysicalAddress::new(page), PageSize::Size4K, false);
    pvalidate(platform, &[entry]).map_err(|(_, error)| error)
}

/// Validates one list of pages of `size` from `address`: where the next one begins, or the page the
/// call stopped at.
fn validate_run<P: AcceptancePlatform>(
    platform: &mut P,
    address: u64,
    end: u64,
    size: PageSize,
) -> Result<u64, (u64, AcceptanceError)> {
    let mut entries = [PvalidateListEntry::new(); LIST_ENTRIES];
    let mut used = 0;
    let mut next = address;
    for entry in &mut entries {
        let fits = next + size.bytes() <= end;
        let same = size == PageSize::Size4K && !next.is_multiple_of(LARGE_PAGE_SIZE)
            || size == largest_page(next, end)
            || used == 0;
        if !fits || !same {
            break;
        }
        *entry = PvalidateListEntry::request(GuestPhysicalAddress::new(next), size, true);
        next += size.bytes();
        used += 1;
    }
    let list = entries.get(..used).unwrap_or(&[]);
    pvalidate(platform, list)
        .map_err(|(index, error)| (address + index as u64 * size.bytes(), error))?;
    Ok(next)
}

/// One PVALIDATE call, repeated while the SVSM asks for it; an error names the entry.
///
/// # Errors
/// [`AcceptanceError`]; the entries before the one it names are done.
pub fn pvalidate<P: AcceptancePlatform>(
    platform: &mut P,
    entries: &[PvalidateListEntry],
) -> Result<(), (usize, AcceptanceError)> {
    let mut list = [0; size_of::<PvalidateListHeader>() + 8 * LIST_ENTRIES];
    let count = u16::try_from(entries.len()).unwrap_or(0);
    let header = PvalidateListHeader {
        entries: count,
        next: 0,
        reserved: 0,
    };
    let (head, body) = list.split_at_mut(size_of::<PvalidateListHeader>());
    head.copy_from_slice(header.as_bytes());
    for (slot, entry) in body.chunks_exact_mut(8).zip(entries) {
        slot.copy_from_slice(entry.as_bytes());
    }
    platform.write_list(&list);
    let call = CallId {
        protocol: core_protocol::NUMBER,
        call: core_protocol::PVALIDATE,
    };
    let rcx = platform.list_address();
    let mut retries = 0;
    loop {
        let registers = CallRegisters {
            rax: call.to_rax(),
            rcx,
            ..CallRegisters::default()
        };
        let answer = platform
            .call(registers)
            .ok_or((0, AcceptanceError::NotSeen))?;
        match ResultCode::from_rax(answer.rax) {
            ResultCode::SUCCESS => return Ok(()),
            ResultCode::INCOMPLETE | ResultCode::BUSY if retries < MAX_RETRIES => retries += 1,
            code => return Err((cursor(platform, count)?, AcceptanceError::Svsm(code))),
        }
    }
}

/// The entry the SVSM stopped at.
fn cursor<P: AcceptancePlatform>(
    platform: &P,
    count: u16,
) -> Result<usize, (usize, AcceptanceError)> {
    let mut bytes = [0; size_of::<PvalidateListHeader>()];
    platform.read_list(&mut bytes);
    match PvalidateListHeader::read_from_bytes(&bytes) {
        Ok(header) if header.next < count => Ok(usize::from(header.next)),
        _ => Err((0, AcceptanceError::Cursor)),
    }
}

/// Whole pages of a range; acceptance works on nothing else.
#[must_use]
pub const fn whole_pages(range: Range) -> Range {
    range.aligned_inside(PAGE_SIZE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::vec;
    use std::vec::Vec;

    /// An SVSM that validates pages once, in the size the host assigned them with.
    struct Fake {
        assigned: Option<Range>,
        small_below: u64,
        valid: BTreeSet<u64>,
        list: Vec<u8>,
        calls: usize,
        incomplete: bool,
    }

    impl AcceptancePlatform for Fake {
        fn make_private(&mut self, range: Range) -> bool {
            self.assigned = Some(range);
            true
        }
        fn call(&mut self, registers: CallRegisters) -> Option<CallRegisters> {
            self.calls += 1;
            assert_eq!((registers.rax, registers.rcx), (1, 0x7000));
            let mut header = PvalidateListHeader::read_from_bytes(&self.list[..8]).expect("8");
            let code = loop {
                if header.next == header.entries {
                    break ResultCode::SUCCESS;
                }
                let at = 8 + 8 * usize::from(header.next);
                let entry = PvalidateListEntry::read_from_bytes(&self.list[at..at + 8]).expect("8");
                let (page, size) = (entry.page().bits(), entry.size().expect("size"));
                let range = self.assigned.expect("PSC comes first");
                assert!(page >= range.start && page + size.bytes() <= range.end);
                if size == PageSize::Size2M && page < self.small_below {
                    break SIZE_MISMATCH;
                }
                for small in (page..page + size.bytes()).step_by(4096) {
                    assert!(self.valid.insert(small), "{small:#x} validated twice");
                }
                header.next += 1;
                if self.incomplete && header.next < header.entries {
                    break ResultCode::INCOMPLETE;
                }
            };
            self.list[..8].copy_from_slice(header.as_bytes());
            Some(CallRegisters {
                rax: code.to_rax(),
                ..registers
            })
        }
        fn list_address(&self) -> u64 {
            0x7000
        }
        fn write_list(&mut self, bytes: &[u8]) {
            assert!(bytes.len() <= 4096);
            self.list[..bytes.len()].copy_from_slice(bytes);
        }
        fn read_list(&self, bytes: &mut [u8]) {
            bytes.copy_from_slice(&self.list[..bytes.len()]);
        }
    }

    fn accept_with(range: Range, small_below: u64, incomplete: bool) -> Fake {
        let list = vec![0; 4096];
        let valid = BTreeSet::new();
        let mut fake = Fake {
            assigned: None,
            small_below,
            valid,
            list,
            calls: 0,
            incomplete,
        };
        assert_eq!(accept(&mut fake, range), Ok(()));
        assert_eq!(
            fake.valid.len() as u64,
            range.bytes() / 4096,
            "every page, once"
        );
        fake
    }

    #[test]
    fn large_pages_are_used_where_they_fit() {
        let range = Range::new(0x1f_e000, 0x80_1000);
        assert_eq!(accept_with(range, 0, false).calls, 3);
        accept_with(range, 0, true);
    }

    #[test]
    fn a_size_mismatch_falls_back_to_small_pages_there() {
        // The first large page is kept in small entries: 2 lists for it, 1 failed, 1 for the rest.
        let fake = accept_with(Range::new(0x20_0000, 0x80_0000), 0x40_0000, false);
        assert_eq!(fake.calls, 4);
    }
}
