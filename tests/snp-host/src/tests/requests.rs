// SPDX-License-Identifier: MIT OR Apache-2.0
use snp::address::{GuestPhysicalAddress, Vmpl};
use snp::ghcb::{IoExitInformation, exit_code, malformed, offset};
use snp::ghcb_msr::Request;
use snp::operands::{RmpAdjustTarget, RmpPermissions};
use snp::psc::{PscEntry, PscOperation, error};

use super::bench::{Bench, CODE, FREE, TABLES};
use crate::hardware::PhysicalMemory;
use crate::machine::Flow;
use crate::memory_plan::DEVICE_BASE;
use crate::record::{ExitCode, MARKER_PORT};
use crate::residence::Step;
use crate::switches::Switches;
use crate::vmcb::{self, event};

const GHCB: u64 = FREE;
const BUFFER: u64 = GHCB + 0x800;
const CONSOLE: u16 = 0x3F8;

/// A guest whose GHCB is shared and registered.
fn bench() -> Bench {
    with(Switches::new())
}

fn with(switches: Switches) -> Bench {
    let mut bench = Bench::with(switches);
    let page = GuestPhysicalAddress::new(GHCB);
    assert_eq!(
        bench.request(Request::page_state_change(page, PscOperation::Shared).encode()),
        0x15
    );
    assert_eq!(
        bench.request(Request::RegisterGhcb(page).encode()),
        GHCB | 0x13
    );
    bench
}

impl Bench {
    fn field(&self, field: usize) -> u64 {
        self.machine.hardware.read_u64(GHCB + field as u64)
    }

    fn set(&self, field: usize, value: u64) {
        self.machine.hardware.write_u64(GHCB + field as u64, value);
    }

    fn vmgexit(&mut self) -> Flow {
        self.cpu.vcpu_mut().ghcb_msr = GHCB;
        self.execute([0xF3, 0x0F, 0x01, 0xD9], vmcb::exit_code::VMMCALL)
    }

    /// A request with every field valid; SW_EXITINFO1 and 2 of the reply.
    fn ask(&mut self, code: u64, info_1: u64, info_2: u64, scratch: u64) -> (u64, u64) {
        self.set(offset::SW_EXIT_CODE, code);
        self.set(offset::SW_EXIT_INFO_1, info_1);
        self.set(offset::SW_EXIT_INFO_2, info_2);
        self.set(offset::SW_SCRATCH, scratch);
        self.set(offset::VALID_BITMAP, u64::MAX);
        self.set(offset::VALID_BITMAP + 8, u64::MAX);
        self.set(offset::PROTOCOL_VERSION - 2, 2 << 16);
        assert_eq!(self.vmgexit(), Ok(()));
        (
            self.field(offset::SW_EXIT_INFO_1),
            self.field(offset::SW_EXIT_INFO_2),
        )
    }
}

fn io(port: u16, bytes: u8) -> IoExitInformation {
    IoExitInformation::new()
        .with_port(port)
        .with_operand_bytes(bytes)
}

#[test]
fn msr_protocol() {
    let mut bench = Bench::new();
    assert_eq!(bench.request(2), 0x0002_0002_3300_0001);
    assert_eq!(bench.request(0x80), (0x37 << 12) | 0x81);
    assert_eq!(bench.request(0x10), !0xFFF | 0x11);
    let cpuid = Request::Cpuid {
        function: 0x8000_001F,
        register: 1,
    };
    assert_eq!(bench.request(cpuid.encode()) >> 32 & 0x3F, 51);
    bench.cpu.vcpu_mut().ghcb_msr = 0x123;
    let unknown = bench.execute([0xF3, 0x0F, 0x01, 0xD9], vmcb::exit_code::VMMCALL);
    assert_eq!(unknown, Err(ExitCode::Died));
}

