// SPDX-License-Identifier: MIT OR Apache-2.0
//! A kernel that another one has started calls through the area that its secrets page names, from any processor.

use foreign_paravisor::calling_areas::Cpu;
use foreign_paravisor::dispatcher::Next;
use snp::svsm::{CallRegisters, ResultCode, core_protocol};
use svsm_swiotlb::page_state::PageState;

use crate::conversions::attach;
use crate::model::{AREA, Guest, LAUNCHED, Paravisor, at, paravisor};

/// Where the first kernel calls from processor 0.
const MOVED: u64 = LAUNCHED + 0x2000;
/// The same of processor 1.
const OTHERS: u64 = LAUNCHED + 0x3000;

/// A kernel that has moved its calling area and has a second processor.
fn first_kernel() -> Paravisor {
    let paravisor = paravisor();
    let to = [MOVED, 0, 0];
    let remap = paravisor.call(core_protocol::NUMBER, core_protocol::REMAP_CA, to);
    assert_eq!(remap.0, ResultCode::SUCCESS);
    let states = paravisor.core.service.page_states();
    let page = states.hold(at(OTHERS), &[PageState::Valid]).unwrap();
    page.change_to(PageState::CallingArea);
    paravisor.core.areas.set(Cpu(1), at(OTHERS));
    paravisor
}

/// RAX of a call of the core protocol that nobody refuses.
const QUERY: u64 = core_protocol::QUERY_PROTOCOL as u64;

fn is_served(paravisor: &Paravisor, cpu: Cpu, rax: u64) -> bool {
    let next = paravisor.returned(cpu, &CallRegisters::new(rax, [0; 3]));
    matches!(next, Next::Resume(_))
}

#[test]
fn p_14_1_p_14_3_a_later_kernel_calls_from_any_processor() {
    for (cpu, old) in [(Cpu(0), MOVED), (Cpu(1), OTHERS)] {
        let paravisor = first_kernel();
        paravisor.poke(old, &[0xee]);
        paravisor.poke(AREA, &[1]);
        assert!(is_served(&paravisor, cpu, QUERY));
        assert_eq!(paravisor.core.areas.of(cpu), Some(at(AREA)));
        assert_eq!(paravisor.peek(AREA, 1), [0]);
        assert_eq!(paravisor.peek(old, 1), [0xee]);
        assert_eq!(paravisor.state(AREA), Some(PageState::CallingArea));
        assert_eq!(paravisor.state(old), Some(PageState::Valid));
    }
}

#[test]
fn p_14_2_nobody_takes_what_is_pending_for_another() {
    let paravisor = first_kernel();
    paravisor.poke(AREA, &[1]);
    // No call of the core protocol.
    let registers = [7, 1 << 32, 0x7f8a_1000];
    assert!(
        registers
            .iter()
            .all(|rax| !is_served(&paravisor, Cpu(1), *rax))
    );
    assert!(is_served(&paravisor, Cpu(0), QUERY));
    // Processor 0 calls from there now.
    paravisor.poke(AREA, &[1]);
    assert!(!is_served(&paravisor, Cpu(1), QUERY));
    assert!(is_served(&paravisor, Cpu(0), QUERY));
    attach(&paravisor);
}
