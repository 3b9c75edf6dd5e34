// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which sections an object may have.

use object::elf::{SHF_ALLOC, SHF_EXECINSTR, SHF_MERGE, SHF_STRINGS, SHF_WRITE};
use object::{File, Object, ObjectSection, Section, SectionFlags, SectionKind};
use thiserror::Error;

use crate::Refused;

/// What is wrong with a section.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SectionFault {
    /// The library has no state but what a kernel lends it.
    #[error("holds writable data, and the library has none; make it part of the pool's storage")]
    Writable,
    /// Neither code nor constants.
    #[error(
        "is not known, so nobody has said what a module loader does with it; read up and add it here"
    )]
    Unknown,
    /// Flags that do not belong to the name.
    #[error("has flags {0:#x}, which do not belong to its name")]
    Flags(u64),
    /// A note that says something else than expected.
    #[error("claims properties that were not asked for")]
    Properties,
}

/// What IBT alone looks like as a property: `GNU`, type 5, one property 0xc0000002 (x86 features), IBT.
const IBT_PROPERTY: [u8; 32] = [
    4, 0, 0, 0, 16, 0, 0, 0, 5, 0, 0, 0, b'G', b'N', b'U', 0, 2, 0, 0, 0xc0, 4, 0, 0, 0, 1, 0, 0,
    0, 0, 0, 0, 0,
];

/// Whether the section holds instructions.
pub(crate) fn is_code(flags: SectionFlags) -> bool {
    matches!(flags, SectionFlags::Elf { sh_flags, .. } if sh_flags.0 & SHF_EXECINSTR.0 != 0)
}

pub(crate) fn check(file: &File<'_>, refused: &mut Vec<Refused>) {
    for section in file.sections() {
        let name = section.name().unwrap_or("(no name)");
        if let Some(fault) = fault(name, &section) {
            refused.push(Refused::Section(name.into(), fault));
        }
    }
}

fn fault(name: &str, section: &Section<'_, '_>) -> Option<SectionFault> {
    let SectionFlags::Elf { sh_flags, .. } = section.flags() else {
        return Some(SectionFault::Unknown);
    };
    let sh_flags = sh_flags.0;
    let (alloc, code, write) = (SHF_ALLOC.0, SHF_EXECINSTR.0, SHF_WRITE.0);
    let mergeable = SHF_MERGE.0 | SHF_STRINGS.0;
    if sh_flags & write != 0 {
        return Some(SectionFault::Writable);
    }
    let allowed = match name {
        // The compiler's name for functions it thinks cold ends in a dot where sections are not split.
        ".text" | ".text.unlikely" | ".text.unlikely." => sh_flags == alloc | code,
        ".rodata" => sh_flags == alloc,
        ".note.gnu.property" => {
            if section.data() != Ok(&IBT_PROPERTY) {
                return Some(SectionFault::Properties);
            }
            sh_flags == alloc
        }
        // Says that the stack need not be executable; empty.
        ".note.GNU-stack" => sh_flags == 0 && section.size() == 0,
        ".comment" => sh_flags & !mergeable == 0,
        "" | ".symtab" | ".strtab" | ".shstrtab" => sh_flags == 0,
        _ if name.starts_with(".rodata.cst") || name.starts_with(".rodata.str") => {
            sh_flags & !mergeable == alloc
        }
        _ if name.starts_with(".rela.text") => section.kind() == SectionKind::Metadata,
        _ => return Some(SectionFault::Unknown),
    };
    (!allowed).then_some(SectionFault::Flags(sh_flags))
}
