// SPDX-License-Identifier: MIT OR Apache-2.0
//! A small guest in 64-bit mode at VMPL 0.

use std::boxed::Box;
use std::string::String;
use std::vec;
use std::vec::Vec;

use snp::address::PageSize;
use snp::operands::RmpAdjustTarget;
use snp::vmsa::{EFER_LMA, EFER_LME, EFER_SVME, LAUNCH_VMSA, Vmsa, VmsaSegment};
use snp_model::rmp::{Rmp, RmpEntry};
use zerocopy::{FromZeros, IntoBytes};

use crate::hardware::PhysicalMemory;
use crate::launch::{self, LaunchImage, PageToLaunch, kind};
use crate::machine::{Flow, Machine};
use crate::memory_plan::{GuestMemory, MemoryPlan};
use crate::permission_maps::PermissionMaps;
use crate::record::RECORD_PORT;
use crate::switches::Switches;
use crate::test_hardware::TestHardware;
use crate::vcpu::{CR0_PAGING, Cpu};

/// Guest RAM.
pub const MEMORY: u64 = 16 << 20;
/// Launch pages: code, descriptor tables, stack, page tables (three pages).
pub const CODE: u64 = 0x41_0000;
pub const DESCRIPTORS: u64 = 0x41_1000;
pub const STACK: u64 = 0x41_2000;
pub const TABLES: u64 = 0x41_3000;
/// Where the #VC gate leads.
pub const HANDLER: u64 = CODE + 0x800;
/// Added to a guest address to reach it without C-bit.
pub const SHARED: u64 = 8 << 20;
/// Unused RAM below [`SHARED`].
pub const FREE: u64 = 0x50_0000;

const C: u64 = 1 << 51;

pub struct Bench {
    pub machine: Machine<'static, TestHardware>,
    pub cpu: Cpu,
}

impl Bench {
    pub fn new() -> Self {
        Self::with(Switches::new())
    }

    pub fn with(switches: Switches) -> Self {
        let mut bench = Self::launched(switches, &[]).unwrap();
        bench.enter_long_mode();
        bench
    }

    /// A guest of the usual pages and `extra`, as launched.
    pub fn launched(switches: Switches, extra: &[PageToLaunch<'_>]) -> Result<Self, String> {
        let mut vmsa = Vmsa::new_zeroed();
        (vmsa.cr0, vmsa.efer, vmsa.rip, vmsa.rflags) = (0x31, EFER_SVME, CODE, 2);
        vmsa.cs = VmsaSegment::flat(8, VmsaSegment::CODE_32);
        (vmsa.xcr0, vmsa.sev_features) = (1, 0x29);
        let zero = |gpa| PageToLaunch {
            gpa,
            kind: kind::ZERO,
            bytes: &[],
            pages: 0,
        };
        let boot = PageToLaunch {
            gpa: LAUNCH_VMSA,
            kind: kind::VMSA,
            bytes: vmsa.as_bytes(),
            pages: 0,
        };
        let mut pages: Vec<_> = (CODE..CODE + 0x6000).step_by(4096).map(zero).collect();
        pages.push(boot);
        pages.extend(extra);
        let mut image = Vec::new();
        launch::write(switches, GuestMemory::new(MEMORY), 1, &pages, |piece| {
            image.extend_from_slice(piece);
        })
        .unwrap();
        let words: Vec<u64> = image
            .chunks(8)
            .map(|word| u64::from_le_bytes(word.try_into().unwrap()))
            .collect();
        let image = LaunchImage::parse(words.as_bytes()).unwrap();

        let plan = MemoryPlan::new(GuestMemory::new(MEMORY)).unwrap();
        let pages = plan.layout().pages();
        let entries = Box::leak(vec![RmpEntry::default(); pages].into_boxed_slice());
        let shared = Box::leak(vec![false; pages].into_boxed_slice());
        let held = Box::leak(vec![0; pages].into_boxed_slice());
        let hardware = TestHardware::default();
        let mut machine = Machine::new(
            hardware,
            plan,
            switches,
            entries,
            shared,
            held,
            plan.tables_base(),
        )
        .unwrap();
        let maps = PermissionMaps::new(switches.pass_through());
        let mut cpu = Cpu::new(0, &maps, switches.pass_through());
        match machine.launch(&mut cpu, &image) {
            Ok(()) => Ok(Self { machine, cpu }),
            Err(_) => Err(machine.hardware.text(RECORD_PORT)),
        }
    }

    /// Identity tables by 2 MiB pages: [0, 8 MiB) with C-bit, and once more without at [`SHARED`];
    /// an IDT with a #VC gate and a GDT with a code segment.
    pub fn enter_long_mode(&mut self) {
        self.poke(TABLES, (TABLES + 0x1000) | C | 3);
        self.poke(TABLES + 0x1000, (TABLES + 0x2000) | C | 3);
        for number in 0..4 {
            let large = number << 21;
            self.poke(TABLES + 0x2000 + 8 * number, large | C | 0x83);
            self.poke(TABLES + 0x2000 + 8 * (4 + number), large | 0x83);
        }
        self.poke(DESCRIPTORS + 8, 0x00AF_9B00_0000_FFFF);
        let gate = (HANDLER & 0xFFFF) | (8 << 16) | (0x8E00 << 32) | ((HANDLER >> 16) << 48);
        self.poke(DESCRIPTORS + 0x100 + 29 * 16, gate);
        let save = &mut self.cpu.vcpu_mut().vmcb.save;
        save.cr0 |= CR0_PAGING;
        save.cr3 = TABLES | C;
        save.efer |= EFER_LME | EFER_LMA;
        save.cs.attributes = VmsaSegment::CODE_64;
        save.gdtr.base = DESCRIPTORS;
        save.idtr.base = DESCRIPTORS + 0x100;
        save.idtr.limit = 32 * 16 - 1;
        save.rsp = STACK + 0x1000;
    }

    /// Writes private memory as the guest would.
    pub fn poke(&self, gpa: u64, word: u64) {
        let index = self.machine.plan.page_index(gpa).unwrap();
        let host = self.machine.plan.private_page(index) + gpa % 4096;
        self.machine.hardware.write_u64(host, word);
    }

    /// Reads private memory.
    pub fn peek(&self, gpa: u64) -> u64 {
        let index = self.machine.plan.page_index(gpa).unwrap();
        self.machine
            .hardware
            .read_u64(self.machine.plan.private_page(index) + gpa % 4096)
    }

    pub fn index(&self, gpa: u64) -> usize {
        self.machine.plan.page_index(gpa).unwrap()
    }

    pub fn rmp(&mut self) -> &mut Rmp<'static> {
        &mut self.machine.rmp
    }

