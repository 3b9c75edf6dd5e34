// SPDX-License-Identifier: MIT OR Apache-2.0
//! Nested page faults: what `snp_model::access` says of the access that faulted.

use snp::address::PageSize;
use snp_model::access::{AccessKind, AccessOutcome, View, access};

use crate::counters::Event;
use crate::hardware::Hardware;
use crate::machine::{Flow, Machine};
use crate::memory_plan::{C_BIT, DEVICE_BASE, HIGH_BASE};
use crate::vcpu::Cpu;
use crate::vmcb::exit_code;

/// EXITINFO1 of a nested page fault: a write, a fetch, a walk of the guest's tables.
const WRITE: u64 = 1 << 1;
const FETCH: u64 = 1 << 4;
const TABLE_WALK: u64 = 1 << 33;

impl<H: Hardware> Machine<'_, H> {
    /// Whether `length` bytes at `gpa` are device memory: between RAM and 4 GiB, or above all RAM.
    #[must_use]
    pub fn is_device(&self, gpa: u64, length: u64) -> bool {
        let end = gpa.saturating_add(length);
        (gpa >= DEVICE_BASE && end <= HIGH_BASE)
            || (gpa >= self.plan.machine_end() && end <= 1 << (C_BIT - 4))
    }

    /// Handles a nested page fault.
    ///
    /// # Errors
    /// Why the machine stops.
    pub fn nested_fault(&mut self, cpu: &mut Cpu) -> Flow {
        let vcpu = cpu.vcpu();
        let (info, address) = (vcpu.vmcb.control.exit_info_1, vcpu.vmcb.control.exit_info_2);
        let c_bit = address & (1 << C_BIT) != 0 || vcpu.is_unpaged();
        let gpa = address & !(1 << C_BIT);
        let walk = info & TABLE_WALK != 0;
        let kind = match info {
            _ if walk => AccessKind::TableWalk,
            _ if info & FETCH != 0 => AccessKind::Execute,
            _ if info & WRITE != 0 => AccessKind::Write,
            _ => AccessKind::Read,
        };
        let Some(index) = self.plan.page_index(gpa) else {
            if self.is_device(gpa, 1) && !walk && !vcpu.is_unpaged() {
                // Hardware reports reserved bits of an MMIO mapping to the guest.
                return self.inject_communication(cpu, exit_code::NESTED_FAULT);
            }
            return Err(self.violation(cpu, "no-memory", gpa));
        };
        let Some(entry) = self.rmp.entry(index) else {
            return Err(self.violation(cpu, "no-memory", gpa));
        };
        let outcome = access(entry, cpu.current, c_bit, kind);
        let shared = matches!(outcome, AccessOutcome::Allowed(View::Shared));
        if !shared && entry.assigned && !self.nested.frames.fits(index) {
            return self.other_owner(cpu, index);
        }
        if self.nested.frames.read_only == Some(index)
            && matches!(outcome, AccessOutcome::Allowed(_))
            && (walk || kind == AccessKind::Write)
        {
            return self.read_only_fault(cpu, gpa);
        }
        match outcome {
            AccessOutcome::NotValidated => {
                self.lost_page_fault(cpu, index)?;
                self.inject_communication(cpu, exit_code::NOT_VALIDATED)
            }
            AccessOutcome::NotAssigned => {
                self.mismatch(cpu, "private-access-to-shared-page", gpa, index, false)
            }
            AccessOutcome::SharedAccessToPrivate => {
                self.mismatch(cpu, "shared-access-to-private-page", gpa, index, true)
            }
            // Hardware tries again until the vCPU has stopped; a paravisor that writes there only waits for a host.
            AccessOutcome::InUse => Err(self.violation(cpu, "write-to-vmsa-in-use", gpa)),
            // The vCPU has stopped meanwhile.
            AccessOutcome::Allowed(_) if entry.vmsa && kind == AccessKind::Write => Ok(()),
            AccessOutcome::VmplViolation => Err(self.violation(cpu, "vmpl-permission", gpa)),
            // QEMU probes each table entry as a store; so does hardware when it sets A or D.
            AccessOutcome::Allowed(_) if walk && !entry.permissions(cpu.current).write() => {
                Err(self.violation(cpu, "page-table-not-writable", gpa))
            }
            AccessOutcome::Allowed(View::Private) if !c_bit => {
                self.counters.event(Event::Alias);
                self.nested
                    .alias(&self.hardware, &self.rmp, cpu.current, index);
                Ok(())
            }
            AccessOutcome::Allowed(_) => Err(self.violation(cpu, "nested-tables-differ", gpa)),
        }
    }

    /// An access whose C-bit does not fit the page: refused, or converted as KVM does.
    fn mismatch(&mut self, cpu: &Cpu, what: &str, gpa: u64, index: usize, shared: bool) -> Flow {
        if !self.switches.implicit_conversion() {
            return Err(self.violation(cpu, what, gpa));
        }
        self.counters.event(Event::ConvertImplicit);
        self.convert(index, PageSize::Size4K, shared)
            .map_err(|_| self.died(cpu, "conversion"))
    }
}
