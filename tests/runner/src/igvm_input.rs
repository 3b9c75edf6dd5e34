// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reads an IGVM file and checks that it is one for SEV-SNP.

use std::path::Path;

use igvm::{IgvmDirectiveHeader, IgvmFile, IgvmPlatformHeader, IsolationType};
use igvm_builder::igvm_framing::is_framed;
use igvm_defs::IgvmPlatformType;
use paravisor::boot_block::{self, BootBlock};
use paravisor::layout;
use zerocopy::FromBytes;

use crate::{Failure, launch_rules};

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
    /// Bad input when it cannot be read, is no IGVM file, has no SNP platform, or one that the emulated machine cannot be.
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
        launch_rules::check(file.initializations(), &directives)?;
        Ok(Self {
            boot_block: boot_block(&directives),
            directives,
            mask,
            file_bytes: bytes.len() as u64,
        })
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
