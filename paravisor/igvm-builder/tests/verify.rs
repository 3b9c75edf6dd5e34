// SPDX-License-Identifier: MIT OR Apache-2.0
//! Made-up reports, good ones and such with one fault: each fault gets its line, and nothing else does.

mod signed_report;

use std::sync::LazyLock;

use igvm_builder::GuestPolicy;
use igvm_builder::report::{
    AttestationReport, Certificate, Expectations, MinimumTcb, TcbVersion, Wanted, check,
};
use proptest::prelude::*;
use signed_report::{TCB, certificate, certificate_of, report, sign, vcek_extensions};
use zerocopy::{FromBytes, FromZeros, IntoBytes};

/// What a verifier wants of a good report.
fn wanted() -> Expectations {
    let mut report_data = [0; 64];
    report_data[..4].copy_from_slice(b"once");
    Expectations {
        measurement: [0x11; 48],
        policy: GuestPolicy::from_bits(0x202_0137),
        vmpl: 2,
        minimum_tcb: Wanted::Value(MinimumTcb(TcbVersion::decode(TCB, false))),
        mitigations: 7,
        alias_check: true,
        report_data: Wanted::Value(report_data),
        host_data: Wanted::Value([0x22; 32]),
        id_key_digest: Wanted::Value([0x33; 48]),
    }
}

/// Everything that is wrong with `report`, as a user reads it.
fn findings(report: &AttestationReport, wanted: &Expectations, certificate: &[u8]) -> Vec<String> {
    let certificate = Certificate::parse(certificate).expect("a certificate");
    let all = check(report, wanted)
        .into_iter()
        .chain(certificate.check(report));
    all.map(|finding| finding.to_string()).collect()
}

fn vcek() -> Vec<u8> {
    certificate(&vcek_extensions())
}

static CERTIFICATE: LazyLock<Certificate> =
    LazyLock::new(|| Certificate::parse(&vcek()).expect("a certificate"));

#[test]
fn a_good_report_has_no_fault() {
    assert_eq!(findings(&report(), &wanted(), &vcek()), [""; 0]);
}

/// The report with `change`, signed by its key again, has exactly the faults whose lines begin so.
fn wrong(change: impl FnOnce(&mut AttestationReport), lines: &[&str]) {
    let mut changed = report();
    change(&mut changed);
    expect(&sign(changed), &wanted(), &vcek(), lines);
}

/// A verifier that wants something else.
fn unwanted(change: impl FnOnce(&mut Expectations), lines: &[&str]) {
    let mut other = wanted();
    change(&mut other);
    expect(&report(), &other, &vcek(), lines);
}

fn expect(report: &AttestationReport, wanted: &Expectations, certificate: &[u8], lines: &[&str]) {
    let found = findings(report, wanted, certificate);
    assert_eq!(found.len(), lines.len(), "{lines:?}: {found:#?}");
    for (found, line) in found.iter().zip(lines) {
        assert!(found.starts_with(line), "'{line}' is not '{found}'");
        assert!(!found.contains('\n'), "{found}");
    }
}

#[test]
fn another_measurement_or_level_is_named() {
    wrong(
        |all| all.measurement[47] = 0,
        &["measurement: the report has 1111"],
    );
    wrong(
        |all| all.vmpl = 0.into(),
        &["vmpl: the report is for VMPL 0, expected 2"],
    );
    wrong(
        |all| all.vmpl = 3.into(),
        &["vmpl: the report is for VMPL 3, expected 2"],
    );
    wrong(
        |all| all.vmpl = u32::MAX.into(),
        &["vmpl: the report is for VMPL 4294967295"],
    );
}

