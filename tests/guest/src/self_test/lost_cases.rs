// SPDX-License-Identifier: MIT OR Apache-2.0
//! Pages that were lost behind the service's back: the guest asked the host to share them and to
//! take them back, and told nobody. The map calls them valid; the first touch by VMPL 0 is a #VC
//! with error code 0x404, in the middle of a copy or of an instruction.
//!
//! Each case has a page of its own, since the touch quarantines it.

use protocol::Call;
use snp::address::{GuestPhysicalAddress, PAGE_SIZE, PageSize};
use snp::svsm::{CallRegisters, PvalidateListEntry, ResultCode, core_protocol};

use super::case::registers;
use super::{Case, Facts};

const ADDRESS: ResultCode = ResultCode::INVALID_ADDRESS;
/// Room for any version of the statistics.
const BUFFER_BYTES: u64 = 1024;

/// Pages the cases use up.
pub const PAGES: u64 = 5;

const fn page(facts: &Facts, number: u64) -> u64 {
    facts.lost + number * PAGE_SIZE
}

const fn list_granted(facts: &Facts, list: u64) -> CallRegisters {
    registers(
        facts.protocol,
        Call::ListGranted as u32,
        [list, facts.epoch as u64, 0],
    )
}

const fn core_call(call: u32, argument: u64) -> CallRegisters {
    registers(core_protocol::NUMBER, call, [argument, 0, 0])
}

/// All of them; they need an attachment and [`Facts::lost`].
pub const ALL: &[Case] = &[
    Case::refused("lost-list", ADDRESS, |f, _| list_granted(f, page(f, 0))),
    // From now on the map knows.
    Case::refused("lost-list-again", ADDRESS, |f, _| {
        list_granted(f, page(f, 0))
    }),
    Case::refused("lost-statistics", ADDRESS, |f, _| {
        let call = Call::Statistics as u32;
        registers(f.protocol, call, [page(f, 1), BUFFER_BYTES, 0])
    }),
    Case::refused("lost-pvalidate-list", ADDRESS, |f, _| {
        core_call(core_protocol::PVALIDATE, page(f, 2))
    }),
    // RMPADJUST faults, not a copy.
    Case::refused("lost-rescind", ADDRESS, |f, list| {
        let page = GuestPhysicalAddress::new(page(f, 3));
        list.pvalidate(PvalidateListEntry::request(page, PageSize::Size4K, false));
        core_call(core_protocol::PVALIDATE, f.list)
    }),
    Case::refused("lost-calling-area", ADDRESS, |f, _| {
        core_call(core_protocol::REMAP_CA, page(f, 4))
    }),
];
