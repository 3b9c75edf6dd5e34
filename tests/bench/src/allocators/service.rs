// SPDX-License-Identifier: MIT OR Apache-2.0
//! The shared-pool service, in the same process: it answers the protocol's calls, grants the pool, and grows into the
//! guest pages right above it.
//!
//! A page-state change is one request per growth step, whatever its length. That the pages of a step are adjacent is
//! checked: where the driver hands out others, the step ends there.

use std::ffi::c_void;

use protocol::identity::{Features, Identity, SharedAddressing};
use protocol::request::DescribeItem;
use protocol::response::{
    Attached, Geometry, Granted, LimitsSet, Released, Usage, WindowAttributes, WorkLimits,
    encode_answer,
};
use protocol::result as code;
use protocol::{CHUNK_BYTES, Epoch, Generation, Refusal, Request, ResultRegisters};
use snp::address::GuestPhysicalAddress;
use snp::svsm::{CallId, CallRegisters, ResultCode, core_protocol};

use crate::abi::{Config, flags};

/// A chunk is `4 KiB << CHUNK_ORDER`.
const CHUNK_ORDER: u32 = 9;
const CHUNK: usize = 2 << 20;
/// 4 KiB pages of a chunk.
const CHUNK_PAGES: usize = CHUNK >> 12;
/// Address space above the pool that belongs to the window where the pool may grow.
pub const GROWTH_BYTES: usize = 3 << 30;

/// Who a chunk belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Chunk {
    /// Nobody, and not part of the pool that the driver has set up.
    Absent,
    /// Part of the pool; shared already or not.
    Free { shared: bool },
    /// The guest, by the grant of this generation.
    Held(u32),
}

/// The service and its window.
#[derive(Debug)]
pub struct Service {
    config: Config,
    chunks: Vec<Chunk>,
    /// Chunks of the pool itself; those above come from guest pages.
    pool_chunks: usize,
    held: usize,
    cap: u64,
    epoch: u32,
    generation: u32,
}

/// Bytes of the window of a configuration.
pub const fn window_bytes(config: &Config) -> usize {
    let growth = if config.flags & flags::GROW != 0 {
        GROWTH_BYTES
    } else {
        0
    };
    (config.pool_size + growth).next_multiple_of(CHUNK)
}

impl Service {
    /// A service over the driver's pool, all of it shared and free.
    pub fn new(config: &Config) -> Self {
        let pool_chunks = config.pool_size / CHUNK;
        let bytes = window_bytes(config);
        let mut chunks = vec![Chunk::Absent; bytes / CHUNK];
        chunks[..pool_chunks].fill(Chunk::Free { shared: true });
        Self {
            config: *config,
            chunks,
            pool_chunks,
            held: 0,
            cap: bytes as u64,
            epoch: 0,
            generation: 0,
        }
    }

    /// Serves a call by its registers.
    pub fn serve(&mut self, registers: &mut CallRegisters) {
        let id = CallId::from_rax(registers.rax);
        if id.protocol == core_protocol::NUMBER {
            let known = id.call == core_protocol::QUERY_PROTOCOL
                && registers.rcx >> 32 == u64::from(protocol::DEFAULT_PROTOCOL_NUMBER);
            registers.rax = 0;
            registers.rcx = if known { 1 << 32 | 1 } else { 0 };
            return;
        }
        let question = *registers;
        let answer = Request::decode(&question)
            .map_err(Refusal::from)
            .and_then(|request| self.answer(&request));
        *registers = encode_answer(&question, answer);
    }

    fn answer(&mut self, request: &Request) -> Result<ResultRegisters, Refusal> {
        match *request {
            Request::Identify => {
                let addressing = SharedAddressing::EncryptionBitClear(51);
                Ok(Identity::of_this_version(addressing, Features::new()).encode())
            }
            Request::Describe { item, .. } => Ok(self.describe(item)),
            Request::Attach { .. } => {
                self.epoch += 1;
                let epoch = Epoch::new(self.epoch).ok_or(code::STALE_EPOCH)?;
                Ok(Attached {
                    epoch,
                    fresh: self.epoch == 1,
                    orphaned_bytes: 0,
                }
                .encode())
            }
            Request::Grow {
                contiguous,
                epoch,
                least,
                most,
                ..
            } => {
                if epoch != self.epoch {
                    return Err(code::STALE_EPOCH.into());
                }
                let least = if contiguous { chunks(least) } else { 1 };
                self.grow(least, chunks(most)).map(Granted::encode)
            }
            Request::Release {
                base,
                bytes,
                generation,
                ..
            } => self
                .release(base.bits(), bytes, generation)
                .map(Released::encode),
            Request::SetLimits { cap, .. } => {
                if cap > self.window_bytes() {
                    return Err(ResultCode::INVALID_PARAMETER.into());
                }
                let previous_cap = std::mem::replace(&mut self.cap, cap);
                Ok(LimitsSet { previous_cap }.encode())
            }
            _ => Err(ResultCode::UNSUPPORTED_CALL.into()),
        }
    }

    fn window_bytes(&self) -> u64 {
        self.chunks.len() as u64 * CHUNK_BYTES
    }

    fn describe(&self, item: DescribeItem) -> ResultRegisters {
        match item {
            DescribeItem::Geometry => Geometry {
                base: GuestPhysicalAddress::new(self.config.pool_bus),
                bytes: self.window_bytes(),
                attributes: WindowAttributes::new().with_log2_chunk(21),
            }
            .encode(),
            DescribeItem::Usage => Usage {
                cap: self.cap,
                granted: self.held as u64 * CHUNK_BYTES,
                quarantined: 0,
            }
            .encode(),
            // One call may grant everything: the driver's pool is there from the start.
            DescribeItem::WorkLimits => WorkLimits {
                units: self.window_bytes() >> 12,
                psc_entries: self.chunks.len() as u64,
                grow_bytes: self.window_bytes(),
            }
            .encode(),
        }
    }

