// SPDX-License-Identifier: MIT OR Apache-2.0
//! A platform without the rules of the hardware: a host that replies, pages of guest memory, and instructions that succeed
//! or surprise. Fast enough for millions of calls; the rules are `snp_model::machine`'s business.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};

use snp::address::{GuestPhysicalAddress, PageSize};
use snp::operands::{InstructionCode, PvalidateResult, RmpAdjustTarget};
use snp::psc::{PscDescriptor, PscEntry, PscHeader, error};
use snp_model::psc::{HostManner, process};
use svsm_swiotlb::platform::{Fault, GuestMemory, HostPages, Issue, PageInstructions, PscExit};

#[derive(Debug, Default)]
struct State {
    manner: HostManner,
    /// While there are any, they decide how the host replies.
    bytes: VecDeque<u8>,
    buffers: HashMap<ThreadId, Vec<PscEntry>>,
    memory: HashMap<u64, u8>,
    takes_turns: bool,
    /// The host holds every page in an entry of 4 KiB.
    small: bool,
    /// Instructions that end otherwise: how many go by before each of them.
    surprises: VecDeque<(u64, Surprise)>,
}

/// How an instruction ends that has no reason to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Surprise {
    /// In an exception.
    Fault,
    /// PVALIDATE with nothing to change; others in an exception.
    Unchanged,
    /// With a size mismatch; zeroing in an exception.
    SizeMismatch,
    /// With this code, that stands for nothing here; zeroing in an exception.
    Code(u32),
}

impl Surprise {
    fn from_byte(byte: u8) -> Self {
        match byte % 8 {
            0 | 1 => Self::Fault,
            2..=4 => Self::Unchanged,
            5 | 6 => Self::SizeMismatch,
            _ => Self::Code(1 + u32::from(byte / 8) % 4),
        }
    }
}

/// The platform.
#[derive(Debug, Default)]
pub struct LightHost {
    state: Mutex<State>,
}

impl LightHost {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How the host behaves from now on.
    pub fn set_manner(&self, manner: HostManner) {
        self.state().manner = manner;
    }

    /// Bytes that decide replies, as long as they last: see [`reply_from`].
    pub fn feed(&self, bytes: &[u8]) {
        self.state().bytes.extend(bytes);
    }

    /// The host holds every page in an entry of 4 KiB from now on, as after it split all of them.
    pub fn split_all(&self) {
        self.state().small = true;
    }

    /// After so many more instructions, one ends in a surprise. Counted from the previous surprise, if one is due.
    pub fn surprise(&self, after: u64, how: Surprise) {
        self.state().surprises.push_back((after, how));
    }

    /// Surprises from pairs of bytes: after how many instructions, and which.
    pub fn feed_surprises(&self, bytes: &[u8]) {
        for pair in bytes.chunks_exact(2) {
            self.surprise(pair[0].into(), Surprise::from_byte(pair[1]));
        }
    }

    /// Surprises that are still due.
    pub fn surprises_left(&self) -> usize {
        self.state().surprises.len()
    }

    /// All that decides what it does next: hosts that agree in this do the same.
    pub fn temper(&self) -> String {
        let state = self.state();
        format!("{:?} {} {:?}", state.manner, state.small, state.surprises)
    }

    /// From now on other threads get on during each exit, also where there are few processors.
    pub fn take_turns(&self) {
        self.state().takes_turns = true;
    }

    /// The guest writes to its memory.
    pub fn store(&self, address: u64, bytes: &[u8]) {
        let bytes = (address..).zip(bytes.iter().copied());
        self.state().memory.extend(bytes);
    }

    /// The guest reads its memory.
    pub fn load(&self, address: u64, bytes: usize) -> Vec<u8> {
        let memory = &self.state().memory;
        let byte = |at| memory.get(&at).copied().unwrap_or(0);
        (address..).take(bytes).map(byte).collect()
    }
}

/// A reply from bytes: the first chooses the kind, more of them its numbers. Kinds below 64 are honest, so that a case
/// gets somewhere; the others keep or break any rule.
pub fn reply_from(bytes: &mut VecDeque<u8>, header: PscHeader) -> (PscHeader, PscExit) {
    let mut next = || bytes.pop_front().unwrap_or(0);
    let kind = next();
    let left = header.end_entry.saturating_sub(header.cur_entry);
    let mut reply = header;
    let mut exit = PscExit::default();
    match kind {
        0..=63 => reply.cur_entry = header.end_entry + 1,
        64..=127 => reply.cur_entry += u16::from(next()) % (left + 1),
        128..=159 => {
            reply.cur_entry += u16::from(next()) % (left + 1);
            exit.sw_exit_info_2 = error::GENERIC | u64::from(next());
        }
        160..=175 => reply.reserved = 1 << (kind % 32),
        176..=191 => reply.end_entry = u16::from_le_bytes([next(), next()]),
        192..=223 => {
            reply.cur_entry = u16::from_le_bytes([next(), next()]);
            exit.sw_exit_info_2 = u64::from(next() & 1);
        }
        224..=239 => {
            reply.cur_entry = header.end_entry + 1;
            exit.sw_exit_info_2 = u64::from(next());
            exit.sw_exit_info_1 = u64::from(next() % 4);
        }
        _ => {
            exit.sw_exit_info_1 = u64::from(next()) << (u32::from(next()) % 57);
            reply.cur_entry += u16::from(next() % 2);
        }
    }
    (reply, exit)
}

