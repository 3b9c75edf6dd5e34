// SPDX-License-Identifier: MIT OR Apache-2.0
//! A service that fits a test: it grants and takes back chunks, and answers what a test tells it to.

use std::vec::Vec;

use protocol::identity::{Features, Identity, SharedAddressing};
use protocol::request::DescribeItem;
use protocol::response::{
    Attached, Geometry, Granted, LimitsSet, Released, Usage, WindowAttributes, WorkLimits,
};
use protocol::result as code;
use protocol::{Epoch, Generation, Refusal, Request, ResultRegisters};
use snp::address::GuestPhysicalAddress;
use snp::svsm::ResultCode;

use super::memory::{BASE, GRANTED, NOT_GRANTED, WindowMemory};
use crate::CHUNK_BYTES;

/// What a test changes about the service.
#[derive(Clone, Debug)]
pub struct Service {
    pub uuid: u128,
    pub offered: bool,
    /// How often the core protocol was asked for it.
    pub queries: usize,
    pub log2_chunk: u8,
    pub cap: u64,
    pub grow_limit: u64,
    /// The next answers of GROW and RELEASE, before the service looks at them.
    pub grow_answers: Vec<Result<Granted, Refusal>>,
    pub release_answers: Vec<Result<Released, Refusal>>,
    /// Offers CONVERT.
    pub converts: bool,
    /// The next answers of CONVERT: where the cursor is then, the outcome in the first entry, the code.
    pub convert_answers: Vec<(u16, u8, ResultCode)>,
    /// Answers BUSY this often.
    pub busy: u32,
    /// The host runs the guest without the service.
    pub not_run: bool,
    /// Grants the highest run instead of the lowest.
    pub from_the_top: bool,
    /// Every call, as it came.
    pub log: Vec<Request>,
    pub epoch: u32,
    generation: u32,
    held: Vec<Option<u32>>,
}

impl Service {
    /// A service with this many chunks, all of them free, and no cap below that.
    pub fn new(chunks: usize) -> Self {
        Self {
            uuid: protocol::identity::PROTOCOL_UUID,
            offered: true,
            queries: 0,
            log2_chunk: 21,
            cap: chunks as u64 * CHUNK_BYTES,
            grow_limit: 253 * CHUNK_BYTES,
            grow_answers: Vec::new(),
            release_answers: Vec::new(),
            converts: false,
            convert_answers: Vec::new(),
            busy: 0,
            not_run: false,
            from_the_top: false,
            log: Vec::new(),
            epoch: 0,
            generation: 0,
            held: std::vec![None; chunks],
        }
    }

    /// Chunks granted now.
    pub fn granted(&self) -> usize {
        self.held.iter().flatten().count()
    }

    fn window_bytes(&self) -> u64 {
        self.held.len() as u64 * CHUNK_BYTES
    }

