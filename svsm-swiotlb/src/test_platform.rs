// SPDX-License-Identifier: MIT OR Apache-2.0
//! A machine for the unit tests: scripted host replies, a few pages of guest memory, faults on demand.
//!
//! The full model of the hardware is `tests/snp-model`; this one exists to lie in exactly one way at a time.

use core::sync::atomic::{AtomicU8, AtomicU64};
use std::boxed::Box;
use std::collections::{BTreeSet, VecDeque};
use std::sync::Mutex;
use std::vec::Vec;

use protocol::response::decode_answer;
use protocol::{Call, Refusal, Request, ResultRegisters};
use snp::address::{GuestPhysicalAddress, PAGE_SIZE, PageSize};
use snp::operands::{InstructionCode, PvalidateResult, RmpAdjustTarget};
use snp::psc::{PscDescriptor, PscEntry, PscHeader};
use snp::svsm::CallRegisters;

use crate::page_state::{PageState, PageStates, RamRange, RamRanges};
use crate::platform::{Fault, GuestMemory, HostPages, Issue, PageInstructions, PscExit};
use crate::pool::{ChunkRecords, Pool, Pools, Window};
use crate::{Configuration, Service};

pub const MIB: u64 = 1 << 20;
pub const CHUNK: u64 = 2 * MIB;
/// First byte of guest RAM; [`RAM_PAGES`] pages, the last one in no good state.
pub const RAM_BASE: u64 = 0x10_0000;
pub const RAM_PAGES: u64 = 8;
pub const WINDOW_BASE: u64 = 0x3000_0000;
/// Where window 1 is, if there is one.
pub const LOW_BASE: u64 = 0x2000_0000;

/// What the host does at one VMGEXIT; the script's next element, an honest host when it is empty.
#[derive(Clone, Copy, Debug)]
pub enum Manner {
    /// Completes everything.
    Honest,
    /// Moves the cursor on by so many entries and returns without an error.
    Early(u16),
    /// Moves the cursor on by so many entries and reports this in SW_EXITINFO2.
    Refuse(u16, u64),
    /// Replies exactly this.
    Reply(PscHeader, PscExit),
}

type Gate = Box<dyn Fn() + Send + Sync>;

#[derive(Default)]
pub struct TestPlatform {
    script: Mutex<VecDeque<Manner>>,
    /// What was submitted: header and the entries it covers.
    pub exits: Mutex<Vec<(PscHeader, Vec<PscEntry>)>>,
    /// How it was submitted, one element per element of `exits`.
    pub issues: Mutex<Vec<Issue>>,
    memory: Mutex<Vec<u8>>,
    pub faulty_pages: Mutex<BTreeSet<u64>>,
    /// Addresses read, to see what is fetched twice.
    pub reads: Mutex<Vec<(u64, usize)>>,
    /// Runs inside each VMGEXIT.
    pub gate: Option<Gate>,
}

impl TestPlatform {
    pub fn new() -> Self {
        let bytes = usize::try_from(RAM_PAGES * PAGE_SIZE).unwrap();
        Self {
            memory: Mutex::new(std::vec![0xEE; bytes]),
            ..Self::default()
        }
    }

    pub fn script(&self, manners: &[Manner]) {
        self.script.lock().unwrap().extend(manners);
    }

    pub fn exit_count(&self) -> usize {
        self.exits.lock().unwrap().len()
    }

    /// Guest memory as the guest sees it.
    pub fn peek(&self, address: u64, bytes: usize) -> Vec<u8> {
        let offset = usize::try_from(address - RAM_BASE).unwrap();
        self.memory.lock().unwrap()[offset..offset + bytes].to_vec()
    }

    pub fn poke(&self, address: u64, bytes: &[u8]) {
        let offset = usize::try_from(address - RAM_BASE).unwrap();
        self.memory.lock().unwrap()[offset..offset + bytes.len()].copy_from_slice(bytes);
    }

