// SPDX-License-Identifier: MIT OR Apache-2.0
//! The model's state (chapter 3), and a step of it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use protocol::convert::Outcome;
use protocol::result::refusal_index;
use protocol::statistics::{STATISTICS_BYTES, Statistics, WindowStatistics};
use protocol::trace::TraceRecord;
use protocol::{Refusal, ResultRegisters, result};
use snp::address::PageSize;
use snp::svsm::{CallRegisters, ResultCode};
use svsm_swiotlb::page_state::PageState;

use crate::asked::{CHUNK, asked};
use crate::events::kind;
use crate::{Event, Violation, require};

/// What does not change while a service lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// First byte of the window.
    pub window: u64,
    /// Chunks of the window.
    pub chunks: usize,
    /// Chunks that may be granted at most.
    pub hard_cap: usize,
    /// Window 1, if there is one.
    pub second: Option<SecondWindow>,
    /// First byte of guest RAM.
    pub ram: u64,
    /// Pages of guest RAM.
    pub ram_pages: u64,
}

/// A window beside the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SecondWindow {
    /// First byte.
    pub window: u64,
    /// Its chunks.
    pub chunks: usize,
    /// Those of them that may be granted at most.
    pub hard_cap: usize,
}

impl Shape {
    /// First byte, chunks and hard cap of each window there is, by its index.
    pub fn windows(&self) -> impl Iterator<Item = SecondWindow> + use<> {
        let first = SecondWindow {
            window: self.window,
            chunks: self.chunks,
            hard_cap: self.hard_cap,
        };
        [Some(first), self.second].into_iter().flatten()
    }

    /// Chunks of all windows.
    pub fn all_chunks(&self) -> usize {
        self.windows().map(|window| window.chunks).sum()
    }

    /// The numbers of a window's chunks, which count through all windows (P-7.3); `None` if there is no such window.
    pub fn numbers(&self, window: u64) -> Option<Range<usize>> {
        let index = usize::try_from(window).ok()?;
        let chunks = self.windows().nth(index)?.chunks;
        let before: usize = self.windows().take(index).map(|one| one.chunks).sum();
        Some(before..before + chunks)
    }

    /// The numbers of so many chunks from an address on, if they lie in one window.
    pub fn chunks_at(&self, base: u64, chunks: u64) -> Option<Range<usize>> {
        (0..).zip(self.windows()).find_map(|(index, window)| {
            let numbers = self.numbers(index)?;
            let first = usize::try_from(base.checked_sub(window.window)? / CHUNK).ok()?;
            let end = first.checked_add(usize::try_from(chunks).ok()?)?;
            (first < window.chunks && end <= window.chunks)
                .then(|| numbers.start + first..numbers.start + end)
        })
    }

    /// Address of a chunk by its number.
    ///
    /// # Panics
    /// Where there is no such chunk.
    pub fn chunk_address(&self, number: usize) -> u64 {
        let mut before = 0;
        for window in self.windows() {
            if number < before + window.chunks {
                return window.window + bytes(number - before);
            }
            before += window.chunks;
        }
        panic!("chunk {number} of {before}")
    }
}

/// A chunk between two calls (clause P-3.8; a call leaves none in transition, P-3.9).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Chunk {
    /// Nobody's.
    Free,
    /// Granted.
    Held {
        /// Of the holder.
        epoch: u32,
        /// Of the grant.
        generation: u32,
    },
    /// Never to be used again.
    Quarantined,
}

/// A measure of what was tried, of which nothing depends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tried {
    /// Calls of this protocol and their answers.
    pub answers: BTreeSet<(u64, u32)>,
    /// What became of entries of CONVERT, to shared or not.
    pub outcomes: BTreeSet<(bool, Outcome)>,
}

impl Tried {
    /// Everything that can become of an entry of CONVERT, to shared or not (P-5.9.8).
    pub const ALL_OUTCOMES: [(bool, Outcome); 7] = [
        (true, Outcome::Converted),
        (true, Outcome::Zeroed),
        (true, Outcome::Unvalidated),
        (true, Outcome::Quarantined),
        (false, Outcome::Converted),
        (false, Outcome::Unchanged),
        (false, Outcome::Quarantined),
    ];
}

