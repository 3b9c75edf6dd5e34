// SPDX-License-Identifier: MIT OR Apache-2.0
//! The launch calling area: how a kernel that another one has started makes its first call (docs/PROTOCOL.md, 14).
//!
//! Such a kernel (kexec, kdump) knows one calling area, the one in its secrets page, and calls from whichever vCPU it was
//! started on. VMPL0 knows another one of that vCPU, in memory that was the earlier kernel's and may hold anything by now.
//! So a call that is pending in the launch area moves the calling area of the vCPU that makes it there, as REMAP_CA would have.

#[cfg(not(loom))]
use core::hint::spin_loop;

#[cfg(loom)]
use loom::hint::spin_loop;
use snp::address::GuestPhysicalAddress;
use snp::svsm::{CallId, CallRegisters, core_protocol as call};
use svsm_swiotlb::page_state::{HeldPages, HoldError, PageState, PageStates};
use svsm_swiotlb::platform::Fault;

use crate::vcpu_table::{VcpuIndex, VcpuTable};

/// How often a word is asked for that another processor has. It has it for one access, unless a call names the page.
const PATIENCE: u32 = if cfg!(loom) { 2 } else { 1000 };

/// The page that the guest's secrets page names.
#[derive(Debug, Clone, Copy)]
pub struct LaunchArea(pub GuestPhysicalAddress);

impl LaunchArea {
    /// Moves the calling area of `vcpu` here if it calls through this one, and says whether it does. `take` reads
    /// CALL_PENDING of a calling area and clears it.
    ///
    /// The page has to be the guest's alone: while it is the calling area of another vCPU, pending calls in it are that vCPU's,
    /// and nobody else's VMGEXIT takes them. Of a vCPU whose registers name no call of the core protocol none is taken either:
    /// the host can switch to VMPL0 at any VMGEXIT, and one for another reason hardly has such registers. Where the vCPU
    /// called before is not looked at, and nothing is written there.
    // On the way of every call; apart from its one caller it costs each of them more than its size saves.
    #[inline(always)]
    pub fn claim(
        self,
        vcpus: &VcpuTable<'_>,
        states: &PageStates<'_>,
        vcpu: VcpuIndex,
        registers: &CallRegisters,
        take: impl FnOnce(GuestPhysicalAddress) -> Result<bool, Fault>,
    ) -> bool {
        let old = vcpus.calling_area(vcpu);
        if old == Some(self.0) || !names_a_call(registers) {
            return false;
        }
        let Some(page) = self.hold(states) else {
            return false;
        };
        let Ok(pending) = take(self.0) else {
            log::warn!("the launch calling area is gone");
            return false; // dropping the guard quarantines the page
        };
        if !pending {
            page.keep();
            return false;
        }
        vcpus.set_calling_area(vcpu, self.0);
        page.change_to(PageState::CallingArea);
        // The vCPU's own, so nobody else has its word; one that was lost stays quarantined.
        if let Some(old) = old
            && let Ok(old) = states.hold(old, &[PageState::CallingArea])
        {
            old.change_to(PageState::Valid);
        }
        true
    }

    fn hold<'s>(self, states: &PageStates<'s>) -> Option<HeldPages<'s>> {
        for _ in 0..PATIENCE {
            match states.hold(self.0, &[PageState::Valid]) {
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
