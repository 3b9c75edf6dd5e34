// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a conversion of the guest's own pages costs: by CONVERT, and by the core protocol's PVALIDATE and the guest's own
//! page-state changes, as Linux does it; in large pages, in large pages that the RMP holds in small entries, and in small
//! ones, there and back.
//!
//! The host counts between markers; nothing here is a figure.

use guest_shim::ConvertList;
use guest_shim::virtio::GlobalPool;
use snp::address::{GuestPhysicalAddress, LARGE_PAGE_SIZE, PAGE_SIZE, PageSize};
use snp::psc::{PscEntry, PscOperation};
use snp::svsm::PvalidateListEntry;
use test_guest::acceptance::{AcceptanceError, LIST_ENTRIES, SIZE_MISMATCH, pvalidate};
use test_guest::arena::{Arena, Range};
use test_guest::page_state::change_entries;
use test_guest::port;
use test_guest::record::Record;

use super::calling::{Acceptance, GuestPool, Svsm};
use super::ghcb::RegisteredGhcb;
use super::memory::{ExchangePage, exchange_page};
use super::pass_watch::emit;
use crate::disk_job::mark;

/// Bytes to convert where there is memory in plenty.
const MANY: u64 = 64 << 20;
/// Elsewhere.
const FEW: u64 = 2 << 20;
/// Free memory that is plenty.
const PLENTY: u64 = 512 << 20;
/// Entries of a list: two full batches.
const CONVERT_ENTRIES: usize = 506;
/// Entries that Linux puts into a list, and into a page-state change.
const LINUX_ENTRIES: usize = 64;
/// First word of a page before it goes.
const SECRET: u64 = 0x5ec2_e75e_c2e7_5ec2;

static mut LIST: ConvertList = ConvertList::new();

/// Memory for it.
pub fn take_memory(arena: &mut Arena, free: Range) -> Option<Range> {
    let bytes = if free.bytes() >= PLENTY { MANY } else { FEW };
    arena.take(bytes, LARGE_PAGE_SIZE)
}

/// Converts `area` there and back in all ways. The area is accepted, and nobody's.
///
/// # Errors
/// What went wrong.
pub fn run(svsm: &Svsm, ghcb: RegisteredGhcb, area: Range) -> Result<(), &'static str> {
    let mut marker = port::MARK_CONVERT_FIRST;
    let mut mark_next = || {
        mark(ghcb, marker);
        marker += 1;
    };
    // As the host has backed them, first: small pages split the host's entries.
    for (size, split_before) in [
        (PageSize::Size2M, false),
        (PageSize::Size2M, true),
        (PageSize::Size4K, false),
    ] {
        for by_service in [true, false] {
            if split_before {
                split(area)?;
            }
            fill(area);
            mark_next();
            for to_shared in [true, false] {
                if by_service {
                    convert(pages(area, size), size, to_shared)?;
                } else {
                    as_linux(svsm, ghcb, area, size, to_shared)?;
                }
                mark_next();
            }
            if !is_zero(area) {
                return Err("a page that became private is not zero");
            }
        }
    }
    emit(Record::Convert {
        bytes: area.bytes(),
    });
    Ok(())
}

/// A small page of each large one goes and comes back: the host's entries are small ones from then on.
fn split(area: Range) -> Result<(), &'static str> {
    for to_shared in [true, false] {
        let first = pages(area, PageSize::Size2M);
        convert(first, PageSize::Size4K, to_shared)?;
    }
    Ok(())
}

fn pages(area: Range, size: PageSize) -> impl Iterator<Item = u64> {
    (0..area.bytes() / size.bytes()).map(move |number| area.start + number * size.bytes())
}

fn page_at(address: u64) -> ExchangePage {
    // SAFETY: A page of the area, which is private now and holds no object.
    unsafe { ExchangePage::new(address) }
}

fn fill(area: Range) {
    for page in pages(area, PageSize::Size4K) {
        page_at(page).write(&SECRET.to_le_bytes());
    }
}

