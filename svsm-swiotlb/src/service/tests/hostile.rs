// SPDX-License-Identifier: MIT OR Apache-2.0
//! Arguments nobody meant, in quantity.

use std::collections::BTreeSet;

use protocol::{Call, result};
use snp::svsm::{CallRegisters, ResultCode};

use super::LIST;
use crate::test_platform::{CHUNK, Guest, WINDOW_BASE, service};

const CALLS: usize = if cfg!(miri) { 200 } else { 200_000 };

#[test]
fn c1_no_register_values_panic_and_every_code_is_documented() {
    // A plain generator with a fixed seed: dull values, edges and noise in every register of every call.
    let (_, service) = service(4);
    service.guest_attach();
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut succeeded = BTreeSet::new();
    let mut last = CallRegisters::default();
    for _ in 0..CALLS {
        let epoch = service.statistics().epoch;
        let number = next() % 18;
        // RELEASE has the most to get right: noise alone finds what is held too seldom.
        let aimed = number == u64::from(Call::Release.number()) && next() % 16 == 0;
        let mut value = || match next() % 19 {
            0 | 12..=14 => 0,
            1 => epoch << 32,
            2 => epoch,
            3 => WINDOW_BASE + (next() % 6) * CHUNK,
            4 => (next() % 6) * CHUNK,
            5 => LIST + (next() % 600) * 8,
            6 => u64::MAX - (next() % 3),
            7 => !(CHUNK - 1),
            8 => 1 << (next() % 64),
            9 => (epoch << 32) | last.r8,
            10 => (next() % 8) * 8,
            11 => last.rcx,
            15 => last.rdx,
            16 => epoch << 32 | epoch.saturating_sub(1),
            17 => 1,
            _ => next(),
        };
        let [rcx, rdx, r8] = if aimed {
            [last.rcx, CHUNK, epoch << 32 | last.r8]
        } else {
            [value(), value(), value()]
        };
        let rax = 0x4000_0001_0000_0000 | number;
        let call = CallRegisters::new(rax, [rcx, rdx, r8]);
        let answer = service.dispatch(&call, None);
        let code = ResultCode::from_rax(answer.rax);
        assert_ne!(result::name(code), "unknown", "{call:x?} {answer:x?}");
        if code == ResultCode::SUCCESS {
            succeeded.insert(number);
            if number == u64::from(Call::Grow.number()) {
                last = answer;
            }
            if number == u64::from(Call::Detach.number()) {
                // Noise hardly ever attaches, and the others need an epoch to name.
                service.guest_attach();
            }
        }
        let statistics = service.statistics();
        assert!(statistics.granted_bytes <= 4 * CHUNK);
    }
    let offered = [0, 1, 2, 4, 5, 6, 7, 8, 10, 11, 12];
    assert!(
        cfg!(miri) || succeeded == BTreeSet::from(offered),
        "the noise reaches the calls: {succeeded:?}"
    );
}
