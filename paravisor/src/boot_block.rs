// SPDX-License-Identifier: MIT OR Apache-2.0
//! The boot block: what the image builder tells the image, in one measured page.
//!
//! Being part of the launch measurement it is as trusted as the code. It is parsed with checks all
//! the same, so that a builder's mistake ends the boot with a reason instead of strange behaviour.

use snp::msr::SevFeatures;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::layout::{
    BOOT_CALLING_AREA, CPUID_COPY, FIRMWARE_BYTES, FIRMWARE_END, PAGE_BYTES, RESET_VECTOR,
    SECRETS_COPY, ZERO_PAGE,
};
use crate::placement::{LOW_END, WindowWish};
use crate::range_list::PhysRange;
use crate::termination::Reason;

/// First bytes of the page.
pub const MAGIC: [u8; 8] = *b"SVSMSWIO";
/// Layout version of the structure.
pub const VERSION: u32 = 4;
/// Most launch ranges that fit.
pub const MAX_LAUNCH_RANGES: usize = 32;
/// Room for the guest's command line; the rest is zero.
pub const CMDLINE_BYTES: usize = 256;

/// [`BootBlock::ram_mode`]: the paravisor validates, zeroes and grants guest RAM.
pub const RAM_ACCEPTED: u32 = 0;
/// [`BootBlock::ram_mode`]: guest RAM stays unvalidated, the guest asks page by page.
pub const RAM_FIRMWARE: u32 = 1;

/// [`BootBlock::flags`]: the image runs with restricted injection and a #HV doorbell.
pub const FLAG_RESTRICTED_INJECTION: u32 = 1 << 0;
/// [`BootBlock::flags`]: one GROW or RELEASE of the service may take several batches (docs/PROTOCOL.md, P-6.4).
pub const FLAG_UNIT_LIMIT_LIFTED: u32 = 1 << 1;
/// [`BootBlock::flags`]: the window lies below 4 GiB, where devices with 32 address bits reach it.
pub const FLAG_WINDOW_LOW: u32 = 1 << 2;
const FLAGS: u32 = FLAG_RESTRICTED_INJECTION | FLAG_UNIT_LIMIT_LIFTED | FLAG_WINDOW_LOW;

/// [`BootBlock::sev_features`]: those that an image always has.
const FEATURES_NEEDED: SevFeatures = SevFeatures::new()
    .with_snp_active(true)
    .with_debug_swap(true);
/// Those that it may have besides. None of them asks anything of VMPL0, but for restricted injection, which it serves. Others
/// would: Secure TSC, for one, a scale and an offset in every VMSA.
const FEATURES_SERVED: SevFeatures = FEATURES_NEEDED
    .with_restricted_injection(true)
    .with_prevent_host_ibs(true)
    .with_btb_isolation(true)
    .with_smt_protection(true)
    .with_ibpb_on_entry(true);

/// [`BootBlock::payload_kind`]: a 64-bit ELF file, entered at its entry point.
pub const PAYLOAD_ELF64: u32 = 0;
/// [`BootBlock::payload_kind`]: a Linux kernel, entered at its 64-bit entry point.
pub const PAYLOAD_LINUX: u32 = 1;
/// [`BootBlock::payload_kind`]: firmware that ends at 4 GiB, entered at the reset vector. It knows
/// neither hand-over page nor start page tables.
pub const PAYLOAD_FIRMWARE: u32 = 2;

/// [`LaunchRange::kind`]: pages of the paravisor.
pub const KIND_PARAVISOR: u32 = 0;
/// [`LaunchRange::kind`]: pages of the guest's payload.
pub const KIND_GUEST_PAYLOAD: u32 = 1;

/// [`LaunchRange::flags`]: the pages are written at run time (informational).
pub const RANGE_WRITE: u32 = 1 << 0;
/// [`LaunchRange::flags`]: the pages hold code (informational).
pub const RANGE_EXECUTE: u32 = 1 << 1;