/// Where it follows directly, and below VMPL 0.
#[test]
fn a_vmgexit_behind_a_write_of_the_ghcb_msr_is_no_exit_of_its_own() {
    const VMGEXIT: u32 = 0xD901_0FF3;
    let written_by = |vmpl, behind: u32| {
        let mut bench = Bench::new();
        let target = RmpAdjustTarget::grant(Vmpl::Vmpl2, RmpPermissions::READ_WRITE_EXECUTE);
        for page in [CODE, TABLES, TABLES + 0x1000, TABLES + 0x2000] {
            bench.adjust(page, target);
        }
        bench.poke(CODE, 0x300F | u64::from(behind) << 16);
        bench.cpu.at_mut(Vmpl::Vmpl2).vmcb = bench.cpu.at(Vmpl::Vmpl0).vmcb.clone();
        bench.cpu.current = vmpl;
        let vcpu = bench.cpu.vcpu_mut();
        vcpu.registers.rcx = snp::msr::GHCB.into();
        (vcpu.vmcb.save.rax, vcpu.registers.rdx) = (2, 0);
        assert_eq!(bench.exit(vmcb::exit_code::MSR, 1, 0), Ok(()));
        (bench.cpu.vcpu().ghcb_msr, bench.rip() - CODE)
    };
    let answer = 0x0002_0002_3300_0001;
    assert_eq!(written_by(Vmpl::Vmpl2, VMGEXIT), (answer, 6));
    assert_eq!(written_by(Vmpl::Vmpl2, 0x9090_9090), (2, 2));
    assert_eq!(written_by(Vmpl::Vmpl0, VMGEXIT), (2, 2));
}

#[test]
fn termination_by_either_way() {
    for (set, reason, code) in [
        (0xB, 0, ExitCode::Success),
        (0xB, 3, ExitCode::GuestFailed),
        (0xA, 0, ExitCode::Terminated),
    ] {
        let mut bench = bench();
        bench.cpu.vcpu_mut().ghcb_msr = Request::Terminate {
            reason_set: set,
            reason,
        }
        .encode();
        let ended = bench.execute([0xF3, 0x0F, 0x01, 0xD9], vmcb::exit_code::VMMCALL);
        assert_eq!(ended, Err(code));
        let text = std::format!("terminate vmpl=0 set={set:#x} reason={reason:#x}\n");
        assert!(bench.records().contains(&text));
    }
}

#[test]
fn a_ghcb_must_be_registered_shared_and_filled_in() {
    let mut bench = bench();
    bench.cpu.vcpu_mut().registered_ghcb = None;
    let refused = bench.ask(exit_code::HYPERVISOR_FEATURES, 0, 0, 0);
    assert_eq!(refused, (2, malformed::NOT_REGISTERED));
    let mut bench = self::bench();
    assert_eq!(
        bench.ask(exit_code::HYPERVISOR_FEATURES, 0, 0, 0),
        (0, 0x37)
    );
    bench.set(offset::VALID_BITMAP, 0);
    bench.set(offset::VALID_BITMAP + 8, 0);
    assert_eq!(bench.vmgexit(), Ok(()));
    assert_eq!(
        bench.field(offset::SW_EXIT_INFO_2),
        malformed::MISSING_INPUT
    );
    bench.set(offset::PROTOCOL_VERSION - 2, (2 << 16) | (1 << 32));
    assert_eq!(bench.vmgexit(), Ok(()));
    assert_eq!(
        bench.field(offset::SW_EXIT_INFO_2),
        malformed::INVALID_USAGE
    );
    assert_eq!(
        bench.ask(0x8000_1234, 0, 0, 0),
        (2, malformed::INVALID_EVENT)
    );
    bench.validate(GHCB);
    assert_eq!(bench.vmgexit(), Err(ExitCode::Violation));
}

#[test]
fn replies_mark_their_fields_valid() {
    let mut bench = bench();
    bench.set(offset::RAX, 0x8000_001F);
    assert_eq!(bench.ask(exit_code::CPUID, 0, 0, 0), (0, 0));
    assert_eq!(bench.field(offset::RBX) & 0x3F, 51);
    let bit = |field| 1_u64 << (offset::valid_bit(field) % 64);
    assert_eq!(bench.field(offset::VALID_BITMAP), bit(offset::RAX));
    let high = [
        offset::RBX,
        offset::RCX,
        offset::RDX,
        offset::SW_EXIT_INFO_1,
        offset::SW_EXIT_INFO_2,
    ];
    let high = high.into_iter().fold(0, |bits, field| bits | bit(field));
    assert_eq!(bench.field(offset::VALID_BITMAP + 8), high);
}