/// The service as the text describes it.
#[derive(Clone, Debug)]
pub struct Model {
    /// What does not change.
    pub shape: Shape,
    /// Protocol number.
    pub protocol: u32,
    /// Feature bits, as IDENTIFY reports them.
    pub features: u32,
    /// R8 of IDENTIFY, and RCX and RDX.
    pub identity: ResultRegisters,
    /// Last epoch given out; 0 before the first ATTACH.
    pub epoch: u32,
    /// Whether that epoch lasts (clause P-5.6.1).
    pub attached: bool,
    /// Last generation given out; 0 before the first grant.
    pub generation: u32,
    /// Chunks that may be granted of each window.
    pub caps: [usize; 2],
    /// The chunks of all windows.
    pub chunks: Vec<Chunk>,
    /// Pages of guest RAM, by address; those that are not named are Invalid.
    pub pages: Arc<BTreeMap<u64, PageState>>,
    /// The calling area of whoever calls.
    pub calling_area: Option<u64>,
    /// Counters; of those about a window only `peak_granted_bytes`, and of the first fields of the structure `released_bytes` and
    /// `acknowledged_bytes`, are kept here, the others follow from the rest.
    pub counters: Statistics,
    /// The newest records (chapter 12).
    pub trace: VecDeque<TraceRecord>,
    /// Number of the next event.
    pub next_event: u64,
    /// The service found a page valid that was not (clause P-5.9.11).
    pub stopped: bool,
    /// What happened so far.
    pub tried: Tried,
    /// Generations of grants so far, to see that each is new.
    pub used_generations: BTreeSet<u32>,
}

impl Model {
    /// A fresh service.
    pub fn new(shape: Shape, protocol: u32, identity: ResultRegisters) -> Self {
        Self {
            shape,
            protocol,
            features: u32::try_from(identity.r8 >> 32).unwrap_or(u32::MAX),
            identity,
            epoch: 0,
            attached: false,
            generation: 0,
            caps: [shape.hard_cap, shape.second.map_or(0, |one| one.hard_cap)],
            chunks: vec![Chunk::Free; shape.all_chunks()],
            pages: Arc::default(),
            calling_area: None,
            counters: Statistics::default(),
            trace: VecDeque::new(),
            next_event: 0,
            stopped: false,
            tried: Tried::default(),
            used_generations: BTreeSet::new(),
        }
    }

    /// The answer to a call whose platform calls were `events`; the state afterwards.
    ///
    /// # Errors
    /// The clause that a platform call breaks.
    pub fn step(
        &mut self,
        call: &CallRegisters,
        events: &[Event],
    ) -> Result<CallRegisters, Violation> {
        // Instructions are named before they are executed; what came of them says it again.
        let executed = |event: &&Event| !matches!(event, Event::Instruction(..));
        let instructions = !events.iter().all(|event| executed(&event));
        let executed: Vec<Event> = if instructions {
            events.iter().filter(executed).cloned().collect()
        } else {
            Vec::new()
        };
        let mut rest = if instructions { &executed } else { events };
        let answer = if self.is_memory_form(call) {
            self.memory_form(call, &mut rest)?
        } else {
            self.one(call, kind::REFUSED, &mut rest)?
        };
        require!(rest.is_empty(), "P-4.10: too much was done: {rest:?}");
        Ok(answer)
    }

    /// The answer to a call in registers or in a block, counted; its refusal is an event of this kind.
    pub(crate) fn one(
        &mut self,
        call: &CallRegisters,
        refused: u16,
        events: &mut &[Event],
    ) -> Result<CallRegisters, Violation> {
        let answer = self.answer(call, events)?;
        Ok(self.conclude(call, answer, refused))
    }

    pub(crate) fn conclude(
        &mut self,
        call: &CallRegisters,
        answer: Result<ResultRegisters, Refusal>,
        refused: u16,
    ) -> CallRegisters {
        let code = answer
            .as_ref()
            .map_or_else(|refusal| refusal.code, |_| ResultCode::SUCCESS);
        self.tried.answers.insert((call.rax & 0xFFFF_FFFF, code.0));
        match answer {
            Ok(results) => CallRegisters {
                rax: 0,
                rcx: results.rcx,
                rdx: results.rdx,
                r8: results.r8,
                r9: call.r9,
            },
            Err(refusal) => {
                self.count_refusal(refusal.code);
                self.note_refusal(refused, call, refusal.code);
                // Clauses P-4.7 and P-6.3.
                CallRegisters {
                    rax: u64::from(refusal.code.0),
                    rcx: refusal.limit.unwrap_or(call.rcx),
                    ..*call
                }
            }
        }
    }

