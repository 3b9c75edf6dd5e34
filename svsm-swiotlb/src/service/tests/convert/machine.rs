// SPDX-License-Identifier: MIT OR Apache-2.0
//! A machine for CONVERT: pages with validation, permissions and contents, a host with manners, and a watch over the
//! order of everything (invariant P2).

use core::sync::atomic::{AtomicU8, AtomicU64};
use std::boxed::Box;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Mutex;
use std::vec::Vec;

use protocol::Request;
use protocol::convert::{ConvertEntry, Outcome};
use protocol::response::decode_answer;
use snp::address::{GuestPhysicalAddress, LARGE_PAGE_SIZE, PAGE_SIZE, PageSize};
use snp::operands::{InstructionCode, PvalidateResult, RmpAdjustTarget};
use snp::psc::{PscDescriptor, PscEntry, PscHeader, PscOperation};
use snp::svsm::{ListHeader, ResultCode};
use zerocopy::{FromBytes, IntoBytes};

use crate::ownership::small_pages;
use crate::page_state::{PageState, PageStates, RamRange, RamRanges};
use crate::platform::{Fault, GuestMemory, HostPages, Issue, PageInstructions, PscExit};
use crate::pool::{ChunkRecords, Pool, Window};
use crate::test_platform::{Answer, Manner};
use crate::{Configuration, Service};

/// Guest RAM.
pub const RAM: u64 = 0x20_0000;
pub const RAM_BYTES: u64 = 80 << 20;
pub const WINDOW: u64 = 0x3000_0000;
/// Where the tests put their list.
pub const LIST: u64 = RAM + RAM_BYTES - PAGE_SIZE;
const ALL: u8 = 0xF;

/// What happened, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    Revoke(u64, PageSize),
    Grant(u64, PageSize),
    Validate(u64, PageSize),
    Rescind(u64, PageSize),
    Zero(u64, PageSize),
    Flush,
    Psc(PscOperation, usize),
}

/// How the next instruction of a kind goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    Fault,
    Code(InstructionCode),
    /// CF set.
    Unchanged,
}

#[derive(Clone, Debug)]
pub struct Page {
    pub assigned: bool,
    pub validated: bool,
    pub permissions: [u8; 4],
    pub zero: bool,
}

#[derive(Default)]
struct State {
    pages: BTreeMap<u64, Page>,
    /// 2 MiB blocks that the RMP holds in one entry.
    large: BTreeSet<u64>,
    /// Pages that a lower VMPL may still reach through an old translation.
    stale: BTreeSet<u64>,
    memory: BTreeMap<u64, Vec<u8>>,
    script: VecDeque<Manner>,
    steps: Vec<Step>,
    exits: usize,
    /// Platform calls until one fails.
    fail_in: Option<(usize, Failure)>,
    /// Failures of PVALIDATE of a page, by the value it sets.
    pvalidate_failures: BTreeMap<(u64, bool), Failure>,
    rmpadjust_failures: BTreeMap<u64, Failure>,
    /// The host splits the RMP entries of all pages at the flush.
    smash_at_flush: bool,
}

type Gate = Box<dyn Fn(&ConvertMachine) + Send + Sync>;

#[derive(Default)]
pub struct ConvertMachine {
    state: Mutex<State>,
    /// Runs inside each VMGEXIT.
    pub gate: Mutex<Option<Gate>>,
}

impl ConvertMachine {
    fn with<R>(&self, work: impl FnOnce(&mut State) -> R) -> R {
        work(&mut self.state.lock().unwrap())
    }

    pub fn script(&self, manners: &[Manner]) {
        self.with(|state| state.script.extend(manners));
    }

    pub fn steps(&self) -> Vec<Step> {
        self.with(|state| core::mem::take(&mut state.steps))
    }

    pub fn exits(&self) -> usize {
        self.with(|state| core::mem::take(&mut state.exits))
    }

    pub fn fail_call(&self, nth: usize, failure: Failure) {
        self.with(|state| state.fail_in = Some((nth, failure)));
    }

    pub fn failure_left(&self) -> bool {
        self.with(|state| state.fail_in.take().is_some())
    }

    pub fn fail_pvalidate(&self, page: u64, validate: bool, failure: Failure) {
        self.with(|state| state.pvalidate_failures.insert((page, validate), failure));
    }

    pub fn fail_rmpadjust(&self, page: u64, failure: Failure) {
        self.with(|state| state.rmpadjust_failures.insert(page, failure));
    }

    pub fn smash_at_flush(&self) {
        self.with(|state| state.smash_at_flush = true);
    }

