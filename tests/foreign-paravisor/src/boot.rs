// SPDX-License-Identifier: MIT OR Apache-2.0
//! Boot: where the window lies, how much storage the service needs, and the checks of invariant W1.

use core::sync::atomic::{AtomicU8, AtomicU64};

use protocol::CHUNK_BYTES;
use snp::address::GuestPhysicalAddress;
use svsm_swiotlb::page_state::{
    HoldError, MAX_RANGES, PageState, PageStates, RamRange, RamRanges, RangeError,
};
use svsm_swiotlb::platform::{GuestMemory, HostPages, PageInstructions};
use svsm_swiotlb::pool::{ChunkRecords, Pool, Window, WindowError};
use svsm_swiotlb::storage::storage_bytes;
use svsm_swiotlb::{Configuration, Service};

use crate::hardware::Hardware;
use crate::platform::Platform;

/// Why there is no service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BootError {
    /// The memory map is unsorted, overlaps, or is too long: nothing in it is believed.
    Map(RangeError),
    /// No entry of the memory map has room for window and storage.
    NoRoom,
    /// The window is malformed, or storage or page states do not fit it.
    Window(WindowError),
    /// We have a private mapping of a page of the window.
    WindowIsMapped,
    /// What was said to be ours or the guest's is no RAM.
    NotRam,
}

impl From<RangeError> for BootError {
    fn from(error: RangeError) -> Self {
        Self::Map(error)
    }
}

impl From<WindowError> for BootError {
    fn from(error: WindowError) -> Self {
        Self::Window(error)
    }
}

impl From<HoldError> for BootError {
    fn from(_: HoldError) -> Self {
        Self::NotRam
    }
}

/// Where everything lies.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// The window: RESERVED in the map that the guest gets.
    pub window: Window,
    /// Records and page states; ours, below the window.
    pub storage: RamRange,
    ram: [RamRange; MAX_RANGES],
    count: usize,
}

impl Plan {
    // [plan]
    /// Puts the window at the top of the highest entry of `map` that has room for it. `taken` is everything that is in
    /// use or no RAM: our image, the pages of the launch, VMSAs, ROM, device memory.
    ///
    /// # Errors
    /// [`BootError`]; the map comes from the host.
    pub fn new(
        map: &mut [RamRange],
        taken: &[RamRange],
        window_bytes: u64,
    ) -> Result<Self, BootError> {
        let total: u64 = RamRanges::new(map)?.pages() * 4096;
        let guest_ram = total.checked_sub(window_bytes).ok_or(BootError::NoRoom)?;
        let bytes = storage_bytes(guest_ram, window_bytes);
        let place = |entry: &RamRange| {
            let top = (entry.base.bits() + entry.bytes) / CHUNK_BYTES * CHUNK_BYTES;
            let window = top.checked_sub(window_bytes)?;
            let storage = window.checked_sub(bytes)?;
            let free = |range: &RamRange| end(range) <= storage || top <= range.base.bits();
            (storage >= entry.base.bits() && taken.iter().all(free)).then_some((storage, window))
        };
        let found = map.iter().rev().find_map(place);
        let (storage, window) = found.ok_or(BootError::NoRoom)?;
        let window = Window::new(GuestPhysicalAddress::new(window), window_bytes)?;
        Self::without_window(map, window, range(storage, bytes))
    }
    // [end]

    /// The map without the window: a page that has no state word cannot be validated.
    fn without_window(
        map: &[RamRange],
        window: Window,
        storage: RamRange,
    ) -> Result<Self, BootError> {
        let mut plan = Self {
            window,
            storage,
            ram: [RamRange::default(); MAX_RANGES],
            count: 0,
        };
        let (from, to) = (window.base().bits(), window.base().bits() + window.bytes());
        for entry in map {
            let below = (entry.base.bits(), from.min(end(entry)));
            let above = (to.max(entry.base.bits()), end(entry));
            for (first, behind) in [below, above] {
                if first < behind {
                    let slot = plan.ram.get_mut(plan.count).ok_or(RangeError::TooMany)?;
                    *slot = range(first, behind - first);
                    plan.count += 1;
                }
            }
        }
        Ok(plan)
    }

