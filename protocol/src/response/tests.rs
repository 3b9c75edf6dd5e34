// SPDX-License-Identifier: MIT OR Apache-2.0
//! Golden registers of every answer, and answers no honest service gives.

use snp::address::GuestPhysicalAddress;
use snp::svsm::{CallRegisters, ResultCode};

use super::*;
use crate::result;

const fn results(rcx: u64, rdx: u64, r8: u64) -> ResultRegisters {
    ResultRegisters { rcx, rdx, r8 }
}

#[test]
fn p_4_6_p_4_7_success_returns_results_and_a_refusal_preserves() {
    let call = CallRegisters {
        rax: 0x4000_0001_0000_0007,
        rcx: 1,
        rdx: 2,
        r8: 3,
        r9: 4,
    };
    let success = encode_answer(&call, Ok(results(4, 5, 0)));
    assert_eq!(
        (success.rax, success.rcx, success.rdx, success.r8),
        (0, 4, 5, 0)
    );
    assert_eq!(decode_answer(&success), Ok(results(4, 5, 0)));

    let busy = encode_answer(&call, Err(ResultCode::BUSY.into()));
    assert_eq!(
        (busy.rax, busy.rcx, busy.rdx, busy.r8),
        (0x8000_0007, 1, 2, 3)
    );
    assert_eq!(decode_answer(&busy), Err(ResultCode::BUSY.into()));
}

#[test]
fn p_6_3_too_large_names_the_limit() {
    let call = CallRegisters {
        rax: 0,
        rcx: 1,
        rdx: 2,
        r8: 3,
        r9: 4,
    };
    let answer = encode_answer(&call, Err(Refusal::too_large(0x1FA0_0000)));
    assert_eq!(
        (answer.rax, answer.rcx, answer.rdx),
        (0x8000_1006, 0x1FA0_0000, 2)
    );
    assert_eq!(decode_answer(&answer), Err(Refusal::too_large(0x1FA0_0000)));
    let reached = encode_answer(&call, Err(result::CAP_REACHED.into()));
    assert_eq!(decode_answer(&reached), Err(result::CAP_REACHED.into()));
}

#[test]
fn p_5_golden_registers_in_both_directions() {
    let geometry = Geometry {
        base: GuestPhysicalAddress::new(0x3000_0000),
        bytes: 0x1000_0000,
        attributes: WindowAttributes::new().with_log2_chunk(21),
    };
    assert_eq!(geometry.encode(), results(0x3000_0000, 0x1000_0000, 21));
    assert_eq!(Geometry::decode(geometry.encode()), Ok(geometry));

    let usage = Usage {
        cap: 3,
        granted: 2,
        quarantined: 1,
    };
    assert_eq!(usage.encode(), results(3, 2, 1));
    assert_eq!(Usage::decode(usage.encode()), usage);

    let limits = WorkLimits {
        units: 4096,
        psc_entries: 253,
        grow_bytes: 0x1FA0_0000,
    };
    assert_eq!(limits.encode(), results(4096, 253, 0x1FA0_0000));
    assert_eq!(WorkLimits::decode(limits.encode()), limits);

    let attached = Attached {
        epoch: Epoch::FIRST,
        fresh: true,
        orphaned_bytes: 0,
    };
    assert_eq!(attached.encode(), results(1, 1, 0));
    assert_eq!(Attached::decode(attached.encode()), Ok(attached));
    let again = Attached {
        epoch: Epoch::MAX,
        fresh: false,
        orphaned_bytes: 0x20_0000,
    };
    assert_eq!(again.encode(), results(0xFF_FFFF, 2, 0x20_0000));
    assert_eq!(Attached::decode(again.encode()), Ok(again));

    let granted = Granted {
        base: GuestPhysicalAddress::new(0x3000_0000),
        bytes: 0x40_0000,
        generation: Generation::FIRST,
    };
    assert_eq!(granted.encode(), results(0x3000_0000, 0x40_0000, 1));
    assert_eq!(Granted::decode(granted.encode()), Ok(granted));

    let released = Released {
        bytes: 0x40_0000,
        acknowledged: 0x20_0000,
    };
    assert_eq!(released.encode(), results(0x40_0000, 0x20_0000, 0));
    assert_eq!(Released::decode(released.encode()), Ok(released));

    assert_eq!(
        StatisticsWritten { bytes: 504 }.encode(),
        results(504, 0, 0)
    );
    assert_eq!(
        LimitsSet {
            previous_cap: 0x1000_0000
        }
        .encode(),
        results(0x1000_0000, 0, 0)
    );
}

#[test]
fn p_4_8_a_client_refuses_answers_that_cannot_be() {
    assert_eq!(
        Geometry::decode(results(0x3000_0000, 0, 21)),
        Err(Malformed)
    );
    assert_eq!(
        Geometry::decode(results(0x3000_1000, 0x20_0000, 21)),
        Err(Malformed)
    );
    assert_eq!(
        Geometry::decode(results(0x3000_0000, 0x20_1000, 21)),
        Err(Malformed)
    );
    assert_eq!(
        Geometry::decode(results(0x3000_0000, 0x20_0000, 64)),
        Err(Malformed)
    );
    assert_eq!(
        Geometry::decode(results(0xFFFF_FFFF_FFE0_0000, 0x40_0000, 21)),
        Err(Malformed)
    );
    assert_eq!(Attached::decode(results(0, 1, 0)), Err(Malformed));
    assert_eq!(Attached::decode(results(1 << 24, 1, 0)), Err(Malformed));
    assert_eq!(Attached::decode(results(2, 0, 0x20_0000)), Err(Malformed));
    assert_eq!(
        Granted::decode(results(0x3000_0000, 0x20_0000, 0)),
        Err(Malformed)
    );
    assert_eq!(Granted::decode(results(0x3000_0000, 0, 1)), Err(Malformed));
    assert_eq!(
        Granted::decode(results(u64::MAX, 0x20_0000, 1)),
        Err(Malformed)
    );
    assert_eq!(Released::decode(results(1, 2, 0)), Err(Malformed));
}
