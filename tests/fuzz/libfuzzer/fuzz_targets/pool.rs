// SPDX-License-Identifier: MIT OR Apache-2.0
//! Cases from libFuzzer.
#![no_main]

use fuzz::engine::run;
use fuzz::operation::RECORD_BYTES;
use fuzz::script::Script;
use libfuzzer_sys::{Corpus, fuzz_target};

/// Longer cases find nothing that shorter ones do not, and take longer.
const LONGEST: usize = 200 * RECORD_BYTES;

fuzz_target!(|bytes: &[u8]| -> Corpus {
    if bytes.len() > LONGEST {
        return Corpus::Reject;
    }
    run(&Script::from_bytes(bytes));
    Corpus::Keep
});
