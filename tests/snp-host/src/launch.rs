// SPDX-License-Identifier: MIT OR Apache-2.0
//! The launch image: what the runner, which plays the VMM, hands to this host in memory.
//!
//! A page-sized header, a table of records padded to whole pages, then the pages, all little
//! endian. [`write()`] makes one, [`LaunchImage`] checks and reads one; QEMU puts it at
//! [`crate::memory_plan::LAUNCH_BASE`], or a large one elsewhere and there its address.

use crate::memory_plan::{GuestMemory, HIGH_BASE};
use crate::switches::Switches;
use core::mem::size_of;
use snp::address::{LARGE_PAGE_SIZE, PAGE_SIZE};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

/// First bytes of a launch image.
pub const MAGIC: [u8; 8] = *b"SNPLAUNC";
/// Version of the format.
pub const VERSION: u32 = 2;
/// Most CPUs of the machine: what the host has stacks and save areas for.
pub const MAX_CPUS: u32 = 16;
/// The same, as the length of a table.
pub const CPU_SLOTS: usize = MAX_CPUS as usize;
/// Processors that a machine with so many CPUs for its guest needs. QEMU's TCG changes the state of its CPU 0 from the thread of
/// any other (docs/DECISIONS.md, D21), so where there are several that one never runs a guest.
#[must_use]
pub const fn processors(cpus: u32) -> u32 {
    if cpus > 1 { cpus + 1 } else { 1 }
}

/// Most records of one image: a launch of 1 GiB.
pub const MAX_RECORDS: u32 = 1 << 18;

const PAGE_BYTES: u32 = 4096;
const PAGE_LENGTH: usize = PAGE_BYTES as usize;
const _: () = assert!(PAGE_LENGTH as u64 == PAGE_SIZE);

/// Head of the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Header {
    /// [`MAGIC`].
    pub magic: [u8; 8],
    /// [`VERSION`].
    pub version: u32,
    /// Records behind the header.
    pub record_count: u32,
    /// [`Switches`].
    pub switches: u64,
    /// Guest RAM in bytes ([`GuestMemory::ram`]).
    pub memory_bytes: u64,
    /// Bytes of the whole image.
    pub image_bytes: u64,
    /// CPUs of the guest, 1 to [`MAX_CPUS`].
    pub cpus: u32,
    /// Bytes of firmware's image in units of 2 MiB ([`GuestMemory::firmware`]).
    pub firmware: u16,
    /// [`GuestMemory::firmware_ram`] in units of 2 MiB.
    pub firmware_ram: u16,
}

/// What a record asks for (`Record::kind`). The first six carry a page.
pub mod kind {
    /// A measured page of the image.
    pub const NORMAL: u32 = 1;
    /// A page of zeros; carries no data.
    pub const ZERO: u32 = 2;
    /// A page the VMM fills: parameters.
    pub const UNMEASURED: u32 = 3;
    /// The secrets page; the host writes it.
    pub const SECRETS: u32 = 4;
    /// The CPUID page: lists the leaves wanted, the host fills in the values.
    pub const CPUID: u32 = 5;
    /// The boot VMSA of VMPL0.
    pub const VMSA: u32 = 6;
    /// RAM that must be private and not validated at start; `data` is its length in pages.
    pub const REQUIRED: u32 = 7;
    /// Arms an attack on pages: `data` is a [`PageAttackWord`](crate::attack::PageAttackWord), `gpa` a page.
    pub const ATTACK_ON_PAGE: u32 = 8;
    /// Arms false replies: `data` is a [`FalseReplyWord`](crate::false_reply::FalseReplyWord).
    pub const ATTACK_BY_REPLY: u32 = 9;
    /// Arms an event for VMPL 0: `data` is an [`InjectionWord`](crate::injection::InjectionWord).
    pub const ATTACK_BY_VECTOR: u32 = 10;
    /// Arms a launch VMSA that is run beside the boot CPU's: `data` is a
    /// [`SurplusLaunchWord`](crate::surplus_launch::SurplusLaunchWord). Behind [`VMSA`].
    pub const ATTACK_BY_LAUNCH: u32 = 11;
}

/// One entry of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Record {
    /// Guest physical address, page aligned.
    pub gpa: u64,
    /// One of [`kind`].
    pub kind: u32,
    /// Byte offset of the page in the image; for [`kind::REQUIRED`] a count of pages, for an attack its word; else 0.
    pub data: u32,
}

const _: () = {
    assert!(size_of::<Header>() == 48);
    assert!(size_of::<Record>() == 16);
};

/// Why a launch image is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LaunchError {
    /// No image, or one of another version.
    NotAnImage,
    /// The header's counts and sizes contradict each other.
    Malformed,
    /// Record with this number is not aligned, of unknown kind or points outside the image.
    Record(u32),
}

/// A record and its page, as a checked image yields them.
#[derive(Clone, Copy, Debug)]
pub struct LaunchPage<'a> {
    /// The table entry.
    pub record: Record,
    /// The page; empty for kinds without one.
    pub bytes: &'a [u8],
}

