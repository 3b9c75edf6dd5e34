// SPDX-License-Identifier: MIT OR Apache-2.0
//! A platform without the rules of the hardware: a host that replies, and pages of guest memory. Fast enough for millions
//! of calls; the rules are `snp_model::machine`'s business.

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

    /// From now on other threads get on during each exit, also where there are few processors.
    pub fn take_turns(&self) {
        self.state().takes_turns = true;
    }

    /// The guest writes to its memory.
    pub fn store(&self, address: u64, bytes: &[u8]) {
        let bytes = (address..).zip(bytes.iter().copied());
        self.state().memory.extend(bytes);
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
        let state = self.state();
        for (address, byte) in (from.bits()..).zip(bytes) {
            *byte = state.memory.get(&address).copied().unwrap_or(0);
        }
        Ok(())
    }

    fn write(&self, to: GuestPhysicalAddress, bytes: &[u8]) -> Result<(), Fault> {
        self.store(to.bits(), bytes);
        Ok(())
    }
}

/// There are no rules here under which an instruction could go wrong, so none succeeds.
impl PageInstructions for LightHost {
    fn pvalidate(
        &self,
        _: GuestPhysicalAddress,
        _: PageSize,
        _: bool,
    ) -> Result<PvalidateResult, Fault> {
        Err(Fault)
    }

    fn rmpadjust(
        &self,
        _: GuestPhysicalAddress,
        _: PageSize,
        _: RmpAdjustTarget,
    ) -> Result<InstructionCode, Fault> {
        Err(Fault)
    }

    fn zero(&self, _: GuestPhysicalAddress, _: PageSize) -> Result<(), Fault> {
        Err(Fault)
    }

    fn flush(&self) {}
}