#[test]
fn ports() {
    let mut bench = bench();
    bench.set(offset::RAX, 0x1234_5678);
    assert_eq!(
        bench.ask(exit_code::IOIO, io(CONSOLE, 1).into_bits(), 0, 0),
        (0, 0)
    );
    assert_eq!(
        bench.machine.hardware.port_writes.borrow().last(),
        Some(&(CONSOLE, 1, 0x1234_5678))
    );
    // The marker and the page that is named go no further.
    for port in [0x5A0, 0x5A4] {
        assert_eq!(
            bench.ask(exit_code::IOIO, io(port, 4).into_bits(), 0, 0),
            (0, 0)
        );
    }
    assert!(
        bench
            .machine
            .hardware
            .port_writes
            .borrow()
            .iter()
            .all(|(port, ..)| port >> 4 != 0x5A)
    );
    bench.machine.hardware.input.set(0xAA);
    let input = io(CONSOLE + 5, 1).with_input(true).into_bits();
    assert_eq!(bench.ask(exit_code::IOIO, input, 0, 0), (0, 0));
    assert_eq!(bench.field(offset::RAX), 0x1234_56AA);
    let string = io(0xCFC, 2).with_string(true).with_repeat(true).into_bits();
    bench.machine.hardware.write_u64(BUFFER, 0x0003_0002_0001);
    assert_eq!(bench.ask(exit_code::IOIO, string, 3, BUFFER), (0, 0));
    assert_eq!(
        bench.machine.hardware.port_writes.borrow().last(),
        Some(&(0xCFC, 2, 3))
    );
    let refused = (2, malformed::INVALID_SCRATCH);
    assert_eq!(bench.ask(exit_code::IOIO, string, 1017, BUFFER), refused);
    assert_eq!(
        bench.ask(exit_code::IOIO, string, u64::MAX, BUFFER),
        refused
    );
    assert_eq!(bench.ask(exit_code::IOIO, string, 1, GHCB), refused);
    assert_eq!(
        bench.ask(exit_code::IOIO, 0x3F8_0000, 0, 0),
        (2, malformed::INVALID_INPUT)
    );
}

#[test]
fn the_hosts_own_ports_are_out_of_reach() {
    let mut bench = bench();
    for port in [0xE9, 0xF4, 0x514, 0xCD8] {
        let before = bench.machine.hardware.port_writes.borrow().len();
        assert_eq!(
            bench.ask(exit_code::IOIO, io(port, 1).into_bits(), 0, 0),
            (0, 0)
        );
        assert_eq!(bench.machine.hardware.port_writes.borrow().len(), before);
    }
    bench.set(offset::RAX, 7);
    assert_eq!(
        bench.ask(exit_code::IOIO, io(MARKER_PORT, 4).into_bits(), 0, 0),
        (0, 0)
    );
    let records = bench.records();
    assert!(
        records.contains("mark id=7 tsc=0\nsnapshot id=7 tsc=0\n"),
        "{records}"
    );
    assert!(records.ends_with("end id=7\n"));
}

#[test]
fn device_memory() {
    let mut bench = bench();
    bench.machine.hardware.write_u64(BUFFER, 0x99);
    assert_eq!(
        bench.ask(exit_code::MMIO_WRITE, DEVICE_BASE, 4, BUFFER),
        (0, 0)
    );
    assert_eq!(bench.machine.hardware.input.get(), 0x99);
    bench.machine.hardware.input.set(0x1122_3344_5566_7788);
    assert_eq!(
        bench.ask(exit_code::MMIO_READ, DEVICE_BASE + 8, 8, BUFFER + 8),
        (0, 0)
    );
    assert_eq!(
        bench.machine.hardware.read_u64(BUFFER + 8),
        0x1122_3344_5566_7788
    );
    let refused = (2, malformed::INVALID_INPUT);
    for (gpa, length) in [
        (DEVICE_BASE, 3),
        (DEVICE_BASE + 2, 4),
        (FREE, 4),
        (0x7800_0000, 8),
    ] {
        assert_eq!(
            bench.ask(exit_code::MMIO_READ, gpa, length, BUFFER),
            refused
        );
    }
    assert_eq!(
        bench.ask(exit_code::MMIO_READ, DEVICE_BASE, 4, FREE + 0x1000),
        (2, malformed::INVALID_SCRATCH)
    );
}

