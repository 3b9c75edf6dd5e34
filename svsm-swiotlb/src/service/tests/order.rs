// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which check comes first, and what a refused call leaves behind.

use std::vec::Vec;

use protocol::{Call, result};
use snp::address::PAGE_SIZE;
use snp::psc::error;
use snp::svsm::{CallRegisters, ResultCode};

use super::{LIST, address};
use crate::Service;
use crate::page_state::PageState;
use crate::pool::ChunkState;
use crate::test_platform::{
    CHUNK, Guest, MIB, Manner, RAM_BASE, RAM_PAGES, TestPlatform, WINDOW_BASE, service,
};

const OUR_NUMBER: u64 = 0x4000_0001;

fn ask(
    service: &Service<'_, TestPlatform>,
    rax: u64,
    [rcx, rdx, r8]: [u64; 3],
) -> (ResultCode, CallRegisters) {
    let answer = service.dispatch(&CallRegisters::new(rax, [rcx, rdx, r8]), None);
    (ResultCode::from_rax(answer.rax), answer)
}

fn number(call: Call) -> u64 {
    OUR_NUMBER << 32 | u64::from(call.number())
}

#[test]
fn p_4_9_of_two_faults_the_earlier_check_names_its_own() {
    let (_, service) = service(300);
    let old = u64::from(service.guest_attach());
    service.guest_attach();
    let stale = old << 32;
    let undefined = OUR_NUMBER << 32 | 99;
    let cases = [
        // The number before the call, the call before its arguments.
        (0x7 << 32 | 99, [1, 1, 1], ResultCode::UNSUPPORTED_PROTOCOL),
        (undefined, [u64::MAX; 3], ResultCode::UNSUPPORTED_CALL),
        // Arguments by themselves, then the window, then the epoch.
        (
            number(Call::Grow),
            [stale, MIB, MIB],
            ResultCode::INVALID_PARAMETER,
        ),
        (
            number(Call::Grow),
            [stale | 1, CHUNK, CHUNK],
            ResultCode::INVALID_PARAMETER,
        ),
        (
            number(Call::ListGranted),
            [LIST + 4, old, 0],
            ResultCode::INVALID_PARAMETER,
        ),
        (
            number(Call::SetLimits),
            [stale, MIB, 0],
            ResultCode::INVALID_PARAMETER,
        ),
        // The epoch before the state: too large, outside the window, no page of the guest's, above the hard cap.
        (
            number(Call::Grow),
            [stale | 1 << 8, 300 * CHUNK, 300 * CHUNK],
            result::STALE_EPOCH,
        ),
        (
            number(Call::Release),
            [0, CHUNK, stale],
            result::STALE_EPOCH,
        ),
        (
            number(Call::ListGranted),
            [WINDOW_BASE, old, 0],
            result::STALE_EPOCH,
        ),
        (
            number(Call::SetLimits),
            [stale, 301 * CHUNK, 0],
            result::STALE_EPOCH,
        ),
    ];
    for (rax, arguments, code) in cases {
        assert_eq!(
            ask(&service, rax, arguments).0,
            code,
            "{rax:#x} {arguments:x?}"
        );
    }
}

/// Everything a call could change but the counters: chunks, pages, guest memory, cap, granted, quarantined, epoch.
type World = (Vec<ChunkState>, Vec<Option<PageState>>, Vec<u8>, [u64; 4]);

fn world(platform: &TestPlatform, service: &Service<'_, TestPlatform>) -> World {
    let records = service.pool().records();
    let page = |number| address(RAM_BASE + number * PAGE_SIZE);
    let statistics = service.statistics();
    (
        (0..service.window().chunks())
            .map(|chunk| records.state(chunk))
            .collect(),
        (0..RAM_PAGES)
            .map(|number| service.page_states().state(page(number)))
            .collect(),
        platform.peek(RAM_BASE, usize::try_from(RAM_PAGES * PAGE_SIZE).unwrap()),
        [
            statistics.cap_bytes,
            statistics.granted_bytes,
            statistics.quarantined_bytes,
            statistics.epoch,
        ],
    )
}

#[test]
fn p_4_7_p_4_10_a_refused_call_changes_neither_registers_nor_anything_else() {
    let (platform, service) = service(6);
    let old = u64::from(service.guest_attach());
    let epoch = u64::from(service.guest_attach());
    let granted = service
        .guest_grow(u32::try_from(epoch).unwrap(), 2, 2)
        .unwrap();
    let in_use = epoch << 32;
    service
        .guest_grow(u32::try_from(epoch).unwrap(), 2, 2)
        .unwrap();
    // Free: chunks 0, 1 and 4, 5.
    ask(
        &service,
        number(Call::Release),
        [granted.rcx, granted.rdx, in_use | granted.r8],
    );
    ask(&service, number(Call::SetLimits), [in_use, 5 * CHUNK, 0]);
    let calls = [
        (number(Call::Attach), [2, 0, 0], result::UNSUPPORTED_VERSION),
        (
            number(Call::Describe),
            [0, 3, 0],
            ResultCode::INVALID_PARAMETER,
        ),
        (
            number(Call::Grow),
            [old << 32, CHUNK, CHUNK],
            result::STALE_EPOCH,
        ),
        (
            number(Call::Grow),
            [in_use | 1 << 8, 3 * CHUNK, 3 * CHUNK],
            result::NO_CONTIGUOUS_RUN,
        ),
        (
            number(Call::Grow),
            [in_use | 1 << 8, 4 * CHUNK, 4 * CHUNK],
            result::CAP_REACHED,
        ),
        (
            number(Call::Release),
            [WINDOW_BASE, CHUNK, in_use | 1],
            result::NOT_HELD,
        ),
        (
            number(Call::Release),
            [0, CHUNK, in_use | 1],
            ResultCode::INVALID_ADDRESS,
        ),
        (
            number(Call::ListGranted),
            [WINDOW_BASE, epoch, 0],
            ResultCode::INVALID_ADDRESS,
        ),
        (
            number(Call::ListGranted),
            [LIST, epoch, 0],
            ResultCode::INVALID_PARAMETER,
        ),
        (
            number(Call::SetLimits),
            [in_use, 7 * CHUNK, 0],
            ResultCode::INVALID_PARAMETER,
        ),
        (
            number(Call::Statistics),
            [WINDOW_BASE, 8, 0],
            ResultCode::INVALID_ADDRESS,
        ),
    ];
    let before = world(platform, &service);
    for (rax, arguments, code) in calls {
        let (answered, registers) = ask(&service, rax, arguments);
        assert_eq!(answered, code, "{rax:#x} {arguments:x?}");
        assert_eq!([registers.rcx, registers.rdx, registers.r8], arguments);
        assert!(
            world(platform, &service) == before,
            "{rax:#x} {arguments:x?}"
        );
    }
    platform.script(&[Manner::Refuse(0, error::GENERIC)]);
    let refused = ask(&service, number(Call::Grow), [in_use, CHUNK, CHUNK]);
    assert_eq!(refused.0, result::HOST_REFUSED);
    assert!(world(platform, &service) == before);
}