#[test]
fn every_bit_of_the_policy_counts() {
    let named = [
        (16, "policy: 'SMT allowed' is true, expected false"),
        (
            17,
            "policy: 'the bit that has to be one' is false, expected true",
        ),
        (
            18,
            "policy: 'migration agent allowed' is true, expected false",
        ),
        (19, "policy: 'debugging allowed' is true, expected false"),
        (
            20,
            "policy: 'single socket required' is true, expected false",
        ),
        (21, "policy: 'CXL allowed' is true, expected false"),
        (22, "policy: 'AES-256-XTS required' is true, expected false"),
        (23, "policy: 'RAPL disabled' is true, expected false"),
        (
            24,
            "policy: 'ciphertext hiding required' is true, expected false",
        ),
        (25, "policy: 'page swap disabled' is false, expected true"),
    ];
    for bit in 0..64 {
        let name = match named.iter().find(|(known, _)| *known == bit) {
            Some((_, line)) => line,
            None if bit < 16 => "policy: it asks for ABI ",
            None => "policy: reserved bits are ",
        };
        wrong(
            |all| all.policy = (all.policy.get() ^ 1 << bit).into(),
            &[name],
        );
    }
}

#[test]
fn firmware_that_is_older_than_the_policy_asks_for_is_named() {
    wrong(
        |all| all.current_version[1] = 54,
        &["policy: the current firmware has ABI 1.54, the policy asks for 1.55"],
    );
    wrong(
        |all| all.committed_version[2] = 0,
        &["policy: the committed firmware has ABI 0.55"],
    );
    wrong(|all| all.current_version = [0, 0, 2], &[]);
}

#[test]
fn every_part_of_every_tcb_version_counts() {
    let parts = [(0, "bootloader"), (1, "tee"), (6, "snp"), (7, "microcode")];
    for (byte, part) in parts {
        let line = |which: &str| {
            format!(
                "tcb: {part} of the {which} TCB is {}, at least {}",
                TCB[byte] - 1,
                TCB[byte]
            )
        };
        wrong(|all| all.committed_tcb[byte] -= 1, &[&line("committed")]);
        wrong(|all| all.current_tcb[byte] -= 1, &[&line("current")]);
        wrong(|all| all.launch_tcb[byte] -= 1, &[&line("launch")]);
        // The key of another version would have signed.
        let certificate = format!("certificate: {part} of its TCB is {}", TCB[byte]);
        wrong(
            |all| all.reported_tcb[byte] -= 1,
            &[&line("reported"), &certificate],
        );
        wrong(|all| all.launch_tcb[byte] += 1, &[]);
    }
    unwanted(|all| all.minimum_tcb = Wanted::Any, &[]);
}

#[test]
fn turin_has_another_layout_and_one_more_part() {
    let raw = [1, 2, 3, 4, 0, 0, 0, 5];
    let mut turin = report();
    turin.cpuid_family = 0x1a;
    turin.reported_tcb = raw;
    turin.committed_tcb = raw;
    turin.current_tcb = raw;
    turin.launch_tcb = raw;
    turin.chip_id = FromZeros::new_zeroed();
    turin.chip_id[..8].copy_from_slice(&[0x3c; 8]);
    let turin = sign(turin);
    let number = |part: u8, value: u8| (vec![3, part], vec![2, 1, value]);
    let parts = [
        number(9, 1),
        number(1, 2),
        number(2, 3),
        number(3, 4),
        number(8, 5),
    ];
    let chip = (vec![4], vec![0x3c; 8]);
    let with = |parts: &[_]| certificate(&[parts, std::slice::from_ref(&chip)].concat());
    let mut wanted = wanted();
    wanted.minimum_tcb = Wanted::Value(MinimumTcb(TcbVersion::decode(raw, true)));
    expect(&turin, &wanted, &with(&parts), &[]);
    expect(
        &turin,
        &wanted,
        &with(&parts[1..]),
        &["certificate: fmc of its TCB is missing, the report has 1"],
    );
    wanted.minimum_tcb = Wanted::Value(MinimumTcb(TcbVersion::decode(
        [2, 2, 3, 4, 0, 0, 0, 5],
        true,
    )));
    let each = ["reported", "committed", "current", "launch"]
        .map(|which| format!("tcb: fmc of the {which} TCB is 1, at least 2"));
    expect(
        &turin,
        &wanted,
        &with(&parts),
        &each.each_ref().map(String::as_str),
    );
    wanted.minimum_tcb = Wanted::Value(MinimumTcb(TcbVersion {
        fmc: None,
        ..TcbVersion::decode(raw, true)
    }));
    expect(
        &turin,
        &wanted,
        &with(&parts),
        &["tcb: this processor has an FMC version"],
    );
    unwanted(
        |all| {
            all.minimum_tcb = Wanted::Value(MinimumTcb(TcbVersion {
                fmc: Some(0),
                ..TcbVersion::decode(TCB, false)
            }));
        },
        &["tcb: a minimum for the FMC version was given"],
    );
}

