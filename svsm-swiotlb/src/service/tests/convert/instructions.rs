// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the machine of CONVERT does for each platform call, and what it insists on: invariant P2, and rows D and E of the
//! hostile host (permissions that outlive a rescind, contents that outlive a grant).

use snp::address::{GuestPhysicalAddress, LARGE_PAGE_SIZE, PageSize};
use snp::operands::{InstructionCode, PvalidateResult, RmpAdjustTarget};
use snp::psc::{PscDescriptor, PscEntry, PscOperation};

use super::machine::{ConvertMachine, Failure, Page, State, Step, fresh};
use crate::ownership::small_pages;
use crate::platform::{Fault, GuestMemory, HostPages, Issue, PageInstructions, PscExit};
use crate::test_platform::Manner;

/// A large instruction needs a large RMP entry; a small one splits it.
fn mismatch(state: &mut State, page: u64, size: PageSize) -> bool {
    let block = page & !(LARGE_PAGE_SIZE - 1);
    if size == PageSize::Size4K {
        state.large.remove(&block);
    }
    size == PageSize::Size2M && !state.large.contains(&block)
}

fn each(
    state: &mut State,
    page: GuestPhysicalAddress,
    size: PageSize,
    mut work: impl FnMut(&mut Page),
) {
    for small in small_pages(page, size) {
        work(state.pages.entry(small.bits()).or_insert_with(fresh));
    }
}

impl PageInstructions for ConvertMachine {
    fn pvalidate(
        &self,
        page: GuestPhysicalAddress,
        size: PageSize,
        validate: bool,
    ) -> Result<PvalidateResult, Fault> {
        self.with(|state| {
            let forced = state.pvalidate_failures.remove(&(page.bits(), validate));
            let success = |unchanged| {
                let code = InstructionCode::SUCCESS;
                Ok(PvalidateResult { code, unchanged })
            };
            let refused = |code| {
                let unchanged = false;
                Ok(PvalidateResult { code, unchanged })
            };
            match forced.or_else(|| Self::fails(state)) {
                Some(Failure::Fault) => return Err(Fault),
                Some(Failure::Unchanged) => return success(true),
                Some(Failure::Code(code)) => return refused(code),
                None => {}
            }
            if mismatch(state, page.bits(), size) {
                return refused(InstructionCode::FAIL_SIZEMISMATCH);
            }
            state.steps.push(match validate {
                true => Step::Validate(page.bits(), size),
                false => Step::Rescind(page.bits(), size),
            });
            for small in small_pages(page, size) {
                assert!(
                    !state.stale.contains(&small.bits()),
                    "P2: {small} not flushed"
                );
            }
            let mut same = true;
            each(state, page, size, |page| {
                assert!(page.assigned, "the host was not asked first");
                assert!(
                    page.permissions[1..] == [0; 3],
                    "E: permissions outlive a rescind"
                );
                same &= page.validated == validate;
                page.stale_lines = validate && !page.validated;
                page.validated = validate;
                page.zero = false;
            });
            success(same)
        })
    }

    fn rmpadjust(
        &self,
        page: GuestPhysicalAddress,
        size: PageSize,
        target: RmpAdjustTarget,
    ) -> Result<InstructionCode, Fault> {
        self.with(|state| {
            let forced = state.rmpadjust_failures.remove(&page.bits());
            match forced.or_else(|| Self::fails(state)) {
                Some(Failure::Fault | Failure::Unchanged) => return Err(Fault),
                Some(Failure::Code(code)) => return Ok(code),
                None => {}
            }
            if mismatch(state, page.bits(), size) {
                return Ok(InstructionCode::FAIL_SIZEMISMATCH);
            }
            let permissions = target.permissions();
            if permissions != 0 {
                state.steps.push(Step::Grant(page.bits(), size));
            } else if target.vmpl() == 2 {
                state.steps.push(Step::Revoke(page.bits(), size));
                state.stale.extend(small_pages(page, size).map(u64::from));
            }
            each(state, page, size, |page| {
                assert!(page.validated, "RMPADJUST of a page that is not validated");
                assert!(!page.stale_lines, "used before caches forgot it");
                assert!(
                    permissions == 0 || page.zero,
                    "D: granted before it was zeroed"
                );
                page.permissions[usize::from(target.vmpl())] = permissions;
            });
            Ok(InstructionCode::SUCCESS)
        })
    }