/// A checked launch image.
#[derive(Clone, Copy, Debug)]
pub struct LaunchImage<'a> {
    header: Header,
    records: &'a [Record],
    image: &'a [u8],
}

/// The address of a launch image that is too large for the usual place, where this `memory` is; `None` if it is there.
#[must_use]
pub fn elsewhere(memory: &[u8]) -> Option<u64> {
    let address = u64::from_le_bytes(*memory.first_chunk()?);
    (address >= HIGH_BASE && address.is_multiple_of(PAGE_SIZE)).then_some(address)
}

impl<'a> LaunchImage<'a> {
    /// Checks `memory`, which may be longer than the image.
    ///
    /// # Errors
    /// [`LaunchError`] says what does not fit.
    pub fn parse(memory: &'a [u8]) -> Result<Self, LaunchError> {
        let (header, rest) =
            Header::read_from_prefix(memory).map_err(|_| LaunchError::NotAnImage)?;
        if header.magic != MAGIC || header.version != VERSION {
            return Err(LaunchError::NotAnImage);
        }
        let image_bytes =
            usize::try_from(header.image_bytes).map_err(|_| LaunchError::Malformed)?;
        let image = memory.get(..image_bytes).ok_or(LaunchError::Malformed)?;
        if header.record_count > MAX_RECORDS || !(1..=MAX_CPUS).contains(&header.cpus) {
            return Err(LaunchError::Malformed);
        }
        let (records, _) =
            <[Record]>::ref_from_prefix_with_elems(rest, header.record_count as usize)
                .map_err(|_| LaunchError::Malformed)?;
        let checked = Self {
            header,
            records,
            image,
        };
        for (number, record) in (0..).zip(records) {
            checked.page(record).ok_or(LaunchError::Record(number))?;
        }
        Ok(checked)
    }

    /// The machine's switches.
    #[must_use]
    pub fn switches(&self) -> Switches {
        Switches::from_bits(self.header.switches)
    }

    /// Memory of the guest.
    #[must_use]
    pub fn memory(&self) -> GuestMemory {
        GuestMemory {
            ram: self.header.memory_bytes,
            firmware: u64::from(self.header.firmware) * LARGE_PAGE_SIZE,
            firmware_ram: u64::from(self.header.firmware_ram) * LARGE_PAGE_SIZE,
        }
    }

    /// CPUs of the guest.
    #[must_use]
    pub const fn cpus(&self) -> u32 {
        self.header.cpus
    }

    /// The records with their pages, in order.
    pub fn pages(&self) -> impl Iterator<Item = LaunchPage<'a>> + '_ {
        self.records.iter().filter_map(|record| self.page(record))
    }

    fn page(&self, record: &Record) -> Option<LaunchPage<'a>> {
        if !record.gpa.is_multiple_of(PAGE_SIZE) {
            return None;
        }
        let bytes = match record.kind {
            kind::NORMAL | kind::UNMEASURED | kind::SECRETS | kind::CPUID | kind::VMSA => {
                let start = record.data as usize;
                self.image.get(start..start.checked_add(PAGE_LENGTH)?)?
            }
            kind::ZERO if record.data == 0 => &[],
            kind::REQUIRED if record.data != 0 => &[],
            kind::ATTACK_ON_PAGE
            | kind::ATTACK_BY_REPLY
            | kind::ATTACK_BY_VECTOR
            | kind::ATTACK_BY_LAUNCH => &[],
            _ => return None,
        };
        Some(LaunchPage {
            record: *record,
            bytes,
        })
    }
}

/// A page to launch, for [`write()`].
#[derive(Clone, Copy, Debug)]
pub struct PageToLaunch<'a> {
    /// Guest physical address, page aligned.
    pub gpa: u64,
    /// One of [`kind`].
    pub kind: u32,
    /// At most 4096 bytes, zero-padded; ignored for kinds without a page.
    pub bytes: &'a [u8],
    /// Length in pages of a [`kind::REQUIRED`] record, or the word of an attack.
    pub pages: u32,
}

const fn carries_page(kind: u32) -> bool {
    matches!(
        kind,
        kind::NORMAL | kind::UNMEASURED | kind::SECRETS | kind::CPUID | kind::VMSA
    )
}

