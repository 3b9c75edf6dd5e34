// SPDX-License-Identifier: MIT OR Apache-2.0
//! Firmware as payload: an image of OVMF, which ends at 4 GiB and starts at the reset vector.
//!
//! The image says itself which memory it needs before it can validate any (OVMF's table of GUIDed
//! structures and its SEV metadata, `OvmfPkg/ResetVector` of edk2). All of that is launched as zero
//! pages, so it is measured; the paravisor writes secrets, CPUID table and nothing else into it.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use paravisor::boot_block::PAYLOAD_FIRMWARE;
use paravisor::layout;
use zerocopy::{FromBytes, Immutable, KnownLayout};

use crate::Error;
use crate::elf_image::Segment;
use crate::options::{Options, RamMode};
use crate::payload::{GuestPages, Payload};

/// Bytes behind the table: the reset vector and what is padded before it.
const BEHIND_TABLE: usize = 32;
/// GUID of the table's last entry, which has the length of all entries: 96b582de-1fb2-45f7-baea-a366c55a082d.
const TABLE_GUID: [u8; 16] = [
    0xde, 0x82, 0xb5, 0x96, 0xb2, 0x1f, 0xf7, 0x45, 0xba, 0xea, 0xa3, 0x66, 0xc5, 0x5a, 0x08, 0x2d,
];
/// GUID of the entry with the offset of the SEV metadata: dc886566-984a-4798-a75e-5585a7bf67cc.
const METADATA_GUID: [u8; 16] = [
    0x66, 0x65, 0x88, 0xdc, 0x4a, 0x98, 0x98, 0x47, 0xa7, 0x5e, 0x55, 0x85, 0xa7, 0xbf, 0x67, 0xcc,
];
/// Length and GUID that end each entry.
const ENTRY_TAIL: usize = 18;
const METADATA_SIGNATURE: [u8; 4] = *b"ASEV";

/// Kinds of a section of the metadata.
const SECURE_MEMORY: u32 = 1;
const SECRETS: u32 = 2;
const CPUID: u32 = 3;
const CALLING_AREA: u32 = 4;

/// Head of the metadata.
#[derive(FromBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Metadata {
    signature: [u8; 4],
    length: u32,
    version: u32,
    sections: u32,
}

/// One range of memory.
#[derive(Clone, Copy, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Section {
    base: u32,
    bytes: u32,
    kind: u32,
}

/// Whether `bytes` end with OVMF's table.
pub fn is_firmware(bytes: &[u8]) -> bool {
    table_end(bytes).is_some_and(|end| bytes[..end].ends_with(&TABLE_GUID))
}

fn table_end(bytes: &[u8]) -> Option<usize> {
    bytes.len().checked_sub(BEHIND_TABLE)
}

/// The pages of firmware, the contents of the file `path` (for messages).
///
/// # Errors
/// The image is no OVMF that runs below a paravisor, or an option does not fit firmware.
pub fn firmware_payload(path: &Path, bytes: &[u8], options: &Options) -> Result<Payload, Error> {
    let refuse = |what| Error::Firmware {
        path: path.to_owned(),
        what,
    };
    if options.ram == Some(RamMode::Accepted) || !options.cmdline.is_empty() {
        return Err(Error::FirmwareOptions);
    }
    if !bytes.len().is_multiple_of(4096) || bytes.len() as u64 > layout::FIRMWARE_BYTES {
        return Err(refuse("has no whole pages, or more than 16 MiB"));
    }
    let sections = sections(bytes).ok_or_else(|| refuse("has no SEV metadata"))?;
    let start = layout::FIRMWARE_END - bytes.len() as u64;
    let memory = memory(&sections).ok_or_else(|| refuse("has SEV metadata that are damaged"))?;
    if memory
        .last()
        .is_some_and(|last| last.end > layout::IMAGE_BASE)
    {
        return Err(Error::FirmwarePlace(path.to_owned()));
    }
    let one_page = |kind, what| {
        let mut of_kind = sections.iter().filter(|section| section.kind == kind);
        match (of_kind.next(), of_kind.next()) {
            (Some(section), None) if section.bytes == 4096 => Ok(u64::from(section.base)),
            _ => Err(refuse(what)),
        }
    };
    let start_pages = GuestPages {
        secrets: one_page(SECRETS, "names no secrets page")?,
        cpuid: one_page(CPUID, "names no CPUID page")?,
        calling_area: one_page(CALLING_AREA, "does not know an SVSM")?,
    };

    let mut pages = BTreeMap::new();
    for gpa in memory.iter().flat_map(|range| range.clone().step_by(4096)) {
        pages.insert(gpa, Box::new([0; 4096]));
    }
    for (gpa, piece) in (start..).step_by(4096).zip(bytes.as_chunks::<4096>().0) {
        pages.insert(gpa, Box::new(*piece));
    }
    let image = start..layout::FIRMWARE_END;
    let segment = |pages, execute| Segment {
        pages,
        write: true,
        execute,
    };
    let memory = memory.into_iter().map(|range| segment(range, true));
    Ok(Payload {
        kind: PAYLOAD_FIRMWARE,
        entry: layout::RESET_VECTOR,
        boot_params: 0,
        needs_until: 0,
        start_pages,
        segments: memory.chain([segment(image, true)]).collect(),
        pages,
    })
}

