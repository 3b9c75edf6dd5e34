// SPDX-License-Identifier: MIT OR Apache-2.0
//! CONVERT through this paravisor's dispatcher.

use foreign_paravisor::dispatcher::Next;
use protocol::convert::ConvertEntry;
use protocol::{Call, DEFAULT_PROTOCOL_NUMBER as POOL};
use snp::address::PageSize;
use snp::svsm::ResultCode;
use svsm_swiotlb::page_state::PageState;

use crate::model::{FREE, Guest, LIST, Paravisor, at, paravisor};

/// Writes a list of these entries; the arguments of CONVERT for it.
fn list(paravisor: &Paravisor, entries: &[(u64, bool)]) -> [u64; 3] {
    let (code, [epoch, ..]) = paravisor.call(POOL, Call::Attach.number(), [1, 0, 0]);
    assert_eq!(code, ResultCode::SUCCESS);
    let count = u16::try_from(entries.len()).unwrap();
    paravisor.poke(LIST, &u64::from(count).to_le_bytes());
    for (&(page, to_shared), offset) in entries.iter().zip((8..).step_by(8)) {
        let entry = ConvertEntry::request(at(page), PageSize::Size4K, to_shared);
        paravisor.poke(LIST + offset, &entry.into_bits().to_le_bytes());
    }
    [LIST, epoch, 0]
}

#[test]
fn p1_p_5_9_11_a_page_that_convert_finds_valid_ends_the_vm() {
    let paravisor = paravisor();
    let arguments = list(&paravisor, &[(FREE, false)]);
    *paravisor.hardware().validated_meanwhile.lock().unwrap() = Some(FREE);
    let made = paravisor.make(POOL, Call::Convert.number(), arguments);
    assert_eq!(made, Next::End);
    assert_eq!(paravisor.state(FREE), Some(PageState::Quarantined));
    // No call is served from then on, on no processor.
    let identify = paravisor.make(POOL, Call::Identify.number(), [0; 3]);
    assert_eq!(identify, Next::End);
}