    fn grow(&mut self, least: usize, most: usize) -> Result<Granted, Refusal> {
        let room = chunks(self.cap).saturating_sub(self.held);
        if room < least {
            return Err(code::CAP_REACHED.into());
        }
        let most = most.min(room);
        let run = match self.free_pool_run(least, most) {
            Some(run) => {
                self.share_again(&run)?;
                run
            }
            None => self.run_of_guest_pages(least, most)?,
        };
        self.generation += 1;
        let generation = Generation::new(self.generation).ok_or(code::RECORDS_EXHAUSTED)?;
        let base = self.config.pool_bus + run.start as u64 * CHUNK_BYTES;
        let bytes = run.len() as u64 * CHUNK_BYTES;
        self.held += run.len();
        self.chunks[run].fill(Chunk::Held(self.generation));
        Ok(Granted {
            base: GuestPhysicalAddress::new(base),
            bytes,
            generation,
        })
    }

    /// The lowest run of the driver's own pool that is long enough.
    fn free_pool_run(&self, least: usize, most: usize) -> Option<std::ops::Range<usize>> {
        let pool = &self.chunks[..self.pool_chunks];
        let is_free = |chunk: &Chunk| matches!(chunk, Chunk::Free { .. });
        let mut start = 0;
        while start < pool.len() {
            let length = pool[start..]
                .iter()
                .take_while(|chunk| is_free(chunk))
                .count();
            if length >= least.max(1) {
                return Some(start..start + length.min(most));
            }
            start += length + 1;
        }
        None
    }

    /// Pool chunks that were given back before are private.
    fn share_again(&self, run: &std::ops::Range<usize>) -> Result<(), Refusal> {
        let all_shared = self.chunks[run.clone()]
            .iter()
            .all(|chunk| *chunk == Chunk::Free { shared: true });
        if all_shared || self.convert(run, true, true) {
            Ok(())
        } else {
            Err(code::HOST_REFUSED.into())
        }
    }

    /// Takes blocks as long as they are adjacent, and makes them shared with one request.
    fn run_of_guest_pages(
        &self,
        least: usize,
        most: usize,
    ) -> Result<std::ops::Range<usize>, Refusal> {
        let mut run = 0..0;
        while run.len() < most {
            let block = (self.config.get_pages)(CHUNK_ORDER, 1);
            if block.is_null() {
                break;
            }
            match self.absent_chunk_at(block) {
                Some(chunk) if run.is_empty() => run = chunk..chunk + 1,
                Some(chunk) if chunk == run.end => run.end += 1,
                _ => {
                    (self.config.put_pages)(block, CHUNK_ORDER);
                    break;
                }
            }
        }
        if run.len() < least.max(1) {
            self.put_pages(&run);
            return Err(code::NO_CONTIGUOUS_RUN.into());
        }
        if !self.convert(&run, true, true) {
            self.put_pages(&run);
            return Err(code::HOST_REFUSED.into());
        }
        Ok(run)
    }

    /// The chunk of the window that a block of guest pages is, if nobody has it.
    fn absent_chunk_at(&self, block: *mut c_void) -> Option<usize> {
        let offset = block.addr().checked_sub(self.config.pool.addr())?;
        let chunk = offset / CHUNK;
        let ours = offset.is_multiple_of(CHUNK) && chunk >= self.pool_chunks;
        (ours && self.chunks.get(chunk) == Some(&Chunk::Absent)).then_some(chunk)
    }

    fn address(&self, chunk: usize) -> *mut c_void {
        self.config.pool.wrapping_add(chunk * CHUNK).cast()
    }

    fn convert(&self, run: &std::ops::Range<usize>, shared: bool, atomic: bool) -> bool {
        if self.config.flags & flags::CONFIDENTIAL == 0 {
            return true;
        }
        let pages = run.len() * CHUNK_PAGES;
        let address = self.address(run.start);
        (self.config.convert)(address, pages, shared.into(), atomic.into()) == 0
    }

    /// The last block first: the list they go to is a stack, so the next growth finds them in ascending order again.
    fn put_pages(&self, run: &std::ops::Range<usize>) {
        for chunk in run.clone().rev() {
            (self.config.put_pages)(self.address(chunk), CHUNK_ORDER);
        }
    }

    fn release(&mut self, base: u64, bytes: u64, generation: u32) -> Result<Released, Refusal> {
        let first = base
            .checked_sub(self.config.pool_bus)
            .map_or(usize::MAX, chunks);
        let run = first..first.saturating_add(chunks(bytes));
        let ours = self
            .chunks
            .get(run.clone())
            .is_some_and(|held| held.iter().all(|chunk| *chunk == Chunk::Held(generation)));
        if !ours {
            return Err(code::NOT_HELD.into());
        }
        // Giving back is done by `maintain`, which the adapter only calls as deferred work.
        if !self.convert(&run, false, false) {
            return Err(code::HOST_REFUSED.into());
        }
        self.held -= run.len();
        let guest_pages = run.start.max(self.pool_chunks)..run.end.max(self.pool_chunks);
        self.put_pages(&guest_pages);
        for chunk in run {
            let confidential = self.config.flags & flags::CONFIDENTIAL != 0;
            self.chunks[chunk] = if chunk < self.pool_chunks {
                Chunk::Free {
                    shared: !confidential,
                }
            } else {
                Chunk::Absent
            };
        }
        Ok(Released {
            bytes,
            acknowledged: bytes,
        })
    }
}

fn chunks(bytes: u64) -> usize {
    usize::try_from(bytes / CHUNK_BYTES).unwrap_or(usize::MAX)
}
