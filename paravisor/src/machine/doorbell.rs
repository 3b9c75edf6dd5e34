// SPDX-License-Identifier: MIT OR Apache-2.0
//! The #HV doorbell page (GHCB specification, 4.1.12): events the host wants to signal under
//! restricted injection.
//!
//! VMPL0 uses no interrupts, so events are acknowledged and forgotten. The host cannot inject
//! anything else, which is the point of restricted injection.

use paravisor::termination::Reason;

use super::host_page::HostPage;
use super::pointer;

/// Offset of the byte with the flags; the vector lies before it.
pub const FLAGS: usize = 1;
/// Flag: the host has signalled and will not signal again until this is cleared.
pub const NO_FURTHER_SIGNAL: u8 = 1 << 7;
/// Flag: a machine check is pending.
const MACHINE_CHECK: u8 = 1 << 1;

/// A vCPU's doorbell. Without restricted injection the page stays private, zero and unregistered.
#[derive(Debug, Clone, Copy)]
pub struct Doorbell<'a> {
    page: &'a HostPage,
}

impl<'a> Doorbell<'a> {
    /// Wraps a page that is mapped.
    pub const fn new(page: &'a HostPage) -> Self {
        Self { page }
    }

    /// Address of the page.
    pub fn address(&self) -> *const u8 {
        pointer(self.page.gpa().bits())
    }

    /// Acknowledges whatever is pending.
    ///
    /// # Errors
    /// [`Reason::DoorbellEvent`] for a machine check: memory may be damaged.
    pub fn acknowledge(&self) -> Result<(), Reason> {
        // In one step, or an event that comes between the two would be lost.
        let [_vector, flags] = self.page.exchange(0, 0).to_le_bytes();
        if flags & MACHINE_CHECK == 0 {
            Ok(())
        } else {
            Err(Reason::DoorbellEvent)
        }
    }
}
