// SPDX-License-Identifier: MIT OR Apache-2.0
//! A service that fits a test, and a platform that watches what the shim does.
//!
//! Chunks that are not granted are filled with a pattern; a grant checks it, so a stray write of the shim into memory it
//! does not hold fails the test. Calls and copies check that the shim's lock (interrupts off) is not held.

use core::cell::Cell;
use core::ptr::NonNull;
use std::boxed::Box;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::vec::Vec;

use protocol::identity::{Features, Identity, SharedAddressing};
use protocol::request::DescribeItem;
use protocol::response::{
    Attached, Geometry, Granted, LimitsSet, Released, Usage, WindowAttributes, WorkLimits,
    encode_answer,
};
use protocol::result as code;
use protocol::{Call, Epoch, Generation, Refusal, Request, ResultRegisters};
use snp::address::GuestPhysicalAddress;
use snp::svsm::{CallId, CallRegisters, ResultCode, core_protocol};

use crate::{
    CHUNK_BYTES, CallFailed, ChunkRecords, Config, Constraints, CopyIn, Direction, MapError,
    Mapping, Platform, Pool, Window, shared_memory,
};

pub const BASE: u64 = 0x4020_0000;
const NOT_GRANTED: u8 = 0x5a;
static NOT_GRANTED_CHUNK: [u8; CHUNK_BYTES as usize] = [NOT_GRANTED; CHUNK_BYTES as usize];

std::thread_local! {
    static INTERRUPTS_OFF: Cell<bool> = const { Cell::new(false) };
}

/// What a test changes about the service.
#[derive(Clone, Debug)]
pub struct Service {
    pub uuid: u128,
    pub offered: bool,
    pub log2_chunk: u8,
    pub cap: u64,
    pub grow_limit: u64,
    /// The next answers of GROW and RELEASE, before the service looks at them.
    pub grow_answers: Vec<Result<Granted, Refusal>>,
    pub release_answers: Vec<Result<Released, Refusal>>,
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

/// The machine.
#[derive(Debug)]
pub struct Machine {
    pub service: Mutex<Service>,
    pub window: Window,
    memory: NonNull<u8>,
    area: NonNull<[u8]>,
    pub mapped: bool,
    pub copied_in: AtomicU64,
    pub copied_out: AtomicU64,
}

// SAFETY: The window is leaked memory that is only accessed through raw pointers.
unsafe impl Send for Machine {}
// SAFETY: As above.
unsafe impl Sync for Machine {}

impl Machine {
    pub fn new(chunks: usize) -> Self {
        let bytes = chunks * CHUNK_BYTES as usize;
        // Aligned as the window's guest addresses are.
        let area = std::vec![NOT_GRANTED; bytes + CHUNK_BYTES as usize].into_boxed_slice();
        let area = NonNull::from(Box::leak(area));
        let start = area.as_ptr().cast::<u8>();
        let memory = start.wrapping_add(start.align_offset(CHUNK_BYTES as usize));
        let service = Service {
            uuid: protocol::identity::PROTOCOL_UUID,
            offered: true,
            log2_chunk: 21,
            cap: bytes as u64,
            grow_limit: 253 * CHUNK_BYTES,
            grow_answers: Vec::new(),
            release_answers: Vec::new(),
            busy: 0,
            not_run: false,
            from_the_top: false,
            log: Vec::new(),
            epoch: 0,
            generation: 0,
            held: std::vec![None; chunks],
        };
        Self {
            service: Mutex::new(service),
            window: Window::new(BASE, bytes as u64).unwrap(),
            memory: NonNull::new(memory).unwrap(),
            area,
            mapped: true,
            copied_in: AtomicU64::new(0),
            copied_out: AtomicU64::new(0),
        }
    }

    /// A pool over records for every chunk.
    pub fn pool(&self, config: Config) -> Pool<'static, &Self> {
        let records = std::vec![ChunkRecords::EMPTY; self.window.chunks()];
        Pool::attach(self, Box::leak(records.into_boxed_slice()), config).unwrap()
    }

