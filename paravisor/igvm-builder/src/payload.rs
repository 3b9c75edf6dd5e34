// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the guest starts with, whatever kind of file it came from.

use std::collections::BTreeMap;
use std::ops::Range;

use paravisor::boot_block::PAYLOAD_ELF64;
use paravisor::layout;

use crate::Error;
use crate::compose::read;
use crate::elf_image::{ElfImage, Segment};
use crate::linux::{is_kernel, linux_payload};
use crate::options::{Options, RamMode};

/// Where a payload may lie: above the hand-over area and in the memory that the smallest machine and
/// the start page tables are sure to have below the devices.
const PAYLOAD_RANGE: Range<u64> = layout::PAYLOAD_BASE..0x7000_0000;

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
            return ElfImage::parse(path, &bytes, &PAYLOAD_RANGE).map(Self::from);
        }
        if options.ram == RamMode::Firmware {
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
            segments: image.segments,
            pages: image.pages,
        }
    }
}
