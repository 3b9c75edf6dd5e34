// SPDX-License-Identifier: MIT OR Apache-2.0
//! The service's platform traits, as VMPL 0 sees this machine.

use std::boxed::Box;
use std::ops::Range;
use std::thread;

use snp::address::{GuestPhysicalAddress, PageSize, Vmpl};
use snp::operands::{InstructionCode, PvalidateResult, RmpAdjustTarget};
use snp::psc::{PscDescriptor, error};
use svsm_swiotlb::platform::{Fault, GuestMemory, HostPages, Issue, PageInstructions, PscExit};

use super::state::{Machine, State};
use crate::psc::process;
use crate::rmp::Outcome;

impl HostPages for Machine {
    fn page_state_change(&self, descriptor: &mut PscDescriptor, issue: Issue) -> PscExit {
        let due = self.state().due_before_exit();
        if let Some(what) = due {
            what();
        }
        let mut state = self.state();
        state.counters.psc_exits += 1;
        if state.fails_now() {
            return PscExit {
                sw_exit_info_1: 0,
                sw_exit_info_2: error::GENERIC,
            };
        }
        let processor = thread::current().id();
        // The buffer is shared memory: what the host wrote into the entries is there the next time.
        let mut buffer = match issue {
            Issue::First => Box::new(descriptor.entries),
            Issue::Again => state
                .psc_buffers
                .remove(&processor)
                .expect("a descriptor was issued before it is issued again"),
        };
        let manner = state.manner;
        let reply = process(
            descriptor.header,
            manner,
            &mut *buffer,
            |page, size, operation| state.change(page, size, operation),
        );
        state.psc_buffers.insert(processor, buffer);
        descriptor.header = reply.header;
        PscExit {
            sw_exit_info_1: 0,
            sw_exit_info_2: reply.exit_info_2,
        }
    }
}

impl GuestMemory for Machine {
    fn read(&self, from: GuestPhysicalAddress, bytes: &mut [u8]) -> Result<(), Fault> {
        if self.counted(|counters| &mut counters.guest_reads) {
            return Err(Fault);
        }
        self.guest_read(Vmpl::Vmpl0, true, from, bytes)
            .map_err(|_| Fault)
    }

    fn write(&self, to: GuestPhysicalAddress, bytes: &[u8]) -> Result<(), Fault> {
        if self.counted(|counters| &mut counters.guest_writes) {
            return Err(Fault);
        }
        self.guest_write(Vmpl::Vmpl0, true, to, bytes)
            .map_err(|_| Fault)
    }
}

/// Runs an instruction as hardware does: a size mismatch the host resolves by a smash restarts it.
/// A page that is not assigned would fault to the host for ever, which ends as a fault here.
fn execute<T>(
    state: &mut State,
    page: GuestPhysicalAddress,
    mut instruction: impl FnMut(&mut State, usize) -> Outcome<T>,
) -> Result<T, Fault> {
    let index = state.index(page).ok_or(Fault)?;
    loop {
        match instruction(state, index) {
            Outcome::Done(result) => return Ok(result),
            Outcome::NeedsSmash => state.rmp().psmash(index),
            Outcome::NotAssigned | Outcome::NotValidated | Outcome::NoPage => return Err(Fault),
        }
    }
}

impl State {
    /// Counts an exit; what was to be done before it.
    fn due_before_exit(&mut self) -> Option<Box<dyn FnOnce() + Send>> {
        let (left, _) = self.before_exit.as_mut()?;
        *left = left.saturating_sub(1);
        let due = *left == 0;
        let what = due.then(|| self.before_exit.take()).flatten();
        what.map(|(_, what)| what)
    }

    fn indices(&self, page: GuestPhysicalAddress, size: PageSize) -> Range<usize> {
        let first = self.index(page).unwrap_or(0);
        first..first + usize::try_from(size.pages()).unwrap_or(0)
    }

    fn was_validated(&mut self, page: GuestPhysicalAddress, size: PageSize, validate: bool) {
        for index in self.indices(page, size) {
            self.not_zeroed.remove(&index);
            if validate {
                self.not_zeroed.insert(index);
            }
        }
    }

    fn was_zeroed(&mut self, page: GuestPhysicalAddress) {
        if let Some(index) = self.index(page) {
            self.not_zeroed.remove(&index);
        }
    }

    fn was_granted(&mut self, page: GuestPhysicalAddress, size: PageSize) {
        let range = self.indices(page, size);
        let with_contents = self.not_zeroed.range(range).next().copied();
        self.granted_with_contents = self.granted_with_contents.or(with_contents);
    }
}

impl PageInstructions for Machine {
    fn pvalidate(
        &self,
        page: GuestPhysicalAddress,
        size: PageSize,
        validate: bool,
    ) -> Result<PvalidateResult, Fault> {
        let mut state = self.state();
        state.counters.pvalidate += 1;
        if state.fails_now() {
            return Err(Fault);
        }
        let result = execute(&mut state, page, |state, index| {
            state.rmp().pvalidate(index, size, validate, Vmpl::Vmpl0)
        })?;
        if result.code == InstructionCode::SUCCESS && !result.unchanged {
            state.was_validated(page, size, validate);
        }
        Ok(result)
    }

    fn rmpadjust(
        &self,
        page: GuestPhysicalAddress,
        size: PageSize,
        target: RmpAdjustTarget,
    ) -> Result<InstructionCode, Fault> {
        let mut state = self.state();
        state.counters.rmpadjust += 1;
        if state.fails_now() {
            return Err(Fault);
        }
        let code = execute(&mut state, page, |state, index| {
            state.rmp().rmpadjust(index, size, target, Vmpl::Vmpl0)
        })?;
        if code == InstructionCode::SUCCESS && target.permissions() != 0 {
            state.was_granted(page, size);
        }
        Ok(code)
    }

    fn evict(&self, page: GuestPhysicalAddress, size: PageSize) -> Result<(), Fault> {
        if self.state().fails_now() {
            return Err(Fault);
        }
        for offset in (0..size.pages()).flat_map(|small| [small * 4096, small * 4096 + 4095]) {
            let address = page.checked_add(offset).ok_or(Fault)?;
            self.guest_read(Vmpl::Vmpl0, true, address, &mut [0])
                .map_err(|_| Fault)?;
        }
        Ok(())
    }

    fn zero(&self, page: GuestPhysicalAddress, size: PageSize) -> Result<(), Fault> {
        if self.state().fails_now() {
            return Err(Fault);
        }
        for small in 0..size.pages() {
            let address = page
                .checked_add(small * PageSize::Size4K.bytes())
                .ok_or(Fault)?;
            self.guest_write(Vmpl::Vmpl0, true, address, &[0; 4096])
                .map_err(|_| Fault)?;
            self.state().was_zeroed(address);
        }
        Ok(())
    }

    fn flush(&self) {
        let mut state = self.state();
        state.counters.flushes += 1;
        state.translations.flush();
    }
}
