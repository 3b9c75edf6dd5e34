// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which symbols an object may define and need.

use object::{File, Object, ObjectSection, ObjectSymbol, Symbol, SymbolKind, SymbolScope};
use thiserror::Error;

use crate::{Refused, sections};

/// What is wrong with a symbol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SymbolFault {
    /// The kernel may have a symbol of that name.
    #[error("is visible to the kernel and no entry (svsm_swiotlb_*)")]
    VisibleName,
    /// The module would not load, or would use something nobody has thought about.
    #[error("is needed and nothing that a kernel lends the library")]
    Needed,
    /// Another definition could take its place.
    #[error("is weak, so that another definition could take its place")]
    Weak,
    /// An entry that is no function.
    #[error("is an entry and no code")]
    NotCode,
    /// Storage whose place the linker chooses, or a kind nobody expects.
    #[error("is of a kind that a module may not have")]
    Kind,
}

/// Prefix of every entry.
const ENTRY: &str = "svsm_swiotlb_";
/// Prefix of what the kernel's part of the module defines.
const PLATFORM: &str = "svsm_swiotlb_platform_";
/// What every kernel of this architecture exports to modules.
const KERNEL: [&str; 5] = [
    "memcpy",
    "memset",
    "memmove",
    "memcmp",
    "__x86_return_thunk",
];
const INDIRECT_THUNK: &str = "__x86_indirect_thunk_";

/// Whether the kernel has a function of that name for the library.
fn lent(name: &str) -> bool {
    KERNEL.contains(&name) || name.starts_with(INDIRECT_THUNK) || name.starts_with(PLATFORM)
}

/// Returns the names of the entries.
pub(crate) fn check(file: &File<'_>, refused: &mut Vec<Refused>) -> Vec<String> {
    let mut entries = Vec::new();
    for symbol in file.symbols() {
        let name = symbol.name().unwrap_or("(no name)");
        match fault(file, name, &symbol) {
            Some(fault) => refused.push(Refused::Symbol(name.into(), fault)),
            None if symbol.is_global() && symbol.is_definition() => entries.push(name.into()),
            None => {}
        }
    }
    entries.sort();
    entries
}

fn fault(file: &File<'_>, name: &str, symbol: &Symbol<'_, '_>) -> Option<SymbolFault> {
    if symbol.is_weak() {
        return Some(SymbolFault::Weak);
    }
    if symbol.is_undefined() {
        return (!name.is_empty() && !lent(name)).then_some(SymbolFault::Needed);
    }
    if symbol.is_common()
        || !matches!(
            symbol.kind(),
            SymbolKind::Text
                | SymbolKind::Data
                | SymbolKind::Section
                | SymbolKind::File
                | SymbolKind::Label
                | SymbolKind::Unknown
        )
    {
        return Some(SymbolFault::Kind);
    }
    if symbol.scope() == SymbolScope::Compilation {
        return None;
    }
    if !name.starts_with(ENTRY) || name.starts_with(PLATFORM) {
        return Some(SymbolFault::VisibleName);
    }
    let code = symbol
        .section_index()
        .and_then(|index| file.section_by_index(index).ok())
        .is_some_and(|section| sections::is_code(section.flags()));
    (!code || symbol.kind() != SymbolKind::Text).then_some(SymbolFault::NotCode)
}
