// SPDX-License-Identifier: MIT OR Apache-2.0
//! MEMORY_FORM through this paravisor's dispatcher.

use foreign_paravisor::calling_areas::Cpu;
use foreign_paravisor::dispatcher::Next;
use protocol::memory_form::{CallBlock, Unanswered, decode_answer, outer_call};
use protocol::{Call, DEFAULT_PROTOCOL_NUMBER as POOL, result};
use snp::svsm::{CallRegisters, ResultCode, calling_area, core_protocol};
use svsm_swiotlb::page_state::PageState;
use zerocopy::IntoBytes;

use crate::conversions::attach;
use crate::model::{AREA, Guest, LAUNCHED, MIB, Paravisor, WINDOW, at, paravisor};

/// What the kernel of processor 0 gets for a block in this calling area.
fn from_memory(
    paravisor: &Paravisor,
    area: u64,
    call: Call,
    arguments: [u64; 3],
) -> Result<CallRegisters, Unanswered> {
    let rax = u64::from(POOL) << 32 | u64::from(call.number());
    let block = CallBlock::of(&CallRegisters::new(rax, arguments));
    let place = area + calling_area::BUFFER;
    paravisor.poke(place, block.as_bytes());
    let own = paravisor.core.areas.of(Cpu(0)).unwrap();
    paravisor.poke(own.bits() + calling_area::CALL_PENDING, &[1]);
    match paravisor.returned(Cpu(0), &outer_call(POOL, at(place))) {
        Next::Resume(answer) => decode_answer(&answer),
        next => panic!("{next:?}"),
    }
}

#[test]
fn p_5_16_3_a_kernel_that_lends_one_function_grows_and_releases() {
    let paravisor = paravisor();
    let epoch = attach(&paravisor);
    let owner = epoch << 32;
    let grow = [owner, 2 * MIB, 2 * MIB];
    let granted = from_memory(&paravisor, AREA, Call::Grow, grow).unwrap();
    let right = [WINDOW, 2 * MIB, 1];
    assert_eq!(granted, CallRegisters::new(0, right));
    let stale = [owner + (1 << 32), 2 * MIB, 2 * MIB];
    let refused = from_memory(&paravisor, AREA, Call::Grow, stale).unwrap();
    let code = result::STALE_EPOCH.to_rax();
    assert_eq!(refused, CallRegisters::new(code, stale));
    let release = [WINDOW, 2 * MIB, owner | 1];
    let released = from_memory(&paravisor, AREA, Call::Release, release).unwrap();
    assert_eq!(released, CallRegisters::new(0, [2 * MIB, 2 * MIB, 0]));
}

#[test]
fn p5_p_5_16_2_p_5_16_6_the_block_follows_the_calling_area() {
    let paravisor = paravisor();
    let grow = [attach(&paravisor) << 32, 2 * MIB, 2 * MIB];
    let moved = LAUNCHED + 0x2000;
    let refused = Err(Unanswered::Refused(ResultCode::INVALID_ADDRESS));
    assert_eq!(from_memory(&paravisor, moved, Call::Grow, grow), refused);
    let remap = paravisor.call(
        core_protocol::NUMBER,
        core_protocol::REMAP_CA,
        [moved, 0, 0],
    );
    assert_eq!(remap.0, ResultCode::SUCCESS);
    assert_eq!(from_memory(&paravisor, AREA, Call::Grow, grow), refused);
    let granted = from_memory(&paravisor, moved, Call::Grow, grow);
    assert_eq!(granted.map(|granted| granted.rax), Ok(0));
    // Another call has the page: this paravisor cannot see CALL_PENDING, nor run the call.
    let states = paravisor.core.service.page_states();
    let held = states.hold(at(moved), &[PageState::CallingArea]).unwrap();
    let call = outer_call(POOL, at(moved + 8));
    assert_eq!(paravisor.returned(Cpu(0), &call), Next::RunOn);
    held.keep();
    assert_eq!(paravisor.core.service.statistics().granted_bytes, 2 * MIB);
}

#[test]
fn p_4_7_r9_comes_back_as_it_was() {
    let paravisor = paravisor();
    for protocol in [core_protocol::NUMBER, 7, POOL] {
        paravisor.poke(AREA, &[1]);
        let call = CallRegisters {
            r9: 9,
            ..CallRegisters::new(u64::from(protocol) << 32 | 6, [0; 3])
        };
        let Next::Resume(answer) = paravisor.returned(Cpu(0), &call) else {
            panic!("not served");
        };
        assert_eq!(answer.r9, 9);
    }
}
