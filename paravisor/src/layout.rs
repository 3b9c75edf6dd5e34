// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where things lie in guest physical memory.
//!
//! The image builder places pages by these constants, the image and the guest find them there.
//! Everything at VMPL0 is identity mapped, so an address here is physical and virtual at once.

/// Bytes of a small page.
pub const PAGE_BYTES: u64 = 4096;
/// A page as bytes.
pub type PageBytes = [u8; 4096];
/// Bytes of a large page, a unit of page-state changes and of the pool window.
pub const LARGE_PAGE_BYTES: u64 = 2 << 20;

/// First byte of the paravisor's own region, which no lower VMPL may touch.
///
/// OVMF takes RAM below 4 GiB as one run of bytes from address 0, whatever holes its memory map has. So
/// beside firmware (feature `beside-firmware`) the region lies above the RAM that the firmware is told of.
pub const IMAGE_BASE: u64 = if cfg!(feature = "beside-firmware") {
    0x2f00_0000
} else {
    0x0040_0000
};
/// One past the last byte of the paravisor's region.
pub const IMAGE_END: u64 = IMAGE_BASE + (4 << 20);

/// The measured [`crate::boot_block::BootBlock`].
pub const BOOT_BLOCK: u64 = IMAGE_BASE;
/// IGVM parameters: number of vCPUs (u32 at [`VP_COUNT_OFFSET`]) and environment (u32 at
/// [`ENVIRONMENT_OFFSET`]). Written by the VMM, not measured.
pub const PARAM_GENERAL: u64 = IMAGE_BASE + 0x1000;
/// First page of the IGVM memory map. Written by the VMM, not measured.
pub const PARAM_MEMORY_MAP: u64 = IMAGE_BASE + 0x2000;
/// Bytes of its pages.
pub const MEMORY_MAP_BYTES: usize = 4 * size_of::<PageBytes>();
/// The CPUID page; the secure processor has checked its values.
pub const CPUID_PAGE: u64 = PARAM_MEMORY_MAP + MEMORY_MAP_BYTES as u64;
/// The secrets page, filled by the secure processor.
pub const SECRETS_PAGE: u64 = CPUID_PAGE + 0x1000;
/// First page of the VMM's ACPI table of processors (MADT). Written by the VMM, not measured.
pub const PARAM_MADT: u64 = SECRETS_PAGE + 0x1000;
/// Bytes of its pages.
pub const MADT_BYTES: usize = 8 * size_of::<PageBytes>();
/// One past the last of the fixed pages, which follow one another from the boot block on.
pub const FIXED_PAGES_END: u64 = PARAM_MADT + MADT_BYTES as u64;
/// Link address of the image's ELF file; everything between the fixed pages and here is unused.
pub const IMAGE_LOAD: u64 = IMAGE_BASE + 0x1_0000;

/// Offset of the IGVM `VP_COUNT` value (u32) in the general parameter page.
pub const VP_COUNT_OFFSET: usize = 0;
/// Offset of the IGVM `ENVIRONMENT_INFO` value (u32) in the general parameter page.
pub const ENVIRONMENT_OFFSET: usize = 4;
/// Bytes of the general parameters; the rest of their page is zero.
pub const GENERAL_BYTES: usize = 8;
/// `memory_is_shared` of `ENVIRONMENT_INFO`: RAM outside the launch pages starts host-owned.
pub const ENVIRONMENT_MEMORY_IS_SHARED: u32 = 1;

/// First byte of the area that carries what the guest is started with.
pub const HANDOVER_BASE: u64 = IMAGE_END;
/// One past the last byte of the hand-over area.
pub const HANDOVER_END: u64 = HANDOVER_BASE + (1 << 20);
/// The [`crate::handover::Handover`] page.
pub const HANDOVER_PAGE: u64 = HANDOVER_BASE;
/// The guest's copy of the secrets page.
pub const SECRETS_COPY: u64 = HANDOVER_BASE + 0x1000;
/// The guest's copy of the CPUID page.
pub const CPUID_COPY: u64 = HANDOVER_BASE + 0x2000;
/// Calling area of the boot vCPU.
pub const BOOT_CALLING_AREA: u64 = HANDOVER_BASE + 0x3000;
/// First of [`START_TABLE_PAGES`] pages of page tables the guest starts with: PML4, PDPT and four
/// page directories, which map the first 4 GiB to themselves with the C-bit set.
pub const START_PAGE_TABLES: u64 = HANDOVER_BASE + 0x4000;
/// Number of start page table pages.
pub const START_TABLE_PAGES: u64 = 6;
/// First page of the guest's memory map: [`crate::handover::MapEntry`] in a row.
pub const HANDOVER_MAP: u64 = START_PAGE_TABLES + START_TABLE_PAGES * PAGE_BYTES;
/// Bytes of its pages.
pub const HANDOVER_MAP_BYTES: usize = 8 * size_of::<PageBytes>();

