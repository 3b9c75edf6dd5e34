// SPDX-License-Identifier: MIT OR Apache-2.0
use snp::address::PageSize;
use snp::operands::InstructionCode;

use super::bench::{Bench, CODE, FREE, HANDLER, SHARED};
use crate::counters::Event;
use crate::record::ExitCode;
use crate::switches::Switches;
use crate::vcpu::CR0_PAGING;
use crate::vmcb::{event, exit_code};

const PVALIDATE: [u8; 4] = [0xF2, 0x0F, 0x01, 0xFF];
const RMPADJUST: [u8; 4] = [0xF3, 0x0F, 0x01, 0xFE];
const RMPQUERY: [u8; 4] = [0xF3, 0x0F, 0x01, 0xFD];
const ZERO: u64 = 1 << 6;
const CARRY: u64 = 1;

impl Bench {
    /// Executes an instruction; EAX, and CF and ZF.
    fn page_instruction(&mut self, bytes: [u8; 4], address: u64, rcx: u64, rdx: u64) -> (u32, u64) {
        let vcpu = self.cpu.vcpu_mut();
        (vcpu.vmcb.save.rax, vcpu.registers.rcx, vcpu.registers.rdx) = (address, rcx, rdx);
        let rip = vcpu.vmcb.save.rip & !7;
        assert_eq!(self.execute(bytes, exit_code::INVALID_OPCODE), Ok(()));
        assert_eq!(self.rip(), rip + 4);
        let save = &self.cpu.vcpu().vmcb.save;
        (
            u32::try_from(save.rax).unwrap(),
            save.rflags & (ZERO | CARRY),
        )
    }
}

#[test]
fn pvalidate_reports_size_and_change() {
    let mut bench = Bench::new();
    let index = bench.index(FREE);
    bench
        .machine
        .convert(index, PageSize::Size4K, false)
        .unwrap();
    assert_eq!(bench.page_instruction(PVALIDATE, FREE, 0, 1), (0, ZERO));
    assert_eq!(
        bench.page_instruction(PVALIDATE, FREE, 0, 1),
        (0, ZERO | CARRY)
    );
    let mismatch = InstructionCode::FAIL_SIZEMISMATCH.0;
    let large = FREE & !0x1F_FFFF;
    bench.validate(large);
    assert_eq!(
        bench.page_instruction(PVALIDATE, large, 1, 1),
        (mismatch, 0)
    );
    // Without C-bit in the mapping, and beyond RAM.
    let bad = InstructionCode::FAIL_INPUT.0;
    assert_eq!(
        bench.page_instruction(PVALIDATE, FREE + SHARED, 0, 1),
        (bad, 0)
    );
}

#[test]
fn a_small_instruction_splits_a_large_entry() {
    let mut bench = Bench::new();
    let large = 0x60_0000;
    let index = bench.index(large);
    bench
        .machine
        .convert(index, PageSize::Size2M, false)
        .unwrap();
    assert_eq!(bench.page_instruction(PVALIDATE, large, 1, 1), (0, ZERO));
    assert_eq!(
        bench.page_instruction(RMPADJUST, large, 1, 0x0F02),
        (0, ZERO)
    );
    assert_eq!(
        bench.page_instruction(PVALIDATE, large + 0x3000, 0, 0),
        (0, ZERO)
    );
    assert_eq!(bench.machine.counters.events(Event::Psmash), 1);
    assert!(!bench.rmp().entry(index).unwrap().large);
    bench.page_instruction(RMPQUERY, large, 0, 2);
    let registers = &bench.cpu.vcpu().registers;
    assert_eq!((registers.rdx, registers.rcx), (0x0F02, 0));
}

#[test]
fn faults_of_an_instruction_go_to_the_guest() {
    let mut bench = Bench::new();
    let unmapped = 1 << 30;
    bench.cpu.vcpu_mut().vmcb.save.rax = unmapped;
    assert_eq!(bench.execute(PVALIDATE, exit_code::INVALID_OPCODE), Ok(()));
    let vcpu = bench.cpu.vcpu();
    assert_eq!(vcpu.vmcb.control.event_injection, event::PAGE_FAULT);
    assert_eq!((vcpu.vmcb.save.cr2, vcpu.vmcb.save.rip), (unmapped, CODE));

    bench.cpu.vcpu_mut().vmcb.save.cpl = 3;
    assert_eq!(bench.execute(PVALIDATE, exit_code::INVALID_OPCODE), Ok(()));
    assert_eq!(
        bench.cpu.vcpu().vmcb.control.event_injection,
        event::GENERAL_PROTECTION
    );
    bench.cpu.vcpu_mut().vmcb.save.cpl = 0;

    assert_eq!(
        bench.execute([0x0F, 0x0B, 0, 0], exit_code::INVALID_OPCODE),
        Ok(())
    );
    assert_eq!(
        bench.cpu.vcpu().vmcb.control.event_injection,
        event::INVALID_OPCODE
    );

    // RMPADJUST of a page that is not validated.
    let index = bench.index(FREE);
    bench
        .machine
        .convert(index, PageSize::Size4K, false)
        .unwrap();
    let vcpu = bench.cpu.vcpu_mut();
    (vcpu.vmcb.save.rax, vcpu.registers.rcx, vcpu.registers.rdx) = (FREE, 0, 0x0F02);
    assert_eq!(bench.execute(RMPADJUST, exit_code::INVALID_OPCODE), Ok(()));
    assert_eq!(bench.rip(), HANDLER);
    assert_eq!(bench.machine.counters.events(Event::NotValidated), 1);
}