    pub fn small_rmp(&self) {
        self.with(|state| state.large.clear());
    }

    pub fn page(&self, page: u64) -> Page {
        self.with(|state| state.pages.get(&page).cloned().unwrap_or_else(fresh))
    }

    pub fn poke(&self, address: u64, bytes: &[u8]) {
        let (page, offset) = (address & !0xFFF, usize::try_from(address & 0xFFF).unwrap());
        self.with(|state| {
            let memory = state
                .memory
                .entry(page)
                .or_insert_with(|| std::vec![0; 4096]);
            memory[offset..offset + bytes.len()].copy_from_slice(bytes);
        });
    }

    pub fn peek(&self, address: u64, bytes: usize) -> Vec<u8> {
        let (page, offset) = (address & !0xFFF, usize::try_from(address & 0xFFF).unwrap());
        self.with(|state| match state.memory.get(&page) {
            Some(memory) => memory[offset..offset + bytes].to_vec(),
            None => std::vec![0; bytes],
        })
    }

    pub fn put_list(&self, at: u64, header: ListHeader, entries: &[ConvertEntry]) {
        self.poke(at, header.as_bytes());
        self.poke(at + 8, entries.as_bytes());
    }

    pub fn header(&self, at: u64) -> ListHeader {
        ListHeader::read_from_bytes(&self.peek(at, 8)).unwrap()
    }

    pub fn outcome(&self, at: u64, entry: u64) -> Outcome {
        let bytes = self.peek(at + 8 + 8 * entry, 8);
        let entry = ConvertEntry::read_from_bytes(&bytes).unwrap();
        entry.outcome().unwrap()
    }

    /// The failure that is due now.
    fn fails(state: &mut State) -> Option<Failure> {
        let (left, failure) = state.fail_in.as_mut()?;
        *left -= 1;
        if *left > 0 {
            return None;
        }
        let failure = *failure;
        state.fail_in = None;
        Some(failure)
    }
}

/// A large instruction needs a large RMP entry; a small one splits it.
fn mismatch(state: &mut State, page: u64, size: PageSize) -> bool {
    let block = page & !(LARGE_PAGE_SIZE - 1);
    if size == PageSize::Size4K {
        state.large.remove(&block);
    }
    size == PageSize::Size2M && !state.large.contains(&block)
}

/// A page as the guest finds it at first; pages exist as soon as they are named.
fn fresh() -> Page {
    Page {
        assigned: true,
        validated: true,
        permissions: [ALL, 0, ALL, 0],
        zero: false,
    }
}

fn each(
    state: &mut State,
    page: GuestPhysicalAddress,
    size: PageSize,
    mut work: impl FnMut(&mut Page),
) {
    for small in small_pages(page, size) {
        work(state.pages.entry(small.bits()).or_insert_with(fresh));
    }
}

impl PageInstructions for ConvertMachine {
    fn pvalidate(
        &self,
        page: GuestPhysicalAddress,
        size: PageSize,
        validate: bool,
    ) -> Result<PvalidateResult, Fault> {
        self.with(|state| {
            let forced = state.pvalidate_failures.remove(&(page.bits(), validate));
            let success = |unchanged| {
                let code = InstructionCode::SUCCESS;
                Ok(PvalidateResult { code, unchanged })
            };
            let refused = |code| {
                let unchanged = false;
                Ok(PvalidateResult { code, unchanged })
            };
            match forced.or_else(|| Self::fails(state)) {
                Some(Failure::Fault) => return Err(Fault),
                Some(Failure::Unchanged) => return success(true),
                Some(Failure::Code(code)) => return refused(code),
                None => {}
            }
            if mismatch(state, page.bits(), size) {
                return refused(InstructionCode::FAIL_SIZEMISMATCH);
            }
            state.steps.push(match validate {
                true => Step::Validate(page.bits(), size),
                false => Step::Rescind(page.bits(), size),
            });
            for small in small_pages(page, size) {
                assert!(
                    !state.stale.contains(&small.bits()),
                    "P2: {small} not flushed"
                );
            }
            let mut same = true;
            each(state, page, size, |page| {
                assert!(page.assigned, "the host was not asked first");
                assert!(
                    page.permissions[1..] == [0; 3],
                    "E: permissions outlive a rescind"
                );
                same &= page.validated == validate;
                page.validated = validate;
                page.zero = false;
            });
            success(same)
        })
    }

