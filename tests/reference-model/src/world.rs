// SPDX-License-Identifier: MIT OR Apache-2.0
//! A service and a model side by side.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use protocol::CHUNK_BYTES;
use snp::address::{GuestPhysicalAddress, PAGE_SIZE};
use snp::svsm::CallRegisters;
use svsm_swiotlb::page_state::{PageState, PageStates, RamRange, RamRanges};
use svsm_swiotlb::platform::{GuestMemory, HostPages, PageInstructions};
use svsm_swiotlb::pool::{ChunkRecords, ChunkState, Pool, Pools, Window};
use svsm_swiotlb::{Configuration, Service};

pub use crate::watched::{SECRET, Watched, machine, machine_ranges};
use crate::{Chunk, Model, Recorder, Shape, Violation, require};

/// A service, the model of it, and the platform under both.
#[derive(Debug)]
pub struct World<'a, P> {
    /// The service.
    pub service: Service<'a, Recorder<P>>,
    /// Its platform.
    pub platform: &'a Recorder<P>,
    model: Mutex<Model>,
}

/// A platform whose flush reaches every processor: CONVERT is offered (clause P-5.9.5).
pub const CONVERT: Configuration = Configuration {
    flush_reaches_all: true,
    ..Configuration::with_encryption_bit(51)
};
/// The same without CONVERT.
pub const NO_CONVERT: Configuration = Configuration::with_encryption_bit(51);

