// SPDX-License-Identifier: MIT OR Apache-2.0
//! The service's platform traits, as VMPL 0 sees this machine.

use std::boxed::Box;
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
        execute(&mut state, page, |state, index| {
            state.rmp().pvalidate(index, size, validate, Vmpl::Vmpl0)
        })
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
        execute(&mut state, page, |state, index| {
            state.rmp().rmpadjust(index, size, target, Vmpl::Vmpl0)
        })
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
        }
        Ok(())
    }

    fn flush(&self) {
        self.state().counters.flushes += 1;
    }
}

#[cfg(test)]
mod tests {
    use snp::psc::{PscEntry, PscHeader, PscOperation};

    use super::*;
    use crate::access::AccessOutcome;
    use crate::layout::Range;
    use crate::machine::AccessFault;

    const PAGE: GuestPhysicalAddress = GuestPhysicalAddress::new(0x20_0000);

    fn share(machine: &Machine, operation: PscOperation) -> PscDescriptor {
        let mut descriptor = PscDescriptor::new();
        descriptor.header = PscHeader::default();
        descriptor.entries[0] = PscEntry::request(PAGE, PageSize::Size2M, operation);
        machine.page_state_change(&mut descriptor, Issue::First);
        descriptor
    }

    #[test]
    fn the_views_are_different_bytes() {
        let machine = Machine::new(&[Range {
            base: 0,
            bytes: 4 << 20,
        }]);
        share(&machine, PscOperation::Private);
        machine.pvalidate(PAGE, PageSize::Size2M, true).unwrap();
        machine.write(PAGE, b"secret").unwrap();
        let mut seen = [0; 6];
        machine.device_read(PAGE, &mut seen).unwrap();
        assert_ne!(&seen, b"secret");
        let next = PAGE.checked_add(0x1000).unwrap();
        let (mut private, mut shared) = ([0; 6], [0; 6]);
        machine.read(next, &mut private).unwrap();
        machine.device_read(next, &mut shared).unwrap();
        assert_ne!(private, shared, "nor are the untouched ones equal");
        machine.device_write(PAGE, b"attack").unwrap();
        machine.read(PAGE, &mut seen).unwrap();
        assert_eq!(&seen, b"secret");
    }

    #[test]
    fn nothing_survives_a_conversion() {
        let machine = Machine::new(&[Range {
            base: 0,
            bytes: 4 << 20,
        }]);
        share(&machine, PscOperation::Private);
        machine.pvalidate(PAGE, PageSize::Size2M, true).unwrap();
        machine.write(PAGE, b"secret").unwrap();
        machine.device_write(PAGE, b"public").unwrap();
        share(&machine, PscOperation::Shared);
        assert_eq!(machine.read(PAGE, &mut [0; 6]), Err(Fault));
        let mut seen = [0; 6];
        machine.device_read(PAGE, &mut seen).unwrap();
        assert_ne!(&seen, b"public");
        share(&machine, PscOperation::Private);
        machine.pvalidate(PAGE, PageSize::Size2M, true).unwrap();
        let mut seen = [0; 6];
        machine.read(PAGE, &mut seen).unwrap();
        assert_ne!(&seen, b"secret");
    }

    #[test]
    fn repeating_a_change_changes_nothing() {
        let machine = Machine::new(&[Range {
            base: 0,
            bytes: 4 << 20,
        }]);
        share(&machine, PscOperation::Private);
        machine.pvalidate(PAGE, PageSize::Size2M, true).unwrap();
        machine.write(PAGE, b"secret").unwrap();
        share(&machine, PscOperation::Private);
        let mut seen = [0; 6];
        machine.read(PAGE, &mut seen).unwrap();
        assert_eq!(&seen, b"secret");
        assert_eq!(machine.counters().pages_private, 512);
        assert_eq!(machine.counters().psc_exits, 2);
    }

    #[test]
    fn a_lower_level_needs_a_grant() {
        let machine = Machine::new(&[Range {
            base: 0,
            bytes: 4 << 20,
        }]);
        machine.launch(PAGE, 0x1000);
        let refused = AccessFault::Refused(AccessOutcome::VmplViolation);
        assert_eq!(
            machine.guest_read(Vmpl::Vmpl2, true, PAGE, &mut [0]),
            Err(refused)
        );
        let grant = RmpAdjustTarget::grant(Vmpl::Vmpl2, snp::operands::RmpPermissions::READ);
        machine.rmpadjust(PAGE, PageSize::Size4K, grant).unwrap();
        assert_eq!(
            machine.guest_read(Vmpl::Vmpl2, true, PAGE, &mut [0]),
            Ok(())
        );
    }

    #[test]
    fn the_nth_call_fails_once() {
        let machine = Machine::new(&[Range {
            base: 0,
            bytes: 4 << 20,
        }]);
        machine.launch(PAGE, 0x1000);
        machine.fail_platform_call(2);
        assert_eq!(machine.write(PAGE, b"a"), Ok(()));
        assert_eq!(machine.write(PAGE, b"b"), Err(Fault));
        assert_eq!(machine.write(PAGE, b"c"), Ok(()));
        assert_eq!(machine.counters().guest_writes, 3);
        assert_eq!(machine.counters().guest_reads, 0);
    }
}