    fn rmpadjust(
        &self,
        page: GuestPhysicalAddress,
        size: PageSize,
        target: RmpAdjustTarget,
    ) -> Result<InstructionCode, Fault> {
        self.with(|state| {
            let forced = state.rmpadjust_failures.remove(&page.bits());
            match forced.or_else(|| Self::fails(state)) {
                Some(Failure::Fault | Failure::Unchanged) => return Err(Fault),
                Some(Failure::Code(code)) => return Ok(code),
                None => {}
            }
            if mismatch(state, page.bits(), size) {
                return Ok(InstructionCode::FAIL_SIZEMISMATCH);
            }
            let permissions = target.permissions();
            if permissions != 0 {
                state.steps.push(Step::Grant(page.bits(), size));
            } else if target.vmpl() == 2 {
                state.steps.push(Step::Revoke(page.bits(), size));
                state.stale.extend(small_pages(page, size).map(u64::from));
            }
            each(state, page, size, |page| {
                assert!(page.validated, "RMPADJUST of a page that is not validated");
                assert!(
                    permissions == 0 || page.zero,
                    "D: granted before it was zeroed"
                );
                page.permissions[usize::from(target.vmpl())] = permissions;
            });
            Ok(InstructionCode::SUCCESS)
        })
    }

    fn zero(&self, page: GuestPhysicalAddress, size: PageSize) -> Result<(), Fault> {
        self.with(|state| {
            if Self::fails(state).is_some() {
                return Err(Fault);
            }
            state.steps.push(Step::Zero(page.bits(), size));
            each(state, page, size, |page| {
                assert!(page.validated);
                page.zero = true;
            });
            Ok(())
        })
    }

    fn flush(&self) {
        self.with(|state| {
            state.steps.push(Step::Flush);
            state.stale.clear();
            if core::mem::take(&mut state.smash_at_flush) {
                state.large.clear();
            }
        });
    }
}

impl HostPages for ConvertMachine {
    fn page_state_change(&self, descriptor: &mut PscDescriptor, issue: Issue) -> PscExit {
        if let Some(gate) = &*self.gate.lock().unwrap() {
            gate(self);
        }
        self.with(|state| {
            state.exits += 1;
            let header = descriptor.header;
            let last = usize::from(header.end_entry);
            if issue == Issue::First {
                let operation = PscOperation::try_from(descriptor.entries[0].operation()).unwrap();
                state.steps.push(Step::Psc(operation, last + 1));
            }
            let mut exit = PscExit::default();
            let manner = state.script.pop_front().unwrap_or(Manner::Honest);
            let mut reply = header;
            match manner {
                Manner::Honest => reply.cur_entry = header.end_entry + 1,
                Manner::Early(entries) => reply.cur_entry += entries,
                Manner::Refuse(entries, info) => {
                    reply.cur_entry += entries;
                    exit.sw_exit_info_2 = info;
                }
                Manner::Reply(wrong, info) => {
                    descriptor.header = wrong;
                    return info;
                }
            }
            let done = usize::from(header.cur_entry)..usize::from(reply.cur_entry);
            for entry in &descriptor.entries[done] {
                change(state, *entry);
            }
            descriptor.header = reply;
            exit
        })
    }
}

/// What an honest host does for an entry.
fn change(state: &mut State, entry: PscEntry) {
    let private = entry.operation() == PscOperation::Private as u8;
    let large = entry.size() == PageSize::Size2M;
    let block = entry.page().bits() & !(LARGE_PAGE_SIZE - 1);
    if !large {
        state.large.remove(&block);
    }
    each(state, entry.page(), entry.size(), |page| {
        assert!(
            !page.validated,
            "the host is asked for a page that is still validated"
        );
        if page.assigned != private {
            page.permissions = [0; 4];
        }
        page.assigned = private;
        page.zero = false;
    });
}

impl GuestMemory for ConvertMachine {
    fn read(&self, from: GuestPhysicalAddress, bytes: &mut [u8]) -> Result<(), Fault> {
        if self.with(Self::fails).is_some() {
            return Err(Fault);
        }
        bytes.copy_from_slice(&self.peek(from.bits(), bytes.len()));
        Ok(())
    }

    fn write(&self, to: GuestPhysicalAddress, bytes: &[u8]) -> Result<(), Fault> {
        if self.with(Self::fails).is_some() {
            return Err(Fault);
        }
        self.poke(to.bits(), bytes);
        Ok(())
    }
}

/// The service over such a machine, attached.
pub struct World {
    pub machine: &'static ConvertMachine,
    pub service: Service<'static, ConvertMachine>,
    pub epoch: u32,
}

impl World {
    pub fn new() -> Self {
        Self::with_flush(true)
    }