/// Runs `test` with a fresh service over `platform`; the named pages of RAM start in these states, the others Invalid; the
/// first calling area is that of the caller. CONVERT is offered.
///
/// # Panics
/// When the shape is impossible.
pub fn with_world<P: HostPages + GuestMemory + PageInstructions + Watched, R>(
    platform: P,
    shape: Shape,
    pages: &[(u64, PageState)],
    test: impl FnOnce(&World<'_, P>) -> R,
) -> R {
    with_configuration(platform, CONVERT, shape, pages, test)
}

/// [`with_world`] with a configuration of one's own.
///
/// # Panics
/// When the shape is impossible.
pub fn with_configuration<P: HostPages + GuestMemory + PageInstructions + Watched, R>(
    platform: P,
    configuration: Configuration,
    shape: Shape,
    pages: &[(u64, PageState)],
    test: impl FnOnce(&World<'_, P>) -> R,
) -> R {
    let pages = Arc::new(pages.iter().copied().collect());
    with_pages(platform, configuration, shape, pages, test)
}

/// [`with_configuration`], with the pages as a model has them.
///
/// # Panics
/// When the shape is impossible.
pub fn with_pages<P: HostPages + GuestMemory + PageInstructions + Watched, R>(
    platform: P,
    configuration: Configuration,
    shape: Shape,
    pages: Arc<BTreeMap<u64, PageState>>,
    test: impl FnOnce(&World<'_, P>) -> R,
) -> R {
    let platform = Recorder::new(platform);
    let mut ram = [RamRange::new(
        GuestPhysicalAddress::new(shape.ram),
        shape.ram_pages * PAGE_SIZE,
    )];
    let words: Vec<AtomicU8> = (0..shape.ram_pages).map(|_| AtomicU8::new(0)).collect();
    for (page, state) in pages.iter() {
        let number = (page - shape.ram) / PAGE_SIZE;
        let word = usize::try_from(number).ok().and_then(|n| words.get(n));
        let word = word.expect("a page of RAM");
        word.store(state.to_byte(), Ordering::Relaxed);
    }
    let records: Vec<AtomicU64> = (0..shape.all_chunks()).map(|_| AtomicU64::new(0)).collect();
    let (first, second) = records.split_at(shape.chunks);
    let states =
        PageStates::new(RamRanges::new(&mut ram).expect("a range"), &words).expect("words");
    let mut pools = shape.windows().zip([first, second]).map(|(one, records)| {
        let base = GuestPhysicalAddress::new(one.window);
        let window = Window::new(base, one.chunks as u64 * CHUNK_BYTES).expect("a window");
        let hard_cap = one.hard_cap as u64 * CHUNK_BYTES;
        Pool::new(window, ChunkRecords::new(records), hard_cap).expect("records")
    });
    let pool = pools.next().expect("a first window");
    let pools = match pools.next() {
        Some(second) => Pools::two(pool, second).expect("apart"),
        None => pool.into(),
    };
    let service = Service::new(&platform, configuration, pools, states).expect("apart");
    let mut model = Model::new(
        shape,
        service.protocol_number(),
        service.identity().encode(),
    );
    let areas = pages
        .iter()
        .filter(|(_, state)| **state == PageState::CallingArea);
    model.calling_area = areas.map(|(page, _)| *page).next();
    model.pages = pages;
    test(&World {
        service,
        platform: &platform,
        model: Mutex::new(model),
    })
}

impl<P: HostPages + GuestMemory + PageInstructions + Watched> World<'_, P> {
    /// The model; not to be kept over a call.
    pub fn model(&self) -> MutexGuard<'_, Model> {
        self.model.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn dispatch(&self, call: &CallRegisters) -> CallRegisters {
        let area = self.model().calling_area;
        self.service
            .dispatch(call, area.map(GuestPhysicalAddress::new))
    }

    /// A call that nothing is compared with: for attacks and replays.
    pub fn unjudged(&self, call: &CallRegisters) -> CallRegisters {
        let answer = self.dispatch(call);
        self.platform.take();
        answer
    }

    /// A call, judged by the model; then everything else is compared.
    ///
    /// # Errors
    /// The first difference.
    pub fn judge(&self, call: &CallRegisters) -> Result<CallRegisters, Violation> {
        self.platform.take();
        let answer = self.dispatch(call);
        let events = self.platform.take();
        let expected = self.model().step(call, &events)?;
        require!(
            answer == expected,
            "{call:x?} was answered {answer:x?} instead of {expected:x?} after {events:?}"
        );
        self.agrees()?;
        Ok(answer)
    }

    /// [`World::judge`], for tests.
    ///
    /// # Panics
    /// At the first difference.
    #[track_caller]
    pub fn call(&self, call: &CallRegisters) -> CallRegisters {
        match self.judge(call) {
            Ok(answer) => answer,
            Err(violation) => panic!("{violation}"),
        }
    }

    /// Whether service and model are in the same state, and the invariants hold.
    ///
    /// # Errors
    /// The first difference.
    pub fn agrees(&self) -> Result<(), Violation> {
        self.invariants_of_chunks()?;
        let model = self.model();
        let (statistics, expected) = (self.service.statistics(), model.statistics());
        require!(
            statistics == expected,
            "P-8.2: {statistics:?} instead of {expected:?}"
        );
        for (number, expected) in model.chunks.iter().enumerate() {
            let chunk = chunk_of(self.service.pools(), number)?;
            require!(
                chunk == *expected,
                "W2, P3: chunk {number} is {chunk:?} instead of {expected:?}"
            );
        }
        let (states, platform) = (self.service.page_states(), self.platform.inner());
        let mut named = model.pages.range(model.shape.ram..).peekable();
        for page in 0..model.shape.ram_pages {
            let address = model.shape.ram + page * PAGE_SIZE;
            let expected = named.next_if(|(at, _)| **at == address);
            let expected = expected.map_or(PageState::Invalid, |(_, state)| *state);
            let state = states.state(GuestPhysicalAddress::new(address));
            require!(
                state == Some(expected),
                "P5: page {address:#x} is {state:?} instead of {expected:?}"
            );
            invariants_of_page(platform, address, state)?;
        }
        self.agrees_on_events(&model)
    }

    /// The newest records are the model's, and there are no others.
    fn agrees_on_events(&self, model: &Model) -> Result<(), Violation> {
        let trace = self.service.trace();
        require!(
            self.service.has_stopped() == model.stopped,
            "P-5.9.11: stopped is not {}",
            model.stopped
        );
        let oldest = model.oldest_event();
        require!(
            (trace.oldest(), trace.next()) == (oldest, model.next_event),
            "P-12.3: records {} to {} instead of {oldest} to {}",
            trace.oldest(),
            trace.next(),
            model.next_event
        );
        // Under Miri each look at the ring visits every word of it.
        let newest = if cfg!(miri) { 2 } else { usize::MAX };
        for expected in model.trace.iter().rev().take(newest) {
            let record = trace.record(expected.sequence);
            require!(
                record == Some(*expected),
                "P-12.2: {record:x?} instead of {expected:x?}"
            );
        }
        Ok(())
    }

    /// What holds between calls, whatever came before: design.md section 5.
    ///
    /// # Errors
    /// The invariant that does not hold.
    pub fn invariants(&self) -> Result<(), Violation> {
        self.invariants_of_chunks()?;
        let Shape { ram, ram_pages, .. } = self.model().shape;
        let (states, platform) = (self.service.page_states(), self.platform.inner());
        (0..ram_pages).try_for_each(|page| {
            let address = ram + page * PAGE_SIZE;
            let state = states.state(GuestPhysicalAddress::new(address));
            invariants_of_page(platform, address, state)
        })
    }

    fn invariants_of_chunks(&self) -> Result<(), Violation> {
        let shape = self.model().shape;
        let statistics = self.service.statistics().windows();
        let windows = (0..).zip(shape.windows()).zip(statistics);
        for ((index, window), statistics) in windows {
            let bytes = window.chunks as u64 * CHUNK_BYTES;
            if let Some(leak) = self.platform.inner().leak(window.window, bytes) {
                return Err(leak);
            }
            let (mut granted, mut quarantined) = (0, 0);
            for number in shape.numbers(index).unwrap_or_default() {
                match chunk_of(self.service.pools(), number)? {
                    Chunk::Held { .. } => granted += CHUNK_BYTES,
                    Chunk::Quarantined => quarantined += CHUNK_BYTES,
                    Chunk::Free => {}
                }
            }
            require!(
                (statistics.granted_bytes, statistics.quarantined_bytes) == (granted, quarantined),
                "P-3.12: {statistics:?} instead of {granted} and {quarantined}"
            );
            let peak = statistics.peak_granted_bytes;
            require!(
                peak >= granted && peak <= window.hard_cap as u64 * CHUNK_BYTES,
                "P-3.12: peak {peak} of {granted}"
            );
        }
        Ok(())
    }

    /// Makes the model believe what the service has recorded, after calls that were not judged.
    ///
    /// # Errors
    /// The invariant that does not hold.
    pub fn resynchronise(&self) -> Result<(), Violation> {
        self.invariants()?;
        let chunks: Result<Vec<Chunk>, _> = (0..self.model().shape.all_chunks())
            .map(|chunk| self.chunk(chunk))
            .collect();
        let mut model = self.model();
        model.chunks = chunks?;
        model.counters = self.service.statistics();
        model.attached = model.counters.epoch != 0;
        if model.attached {
            model.epoch = u32::try_from(model.counters.epoch).unwrap_or(u32::MAX);
        }
        model.stopped = self.service.has_stopped();
        let trace = self.service.trace();
        model.next_event = trace.next();
        model.trace = (trace.oldest()..trace.next())
            .filter_map(|number| trace.record(number))
            .collect();
        model.caps = (model.counters.windows())
            .map(|one| usize::try_from(one.cap_bytes / CHUNK_BYTES).unwrap_or(usize::MAX));
        let all = (0..model.shape.ram_pages).map(|page| model.shape.ram + page * PAGE_SIZE);
        let states = all.filter_map(|page| Some((page, self.page(page)?)));
        model.pages = Arc::new(states.collect());
        Ok(())
    }

    /// State of a page's word.
    pub fn page(&self, address: u64) -> Option<PageState> {
        let address = GuestPhysicalAddress::new(address);
        self.service.page_states().state(address)
    }

    /// State of a chunk.
    ///
    /// # Errors
    /// When it is in transition (clause P-3.9).
    pub fn chunk(&self, number: usize) -> Result<Chunk, Violation> {
        chunk_of(self.service.pools(), number)
    }
}

// These take no world: Miri visits all of a service for each reference to it.

fn invariants_of_page<P: Watched>(
    platform: &P,
    address: u64,
    state: Option<PageState>,
) -> Result<(), Violation> {
    let state = state.unwrap_or(PageState::Busy);
    require!(
        state != PageState::Busy,
        "P5: page {address:#x} was left taken"
    );
    let contradiction = platform.contradiction(address, state);
    contradiction.map_or(Ok(()), Err)
}

fn chunk_of(pools: &Pools<'_>, number: usize) -> Result<Chunk, Violation> {
    let chunks = pools.first().records().len();
    let state = match (number.checked_sub(chunks), pools.second()) {
        (Some(in_second), Some(second)) => second.records().state(in_second),
        _ => pools.first().records().state(number),
    };
    Ok(match state {
        ChunkState::Free => Chunk::Free,
        ChunkState::Held(holder) => Chunk::Held {
            epoch: holder.epoch.number(),
            generation: holder.generation.number(),
        },
        ChunkState::Quarantined => Chunk::Quarantined,
        state => return Err(format!("P-3.9: chunk {number} was left {state:?}")),
    })
}