/// First of the measured pages that accompany a Linux kernel: the zero page (`struct boot_params`).
pub const LINUX_PAGES: u64 = 0x0090_0000;
/// The zero page; its memory map is written by the paravisor.
pub const ZERO_PAGE: u64 = LINUX_PAGES;
/// The kernel's command line, one page, ended by a zero byte.
pub const COMMAND_LINE: u64 = LINUX_PAGES + 0x1000;
/// The page with descriptor table and `setup_data` node, which is RAM to the kernel: it maps the node
/// again later, which in reserved memory would be a shared mapping.
pub const LINUX_START_DATA: u64 = LINUX_PAGES + 0x2000;
/// The descriptor table the kernel starts with: `__BOOT_CS` (0x10) and `__BOOT_DS` (0x18).
pub const START_GDT: u64 = LINUX_START_DATA;
/// Bytes of the descriptor table.
pub const START_GDT_BYTES: u64 = 0x20;
/// The `setup_data` node that points to the confidential-computing blob.
pub const SETUP_DATA: u64 = LINUX_START_DATA + 0x100;
/// First of the pages with the entries of the kernel's memory map that the zero page has no room for: a `setup_data` node,
/// RAM to the kernel like the page before.
pub const E820_EXTENSION: u64 = LINUX_START_DATA + 0x1000;
/// Bytes of its pages.
pub const E820_EXTENSION_BYTES: usize = 4 * size_of::<PageBytes>();
/// The confidential-computing blob (`struct cc_blob_sev_info`), a page that stays reserved.
pub const CC_BLOB: u64 = E820_EXTENSION + E820_EXTENSION_BYTES as u64;
/// First of the pages with ACPI tables; the root pointer (RSDP) is at its start.
pub const ACPI_TABLES: u64 = CC_BLOB + 0x1000;
/// The MADT, [`MADT_BYTES`] in pages of its own behind the other tables: the paravisor writes it at boot.
pub const ACPI_MADT: u64 = ACPI_TABLES + 0x2000;
/// One past the last page of this kind.
pub const LINUX_PAGES_END: u64 = ACPI_MADT + MADT_BYTES as u64;

/// Lowest address at which a guest payload may be linked.
pub const PAYLOAD_BASE: u64 = 0x0100_0000;

/// One past the last byte of a firmware image, which ends where the processor starts after a reset.
pub const FIRMWARE_END: u64 = 1 << 32;
/// Largest firmware image: below it a PC has its interrupt controllers.
pub const FIRMWARE_BYTES: u64 = 16 << 20;
/// First instruction after a reset.
pub const RESET_VECTOR: u64 = FIRMWARE_END - 16;

/// The page in which KVM launches the boot VMSA of VMPL0; a guest must never name it.
pub const LAUNCH_VMSA: u64 = 0xffff_ffff_f000;

/// VMPL at which the guest runs.
pub const GUEST_VMPL: u8 = 2;

const _: () = assert!(IMAGE_LOAD >= FIXED_PAGES_END);
const _: () = assert!(IMAGE_BASE.is_multiple_of(LARGE_PAGE_BYTES));
const _: () = assert!(HANDOVER_MAP + HANDOVER_MAP_BYTES as u64 <= HANDOVER_END);
const _: () = assert!(LINUX_PAGES >= HANDOVER_END || LINUX_PAGES_END <= IMAGE_BASE);
const _: () = assert!(LINUX_PAGES_END <= PAYLOAD_BASE);