fn is_zero(area: Range) -> bool {
    pages(area, PageSize::Size4K).all(|page| {
        let mut word = [0xff; 8];
        page_at(page).read(&mut word);
        word == [0; 8]
    })
}

/// By CONVERT, with lists of [`CONVERT_ENTRIES`].
fn convert(
    pages: impl Iterator<Item = u64>,
    size: PageSize,
    to_shared: bool,
) -> Result<(), &'static str> {
    let raw = &raw mut LIST;
    // SAFETY: Only this function names it, and only the boot vCPU runs yet.
    let list = unsafe { &mut *raw };
    let mut pages = pages.peekable();
    while pages.peek().is_some() {
        list.clear();
        for page in pages.by_ref().take(CONVERT_ENTRIES) {
            list.push(page, size, to_shared);
        }
        // SAFETY: The list lies in the image, which is mapped one to one; the area is nobody's.
        unsafe { GuestPool::pool().convert(list, raw as u64) }
            .map_err(|_| "a list was not converted")?;
    }
    Ok(())
}

/// By PVALIDATE calls and page-state changes, with lists of [`LINUX_ENTRIES`].
fn as_linux(
    svsm: &Svsm,
    ghcb: RegisteredGhcb,
    area: Range,
    size: PageSize,
    to_shared: bool,
) -> Result<(), &'static str> {
    let mut acceptance = Acceptance {
        svsm,
        list: exchange_page(),
    };
    let operation = match to_shared {
        true => PscOperation::Shared,
        false => PscOperation::Private,
    };
    let mut start = area.start;
    while start < area.end {
        let count = (area.end - start) / size.bytes();
        let count = count.min(LINUX_ENTRIES as u64);
        let batch = Range::new(start, start + count * size.bytes());
        start = batch.end;
        let mut entries = [PscEntry::new(); LINUX_ENTRIES];
        let mut used = 0;
        for (entry, page) in entries.iter_mut().zip(pages(batch, size)) {
            *entry = PscEntry::request(GuestPhysicalAddress::new(page), size, operation);
            used += 1;
        }
        let entries = entries.get(..used).unwrap_or(&[]);
        let ask = || change_entries(&ghcb.channel(), entries).map_err(|_| "the host declined");
        if to_shared {
            validate(&mut acceptance, batch, size, false)?;
            ask()?;
        } else {
            ask()?;
            validate(&mut acceptance, batch, size, true)?;
        }
    }
    Ok(())
}

/// PVALIDATE of all pages of a batch; one that the RMP holds in small entries is done in small ones.
fn validate(
    acceptance: &mut Acceptance<'_>,
    batch: Range,
    size: PageSize,
    validate: bool,
) -> Result<(), &'static str> {
    const REFUSED: &str = "PVALIDATE was refused";
    let mut start = batch.start;
    while start < batch.end {
        let mut entries = [PvalidateListEntry::new(); LIST_ENTRIES];
        let mut used = 0;
        for (entry, page) in entries
            .iter_mut()
            .zip(pages(Range::new(start, batch.end), size))
        {
            *entry = PvalidateListEntry::request(GuestPhysicalAddress::new(page), size, validate);
            used += 1;
        }
        match pvalidate(acceptance, entries.get(..used).unwrap_or(&[])) {
            Ok(()) => start += used as u64 * size.bytes(),
            Err((done, AcceptanceError::Svsm(SIZE_MISMATCH))) if size == PageSize::Size2M => {
                let at = start + done as u64 * size.bytes();
                let half = LIST_ENTRIES as u64 * PAGE_SIZE;
                for first in [at, at + half] {
                    let part = Range::new(first, first + half);
                    self::validate(acceptance, part, PageSize::Size4K, validate)?;
                }
                start = at + size.bytes();
            }
            Err(_) => return Err(REFUSED),
        }
    }
    Ok(())
}
