// SPDX-License-Identifier: MIT OR Apache-2.0
//! How much memory an integrator sets aside for the service, at boot, from its own.
//!
//! Two arrays, zeroed, both plain data: a byte per 4 KiB page of guest RAM, and a word per chunk of the window.

use protocol::CHUNK_BYTES;
use snp::address::PAGE_SIZE;

/// Bytes of the page states of so much guest RAM (sum of all ranges, without the window).
pub const fn page_state_bytes(ram_bytes: u64) -> u64 {
    ram_bytes.div_ceil(PAGE_SIZE)
}

/// Bytes of the chunk records of a window; 8-byte aligned.
pub const fn chunk_record_bytes(window_bytes: u64) -> u64 {
    window_bytes.div_ceil(CHUNK_BYTES).saturating_mul(8)
}

/// Bytes of both arrays together, records first, rounded up to whole pages.
pub const fn storage_bytes(ram_bytes: u64, window_bytes: u64) -> u64 {
    let bytes = chunk_record_bytes(window_bytes).saturating_add(page_state_bytes(ram_bytes));
    bytes.div_ceil(PAGE_SIZE).saturating_mul(PAGE_SIZE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_sizes() {
        assert_eq!(page_state_bytes(1 << 30), 256 << 10);
        assert_eq!(chunk_record_bytes(256 << 20), 1024);
        assert_eq!(storage_bytes(1 << 30, 256 << 20), (256 << 10) + 4096);
        assert_eq!(storage_bytes(1, 1), 4096);
        assert_eq!(page_state_bytes(1 << 40), 256 << 20);
        assert_eq!(chunk_record_bytes(64 << 30), 256 << 10);
        assert_eq!(storage_bytes(1 << 40, 64 << 30), (256 << 20) + (256 << 10));
    }
}
