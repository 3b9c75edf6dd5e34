// SPDX-License-Identifier: MIT OR Apache-2.0
//! The measured pages around a kernel: zero page, descriptor table, `setup_data` with the
//! confidential-computing blob. All addresses in them are constants; the memory map of the zero page is
//! written by the paravisor.

use paravisor::layout;
use paravisor::linux::boot_params::{
    ACPI_RSDP_ADDR, CC_BLOB_MAGIC, CC_BLOB_VERSION, CMD_LINE_PTR, CODE32_START, CcBlob,
    CcSetupData, EXT_CMD_LINE_PTR, EXT_RAMDISK_IMAGE, EXT_RAMDISK_SIZE, RAMDISK_IMAGE,
    RAMDISK_SIZE, SETUP_CC_BLOB, SETUP_DATA, SETUP_HEADER, TYPE_OF_LOADER,
};
use zerocopy::IntoBytes;

use crate::linux::bzimage::BzImage;

/// A loader without a number of its own.
const UNKNOWN_LOADER: u8 = 0xff;
/// Descriptors 0 to 3: two empty ones, 64-bit code (0x10), data (0x18), both flat.
const GDT: [u64; 4] = [0, 0, 0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffff];

/// Offsets in the start data page.
const GDT_OFFSET: usize = 0;
const SETUP_DATA_OFFSET: usize = 0x100;
const _: () = assert!(layout::LINUX_START_DATA + GDT_OFFSET as u64 == layout::START_GDT);
const _: () = assert!(layout::LINUX_START_DATA + SETUP_DATA_OFFSET as u64 == layout::SETUP_DATA);

/// Writes `bytes` at `offset` of a page; every offset is a constant that fits.
fn put(page: &mut [u8; 4096], offset: usize, bytes: &[u8]) {
    page[offset..offset + bytes.len()].copy_from_slice(bytes);
}

/// Low and high half of an address or a size.
fn halves(value: u64) -> ([u8; 4], [u8; 4]) {
    let [a, b, c, d, e, f, g, h] = value.to_le_bytes();
    ([a, b, c, d], [e, f, g, h])
}

/// The zero page of a kernel loaded at `load`, with an initrd of `initrd_bytes` (0: none) at `initrd`.
pub fn zero_page(kernel: &BzImage<'_>, load: u64, initrd: u64, initrd_bytes: u64) -> [u8; 4096] {
    let mut page = [0; 4096];
    put(&mut page, SETUP_HEADER, kernel.setup_header);
    page[TYPE_OF_LOADER] = UNKNOWN_LOADER;
    for (low, high, value) in [
        (CODE32_START, None, load),
        (RAMDISK_IMAGE, Some(EXT_RAMDISK_IMAGE), initrd),
        (RAMDISK_SIZE, Some(EXT_RAMDISK_SIZE), initrd_bytes),
        (CMD_LINE_PTR, Some(EXT_CMD_LINE_PTR), layout::COMMAND_LINE),
        (SETUP_DATA, Some(SETUP_DATA + 4), layout::SETUP_DATA),
        (
            ACPI_RSDP_ADDR,
            Some(ACPI_RSDP_ADDR + 4),
            layout::ACPI_TABLES,
        ),
    ] {
        let (bytes, above) = halves(value);
        put(&mut page, low, &bytes);
        if let Some(high) = high {
            put(&mut page, high, &above);
        }
    }
    page
}

/// The page with the command line, which is short enough for its final zero.
pub fn command_line_page(text: &str) -> [u8; 4096] {
    let mut page = [0; 4096];
    put(&mut page, 0, text.as_bytes());
    page
}

/// The pages with descriptor table and `setup_data` node, and with the blob.
pub fn start_data_pages() -> [[u8; 4096]; 2] {
    let mut page = [0; 4096];
    put(&mut page, GDT_OFFSET, GDT.as_bytes());
    let node = CcSetupData {
        next: 0,
        kind: SETUP_CC_BLOB,
        bytes: 4,
        cc_blob_address: u32::from_le_bytes(halves(layout::CC_BLOB).0),
    };
    put(&mut page, SETUP_DATA_OFFSET, node.as_bytes());
    let blob = CcBlob {
        magic: CC_BLOB_MAGIC,
        version: CC_BLOB_VERSION,
        reserved: 0,
        secrets_phys: layout::SECRETS_COPY,
        secrets_len: 4096,
        reserved1: 0,
        cpuid_phys: layout::CPUID_COPY,
        cpuid_len: 4096,
        reserved2: 0,
    };
    let mut blob_page = [0; 4096];
    put(&mut blob_page, 0, blob.as_bytes());
    [page, blob_page]
}

const _: () = assert!(size_of::<[u64; 4]>() as u64 == layout::START_GDT_BYTES);
