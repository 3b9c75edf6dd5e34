// SPDX-License-Identifier: MIT OR Apache-2.0
//! The reverse map table (APM volume 2, 15.36.3 to 15.36.7) of one guest.
//!
//! Entries are indexed by page (see [`crate::layout`]). A 2 MiB entry is kept as 512 equal entries
//! with `large` set, which is what hardware makes of it for every look-up.

use snp::address::{PageSize, Vmpl};
use snp::operands::{InstructionCode, PvalidateResult, RmpAdjustTarget, RmpPermissions};

const LARGE_PAGES: usize = 512;

/// One 4 KiB page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct RmpEntry {
    /// The guest owns the page; otherwise the hypervisor does and the page is shared.
    pub assigned: bool,
    /// The guest has accepted the page.
    pub validated: bool,
    /// Part of a 2 MiB entry.
    pub large: bool,
    /// The page is a VMSA.
    pub vmsa: bool,
    /// Permissions of VMPL 1, 2 and 3; VMPL 0 may do everything.
    permissions: [u8; 3],
    /// The page is the VMSA of a vCPU that runs at this moment.
    pub in_use: bool,
}

const _: () = assert!(size_of::<RmpEntry>() == 8);

impl RmpEntry {
    /// What `vmpl` may do, were the page assigned and validated.
    pub const fn permissions(&self, vmpl: Vmpl) -> RmpPermissions {
        RmpPermissions::from_bits(match vmpl {
            Vmpl::Vmpl0 => 0x1F,
            Vmpl::Vmpl1 => self.permissions[0],
            Vmpl::Vmpl2 => self.permissions[1],
            Vmpl::Vmpl3 => self.permissions[2],
        })
    }

    const fn set_permissions(&mut self, vmpl: Vmpl, permissions: RmpPermissions) {
        match vmpl {
            Vmpl::Vmpl0 => {}
            Vmpl::Vmpl1 => self.permissions[0] = permissions.into_bits(),
            Vmpl::Vmpl2 => self.permissions[1] = permissions.into_bits(),
            Vmpl::Vmpl3 => self.permissions[2] = permissions.into_bits(),
        }
    }

    /// A page the guest owns and has not accepted.
    const fn assigned(large: bool) -> Self {
        Self {
            assigned: true,
            validated: false,
            large,
            vmsa: false,
            permissions: [0; 3],
            in_use: false,
        }
    }
}

/// What an instruction of the guest leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome<T> {
    /// It completes with this.
    Done(T),
    /// The entry is large and the request small: nested page fault; the host smashes and resumes.
    NeedsSmash,
    /// The page is not the guest's: nested page fault, again until the host assigns it.
    NotAssigned,
    /// The page is not validated: #VC 0x404 in the guest.
    NotValidated,
    /// There is no such page.
    NoPage,
}

/// The table.
#[derive(Debug)]
pub struct Rmp<'a> {
    entries: &'a mut [RmpEntry],
}

impl<'a> Rmp<'a> {
    /// A table over `entries`, one for each page of the layout.
    pub const fn new(entries: &'a mut [RmpEntry]) -> Self {
        Self { entries }
    }

    /// The entry of a page.
    pub fn entry(&self, index: usize) -> Option<&RmpEntry> {
        self.entries.get(index)
    }

    /// Pages the table covers.
    pub const fn pages(&self) -> usize {
        self.entries.len()
    }

    fn block(&mut self, index: usize, size: PageSize) -> Option<&mut [RmpEntry]> {
        let count = if size == PageSize::Size2M {
            LARGE_PAGES
        } else {
            1
        };
        self.entries.get_mut(index..index.checked_add(count)?)
    }

    /// The checks PVALIDATE and RMPADJUST share, in the order of the manual.
    fn check_operand(&self, index: usize, size: PageSize) -> Result<(), Outcome<InstructionCode>> {
        let entry = self.entries.get(index).ok_or(Outcome::NoPage)?;
        if size == PageSize::Size2M && !index.is_multiple_of(LARGE_PAGES) {
            return Err(Outcome::Done(InstructionCode::FAIL_INPUT));
        }
        if !entry.assigned {
            return Err(Outcome::NotAssigned);
        }
        match (size, entry.large) {
            (PageSize::Size2M, false) => Err(Outcome::Done(InstructionCode::FAIL_SIZEMISMATCH)),
            (PageSize::Size4K, true) => Err(Outcome::NeedsSmash),
            _ => Ok(()),
        }
    }

    /// PVALIDATE by `caller` on the page at `index`.
    ///
    /// Never touches the data; keeps the permissions, so that a rescinded page which is validated
    /// again has its old ones.
    pub fn pvalidate(
        &mut self,
        index: usize,
        size: PageSize,
        validate: bool,
        caller: Vmpl,
    ) -> Outcome<PvalidateResult> {
        let done = |code, unchanged| Outcome::Done(PvalidateResult { code, unchanged });
        if caller != Vmpl::Vmpl0 {
            return done(InstructionCode::FAIL_PERMISSION, false);
        }
        match self.check_operand(index, size) {
            Ok(()) => {}
            Err(Outcome::Done(code)) => return done(code, false),
            Err(Outcome::NeedsSmash) => return Outcome::NeedsSmash,
            Err(Outcome::NotAssigned) => return Outcome::NotAssigned,
            Err(_) => return Outcome::NoPage,
        }
        let Some(block) = self.block(index, size) else {
            return Outcome::NoPage;
        };
        let unchanged = block
            .first()
            .is_some_and(|entry| entry.validated == validate);
        for entry in block {
            entry.validated = validate;
        }
        done(InstructionCode::SUCCESS, unchanged)
    }

