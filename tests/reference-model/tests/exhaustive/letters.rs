// SPDX-License-Identifier: MIT OR Apache-2.0
//! The alphabet, and the world in which it is spelt.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use protocol::list::ListHeader;
use reference_model::light_host::{LightHost, Surprise};
use reference_model::world::with_pages;
use reference_model::{Shape, World, guest};
use snp::svsm::CallRegisters;
use snp_model::psc::HostManner;
use svsm_swiotlb::Configuration;
use svsm_swiotlb::page_state::PageState;
use zerocopy::IntoBytes;

/// Pages of 4 KiB in a large one.
const LARGE_PAGES: u64 = 512;
/// Pages before the large one.
const FEW: u64 = 5;
pub const LARGE: u64 = 0x20_0000;
pub const SHAPE: Shape = Shape {
    window: 0x4000_0000,
    chunks: 3,
    hard_cap: 3,
    second: None,
    ram: LARGE - FEW * 4096,
    // Under Miri there is no large page.
    ram_pages: if cfg!(miri) { FEW } else { FEW + LARGE_PAGES },
};
const LIST: u64 = SHAPE.ram;
/// Where the list of CONVERT is.
pub const CONVERT_LIST: u64 = LIST + 0x1000;
const FIRST: u64 = LIST + 0x2000;
const SECOND: u64 = LIST + 0x3000;
/// A page that is not converted, the caller's calling area.
const CALLING_AREA: u64 = LIST + 0x4000;

/// The guest's pages.
fn pages() -> Arc<BTreeMap<u64, PageState>> {
    static PAGES: OnceLock<Arc<BTreeMap<u64, PageState>>> = OnceLock::new();
    Arc::clone(PAGES.get_or_init(|| Arc::new(all_pages())))
}

fn all_pages() -> BTreeMap<u64, PageState> {
    let all = (0..SHAPE.ram_pages).map(|number| SHAPE.ram + number * 4096);
    all.map(|page| match page {
        CALLING_AREA => (page, PageState::CallingArea),
        page => (page, PageState::Valid),
    })
    .collect()
}

