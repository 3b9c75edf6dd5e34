// SPDX-License-Identifier: MIT OR Apache-2.0
//! A machine for CONVERT: pages with validation, permissions and contents, a host with manners, and a watch over the
//! order of everything (invariant P2).

use std::boxed::Box;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Mutex;
use std::vec::Vec;

use protocol::convert::{ConvertEntry, Outcome};
use snp::address::PageSize;
use snp::operands::InstructionCode;
use snp::psc::PscOperation;
use snp::svsm::ListHeader;
use zerocopy::{FromBytes, IntoBytes};

use crate::test_platform::Manner;

/// Guest RAM; less under Miri, which fills in every word of it in its own time.
pub const RAM: u64 = 0x20_0000;
pub const RAM_BYTES: u64 = if cfg!(miri) { 8 << 20 } else { 80 << 20 };
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
    /// Caches may hold lines of it from before it was validated.
    pub stale_lines: bool,
}

#[derive(Default)]
pub struct State {
    pub pages: BTreeMap<u64, Page>,
    /// 2 MiB blocks that the RMP holds in one entry.
    pub large: BTreeSet<u64>,
    /// Pages that a lower VMPL may still reach through an old translation.
    pub stale: BTreeSet<u64>,
    pub memory: BTreeMap<u64, Vec<u8>>,
    pub script: VecDeque<Manner>,
    pub steps: Vec<Step>,
    pub exits: usize,
    /// Platform calls until one fails.
    pub fail_in: Option<(usize, Failure)>,
    /// Failures of PVALIDATE of a page, by the value it sets.
    pub pvalidate_failures: BTreeMap<(u64, bool), Failure>,
    pub rmpadjust_failures: BTreeMap<u64, Failure>,
    /// The host splits the RMP entries of all pages at the flush.
    pub smash_at_flush: bool,
}

type Gate = Box<dyn Fn(&ConvertMachine) + Send + Sync>;

#[derive(Default)]
pub struct ConvertMachine {
    state: Mutex<State>,
    /// Runs inside each VMGEXIT.
    pub gate: Mutex<Option<Gate>>,
}

impl ConvertMachine {
    pub fn with<R>(&self, work: impl FnOnce(&mut State) -> R) -> R {
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

    pub fn large_rmp(&self) {
        let blocks = (RAM..RAM + RAM_BYTES).step_by(2 << 20);
        self.with(|state| state.large = blocks.collect());
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
    pub fn fails(state: &mut State) -> Option<Failure> {
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

/// A page as the guest finds it at first; pages exist as soon as they are named.
pub fn fresh() -> Page {
    Page {
        assigned: true,
        validated: true,
        permissions: [ALL, 0, ALL, 0],
        zero: false,
        stale_lines: false,
    }
}
