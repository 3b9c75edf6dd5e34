// SPDX-License-Identifier: MIT OR Apache-2.0
//! All checks of one object.

use object::{Architecture, BinaryFormat, Object, ObjectKind};
use thiserror::Error;

use crate::{InstructionFault, RelocationFault, SectionFault, SymbolFault};
use crate::{instructions, relocations, sections, symbols};

/// Why an object cannot be part of a module.
#[derive(Debug, PartialEq, Eq, Error)]
pub enum Refused {
    /// Not what the compiler writes for this target.
    #[error("not a relocatable ELF object for x86-64: {0}")]
    NotAnObject(String),
    /// Nothing that a module could call.
    #[error("there is no entry (svsm_swiotlb_*) in it")]
    NoEntries,
    /// A section that may not be there.
    #[error("section {0}: {1}")]
    Section(String, SectionFault),
    /// A symbol that may not be there.
    #[error("symbol {0}: {1}")]
    Symbol(String, SymbolFault),
    /// A relocation that may not be there.
    #[error("relocation at {0}+{1:#x}: {2}")]
    Relocation(String, u64, RelocationFault),
    /// An instruction that may not be there.
    #[error("instruction at {0}+{1:#x}: {2}")]
    Instruction(String, u64, InstructionFault),
}

/// Reads the object `bytes` and returns the names of its entries.
///
/// # Errors
/// Everything that is wrong with it, as [`Refused`].
pub fn check(bytes: &[u8]) -> Result<Vec<String>, Vec<Refused>> {
    let file = object::File::parse(bytes)
        .map_err(|error| vec![Refused::NotAnObject(error.to_string())])?;
    let what = (file.format(), file.architecture(), file.kind());
    if what
        != (
            BinaryFormat::Elf,
            Architecture::X86_64,
            ObjectKind::Relocatable,
        )
    {
        return Err(vec![Refused::NotAnObject(format!("{what:?}"))]);
    }
    let mut refused = Vec::new();
    sections::check(&file, &mut refused);
    let entries = symbols::check(&file, &mut refused);
    if entries.is_empty() {
        refused.push(Refused::NoEntries);
    }
    relocations::check(&file, &mut refused);
    instructions::check(&file, &mut refused);
    if refused.is_empty() {
        Ok(entries)
    } else {
        Err(refused)
    }
}