/// A letter of the alphabet. Epochs and generations are the current ones where none is named.
#[derive(Clone, Copy, Debug)]
pub enum Letter {
    Attach,
    Grow(u64, u64, bool),
    /// First chunk, chunks, generations before the last one, epochs before the current one.
    Release(u64, u64, u32, u32),
    Cap(u64),
    List(u16, u32),
    Statistics,
    /// Not offered by every service.
    Adopt,
    ReleaseOrphans,
    Detach,
    Trace,
    Convert(&'static [u64]),
    /// CONVERT of the list as the last one left it: epochs before the current one, bytes behind its address.
    Again(u32, u64),
    Host(HostManner),
    /// After so many more instructions, one ends so; unless one is to come already.
    Surprise(u64, Surprise),
    /// The same call from a block in the calling area.
    FromMemory(&'static Letter),
    /// The host splits all large pages.
    Split,
}

impl Letter {
    /// It disposes the host or the machine, and calls nothing.
    pub const fn is_no_call(self) -> bool {
        matches!(self, Host(_) | Surprise(..) | Split)
    }
}

use Letter::*;

const fn shared(page: u64) -> u64 {
    guest::convert_entry(page, page == LARGE, true)
}

const fn private(page: u64) -> u64 {
    guest::convert_entry(page, page == LARGE, false)
}

/// The pool.
pub const POOL: [Letter; 22] = [
    Attach,
    Grow(1, 1, false),
    Grow(1, 2, false),
    Grow(2, 3, true),
    Release(0, 1, 0, 0),
    Release(1, 1, 0, 0),
    Release(0, 2, 0, 0),
    Release(0, 1, 1, 0),
    Release(0, 1, 0, 1),
    Release(2, 2, 0, 0),
    Cap(1),
    Cap(3),
    List(1, 0),
    List(3, 1),
    Statistics,
    Adopt,
    ReleaseOrphans,
    Detach,
    Host(HostManner::Honest),
    Host(HostManner::FailAfter(1)),
    Host(HostManner::Refuse),
    Host(HostManner::ReservedBits),
];
/// What is in neither of the other two.
pub const PAGES_ONLY: [Letter; 16] = [
    Trace,
    FromMemory(&Grow(1, 1, false)),
    FromMemory(&Convert(&[shared(FIRST), shared(SECOND)])),
    Convert(&[shared(FIRST), shared(SECOND)]),
    Convert(&[private(FIRST), private(SECOND)]),
    Convert(&[shared(FIRST), private(FIRST), shared(LARGE)]),
    Convert(&[shared(LARGE)]),
    Convert(&[private(LARGE)]),
    Convert(&[shared(FIRST), shared(CALLING_AREA)]),
    Again(0, 0),
    Again(1, 0),
    Again(0, 8),
    Surprise(0, Surprise::Fault),
    Surprise(3, Surprise::Unchanged),
    Surprise(6, Surprise::Unchanged),
    Split,
];
/// What of the pool's letters concerns the guest's pages.
pub const BOTH: [Letter; 7] = [
    Attach,
    Detach,
    Statistics,
    Host(HostManner::Honest),
    Host(HostManner::FailAfter(1)),
    Host(HostManner::Refuse),
    Host(HostManner::ReservedBits),
];

pub fn every_letter() -> Vec<Letter> {
    [&POOL[..], &PAGES_ONLY].concat()
}

pub type Tiny<'a> = World<'a, LightHost>;

pub fn tiny<R>(configuration: Configuration, test: impl FnOnce(&Tiny<'_>) -> R) -> R {
    with_pages(LightHost::default(), configuration, SHAPE, pages(), test)
}

/// The registers of a letter, for a service in this state; what it needs in memory is put there.
pub fn registers(world: &Tiny<'_>, letter: Letter) -> Option<CallRegisters> {
    let (epoch, generation) = {
        let model = world.model();
        (model.epoch, model.generation)
    };
    Some(match letter {
        Attach => guest::attach(),
        Grow(least, most, contiguous) => guest::grow(epoch, least, most, contiguous),
        Release(first, chunks, before, older) => {
            let base = SHAPE.window + (first << 21);
            let generation = generation.saturating_sub(before);
            guest::release(base, chunks, epoch.saturating_sub(older), generation)
        }
        Cap(chunks) => guest::set_limits(epoch, chunks),
        List(capacity, cursor) => {
            let header = ListHeader {
                capacity,
                written: 0,
                cursor,
            };
            world.platform.inner().store(LIST, header.as_bytes());
            guest::list(epoch, LIST)
        }
        Statistics => guest::statistics(LIST, 560),
        Adopt => guest::adopt(epoch, epoch.saturating_sub(1)),
        ReleaseOrphans => guest::release_orphans(epoch, epoch.saturating_sub(1)),
        Detach => guest::detach(epoch),
        Trace => guest::trace(LIST, 128, 0),
        Convert(entries) => {
            let list = guest::convert_list(entries);
            world.platform.inner().store(CONVERT_LIST, &list);
            guest::convert(epoch, CONVERT_LIST)
        }
        Again(older, offset) => guest::convert(epoch.saturating_sub(older), CONVERT_LIST + offset),
        FromMemory(letter) => {
            let call = registers(world, *letter)?;
            let block = CALLING_AREA + 8;
            world.platform.inner().store(block, &guest::block(&call));
            guest::memory_form(block)
        }
        Host(manner) => {
            world.platform.inner().set_manner(manner);
            return None;
        }
        Surprise(after, how) => {
            let host = world.platform.inner();
            if host.surprises_left() == 0 {
                host.surprise(after, how);
            }
            return None;
        }
        Split => {
            world.platform.inner().split_all();
            return None;
        }
    })
}