    /// Gives the guest a validated small page.
    pub fn validate(&mut self, gpa: u64) {
        let index = self.index(gpa);
        self.machine
            .convert(index, PageSize::Size4K, false)
            .unwrap();
        self.rmp()
            .pvalidate(index, PageSize::Size4K, true, snp::address::Vmpl::Vmpl0);
        self.sync(index);
    }

    pub fn adjust(&mut self, gpa: u64, target: RmpAdjustTarget) {
        let index = self.index(gpa);
        self.rmp()
            .rmpadjust(index, PageSize::Size4K, target, snp::address::Vmpl::Vmpl0);
        self.sync(index);
    }

    fn sync(&self, index: usize) {
        let machine = &self.machine;
        machine
            .nested
            .sync(&machine.hardware, &machine.rmp, index, false);
    }

    /// The guest exits with this.
    pub fn exit(&mut self, code: u64, info_1: u64, info_2: u64) -> Flow {
        let control = &mut self.cpu.vcpu_mut().vmcb.control;
        (control.exit_code, control.exit_info_1, control.exit_info_2) = (code, info_1, info_2);
        control.event_injection = 0;
        self.machine.handle_exit(&mut self.cpu)
    }

    /// The guest executes these bytes, which exit with `code`.
    pub fn execute(&mut self, bytes: [u8; 4], code: u64) -> Flow {
        let rip = self.cpu.vcpu().vmcb.save.rip & !7;
        self.cpu.vcpu_mut().vmcb.save.rip = rip;
        self.poke(rip, u64::from(u32::from_le_bytes(bytes)));
        self.exit(code, 0, 0)
    }

    /// The guest uses the MSR protocol; the answer.
    pub fn request(&mut self, value: u64) -> u64 {
        self.cpu.vcpu_mut().ghcb_msr = value;
        self.execute([0xF3, 0x0F, 0x01, 0xD9], crate::vmcb::exit_code::VMMCALL)
            .unwrap();
        self.cpu.at(snp::address::Vmpl::Vmpl0).ghcb_msr
    }

    pub fn rip(&self) -> u64 {
        self.cpu.vcpu().vmcb.save.rip
    }

    pub fn records(&self) -> String {
        self.machine.hardware.text(RECORD_PORT)
    }
}
