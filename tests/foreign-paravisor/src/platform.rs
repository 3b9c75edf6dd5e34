// SPDX-License-Identifier: MIT OR Apache-2.0
//! The service's platform traits over this paravisor's hardware.

use snp::address::{GuestPhysicalAddress, PageSize};
use snp::ghcb::exit_code;
use snp::operands::{InstructionCode, PvalidateResult, RmpAdjustTarget};
use snp::psc::{PscDescriptor, PscHeader};
use svsm_swiotlb::platform::{Fault, GuestMemory, HostPages, Issue, PageInstructions, PscExit};
use zerocopy::transmute;

use crate::hardware::Hardware;

/// The adapter.
#[derive(Debug)]
pub struct Platform<H> {
    /// What it adapts.
    pub hardware: H,
}

// [host-pages]
impl<H: Hardware> HostPages for Platform<H> {
    fn page_state_change(&self, descriptor: &mut PscDescriptor, issue: Issue) -> PscExit {
        const ENTRIES: usize = size_of::<PscHeader>();
        let last = usize::from(descriptor.header.end_entry);
        self.hardware.write_buffer(0, transmute!(descriptor.header));
        // Again: the entries in the buffer are the host's by now, and say how far it came inside one.
        if issue == Issue::First {
            for (index, entry) in descriptor.entries.iter().take(last + 1).enumerate() {
                let offset = ENTRIES + index * size_of::<u64>();
                self.hardware.write_buffer(offset, entry.into_bits());
            }
        }
        let exit = self.hardware.exit_with_buffer(exit_code::PAGE_STATE_CHANGE);
        // The header, once, unjudged; the entries never.
        descriptor.header = transmute!(self.hardware.read_buffer(0));
        PscExit {
            sw_exit_info_1: exit.0,
            sw_exit_info_2: exit.1,
        }
    }
}
// [end]

// [guest-memory]
impl<H: Hardware> GuestMemory for Platform<H> {
    fn read(&self, from: GuestPhysicalAddress, bytes: &mut [u8]) -> Result<(), Fault> {
        fault_unless(self.hardware.copy_from_guest(from, bytes))
    }

    fn write(&self, to: GuestPhysicalAddress, bytes: &[u8]) -> Result<(), Fault> {
        fault_unless(self.hardware.copy_to_guest(to, bytes))
    }
}

fn fault_unless(done: bool) -> Result<(), Fault> {
    if done { Ok(()) } else { Err(Fault) }
}
// [end]

impl<H: Hardware> PageInstructions for Platform<H> {
    fn pvalidate(
        &self,
        page: GuestPhysicalAddress,
        size: PageSize,
        validate: bool,
    ) -> Result<PvalidateResult, Fault> {
        self.hardware.pvalidate(page, size, validate).ok_or(Fault)
    }

    fn rmpadjust(
        &self,
        page: GuestPhysicalAddress,
        size: PageSize,
        target: RmpAdjustTarget,
    ) -> Result<InstructionCode, Fault> {
        self.hardware.rmpadjust(page, size, target).ok_or(Fault)
    }

    fn evict(&self, page: GuestPhysicalAddress, size: PageSize) -> Result<(), Fault> {
        fault_unless(self.hardware.evict(page, size))
    }

    fn zero(&self, page: GuestPhysicalAddress, size: PageSize) -> Result<(), Fault> {
        fault_unless(self.hardware.zero(page, size))
    }

    fn flush(&self) {
        self.hardware.flush_guest();
    }
}
