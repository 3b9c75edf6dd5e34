// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where kernel and initrd lie.
//!
//! The kernel is loaded where it prefers to be, or at the next aligned address that a payload may use.
//! It unpacks itself somewhere in the `init_size` bytes from there, so nothing else of the launch is in
//! them; the initrd follows behind.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use paravisor::boot_block::PAYLOAD_LINUX;
use paravisor::layout;

use crate::Error;
use crate::elf_image::Segment;
use crate::linux::acpi::acpi_tables;
use crate::linux::bzimage::BzImage;
use crate::linux::initrd::check_initrd;
use crate::linux::start_data::{command_line_page, start_data_pages, zero_page};
use crate::payload::{GuestPages, Payload};

/// Offset of the 64-bit entry point in the protected-mode kernel.
const ENTRY_64: u64 = 0x200;
/// Longest command line: one page with its final zero.
const CMDLINE_PAGE: usize = 4095;

/// The pages of a kernel with an initrd and a command line, inside `allowed`. Each file is its path
/// (for messages) and its contents.
///
/// # Errors
/// One line for each way in which a file or the text is unsuitable.
pub fn linux_payload(
    kernel: (&Path, &[u8]),
    initrd: Option<(&Path, &[u8])>,
    cmdline: &str,
    allowed: &Range<u64>,
) -> Result<Payload, Error> {
    let (path, bytes) = kernel;
    let kernel = BzImage::parse(path, bytes)?;
    let most = kernel.cmdline_bytes.min(CMDLINE_PAGE);
    if cmdline.len() > most || cmdline.as_bytes().contains(&0) {
        return Err(Error::CommandLine {
            found: cmdline.len(),
            most,
        });
    }
    let load = load_address(path, &kernel, allowed)?;
    let unpacked = (load + kernel.init_size).next_multiple_of(layout::LARGE_PAGE_BYTES);
    let initrd_bytes = match initrd {
        Some((path, bytes)) => {
            check_initrd(path, bytes)?;
            bytes
        }
        None => &[],
    };
    let initrd_end = unpacked + initrd_bytes.len() as u64;
    let limit = allowed.end.min(kernel.initrd_limit);
    if let Some((path, bytes)) = initrd
        && initrd_end > limit
    {
        return Err(Error::InitrdTooLarge {
            path: path.to_owned(),
            bytes: bytes.len() as u64,
            most: limit.saturating_sub(unpacked),
        });
    }

    let place = if initrd_bytes.is_empty() { 0 } else { unpacked };
    let mut pages = Pages::default();
    let zero = zero_page(&kernel, load, place, initrd_bytes.len() as u64);
    pages.add(layout::ZERO_PAGE, &zero);
    pages.add(layout::COMMAND_LINE, &command_line_page(cmdline));
    let [start_data, blob] = start_data_pages();
    pages.add(layout::LINUX_START_DATA, &start_data);
    // Filled by the image where the zero page has no room for the memory map.
    pages.add(layout::E820_EXTENSION, &[0; layout::E820_EXTENSION_BYTES]);
    pages.add(layout::CC_BLOB, &blob);
    pages.add(layout::ACPI_TABLES, &acpi_tables());
    pages.add(layout::ACPI_MADT, &[0; layout::MADT_BYTES]);
    let mut segments = vec![Segment {
        pages: layout::LINUX_PAGES..layout::LINUX_PAGES_END,
        write: true,
        execute: false,
    }];
    for (start, bytes, execute) in [(load, kernel.kernel, true), (unpacked, initrd_bytes, false)] {
        if !bytes.is_empty() {
            segments.push(Segment {
                pages: pages.add(start, bytes),
                write: true,
                execute,
            });
        }
    }
    Ok(Payload {
        kind: PAYLOAD_LINUX,
        entry: load + ENTRY_64,
        boot_params: layout::ZERO_PAGE,
        needs_until: initrd_end.next_multiple_of(layout::PAGE_BYTES),
        start_pages: GuestPages::HANDOVER,
        segments,
        pages: pages.0,
    })
}

/// Where the kernel is loaded.
fn load_address(path: &Path, kernel: &BzImage<'_>, allowed: &Range<u64>) -> Result<u64, Error> {
    let wanted = if kernel.relocatable {
        kernel.preferred.max(allowed.start)
    } else {
        kernel.preferred
    };
    let load = wanted
        .checked_next_multiple_of(kernel.alignment)
        .filter(|load| kernel.relocatable || *load == kernel.preferred)
        .filter(|load| *load >= allowed.start)
        .filter(|load| {
            let end = load.checked_add(kernel.init_size);
            end.is_some_and(|end| end <= allowed.end)
        });
    load.ok_or_else(|| Error::KernelPlace {
        path: path.to_owned(),
        bytes: kernel.init_size,
        preferred: kernel.preferred,
        allowed_start: allowed.start,
        allowed_end: allowed.end,
    })
}

/// Pages by address; the ranges added do not overlap.
#[derive(Default)]
struct Pages(BTreeMap<u64, Box<[u8; 4096]>>);

impl Pages {
    /// Adds the pages of `bytes` from the page-aligned address `start`; the last one is padded with
    /// zeros.
    fn add(&mut self, start: u64, bytes: &[u8]) -> Range<u64> {
        let mut gpa = start;
        for piece in bytes.chunks(4096) {
            let mut page = Box::new([0; 4096]);
            page[..piece.len()].copy_from_slice(piece);
            self.0.insert(gpa, page);
            gpa += layout::PAGE_BYTES;
        }
        start..gpa
    }
}