    pub fn set(&self, change: impl FnOnce(&mut Service)) {
        change(&mut self.service.lock().unwrap());
    }

    pub fn granted(&self) -> usize {
        self.service.lock().unwrap().held.iter().flatten().count()
    }

    pub fn count(&self, call: Call) -> usize {
        self.service
            .lock()
            .unwrap()
            .log
            .iter()
            .filter(|request| request.call() == call)
            .count()
    }

    pub fn total_calls(&self) -> usize {
        self.service.lock().unwrap().log.len()
    }

    /// The device's view of a range.
    pub fn device_read(&self, address: u64, length: usize) -> Vec<u8> {
        let at = self.translate(address, length as u64).unwrap();
        let mut bytes = std::vec![0; length];
        // SAFETY: In the window by `translate`.
        unsafe { shared_memory::copy_from_pool(bytes.as_mut_ptr(), at, length) };
        bytes
    }

    pub fn device_write(&self, address: u64, bytes: &[u8]) {
        let at = self.translate(address, bytes.len() as u64).unwrap();
        // SAFETY: In the window by `translate`.
        unsafe { shared_memory::copy_to_pool(at, bytes.as_ptr(), bytes.len()) };
    }

    /// A chunk as plain bytes; only for one that is not granted, which neither shim nor device touches.
    fn quiet_chunk(&self, chunk: usize) -> &mut [u8] {
        let bytes = CHUNK_BYTES as usize;
        // SAFETY: In the window, and by the service's lock nobody else looks at a chunk that is not granted.
        unsafe { core::slice::from_raw_parts_mut(self.memory.add(chunk * bytes).as_ptr(), bytes) }
    }

    fn chunk_is_untouched(&self, chunk: usize) -> bool {
        *self.quiet_chunk(chunk) == NOT_GRANTED_CHUNK
    }

    fn fill_chunk(&self, chunk: usize, byte: u8) {
        self.quiet_chunk(chunk).fill(byte);
    }

