// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the jobs share that make calls against a hostile host: who calls, and pages of the arena.

use snp::address::PAGE_SIZE;
use test_guest::arena::Range;

use super::calling::Svsm;
use super::ghcb::RegisteredGhcb;
use super::memory::{ExchangePage, PAGE_BYTES};

/// First word of a page before it goes.
pub const SECRET: u64 = 0x5ec2_e75e_c2e7_5ec2;

/// Whoever makes the calls.
#[derive(Debug, Clone, Copy)]
pub struct Caller<'a> {
    /// SVSM calls.
    pub svsm: &'a Svsm,
    /// Page-state changes and ports.
    pub ghcb: RegisteredGhcb,
    /// The service.
    pub protocol: u32,
    /// The attachment.
    pub epoch: u32,
}

/// The addresses of pages.
pub fn each(pages: Range) -> impl Iterator<Item = u64> {
    (0..pages.bytes() / PAGE_SIZE).map(move |number| pages.start + number * PAGE_SIZE)
}

/// A page of the arena, or the exchange page.
pub fn page_at(address: u64) -> ExchangePage {
    // SAFETY: A page of the arena that the job was given, or the exchange page: no object lies in it.
    unsafe { ExchangePage::new(address) }
}

/// Whether a page holds zeros.
pub fn is_zero(page: u64) -> bool {
    let mut bytes = [0xff; PAGE_BYTES];
    page_at(page).read(&mut bytes);
    bytes == [0; PAGE_BYTES]
}
