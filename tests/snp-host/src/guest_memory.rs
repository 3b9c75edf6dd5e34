// SPDX-License-Identifier: MIT OR Apache-2.0
//! Guest memory by linear address, as the host needs it: instruction bytes, descriptor tables,
//! stacks and operands.
//!
//! Tables are walked in the private view, as hardware does. The host obeys the guest's own rules:
//! it reaches nothing that the VMPL could not.

use snp::address::PAGE_SIZE;
use snp::vmsa::EFER_LMA;
use snp_model::access::{AccessKind, AccessOutcome, View, access};

use crate::hardware::Hardware;
use crate::machine::Machine;
use crate::memory_plan::C_BIT;
use crate::vcpu::Vcpu;

/// An entry leads somewhere.
pub(crate) const PRESENT: u64 = 1;
/// It maps a page, though its table is no last-level table.
pub(crate) const LARGE: u64 = 1 << 7;
/// Address bits of a table entry without the C-bit.
pub(crate) const ADDRESS: u64 = 0x0007_FFFF_FFFF_F000;

/// A guest physical address and the C-bit that leads to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Translation {
    /// Without C-bit.
    pub gpa: u64,
    /// The access is private.
    pub c_bit: bool,
}

/// Why a linear address cannot be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreachable {
    /// No mapping: the guest gets #PF.
    NotMapped,
    /// The mapping leads to what the VMPL must not touch, or paging is in a mode not supported
    /// (32-bit paging).
    Forbidden,
}

/// Bytes from `linear` to the end of its page. A page is translated once for all that is read of it: a guest's exit makes
/// several such reads, and walks are most of what they cost on an emulated processor.
#[expect(clippy::cast_possible_truncation, reason = "at most a page")]
const fn bytes_to_page_end(linear: u64) -> usize {
    (PAGE_SIZE - linear % PAGE_SIZE) as usize
}

impl<H: Hardware> Machine<'_, H> {
    /// Host address of a guest physical address for an access by `vcpu`'s VMPL.
    ///
    /// # Errors
    /// [`Unreachable::Forbidden`] unless the access would be allowed.
    pub fn reach(
        &self,
        vcpu: &Vcpu,
        at: Translation,
        kind: AccessKind,
    ) -> Result<u64, Unreachable> {
        let index = self.plan.page_index(at.gpa).ok_or(Unreachable::Forbidden)?;
        let entry = self.rmp.entry(index).ok_or(Unreachable::Forbidden)?;
        match access(entry, vcpu.vmpl, at.c_bit, kind) {
            AccessOutcome::Allowed(View::Private) if self.nested.frames.fits(index) => {
                Ok(self.nested.private_page(index) + at.gpa % PAGE_SIZE)
            }
            AccessOutcome::Allowed(View::Shared) => Ok(at.gpa),
            _ => Err(Unreachable::Forbidden),
        }
    }

    /// Walks the guest's tables.
    ///
    /// # Errors
    /// [`Unreachable`] says what is wrong.
    pub fn translate(&self, vcpu: &Vcpu, linear: u64) -> Result<Translation, Unreachable> {
        let save = &vcpu.vmcb.save;
        if vcpu.is_unpaged() {
            return Ok(Translation {
                gpa: linear & 0xFFFF_FFFF,
                c_bit: true,
            });
        }
        if save.efer & EFER_LMA == 0 {
            return Err(Unreachable::Forbidden);
        }
        let mut table = save.cr3 & ADDRESS;
        for level in (0..4).rev() {
            let shift = 12 + 9 * level;
            let at = Translation {
                gpa: table + 8 * ((linear >> shift) % 512),
                c_bit: true,
            };
            let entry = self
                .hardware
                .read_u64(self.reach(vcpu, at, AccessKind::TableWalk)?);
            if entry & PRESENT == 0 {
                return Err(Unreachable::NotMapped);
            }
            if level == 0 || (level < 3 && entry & LARGE != 0) {
                let offset = (1 << shift) - 1;
                let gpa = (entry & ADDRESS & !offset) | (linear & offset);
                return Ok(Translation {
                    gpa,
                    c_bit: entry & (1 << C_BIT) != 0,
                });
            }
            table = entry & ADDRESS;
        }
        Err(Unreachable::NotMapped)
    }

    /// Reads guest memory; may cross pages.
    ///
    /// # Errors
    /// [`Unreachable`] when any byte is.
    pub fn read_linear(
        &self,
        vcpu: &Vcpu,
        linear: u64,
        bytes: &mut [u8],
    ) -> Result<(), Unreachable> {
        let mut rest = bytes;
        let mut at = linear;
        while !rest.is_empty() {
            let (piece, behind) = rest.split_at_mut(rest.len().min(bytes_to_page_end(at)));
            let host = self.reach(vcpu, self.translate(vcpu, at)?, AccessKind::Read)?;
            self.hardware.read(host, piece);
            at = at.wrapping_add(piece.len() as u64);
            rest = behind;
        }
        Ok(())
    }

    /// Writes guest memory; may cross pages, the first of which are then written even if a later one cannot be.
    ///
    /// # Errors
    /// [`Unreachable`] when any byte is.
    pub fn write_linear(&self, vcpu: &Vcpu, linear: u64, bytes: &[u8]) -> Result<(), Unreachable> {
        let mut rest = bytes;
        let mut at = linear;
        while !rest.is_empty() {
            let (piece, behind) = rest.split_at(rest.len().min(bytes_to_page_end(at)));
            let host = self.reach(vcpu, self.translate(vcpu, at)?, AccessKind::Write)?;
            self.hardware.write(host, piece);
            at = at.wrapping_add(piece.len() as u64);
            rest = behind;
        }
        Ok(())
    }

    /// Reads the 8 bytes at `linear`.
    ///
    /// # Errors
    /// [`Unreachable`] when any byte is.
    pub fn read_linear_u64(&self, vcpu: &Vcpu, linear: u64) -> Result<u64, Unreachable> {
        let mut bytes = [0; 8];
        self.read_linear(vcpu, linear, &mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    /// The four bytes at RIP, zeros where they cannot be fetched.
    #[must_use]
    pub fn instruction_bytes(&self, vcpu: &Vcpu) -> [u8; 4] {
        let save = &vcpu.vmcb.save;
        let base = if save.cs.attributes & crate::vmcb::SegmentRegister::LONG != 0 {
            0
        } else {
            save.cs.base
        };
        let mut bytes = [0; 4];
        let mut rest = &mut bytes[..];
        let mut at = base.wrapping_add(save.rip);
        while !rest.is_empty() {
            let (piece, behind) = rest.split_at_mut(rest.len().min(bytes_to_page_end(at)));
            let host = self
                .translate(vcpu, at)
                .and_then(|at| self.reach(vcpu, at, AccessKind::Execute));
            match host {
                Ok(host) => self.hardware.read(host, piece),
                Err(_) => break,
            }
            at = at.wrapping_add(piece.len() as u64);
            rest = behind;
        }
        bytes
    }
}
