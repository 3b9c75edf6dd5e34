// SPDX-License-Identifier: MIT OR Apache-2.0
//! Wrong calls of CONVERT. None changes a page or the list.

use protocol::Call;
use protocol::convert::ConvertEntry;
use protocol::result::STALE_EPOCH;
use snp::address::{GuestPhysicalAddress, LARGE_PAGE_SIZE, PAGE_SIZE, PageSize};
use snp::svsm::{CallRegisters, ListHeader, ResultCode};
use zerocopy::IntoBytes;

use super::case::registers;
use super::{Case, Facts, ListPage};

const ADDRESS: ResultCode = ResultCode::INVALID_ADDRESS;
const PARAMETER: ResultCode = ResultCode::INVALID_PARAMETER;

const fn call(facts: &Facts, list: u64) -> CallRegisters {
    let arguments = [list, facts.epoch as u64, 0];
    registers(facts.protocol, Call::Convert.number(), arguments)
}

fn with_header(facts: &Facts, page: &mut ListPage, header: ListHeader) -> CallRegisters {
    page.put(0, header.as_bytes());
    call(facts, facts.list)
}

/// A list of one entry.
fn with_entry(facts: &Facts, page: &mut ListPage, entry: ConvertEntry) -> CallRegisters {
    page.put(size_of::<ListHeader>(), entry.as_bytes());
    with_header(facts, page, header(1, 0, 0))
}

const fn header(entries: u16, next: u16, reserved: u32) -> ListHeader {
    ListHeader {
        entries,
        next,
        reserved,
    }
}

const fn small(page: u64, to_shared: bool) -> ConvertEntry {
    ConvertEntry::request(GuestPhysicalAddress::new(page), PageSize::Size4K, to_shared)
}

const fn large(page: u64, to_shared: bool) -> ConvertEntry {
    ConvertEntry::request(GuestPhysicalAddress::new(page), PageSize::Size2M, to_shared)
}

/// All of them; they need an attachment.
pub const ALL: &[Case] = &[
    // Registers and header.
    Case::refused("convert-misaligned", PARAMETER, |f, _| call(f, f.list + 4)),
    Case::refused("convert-reserved", PARAMETER, |f, _| {
        let mut registers = call(f, f.list);
        registers.r8 = 1;
        registers
    }),
    Case::refused("convert-stale-epoch", STALE_EPOCH, |f, l| {
        let mut registers = with_entry(f, l, small(f.private, true));
        registers.rdx += 1;
        registers
    }),
    Case::refused("convert-empty", PARAMETER, |f, l| {
        with_header(f, l, header(0, 0, 0))
    }),
    Case::refused("convert-done", PARAMETER, |f, l| {
        with_header(f, l, header(3, 3, 0))
    }),
    Case::refused("convert-past-end", PARAMETER, |f, l| {
        with_header(f, l, header(3, u16::MAX, 0))
    }),
    Case::refused("convert-crossing", PARAMETER, |f, l| {
        with_header(f, l, header(512, 0, 0))
    }),
    Case::refused("convert-reserved-word", PARAMETER, |f, l| {
        with_header(f, l, header(1, 0, 1))
    }),
    // Where the list lies.
    Case::refused("convert-list-in-window", ADDRESS, |f, _| call(f, f.granted)),
    Case::refused("convert-list-in-paravisor", ADDRESS, |f, _| {
        call(f, f.paravisor_page())
    }),
    Case::refused("convert-list-unvalidated", ADDRESS, |f, _| {
        call(f, f.unvalidated)
    }),
    Case::refused("convert-list-shared", ADDRESS, |f, _| call(f, f.shared)),
    Case::refused("convert-list-beyond", ADDRESS, |f, _| {
        call(f, Facts::BEYOND)
    }),
    // The entry.
    Case::refused("convert-size-code", PARAMETER, |f, l| {
        with_entry(f, l, small(f.private, true).with_size_code(2))
    }),
    Case::refused("convert-reserved-bits", PARAMETER, |f, l| {
        with_entry(f, l, small(f.private, true).with_reserved(1))
    }),
    Case::refused("convert-outcome-bits", PARAMETER, |f, l| {
        with_entry(f, l, small(f.private, true).with_outcome_code(1))
    }),
    Case::refused("convert-misaligned-large", PARAMETER, |f, l| {
        with_entry(f, l, large(f.private_large + PAGE_SIZE, true))
    }),
    Case::refused("convert-itself", ADDRESS, |f, l| {
        with_entry(f, l, small(f.list, true))
    }),
    Case::refused("convert-around-itself", ADDRESS, |f, l| {
        with_entry(f, l, large(f.list & !(LARGE_PAGE_SIZE - 1), true))
    }),
    Case::refused("convert-window", ADDRESS, |f, l| {
        with_entry(f, l, small(f.granted, true))
    }),
    Case::refused("convert-window-back", ADDRESS, |f, l| {
        with_entry(f, l, large(f.granted, false))
    }),
    Case::refused("convert-window-free", ADDRESS, |f, l| {
        with_entry(f, l, large(f.free_chunk(), false))
    }),
    Case::refused("convert-paravisor", ADDRESS, |f, l| {
        with_entry(f, l, small(f.paravisor_page(), true))
    }),
    Case::refused("convert-paravisor-back", ADDRESS, |f, l| {
        with_entry(f, l, small(f.paravisor_page(), false))
    }),
    Case::refused("convert-storage", ADDRESS, |f, l| {
        with_entry(f, l, small(f.storage_page(), true))
    }),
    Case::refused("convert-calling-area", ADDRESS, |f, l| {
        with_entry(f, l, small(f.calling_area, true))
    }),
    Case::refused("convert-calling-area-back", ADDRESS, |f, l| {
        with_entry(f, l, small(f.calling_area, false))
    }),
    Case::refused("convert-unvalidated", ADDRESS, |f, l| {
        with_entry(f, l, small(f.unvalidated, true))
    }),
    Case::refused("convert-valid-back", ADDRESS, |f, l| {
        with_entry(f, l, small(f.private, false))
    }),
    Case::refused("convert-device", ADDRESS, |f, l| {
        with_entry(f, l, small(Facts::DEVICE, true))
    }),
    Case::refused("convert-launch-vmsa", ADDRESS, |f, l| {
        with_entry(f, l, small(Facts::LAUNCH_VMSA, false))
    }),
    Case::refused("convert-beyond", ADDRESS, |f, l| {
        with_entry(f, l, small(Facts::BEYOND, true))
    }),
    Case::refused("convert-wrapping", ADDRESS, |f, l| {
        with_entry(f, l, large(0_u64.wrapping_sub(LARGE_PAGE_SIZE), true))
    }),
];
