// SPDX-License-Identifier: MIT OR Apache-2.0
//! A service in memory that is as unpleasant as the protocol allows, and on request less pleasant than that.

use guest_shim::CHUNK_BYTES;
use protocol::identity::{Features, Identity, SharedAddressing};
use protocol::request::DescribeItem;
use protocol::response::{
    Attached, Geometry, Granted, LimitsSet, Released, Usage, WindowAttributes, WorkLimits,
};
use protocol::result as code;
use protocol::{Epoch, Generation, Refusal, Request, ResultRegisters};
use snp::address::GuestPhysicalAddress;
use snp::svsm::ResultCode;

use crate::window::{BASE, GRANTED, NOT_GRANTED, WindowMemory, chunk_address, chunk_of};

/// Which of the free runs GROW grants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// The lowest, as the paravisor of this tree does.
    Lowest,
    /// The highest.
    Highest,
    /// Another one each time.
    Scattered,
}

/// What the next calls meet before the service looks at them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The host resumes the guest without running the service.
    NotRun,
    /// BUSY.
    Busy,
    /// GROW and RELEASE are refused with this code; a RELEASE that is refused leaves open whose the chunks are.
    Refused(ResultCode),
    /// GROW and RELEASE get an answer that breaks the protocol, and change nothing.
    Lie(u8),
}

/// How the service behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mood {
    /// Which run.
    pub order: Order,
    /// GROW grants as little as it may.
    pub grants_little: bool,
    /// RELEASE takes one chunk at a time.
    pub releases_little: bool,
    /// What the next calls meet, and how many of them.
    pub trouble: Option<(Trouble, u32)>,
}

impl Mood {
    /// A service that grants what it is asked for.
    pub const PLAIN: Self = Self {
        order: Order::Lowest,
        grants_little: false,
        releases_little: false,
        trouble: None,
    };
}

/// What the service knows of a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holding {
    /// The host has it private.
    Free,
    /// Granted, by the grant with this number.
    Granted(u32),
    /// Granted, but the last answer about it left open whose it is: the shim must never use it again.
    Open(u32),
}

/// The service.
#[derive(Debug)]
pub struct Service {
    /// How it behaves.
    pub mood: Mood,
    /// The last GROW was refused.
    pub refused: bool,
    /// Trouble has been met.
    pub troubled: bool,
    cap: u64,
    grow_limit: u64,
    epoch: u32,
    generation: u32,
    holdings: Vec<Holding>,
    scatter: u64,
}

impl Service {
    /// A service over this many chunks, all of them free, of which one GROW grants at most `grow_limit`.
    pub fn new(chunks: usize, grow_limit: usize) -> Self {
        Self {
            mood: Mood::PLAIN,
            refused: false,
            troubled: false,
            cap: chunks as u64 * CHUNK_BYTES,
            grow_limit: grow_limit as u64 * CHUNK_BYTES,
            epoch: 0,
            generation: 0,
            holdings: vec![Holding::Free; chunks],
            scatter: 0x2545_f491_4f6c_dd1d,
        }
    }

    /// What it knows of each chunk.
    pub fn holdings(&self) -> &[Holding] {
        &self.holdings
    }

    /// Chunks that the shim may use.
    pub fn granted(&self) -> usize {
        let granted = |holding: &&Holding| matches!(holding, Holding::Granted(_));
        self.holdings.iter().filter(granted).count()
    }

    /// Chunks whose owner is open.
    pub fn open(&self) -> usize {
        let open = |holding: &&Holding| matches!(holding, Holding::Open(_));
        self.holdings.iter().filter(open).count()
    }

    /// The cap in bytes.
    pub const fn cap(&self) -> u64 {
        self.cap
    }

    /// Most bytes of one GROW.
    pub const fn grow_limit(&self) -> u64 {
        self.grow_limit
    }

