// SPDX-License-Identifier: MIT OR Apache-2.0
//! A machine to run the shim on: a kernel with several CPUs over the test service, and memory that watches.
//!
//! Calls and copies check that they are made with interrupts on, that is outside the shim's lock. Copies check that the
//! shim holds the memory they use, and are noted, so that a test can say which bytes an operation may move. A device
//! that writes at the very moment of a copy is played here too.

use std::cell::{Cell, RefCell};
use std::ptr::NonNull;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use guest_shim::{CallFailed, Platform};
use protocol::response::encode_answer;
use protocol::{Refusal, Request};
use snp::svsm::{CallId, CallRegisters, core_protocol};

use crate::driver_buffer::pattern;
use crate::service::{Holding, Service, Trouble};
use crate::window::{CHUNK, WindowMemory, chunk_address};

/// What [`Platform::cpu`] says on this thread. All of it may be wrong; that must cost nothing but speed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CpuNumber {
    /// Always this one.
    Fixed(usize),
    /// Another one each time it is asked, below this number.
    Changing(usize),
    /// No CPU that was ever there.
    Absurd,
}

/// Which way a copy went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Into the pool.
    In,
    /// Out of the pool.
    Out,
}

/// A copy the shim has made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Copy {
    /// Which way.
    pub way: Way,
    /// Where in the window.
    pub pool: u64,
    /// Where in private memory.
    pub private: u64,
    /// How much.
    pub bytes: u64,
}

thread_local! {
    static INTERRUPTS_OFF: Cell<bool> = const { Cell::new(false) };
    static CPU: Cell<CpuNumber> = const { Cell::new(CpuNumber::Fixed(0)) };
    static ASKED: Cell<usize> = const { Cell::new(0) };
    static COPIES: RefCell<Vec<Copy>> = const { RefCell::new(Vec::new()) };
}

/// Sets what [`Platform::cpu`] says on this thread from now on.
pub fn set_cpu(number: CpuNumber) {
    CPU.set(number);
}

/// The copies of this thread since the last time this was called.
pub fn take_copies() -> Vec<Copy> {
    COPIES.with_borrow_mut(std::mem::take)
}

/// The machine.
#[derive(Debug)]
pub struct Machine {
    /// The service.
    pub service: Mutex<Service>,
    /// The window.
    pub memory: WindowMemory,
    /// What a device writes round every copy out of the pool, the moment before it is made; 0 for nothing.
    pub attack: AtomicU64,
    /// Whether copies are checked and noted.
    watching: AtomicBool,
}

impl Machine {
    /// A machine with this many chunks, of which one GROW grants at most `grow_limit`.
    pub fn new(chunks: usize, grow_limit: usize) -> Self {
        COPIES.with_borrow_mut(Vec::clear);
        INTERRUPTS_OFF.set(false);
        set_cpu(CpuNumber::Fixed(0));
        ASKED.set(0);
        Self {
            service: Mutex::new(Service::new(chunks, grow_limit)),
            memory: WindowMemory::new(chunks),
            attack: AtomicU64::new(0),
            watching: AtomicBool::new(true),
        }
    }

    /// Copies are no longer noted, and the service no longer asked about them: for tests of several threads, which look
    /// only at contents. The service's lock would order what the shim may have left unordered.
    pub fn stop_watching(&self) {
        self.watching.store(false, Ordering::Relaxed);
    }

    /// Asks the service something.
    ///
    /// # Panics
    /// If a panic of another thread has left it in the middle of something.
    pub fn service<R>(&self, ask: impl FnOnce(&mut Service) -> R) -> R {
        ask(&mut self.service.lock().expect("no other thread has failed"))
    }

    /// Ends a case; the pool over the machine is gone.
    ///
    /// # Panics
    /// If memory was written to that the shim did not hold.
    pub fn close(self) {
        let memory = self.memory;
        self.service
            .into_inner()
            .expect("no other thread has failed")
            .close(&memory);
        memory.recycle();
    }

    /// A device overwrites what is about to be copied out, and what lies round it.
    fn attack_round(&self, pool: NonNull<u8>, bytes: u64) {
        const MARGIN: u64 = 320;
        let seed = self.attack.load(Ordering::Relaxed);
        let address = self.memory.address_of(pool);
        let Some(address) = address.filter(|_| seed != 0) else {
            return;
        };
        let held = |address: &u64| self.service(|service| service.may_use(*address, 1));
        let first = Some(address.saturating_sub(MARGIN)).filter(held);
        let end = Some(address + bytes + MARGIN).filter(|end| held(&(end - 1)));
        let (first, end) = (first.unwrap_or(address), end.unwrap_or(address + bytes));
        let written = pattern((end - first) as usize, seed ^ address);
        self.memory.write(first, &written);
    }