/// A run of pages that were part of the launch: validated from the start.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct LaunchRange {
    /// First byte, page aligned.
    pub gpa: u64,
    /// Bytes, a multiple of the page size, not 0.
    pub bytes: u64,
    /// [`KIND_PARAVISOR`] or [`KIND_GUEST_PAYLOAD`].
    pub kind: u32,
    /// [`RANGE_WRITE`] and [`RANGE_EXECUTE`].
    pub flags: u32,
}

/// Contents of the page at [`crate::layout::BOOT_BLOCK`]; the rest of the page is zero.
///
/// Little endian. `launch_ranges` names every launch page except the boot VMSA, sorted by address;
/// the builder writes it, and boot refuses a window or a validation that touches one of them.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct BootBlock {
    /// [`MAGIC`].
    pub magic: [u8; 8],
    /// [`VERSION`].
    pub version: u32,
    /// [`RAM_ACCEPTED`] or [`RAM_FIRMWARE`].
    pub ram_mode: u32,
    /// [`FLAG_RESTRICTED_INJECTION`], [`FLAG_UNIT_LIMIT_LIFTED`] and [`FLAG_WINDOW_LOW`]; other bits are 0.
    pub flags: u32,
    /// Number under which the guest calls the service, for instance 0x4000_0001.
    pub protocol_number: u32,
    /// `SEV_FEATURES` of the boot VMSA. SEV_STATUS has to equal
    /// [`BootBlock::expected_sev_status`], so a host that drops a protection is noticed.
    pub sev_features: u64,
    /// Bytes of the pool window, a multiple of 2 MiB, not 0.
    pub window_bytes: u64,
    /// Most bytes of the window that are ever granted at one time, a multiple of 2 MiB; no call raises it.
    pub hard_cap: u64,
    /// Bytes of a second window, below 4 GiB, a multiple of 2 MiB; 0 for none. All of it may be granted.
    pub low_window_bytes: u64,
    /// Where the guest starts.
    pub payload_entry: u64,
    /// [`PAYLOAD_ELF64`], [`PAYLOAD_LINUX`] or [`PAYLOAD_FIRMWARE`].
    pub payload_kind: u32,
    /// Number of entries of `launch_ranges` in use.
    pub launch_range_count: u32,
    /// The zero page of a Linux payload, [`crate::layout::ZERO_PAGE`]; 0 for other payloads.
    pub boot_params: u64,
    /// One past the last byte of memory the payload needs from the page of `payload_entry` on, beyond
    /// its launch pages (a kernel unpacks itself there); 0 when it needs no more than those.
    pub payload_needs_until: u64,
    /// Where the guest looks for its secrets page: a launch page of firmware, else
    /// [`crate::layout::SECRETS_COPY`].
    pub secrets_page: u64,
    /// Likewise its CPUID page ([`crate::layout::CPUID_COPY`]).
    pub cpuid_page: u64,
    /// Likewise the calling area of the boot vCPU ([`crate::layout::BOOT_CALLING_AREA`]).
    pub calling_area: u64,
    /// Launch pages, sorted, not overlapping.
    pub launch_ranges: [LaunchRange; MAX_LAUNCH_RANGES],
    /// The guest's command line, padded with zeros.
    pub cmdline: [u8; CMDLINE_BYTES],
}

const _: () = assert!(size_of::<BootBlock>() == 112 + 24 * MAX_LAUNCH_RANGES + CMDLINE_BYTES);
const _: () = assert!(size_of::<BootBlock>() <= 4096);

impl BootBlock {
    /// Value SEV_STATUS (MSR 0xC001_0131) has to have: SEV and SEV-ES, and the features of the VMSA
    /// from bit 2 on (APM volume 2, 15.34.10).
    #[must_use]
    pub const fn expected_sev_status(&self) -> u64 {
        self.sev_features << 2 | 0b11
    }

    /// The launch ranges in use. A count beyond the array yields all of it; [`Self::check`] refuses
    /// such a count.
    #[must_use]
    pub fn ranges(&self) -> &[LaunchRange] {
        let count = usize::try_from(self.launch_range_count).unwrap_or(usize::MAX);
        self.launch_ranges
            .get(..count)
            .unwrap_or(&self.launch_ranges)
    }

