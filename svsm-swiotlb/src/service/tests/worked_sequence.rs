// SPDX-License-Identifier: MIT OR Apache-2.0
//! The table of docs/PROTOCOL.md, chapter 11, replayed register by register.

use std::vec::Vec;

use snp::svsm::CallRegisters;

use crate::test_platform::service;

const TEXT: &str = include_str!("../../../../docs/PROTOCOL.md");

/// Name and registers of a table row; `None` for other lines.
fn row(line: &str) -> Option<(&str, CallRegisters)> {
    let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
    let [name, rax, rcx, rdx, r8] = cells[..] else {
        return None;
    };
    let number = |cell: &str| {
        let digits = cell.trim_matches('`').replace('_', "");
        let digits = digits.strip_prefix("0x").unwrap_or(&digits);
        u64::from_str_radix(digits, 16).ok()
    };
    let (rax, rcx, rdx, r8) = (number(rax)?, number(rcx)?, number(rdx)?, number(r8)?);
    Some((name, CallRegisters::new(rax, [rcx, rdx, r8])))
}

#[test]
fn p_11_the_worked_sequence_is_what_the_service_does() {
    let (_, service) = service(128);
    let (_, chapter) = TEXT.split_once("## 11. ").unwrap();
    let rows: Vec<_> = chapter.lines().filter_map(row).collect();
    let mut replayed = 0;
    for pair in rows.chunks(2) {
        let [(name, call), (_, expected)] = pair else {
            panic!("a call without an answer");
        };
        if *name == "QUERY_PROTOCOL" {
            assert_eq!(call.rcx >> 32, u64::from(service.protocol_number()));
            assert_eq!(service.query_protocol(1), expected.rcx);
            continue;
        }
        assert_eq!(service.dispatch(call, None), *expected, "{name}");
        replayed += 1;
    }
    assert_eq!(replayed, 23);
}
