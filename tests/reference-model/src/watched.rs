// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is asked of a platform after each call, and a machine for worlds.

use std::collections::BTreeSet;

use protocol::CHUNK_BYTES;
use snp::address::{GuestPhysicalAddress, PAGE_SIZE, PageSize, Vmpl};
use snp::psc::PscOperation;
use snp_model::layout::Range;
use snp_model::machine::Machine;
use svsm_swiotlb::page_state::PageState;
use svsm_swiotlb::platform::PageInstructions;

use crate::light_host::LightHost;
use crate::{Shape, Violation};

/// Eight bytes that stand in every private page of a guest and must not show anywhere else.
pub const SECRET: [u8; 8] = *b"\xC0PRIVAT\xC0";

/// What can be asked of a platform after each call.
pub trait Watched {
    /// What the host should not be able to see or the hardware should not hold, if it does.
    fn leak(&self, window: u64, bytes: u64) -> Option<Violation>;

    /// The guest writes to its memory, if it can.
    fn poke(&self, address: u64, bytes: &[u8]);

    /// Why a page cannot be in the state that its word says, if so.
    fn contradiction(&self, address: u64, state: PageState) -> Option<Violation> {
        let _ = (address, state);
        None
    }
}

impl Watched for LightHost {
    /// It has neither hardware nor a host that could look: what it executes is compared with the protocol's text.
    fn leak(&self, _: u64, _: u64) -> Option<Violation> {
        None
    }

    fn poke(&self, address: u64, bytes: &[u8]) {
        self.store(address, bytes);
    }
}

impl Watched for Machine {
    fn leak(&self, window: u64, bytes: u64) -> Option<Violation> {
        if self.any_validated(GuestPhysicalAddress::new(window), bytes) {
            return Some("W1: a page of the window is validated".into());
        }
        if let Some(page) = self.granted_with_contents() {
            return Some(format!("D: {page:#x} was granted before it was zeroed"));
        }
        let seen = self.host_finds(&SECRET)?;
        Some(format!("the host reads private bytes at {seen:#x}"))
    }

    fn poke(&self, address: u64, bytes: &[u8]) {
        // A page that was taken away cannot be written; the call that names it will find out.
        let address = GuestPhysicalAddress::new(address);
        let _ = self.guest_write(Vmpl::Vmpl0, true, address, bytes);
    }

    fn contradiction(&self, address: u64, state: PageState) -> Option<Violation> {
        let bare = matches!(state, PageState::Shared | PageState::Invalid);
        let entry = self.entry(GuestPhysicalAddress::new(address))?;
        (bare && entry.validated).then(|| format!("P1: {address:#x} is {state:?} and validated"))
    }
}

/// A machine for such a world: pages that the guest may use are launched and full of [`SECRET`]. Where they are all of a
/// large page, the reverse map holds that in one entry.
///
/// # Panics
/// When the shape is impossible.
pub fn machine(shape: &Shape, pages: &[(u64, PageState)]) -> Machine {
    let machine = Machine::new(&machine_ranges(shape));
    let private: BTreeSet<u64> = pages
        .iter()
        .filter(|(_, state)| {
            !matches!(
                state,
                PageState::Shared | PageState::Quarantined | PageState::Invalid
            )
        })
        .map(|(page, _)| *page)
        .collect();
    let large = PageSize::Size2M.bytes();
    for page in &private {
        let at = GuestPhysicalAddress::new(*page);
        let block = page - page % large;
        let whole = private.range(block..block + large).count() == 512;
        if whole && *page == block {
            machine.host_changes(at, PageSize::Size2M, PscOperation::Private);
            let validated = machine.pvalidate(at, PageSize::Size2M, true);
            validated.expect("a large page of the machine");
        } else if !whole {
            machine.launch(at, PAGE_SIZE);
        }
        machine.poke(*page, &SECRET.repeat(512));
    }
    machine
}

/// The ranges of a machine for such a world.
pub fn machine_ranges(shape: &Shape) -> Vec<Range> {
    let large = PAGE_SIZE * 512;
    let ram = Range {
        base: shape.ram,
        bytes: (shape.ram_pages * PAGE_SIZE).next_multiple_of(large),
    };
    let windows = shape.windows().map(|one| Range {
        base: one.window,
        bytes: one.chunks as u64 * CHUNK_BYTES,
    });
    let mut ranges: Vec<_> = [ram].into_iter().chain(windows).collect();
    ranges.sort_by_key(|range| range.base);
    ranges
}
