// SPDX-License-Identifier: MIT OR Apache-2.0
//! The calling areas of the guest's vCPUs, and CALL_PENDING.

use core::sync::atomic::{AtomicU64, Ordering};

use snp::address::GuestPhysicalAddress;
use snp::svsm::{CallId, CallRegisters, calling_area, core_protocol};
use svsm_swiotlb::page_state::{PageState, PageStates};
use svsm_swiotlb::platform::GuestMemory;

/// Processors this example has places for.
pub const CPUS: usize = 4;

/// One of them; each calls for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cpu(pub usize);

/// A calling area for each processor, 0 where there is none. Only the processor itself changes its own.
#[derive(Debug, Default)]
pub struct CallingAreas([AtomicU64; CPUS]);

impl CallingAreas {
    /// The calling area of a processor.
    pub fn of(&self, cpu: Cpu) -> Option<GuestPhysicalAddress> {
        let word = self.0.get(cpu.0)?.load(Ordering::Acquire);
        (word != 0).then_some(GuestPhysicalAddress::new(word))
    }

    /// Moves it.
    pub fn set(&self, cpu: Cpu, area: GuestPhysicalAddress) {
        if let Some(word) = self.0.get(cpu.0) {
            word.store(area.bits(), Ordering::Release);
        }
    }

    // [pending]
    /// Takes CALL_PENDING: whether the guest wants a call. The page is the guest's, so its state word is held for the access
    /// (P5); a page that faults is quarantined by dropping the guard (P3). Where another call has the word, nobody can tell:
    /// the byte stays, and so do the guest's registers, because the host may have returned on its own account.
    pub fn take_pending<P: GuestMemory>(
        &self,
        cpu: Cpu,
        states: &PageStates<'_>,
        platform: &P,
    ) -> bool {
        let Some(area) = self.of(cpu) else {
            return false;
        };
        let Ok(page) = states.hold(area, &[PageState::CallingArea]) else {
            return false;
        };
        let byte = GuestPhysicalAddress::new(area.bits() + calling_area::CALL_PENDING);
        let mut pending = [0];
        if platform.read(byte, &mut pending).is_err() || platform.write(byte, &[0]).is_err() {
            return false;
        }
        page.keep();
        pending != [0]
    }
    // [end]

    // [launch]
    /// Moves the calling area of a processor to `launch`, the one that the secrets page names, if a call is pending there: a
    /// kernel that another one has started knows no other (P-14.1). Asked before [`CallingAreas::take_pending`], since where the
    /// processor called before is somebody else's memory by now. Not while it is another processor's calling area,
    /// nor for registers that name no core call (P-14.2): the host can come here at any VMGEXIT.
    pub fn claim_launch_area<P: GuestMemory>(
        &self,
        cpu: Cpu,
        launch: GuestPhysicalAddress,
        call: &CallRegisters,
        states: &PageStates<'_>,
        platform: &P,
    ) -> bool {
        let id = CallId::from_rax(call.rax);
        let core = id.protocol == core_protocol::NUMBER && id.call <= core_protocol::QUERY_PROTOCOL;
        let Some(old) = self.of(cpu).filter(|area| core && *area != launch) else {
            return false;
        };
        let Ok(page) = states.hold(launch, &[PageState::Valid]) else {
            return false;
        };
        let byte = GuestPhysicalAddress::new(launch.bits() + calling_area::CALL_PENDING);
        let mut pending = [0];
        if platform.read(byte, &mut pending).is_err() {
            return false;
        }
        if pending == [0] {
            page.keep();
            return false;
        }
        if platform.write(byte, &[0]).is_err() {
            return false;
        }
        self.set(cpu, launch);
        page.change_to(PageState::CallingArea);
        if let Ok(old) = states.hold(old, &[PageState::CallingArea]) {
            old.change_to(PageState::Valid);
        }
        true
    }
    // [end]
}