    fn answer(&self, request: &Request) -> Result<ResultRegisters, Refusal> {
        let mut service = self.service.lock().unwrap();
        service.log.push(*request);
        if service.busy > 0 {
            service.busy -= 1;
            return Err(ResultCode::BUSY.into());
        }
        match *request {
            Request::Identify => {
                let addressing = SharedAddressing::EncryptionBitClear(51);
                let identity = Identity::of_this_version(addressing, Features::new());
                Ok(Identity {
                    uuid: service.uuid,
                    ..identity
                }
                .encode())
            }
            Request::Describe {
                item: DescribeItem::Geometry,
                ..
            } => Ok(Geometry {
                base: GuestPhysicalAddress::new(BASE),
                bytes: self.window.bytes(),
                attributes: WindowAttributes::new().with_log2_chunk(service.log2_chunk),
            }
            .encode()),
            Request::Describe {
                item: DescribeItem::Usage,
                ..
            } => Ok(Usage {
                cap: service.cap,
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
                grow_bytes: service.grow_limit,
            }
            .encode()),
            Request::Attach { .. } => {
                service.epoch += 1;
                let epoch = Epoch::new(service.epoch).unwrap();
                Ok(Attached {
                    epoch,
                    fresh: service.epoch == 1,
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
                if epoch != service.epoch {
                    return Err(code::STALE_EPOCH.into());
                }
                if !service.grow_answers.is_empty() {
                    return service.grow_answers.remove(0).map(Granted::encode);
                }
                self.grow(&mut service, contiguous, least, most)
                    .map(Granted::encode)
            }
            Request::Release {
                base,
                bytes,
                generation,
                ..
            } => {
                if !service.release_answers.is_empty() {
                    return service.release_answers.remove(0).map(Released::encode);
                }
                let first = ((base.bits() - BASE) / CHUNK_BYTES) as usize;
                let chunks = first..first + (bytes / CHUNK_BYTES) as usize;
                if chunks
                    .clone()
                    .any(|chunk| service.held[chunk] != Some(generation))
                {
                    return Err(code::NOT_HELD.into());
                }
                for chunk in chunks {
                    service.held[chunk] = None;
                    self.fill_chunk(chunk, NOT_GRANTED);
                }
                Ok(Released {
                    bytes,
                    acknowledged: bytes,
                }
                .encode())
            }
            Request::SetLimits { cap, .. } => {
                if cap > self.window.bytes() {
                    return Err(ResultCode::INVALID_PARAMETER.into());
                }
                let previous_cap = core::mem::replace(&mut service.cap, cap);
                Ok(LimitsSet { previous_cap }.encode())
            }
            Request::ListGranted { .. } | Request::Statistics { .. } => {
                Err(ResultCode::UNSUPPORTED_CALL.into())
            }
        }
    }

    fn grow(
        &self,
        service: &mut Service,
        contiguous: bool,
        least: u64,
        most: u64,
    ) -> Result<Granted, Refusal> {
        let chunks = |bytes: u64| (bytes / CHUNK_BYTES) as usize;
        if contiguous && least > service.grow_limit {
            return Err(Refusal::too_large(service.grow_limit));
        }
        let room = chunks(service.cap).saturating_sub(service.held.iter().flatten().count());
        let least = if contiguous { chunks(least) } else { 1 };
        if room < least {
            return Err(code::CAP_REACHED.into());
        }
        let most = chunks(most.min(service.grow_limit)).min(room);
        let held = &service.held;
        let free_from = |start: usize| held[start..].iter().take_while(|h| h.is_none()).count();
        let mut starts: Vec<usize> = (0..held.len()).filter(|&s| free_from(s) >= least).collect();
        if service.from_the_top {
            starts.reverse();
        }
        let start = *starts
            .first()
            .ok_or(Refusal::from(code::NO_CONTIGUOUS_RUN))?;
        let length = free_from(start).min(most);
        service.generation += 1;
        for chunk in start..start + length {
            assert!(
                self.chunk_is_untouched(chunk),
                "chunk {chunk} was written without a grant"
            );
            service.held[chunk] = Some(service.generation);
            self.fill_chunk(chunk, 0x77);
        }
        Ok(Granted {
            base: GuestPhysicalAddress::new(BASE + start as u64 * CHUNK_BYTES),
            bytes: length as u64 * CHUNK_BYTES,
            generation: Generation::new(service.generation).unwrap(),
        })
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // SAFETY: Leaked in `new`; pools over the machine borrow it, so none is left.
        drop(unsafe { Box::from_raw(self.area.as_ptr()) });
    }
}

fn assert_no_lock_held() {
    assert!(!INTERRUPTS_OFF.get(), "a call or a copy under the lock");
}

// SAFETY: `translate` returns leaked memory of the window's size.
unsafe impl Platform for Machine {
    fn call(&self, registers: &mut CallRegisters) -> Result<(), CallFailed> {
        assert_no_lock_held();
        let id = CallId::from_rax(registers.rax);
        if self.service.lock().unwrap().not_run {
            return Err(CallFailed);
        }
        if id.protocol == core_protocol::NUMBER {
            assert_eq!(id.call, core_protocol::QUERY_PROTOCOL);
            let known = self.service.lock().unwrap().offered
                && registers.rcx >> 32 == u64::from(protocol::DEFAULT_PROTOCOL_NUMBER);
            registers.rax = 0;
            registers.rcx = if known { 1 << 32 | 1 } else { 0 };
            return Ok(());
        }
        let question = *registers;
        let answer = Request::decode(&question)
            .map_err(Refusal::from)
            .and_then(|request| self.answer(&request));
        *registers = encode_answer(&question, answer);
        Ok(())
    }

    fn interrupts_save(&self) -> usize {
        usize::from(INTERRUPTS_OFF.replace(true))
    }

    fn interrupts_restore(&self, saved: usize) {
        INTERRUPTS_OFF.set(saved != 0);
    }

    fn translate(&self, address: u64, bytes: u64) -> Option<NonNull<u8>> {
        let offset = self.window.offset_of(address)?;
        let mapped = self.mapped && bytes <= self.window.bytes() - offset;
        // SAFETY: The offset lies in the area.
        mapped.then(|| unsafe { self.memory.add(offset as usize) })
    }

    unsafe fn copy_to_pool(&self, pool: NonNull<u8>, buffer: *const u8, bytes: usize) {
        assert_no_lock_held();
        self.copied_in.fetch_add(bytes as u64, Ordering::Relaxed);
        // SAFETY: Passed on.
        unsafe { shared_memory::copy_to_pool(pool, buffer, bytes) }
    }

    unsafe fn copy_from_pool(&self, buffer: *mut u8, pool: NonNull<u8>, bytes: usize) {
        assert_no_lock_held();
        self.copied_out.fetch_add(bytes as u64, Ordering::Relaxed);
        // SAFETY: Passed on.
        unsafe { shared_memory::copy_from_pool(buffer, pool, bytes) }
    }
}

/// A driver's buffer that stays where it is while a device may use it.
#[derive(Debug)]
pub struct Buffer {
    memory: NonNull<[u8]>,
}

// SAFETY: Owns its memory.
unsafe impl Send for Buffer {}

impl Buffer {
    /// A buffer of `length` bytes whose address has these low bits under `mask`.
    pub fn at_phase(length: usize, mask: usize, phase: usize) -> Self {
        let area = Box::leak(std::vec![0_u8; length + 2 * (mask + 1)].into_boxed_slice());
        let start = area.as_mut_ptr();
        let start = start.wrapping_add(start.align_offset(mask + 1) + (phase & mask));
        Self {
            memory: NonNull::slice_from_raw_parts(NonNull::new(start).unwrap(), length),
        }
    }

    pub fn new(length: usize) -> Self {
        Self::at_phase(length, 7, 0)
    }

    /// The same, filled with bytes that depend on `seed`.
    pub fn filled(length: usize, seed: usize) -> Self {
        let buffer = Self::new(length);
        buffer.write(&pattern(length, seed));
        buffer
    }

    pub fn raw(&self) -> NonNull<[u8]> {
        self.memory
    }

    pub fn read(&self) -> Vec<u8> {
        // SAFETY: Our own memory; tests do not touch it while the shim copies.
        unsafe { self.memory.as_ref() }.to_vec()
    }

    pub fn write(&self, bytes: &[u8]) {
        assert!(bytes.len() <= self.memory.len());
        // SAFETY: As above.
        unsafe {
            self.memory
                .as_ptr()
                .cast::<u8>()
                .copy_from(bytes.as_ptr(), bytes.len())
        };
    }
}

pub fn pattern(length: usize, seed: usize) -> Vec<u8> {
    (0..length)
        .map(|at| ((at * 7 + seed * 31 + 1) % 251) as u8)
        .collect()
}

/// `map` for buffers that live long enough by construction.
pub fn map(
    pool: &Pool<'_, &Machine>,
    buffer: &Buffer,
    direction: Direction,
) -> Result<Mapping, MapError> {
    map_with(pool, buffer, direction, CopyIn::Keep, &Constraints::NONE)
}

pub fn map_with(
    pool: &Pool<'_, &Machine>,
    buffer: &Buffer,
    direction: Direction,
    copy_in: CopyIn,
    constraints: &Constraints,
) -> Result<Mapping, MapError> {
    // SAFETY: A `Buffer`'s memory is never freed.
    unsafe { pool.map(buffer.raw(), direction, copy_in, constraints) }
}