    /// Guest RAM and our own, without the window.
    pub fn ram(&self) -> &[RamRange] {
        self.ram.get(..self.count).unwrap_or_default()
    }

    /// The same, for the service to count through.
    fn ram_mut(&mut self) -> &mut [RamRange] {
        self.ram.get_mut(..self.count).unwrap_or_default()
    }
}

/// [`Plan::storage`] as the two arrays it holds. Zeroed; how memory becomes a slice is this paravisor's own business.
#[derive(Clone, Copy, Debug)]
pub struct Storage<'a> {
    /// One word for each chunk of the window.
    pub records: &'a [AtomicU64],
    /// One byte for each page of [`Plan::ram`].
    pub states: &'a [AtomicU8],
}

/// What the guest finds in its memory.
#[derive(Clone, Copy, Debug)]
pub struct Pages<'a> {
    /// Our own: image, tables, stacks, VMSAs, GHCBs. Storage is added.
    pub ours: &'a [RamRange],
    /// What the launch validated for the guest.
    pub launched: &'a [RamRange],
    /// The first calling area, one page.
    pub calling_area: GuestPhysicalAddress,
}

// [configuration]
/// What the service is told of this machine, and what it offers therefore.
///
/// `encryption_bit` is the position of the C-bit, from the CPUID page, not from the host alone. `flush_reaches_all`: the
/// promise of `PageInstructions::flush` is kept for as many vCPUs as the guest gets; without it CONVERT is not offered
/// (P-5.9.5). `unit_limit`: one GROW moves one batch at most (P-6.4).
pub const fn configuration(
    encryption_bit: u8,
    flush_reaches_all: bool,
    unit_limit: bool,
) -> Configuration {
    let configuration = Configuration {
        flush_reaches_all,
        ..Configuration::with_encryption_bit(encryption_bit)
    };
    if unit_limit {
        configuration
    } else {
        configuration.without_unit_limit()
    }
}
// [end]

// [service]
/// Builds the service. Runs once, before any guest does.
///
/// # Errors
/// [`BootError`].
pub fn service<'a, H: Hardware>(
    plan: &'a mut Plan,
    storage: Storage<'a>,
    pages: Pages<'_>,
    platform: &'a Platform<H>,
    configuration: Configuration,
    hard_cap_bytes: u64,
) -> Result<Service<'a, Platform<H>>, BootError>
where
    Platform<H>: HostPages + GuestMemory + PageInstructions,
{
    let Plan {
        window,
        storage: own,
        ..
    } = *plan;
    // W1: a private mapping of a window page would read or write memory that the host gives and takes at will.
    if platform
        .hardware
        .maps_private(window.base(), window.bytes())
    {
        return Err(BootError::WindowIsMapped);
    }
    let states = PageStates::new(RamRanges::new(plan.ram_mut())?, storage.states)?;
    for range in pages.launched {
        states.set_at_boot(range.base, range.bytes, PageState::Valid)?;
    }
    for range in pages.ours.iter().chain([&own]) {
        states.set_at_boot(range.base, range.bytes, PageState::Paravisor)?;
    }
    states.set_at_boot(pages.calling_area, 4096, PageState::CallingArea)?;
    let pool = Pool::new(window, ChunkRecords::new(storage.records), hard_cap_bytes)?;
    // Refuses a window of which a page has a state word.
    Ok(Service::new(platform, configuration, pool, states)?)
}
// [end]

fn end(range: &RamRange) -> u64 {
    range.base.bits().saturating_add(range.bytes)
}

fn range(base: u64, bytes: u64) -> RamRange {
    RamRange::new(GuestPhysicalAddress::new(base), bytes)
}