    /// Whether the image uses restricted injection.
    #[must_use]
    pub const fn restricted_injection(&self) -> bool {
        self.flags & FLAG_RESTRICTED_INJECTION != 0
    }

    /// Whether one call may take several batches.
    #[must_use]
    pub const fn unit_limit_lifted(&self) -> bool {
        self.flags & FLAG_UNIT_LIMIT_LIFTED != 0
    }

    /// The windows that the image wants.
    #[must_use]
    pub const fn window_wish(&self) -> WindowWish {
        WindowWish {
            bytes: self.window_bytes,
            limit: if self.flags & FLAG_WINDOW_LOW != 0 {
                LOW_END
            } else {
                u64::MAX
            },
            low_bytes: self.low_window_bytes,
        }
    }

    /// Whether the payload is a Linux kernel.
    #[must_use]
    pub const fn is_linux(&self) -> bool {
        self.payload_kind == PAYLOAD_LINUX
    }

    /// Whether the payload is firmware.
    #[must_use]
    pub const fn is_firmware(&self) -> bool {
        self.payload_kind == PAYLOAD_FIRMWARE
    }

    /// The firmware's image, which no memory map calls RAM; empty for other payloads.
    #[must_use]
    pub fn firmware(&self) -> PhysRange {
        let image = self.ranges().last().filter(|_| self.is_firmware());
        image.map_or(PhysRange::default(), |range| PhysRange {
            start: range.gpa,
            end: range.gpa.saturating_add(range.bytes),
        })
    }

    /// The launch ranges that a memory map has to call RAM: all but the firmware's image, the last one.
    #[must_use]
    pub fn ranges_in_ram(&self) -> &[LaunchRange] {
        match self.ranges() {
            [in_ram @ .., _] if self.is_firmware() => in_ram,
            all => all,
        }
    }

    /// Memory that has to be usable RAM for the payload to start: for a kernel, from its load address
    /// to the end of what it unpacks into and of its initrd. Empty if it needs its launch pages only.
    #[must_use]
    pub const fn payload_needs(&self) -> PhysRange {
        let start = self.payload_entry - self.payload_entry % PAGE_BYTES;
        let end = self.payload_needs_until;
        PhysRange {
            start,
            end: if end < start { start } else { end },
        }
    }

    /// Whether the fields about the payload fit its kind. A kernel started directly cannot accept
    /// memory, so its RAM is accepted, and firmware takes no other.
    fn payload_is_consistent(&self) -> bool {
        let pages = [self.secrets_page, self.cpuid_page, self.calling_area];
        let usual = pages == [SECRETS_COPY, CPUID_COPY, BOOT_CALLING_AREA];
        match self.payload_kind {
            PAYLOAD_ELF64 => self.boot_params == 0 && usual,
            PAYLOAD_LINUX => {
                self.boot_params == ZERO_PAGE && self.ram_mode == RAM_ACCEPTED && usual
            }
            PAYLOAD_FIRMWARE => self.firmware_is_consistent(pages),
            _ => false,
        }
    }

    /// Whether firmware validates its RAM itself, ends at the reset vector, and has its three pages
    /// among its launch pages: the paravisor writes to them, and no two of them are one.
    fn firmware_is_consistent(&self, pages: [u64; 3]) -> bool {
        let image = self.firmware();
        let launched = |page: u64| {
            page.is_multiple_of(PAGE_BYTES)
                && self.ranges().iter().any(|range| {
                    let offset = page.checked_sub(range.gpa);
                    range.kind == KIND_GUEST_PAYLOAD
                        && range.gpa != image.start
                        && offset.is_some_and(|offset| offset < range.bytes)
                })
        };
        let [secrets, cpuid, area] = pages;
        self.boot_params == 0
            && self.ram_mode == RAM_FIRMWARE
            && self.payload_entry == RESET_VECTOR
            && self.payload_needs_until == 0
            && image.end == FIRMWARE_END
            && image.bytes() <= FIRMWARE_BYTES
            && pages.into_iter().all(launched)
            && secrets != cpuid
            && cpuid != area
            && area != secrets
    }

