// SPDX-License-Identifier: MIT OR Apache-2.0
//! Random cases, which proptest makes simpler when they fail.

use std::sync::Mutex;

use fuzz::engine::{run, step};
use fuzz::operation::RECORD_BYTES;
use fuzz::script::Script;
use proptest::prelude::*;

const CASES: u32 = if cfg!(miri) { 6 } else { 100 };
const OPERATIONS: usize = if cfg!(miri) { 30 } else { 150 };

/// What the last panic said: shrinking panics often, and only the last one matters.
static FAILURE: Mutex<String> = Mutex::new(String::new());

fn script() -> impl Strategy<Value = Script> {
    let record = any::<[u8; RECORD_BYTES]>();
    let operations = proptest::collection::vec(record, 1..OPERATIONS);
    (record, operations).prop_map(|(setup, operations)| Script { setup, operations })
}

fn failure(script: &Script) -> Option<String> {
    let outcome = std::panic::catch_unwind(|| run(script));
    let said = std::mem::take(&mut *FAILURE.lock().unwrap());
    outcome.is_err().then(|| match step() {
        Some((number, operation)) => format!("step {number}, {operation:?}: {said}"),
        None => format!("at the end: {said}"),
    })
}

#[test]
fn random_use_agrees_with_the_model() {
    std::panic::set_hook(Box::new(|panic| {
        *FAILURE.lock().unwrap() = panic.to_string();
    }));
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases: CASES,
        max_shrink_time: 60_000,
        max_shrink_iters: 4000,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let outcome = runner.run(&script(), |script| match failure(&script) {
        Some(failure) => Err(TestCaseError::fail(failure)),
        None => Ok(()),
    });
    drop(std::panic::take_hook());
    if let Err(error) = outcome {
        panic!("{error}");
    }
}