    /// Whether a device or a copy may use all of a range.
    pub fn may_use(&self, address: u64, length: u64) -> bool {
        let last = address + length.max(1) - 1;
        address >= BASE
            && (chunk_of(address)..=chunk_of(last))
                .all(|chunk| matches!(self.holdings.get(chunk), Some(Holding::Granted(_))))
    }

    fn window_bytes(&self) -> u64 {
        self.holdings.len() as u64 * CHUNK_BYTES
    }

    /// What stands in the way of the next call.
    pub fn next_trouble(&mut self) -> Option<Trouble> {
        let (trouble, times) = self.mood.trouble?;
        self.troubled = true;
        self.mood.trouble = (times > 1).then_some((trouble, times - 1));
        Some(trouble)
    }

    /// Serves one call.
    ///
    /// # Errors
    /// The refusal.
    ///
    /// # Panics
    /// If the shim has written to memory it does not hold, or named another epoch.
    pub fn answer(
        &mut self,
        request: &Request,
        memory: &WindowMemory,
        trouble: Option<Trouble>,
    ) -> Result<ResultRegisters, Refusal> {
        if trouble == Some(Trouble::Busy) {
            return Err(ResultCode::BUSY.into());
        }
        match *request {
            Request::Identify => Ok(Identity::of_this_version(
                SharedAddressing::EncryptionBitClear(51),
                Features::new(),
            )
            .encode()),
            Request::Describe { item, .. } => Ok(self.describe(item)),
            Request::Attach { .. } => {
                self.epoch += 1;
                let epoch = Epoch::new(self.epoch).expect("few attachments");
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
                assert_eq!(epoch, self.epoch, "GROW names another epoch");
                match trouble {
                    Some(Trouble::Refused(code)) => Err(code.into()),
                    Some(Trouble::Lie(kind)) => Ok(self.false_grant(kind, least, most)),
                    _ => self
                        .grow(memory, contiguous, least, most)
                        .map(Granted::encode),
                }
            }
            Request::Release {
                base,
                bytes,
                epoch,
                generation,
            } => {
                assert_eq!(epoch, self.epoch, "RELEASE names another epoch");
                let chunks = chunk_of(base.bits())..chunk_of(base.bits() + bytes);
                self.release(memory, chunks, generation, trouble)
                    .map(Released::encode)
            }
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

    fn describe(&self, item: DescribeItem) -> ResultRegisters {
        match item {
            DescribeItem::Geometry => Geometry {
                base: GuestPhysicalAddress::new(BASE),
                bytes: self.window_bytes(),
                attributes: WindowAttributes::new().with_log2_chunk(21),
            }
            .encode(),
            DescribeItem::Usage => Usage {
                cap: self.cap,
                granted: (self.granted() + self.open()) as u64 * CHUNK_BYTES,
                quarantined: 0,
            }
            .encode(),
            DescribeItem::WorkLimits => WorkLimits {
                units: 4096,
                psc_entries: 253,
                grow_bytes: self.grow_limit,
            }
            .encode(),
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
        let room = chunks(self.cap).saturating_sub(self.granted() + self.open());
        let least = if contiguous { chunks(least) } else { 1 };
        if room < least {
            return Err(code::CAP_REACHED.into());
        }
        let most = chunks(most.min(self.grow_limit)).min(room);
        let start = self
            .choose_run(least)
            .ok_or(Refusal::from(code::NO_CONTIGUOUS_RUN))?;
        let length = if self.mood.grants_little {
            least
        } else {
            self.free_from(start).min(most)
        };
        self.generation += 1;
        for chunk in start..start + length {
            assert!(
                memory.chunk_is_untouched(chunk),
                "chunk {chunk} was written to without a grant"
            );
            self.holdings[chunk] = Holding::Granted(self.generation);
            memory.fill_chunk(chunk, GRANTED);
        }
        Ok(Granted {
            base: GuestPhysicalAddress::new(chunk_address(start)),
            bytes: length as u64 * CHUNK_BYTES,
            generation: Generation::new(self.generation).expect("few grants"),
        })
    }

    fn free_from(&self, start: usize) -> usize {
        let free = |holding: &&Holding| **holding == Holding::Free;
        self.holdings[start..].iter().take_while(free).count()
    }

    fn choose_run(&mut self, least: usize) -> Option<usize> {
        let fits = |start: &usize| self.free_from(*start) >= least;
        let starts: Vec<usize> = (0..self.holdings.len()).filter(fits).collect();
        match self.mood.order {
            Order::Lowest => starts.first().copied(),
            Order::Highest => starts.last().copied(),
            Order::Scattered => {
                self.scatter = self.scatter.wrapping_mul(0x5851_f42d_4c95_7f2d) + 0x1405;
                let at = (self.scatter >> 33) as usize;
                (!starts.is_empty()).then(|| starts[at % starts.len()])
            }
        }
    }

    /// An answer that no service may give.
    fn false_grant(&self, kind: u8, least: u64, most: u64) -> ResultRegisters {
        let (mut base, mut bytes) = (BASE, least);
        let held = |holding: &Holding| *holding != Holding::Free;
        let free = self.holdings.iter().position(|holding| !held(holding));
        let free = chunk_address(free.unwrap_or(0));
        match kind % 6 {
            0 => base = BASE - least,
            1 => base = BASE + self.window_bytes(),
            2 => (base, bytes) = (free, most + CHUNK_BYTES),
            3 => base += 4096,
            4 => match self.holdings.iter().position(held) {
                Some(chunk) => (base, bytes) = (chunk_address(chunk), CHUNK_BYTES),
                None => bytes = 4096,
            },
            _ => bytes = u64::MAX - BASE,
        }
        ResultRegisters {
            rcx: base,
            rdx: bytes,
            r8: u64::from(self.generation) + 1,
        }
    }

    fn release(
        &mut self,
        memory: &WindowMemory,
        chunks: std::ops::Range<usize>,
        generation: u32,
        trouble: Option<Trouble>,
    ) -> Result<Released, Refusal> {
        for chunk in chunks.clone() {
            let held = self.holdings.get(chunk);
            assert_eq!(
                held,
                Some(&Holding::Granted(generation)),
                "RELEASE of chunk {chunk}"
            );
        }
        let bytes = chunks.len() as u64 * CHUNK_BYTES;
        match trouble {
            Some(Trouble::Refused(code)) => {
                self.holdings[chunks].fill(Holding::Open(generation));
                Err(code.into())
            }
            Some(Trouble::Lie(kind)) => {
                self.holdings[chunks].fill(Holding::Open(generation));
                let bytes = if kind % 2 == 0 { bytes * 2 } else { 4096 };
                Ok(Released {
                    bytes,
                    acknowledged: bytes,
                })
            }
            _ => {
                let taken = if self.mood.releases_little {
                    1
                } else {
                    chunks.len()
                };
                for chunk in chunks.take(taken) {
                    self.holdings[chunk] = Holding::Free;
                    memory.fill_chunk(chunk, NOT_GRANTED);
                }
                let bytes = taken as u64 * CHUNK_BYTES;
                Ok(Released {
                    bytes,
                    acknowledged: bytes,
                })
            }
        }
    }

    /// Takes back what is left at the end of a case.
    ///
    /// # Panics
    /// If a chunk that is not granted was written to.
    pub fn close(&mut self, memory: &WindowMemory) {
        for (chunk, holding) in self.holdings.iter_mut().enumerate() {
            if *holding == Holding::Free {
                assert!(
                    memory.chunk_is_untouched(chunk),
                    "chunk {chunk} was written to without a grant"
                );
            } else {
                memory.fill_chunk(chunk, NOT_GRANTED);
                *holding = Holding::Free;
            }
        }
    }
}
