// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which relocations an object may have.

use object::elf::{
    R_X86_64_32S, R_X86_64_64, R_X86_64_GOTPCREL, R_X86_64_GOTPCRELX, R_X86_64_PC32,
    R_X86_64_PLT32, R_X86_64_REX_GOTPCRELX,
};
use object::{File, Object, ObjectSection, RelocationFlags};
use thiserror::Error;

use crate::Refused;

/// What is wrong with a relocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum RelocationFault {
    /// The module loader of this architecture has no table of addresses.
    #[error("goes through a global offset table, which modules do not have")]
    OffsetTable,
    /// The module loader refuses others (arch/x86/kernel/module.c), or takes them for something else.
    #[error("type {0} is not known")]
    Unknown(u32),
}

pub(crate) fn check(file: &File<'_>, refused: &mut Vec<Refused>) {
    for section in file.sections() {
        for (offset, relocation) in section.relocations() {
            let fault = match relocation.flags() {
                RelocationFlags::Elf {
                    r_type: R_X86_64_64 | R_X86_64_32S | R_X86_64_PC32 | R_X86_64_PLT32,
                } => continue,
                RelocationFlags::Elf {
                    r_type: R_X86_64_GOTPCREL | R_X86_64_GOTPCRELX | R_X86_64_REX_GOTPCRELX,
                } => RelocationFault::OffsetTable,
                RelocationFlags::Elf { r_type } => RelocationFault::Unknown(r_type.0),
                _ => RelocationFault::Unknown(u32::MAX),
            };
            let name = section.name().unwrap_or("(no name)");
            refused.push(Refused::Relocation(name.into(), offset, fault));
        }
    }
}