impl HostPages for LightHost {
    fn page_state_change(&self, descriptor: &mut PscDescriptor, issue: Issue) -> PscExit {
        if self.state().takes_turns {
            thread::yield_now();
        }
        let mut state = self.state();
        if !state.bytes.is_empty() {
            let (reply, exit) = reply_from(&mut state.bytes, descriptor.header);
            descriptor.header = reply;
            return exit;
        }
        let here = thread::current().id();
        let mut buffer = match (issue, state.buffers.remove(&here)) {
            (Issue::Again, Some(buffer)) => buffer,
            _ => descriptor.entries[..=usize::from(descriptor.header.end_entry)].to_vec(),
        };
        let reply = process(descriptor.header, state.manner, &mut buffer, |_, _, _| {
            Ok(())
        });
        state.buffers.insert(here, buffer);
        descriptor.header = reply.header;
        PscExit {
            sw_exit_info_1: 0,
            sw_exit_info_2: reply.exit_info_2,
        }
    }
}

impl GuestMemory for LightHost {
    fn read(&self, from: GuestPhysicalAddress, bytes: &mut [u8]) -> Result<(), Fault> {
        bytes.copy_from_slice(&self.load(from.bits(), bytes.len()));
        Ok(())
    }

    fn write(&self, to: GuestPhysicalAddress, bytes: &[u8]) -> Result<(), Fault> {
        self.store(to.bits(), bytes);
        Ok(())
    }
}

impl State {
    /// An instruction on a page of this size: how it ends, if not as it should.
    fn executes(&mut self, size: PageSize) -> Option<Surprise> {
        match self.surprises.front_mut() {
            Some((0, how)) => {
                let how = *how;
                self.surprises.pop_front();
                return Some(how);
            }
            Some((after, _)) => *after -= 1,
            None => {}
        }
        let mismatch = self.small && size == PageSize::Size2M;
        mismatch.then_some(Surprise::SizeMismatch)
    }
}

/// There are no rules here under which an instruction could go wrong: all succeed, but for surprises.
impl PageInstructions for LightHost {
    fn pvalidate(
        &self,
        _: GuestPhysicalAddress,
        size: PageSize,
        _: bool,
    ) -> Result<PvalidateResult, Fault> {
        let surprise = self.state().executes(size);
        let code = match surprise {
            None | Some(Surprise::Unchanged) => InstructionCode::SUCCESS,
            Some(Surprise::Fault) => return Err(Fault),
            Some(Surprise::SizeMismatch) => InstructionCode::FAIL_SIZEMISMATCH,
            Some(Surprise::Code(code)) => InstructionCode(code),
        };
        let unchanged = surprise == Some(Surprise::Unchanged);
        Ok(PvalidateResult { code, unchanged })
    }

    fn rmpadjust(
        &self,
        _: GuestPhysicalAddress,
        size: PageSize,
        _: RmpAdjustTarget,
    ) -> Result<InstructionCode, Fault> {
        match self.state().executes(size) {
            None => Ok(InstructionCode::SUCCESS),
            Some(Surprise::SizeMismatch) => Ok(InstructionCode::FAIL_SIZEMISMATCH),
            Some(Surprise::Code(code)) => Ok(InstructionCode(code)),
            Some(Surprise::Fault | Surprise::Unchanged) => Err(Fault),
        }
    }

    fn evict(&self, _: GuestPhysicalAddress, _: PageSize) -> Result<(), Fault> {
        // Caches have no entries whose size could be wrong.
        let surprise = self.state().executes(PageSize::Size4K);
        surprise.map_or(Ok(()), |_| Err(Fault))
    }

    fn zero(&self, page: GuestPhysicalAddress, size: PageSize) -> Result<(), Fault> {
        let mut state = self.state();
        // Memory has no entries whose size could be wrong.
        let surprise = state.executes(PageSize::Size4K);
        let range = page.bits()..page.bits() + size.bytes();
        state.memory.retain(|address, _| !range.contains(address));
        surprise.map_or(Ok(()), |_| Err(Fault))
    }

    fn flush(&self) {}
}
