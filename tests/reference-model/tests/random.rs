// SPDX-License-Identifier: MIT OR Apache-2.0
//! Random bytes as calls and hosts, each call judged by the model; and the stored cases of the fuzz targets.

use std::fs;
use std::path::Path;

use proptest::collection::vec;
use proptest::prelude::*;
use protocol::result;
use reference_model::{Tried, drive};
use snp::svsm::ResultCode;

/// What a fuzz target runs.
type Target = fn(&[u8]) -> Tried;

/// Number of the call.
const CONVERT: u64 = 9;
/// The fuzz targets of tests/fuzz/libfuzzer, which are also the folders of their cases, but for `decode`.
const TARGETS: [(&str, Target); 3] = [
    ("calls", drive::calls),
    ("hostile_host", drive::hostile_host),
    ("machine", drive::machine),
];

/// Bytes of a case, at most.
const LONG: usize = if cfg!(miri) { 40 } else { 400 };
/// Random cases of each property; those on the machine take longer.
const CASES: u32 = if cfg!(miri) { 2 } else { 2000 };
const MACHINE_CASES: u32 = if cfg!(miri) { 2 } else { 300 };

/// Every case of a target; what they tried.
fn replay(target: &str, run: Target) -> Tried {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("corpus")
        .join(target);
    let mut tried = Tried::default();
    let mut cases = 0;
    for file in fs::read_dir(&folder).expect("the folder is there") {
        let bytes = fs::read(file.unwrap().path()).unwrap();
        // A call takes a fraction of a second there.
        if cfg!(miri) && (cases == 1 || bytes.len() > 80) {
            continue;
        }
        let case = run(&bytes);
        tried.answers.extend(case.answers);
        tried.outcomes.extend(case.outcomes);
        cases += 1;
    }
    assert!(cases > 0, "{target} has no cases");
    println!("{target}: {cases} cases");
    tried
}

#[test]
fn the_stored_cases_agree_with_the_model_and_show_every_call_and_every_end_of_a_conversion() {
    let decoded = replay("decode", drive::decode);
    let refused = ResultCode::INVALID_PARAMETER.0;
    let unknown = ResultCode::UNSUPPORTED_CALL.0;
    let mut tried = Tried::default();
    for (target, run) in TARGETS {
        let target = replay(target, run);
        tried.answers.extend(target.answers);
        tried.outcomes.extend(target.outcomes);
    }
    if cfg!(miri) {
        return;
    }
    for number in 0..=12 {
        assert!(decoded.answers.contains(&(number, refused)), "{number}");
        let answered = tried.answers.contains(&(number, 0));
        assert!(answered, "no case in which call {number} succeeds");
    }
    for code in [refused, 0] {
        assert!(decoded.answers.contains(&(16, code)), "{code:#x}");
        assert!(tried.answers.contains(&(16, code)), "{code:#x}");
    }
    let elsewhere = (16, ResultCode::INVALID_ADDRESS.0);
    assert!(tried.answers.contains(&elsewhere), "no block elsewhere");
    for number in [13, 14, 15, 17] {
        assert!(decoded.answers.contains(&(number, unknown)), "{number}");
        assert!(tried.answers.contains(&(number, unknown)), "{number}");
    }
    for code in [
        ResultCode::INCOMPLETE,
        ResultCode::INVALID_ADDRESS,
        ResultCode::INVALID_PARAMETER,
        result::NOT_ATTACHED,
        result::STALE_EPOCH,
        result::HOST_REFUSED,
        result::PAGE_LOST,
        result::HOST_MISBEHAVED,
    ] {
        let answered = tried.answers.contains(&(CONVERT, code.0));
        assert!(answered, "no case in which CONVERT answers {code}");
    }
    for outcome in Tried::ALL_OUTCOMES {
        assert!(tried.outcomes.contains(&outcome), "no case of {outcome:?}");
    }
}

#[test]
fn p_5_9_5_the_stored_calls_agree_with_the_model_without_convert() {
    let tried = replay("calls", drive::calls_without_convert);
    assert!(tried.outcomes.is_empty());
    let refused = (CONVERT, ResultCode::UNSUPPORTED_CALL.0);
    assert!(cfg!(miri) || tried.answers.contains(&refused));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(CASES) })]

    #[test]
    fn c2_text_and_code_read_registers_alike(bytes in vec(any::<u8>(), 0..64)) {
        drive::decode(&bytes);
    }

    #[test]
    fn w2_p3_random_calls_agree_with_the_model(bytes in vec(any::<u8>(), 0..LONG)) {
        drive::calls(&bytes);
    }

    #[test]
    fn p_5_9_5_random_calls_without_convert_agree_with_the_model(bytes in vec(any::<u8>(), 0..100)) {
        drive::calls_without_convert(&bytes);
    }

    #[test]
    fn p_3_2_w2_random_calls_beside_a_second_window_agree_with_the_model(bytes in vec(any::<u8>(), 0..LONG * 3 / 2)) {
        drive::two_windows(&bytes);
    }

    #[test]
    fn p4_random_replies_agree_with_the_model(bytes in vec(any::<u8>(), 0..LONG * 3 / 2)) {
        drive::hostile_host(&bytes);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(MACHINE_CASES) })]

    #[test]
    fn w1_p5_a_machine_whose_host_takes_pages_away_agrees_with_the_model(
        bytes in vec(any::<u8>(), 0..LONG),
    ) {
        drive::machine(&bytes);
    }
}
