// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the guest starts with, whatever kind of file it came from.

use std::collections::BTreeMap;
use std::ops::Range;

use paravisor::boot_block::PAYLOAD_ELF64;
use paravisor::layout;

use crate::Error;
use crate::compose::read;
use crate::elf_image::{ElfImage, Segment};
use crate::firmware::{firmware_payload, is_firmware};
use crate::linux::{is_kernel, linux_payload};
use crate::options::{Options, RamMode};

/// Where a payload may lie: above the hand-over area and in the memory that the smallest machine and
/// the start page tables are sure to have below the devices, or below the paravisor beside firmware.
const PAYLOAD_RANGE: Range<u64> = layout::PAYLOAD_BASE..PAYLOAD_END;
const PAYLOAD_END: u64 = if layout::IMAGE_BASE > layout::PAYLOAD_BASE {
    layout::IMAGE_BASE
} else {
    0x7000_0000
};

/// Where the guest looks for what the paravisor writes.
#[derive(Debug, Clone, Copy)]
pub struct GuestPages {
    /// Its secrets page.
    pub secrets: u64,
    /// Its CPUID page.
    pub cpuid: u64,
    /// The calling area of its boot vCPU.
    pub calling_area: u64,
}

impl GuestPages {
    /// Those of the hand-over area.
    pub const HANDOVER: Self = Self {
        secrets: layout::SECRETS_COPY,
        cpuid: layout::CPUID_COPY,
        calling_area: layout::BOOT_CALLING_AREA,
    };
}

/// The pages of the guest and how it starts.
#[derive(Debug)]
pub struct Payload {
    /// Kind, as the boot block names it.
    pub kind: u32,
    /// Address of the first instruction.
    pub entry: u64,
    /// Address of the zero page; 0 if it has none.
    pub boot_params: u64,
    /// One past the last byte it needs to start; 0 for its own pages only.
    pub needs_until: u64,
    /// Where it looks for its pages.
    pub start_pages: GuestPages,
    /// Ranges of pages by address; they share no page.
    pub segments: Vec<Segment>,
    /// Contents of every page of every range.
    pub pages: BTreeMap<u64, Box<[u8; 4096]>>,
}

impl Payload {
    /// Reads the files that `options` name and recognizes what they are.
    ///
    /// # Errors
    /// A file is unsuitable, or an option does not fit its kind.
    pub fn read(options: &Options) -> Result<Self, Error> {
        let path = &options.payload;
        let bytes = read(path)?;
        if !is_kernel(&bytes) {
            if options.initrd.is_some() {
                return Err(Error::InitrdWithoutKernel(path.clone()));
            }
            if is_firmware(&bytes) {
                return firmware_payload(path, &bytes, options);
            }
            return ElfImage::parse(path, &bytes, &PAYLOAD_RANGE).map(Self::from);
        }
        if options.ram == Some(RamMode::Firmware) {
            return Err(Error::FirmwareRam);
        }
        let initrd = match &options.initrd {
            Some(path) => Some((path.as_path(), read(path)?)),
            None => None,
        };
        let initrd = initrd
            .as_ref()
            .map(|(path, bytes)| (*path, bytes.as_slice()));
        linux_payload((path, &bytes), initrd, &options.cmdline, &PAYLOAD_RANGE)
    }
}

impl From<ElfImage> for Payload {
    fn from(image: ElfImage) -> Self {
        Self {
            kind: PAYLOAD_ELF64,
            entry: image.entry,
            boot_params: 0,
            needs_until: 0,
            start_pages: GuestPages::HANDOVER,
            segments: image.segments,
            pages: image.pages,
        }
    }
}
