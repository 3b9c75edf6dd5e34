// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reads the header of a bzImage (Linux, Documentation/arch/x86/boot.rst).
//!
//! The header does not say whether the kernel can run as an SEV-SNP guest under an SVSM (Linux 6.11 or
//! later, `CONFIG_AMD_MEM_ENCRYPT`): that is seen when it runs.

use std::path::Path;

use paravisor::linux::boot_params::SETUP_HEADER;

use crate::Error;

/// Bytes of a sector, the unit of the real-mode part.
const SECTOR: usize = 512;
/// The real-mode part's length in sectors, without the first one.
const SETUP_SECTS: usize = 0x1f1;
/// Length of the protected-mode kernel in 16 bytes (u32).
const SYSSIZE: usize = 0x1f4;
/// 0xAA55.
const BOOT_FLAG: usize = 0x1fe;
/// A short jump over the header; its distance says how long the header is.
const JUMP_DISTANCE: usize = 0x201;
/// `HdrS`.
const MAGIC: usize = 0x202;
/// Version of the boot protocol (u16).
const VERSION: usize = 0x206;
/// Bit 0: the kernel is loaded above 1 MiB.
const LOADFLAGS: usize = 0x211;
/// Highest address of an initrd's last byte (u32).
const INITRD_ADDR_MAX: usize = 0x22c;
/// Alignment of the load address (u32).
const KERNEL_ALIGNMENT: usize = 0x230;
/// Not 0: the kernel runs where it is loaded (u8).
const RELOCATABLE: usize = 0x234;
/// Bit 0: there is a 64-bit entry point (u16).
const XLOADFLAGS: usize = 0x236;
/// Longest command line without its final zero (u32).
const CMDLINE_SIZE: usize = 0x238;
/// Load address the kernel prefers (u64).
const PREF_ADDRESS: usize = 0x258;
/// Memory from the load address on in which the kernel unpacks itself (u32).
const INIT_SIZE: usize = 0x260;
/// One past the last field read here.
const HEADER_END: usize = 0x264;
/// Protocol 2.12, the first with XLOADFLAGS.
const OLDEST: u16 = 0x020c;

/// A kernel, its header checked.
#[derive(Debug)]
pub struct BzImage<'a> {
    /// The setup header, to be copied to the same offset of the zero page.
    pub setup_header: &'a [u8],
    /// The protected-mode kernel.
    pub kernel: &'a [u8],
    /// Memory that the kernel unpacks itself in, from its load address on.
    pub init_size: u64,
    /// Alignment of the load address, a power of two of at least 4 KiB.
    pub alignment: u64,
    /// Load address it prefers, or demands unless it is relocatable.
    pub preferred: u64,
    /// It runs at any aligned address.
    pub relocatable: bool,
    /// One past the highest address of an initrd.
    pub initrd_limit: u64,
    /// Longest command line in bytes, without its final zero.
    pub cmdline_bytes: usize,
}

/// Whether a file is a kernel with a boot protocol header, whatever its version.
#[must_use]
pub fn is_kernel(bytes: &[u8]) -> bool {
    u16_at(bytes, BOOT_FLAG) == Some(0xaa55) && bytes.get(MAGIC..MAGIC + 4) == Some(b"HdrS")
}

fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    let field = bytes.get(offset..offset + 2)?;
    Some(u16::from_le_bytes(field.try_into().ok()?))
}

fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    let field = bytes.get(offset..offset + 4)?;
    Some(u32::from_le_bytes(field.try_into().ok()?))
}

impl<'a> BzImage<'a> {
    /// Reads `bytes`, the contents of the kernel `path` (for messages).
    ///
    /// # Errors
    /// [`Error::Kernel`] for a kernel that cannot be started this way, [`Error::BrokenKernel`] for a
    /// file that contradicts itself.
    pub fn parse(path: &Path, bytes: &'a [u8]) -> Result<Self, Error> {
        let broken = |what| Error::BrokenKernel {
            path: path.to_owned(),
            what,
        };
        let unsuitable = |what| Error::Kernel {
            path: path.to_owned(),
            what,
        };
        if bytes.len() < HEADER_END {
            return Err(broken("its header is cut short"));
        }
        // The length has been checked, so no field is missing.
        let byte = |offset: usize| bytes.get(offset).copied().unwrap_or(0);
        let word = |offset| u16_at(bytes, offset).unwrap_or(0);
        let long = |offset| u32_at(bytes, offset).unwrap_or(0);
        if word(VERSION) < OLDEST {
            return Err(unsuitable("has a boot protocol older than 2.12"));
        }
        if word(XLOADFLAGS) & 1 == 0 {
            return Err(unsuitable("has no 64-bit entry point"));
        }
        if byte(LOADFLAGS) & 1 == 0 {
            return Err(unsuitable("is loaded below 1 MiB"));
        }
        let header_end = MAGIC + usize::from(byte(JUMP_DISTANCE));
        let setup_header = bytes
            .get(SETUP_HEADER..header_end)
            .filter(|_| header_end >= HEADER_END)
            .ok_or_else(|| broken("its header has an impossible length"))?;

        // 0 stands for 4 (boot.rst).
        let sectors = match byte(SETUP_SECTS) {
            0 => 4,
            sectors => usize::from(sectors),
        };
        let start = (sectors + 1) * SECTOR;
        let length = usize::try_from(u64::from(long(SYSSIZE)) * 16)
            .map_err(|_| broken("its length is impossible"))?;
        let kernel = bytes
            .get(start..)
            .and_then(|rest| rest.get(..length))
            .filter(|kernel| kernel.len() > 0x200)
            .ok_or_else(|| broken("it is shorter than its header says"))?;
        let alignment = u64::from(long(KERNEL_ALIGNMENT));
        if !alignment.is_power_of_two() || !(4096..=1 << 30).contains(&alignment) {
            return Err(broken("its alignment is impossible"));
        }
        let init_size = u64::from(long(INIT_SIZE));
        if init_size < length as u64 {
            return Err(broken("it claims to unpack into less than it is"));
        }
        let preferred = bytes.get(PREF_ADDRESS..PREF_ADDRESS + 8);
        let preferred = preferred.and_then(|field| field.try_into().ok());
        Ok(Self {
            setup_header,
            kernel,
            init_size,
            alignment,
            preferred: u64::from_le_bytes(preferred.unwrap_or_default()),
            relocatable: byte(RELOCATABLE) != 0,
            initrd_limit: u64::from(long(INITRD_ADDR_MAX)) + 1,
            cmdline_bytes: usize::try_from(long(CMDLINE_SIZE)).unwrap_or(usize::MAX),
        })
    }
}