    fn answer(
        &mut self,
        call: &CallRegisters,
        events: &mut &[Event],
    ) -> Result<Result<ResultRegisters, Refusal>, Violation> {
        if self.stopped {
            return Ok(Err(result::HOST_MISBEHAVED.into())); // P-5.9.11
        }
        if call.rax >> 32 == u64::from(self.protocol) {
            let number = usize::try_from(call.rax & 0xFFFF_FFFF).unwrap_or(usize::MAX);
            let counter = self.counters.calls.get_mut(number);
            *counter.unwrap_or(&mut self.counters.unknown_calls) += 1;
        }
        if self.is_memory_form(call) {
            return Ok(Err(ResultCode::UNSUPPORTED_CALL.into())); // P-5.16.5
        }
        match asked(call, self.protocol, self.features) {
            Ok(asked) => self.perform(asked, events),
            Err(refusal) => Ok(Err(refusal)),
        }
    }

    fn count_refusal(&mut self, code: ResultCode) {
        let counter = refusal_index(code).and_then(|index| self.counters.refusals.get_mut(index));
        if let Some(counter) = counter {
            *counter += 1;
        }
    }

    /// Chunks that are held, of all windows.
    pub fn granted(&self) -> usize {
        (0..2).map(|window| self.granted_of(window)).sum()
    }

    /// The chunks of a window; none if there is no such window.
    pub fn chunks_of_window(&self, window: u64) -> &[Chunk] {
        let numbers = self.shape.numbers(window);
        numbers.and_then(|all| self.chunks.get(all)).unwrap_or(&[])
    }

    /// Chunks of a window that are held.
    pub fn granted_of(&self, window: u64) -> usize {
        let held = |chunk: &&Chunk| matches!(chunk, Chunk::Held { .. });
        self.chunks_of_window(window).iter().filter(held).count()
    }

    /// Chunks of a window that are quarantined.
    pub fn quarantined_of(&self, window: u64) -> usize {
        let quarantined = |chunk: &&Chunk| **chunk == Chunk::Quarantined;
        let chunks = self.chunks_of_window(window).iter();
        chunks.filter(quarantined).count()
    }

    /// The cap of a window in chunks; 0 if there is no such window.
    pub fn cap_of(&self, window: u64) -> usize {
        let index = usize::try_from(window).unwrap_or(usize::MAX);
        self.caps.get(index).copied().unwrap_or(0)
    }

    /// Chunks that an epoch holds.
    pub fn held_by(&self, of: u32) -> usize {
        let held = |chunk: &&Chunk| matches!(chunk, Chunk::Held { epoch, .. } if *epoch == of);
        self.chunks.iter().filter(held).count()
    }

    /// The longest run of free chunks of a window.
    pub fn longest_free_run(&self, window: u64) -> usize {
        let chunks = self.chunks_of_window(window);
        let runs = chunks.split(|chunk| *chunk != Chunk::Free);
        runs.map(<[Chunk]>::len).max().unwrap_or(0)
    }

    /// State of a page of guest RAM; `None` for other addresses.
    pub fn page(&self, address: u64) -> Option<PageState> {
        let page = address - address % 4096;
        let number = page.checked_sub(self.shape.ram)? / 4096;
        let state = self.pages.get(&page).copied();
        (number < self.shape.ram_pages).then(|| state.unwrap_or(PageState::Invalid))
    }

    /// All 4 KiB pages of a page are in this state now.
    pub(crate) fn put(&mut self, (page, size): (u64, PageSize), state: PageState) {
        let pages = Arc::make_mut(&mut self.pages);
        for part in 0..size.pages() {
            pages.insert(page + part * 4096, state);
        }
    }

    /// What STATISTICS shows (chapter 8).
    pub fn statistics(&self) -> Statistics {
        Statistics {
            version: 1,
            bytes: u32::try_from(STATISTICS_BYTES).unwrap_or(0),
            epoch: if self.attached { self.epoch.into() } else { 0 },
            window_bytes: bytes(self.shape.chunks),
            cap_bytes: bytes(self.cap_of(0)),
            granted_bytes: bytes(self.granted_of(0)),
            quarantined_bytes: bytes(self.quarantined_of(0)),
            second: WindowStatistics {
                window_bytes: bytes(self.chunks_of_window(1).len()),
                cap_bytes: bytes(self.cap_of(1)),
                granted_bytes: bytes(self.granted_of(1)),
                peak_granted_bytes: self.counters.second.peak_granted_bytes,
                quarantined_bytes: bytes(self.quarantined_of(1)),
            },
            ..self.counters
        }
    }
}

/// Bytes of so many chunks.
pub(crate) fn bytes(chunks: usize) -> u64 {
    u64::try_from(chunks).map_or(u64::MAX, |chunks| chunks * CHUNK)
}