/// Writes a launch image piece by piece to `sink` (`|piece| vec.extend_from_slice(piece)`).
///
/// # Errors
/// The number of the page that is misaligned or too long, or `pages.len()` when there are too many or
/// `memory` cannot be written down.
pub fn write(
    switches: Switches,
    memory: GuestMemory,
    cpus: u32,
    pages: &[PageToLaunch<'_>],
    mut sink: impl FnMut(&[u8]),
) -> Result<(), usize> {
    let record_count = u32::try_from(pages.len())
        .ok()
        .filter(|count| *count <= MAX_RECORDS)
        .ok_or(pages.len())?;
    let table_end =
        (size_of::<Header>() + size_of::<Record>() * pages.len()).next_multiple_of(PAGE_LENGTH);
    let data_pages = pages.iter().filter(|page| carries_page(page.kind)).count();
    let image_bytes = (table_end + data_pages * PAGE_LENGTH) as u64;
    let units = |bytes: u64| u16::try_from(bytes / LARGE_PAGE_SIZE).map_err(|_| pages.len());
    let header = Header {
        magic: MAGIC,
        version: VERSION,
        record_count,
        switches: switches.into_bits(),
        memory_bytes: memory.ram,
        image_bytes,
        cpus,
        firmware: units(memory.firmware)?,
        firmware_ram: units(memory.firmware_ram)?,
    };
    sink(header.as_bytes());
    let mut offset = u32::try_from(table_end).map_err(|_| pages.len())?;
    for (number, page) in pages.iter().enumerate() {
        if !page.gpa.is_multiple_of(PAGE_SIZE) || page.bytes.len() > PAGE_LENGTH {
            return Err(number);
        }
        let mut record = Record {
            gpa: page.gpa,
            kind: page.kind,
            data: 0,
        };
        if carries_page(page.kind) {
            record.data = offset;
            offset = offset.checked_add(PAGE_BYTES).ok_or(number)?;
        } else if page.kind != kind::ZERO {
            record.data = page.pages;
        }
        sink(record.as_bytes());
    }
    let zeros = <[u8; PAGE_LENGTH]>::new_zeroed();
    let pad = |sink: &mut dyn FnMut(&[u8]), written: usize| {
        sink(
            zeros
                .get(..written.next_multiple_of(PAGE_LENGTH) - written)
                .unwrap_or_default(),
        );
    };
    pad(
        &mut sink,
        size_of::<Header>() + size_of::<Record>() * pages.len(),
    );
    for page in pages.iter().filter(|page| carries_page(page.kind)) {
        sink(page.bytes);
        if page.bytes.is_empty() {
            sink(&zeros);
        }
        pad(&mut sink, page.bytes.len());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    fn aligned(image: &[u8]) -> Vec<u64> {
        image
            .chunks(8)
            .map(|word| u64::from_le_bytes(word.try_into().unwrap()))
            .collect()
    }

    const MEMORY: GuestMemory = GuestMemory {
        ram: 1 << 30,
        firmware: 4 << 20,
        firmware_ram: 512 << 20,
    };

    fn example() -> Vec<u8> {
        let pages = [
            PageToLaunch {
                gpa: 0x40_0000,
                kind: kind::NORMAL,
                bytes: &[1, 2, 3],
                pages: 0,
            },
            PageToLaunch {
                gpa: 0x40_1000,
                kind: kind::ZERO,
                bytes: &[],
                pages: 0,
            },
            PageToLaunch {
                gpa: 0x50_0000,
                kind: kind::REQUIRED,
                bytes: &[],
                pages: 7,
            },
            PageToLaunch {
                gpa: 0xFFFF_FFFF_F000,
                kind: kind::VMSA,
                bytes: &[9; 4096],
                pages: 0,
            },
        ];
        let mut image = Vec::new();
        write(
            Switches::new().with_trace(true),
            MEMORY,
            2,
            &pages,
            |piece| {
                image.extend_from_slice(piece);
            },
        )
        .unwrap();
        image
    }

    #[test]
    fn reads_back_what_was_written() {
        let image = aligned(&example());
        let image = LaunchImage::parse(image.as_bytes()).unwrap();
        assert!(image.switches().trace());
        assert_eq!((image.memory(), image.cpus()), (MEMORY, 2));
        let pages: Vec<_> = image.pages().collect();
        assert_eq!(pages.len(), 4);
        assert_eq!(
            (pages[0].record.gpa, &pages[0].bytes[..4]),
            (0x40_0000, &[1, 2, 3, 0][..])
        );
        assert!(pages[1].bytes.is_empty());
        assert_eq!(pages[2].record.data, 7);
        assert_eq!(pages[3].bytes, &[9; 4096]);
    }

    #[test]
    fn damaged_images_are_refused() {
        let good = example();
        let parse = |image: &[u8]| LaunchImage::parse(aligned(image).as_bytes()).map(|_| ());
        let mut image = good.clone();
        image[0] = 0;
        assert_eq!(parse(&image), Err(LaunchError::NotAnImage));
        assert_eq!(parse(&good[..good.len() - 8]), Err(LaunchError::Malformed));
        let mut image = good.clone();
        image[12..16].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(parse(&image), Err(LaunchError::Malformed));
        for cpus in [0, 17] {
            let mut image = good.clone();
            image[40] = cpus;
            assert_eq!(parse(&image), Err(LaunchError::Malformed));
        }
        let mut image = good.clone();
        image[48] = 1; // record 0: misaligned
        assert_eq!(parse(&image), Err(LaunchError::Record(0)));
        let mut image = good;
        image[48 + 3 * 16 + 12..48 + 3 * 16 + 16].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(parse(&image), Err(LaunchError::Record(3)));
    }
}
