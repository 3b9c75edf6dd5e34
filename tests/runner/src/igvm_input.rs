// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reads an IGVM file and checks that it is one for SEV-SNP.

use std::path::Path;

use igvm::{IgvmDirectiveHeader, IgvmFile, IgvmPlatformHeader, IsolationType};
use igvm_defs::{IGVM_MAGIC_VALUE, IgvmPlatformType};
use paravisor::boot_block::{self, BootBlock};
use paravisor::layout;
use zerocopy::FromBytes;

use crate::Failure;

/// The SNP part of an IGVM file.
#[derive(Debug)]
pub struct IgvmInput {
    /// The directives in file order, those of other platforms included.
    pub directives: Vec<IgvmDirectiveHeader>,
    /// Compatibility mask of the SNP platform.
    pub mask: u32,
    /// Size of the file in bytes.
    pub file_bytes: u64,
    /// The boot block, if the file holds this project's paravisor.
    pub boot_block: Option<Box<BootBlock>>,
}

impl IgvmInput {
    /// Reads `path`.
    ///
    /// # Errors
    /// Bad input when it cannot be read, is no IGVM file or has no SNP platform.
    pub fn read(path: &Path) -> Result<Self, Failure> {
        let refuse = |what: &str| {
            let name = path.display();
            Failure::bad_input(format!(
                "{name} {what}; pass an SEV-SNP IGVM file (igvm-builder makes one)"
            ))
        };
        let bytes =
            std::fs::read(path).map_err(|error| refuse(&format!("cannot be read ({error})")))?;
        if !is_framed(&bytes) {
            return Err(refuse("is no IGVM file"));
        }
        let file = IgvmFile::new_from_binary(&bytes, Some(IsolationType::Snp))
            .map_err(|error| refuse(&format!("is a damaged IGVM file ({error})")))?;
        let mask = file
            .platforms()
            .iter()
            .map(|IgvmPlatformHeader::SupportedPlatform(platform)| platform)
            .find(|platform| platform.platform_type == IgvmPlatformType::SEV_SNP)
            .map(|platform| platform.compatibility_mask)
            .ok_or_else(|| refuse("is an IGVM file without an SEV-SNP platform"))?;
        let directives = file.directives().to_vec();
        Ok(Self {
            boot_block: boot_block(&directives),
            directives,
            mask,
            file_bytes: bytes.len() as u64,
        })
    }
}

/// Magic and a variable header section that lies inside the file. The parser trusts these sums, so a
/// foreign file must not reach it.
fn is_framed(bytes: &[u8]) -> bool {
    let word = |index: usize| {
        let field = bytes.get(index * 4..index * 4 + 4)?;
        Some(u32::from_le_bytes(field.try_into().ok()?))
    };
    match (word(0), word(2), word(3)) {
        (Some(IGVM_MAGIC_VALUE), Some(offset), Some(size)) => offset
            .checked_add(size)
            .is_some_and(|end| u64::from(end) < bytes.len() as u64),
        _ => false,
    }
}

/// The boot block of this project's paravisor, if one is launched at its address.
fn boot_block(directives: &[IgvmDirectiveHeader]) -> Option<Box<BootBlock>> {
    let page = directives.iter().find_map(|directive| match directive {
        IgvmDirectiveHeader::PageData { gpa, data, .. } if *gpa == layout::BOOT_BLOCK => Some(data),
        _ => None,
    })?;
    let (block, _) = BootBlock::read_from_prefix(page).ok()?;
    (block.magic == boot_block::MAGIC && block.check().is_ok()).then(|| Box::new(block))
}

#[cfg(test)]
mod tests {
    use super::is_framed;

    #[test]
    fn foreign_and_cut_files_are_no_igvm_files() {
        let mut file = vec![0_u8; 64];
        file[..4].copy_from_slice(b"IGVM");
        file[8] = 24;
        file[12] = 8;
        assert!(is_framed(&file));
        assert!(!is_framed(&file[..20]));
        assert!(!is_framed(&file[..32]), "no file data");
        file[12..16].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(!is_framed(&file), "the section would wrap");
        file[0] = 0x7f;
        assert!(!is_framed(&file));
    }
}
