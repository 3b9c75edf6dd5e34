// SPDX-License-Identifier: MIT OR Apache-2.0
//! Allocators in shared objects.

use std::path::Path;

use libloading::{Library, Symbol};

use crate::abi::{self, Operations};
use crate::driver::Allocator;

/// Loads an allocator, for the rest of the program.
///
/// # Safety
/// The file is a shared object that does what `include/bb_abi.h` says; its initialisers are run.
///
/// # Errors
/// A line that names the file and what is wrong with it.
pub unsafe fn load(path: &Path) -> Result<Allocator, String> {
    let failed = |what: &dyn std::fmt::Display| format!("{}: {what}", path.display());
    // A name without a directory would be looked for in the system's libraries.
    let path_in_full = path.canonicalize().map_err(|error| failed(&error))?;
    // SAFETY: The caller vouches for the file.
    let library = unsafe { Library::new(path_in_full) }.map_err(|error| failed(&error))?;
    // SAFETY: The type is the one of the interface.
    let symbol: Symbol<'_, unsafe extern "C" fn() -> *const Operations> =
        unsafe { library.get(c"bb_get_ops".to_bytes_with_nul()) }
            .map_err(|_| failed(&"no bb_get_ops: build it against tests/bench/include/bb_abi.h"))?;
    // SAFETY: As above.
    let operations = unsafe { symbol() };
    // The table lives in the library, which is never unloaded.
    std::mem::forget(library);
    // SAFETY: By the interface a table or null.
    let operations = unsafe { operations.as_ref() }.ok_or_else(|| failed(&"no table"))?;
    if operations.abi != abi::VERSION {
        let found = operations.abi;
        return Err(failed(&format_args!(
            "interface version {found}, this driver speaks {}: build it against tests/bench/include/bb_abi.h",
            abi::VERSION
        )));
    }
    // SAFETY: The caller vouches for the functions too.
    Ok(unsafe { Allocator::new(operations) })
}
