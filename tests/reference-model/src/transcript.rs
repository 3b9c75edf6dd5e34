// SPDX-License-Identifier: MIT OR Apache-2.0
//! A platform that writes down what the service does to it, fails on demand, and lets another processor act in between.

use std::collections::HashMap;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};

use snp::address::{GuestPhysicalAddress, PageSize};
use snp::operands::{InstructionCode, PvalidateResult, RmpAdjustTarget};
use snp::psc::{PscDescriptor, PscEntry, PscHeader, error};
use svsm_swiotlb::platform::{Fault, GuestMemory, HostPages, Issue, PageInstructions, PscExit};

/// One platform call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A page-state change: what was submitted and what came back.
    Psc {
        /// How it was submitted.
        issue: Issue,
        /// The header that was submitted.
        submitted: PscHeader,
        /// The entries up to the last one submitted.
        entries: Vec<PscEntry>,
        /// The header that came back.
        reply: PscHeader,
        /// The exit information that came back.
        exit: PscExit,
    },
    /// Bytes fetched from a guest page; `None` after a fault.
    Read(u64, usize, Option<Vec<u8>>),
    /// Bytes stored to a guest page, and whether it faulted.
    Write(u64, Vec<u8>, bool),
    /// An instruction on a page, which only CONVERT may execute: its name and the page.
    Instruction(&'static str, u64),
    /// The instruction that was just named, in full, and what came of it.
    Executed(Executed),
    /// A platform call of somebody else than the service.
    Foreign(&'static str),
}

/// An instruction and its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Executed {
    /// PVALIDATE; no result after a fault.
    Pvalidate {
        /// Where.
        page: u64,
        /// Of the page.
        size: PageSize,
        /// Rather than rescind.
        validate: bool,
        /// What it reported.
        result: Option<PvalidateResult>,
    },
    /// RMPADJUST; no result after a fault.
    Rmpadjust {
        /// Where.
        page: u64,
        /// Of the page.
        size: PageSize,
        /// Whose permissions, and which.
        target: RmpAdjustTarget,
        /// What it reported.
        result: Option<InstructionCode>,
    },
    /// Reads that have caches forget a page.
    Evict {
        /// Where.
        page: u64,
        /// Of the page.
        size: PageSize,
        /// Without a fault.
        done: bool,
    },
    /// Zeroing.
    Zero {
        /// Where.
        page: u64,
        /// Of the page.
        size: PageSize,
        /// Without a fault.
        done: bool,
    },
    /// The flush of translations.
    Flush,
}

/// Where another processor acts: before the nth platform call of the processor that owns the recorder's attention.
#[derive(Debug)]
struct Gate {
    victim: ThreadId,
    calls_left: u64,
    reached: Sender<()>,
    passed: Receiver<()>,
}

/// The other processor's side of a gate.
#[derive(Debug)]
pub struct Attacker {
    reached: Receiver<()>,
    passed: Sender<()>,
}

impl Attacker {
    /// Acts once the victim is about to make the platform call; false if it ended without.
    pub fn when_reached(self, act: impl FnOnce()) -> bool {
        let reached = self.reached.recv().is_ok();
        if reached {
            act();
            // The victim waits; it cannot be gone.
            let _ = self.passed.send(());
        }
        reached
    }
}

#[derive(Debug, Default)]
struct Record {
    events: HashMap<ThreadId, Vec<Event>>,
    calls: u64,
    fail_at: Option<u64>,
    gate: Option<Gate>,
}

/// A platform over another one.
#[derive(Debug)]
pub struct Recorder<P> {
    inner: P,
    record: Mutex<Record>,
}

impl<P> Recorder<P> {
    /// Records what happens to `inner`.
    pub fn new(inner: P) -> Self {
        Self {
            inner,
            record: Mutex::default(),
        }
    }

    /// The platform underneath.
    pub const fn inner(&self) -> &P {
        &self.inner
    }

    /// Takes what this thread's calls did.
    pub fn take(&self) -> Vec<Event> {
        let events = self.record().events.remove(&thread::current().id());
        events.unwrap_or_default()
    }

    /// Platform calls so far.
    pub fn calls(&self) -> u64 {
        self.record().calls
    }

    /// Makes the nth platform call from the start (1 is the first) fail.
    pub fn fail_at(&self, nth: u64) {
        self.record().fail_at = Some(nth);
    }

    /// Stops this thread before its nth platform call from now on (1 is the next) until the attacker has acted.
    pub fn gate(&self, nth: u64) -> Attacker {
        let (reached, reached_here) = channel();
        let (passed_here, passed) = channel();
        self.record().gate = Some(Gate {
            victim: thread::current().id(),
            calls_left: nth,
            reached,
            passed,
        });
        Attacker {
            reached: reached_here,
            passed: passed_here,
        }
    }

