// SPDX-License-Identifier: MIT OR Apache-2.0
//! One way to make an SVSM call: the MSR protocol of the GHCB, for kernels without a GHCB of their own at hand.
//!
//! It writes no memory but the calling area's first byte, and it leaves the GHCB MSR as it was, so it can be used beside
//! a kernel's GHCB. **Not from an NMI handler**: an NMI that comes between the MSR write and the exit, and that calls or
//! exits itself, overwrites the register and the calling area of the call it interrupted.

use core::ptr::NonNull;

use snp::ghcb_msr::parse_run_vmpl;
use snp::instructions::{PendingCall, read_ghcb_msr, svsm_call, write_ghcb_msr};
use snp::svsm::CallRegisters;

use crate::platform::CallFailed;

/// The transport of one vCPU.
#[derive(Debug)]
pub struct MsrTransport {
    calling_area: NonNull<u8>,
}

// SAFETY: The pointer is only used by `call`, whose contract says on which vCPU.
unsafe impl Send for MsrTransport {}
// SAFETY: As above.
unsafe impl Sync for MsrTransport {}

impl MsrTransport {
    /// A transport over a vCPU's calling area.
    ///
    /// # Safety
    /// `calling_area` is the private, writable mapping of that calling area for as long as the transport is used, and no
    /// Rust object overlaps it.
    pub const unsafe fn new(calling_area: NonNull<u8>) -> Self {
        Self { calling_area }
    }

    /// Makes a call (AMD 58019 section 5).
    ///
    /// # Errors
    /// [`CallFailed`] when the host resumed this vCPU without running the service, or answered the exit with an error;
    /// `registers` are unchanged then.
    ///
    /// # Safety
    /// 1. Runs at CPL 0 on the vCPU the calling area belongs to, with interrupts off and not in an NMI handler.
    /// 2. The call's arguments name no memory that Rust objects live in.
    pub unsafe fn call(&self, registers: &mut CallRegisters) -> Result<(), CallFailed> {
        let mut answer = *registers;
        // SAFETY: Interrupts are off, so nobody else uses the MSR and the calling area until the MSR has its old value
        // again; `new` vouches for the calling area, the caller for the arguments.
        let (pending, response) = unsafe {
            let saved = read_ghcb_msr();
            let outcome = svsm_call(self.calling_area.as_ptr(), &mut answer);
            write_ghcb_msr(saved);
            outcome
        };
        // The host alone decides whether VMPL0 runs. Only a cleared CALL_PENDING says that it did; the exit's own answer
        // has to be right as well before the registers mean anything.
        if pending == PendingCall::NotSeen || parse_run_vmpl(response).is_err() {
            return Err(CallFailed);
        }
        *registers = answer;
        Ok(())
    }
}
