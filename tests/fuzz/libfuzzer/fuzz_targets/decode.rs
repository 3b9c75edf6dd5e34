// SPDX-License-Identifier: MIT OR Apache-2.0
//! Any registers: read by the text and by the code.
#![no_main]

use libfuzzer_sys::fuzz_target;
use reference_model::drive;

fuzz_target!(|bytes: &[u8]| {
    drive::decode(bytes);
});
