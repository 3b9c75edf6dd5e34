// SPDX-License-Identifier: MIT OR Apache-2.0
//! The parts of `struct boot_params` (the zero page) and of what hangs off it that builder and image
//! write. Source: Linux, Documentation/arch/x86/{boot,zero-page}.rst, asm/{bootparam,sev}.h.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Offset of `acpi_rsdp_addr` (u64).
pub const ACPI_RSDP_ADDR: usize = 0x070;
/// Offset of `ext_ramdisk_image` (u32), the upper half of the initrd's address.
pub const EXT_RAMDISK_IMAGE: usize = 0x0c0;
/// Offset of `ext_ramdisk_size` (u32).
pub const EXT_RAMDISK_SIZE: usize = 0x0c4;
/// Offset of `ext_cmd_line_ptr` (u32).
pub const EXT_CMD_LINE_PTR: usize = 0x0c8;
/// Offset of `e820_entries` (u8).
pub const E820_ENTRIES: usize = 0x1e8;
/// Offset of the setup header, which is copied from the kernel's file.
pub const SETUP_HEADER: usize = 0x1f1;
/// Offset of `type_of_loader` (u8).
pub const TYPE_OF_LOADER: usize = 0x210;
/// Offset of `code32_start` (u32): where the protected-mode kernel was loaded.
pub const CODE32_START: usize = 0x214;
/// Offset of `ramdisk_image` (u32).
pub const RAMDISK_IMAGE: usize = 0x218;
/// Offset of `ramdisk_size` (u32).
pub const RAMDISK_SIZE: usize = 0x21c;
/// Offset of `cmd_line_ptr` (u32).
pub const CMD_LINE_PTR: usize = 0x228;
/// Offset of `setup_data` (u64), the head of a list.
pub const SETUP_DATA: usize = 0x250;
/// Offset of the memory map.
pub const E820_TABLE: usize = 0x2d0;
/// Entries of the memory map.
pub const E820_MAX_ENTRIES: usize = 128;

/// `setup_data` type of more entries of the memory map.
pub const SETUP_E820_EXT: u32 = 1;
/// `setup_data` type of a pointer to the confidential-computing blob.
pub const SETUP_CC_BLOB: u32 = 7;
/// [`CcBlob::magic`].
pub const CC_BLOB_MAGIC: u32 = 0x4544_4d41;
/// [`CcBlob::version`].
pub const CC_BLOB_VERSION: u16 = 1;

/// [`E820Entry::kind`]: usable RAM.
pub const E820_RAM: u32 = 1;
/// [`E820Entry::kind`]: not to be touched.
pub const E820_RESERVED: u32 = 2;
/// [`E820Entry::kind`]: ACPI tables.
pub const E820_ACPI: u32 = 3;

/// An entry of the memory map, without padding.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, packed)]
pub struct E820Entry {
    /// First byte.
    pub base: u64,
    /// Bytes.
    pub bytes: u64,
    /// [`E820_RAM`], [`E820_RESERVED`] or [`E820_ACPI`].
    pub kind: u32,
}

/// `struct setup_data` without its payload: a list node.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, packed)]
pub struct SetupData {
    /// Next node; 0 ends the list.
    pub next: u64,
    /// [`SETUP_E820_EXT`] or another.
    pub kind: u32,
    /// Bytes behind this header.
    pub bytes: u32,
}

/// `struct cc_setup_data`: a list node whose payload is the blob's address.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, packed)]
pub struct CcSetupData {
    /// Next node; 0 ends the list.
    pub next: u64,
    /// [`SETUP_CC_BLOB`].
    pub kind: u32,
    /// Bytes behind this header: 4.
    pub bytes: u32,
    /// Address of the [`CcBlob`], below 4 GiB.
    pub cc_blob_address: u32,
}

/// `struct cc_blob_sev_info`: where secrets and CPUID page are.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, packed)]
pub struct CcBlob {
    /// [`CC_BLOB_MAGIC`].
    pub magic: u32,
    /// [`CC_BLOB_VERSION`].
    pub version: u16,
    /// 0.
    pub reserved: u16,
    /// Address of the secrets page.
    pub secrets_phys: u64,
    /// Its bytes.
    pub secrets_len: u32,
    /// 0.
    pub reserved1: u32,
    /// Address of the CPUID page.
    pub cpuid_phys: u64,
    /// Its bytes.
    pub cpuid_len: u32,
    /// 0.
    pub reserved2: u32,
}

const _: () = assert!(size_of::<E820Entry>() == 20);
const _: () = assert!(size_of::<SetupData>() == 16);
const _: () = assert!(size_of::<CcSetupData>() == 20);
const _: () = assert!(size_of::<CcBlob>() == 40);
const _: () = assert!(E820_TABLE + E820_MAX_ENTRIES * size_of::<E820Entry>() <= 4096);