#[test]
fn the_hosts_settings_are_held_against_the_policy() {
    wrong(
        |all| all.platform_info = 0b01_0100.into(),
        &["platform: the check for memory aliases"],
    );
    unwanted(|all| all.alias_check = false, &[]);
    wrong(
        |all| all.platform_info = 0b11_0101.into(),
        &["platform: SMT is on"],
    );
    let strict = |bit: u64, platform: u64, lines: &[&str]| {
        let mut changed = report();
        changed.policy = (changed.policy.get() | bit).into();
        changed.platform_info = platform.into();
        let mut wanted = wanted();
        wanted.policy = GuestPolicy::from_bits(wanted.policy.into_bits() | bit);
        expect(&sign(changed), &wanted, &vcek(), lines);
    };
    strict(1 << 16, 0b11_0101, &[]);
    strict(1 << 23, 0b11_0100, &["platform: RAPL is not disabled"]);
    strict(1 << 23, 0b11_1100, &[]);
    strict(
        1 << 24,
        0b10_0100,
        &["platform: the ciphertext of memory is not hidden"],
    );
    strict(1 << 24, 0b11_0100, &[]);
}

#[test]
fn mitigations_count_at_the_launch_and_now() {
    wrong(
        |all| all.launch_mitigations = 3.into(),
        &["mitigations: the vector of the launch lacks the bits 0x4"],
    );
    wrong(
        |all| all.current_mitigations = 6.into(),
        &["mitigations: the vector of now lacks the bits 0x1"],
    );
    wrong(
        |all| all.version = 4.into(),
        &["mitigations: a report of version 4"],
    );
    unwanted(|all| all.mitigations = 0, &[]);
}

#[test]
fn other_words_of_guest_host_or_owner_are_named() {
    wrong(
        |all| all.report_data[63] = 1,
        &["report data: the report has 6f6e6365"],
    );
    wrong(
        |all| all.host_data[0] = 1,
        &["host data: the report has 0122"],
    );
    wrong(
        |all| all.id_key_digest[0] = 1,
        &["id key: the report has the digest 0133"],
    );
    unwanted(
        |all| {
            all.report_data = Wanted::Any;
            all.host_data = Wanted::Any;
            all.id_key_digest = Wanted::Any;
        },
        &[],
    );
}

#[test]
fn an_unknown_version_is_refused_and_nothing_else_said_of_its_fields() {
    for version in [0, 1, 6, u32::MAX] {
        let line = format!("version: the report has version {version}, known are 2 to 5");
        wrong(
            |all| (all.version, all.vmpl) = (version.into(), 0.into()),
            &[&line],
        );
    }
    let mut old = wanted();
    old.mitigations = 0;
    for version in 2..=5_u32 {
        let mut changed = report();
        changed.version = version.into();
        expect(&sign(changed), &old, &vcek(), &[]);
    }
}

#[test]
fn a_report_without_a_good_signature_is_refused() {
    let signature = |change: fn(&mut AttestationReport), line: &str| {
        let mut changed = report();
        change(&mut changed);
        expect(&changed, &wanted(), &vcek(), &[line]);
    };
    signature(
        |all| all.guest_svn = 1.into(),
        "signature: it is not one of this report",
    );
    signature(
        |all| all.signature.r[0] ^= 1,
        "signature: it is not one of this report",
    );
    signature(
        |all| all.signature.s[47] ^= 1,
        "signature: it is not one of this report",
    );
    signature(|all| all.signature.r[48] = 1, "signature: it has no form");
    signature(|all| all.signature.s[71] = 1, "signature: it has no form");
    signature(|all| all.signature.r = [0; 72], "signature: it has no form");
    signature(
        |all| all.signature.s[..48].fill(0xff),
        "signature: it has no form",
    );
    signature(
        |all| all.signature_algorithm = 2.into(),
        "signature: algorithm 2 is unknown",
    );
    wrong(
        |all| all.key_info = (7 << 2).into(),
        &["signature: the report is not signed"],
    );
}

