// SPDX-License-Identifier: MIT OR Apache-2.0
//! The CPUID page of the file: it lists the leaves wanted, the host fills the values in and the
//! secure processor checks them (SEV-SNP firmware ABI, `CPUID_FUNCTION`).

/// Bytes of the header in front of the records: a count and 12 reserved bytes.
const HEADER: usize = 16;
/// Bytes of a record: leaf, subleaf, XCR0, XSS, four results, reserved.
const RECORD: usize = 48;

/// Leaf and subleaf, the encryption leaf first: the entry code needs its C-bit position.
const WANTED: [(u32, u32); 43] = [
    (0x8000_001f, 0),
    (0x0, 0),
    (0x1, 0),
    (0x2, 0),
    (0x4, 0),
    (0x4, 1),
    (0x4, 2),
    (0x4, 3),
    (0x5, 0),
    (0x6, 0),
    (0x7, 0),
    (0x7, 1),
    (0xb, 0),
    (0xb, 1),
    (0xd, 0),
    (0xd, 1),
    (0xd, 2),
    (0xd, 9),
    (0xd, 11),
    (0xd, 12),
    (0x4000_0000, 0),
    (0x8000_0000, 0),
    (0x8000_0001, 0),
    (0x8000_0002, 0),
    (0x8000_0003, 0),
    (0x8000_0004, 0),
    (0x8000_0005, 0),
    (0x8000_0006, 0),
    (0x8000_0007, 0),
    (0x8000_0008, 0),
    (0x8000_000a, 0),
    (0x8000_0019, 0),
    (0x8000_001a, 0),
    (0x8000_001b, 0),
    (0x8000_001c, 0),
    (0x8000_001d, 0),
    (0x8000_001d, 1),
    (0x8000_001d, 2),
    (0x8000_001d, 3),
    (0x8000_001e, 0),
    (0x8000_0020, 0),
    (0x8000_0021, 0),
    (0x8000_0022, 0),
];

/// The page.
#[must_use]
pub fn cpuid_request() -> [u8; 4096] {
    let mut page = [0; 4096];
    let (header, records) = page.split_at_mut(HEADER);
    // The count is a u32; the upper half of this u64 lands in the reserved bytes as zero.
    header[..8].copy_from_slice(&(WANTED.len() as u64).to_le_bytes());
    for (record, (leaf, subleaf)) in records.chunks_exact_mut(RECORD).zip(WANTED) {
        record[..4].copy_from_slice(&leaf.to_le_bytes());
        record[4..8].copy_from_slice(&subleaf.to_le_bytes());
        // XCR0 selects what leaf 0xd answers; the start state enables x87 alone.
        if leaf == 0xd {
            record[8..16].copy_from_slice(&1_u64.to_le_bytes());
        }
    }
    page
}