    /// A device writes to every shared byte.
    pub fn scribble(&self, seed: u64) {
        let held: Vec<bool> = self.service(|service| {
            let held = |holding: &Holding| *holding != Holding::Free;
            service.holdings().iter().map(held).collect()
        });
        for (chunk, _) in held.iter().enumerate().filter(|(_, held)| **held) {
            let bytes = pattern(CHUNK, seed ^ (chunk as u64) << 40);
            self.memory.write(chunk_address(chunk), &bytes);
        }
    }

    fn note(&self, way: Way, pool: NonNull<u8>, private: *const u8, bytes: usize) {
        assert!(
            !INTERRUPTS_OFF.get(),
            "a copy of {bytes} bytes with the shim's lock held"
        );
        if !self.watching.load(Ordering::Relaxed) {
            return;
        }
        let address = self.memory.address_of(pool);
        let held = |address: u64| self.service(|service| service.may_use(address, bytes as u64));
        let address = address
            .filter(|address| held(*address))
            .unwrap_or_else(|| panic!("a copy of {bytes} bytes {way:?} where nothing is granted"));
        if bytes > 0 {
            let copy = Copy {
                way,
                pool: address,
                private: private.addr() as u64,
                bytes: bytes as u64,
            };
            COPIES.with_borrow_mut(|copies| copies.push(copy));
        }
    }
}

/// Lends the shim's own copies.
struct OwnCopies;

// SAFETY: Only the copies, which are the shim's own, are ever used.
unsafe impl Platform for OwnCopies {
    fn call(&self, _: &mut CallRegisters) -> Result<(), CallFailed> {
        Err(CallFailed)
    }
    fn interrupts_save(&self) -> usize {
        0
    }
    fn interrupts_restore(&self, _: usize) {}
    fn translate(&self, _: u64, _: u64) -> Option<NonNull<u8>> {
        None
    }
}

// SAFETY: `translate` returns memory of the window's size that lives as long as the machine, which pools borrow. The
// copies are the shim's own. Threads play CPUs and are never interrupted.
unsafe impl Platform for Machine {
    fn call(&self, registers: &mut CallRegisters) -> Result<(), CallFailed> {
        assert!(!INTERRUPTS_OFF.get(), "a call with the shim's lock held");
        let id = CallId::from_rax(registers.rax);
        self.service(|service| {
            let trouble = service.next_trouble();
            let question = *registers;
            let request = Request::decode(&question);
            let grows = matches!(request, Ok(Request::Grow { .. }));
            if trouble == Some(Trouble::NotRun) {
                service.refused |= grows;
                return Err(CallFailed);
            }
            if id.protocol == core_protocol::NUMBER {
                assert_eq!(id.call, core_protocol::QUERY_PROTOCOL);
                let known = registers.rcx >> 32 == u64::from(protocol::DEFAULT_PROTOCOL_NUMBER);
                registers.rax = 0;
                registers.rcx = if known { 1 << 32 | 1 } else { 0 };
                return Ok(());
            }
            let answer = request
                .map_err(Refusal::from)
                .and_then(|request| service.answer(&request, &self.memory, trouble));
            if grows {
                let lie = matches!(trouble, Some(Trouble::Lie(_)));
                service.refused = lie || answer.is_err();
            }
            *registers = encode_answer(&question, answer);
            Ok(())
        })
    }

    fn cpu(&self) -> usize {
        match CPU.get() {
            CpuNumber::Fixed(number) => number,
            CpuNumber::Changing(below) => {
                ASKED.set(ASKED.get().wrapping_add(1));
                ASKED.get() % below.max(1)
            }
            CpuNumber::Absurd => usize::MAX,
        }
    }

    fn interrupts_save(&self) -> usize {
        usize::from(INTERRUPTS_OFF.replace(true))
    }

    fn interrupts_restore(&self, saved: usize) {
        INTERRUPTS_OFF.set(saved != 0);
    }

    fn translate(&self, address: u64, bytes: u64) -> Option<NonNull<u8>> {
        self.memory.at(address, bytes)
    }

    unsafe fn copy_to_pool(&self, pool: NonNull<u8>, buffer: *const u8, bytes: usize) {
        self.note(Way::In, pool, buffer, bytes);
        // SAFETY: Passed on.
        unsafe { OwnCopies.copy_to_pool(pool, buffer, bytes) }
    }

    unsafe fn copy_from_pool(&self, buffer: *mut u8, pool: NonNull<u8>, bytes: usize) {
        self.note(Way::Out, pool, buffer, bytes);
        self.attack_round(pool, bytes as u64);
        // SAFETY: Passed on.
        unsafe { OwnCopies.copy_from_pool(buffer, pool, bytes) }
    }
}
