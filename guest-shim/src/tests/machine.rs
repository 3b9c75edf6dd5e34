// SPDX-License-Identifier: MIT OR Apache-2.0
//! A platform over the test service and memory that watches what the shim does.
//!
//! Chunks that are not granted are filled with a pattern; a grant checks it, so a stray write of the shim into memory it
//! does not hold fails the test. Calls and copies check that the shim's lock (interrupts off) is not held.

use core::cell::Cell;
use core::ptr::NonNull;
use std::boxed::Box;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::vec::Vec;

use protocol::response::encode_answer;
use protocol::{Call, Refusal, Request};
use snp::svsm::{CallId, CallRegisters, ResultCode, core_protocol};

use super::buffer::Buffer;
use super::memory::WindowMemory;
use super::service::Service;
use crate::{
    CallFailed, Config, Constraints, CopyIn, Direction, MapError, Mapping, Platform, Pool,
    metadata_bytes, shared_memory,
};

std::thread_local! {
    static INTERRUPTS_OFF: Cell<bool> = const { Cell::new(false) };
}

/// The machine.
#[derive(Debug)]
pub struct Machine {
    pub service: Mutex<Service>,
    pub memory: WindowMemory,
    /// The kernel has mapped the window.
    pub mapped: bool,
    pub copied_in: AtomicU64,
    pub copied_out: AtomicU64,
}

impl Machine {
    pub fn new(chunks: usize) -> Self {
        Self {
            service: Mutex::new(Service::new(chunks)),
            memory: WindowMemory::new(chunks),
            mapped: true,
            copied_in: AtomicU64::new(0),
            copied_out: AtomicU64::new(0),
        }
    }

    /// A pool whose metadata covers every chunk.
    pub fn pool(&self, config: Config) -> Pool<'static, &Self> {
        let bytes = metadata_bytes(self.memory.window().bytes(), config.cpus);
        let metadata = std::vec![0xa5; bytes].into_boxed_slice();
        Pool::attach(self, Box::leak(metadata), config).unwrap()
    }

    pub fn set(&self, change: impl FnOnce(&mut Service)) {
        change(&mut self.service.lock().unwrap());
    }

    pub fn granted(&self) -> usize {
        self.service.lock().unwrap().granted()
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
}

/// Whether the shim has turned interrupts off on this thread.
pub fn interrupts_are_off() -> bool {
    INTERRUPTS_OFF.get()
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
            let mut service = self.service.lock().unwrap();
            service.queries += 1;
            let known = service.offered
                && registers.rcx >> 32 == u64::from(protocol::DEFAULT_PROTOCOL_NUMBER);
            registers.rax = 0;
            registers.rcx = if known { 1 << 32 | 1 } else { 0 };
            return Ok(());
        }
        if !self.service.lock().unwrap().offered {
            registers.rax = ResultCode::UNSUPPORTED_PROTOCOL.to_rax();
            return Ok(());
        }
        let question = *registers;
        let answer = Request::decode(&question)
            .map_err(Refusal::from)
            .and_then(|request| self.service.lock().unwrap().answer(&request, &self.memory));
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
        self.memory.at(address, bytes).filter(|_| self.mapped)
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
