// SPDX-License-Identifier: MIT OR Apache-2.0
//! A small machine for the unit tests: pages with validation, permissions and contents, a log of the
//! instructions, and a host that can misbehave.

use core::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use snp::address::{GuestPhysicalAddress, PAGE_SIZE, PageSize};
use snp::operands::{InstructionCode, PvalidateResult, RmpAdjustTarget};
use snp::psc::{PscDescriptor, PscEntry, PscOperation};
use svsm_swiotlb::platform::{Fault, GuestMemory, HostPages, Issue, PageInstructions, PscExit};

use crate::apic_ids::ProcessorId;
use crate::vcpu_control::{StartError, VcpuControl};

/// An instruction, as the log shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// PVALIDATE of a page.
    Pvalidate(u64, PageSize, bool),
    /// RMPADJUST of a page with RDX.
    Rmpadjust(u64, PageSize, u64),
    /// Zeroing of a page.
    Zero(u64, PageSize),
    /// A flush.
    Flush,
    /// A page-state change with so many entries.
    Psc(usize),
    /// A start of VMPL0 on a processor.
    Start(ProcessorId),
}

/// A 4 KiB page.
#[derive(Clone)]
pub struct Page {
    /// The host gave it to the guest.
    pub assigned: bool,
    /// It is validated.
    pub valid: bool,
    /// Permissions of each VMPL.
    pub permissions: [u8; 4],
    /// It is a VMSA.
    pub vmsa: bool,
    /// Caches may hold lines of it from before it was validated.
    stale_lines: bool,
    /// Contents.
    pub bytes: Vec<u8>,
}

/// The machine. Pages exist as soon as they are named.
#[derive(Default)]
pub struct TestMachine {
    pages: RefCell<BTreeMap<u64, Page>>,
    /// Instructions in order.
    pub log: RefCell<Vec<Step>>,
    /// The RMP has 4 KiB entries only.
    pub small_rmp: Cell<bool>,
    /// The host splits large RMP entries when a page is zeroed.
    pub smash_on_zero: Cell<bool>,
    /// The vCPUs of all VMSA pages run: RMPADJUST says so, and a write to one is a nested fault.
    pub vmsa_in_use: Cell<bool>,
    /// RMPADJUST faults.
    pub faulting_adjust: Cell<bool>,
    /// Writes (zeroing included) to this page fault.
    pub faulting_write: Cell<Option<u64>>,
    /// The host stops after so many entries of each exit.
    pub psc_per_exit: Cell<Option<u16>>,
    /// The host returns so many times without progress before each exit that makes some.
    pub psc_stalls: Cell<usize>,
    stalled: Cell<usize>,
    /// The entries in the shared buffer.
    psc_buffer: RefCell<Vec<PscEntry>>,
    /// The host reports this in SW_EXITINFO2.
    pub psc_error: Cell<u64>,
    /// How a start of VMPL0 on a processor fails.
    pub start_error: Cell<Option<StartError>>,
}

const STALE_LINES: &str = "used before caches forgot it";

impl TestMachine {
    /// Looks at or changes a page.
    pub fn page<R>(&self, gpa: u64, look: impl FnOnce(&mut Page) -> R) -> R {
        look(
            self.pages
                .borrow_mut()
                .entry(gpa & !0xfff)
                .or_insert_with(|| Page {
                    assigned: false,
                    valid: false,
                    permissions: [0; 4],
                    vmsa: false,
                    stale_lines: false,
                    bytes: vec![0xaa; 4096],
                }),
        )
    }

    /// Makes a page valid, as if launched.
    pub fn launch(&self, gpa: u64) {
        self.page(gpa, |page| (page.assigned, page.valid) = (true, true));
    }

    /// Takes the log.
    pub fn steps(&self) -> Vec<Step> {
        self.log.take()
    }

    fn each(&self, gpa: u64, size: PageSize, mut work: impl FnMut(&mut Page)) {
        for number in 0..size.pages() {
            self.page(gpa + number * PAGE_SIZE, &mut work);
        }
    }

    fn step(&self, step: Step) {
        self.log.borrow_mut().push(step);
    }

    fn mismatch(&self, size: PageSize) -> bool {
        self.small_rmp.get() && size == PageSize::Size2M
    }
}

impl PageInstructions for TestMachine {
    fn pvalidate(
        &self,
        page: GuestPhysicalAddress,
        size: PageSize,
        validate: bool,
    ) -> Result<PvalidateResult, Fault> {
        self.step(Step::Pvalidate(page.bits(), size, validate));
        if self.mismatch(size) {
            let code = InstructionCode::FAIL_SIZEMISMATCH;
            return Ok(PvalidateResult {
                code,
                unchanged: false,
            });
        }
        let mut unchanged = true;
        self.each(page.bits(), size, |page| {
            assert!(page.assigned, "the host was not asked");
            unchanged &= page.valid == validate;
            page.stale_lines = validate && !page.valid;
            page.valid = validate;
        });
        Ok(PvalidateResult {
            code: InstructionCode::SUCCESS,
            unchanged,
        })
    }

