// SPDX-License-Identifier: MIT OR Apache-2.0
//! Figures of the allocators that guests use today, measured with this workload on another machine: 2 vCPUs of a Xeon
//! at 2.3 GHz, Linux 6.18, allocators built for user space from their kernel sources. `best/median` of 5 rounds in
//! nanoseconds per pair where nothing else is said.
//!
//! They show the shape; ratios are taken against what the same run measured.

use crate::driver::Fill;
use crate::driver::failing::State;
use crate::driver::pair::Size;

/// Linux `swiotlb`, no copy, empty pool.
pub fn empty(size: Size, threads: usize) -> &'static str {
    match (size, threads) {
        (Size::Bytes(64), 1) => "129/206",
        (Size::Bytes(1500), 1) => "128/197",
        (Size::Bytes(4096), 1) => "133/220",
        (Size::Bytes(65536), 1) => "157/283",
        (Size::Bytes(262_144), 1) => "296/352",
        (Size::Mix, 1) => "176/253",
        (Size::Bytes(64), 2) => "211/294",
        (Size::Bytes(1500), 2) => "264/317",
        (Size::Bytes(4096), 2) => "222/293",
        (Size::Bytes(65536), 2) => "298/358",
        (Size::Bytes(262_144), 2) => "472/588",
        (Size::Mix, 2) => "245/286",
        _ => "",
    }
}

/// Linux `swiotlb`, no copy, one thread: mean.
pub fn filled(size: Size, fill: Fill) -> &'static str {
    const FAILS: &str = "all fail, 32 us";
    match (fill.to_string().as_str(), size) {
        ("90", Size::Bytes(64)) => "81",
        ("90", Size::Bytes(4096)) => "82",
        ("90", Size::Bytes(65536)) => "749",
        ("90", Size::Mix) => "704, 1.4 % fail",
        ("98", Size::Bytes(4096)) => "292",
        ("98", Size::Bytes(16384)) => "1670",
        ("98", Size::Bytes(65536)) => FAILS,
        ("98", Size::Mix) => "1390, 3.5 % fail",
        ("f90", Size::Bytes(65536)) => "988",
        ("f90", Size::Mix) => "334, 0.1 % fail",
        (_, Size::Bytes(262_144)) => FAILS,
        _ => "",
    }
}

/// Linux `swiotlb`, two copies, one thread, empty pool.
pub fn received(size: Size) -> &'static str {
    match size {
        Size::Bytes(64) => "231/357",
        Size::Bytes(1500) => "436/491",
        Size::Bytes(4096) => "646/828",
        Size::Bytes(16384) => "1702/2116",
        Size::Bytes(65536) => "9552/10547",
        Size::Bytes(262_144) => "33739/35826",
        Size::Mix => "1349/1469",
        Size::Bytes(_) => "",
    }
}

/// Linux `swiotlb`, a map of 256 KiB that fails.
pub const fn failing(pool_bytes: usize, state: State) -> &'static str {
    match (pool_bytes >> 20, state) {
        (64, State::Full) => "31000",
        (256, State::Full) => "149000",
        (1024, State::Full) => "650000 to 950000",
        _ => "",
    }
}

/// Pool bytes per payload byte: `swiotlb`, `cc-swiotlb`.
pub const fn per_payload(size: Size) -> &'static str {
    match size {
        Size::Bytes(64) => "32 (cc: 8)",
        Size::Bytes(1500) => "1.365 (cc: 1.365)",
        Size::Mix => "1.13",
        Size::Bytes(_) => "",
    }
}

/// Use at the first failure, percent.
pub const FIRST_FAILURE: &str = "84.6 (cc: 19.2)";
/// Metadata, percent of the pool.
pub const METADATA: &str = "1.17 (cc: 1.1 + 26)";
/// Failures of a burst, percent: `SWIOTLB_DYNAMIC`, `cc-swiotlb`.
pub const fn burst(background_every: usize) -> &'static str {
    match background_every {
        0 => "74 (cc: 99.5)",
        256 => "41 (cc: 92)",
        _ => "",
    }
}
