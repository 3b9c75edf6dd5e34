// SPDX-License-Identifier: MIT OR Apache-2.0
//! Finding the window before there is memory for its records.

use core::ffi::c_int;

use guest_shim::find_window;

use crate::Kernel;
use crate::argument::Output;
#[cfg(not(feature = "linked-platform"))]
use crate::argument::input;
#[cfg(not(feature = "linked-platform"))]
use crate::callbacks::PlatformTable;
use crate::config::Config;
use crate::error::{Outcome, number_of};
use crate::pool::Window;

/// Finds the service, checks its identity and learns its window, for a kernel that sizes its metadata at run time
/// (`svsm_swiotlb_metadata_bytes`). Attaches nothing and changes nothing.
///
/// Errors: INVALID_ARGUMENT, NO_SERVICE, ANOTHER_PROTOCOL, UNUSABLE_WINDOW, SERVICE_REFUSED, NOT_RUN, MALFORMED.
///
/// # Safety
/// `platform` and `config` are null or initialised, and the platform's functions keep their contracts; `window` is null or
/// writable.
#[cfg(not(feature = "linked-platform"))]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn svsm_swiotlb_find(
    platform: *const PlatformTable,
    config: *const Config,
    window: *mut Window,
) -> c_int {
    // SAFETY: The caller's contract, for the table and for its functions.
    let kernel = unsafe { input(platform).and_then(|table| Kernel::new(table)) };
    number_of(kernel.and_then(|kernel| {
        // SAFETY: The caller's contract.
        unsafe { find(&kernel, config, window) }
    }))
}

/// Finds the service, checks its identity and learns its window, for a kernel that sizes its metadata at run time
/// (`svsm_swiotlb_metadata_bytes`). Attaches nothing and changes nothing.
///
/// Errors: INVALID_ARGUMENT, NO_SERVICE, ANOTHER_PROTOCOL, UNUSABLE_WINDOW, SERVICE_REFUSED, NOT_RUN, MALFORMED.
///
/// # Safety
/// `config` is null or initialised, and the functions `svsm_swiotlb_platform_*` keep their contracts; `window` is null or
/// writable.
#[cfg(feature = "linked-platform")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn svsm_swiotlb_find(config: *const Config, window: *mut Window) -> c_int {
    // SAFETY: The caller's contract.
    number_of(unsafe { find(&Kernel, config, window) })
}

/// # Safety
/// As for [`svsm_swiotlb_find`].
unsafe fn find(kernel: &Kernel, config: *const Config, window: *mut Window) -> Outcome {
    // SAFETY: The caller's contract.
    let config = unsafe { Config::read(config)? };
    let output = Output::required(window)?;
    let found = find_window(kernel, &config.into())?;
    // SAFETY: The caller's contract.
    unsafe {
        output.set(Window {
            base: found.base(),
            bytes: found.bytes(),
        });
    };
    Ok(())
}
