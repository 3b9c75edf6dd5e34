// SPDX-License-Identifier: MIT OR Apache-2.0
//! Accesses of the guest and of devices to the two views of memory.

use std::boxed::Box;

use snp::address::{GuestPhysicalAddress, Vmpl};

use super::state::{Machine, Page, State};
use crate::access::{AccessKind, AccessOutcome, View, access};

/// Why an access did not happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessFault {
    /// No such memory, or the access crosses a page.
    NoPage,
    /// The rules say so.
    Refused(AccessOutcome),
}

/// What the untouched shared view of a page holds, different on every page: a device or guest that
/// reads it has read what nobody wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pattern(u64);

impl Pattern {
    /// The pattern of page `index`.
    pub const fn of(index: usize) -> Self {
        Self((index as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0x5AA5_C33C_0FF0_9669)
    }

    /// The page full of it.
    pub fn page(self) -> Box<[u8; 4096]> {
        let mut page = Box::new([0; 4096]);
        // At once: word by word it is most of what a test under Miri would do.
        page.copy_from_slice([self.0.to_le_bytes(); 512].as_flattened());
        page
    }
}

impl State {
    fn view(&mut self, view: View, index: usize) -> &mut Page {
        match view {
            View::Private => self
                .private
                .entry(index)
                .or_insert_with(|| Pattern::of(!index).page()),
            View::Shared => self
                .shared
                .entry(index)
                .or_insert_with(|| Pattern::of(index).page()),
        }
    }

    fn locate(
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

    fn checked(
        &mut self,
        vmpl: Vmpl,
        c_bit: bool,
        kind: AccessKind,
        address: GuestPhysicalAddress,
        length: usize,
    ) -> Result<&mut [u8], AccessFault> {
        let (index, offset) = self.locate(address, length)?;
        match access(&self.entries[index], vmpl, c_bit, kind) {
            AccessOutcome::Allowed(view) => {
                Ok(&mut self.view(view, index)[offset..offset + length])
            }
            refused => Err(AccessFault::Refused(refused)),
        }
    }
}

impl Machine {
    /// A read by the guest at `vmpl`, inside one page.
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
        let source = state.checked(vmpl, c_bit, AccessKind::Read, address, bytes.len())?;
        bytes.copy_from_slice(source);
        Ok(())
    }

    /// A write by the guest at `vmpl`, inside one page.
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
        state
            .checked(vmpl, c_bit, AccessKind::Write, address, bytes.len())?
            .copy_from_slice(bytes);
        Ok(())
    }

    /// A read by a device, inside one page: it sees the shared view, whoever owns the page.
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
        let page = state.view(View::Shared, index);
        bytes.copy_from_slice(&page[offset..offset + bytes.len()]);
        Ok(())
    }

    /// A write by a device, inside one page: it never reaches the private view.
    ///
    /// # Errors
    /// [`AccessFault::NoPage`].
    pub fn device_write(
        &self,
        address: GuestPhysicalAddress,
        bytes: &[u8],
    ) -> Result<(), AccessFault> {
        let mut state = self.state();
        let (index, offset) = state.locate(address, bytes.len())?;
        let page = state.view(View::Shared, index);
        page[offset..offset + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    /// A page whose shared view, which is all the host and devices can read, holds these bytes, at a multiple of their
    /// number.
    pub fn shared_view_of(&self, bytes: &[u8]) -> Option<u64> {
        let state = self.state();
        let holds = |page: &Page| page.chunks_exact(bytes.len()).any(|found| found == bytes);
        let (index, _) = state.shared.iter().find(|(_, page)| holds(page))?;
        Some(state.layout.gpa_of(*index)?.bits())
    }
}
