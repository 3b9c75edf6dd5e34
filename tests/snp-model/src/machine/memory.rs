// SPDX-License-Identifier: MIT OR Apache-2.0
//! Accesses of the guest, of devices and of the host.

use snp::address::{GuestPhysicalAddress, Vmpl};

use super::state::{Machine, State};
use crate::access::{AccessKind, AccessOutcome, View, access};

/// Why an access did not happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessFault {
    /// No such memory, or the access crosses a page.
    NoPage,
    /// The rules say so.
    Refused(AccessOutcome),
    /// The host or a device writes to what the guest owns: the reverse map keeps it from there.
    GuestOwned,
}

impl State {
    pub(super) fn locate(
        &self,
        address: GuestPhysicalAddress,
        length: usize,
    ) -> Result<(usize, usize), AccessFault> {
        let offset = usize::try_from(address.page_offset()).map_err(|_| AccessFault::NoPage)?;
        let index = self.index(address).ok_or(AccessFault::NoPage)?;
        if offset + length > 4096 {
            Err(AccessFault::NoPage)
        } else {
            Ok((index, offset))
        }
    }

    /// Which bytes an access means, by the entry of the page as it is now.
    pub(super) fn checked(
        &self,
        vmpl: Vmpl,
        c_bit: bool,
        kind: AccessKind,
        index: usize,
    ) -> Result<View, AccessFault> {
        match access(&self.entries[index], vmpl, c_bit, kind) {
            AccessOutcome::Allowed(view) => Ok(view),
            refused => Err(AccessFault::Refused(refused)),
        }
    }
}

impl Machine {
    /// A read by the guest at `vmpl`, inside one page, on a processor that keeps no translations.
    ///
    /// # Errors
    /// What the hardware would raise.
    pub fn guest_read(
        &self,
        vmpl: Vmpl,
        c_bit: bool,
        address: GuestPhysicalAddress,
        bytes: &mut [u8],
    ) -> Result<(), AccessFault> {
        let mut state = self.state();
        let (index, offset) = state.locate(address, bytes.len())?;
        let view = state.checked(vmpl, c_bit, AccessKind::Read, index)?;
        state.frame_of(index).read(view, offset, bytes);
        Ok(())
    }

    /// A write by the guest at `vmpl`, inside one page, on a processor that keeps no translations.
    ///
    /// # Errors
    /// What the hardware would raise.
    pub fn guest_write(
        &self,
        vmpl: Vmpl,
        c_bit: bool,
        address: GuestPhysicalAddress,
        bytes: &[u8],
    ) -> Result<(), AccessFault> {
        let mut state = self.state();
        let (index, offset) = state.locate(address, bytes.len())?;
        let view = state.checked(vmpl, c_bit, AccessKind::Write, index)?;
        state.frame_of(index).write(view, offset, bytes);
        Ok(())
    }

    /// A read by the host or a device, inside one page, whoever owns it: what is private is encrypted.
    ///
    /// # Errors
    /// [`AccessFault::NoPage`].
    pub fn device_read(
        &self,
        address: GuestPhysicalAddress,
        bytes: &mut [u8],
    ) -> Result<(), AccessFault> {
        let mut state = self.state();
        let (index, offset) = state.locate(address, bytes.len())?;
        state.frame_of(index).read(View::Shared, offset, bytes);
        Ok(())
    }

    /// A write by the host or a device, inside one page.
    ///
    /// # Errors
    /// [`AccessFault::NoPage`] and [`AccessFault::GuestOwned`].
    pub fn device_write(
        &self,
        address: GuestPhysicalAddress,
        bytes: &[u8],
    ) -> Result<(), AccessFault> {
        let mut state = self.state();
        let (index, offset) = state.locate(address, bytes.len())?;
        if state.entries[index].assigned {
            return Err(AccessFault::GuestOwned);
        }
        state.frame_of(index).write(View::Shared, offset, bytes);
        Ok(())
    }

    /// A page in which the host reads this word, at a multiple of its size.
    pub fn host_finds(&self, word: &[u8; 8]) -> Option<u64> {
        let mut state = self.state();
        let index = state.frames.page_with(*word)?;
        Some(state.layout.gpa_of(index)?.bits())
    }
}