    fn check_access(&self, address: GuestPhysicalAddress, bytes: usize) -> Result<(), Fault> {
        assert!(
            address.page_offset() + bytes as u64 <= PAGE_SIZE,
            "an access crosses its page"
        );
        let page = address.page_base().bits();
        if self.faulty_pages.lock().unwrap().contains(&page) {
            Err(Fault)
        } else {
            Ok(())
        }
    }
}

impl HostPages for TestPlatform {
    fn page_state_change(&self, descriptor: &mut PscDescriptor, issue: Issue) -> PscExit {
        if let Some(gate) = &self.gate {
            gate();
        }
        let header = descriptor.header;
        let entries = descriptor.entries[..=usize::from(header.end_entry)].to_vec();
        self.exits.lock().unwrap().push((header, entries));
        self.issues.lock().unwrap().push(issue);
        let manner = self
            .script
            .lock()
            .unwrap()
            .pop_front()
            .unwrap_or(Manner::Honest);
        let mut exit = PscExit::default();
        match manner {
            Manner::Honest => descriptor.header.cur_entry = header.end_entry + 1,
            Manner::Early(entries) => descriptor.header.cur_entry += entries,
            Manner::Refuse(entries, info) => {
                descriptor.header.cur_entry += entries;
                exit.sw_exit_info_2 = info;
            }
            Manner::Reply(reply, info) => {
                descriptor.header = reply;
                exit = info;
            }
        }
        exit
    }
}

impl GuestMemory for TestPlatform {
    fn read(&self, from: GuestPhysicalAddress, bytes: &mut [u8]) -> Result<(), Fault> {
        self.check_access(from, bytes.len())?;
        self.reads.lock().unwrap().push((from.bits(), bytes.len()));
        bytes.copy_from_slice(&self.peek(from.bits(), bytes.len()));
        Ok(())
    }

    fn write(&self, to: GuestPhysicalAddress, bytes: &[u8]) -> Result<(), Fault> {
        self.check_access(to, bytes.len())?;
        self.poke(to.bits(), bytes);
        Ok(())
    }
}

/// The pool needs no instruction: a call that executes one is wrong. CONVERT has a machine of its own.
impl PageInstructions for TestPlatform {
    fn pvalidate(
        &self,
        page: GuestPhysicalAddress,
        _: PageSize,
        _: bool,
    ) -> Result<PvalidateResult, Fault> {
        panic!("PVALIDATE of {page}")
    }

    fn rmpadjust(
        &self,
        page: GuestPhysicalAddress,
        _: PageSize,
        _: RmpAdjustTarget,
    ) -> Result<InstructionCode, Fault> {
        panic!("RMPADJUST of {page}")
    }

    fn evict(&self, page: GuestPhysicalAddress, _: PageSize) -> Result<(), Fault> {
        panic!("{page} is evicted")
    }

    fn zero(&self, page: GuestPhysicalAddress, _: PageSize) -> Result<(), Fault> {
        panic!("{page} is zeroed")
    }

    fn flush(&self) {
        panic!("a flush")
    }
}

/// A service on a [`TestPlatform`], with a window of so many chunks. Leaks its storage: tests end.
pub fn service_on(
    platform: TestPlatform,
    chunks: u64,
) -> (&'static TestPlatform, Service<'static, TestPlatform>) {
    service_with(platform, chunks, Configuration::with_encryption_bit(51))
}

/// The same, configured.
pub fn service_with(
    platform: TestPlatform,
    chunks: u64,
    configuration: Configuration,
) -> (&'static TestPlatform, Service<'static, TestPlatform>) {
    service_over(platform, pool_at(WINDOW_BASE, chunks), configuration)
}

/// A service with two windows.
pub fn service_with_two(
    platform: TestPlatform,
    chunks: u64,
    low_chunks: u64,
) -> (&'static TestPlatform, Service<'static, TestPlatform>) {
    let high = pool_at(WINDOW_BASE, chunks);
    let pools = Pools::two(high, pool_at(LOW_BASE, low_chunks)).unwrap();
    service_over(platform, pools, Configuration::with_encryption_bit(51))
}

