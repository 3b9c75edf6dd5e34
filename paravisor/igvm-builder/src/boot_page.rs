// SPDX-License-Identifier: MIT OR Apache-2.0
//! Fills the boot block: what the image has to know and the launch measurement has to cover.

use std::ops::Range;

use paravisor::boot_block::{
    BootBlock, CMDLINE_BYTES, FLAG_RESTRICTED_INJECTION, FLAG_UNIT_LIMIT_LIFTED, FLAG_WINDOW_LOW,
    KIND_GUEST_PAYLOAD, KIND_PARAVISOR, LaunchRange, MAGIC, MAX_LAUNCH_RANGES, PAYLOAD_FIRMWARE,
    PAYLOAD_LINUX, RAM_ACCEPTED, RAM_FIRMWARE, RANGE_EXECUTE, RANGE_WRITE, VERSION,
};
use paravisor::layout;
use zerocopy::{FromZeros, IntoBytes};

use crate::Error;
use crate::elf_image::{ElfImage, Segment};
use crate::options::{Options, RamMode, WindowPlace};
use crate::payload::Payload;

/// The fixed pages: boot block, both parameter pages, CPUID page and secrets page.
pub const FIXED_PAGES: Range<u64> = layout::BOOT_BLOCK..layout::FIXED_PAGES_END;

const fn flag(set: bool, bit: u32) -> u32 {
    if set { bit } else { 0 }
}

/// The page at `layout::BOOT_BLOCK`.
///
/// # Errors
/// [`Error::TooManyRanges`] and [`Error::CommandLine`] when something does not fit.
pub fn boot_page(
    options: &Options,
    paravisor: &ElfImage,
    payload: &Payload,
) -> Result<[u8; 4096], Error> {
    let ranges = launch_ranges(paravisor, payload);
    let mut block = BootBlock {
        magic: MAGIC,
        version: VERSION,
        ram_mode: match options.ram {
            Some(RamMode::Firmware) => RAM_FIRMWARE,
            None if payload.kind == PAYLOAD_FIRMWARE => RAM_FIRMWARE,
            Some(RamMode::Accepted) | None => RAM_ACCEPTED,
        },
        flags: flag(
            options.features.restricted_injection.is_on(),
            FLAG_RESTRICTED_INJECTION,
        ) | flag(!options.unit_limit.is_on(), FLAG_UNIT_LIMIT_LIFTED)
            | flag(options.window_place == WindowPlace::Low, FLAG_WINDOW_LOW),
        protocol_number: options.protocol,
        sev_features: options.features.sev_features().into_bits(),
        window_bytes: options.window,
        hard_cap: options.hard_cap_bytes(),
        low_window_bytes: options.low_window_bytes(),
        payload_entry: payload.entry,
        payload_kind: payload.kind,
        boot_params: payload.boot_params,
        payload_needs_until: payload.needs_until,
        secrets_page: payload.start_pages.secrets,
        cpuid_page: payload.start_pages.cpuid,
        calling_area: payload.start_pages.calling_area,
        launch_range_count: u32::try_from(ranges.len()).unwrap_or(u32::MAX),
        ..BootBlock::new_zeroed()
    };
    block
        .launch_ranges
        .get_mut(..ranges.len())
        .ok_or(Error::TooManyRanges {
            found: ranges.len(),
            most: MAX_LAUNCH_RANGES,
        })?
        .copy_from_slice(&ranges);
    // A kernel has a page of its own for its command line.
    if payload.kind != PAYLOAD_LINUX {
        let text = options.cmdline.as_bytes();
        // One byte stays zero, so that the guest finds the end; a zero inside would cut the text short.
        let room = CMDLINE_BYTES - 1;
        if text.len() > room || text.contains(&0) {
            return Err(Error::CommandLine {
                found: text.len(),
                most: room,
            });
        }
        block.cmdline[..text.len()].copy_from_slice(text);
    }
    block
        .check()
        .map_err(|reason| Error::Internal(format!("boot block: {}", reason.text())))?;

    let mut page = [0; 4096];
    page[..size_of::<BootBlock>()].copy_from_slice(block.as_bytes());
    Ok(page)
}

/// Every launch page except the boot VMSA, by address.
fn launch_ranges(paravisor: &ElfImage, payload: &Payload) -> Vec<LaunchRange> {
    let fixed = LaunchRange {
        gpa: FIXED_PAGES.start,
        bytes: FIXED_PAGES.end - FIXED_PAGES.start,
        kind: KIND_PARAVISOR,
        flags: 0,
    };
    let of = |segment: &Segment, kind| LaunchRange {
        gpa: segment.pages.start,
        bytes: segment.pages.end - segment.pages.start,
        kind,
        flags: if segment.write { RANGE_WRITE } else { 0 }
            | if segment.execute { RANGE_EXECUTE } else { 0 },
    };
    let own = paravisor.segments.iter().map(|one| of(one, KIND_PARAVISOR));
    let guest = payload
        .segments
        .iter()
        .map(|one| of(one, KIND_GUEST_PAYLOAD));
    let mut ranges: Vec<_> = [fixed].into_iter().chain(own).chain(guest).collect();
    ranges.sort_by_key(|range| range.gpa);
    ranges
}
