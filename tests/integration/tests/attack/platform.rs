// SPDX-License-Identifier: MIT OR Apache-2.0
//! The model machine as the paravisor's platform, with a host that acts between any two platform calls.

use std::sync::{Mutex, MutexGuard, PoisonError};

use paravisor::apic_ids::ProcessorId;
use paravisor::vcpu_control::{StartError, VcpuControl};
use reference_model::Recorder;
use snp::address::{GuestPhysicalAddress, PageSize};
use snp::operands::{InstructionCode, PvalidateResult, RmpAdjustTarget};
use snp::psc::{PscDescriptor, PscOperation};
use snp::vmsa::{EFER_SVME, Vmsa};
use snp_model::machine::Machine;
use svsm_swiotlb::platform::{Fault, GuestMemory, HostPages, Issue, PageInstructions, PscExit};

/// What the host does between two platform calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Takes a page back.
    Rescind(u64),
    /// Takes a page back and gives it again, unvalidated.
    Renew(u64),
    /// Backs the first page with the memory of the second.
    Remap(u64, u64),
    /// Splits the large entry that covers a page.
    Smash(u64),
}

/// What an instruction answers that the rules of the hardware do not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Surprise {
    /// PVALIDATE(1) finds the page valid.
    ValidAlready,
    /// PVALIDATE(0) finds the page invalid.
    InvalidAlready,
    /// PVALIDATE fails with a size mismatch.
    SizeMismatch,
}

#[derive(Debug, Default)]
struct Plot {
    calls: u64,
    act: Option<(u64, Act)>,
    surprise: Option<Surprise>,
    refuse_start: bool,
}

/// The platform.
#[derive(Debug)]
pub struct Platform {
    pub recorder: Recorder<Machine>,
    plot: Mutex<Plot>,
}

pub const fn gpa(bits: u64) -> GuestPhysicalAddress {
    GuestPhysicalAddress::new(bits)
}

impl Platform {
    pub fn new(machine: Machine) -> Self {
        Self {
            recorder: Recorder::new(machine),
            plot: Mutex::default(),
        }
    }

    pub fn machine(&self) -> &Machine {
        self.recorder.inner()
    }

    fn plot(&self) -> MutexGuard<'_, Plot> {
        self.plot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Platform calls so far.
    pub fn calls(&self) -> u64 {
        self.plot().calls
    }

    /// The host acts before the nth platform call from the start.
    pub fn act_before(&self, nth: u64, act: Act) {
        self.plot().act = Some((nth, act));
    }

    /// The next instruction it fits answers so.
    pub fn surprise(&self, surprise: Surprise) {
        self.plot().surprise = Some(surprise);
    }

    /// The host starts no processor.
    pub fn refuse_start(&self) {
        self.plot().refuse_start = true;
    }

    pub fn perform(&self, act: Act) {
        let machine = self.machine();
        let change = |page, operation| {
            machine.host_changes(gpa(page), PageSize::Size4K, operation);
        };
        match act {
            Act::Rescind(page) => change(page, PscOperation::Shared),
            Act::Renew(page) => {
                change(page, PscOperation::Shared);
                change(page, PscOperation::Private);
            }
            Act::Remap(page, source) => {
                machine.host_remaps(gpa(page), gpa(source));
            }
            Act::Smash(page) => machine.host_splits(gpa(page)),
        }
    }

    fn enter(&self) {
        let mut plot = self.plot();
        plot.calls += 1;
        let due = plot.act.filter(|(nth, _)| *nth == plot.calls);
        drop(plot);
        if let Some((_, act)) = due {
            self.perform(act);
        }
    }

    fn surprised_by(&self, validate: bool) -> Option<PvalidateResult> {
        let mut plot = self.plot();
        let fits = match plot.surprise? {
            Surprise::ValidAlready => validate,
            Surprise::InvalidAlready => !validate,
            Surprise::SizeMismatch => true,
        };
        let surprise = fits.then(|| plot.surprise.take()).flatten()?;
        Some(match surprise {
            Surprise::SizeMismatch => PvalidateResult {
                code: InstructionCode::FAIL_SIZEMISMATCH,
                unchanged: false,
            },
            _ => PvalidateResult {
                code: InstructionCode::SUCCESS,
                unchanged: true,
            },
        })
    }
}

impl HostPages for Platform {
    fn page_state_change(&self, descriptor: &mut PscDescriptor, issue: Issue) -> PscExit {
        self.enter();
        self.recorder.page_state_change(descriptor, issue)
    }
}

impl GuestMemory for Platform {
    fn read(&self, from: GuestPhysicalAddress, bytes: &mut [u8]) -> Result<(), Fault> {
        self.enter();
        self.recorder.read(from, bytes)
    }

    fn write(&self, to: GuestPhysicalAddress, bytes: &[u8]) -> Result<(), Fault> {
        self.enter();
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
        self.enter();
        match self.surprised_by(validate) {
            Some(result) => Ok(result),
            None => self.recorder.pvalidate(page, size, validate),
        }
    }

    fn rmpadjust(
        &self,
        page: GuestPhysicalAddress,
        size: PageSize,
        target: RmpAdjustTarget,
    ) -> Result<InstructionCode, Fault> {
        self.enter();
        self.recorder.rmpadjust(page, size, target)
    }

    fn zero(&self, page: GuestPhysicalAddress, size: PageSize) -> Result<(), Fault> {
        self.enter();
        self.recorder.zero(page, size)
    }

    fn flush(&self) {
        self.enter();
        self.recorder.flush();
    }
}

impl VcpuControl for Platform {
    fn start_processor(&self, _: ProcessorId) -> Result<(), StartError> {
        self.enter();
        if self.plot().refuse_start {
            Err(StartError::Refused)
        } else {
            Ok(())
        }
    }

    fn set_runnable(&self, vmsa: GuestPhysicalAddress, runnable: bool) -> Result<(), Fault> {
        let field = gpa(vmsa.bits() + core::mem::offset_of!(Vmsa, efer) as u64);
        let mut bytes = [0; 8];
        self.read(field, &mut bytes)?;
        let efer = u64::from_le_bytes(bytes) & !EFER_SVME;
        let svme = if runnable { EFER_SVME } else { 0 };
        self.write(field, &(efer | svme).to_le_bytes())
    }
}