/// The sections of the SEV metadata; `None` when there are none or they lie outside the file.
fn sections(bytes: &[u8]) -> Option<Vec<Section>> {
    let from_end = u32::from_le_bytes(table_entry(bytes, &METADATA_GUID)?.try_into().ok()?);
    let at = bytes.len().checked_sub(usize::try_from(from_end).ok()?)?;
    let (head, rest) = Metadata::read_from_prefix(bytes.get(at..)?).ok()?;
    let count = usize::try_from(head.sections).ok()?;
    let whole = size_of::<Metadata>().checked_add(count.checked_mul(size_of::<Section>())?)?;
    if head.signature != METADATA_SIGNATURE || head.version != 1 || head.length as usize != whole {
        return None;
    }
    let (sections, _) = <[Section]>::ref_from_prefix_with_elems(rest, count).ok()?;
    Some(sections.to_vec())
}

/// Data of the table's entry `guid`. The table is read from its end: each entry is data, length and
/// GUID.
fn table_entry<'a>(bytes: &'a [u8], guid: &[u8; 16]) -> Option<&'a [u8]> {
    let end = table_end(bytes)?;
    let length = |entry_end: usize| {
        let at = entry_end.checked_sub(ENTRY_TAIL)?;
        let field = bytes.get(at..at + 2)?;
        Some(usize::from(u16::from_le_bytes(field.try_into().ok()?)))
    };
    let first = end.checked_sub(length(end)?)?;
    let mut entry_end = end.checked_sub(ENTRY_TAIL)?;
    while entry_end > first {
        let start = entry_end.checked_sub(length(entry_end)?.max(ENTRY_TAIL))?;
        let entry = bytes.get(start..entry_end)?;
        if entry.ends_with(guid) {
            return entry.get(..entry.len() - ENTRY_TAIL);
        }
        entry_end = start;
    }
    None
}

/// The memory of all sections, sorted, adjoining ranges joined. `None` when a section is no whole
/// pages, overlaps another, lies outside of what payloads may use, or is of a kind that is not known.
fn memory(sections: &[Section]) -> Option<Vec<Range<u64>>> {
    let mut sorted = sections.to_vec();
    sorted.sort_by_key(|section| section.base);
    let mut ranges: Vec<Range<u64>> = Vec::new();
    for section in sorted {
        let (start, bytes) = (u64::from(section.base), u64::from(section.bytes));
        let known = matches!(section.kind, SECURE_MEMORY | SECRETS | CPUID | CALLING_AREA);
        let whole = start.is_multiple_of(4096) && bytes.is_multiple_of(4096) && bytes != 0;
        if !known || !whole || start < 0x10_0000 || start + bytes > layout::PAYLOAD_BASE {
            return None;
        }
        match ranges.last_mut() {
            Some(last) if last.end > start => return None,
            Some(last) if last.end == start => last.end = start + bytes,
            _ => ranges.push(start..start + bytes),
        }
    }
    Some(ranges)
}