#[test]
fn an_instruction_on_a_shared_page_stops_the_strict_machine() {
    let mut bench = Bench::new();
    bench.cpu.vcpu_mut().vmcb.save.rax = FREE;
    let stopped = bench.execute(PVALIDATE, exit_code::INVALID_OPCODE);
    assert_eq!(stopped, Err(ExitCode::Violation));
    let mut bench = Bench::with(Switches::new().with_implicit_conversion(true));
    bench.cpu.vcpu_mut().vmcb.save.rax = FREE;
    assert_eq!(bench.execute(PVALIDATE, exit_code::INVALID_OPCODE), Ok(()));
    // The instruction is executed again.
    assert_eq!(bench.rip(), CODE);
    assert_eq!(bench.page_instruction(PVALIDATE, FREE, 0, 1), (0, ZERO));
}

#[test]
fn turning_paging_on_enters_long_mode() {
    let mut bench = Bench::launched(Switches::new(), &[]).unwrap();
    let vcpu = bench.cpu.vcpu_mut();
    vcpu.vmcb.save.efer |= snp::vmsa::EFER_LME;
    vcpu.vmcb.save.rax = 0x8001_0021;
    assert!(vcpu.is_unpaged());
    assert_eq!(
        bench.execute([0x0F, 0x22, 0xC0, 0x90], exit_code::CR0_WRITE),
        Ok(())
    );
    let save = &bench.cpu.vcpu().vmcb.save;
    assert_eq!((save.cr0, save.rip), (0x8001_0031, CODE + 3));
    assert_eq!(
        (save.cr0 & CR0_PAGING, save.efer & snp::vmsa::EFER_LMA),
        (1 << 31, 1 << 10)
    );
    assert_eq!(
        bench.execute([0x90; 4], exit_code::CR0_WRITE),
        Err(ExitCode::Died)
    );
}

#[test]
fn a_guest_that_clears_svme_cannot_run_on() {
    let mut bench = Bench::new();
    bench.cpu.vcpu_mut().vmcb.save.efer &= !snp::vmsa::EFER_SVME;
    assert_eq!(bench.exit(exit_code::CPUID, 0, 0), Err(ExitCode::Died));
    assert!(bench.records().contains("efer-svme-cleared"));
}

/// The boot CPU's flag is the guest's, even for a guest that reaches the processor's MSRs.
#[test]
fn a_machine_that_lets_msrs_through_keeps_the_apic_base() {
    let mut bench = Bench::with(Switches::new().with_pass_through(true));
    bench.cpu.vcpu_mut().registers.rcx = 0x1B;
    assert_eq!(bench.exit(exit_code::MSR, 0, 0), Ok(()));
    assert_eq!(bench.cpu.vcpu().vmcb.save.rax, 0xFEE0_0900);
    // Written, it stays as it is.
    bench.cpu.vcpu_mut().vmcb.save.rax = 0;
    assert_eq!(bench.exit(exit_code::MSR, 1, 0), Ok(()));
    assert_eq!(bench.exit(exit_code::MSR, 0, 0), Ok(()));
    assert_eq!(bench.cpu.vcpu().vmcb.save.rax, 0xFEE0_0900);
}

#[test]
fn only_the_msrs_of_sev_are_kept_by_the_host() {
    let mut bench = Bench::new();
    bench.cpu.vcpu_mut().registers.rcx = u64::from(snp::msr::SEV_STATUS);
    assert_eq!(bench.exit(exit_code::MSR, 0, 0), Ok(()));
    let vcpu = bench.cpu.vcpu();
    assert_eq!(
        (vcpu.vmcb.save.rax, vcpu.registers.rdx, vcpu.vmcb.save.rip),
        (0xA7, 0, CODE + 2)
    );
    bench.cpu.vcpu_mut().registers.rcx = u64::from(snp::msr::SVSM_CAA);
    assert_eq!(bench.exit(exit_code::MSR, 0, 0), Ok(()));
    assert_eq!(bench.rip(), HANDLER);
}
