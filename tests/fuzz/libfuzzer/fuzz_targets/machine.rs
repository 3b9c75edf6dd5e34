// SPDX-License-Identifier: MIT OR Apache-2.0
//! The same on a machine with the hardware's rules, whose host takes pages away.
#![no_main]

use libfuzzer_sys::fuzz_target;
use reference_model::drive;

fuzz_target!(|bytes: &[u8]| {
    drive::machine(bytes);
});