#[test]
fn the_certificate_is_for_the_reports_kind_of_key_tcb_and_chip() {
    wrong(
        |all| all.key_info = (1 << 2).into(),
        &["certificate: the report says that Vlek signed it, and the certificate is for Vcek"],
    );
    wrong(
        |all| all.key_info = (2 << 2).into(),
        &["certificate: the report says that Unknown(2) signed it"],
    );
    wrong(
        |all| all.chip_id[63] = 0,
        &["certificate: it is for the chip 3c3c"],
    );
    // A masked identifier compares with nothing.
    wrong(|all| all.chip_id = [0; 64], &[]);
    for (index, part) in ["bootloader", "tee", "snp", "microcode"]
        .into_iter()
        .enumerate()
    {
        let with = |change: fn(&mut Vec<u8>)| {
            let mut extensions = vcek_extensions();
            change(&mut extensions[index].1);
            certificate(&extensions)
        };
        let value = TCB[[0, 1, 6, 7][index]];
        let older = format!(
            "certificate: {part} of its TCB is {}, the report has {value}",
            value - 1
        );
        expect(&report(), &wanted(), &with(|der| der[2] -= 1), &[&older]);
        let missing = format!("certificate: {part} of its TCB is missing");
        expect(&report(), &wanted(), &with(|der| der[0] = 5), &[&missing]);
    }
    let mut provider = vcek_extensions();
    provider[4] = (vec![5], b"a provider".to_vec());
    let mut changed = report();
    (changed.key_info, changed.chip_id) = ((1 << 2).into(), [0; 64]);
    expect(&sign(changed), &wanted(), &certificate(&provider), &[]);
}

#[test]
fn what_is_no_certificate_of_such_a_key_is_refused() {
    let message = |bytes: &[u8]| Certificate::parse(bytes).expect_err("refused");
    assert!(message(b"").contains("no X.509 certificate"));
    assert!(message(b"-----BEGIN CERTIFICATE-----\nAAAA\n").contains("no X.509 certificate"));
    assert!(message(&vcek()[1..]).contains("no X.509 certificate"));
    assert!(message(&certificate(&[])).contains("neither a VCEK nor a VLEK"));
    let off_the_curve = [&[4][..], &[1; 96]].concat();
    assert!(message(&certificate_of(&off_the_curve, &vcek_extensions())).contains("P-384"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// A made-up report of any bytes has faults and no panic.
    #[test]
    fn any_bytes_are_judged(bytes in proptest::collection::vec(any::<u8>(), 1184..=1184), version in 0..8_u32) {
        let mut report = AttestationReport::read_from_bytes(&bytes).expect("the length of a report");
        report.version = version.into();
        prop_assert!(!check(&report, &wanted()).is_empty());
        prop_assert!(!CERTIFICATE.check(&report).is_empty());
    }

    /// Bytes of another length are no report.
    #[test]
    fn other_lengths_are_no_report(bytes in proptest::collection::vec(any::<u8>(), 0..2400)) {
        prop_assert_eq!(AttestationReport::read_from_bytes(&bytes).is_ok(), bytes.len() == 1184);
    }

    /// No change of a good report goes unnoticed.
    #[test]
    fn any_change_of_a_good_report_is_found(at in 0..0x2a0_usize, bit in 0..8_u32) {
        let mut bytes = report().as_bytes().to_vec();
        bytes[at] ^= 1 << bit;
        let changed = AttestationReport::read_from_bytes(&bytes).expect("the same length");
        prop_assert!(!CERTIFICATE.check(&changed).is_empty());
    }

    /// Neither bytes nor a damaged certificate make the parser panic.
    #[test]
    fn any_bytes_are_parsed_as_a_certificate(
        bytes in proptest::collection::vec(any::<u8>(), 0..600),
        at in 0..1000_usize,
        with in any::<u8>(),
        cut in 0..1000_usize,
    ) {
        let _ = Certificate::parse(&bytes);
        let mut damaged = vcek();
        let length = damaged.len();
        damaged[at % length] = with;
        if let Ok(certificate) = Certificate::parse(&damaged) {
            let _ = certificate.check(&report());
        }
        let _ = Certificate::parse(&damaged[..cut % length]);
    }
}