    /// Whether the features are those that an image can have, and fit the flags.
    fn features_are_consistent(&self) -> bool {
        let features = self.sev_features;
        features & !FEATURES_SERVED.into_bits() == 0
            && features & FEATURES_NEEDED.into_bits() == FEATURES_NEEDED.into_bits()
            && SevFeatures::from_bits(features).restricted_injection()
                == self.restricted_injection()
    }

    /// Checks everything that does not depend on the memory map.
    ///
    /// # Errors
    /// The reason with which the boot has to end.
    pub fn check(&self) -> Result<(), Reason> {
        if self.magic != MAGIC || self.version != VERSION {
            return Err(Reason::BootBlockVersion);
        }
        let large = crate::layout::LARGE_PAGE_BYTES;
        if self.ram_mode > RAM_FIRMWARE
            || self.flags & !FLAGS != 0
            || !self.payload_is_consistent()
            || !self.features_are_consistent()
            || self.protocol_number == 0
        {
            return Err(Reason::BootBlockField);
        }
        if self.window_bytes == 0
            || !self.window_bytes.is_multiple_of(large)
            || !self.hard_cap.is_multiple_of(large)
            || self.hard_cap > self.window_bytes
            || !self.low_window_bytes.is_multiple_of(large)
            || self.low_window_bytes >= LOW_END
        {
            return Err(Reason::WindowSize);
        }
        self.check_ranges()
    }

