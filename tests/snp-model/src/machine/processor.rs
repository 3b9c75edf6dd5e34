// SPDX-License-Identifier: MIT OR Apache-2.0
//! Processors of the guest that keep translations, and go by them until somebody flushes.
//!
//! A translation is kept with the permissions that the page had, and with its frame. What the host changes in the reverse
//! map flushes nothing, as a host that is not on the guest's side leaves it: VMPL0's own flush is the only one.

use std::collections::HashMap;

use snp::address::{GuestPhysicalAddress, Vmpl};

use super::memory::AccessFault;
use super::state::{Machine, State};
use crate::access::{AccessKind, View};

/// What a translation is for: processor, level, C-bit, page.
type Key = (usize, Vmpl, bool, usize);

/// What it permits, and where it leads.
#[derive(Clone, Copy, Debug)]
struct Translation {
    frame: usize,
    view: View,
    read: bool,
    write: bool,
}

impl Translation {
    const fn permits(&self, kind: AccessKind) -> bool {
        match kind {
            AccessKind::Write => self.write,
            _ => self.read,
        }
    }
}

/// What all processors keep.
#[derive(Debug, Default)]
pub(super) struct Translations(HashMap<Key, Translation>);

impl Translations {
    pub fn flush(&mut self) {
        self.0.clear();
    }
}

impl State {
    /// Frame and view of an access: by the translation that is kept, else by the entry, which is kept then.
    fn translate(&mut self, key: Key, kind: AccessKind) -> Result<(usize, View), AccessFault> {
        let (_, vmpl, c_bit, index) = key;
        if let Some(kept) = self.translations.0.get(&key)
            && kept.permits(kind)
        {
            return Ok((kept.frame, kept.view));
        }
        let view = self.checked(vmpl, c_bit, kind, index)?;
        let now = self.translation(vmpl, c_bit, index);
        self.translations.0.insert(key, now);
        Ok((now.frame, view))
    }

    /// What the entry says now.
    fn translation(&self, vmpl: Vmpl, c_bit: bool, index: usize) -> Translation {
        let allows = |kind| self.checked(vmpl, c_bit, kind, index).is_ok();
        Translation {
            frame: self.frames.behind(index),
            view: if c_bit { View::Private } else { View::Shared },
            read: allows(AccessKind::Read),
            write: allows(AccessKind::Write),
        }
    }
}

/// A processor.
#[derive(Clone, Copy, Debug)]
pub struct Processor<'a> {
    machine: &'a Machine,
    number: usize,
}

impl Processor<'_> {
    /// A read by the guest at `vmpl`, inside one page.
    ///
    /// # Errors
    /// What the hardware would raise.
    pub fn read(
        &self,
        vmpl: Vmpl,
        c_bit: bool,
        address: GuestPhysicalAddress,
        bytes: &mut [u8],
    ) -> Result<(), AccessFault> {
        let mut state = self.machine.state();
        let (index, offset) = state.locate(address, bytes.len())?;
        let key = (self.number, vmpl, c_bit, index);
        let (frame, view) = state.translate(key, AccessKind::Read)?;
        state.frames.frame(frame).read(view, offset, bytes);
        Ok(())
    }

    /// A write by the guest at `vmpl`, inside one page.
    ///
    /// # Errors
    /// What the hardware would raise.
    pub fn write(
        &self,
        vmpl: Vmpl,
        c_bit: bool,
        address: GuestPhysicalAddress,
        bytes: &[u8],
    ) -> Result<(), AccessFault> {
        let mut state = self.machine.state();
        let (index, offset) = state.locate(address, bytes.len())?;
        let key = (self.number, vmpl, c_bit, index);
        let (frame, view) = state.translate(key, AccessKind::Write)?;
        state.frames.frame(frame).write(view, offset, bytes);
        Ok(())
    }
}

impl Machine {
    /// Processor `number`.
    pub const fn processor(&self, number: usize) -> Processor<'_> {
        Processor {
            machine: self,
            number,
        }
    }

    /// A page of which a processor keeps a translation that permits more than its entry, or leads elsewhere.
    pub fn stronger_translation(&self) -> Option<u64> {
        let state = self.state();
        let stronger = |(_, vmpl, c_bit, index): &Key, kept: &Translation| {
            let now = state.translation(*vmpl, *c_bit, *index);
            kept.read && !now.read || kept.write && !now.write || kept.frame != now.frame
        };
        let mut kept = state.translations.0.iter();
        let (key, _) = kept.find(|(key, kept)| stronger(key, kept))?;
        Some(state.layout.gpa_of(key.3)?.bits())
    }
}
