// SPDX-License-Identifier: MIT OR Apache-2.0
//! The same with a host that replies by bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use reference_model::drive;

fuzz_target!(|bytes: &[u8]| {
    drive::hostile_host(bytes);
});