    /// Checks that the launch ranges are whole pages, sorted and apart.
    fn check_ranges(&self) -> Result<(), Reason> {
        if self.ranges().len() as u64 != u64::from(self.launch_range_count) {
            return Err(Reason::LaunchRanges);
        }
        let mut free_from = 0;
        for range in self.ranges() {
            let page = PAGE_BYTES;
            let end = range
                .gpa
                .checked_add(range.bytes)
                .ok_or(Reason::LaunchRanges)?;
            if range.gpa < free_from
                || range.bytes == 0
                || !range.gpa.is_multiple_of(page)
                || !range.bytes.is_multiple_of(page)
                || range.kind > KIND_GUEST_PAYLOAD
            {
                return Err(Reason::LaunchRanges);
            }
            free_from = end;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{BootBlock, PAYLOAD_LINUX, RAM_ACCEPTED, RAM_FIRMWARE, Reason, ZERO_PAGE};
    use crate::boot_plan::tests::{boot_block, firmware_boot_block};

    fn reason(change: impl FnOnce(&mut BootBlock)) -> Result<(), Reason> {
        let mut block = boot_block();
        change(&mut block);
        block.check()
    }

    #[test]
    fn a_wrong_field_names_its_reason() {
        assert_eq!(reason(|_| ()), Ok(()));
        assert_eq!(reason(|b| b.magic[7] = 0), Err(Reason::BootBlockVersion));
        assert_eq!(reason(|b| b.version = 1), Err(Reason::BootBlockVersion));
        assert_eq!(reason(|b| b.ram_mode = 2), Err(Reason::BootBlockField));
        assert_eq!(reason(|b| b.flags = 8), Err(Reason::BootBlockField));
        assert_eq!(
            reason(|b| b.protocol_number = 0),
            Err(Reason::BootBlockField)
        );
        assert_eq!(reason(|b| b.payload_kind = 3), Err(Reason::BootBlockField));
        assert_eq!(reason(|b| b.boot_params = 1), Err(Reason::BootBlockField));
        assert_eq!(reason(|b| b.window_bytes = 0), Err(Reason::WindowSize));
        assert_eq!(reason(|b| b.window_bytes += 4096), Err(Reason::WindowSize));
        assert_eq!(
            reason(|b| b.hard_cap = b.window_bytes + (2 << 20)),
            Err(Reason::WindowSize)
        );
        for low in [4096, 1 << 32, u64::MAX << 21] {
            let refused = reason(|b| b.low_window_bytes = low);
            assert_eq!(refused, Err(Reason::WindowSize), "{low:#x}");
        }
        assert_eq!(reason(|b| b.low_window_bytes = 2 << 20), Ok(()));
    }

    #[test]
    fn a_kernel_has_its_zero_page_and_accepted_ram() {
        let linux =
            |b: &mut BootBlock| (b.payload_kind, b.boot_params) = (PAYLOAD_LINUX, ZERO_PAGE);
        assert_eq!(reason(linux), Ok(()));
        let wrong = |change: fn(&mut BootBlock)| {
            reason(|b| {
                linux(b);
                change(b);
            })
        };
        let field = Err(Reason::BootBlockField);
        assert_eq!(wrong(|b| b.boot_params += 4096), field);
        assert_eq!(wrong(|b| b.ram_mode = RAM_FIRMWARE), field);
    }

    #[test]
    fn firmware_ends_at_the_reset_vector_and_names_pages_of_its_own() {
        let wrong = |change: fn(&mut BootBlock)| {
            let mut block = firmware_boot_block();
            change(&mut block);
            block.check()
        };
        assert_eq!(wrong(|_| ()), Ok(()));
        let field = Err(Reason::BootBlockField);
        assert_eq!(wrong(|b| b.ram_mode = RAM_ACCEPTED), field);
        assert_eq!(wrong(|b| b.payload_entry -= 16), field);
        assert_eq!(wrong(|b| b.launch_ranges[3].gpa -= 4096), field, "end");
        assert_eq!(wrong(|b| b.secrets_page = 0x82_0000), field, "not launched");
        assert_eq!(wrong(|b| b.secrets_page = 0xffc0_0000), field, "its code");
        assert_eq!(wrong(|b| b.cpuid_page += 8), field);
        assert_eq!(wrong(|b| b.calling_area = b.secrets_page), field);
        let elf = |b: &mut BootBlock| b.calling_area += 4096;
        assert_eq!(reason(elf), field, "an ELF file names no pages");
    }

    #[test]
    fn what_the_payload_needs_begins_with_its_page() {
        let mut block = boot_block();
        assert!(block.payload_needs().is_empty());
        block.payload_entry = 0x100_0200;
        block.payload_needs_until = 0x200_0000;
        let needs = block.payload_needs();
        assert_eq!((needs.start, needs.end), (0x100_0000, 0x200_0000));
        block.payload_needs_until = 1;
        assert!(block.payload_needs().is_empty());
    }

    #[test]
    fn launch_ranges_are_sorted_apart_and_whole_pages() {
        let ranges = Err(Reason::LaunchRanges);
        assert_eq!(reason(|b| b.launch_range_count = 33), ranges);
        assert_eq!(
            reason(|b| b.launch_ranges[1].gpa = 0x40_4000),
            ranges,
            "overlap"
        );
        assert_eq!(reason(|b| b.launch_ranges.swap(0, 1)), ranges, "unsorted");
        assert_eq!(reason(|b| b.launch_ranges[1].gpa += 8), ranges);
        assert_eq!(reason(|b| b.launch_ranges[1].bytes = 0), ranges);
        assert_eq!(
            reason(|b| b.launch_ranges[2].bytes = !0xfff),
            ranges,
            "wrap"
        );
        assert_eq!(reason(|b| b.launch_ranges[2].kind = 2), ranges);
    }

    #[test]
    fn features_that_vmpl_0_does_not_serve_are_refused() {
        let with = |bits: u64| reason(|b| b.sev_features |= bits);
        let field = Err(Reason::BootBlockField);
        for served in [1 << 6, 1 << 7, 1 << 15, 1 << 21] {
            assert_eq!(with(served), Ok(()), "{served:#x}");
        }
        let others = (1..64).filter(|bit| ![3, 5, 6, 7, 15, 21].contains(bit));
        for bit in others {
            assert_eq!(with(1 << bit), field, "bit {bit}");
        }
        assert_eq!(reason(|b| b.sev_features = 0x28), field, "no SNP");
        assert_eq!(reason(|b| b.sev_features = 0x09), field, "no debug swap");
        assert_eq!(
            reason(|b| b.sev_features = 0x21),
            field,
            "injection, flag set"
        );
        assert_eq!(reason(|b| b.flags = 0), field, "injection, flag clear");
    }

    #[test]
    fn the_expected_status_follows_the_features() {
        assert_eq!(boot_block().expected_sev_status(), 0xa7);
    }
}