    /// RMPADJUST by `caller` on the page at `index`.
    pub fn rmpadjust(
        &mut self,
        index: usize,
        size: PageSize,
        target: RmpAdjustTarget,
        caller: Vmpl,
    ) -> Outcome<InstructionCode> {
        if let Err(outcome) = self.check_operand(index, size) {
            return outcome;
        }
        let permissions = target.rmp_permissions();
        let Ok(vmpl) = Vmpl::try_from(target.vmpl()) else {
            return Outcome::Done(InstructionCode::FAIL_INPUT);
        };
        if vmpl <= caller {
            return Outcome::Done(InstructionCode::FAIL_PERMISSION);
        }
        if permissions.write() && !permissions.read() {
            return Outcome::Done(InstructionCode::FAIL_INPUT);
        }
        let Some(block) = self.block(index, size) else {
            return Outcome::NoPage;
        };
        let Some(first) = block.first() else {
            return Outcome::NoPage;
        };
        if !first.validated {
            return Outcome::NotValidated;
        }
        if first.in_use {
            return Outcome::Done(InstructionCode::FAIL_INUSE);
        }
        if !permissions.within(first.permissions(caller)) {
            return Outcome::Done(InstructionCode::FAIL_PERMISSION);
        }
        for entry in block {
            entry.set_permissions(vmpl, permissions);
            if caller == Vmpl::Vmpl0 {
                entry.vmsa = target.vmsa();
            }
        }
        Outcome::Done(InstructionCode::SUCCESS)
    }

    /// RMPQUERY by `caller`: the permissions and VMSA bit of `target`, and the entry's size.
    pub fn rmpquery(
        &self,
        index: usize,
        target: Vmpl,
        caller: Vmpl,
    ) -> Outcome<Result<(RmpAdjustTarget, PageSize), InstructionCode>> {
        let Some(entry) = self.entries.get(index) else {
            return Outcome::NoPage;
        };
        if !entry.assigned {
            return Outcome::NotAssigned;
        }
        if target <= caller {
            return Outcome::Done(Err(InstructionCode::FAIL_PERMISSION));
        }
        let size = if entry.large {
            PageSize::Size2M
        } else {
            PageSize::Size4K
        };
        let view = RmpAdjustTarget::grant(target, entry.permissions(target)).with_vmsa(entry.vmsa);
        Outcome::Done(Ok((view, size)))
    }

    /// RMPUPDATE by the host: gives the page to the guest, or takes it away. False when there is
    /// no such page or a large one is misaligned.
    ///
    /// A page the guest already owns at that size stays as it is: a host that reset it would
    /// destroy what the guest validated, and none does for a repeated request. A large entry that
    /// is changed in part is smashed first.
    pub fn rmpupdate(&mut self, index: usize, size: PageSize, assign: bool) -> bool {
        if size == PageSize::Size2M && !index.is_multiple_of(LARGE_PAGES) {
            return false;
        }
        let Some(entry) = self.entries.get(index) else {
            return false;
        };
        if size == PageSize::Size4K && entry.large {
            if assign {
                return true;
            }
            self.psmash(index);
        }
        let Some(block) = self.block(index, size) else {
            return false;
        };
        let untouched = block.iter().all(|entry| !entry.assigned);
        for entry in block {
            if !assign {
                *entry = RmpEntry::default();
            } else if !entry.assigned {
                *entry = RmpEntry::assigned(size == PageSize::Size2M && untouched);
            }
        }
        true
    }

    /// PSMASH by the host: splits the large entry that covers `index`, keeping everything else.
    pub fn psmash(&mut self, index: usize) {
        let first = index - index % LARGE_PAGES;
        if let Some(block) = self.block(first, PageSize::Size2M) {
            for entry in block {
                entry.large = false;
            }
        }
    }

    /// Marks the VMSA in the page as running, or as not running any more. False, and no change, when
    /// there is no such page, when it is no VMSA, or when it runs already: VMRUN fails then.
    pub fn set_in_use(&mut self, index: usize, in_use: bool) -> bool {
        match self.entries.get_mut(index) {
            Some(entry) if entry.vmsa && !(entry.in_use && in_use) => {
                entry.in_use = in_use;
                true
            }
            _ => false,
        }
    }

    /// Makes the page one of the launch: assigned, validated, small, VMPL 0 only. False when there
    /// is no such page.
    pub fn set_launch_page(&mut self, index: usize) -> bool {
        self.psmash(index);
        let Some(entry) = self.entries.get_mut(index) else {
            return false;
        };
        *entry = RmpEntry {
            validated: true,
            ..RmpEntry::assigned(false)
        };
        true
    }
}

#[cfg(test)]
mod tests;