    /// Takes the gate away, if it was not reached.
    pub fn open_gate(&self) {
        self.record().gate = None;
    }

    /// A platform call that the service knows nothing of: counted, noted, and stopped at the gate like its own.
    pub fn foreign(&self, name: &'static str) {
        self.enter();
        self.note(Event::Foreign(name));
    }

    fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a call, stops at the gate; true if the call shall fail.
    fn enter(&self) -> bool {
        let mut record = self.record();
        record.calls += 1;
        let fails = record.fail_at == Some(record.calls);
        let here = thread::current().id();
        let reached = record.gate.as_mut().is_some_and(|gate| {
            gate.calls_left -= u64::from(gate.victim == here);
            gate.calls_left == 0
        });
        let gate = if reached { record.gate.take() } else { None };
        drop(record);
        if let Some(gate) = gate
            && gate.reached.send(()).is_ok()
        {
            let _ = gate.passed.recv();
        }
        fails
    }

    /// A platform call, unless it is the one that shall fail.
    fn unless_failing<T>(&self, call: impl FnOnce(&P) -> Result<T, Fault>) -> Result<T, Fault> {
        if self.enter() {
            return Err(Fault);
        }
        call(&self.inner)
    }

    fn note(&self, event: Event) {
        let here = thread::current().id();
        self.record().events.entry(here).or_default().push(event);
    }
}

impl<P: HostPages> HostPages for Recorder<P> {
    fn page_state_change(&self, descriptor: &mut PscDescriptor, issue: Issue) -> PscExit {
        let submitted = descriptor.header;
        let last = usize::from(submitted.end_entry);
        let entries = descriptor.entries.get(..=last).unwrap_or(&[]).to_vec();
        let exit = if self.enter() {
            PscExit {
                sw_exit_info_1: 0,
                sw_exit_info_2: error::GENERIC,
            }
        } else {
            self.inner.page_state_change(descriptor, issue)
        };
        self.note(Event::Psc {
            issue,
            submitted,
            entries,
            reply: descriptor.header,
            exit,
        });
        exit
    }
}

impl<P: GuestMemory> GuestMemory for Recorder<P> {
    fn read(&self, from: GuestPhysicalAddress, bytes: &mut [u8]) -> Result<(), Fault> {
        let result = if self.enter() {
            Err(Fault)
        } else {
            self.inner.read(from, bytes)
        };
        let seen = result.is_ok().then(|| bytes.to_vec());
        self.note(Event::Read(from.bits(), bytes.len(), seen));
        result
    }

    fn write(&self, to: GuestPhysicalAddress, bytes: &[u8]) -> Result<(), Fault> {
        let result = if self.enter() {
            Err(Fault)
        } else {
            self.inner.write(to, bytes)
        };
        self.note(Event::Write(to.bits(), bytes.to_vec(), result.is_err()));
        result
    }
}

impl<P: PageInstructions> PageInstructions for Recorder<P> {
    fn pvalidate(
        &self,
        page: GuestPhysicalAddress,
        size: PageSize,
        validate: bool,
    ) -> Result<PvalidateResult, Fault> {
        self.note(Event::Instruction("PVALIDATE", page.bits()));
        let result = self.unless_failing(|inner| inner.pvalidate(page, size, validate));
        self.note(Event::Executed(Executed::Pvalidate {
            page: page.bits(),
            size,
            validate,
            result: result.ok(),
        }));
        result
    }

    fn rmpadjust(
        &self,
        page: GuestPhysicalAddress,
        size: PageSize,
        target: RmpAdjustTarget,
    ) -> Result<InstructionCode, Fault> {
        self.note(Event::Instruction("RMPADJUST", page.bits()));
        let result = self.unless_failing(|inner| inner.rmpadjust(page, size, target));
        self.note(Event::Executed(Executed::Rmpadjust {
            page: page.bits(),
            size,
            target,
            result: result.ok(),
        }));
        result
    }

    fn evict(&self, page: GuestPhysicalAddress, size: PageSize) -> Result<(), Fault> {
        self.note(Event::Instruction("eviction", page.bits()));
        let result = self.unless_failing(|inner| inner.evict(page, size));
        self.note(Event::Executed(Executed::Evict {
            page: page.bits(),
            size,
            done: result.is_ok(),
        }));
        result
    }

    fn zero(&self, page: GuestPhysicalAddress, size: PageSize) -> Result<(), Fault> {
        self.note(Event::Instruction("zeroing", page.bits()));
        let result = self.unless_failing(|inner| inner.zero(page, size));
        self.note(Event::Executed(Executed::Zero {
            page: page.bits(),
            size,
            done: result.is_ok(),
        }));
        result
    }

    fn flush(&self) {
        self.note(Event::Instruction("flush", 0));
        // It has no way to fail.
        self.enter();
        self.inner.flush();
        self.note(Event::Executed(Executed::Flush));
    }
}