    /// A service whose integrator does, or does not, vouch for the flush.
    pub fn with_flush(flush_reaches_all: bool) -> Self {
        let machine: &'static ConvertMachine = Box::leak(Box::default());
        machine.with(|state| {
            state.large = (RAM..RAM + RAM_BYTES).step_by(2 << 20).collect();
        });
        let range = RamRange {
            base: GuestPhysicalAddress::new(RAM),
            bytes: RAM_BYTES,
        };
        let ranges: &'static [RamRange] = Box::leak(Box::new([range]));
        let ranges = RamRanges::new(ranges).unwrap();
        let words: Vec<AtomicU8> = (0..ranges.pages()).map(|_| AtomicU8::new(0)).collect();
        let pages = PageStates::new(ranges, words.leak()).unwrap();
        pages
            .set_at_boot(range.base, range.bytes, PageState::Valid)
            .unwrap();
        let window = Window::new(GuestPhysicalAddress::new(WINDOW), 4 << 20).unwrap();
        let records = Box::leak(Box::new([const { AtomicU64::new(0) }; 2]));
        let pool = Pool::new(window, ChunkRecords::new(records), window.bytes()).unwrap();
        let configuration = Configuration {
            flush_reaches_all,
            ..Configuration::with_encryption_bit(51)
        };
        let service = Service::new(machine, configuration, pool, pages).unwrap();
        let mut world = Self {
            machine,
            service,
            epoch: 0,
        };
        let attached = world.answer(Request::Attach { version: 1 }).unwrap();
        world.epoch = u32::try_from(attached.rcx).unwrap();
        world
    }

    pub fn answer(&self, request: Request) -> Answer {
        let registers = request.encode(self.service.protocol_number());
        decode_answer(&self.service.dispatch(&registers))
    }

    /// CONVERT of the list at [`LIST`].
    pub fn call(&self) -> ResultCode {
        let request = Request::Convert {
            list: GuestPhysicalAddress::new(LIST),
            epoch: self.epoch,
        };
        self.answer(request)
            .map_or_else(|refusal| refusal.code, |_| ResultCode::SUCCESS)
    }

    /// One call with a new list: the answer and the cursor.
    pub fn convert(&self, entries: &[ConvertEntry]) -> (ResultCode, u16) {
        self.put(entries);
        (self.call(), self.machine.header(LIST).next)
    }

    pub fn put(&self, entries: &[ConvertEntry]) {
        let header = ListHeader {
            entries: u16::try_from(entries.len()).unwrap(),
            next: 0,
            reserved: 0,
        };
        self.machine.put_list(LIST, header, entries);
    }

    /// Calls until there is no more; how many calls that took.
    pub fn convert_all(&self, entries: &[ConvertEntry]) -> usize {
        self.put(entries);
        for calls in 1..1000 {
            match self.call() {
                ResultCode::INCOMPLETE => {}
                code => {
                    assert_eq!(code, ResultCode::SUCCESS);
                    return calls;
                }
            }
        }
        panic!("no end");
    }

    pub fn state(&self, page: u64) -> PageState {
        let page = GuestPhysicalAddress::new(page);
        self.service.page_states().state(page).unwrap()
    }

    pub fn set(&self, page: u64, state: PageState) {
        let pages = self.service.page_states();
        pages
            .set_at_boot(GuestPhysicalAddress::new(page), PAGE_SIZE, state)
            .unwrap();
    }

    pub fn outcomes(&self, count: u64) -> Vec<Outcome> {
        let outcome = |entry| self.machine.outcome(LIST, entry);
        (0..count).map(outcome).collect()
    }
}

pub fn small(page: u64, to_shared: bool) -> ConvertEntry {
    ConvertEntry::request(GuestPhysicalAddress::new(page), PageSize::Size4K, to_shared)
}

pub fn large(page: u64, to_shared: bool) -> ConvertEntry {
    ConvertEntry::request(GuestPhysicalAddress::new(page), PageSize::Size2M, to_shared)
}

/// So many small pages from here on.
pub fn smalls(page: u64, count: u64, to_shared: bool) -> Vec<ConvertEntry> {
    let pages = (0..count).map(|number| page + number * PAGE_SIZE);
    pages.map(|page| small(page, to_shared)).collect()
}

/// So many large pages from here on.
pub fn larges(page: u64, count: u64, to_shared: bool) -> Vec<ConvertEntry> {
    let pages = (0..count).map(|number| page + number * LARGE_PAGE_SIZE);
    pages.map(|page| large(page, to_shared)).collect()
}

/// A reply whose last entry is not the one submitted.
pub fn broken() -> Manner {
    let header = PscHeader {
        cur_entry: 0,
        end_entry: 999,
        reserved: 0,
    };
    Manner::Reply(header, PscExit::default())
}