    /// Serves one call.
    pub fn answer(
        &mut self,
        request: &Request,
        memory: &WindowMemory,
    ) -> Result<ResultRegisters, Refusal> {
        self.log.push(*request);
        if self.busy > 0 {
            self.busy -= 1;
            return Err(ResultCode::BUSY.into());
        }
        match *request {
            Request::Identify => {
                let addressing = SharedAddressing::EncryptionBitClear(51);
                let identity = Identity::of_this_version(
                    addressing,
                    Features::new().with_convert(self.converts),
                );
                Ok(Identity {
                    uuid: self.uuid,
                    ..identity
                }
                .encode())
            }
            Request::Describe {
                item: DescribeItem::Geometry,
                ..
            } => Ok(Geometry {
                base: GuestPhysicalAddress::new(BASE),
                bytes: self.window_bytes(),
                attributes: WindowAttributes::new().with_log2_chunk(self.log2_chunk),
            }
            .encode()),
            Request::Describe {
                item: DescribeItem::Usage,
                ..
            } => Ok(Usage {
                cap: self.cap,
                granted: 0,
                quarantined: 0,
            }
            .encode()),
            Request::Describe {
                item: DescribeItem::WorkLimits,
                ..
            } => Ok(WorkLimits {
                units: 4096,
                psc_entries: 253,
                grow_bytes: self.grow_limit,
            }
            .encode()),
            Request::Attach { .. } => {
                self.epoch += 1;
                let epoch = Epoch::new(self.epoch).unwrap();
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
                if !self.grow_answers.is_empty() {
                    return self.grow_answers.remove(0).map(Granted::encode);
                }
                self.grow(memory, contiguous, least, most)
                    .map(Granted::encode)
            }
            Request::Release {
                base,
                bytes,
                generation,
                ..
            } => {
                if !self.release_answers.is_empty() {
                    return self.release_answers.remove(0).map(Released::encode);
                }
                let first = ((base.bits() - BASE) / CHUNK_BYTES) as usize;
                let chunks = first..first + (bytes / CHUNK_BYTES) as usize;
                if chunks
                    .clone()
                    .any(|chunk| self.held[chunk] != Some(generation))
                {
                    return Err(code::NOT_HELD.into());
                }
                for chunk in chunks {
                    self.held[chunk] = None;
                    memory.fill_chunk(chunk, NOT_GRANTED);
                }
                Ok(Released {
                    bytes,
                    acknowledged: bytes,
                }
                .encode())
            }
            Request::SetLimits { cap, .. } => {
                if cap > self.window_bytes() {
                    return Err(ResultCode::INVALID_PARAMETER.into());
                }
                let previous_cap = core::mem::replace(&mut self.cap, cap);
                Ok(LimitsSet { previous_cap }.encode())
            }
            Request::Convert { list, epoch } => {
                assert_eq!(epoch, self.epoch);
                self.convert(list.bits())
            }
            _ => Err(ResultCode::UNSUPPORTED_CALL.into()),
        }
    }

    /// The next answer, with cursor and outcome written into the list.
    fn convert(&mut self, list: u64) -> Result<ResultRegisters, Refusal> {
        let (next, outcome, answer) = self.convert_answers.remove(0);
        let address = usize::try_from(list).unwrap();
        let cursor = core::ptr::with_exposed_provenance_mut::<u16>(address + 2);
        let entry = core::ptr::with_exposed_provenance_mut::<u8>(address + 9);
        // SAFETY: A list of the test's, whose reference is not used during the call.
        unsafe {
            cursor.write_volatile(next);
            entry.write_volatile(entry.read_volatile() & 0xF0 | outcome);
        }
        match answer {
            ResultCode::SUCCESS => Ok(ResultRegisters::default()),
            code => Err(code.into()),
        }
    }

    fn grow(
        &mut self,
        memory: &WindowMemory,
        contiguous: bool,
        least: u64,
        most: u64,
    ) -> Result<Granted, Refusal> {
        let chunks = |bytes: u64| (bytes / CHUNK_BYTES) as usize;
        if contiguous && least > self.grow_limit {
            return Err(Refusal::too_large(self.grow_limit));
        }
        let room = chunks(self.cap).saturating_sub(self.granted());
        let least = if contiguous { chunks(least) } else { 1 };
        if room < least {
            return Err(code::CAP_REACHED.into());
        }
        let most = chunks(most.min(self.grow_limit)).min(room);
        let held = &self.held;
        let free_from = |start: usize| held[start..].iter().take_while(|h| h.is_none()).count();
        let mut starts: Vec<usize> = (0..held.len()).filter(|&s| free_from(s) >= least).collect();
        if self.from_the_top {
            starts.reverse();
        }
        let start = *starts
            .first()
            .ok_or(Refusal::from(code::NO_CONTIGUOUS_RUN))?;
        let length = free_from(start).min(most);
        self.generation += 1;
        for chunk in start..start + length {
            assert!(
                memory.chunk_is_untouched(chunk),
                "chunk {chunk} was written without a grant"
            );
            self.held[chunk] = Some(self.generation);
            memory.fill_chunk(chunk, GRANTED);
        }
        Ok(Granted {
            base: GuestPhysicalAddress::new(BASE + start as u64 * CHUNK_BYTES),
            bytes: length as u64 * CHUNK_BYTES,
            generation: Generation::new(self.generation).unwrap(),
        })
    }
}
