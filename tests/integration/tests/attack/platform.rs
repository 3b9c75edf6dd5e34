// SPDX-License-Identifier: MIT OR Apache-2.0
//! The hostile machine as the paravisor's platform: what the service needs, and processors to start.

use std::ops::Deref;

use paravisor::apic_ids::ProcessorId;
use paravisor::vcpu_control::{StartError, VcpuControl};
use reference_model::Recorder;
use snp::address::{GuestPhysicalAddress, PageSize};
use snp::operands::{InstructionCode, PvalidateResult, RmpAdjustTarget};
use snp::psc::PscDescriptor;
use snp_model::machine::Machine;
use svsm_swiotlb::platform::{Fault, GuestMemory, HostPages, Issue, PageInstructions, PscExit};

pub use crate::hostile_machine::{Act, HostileMachine, Surprise, gpa};

/// The platform.
#[derive(Debug)]
pub struct Platform {
    pub recorder: Recorder<HostileMachine>,
}

impl Platform {
    pub fn new(machine: HostileMachine) -> Self {
        Self {
            recorder: Recorder::new(machine),
        }
    }

    pub fn machine(&self) -> &Machine {
        self.recorder.inner().machine()
    }
}

impl Deref for Platform {
    type Target = HostileMachine;

    fn deref(&self) -> &HostileMachine {
        self.recorder.inner()
    }
}

impl HostPages for Platform {
    fn page_state_change(&self, descriptor: &mut PscDescriptor, issue: Issue) -> PscExit {
        self.recorder.page_state_change(descriptor, issue)
    }
}

impl GuestMemory for Platform {
    fn read(&self, from: GuestPhysicalAddress, bytes: &mut [u8]) -> Result<(), Fault> {
        self.recorder.read(from, bytes)
    }

    fn write(&self, to: GuestPhysicalAddress, bytes: &[u8]) -> Result<(), Fault> {
        self.recorder.write(to, bytes)
    }
}

impl PageInstructions for Platform {
    fn pvalidate(
        &self,
        page: GuestPhysicalAddress,
        size: PageSize,
        validate: bool,
    ) -> Result<PvalidateResult, Fault> {
        self.recorder.pvalidate(page, size, validate)
    }

    fn rmpadjust(
        &self,
        page: GuestPhysicalAddress,
        size: PageSize,
        target: RmpAdjustTarget,
    ) -> Result<InstructionCode, Fault> {
        self.recorder.rmpadjust(page, size, target)
    }

    fn evict(&self, page: GuestPhysicalAddress, size: PageSize) -> Result<(), Fault> {
        self.recorder.evict(page, size)
    }

    fn zero(&self, page: GuestPhysicalAddress, size: PageSize) -> Result<(), Fault> {
        self.recorder.zero(page, size)
    }

    fn flush(&self) {
        self.recorder.flush();
    }
}

impl VcpuControl for Platform {
    fn start_processor(&self, _: ProcessorId) -> Result<(), StartError> {
        self.recorder.foreign("start_processor");
        if self.enter("start_processor").is_some() {
            Err(StartError::Refused)
        } else {
            Ok(())
        }
    }
}