#[test]
fn page_state_lists() {
    let entry = |page, size, operation| {
        PscEntry::request(GuestPhysicalAddress::new(page), size, operation).into_bits()
    };
    let (small, large) = (
        snp::address::PageSize::Size4K,
        snp::address::PageSize::Size2M,
    );
    let list = |bench: &Bench| {
        bench.machine.hardware.write_u64(BUFFER, 2 << 16);
        let entries = [
            entry(0x51_0000, small, PscOperation::Shared),
            entry(0x51_1000, small, PscOperation::Shared),
            entry(0x60_0000, large, PscOperation::Shared),
        ];
        for (number, entry) in (1..).zip(entries) {
            bench.machine.hardware.write_u64(BUFFER + 8 * number, entry);
        }
    };
    let mut bench = bench();
    list(&bench);
    assert_eq!(
        bench.ask(exit_code::PAGE_STATE_CHANGE, 0, 0, BUFFER),
        (0, 0)
    );
    assert_eq!(bench.machine.hardware.read_u64(BUFFER), (2 << 16) | 3);
    // Neighbours are one record.
    assert!(
        bench
            .records()
            .contains("op=shared gpa=0x510000 bytes=8192"),
        "{}",
        bench.records()
    );
    assert_eq!(
        bench.machine.shared_view.shared_bytes(),
        4096 + 8192 + (2 << 20)
    );

    bench.machine.hardware.write_u64(BUFFER, 253 << 16);
    let refused = bench.ask(exit_code::PAGE_STATE_CHANGE, 0, 0, BUFFER);
    assert_eq!(refused, (0, error::INVALID_HEADER));
    // The list may not reach beyond the buffer either.
    bench.machine.hardware.write_u64(BUFFER + 2016, 1 << 16);
    let refused = bench.ask(exit_code::PAGE_STATE_CHANGE, 0, 0, BUFFER + 2016);
    assert_eq!(refused, (0, error::INVALID_HEADER));
    let outside = bench.ask(exit_code::PAGE_STATE_CHANGE, 0, 0, FREE + 0x1000);
    assert_eq!(outside, (2, malformed::INVALID_SCRATCH));

    // Manner 3, count 1: fails after one entry.
    let mut bench = with(Switches::new().with_page_state_manner(0x103));
    list(&bench);
    assert_eq!(
        bench.ask(exit_code::PAGE_STATE_CHANGE, 0, 0, BUFFER),
        (0, error::GENERIC)
    );
    assert_eq!(bench.machine.hardware.read_u64(BUFFER), (2 << 16) | 1);
}

#[test]
fn unknown_msrs_raise_an_exception() {
    let mut bench = bench();
    bench.set(offset::RCX, 0x1B);
    assert_eq!(bench.ask(exit_code::MSR, 0, 0, 0), (0, 0));
    bench.set(offset::RCX, u64::from(snp::msr::SVSM_CAA));
    assert_eq!(
        bench.ask(exit_code::MSR, 0, 0, 0),
        (1, event::GENERAL_PROTECTION)
    );
}

#[test]
fn the_list_of_apic_ids_is_written_where_there_is_room() {
    const LIST: u64 = FREE + 0x1000;
    let mut bench = bench();
    bench.machine.cpus = 3;
    let page = GuestPhysicalAddress::new(LIST);
    bench.request(Request::page_state_change(page, PscOperation::Shared).encode());
    let found = |bench: &Bench| [0, 8].map(|at| bench.machine.hardware.read_u64(LIST + at));
    bench.set(offset::RAX, 0);
    let before = found(&bench);
    assert_eq!(bench.ask(exit_code::APIC_ID_LIST, 0, 0, 0), (0, 0));
    assert_eq!(bench.field(offset::RAX), 1, "one page is needed");
    assert_eq!(found(&bench), before);
    assert_eq!(bench.ask(exit_code::APIC_ID_LIST, LIST, 0, 0), (0, 0));
    assert_eq!(bench.field(offset::RAX), 1);
    assert_eq!(found(&bench), [3, 0x0000_0002_0000_0001]);
    let refused = (2, malformed::INVALID_INPUT);
    for wrong in [LIST + 8, FREE + 0x2000, DEVICE_BASE] {
        bench.set(offset::RAX, 1);
        if wrong == FREE + 0x2000 {
            bench.validate(wrong);
        }
        assert_eq!(bench.ask(exit_code::APIC_ID_LIST, wrong, 0, 0), refused);
    }
}

#[test]
fn a_cpu_in_reset_hold_waits_for_no_interrupt() {
    let mut bench = bench();
    assert_eq!(bench.ask(exit_code::AP_RESET_HOLD, 0, 0, 0), (0, 0));
    let waits = bench.machine.next_step(&mut bench.cpu);
    assert_eq!(waits, Step::Wait { interrupts: false });
}

#[test]
fn the_doorbell_is_remembered() {
    let mut bench = bench();
    assert_eq!(bench.ask(exit_code::HV_DOORBELL, 0, 0, 0), (0, u64::MAX));
    assert_eq!(bench.ask(exit_code::HV_DOORBELL, 1, 0x52_0000, 0), (0, 0));
    assert_eq!(bench.ask(exit_code::HV_DOORBELL, 2, 0, 0), (0, 0x52_0000));
    assert_eq!(
        bench.ask(exit_code::HV_DOORBELL, 1, 0x52_0001, 0),
        (2, malformed::INVALID_INPUT)
    );
    assert_eq!(bench.ask(exit_code::HV_DOORBELL, 3, 0, 0), (0, 0));
}