/// A pool of free chunks, all of which may be granted.
pub fn pool_at(base: u64, chunks: u64) -> Pool<'static> {
    let window = Window::new(GuestPhysicalAddress::new(base), chunks * CHUNK).unwrap();
    let records: Vec<AtomicU64> = (0..chunks).map(|_| AtomicU64::new(0)).collect();
    Pool::new(window, ChunkRecords::new(records.leak()), window.bytes()).unwrap()
}

fn service_over(
    platform: TestPlatform,
    pools: impl Into<Pools<'static>>,
    configuration: Configuration,
) -> (&'static TestPlatform, Service<'static, TestPlatform>) {
    let platform: &'static TestPlatform = Box::leak(Box::new(platform));
    (
        platform,
        Service::new(platform, configuration, pools, page_states()).unwrap(),
    )
}

/// Guest RAM, all of it the guest's.
pub fn page_states() -> PageStates<'static> {
    let range = RamRange::new(GuestPhysicalAddress::new(RAM_BASE), RAM_PAGES * PAGE_SIZE);
    let ranges: &'static mut [RamRange] = Box::leak(Box::new([range]));
    let ranges = RamRanges::new(ranges).unwrap();
    let words: Vec<AtomicU8> = (0..RAM_PAGES).map(|_| AtomicU8::new(0)).collect();
    let pages = PageStates::new(ranges, words.leak()).unwrap();
    pages
        .set_at_boot(range.base, range.bytes, PageState::Valid)
        .unwrap();
    pages
}

/// A service with an honest host.
pub fn service(chunks: u64) -> (&'static TestPlatform, Service<'static, TestPlatform>) {
    service_on(TestPlatform::new(), chunks)
}

pub type Answer = Result<ResultRegisters, Refusal>;

/// What a guest sees of the service.
pub trait Guest {
    fn call(&self, request: Request) -> Answer;
    /// A call with any register values; also checks what happens to the registers of a refused call.
    fn raw(&self, call: Call, rcx: u64, rdx: u64, r8: u64) -> Answer;

    fn guest_attach(&self) -> u32 {
        u32::try_from(self.call(Request::Attach { version: 1 }).unwrap().rcx).unwrap()
    }

    fn guest_grow(&self, epoch: u32, least: u64, most: u64) -> Answer {
        self.guest_grow_of(0, epoch, least, most)
    }

    fn guest_grow_of(&self, window: u8, epoch: u32, least: u64, most: u64) -> Answer {
        let (least, most) = (least * CHUNK, most * CHUNK);
        self.call(Request::Grow {
            window,
            contiguous: false,
            epoch,
            least,
            most,
        })
    }

    fn guest_grow_contiguous(&self, epoch: u32, least: u64, most: u64) -> Answer {
        let (least, most) = (least * CHUNK, most * CHUNK);
        self.call(Request::Grow {
            window: 0,
            contiguous: true,
            epoch,
            least,
            most,
        })
    }

    fn guest_release(&self, base: u64, bytes: u64, epoch: u32, generation: u64) -> Answer {
        let base = GuestPhysicalAddress::new(base);
        let generation = u32::try_from(generation).unwrap();
        self.call(Request::Release {
            base,
            bytes,
            epoch,
            generation,
        })
    }
}

impl Guest for Service<'_, TestPlatform> {
    fn call(&self, request: Request) -> Answer {
        let registers = request.encode(self.protocol_number());
        decode_answer(&self.dispatch(&registers, None))
    }

    fn raw(&self, call: Call, rcx: u64, rdx: u64, r8: u64) -> Answer {
        let rax = u64::from(self.protocol_number()) << 32 | u64::from(call.number());
        decode_answer(&self.dispatch(&CallRegisters::new(rax, [rcx, rdx, r8]), None))
    }
}
