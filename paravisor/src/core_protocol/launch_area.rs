// SPDX-License-Identifier: MIT OR Apache-2.0
//! The launch calling area: how a kernel that another one has started makes its first call.
//!
//! Such a kernel (kexec, kdump) knows one calling area, the one in its secrets page, and calls from whichever vCPU it was
//! started on. VMPL0 knows another one of that vCPU, in memory that was the earlier kernel's and may hold anything by now.
//! So a call that is pending in the launch area moves the calling area of the vCPU that makes it there, as REMAP_CA would have.

use core::hint::spin_loop;

use snp::address::GuestPhysicalAddress;
use snp::svsm::{CallId, CallRegisters, core_protocol as call};
use svsm_swiotlb::page_state::{HeldPages, HoldError, PageState};
use svsm_swiotlb::platform::Fault;

use super::CoreProtocol;
use crate::vcpu_table::VcpuIndex;

/// How often a word is asked for that another processor has. It has it for one access, unless a call names the page.
const PATIENCE: u32 = 1000;

impl<M> CoreProtocol<'_, M> {
    /// Moves the calling area of `vcpu` to the launch area if it calls through that, and says whether it does. `take` reads
    /// CALL_PENDING of a calling area and clears it.
    ///
    /// The page has to be the guest's alone: while it is the calling area of another vCPU, pending calls in it are that vCPU's,
    /// and nobody else's VMGEXIT takes them. Of a vCPU whose registers name no call of this protocol none is taken either: the host
    /// can switch to VMPL0 at any VMGEXIT, and one for another reason hardly has such registers. Where the vCPU called before
    /// is not looked at, and nothing is written there.
    pub fn claim_launch_area(
        &self,
        vcpu: VcpuIndex,
        registers: &CallRegisters,
        take: impl FnOnce(GuestPhysicalAddress) -> Result<bool, Fault>,
    ) -> bool {
        let old = self.vcpus.calling_area(vcpu);
        if old == Some(self.launch_area) || !names_a_call(registers) {
            return false;
        }
        let Some(page) = self.hold_launch_area() else {
            return false;
        };
        let Ok(pending) = take(self.launch_area) else {
            log::warn!("the launch calling area is gone");
            return false; // dropping the guard quarantines the page
        };
        if !pending {
            page.keep();
            return false;
        }
        self.vcpus.set_calling_area(vcpu, self.launch_area);
        page.change_to(PageState::CallingArea);
        // The vCPU's own, so nobody else has its word; one that was lost stays quarantined.
        if let Some(old) = old
            && let Ok(old) = self.states.hold(old, &[PageState::CallingArea])
        {
            old.change_to(PageState::Valid);
        }
        true
    }

    fn hold_launch_area(&self) -> Option<HeldPages<'_>> {
        for _ in 0..PATIENCE {
            match self.states.hold(self.launch_area, &[PageState::Valid]) {
                Ok(page) => return Some(page),
                Err(HoldError::Busy) => spin_loop(),
                Err(_) => return None,
            }
        }
        None
    }
}

fn names_a_call(registers: &CallRegisters) -> bool {
    let id = CallId::from_rax(registers.rax);
    id.protocol == call::NUMBER && id.call <= call::QUERY_PROTOCOL
}
