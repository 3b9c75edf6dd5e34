// SPDX-License-Identifier: MIT OR Apache-2.0
//! A guest's calls, with faults; service against model.
#![no_main]

use libfuzzer_sys::fuzz_target;
use reference_model::drive;

fuzz_target!(|bytes: &[u8]| {
    drive::calls(bytes);
});
