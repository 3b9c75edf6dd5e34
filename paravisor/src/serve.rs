// SPDX-License-Identifier: MIT OR Apache-2.0
//! The run loop of one processor: run the guest, serve its call, run it again (SVSM specification,
//! section 5).
//!
//! The boot vCPU is always there. A further processor runs whichever vCPU CREATE_VCPU has put into its
//! place, if any: it takes the VMSA page's state word while it looks at the page, gives it back while
//! the guest runs, and finds out afterwards whether DELETE_VCPU has been there.

#![forbid(unsafe_code)]

use paravisor::dispatcher::Dispatcher;
use paravisor::termination::Reason;
use paravisor::vcpu_table::{Seat, VcpuIndex};
use svsm_swiotlb::page_state::HeldPages;
use svsm_swiotlb::platform::Fault;

use crate::machine::Machine;
use crate::machine::doorbell::Doorbell;
use crate::machine::guest_access::take_call_pending;
use crate::machine::processor;
use crate::machine::run_vmpl::{Switch, run_guest};
use crate::machine::vmsa_page::VmsaPage;

/// One processor and what serves it.
#[derive(Debug)]
pub struct Server<'a> {
    /// The protocols.
    pub dispatcher: &'a Dispatcher<'a, Machine>,
    /// Events of the host.
    pub doorbell: Doorbell<'a>,
    /// The vCPU of this processor, there or not.
    pub vcpu: VcpuIndex,
    /// VMSA of the boot vCPU, a page of ours that no call can name. Those of others are the guest's.
    pub boot_vmsa: Option<VmsaPage>,
}

/// A vCPU that stays what it is until its word is given back.
#[derive(Debug)]
struct Seated<'a> {
    vmsa: VmsaPage,
    /// None for the boot vCPU.
    word: Option<HeldPages<'a>>,
}

/// Why a vCPU is not run any more.
#[derive(Debug)]
enum Trouble {
    /// Its VMSA is gone.
    Lost,
    /// The VM has to end.
    Fatal(Reason),
}

impl From<Fault> for Trouble {
    fn from(_: Fault) -> Self {
        Self::Lost
    }
}

impl<'a> Server<'a> {
    /// Runs until the VM has to end, and says why. A function of its own in the image: from here on nothing
    /// may panic, which the boot before it may (`tests/integration/tests/image_call_path`).
    #[inline(never)]
    pub fn run(&self) -> Reason {
        loop {
            if let Err(reason) = self.turn() {
                return reason;
            }
        }
    }

    /// One entry into the guest and what it wants on return.
    fn turn(&self) -> Result<(), Reason> {
        self.doorbell.acknowledge()?;
        let Some(seated) = self.seat() else {
            processor::halt();
            return Ok(());
        };
        let allowed = seated.vmsa.allow_running().map_err(Trouble::from);
        if !self.leave(seated, allowed)? {
            return Ok(());
        }
        let switch = run_guest(&self.doorbell);
        if switch == Switch::Refused {
            // The boot vCPU is known to the host. Another is perhaps not yet, or no longer; the host
            // ends the wait when it learns of it, even between the refusal and the wait.
            if self.boot_vmsa.is_some() {
                return Err(Reason::RunVmpl);
            }
            processor::halt();
            return Ok(());
        }
        let Some(seated) = self.seat() else {
            return Ok(());
        };
        let served = self.serve(&seated.vmsa, switch);
        self.leave(seated, served)?;
        Ok(())
    }

    /// Serves the call of a guest that has stopped, if it makes one. The word of its VMSA is held, so
    /// no other vCPU deletes it meanwhile.
    fn serve(&self, vmsa: &VmsaPage, switch: Switch) -> Result<(), Trouble> {
        // From here on the host cannot run the guest behind our back.
        vmsa.forbid_running()?;
        // A return for another reason, or without a call, is the host's doing: ignored.
        if switch != Switch::Returned || !vmsa.stopped_by_vmgexit()? {
            return Ok(());
        }
        let call = vmsa.call()?;
        let answer = self
            .dispatcher
            .serve(self.vcpu, &call, take_call_pending)
            .map_err(Trouble::Fatal)?;
        if let Some(answer) = answer {
            vmsa.answer(&answer)?;
        }
        Ok(())
    }

    /// Takes the vCPU of this processor, if it has one. While DELETE_VCPU has the word there is nothing
    /// else to do here; it leaves for no host and waits for nobody while it has it.
    fn seat(&self) -> Option<Seated<'a>> {
        if let Some(vmsa) = self.boot_vmsa {
            return Some(Seated { vmsa, word: None });
        }
        let core = &self.dispatcher.core;
        loop {
            match core.vcpus.seat(self.vcpu, core.states) {
                Seat::Taken(page, word) => {
                    return Some(Seated {
                        vmsa: VmsaPage::of(page),
                        word: Some(word),
                    });
                }
                Seat::Busy => core::hint::spin_loop(),
                Seat::Vacant => return None,
            }
        }
    }

    /// Gives the word back. `false`: the vCPU is gone.
    fn leave(&self, seated: Seated<'_>, result: Result<(), Trouble>) -> Result<bool, Reason> {
        match (result, seated.word) {
            (Ok(()), word) => {
                if let Some(word) = word {
                    word.keep();
                }
                Ok(true)
            }
            (Err(Trouble::Fatal(reason)), _) => Err(reason),
            (Err(Trouble::Lost), None) => Err(Reason::NotValidated),
            (Err(Trouble::Lost), Some(word)) => {
                log::warn!("the VMSA at {} is gone", seated.vmsa.page());
                self.dispatcher.core.lose_vcpu(self.vcpu, word);
                Ok(false)
            }
        }
    }
}
