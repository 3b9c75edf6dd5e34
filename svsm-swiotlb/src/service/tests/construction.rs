// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a service cannot be built from.

use core::sync::atomic::{AtomicU8, AtomicU64};
use std::vec::Vec;

use snp::address::PAGE_SIZE;

use super::address;
use crate::page_state::{PageStates, RamRange, RamRanges};
use crate::pool::{ChunkRecords, Pool, Window, WindowError};
use crate::test_platform::{CHUNK, TestPlatform};
use crate::{Configuration, Service};

#[test]
fn w1_a_window_in_guest_ram_is_no_service() {
    let platform = TestPlatform::new();
    let words: Vec<AtomicU8> = (0..1024).map(|_| AtomicU8::new(0)).collect();
    let records = [const { AtomicU64::new(0) }; 2];
    let mut list = [RamRange::new(address(0), 1024 * PAGE_SIZE)];
    let pages = PageStates::new(RamRanges::new(&mut list).unwrap(), &words).unwrap();
    let window = Window::new(address(CHUNK), 2 * CHUNK).unwrap();
    let pool = Pool::new(window, ChunkRecords::new(&records), window.bytes()).unwrap();
    let service = Service::new(
        &platform,
        Configuration::with_encryption_bit(51),
        pool,
        pages,
    );
    assert_eq!(service.map(|_| ()).unwrap_err(), WindowError::OverlapsRam);
}