    fn rmpadjust(
        &self,
        page: GuestPhysicalAddress,
        size: PageSize,
        target: RmpAdjustTarget,
    ) -> Result<InstructionCode, Fault> {
        self.step(Step::Rmpadjust(page.bits(), size, target.into_bits()));
        if self.mismatch(size) {
            return Ok(InstructionCode::FAIL_SIZEMISMATCH);
        }
        if self.faulting_adjust.get() {
            return Err(Fault);
        }
        if self.vmsa_in_use.get() && self.page(page.bits(), |page| page.vmsa) {
            return Ok(InstructionCode::FAIL_INUSE);
        }
        let mut fault = false;
        self.each(page.bits(), size, |page| {
            fault |= !page.valid;
            assert!(!page.stale_lines, "{STALE_LINES}");
            page.permissions[usize::from(target.vmpl())] = target.permissions();
            if target.vmsa() {
                // EFER.SVME, VINTR_CTRL, TLB_ID to EVENTINJ: the host may run it from now on.
                assert_eq!(page.bytes[0xd1] & 0x10, 0);
                let sealed = page.bytes[0x3b8..0x3c0]
                    .iter()
                    .chain(&page.bytes[0x3d0..0x3e8]);
                assert!(sealed.into_iter().all(|byte| *byte == 0));
            }
            page.vmsa = target.vmsa();
        });
        if fault {
            Err(Fault)
        } else {
            Ok(InstructionCode::SUCCESS)
        }
    }

    fn evict(&self, page: GuestPhysicalAddress, size: PageSize) -> Result<(), Fault> {
        self.each(page.bits(), size, |page| {
            assert!(page.valid, "evicted before it was validated");
            page.stale_lines = false;
        });
        Ok(())
    }

    fn zero(&self, page: GuestPhysicalAddress, size: PageSize) -> Result<(), Fault> {
        self.step(Step::Zero(page.bits(), size));
        if self.faulting_write.get() == Some(page.bits()) {
            return Err(Fault);
        }
        self.each(page.bits(), size, |page| {
            assert_eq!(
                page.permissions[2], 0,
                "the guest saw it before it was zeroed"
            );
            assert!(!page.stale_lines, "{STALE_LINES}");
            page.bytes.fill(0);
        });
        self.small_rmp
            .set(self.small_rmp.get() || self.smash_on_zero.get());
        Ok(())
    }

    fn flush(&self) {
        self.step(Step::Flush);
    }
}

impl GuestMemory for TestMachine {
    fn read(&self, from: GuestPhysicalAddress, bytes: &mut [u8]) -> Result<(), Fault> {
        let offset = usize::try_from(from.page_offset()).unwrap();
        self.page(from.bits(), |page| {
            if !page.valid {
                return Err(Fault);
            }
            bytes.copy_from_slice(&page.bytes[offset..][..bytes.len()]);
            Ok(())
        })
    }

    fn write(&self, to: GuestPhysicalAddress, bytes: &[u8]) -> Result<(), Fault> {
        let offset = usize::try_from(to.page_offset()).unwrap();
        if self.faulting_write.get() == Some(to.page_base().bits()) {
            return Err(Fault);
        }
        self.page(to.bits(), |page| {
            if !page.valid || page.vmsa && self.vmsa_in_use.get() {
                return Err(Fault);
            }
            page.bytes[offset..][..bytes.len()].copy_from_slice(bytes);
            Ok(())
        })
    }
}

impl VcpuControl for TestMachine {
    fn start_processor(&self, processor: ProcessorId) -> Result<(), StartError> {
        self.step(Step::Start(processor));
        self.start_error.get().map_or(Ok(()), Err)
    }
}

impl HostPages for TestMachine {
    fn page_state_change(&self, descriptor: &mut PscDescriptor, issue: Issue) -> PscExit {
        if issue == Issue::First {
            self.psc_buffer.replace(descriptor.entries.to_vec());
        }
        if self.stalled.get() < self.psc_stalls.get() {
            self.stalled.set(self.stalled.get() + 1);
            return PscExit::default();
        }
        self.stalled.set(0);
        let first = descriptor.header.cur_entry;
        let last = descriptor.header.end_entry;
        let stop = self
            .psc_per_exit
            .get()
            .map_or(last + 1, |count| (last + 1).min(first + count));
        self.step(Step::Psc(usize::from(stop - first)));
        for entry in &self.psc_buffer.borrow()[usize::from(first)..usize::from(stop)] {
            let private = entry.operation() == PscOperation::Private as u8;
            assert!(private || entry.operation() == PscOperation::Shared as u8);
            self.each(entry.page().bits(), entry.size(), |page| {
                assert!(private || !page.valid, "shared before it was rescinded");
                page.assigned = private;
            });
        }
        descriptor.header.cur_entry = stop;
        PscExit {
            sw_exit_info_1: 0,
            sw_exit_info_2: self.psc_error.get(),
        }
    }
}
