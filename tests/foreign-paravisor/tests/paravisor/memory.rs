// SPDX-License-Identifier: MIT OR Apache-2.0
//! How much memory the service takes beyond its storage.

use std::sync::atomic::Ordering;

use protocol::memory_form::{CallBlock, MARK};
use protocol::trace::RECORD_BYTES;
use protocol::{Call, DEFAULT_PROTOCOL_NUMBER as POOL};
use snp::svsm::{CallRegisters, ResultCode};
use svsm_swiotlb::Service;
use zerocopy::IntoBytes;

use crate::conversions::{attach, write_list};
use crate::model::{AREA, FREE, Guest, LIST, MIB, Model, WINDOW, at, paravisor};

#[test]
fn the_memory_that_the_document_names_suffices() {
    /// Upper bounds in docs/INTEGRATION.md, "What you need".
    const SERVICE: usize = 9 << 10;
    const STACK_OF_CONVERT: usize = 16 << 10;
    const STACK_OF_OTHERS: usize = 4 << 10;
    let size = size_of::<Service<'_, Model>>();
    assert!(size <= SERVICE, "{size}");

    let paravisor = paravisor();
    let epoch = attach(&paravisor);
    // From the call of `dispatch` to the deepest call of the platform.
    let stack_of = |call: Call, [rcx, rdx, r8]: [u64; 3]| {
        let deepest = &paravisor.hardware().deepest;
        deepest.store(usize::MAX, Ordering::Relaxed);
        let rax = u64::from(POOL) << 32 | u64::from(call.number());
        let here = 0_u8;
        let top = std::ptr::from_ref(&here).addr();
        let registers = CallRegisters::new(rax, [rcx, rdx, r8]);
        let answer = paravisor.core.service.dispatch(&registers, Some(at(AREA)));
        assert_eq!(
            ResultCode::from_rax(answer.rax),
            ResultCode::SUCCESS,
            "{}",
            call.name()
        );
        let stack = top - deepest.load(Ordering::Relaxed);
        println!("{}: {stack} bytes of stack", call.name());
        stack
    };
    // A batch of as many entries as there can be.
    let pages: Vec<_> = (FREE..2 * MIB).step_by(0x1000).take(253).collect();
    for to_shared in [false, true] {
        write_list(&paravisor, &pages, to_shared);
        assert!(stack_of(Call::Convert, [LIST, epoch, 0]) <= STACK_OF_CONVERT);
    }
    // The same from a block.
    write_list(&paravisor, &pages, true);
    let rax = u64::from(POOL) << 32 | u64::from(Call::Convert.number());
    let block = CallBlock::of(&CallRegisters::new(rax, [LIST, epoch, 0]));
    paravisor.poke(AREA + 8, block.as_bytes());
    assert!(stack_of(Call::MemoryForm, [AREA + 8, MARK, MARK]) <= STACK_OF_CONVERT);
    // Room for a few runs in the list of LIST_GRANTED.
    paravisor.poke(LIST, &8_u64.to_le_bytes());
    let owner = epoch << 32;
    for (call, arguments) in [
        (Call::Grow, [owner, 2 * MIB, 2 * MIB]),
        (Call::ListGranted, [LIST, epoch, 0]),
        (Call::Statistics, [LIST, 520, 0]),
        (Call::Trace, [LIST, 64 * RECORD_BYTES, 0]),
        (Call::Release, [WINDOW, 2 * MIB, owner | 1]),
    ] {
        assert!(stack_of(call, arguments) <= STACK_OF_OTHERS);
    }
}