    fn evict(&self, page: GuestPhysicalAddress, size: PageSize) -> Result<(), Fault> {
        self.with(|state| {
            if Self::fails(state).is_some() {
                return Err(Fault);
            }
            each(state, page, size, |page| {
                assert!(page.validated);
                page.stale_lines = false;
            });
            Ok(())
        })
    }

    fn zero(&self, page: GuestPhysicalAddress, size: PageSize) -> Result<(), Fault> {
        self.with(|state| {
            if Self::fails(state).is_some() {
                return Err(Fault);
            }
            state.steps.push(Step::Zero(page.bits(), size));
            each(state, page, size, |page| {
                assert!(page.validated);
                assert!(!page.stale_lines, "used before caches forgot it");
                page.zero = true;
            });
            Ok(())
        })
    }

    fn flush(&self) {
        self.with(|state| {
            state.steps.push(Step::Flush);
            state.stale.clear();
            if core::mem::take(&mut state.smash_at_flush) {
                state.large.clear();
            }
        });
    }
}

impl HostPages for ConvertMachine {
    fn page_state_change(&self, descriptor: &mut PscDescriptor, issue: Issue) -> PscExit {
        if let Some(gate) = &*self.gate.lock().unwrap() {
            gate(self);
        }
        self.with(|state| {
            state.exits += 1;
            let header = descriptor.header;
            let last = usize::from(header.end_entry);
            if issue == Issue::First {
                let operation = PscOperation::try_from(descriptor.entries[0].operation()).unwrap();
                state.steps.push(Step::Psc(operation, last + 1));
            }
            let mut exit = PscExit::default();
            let manner = state.script.pop_front().unwrap_or(Manner::Honest);
            let mut reply = header;
            match manner {
                Manner::Honest => reply.cur_entry = header.end_entry + 1,
                Manner::Early(entries) => reply.cur_entry += entries,
                Manner::Refuse(entries, info) => {
                    reply.cur_entry += entries;
                    exit.sw_exit_info_2 = info;
                }
                Manner::Reply(wrong, info) => {
                    descriptor.header = wrong;
                    return info;
                }
            }
            let done = usize::from(header.cur_entry)..usize::from(reply.cur_entry);
            for entry in &descriptor.entries[done] {
                change(state, *entry);
            }
            descriptor.header = reply;
            exit
        })
    }
}

/// What an honest host does for an entry.
fn change(state: &mut State, entry: PscEntry) {
    let private = entry.operation() == PscOperation::Private as u8;
    let large = entry.size() == PageSize::Size2M;
    let block = entry.page().bits() & !(LARGE_PAGE_SIZE - 1);
    if !large {
        state.large.remove(&block);
    }
    each(state, entry.page(), entry.size(), |page| {
        assert!(
            !page.validated,
            "the host is asked for a page that is still validated"
        );
        if page.assigned != private {
            page.permissions = [0; 4];
        }
        page.assigned = private;
        page.zero = false;
    });
}

impl GuestMemory for ConvertMachine {
    fn read(&self, from: GuestPhysicalAddress, bytes: &mut [u8]) -> Result<(), Fault> {
        if self.with(Self::fails).is_some() {
            return Err(Fault);
        }
        bytes.copy_from_slice(&self.peek(from.bits(), bytes.len()));
        Ok(())
    }

    fn write(&self, to: GuestPhysicalAddress, bytes: &[u8]) -> Result<(), Fault> {
        if self.with(Self::fails).is_some() {
            return Err(Fault);
        }
        self.poke(to.bits(), bytes);
        Ok(())
    }
}
