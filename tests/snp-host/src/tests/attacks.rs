// SPDX-License-Identifier: MIT OR Apache-2.0
//! Attacks on pages, replies and vectors, and what the machine's rules have against them.

use std::vec::Vec;

use snp::address::{PAGE_SIZE, PageSize, Vmpl};
use snp::ghcb_msr::{Request, response};
use snp::operands::{RmpAdjustTarget, RmpPermissions};
use snp::secrets::SecretsPage;
use zerocopy::{FromZeros, IntoBytes};

use super::bench::{Bench, CODE, FREE, HANDLER, STACK};
use crate::attack::PageAttackWord;
use crate::counters::Event;
use crate::false_reply::FalseReplyWord;
use crate::injection::InjectionWord;
use crate::launch::{PageToLaunch, kind};
use crate::page_attack::Left;
use crate::record::ExitCode;
use crate::svsm_calls::Form;
use crate::switches::Switches;
use crate::vmcb::{event, exit_code};

const SECRETS: u64 = 0x40_0000;
/// A page that the guest has accepted.
const PAGE: u64 = FREE;

const UNVALIDATE: u8 = 0;
const SHARE: u8 = 1;
const REMAP: u8 = 2;
const DOUBLE_MAP: u8 = 3;
const SWITCH_MAP: u8 = 4;
const READ_ONLY: u8 = 5;

const AT_EXIT: u8 = 0;
const AT_VALIDATION: u8 = 2;
const SWEEP: u8 = 3;
const SWEEP_VALIDATIONS: u8 = 4;

fn page_attack(action: u8, moment: u8, target: u8, count: u32) -> u32 {
    PageAttackWord::new()
        .with_action(action)
        .with_moment(moment)
        .with_target(target)
        .with_count(count)
        .into_bits()
}

fn armed(kind: u32, gpa: u64, word: u32) -> PageToLaunch<'static> {
    PageToLaunch {
        gpa,
        kind,
        bytes: &[],
        pages: word,
    }
}

/// A guest with a secrets page whose first words the host cannot know, and two accepted pages.
fn bench(attack: PageToLaunch<'_>) -> Bench {
    let mut secrets = SecretsPage::new_zeroed();
    secrets.version = 3;
    let secrets = PageToLaunch {
        gpa: SECRETS,
        kind: kind::SECRETS,
        bytes: secrets.as_bytes(),
        pages: 0,
    };
    let mut bench = Bench::launched(Switches::new(), &[secrets, attack]).unwrap();
    bench.enter_long_mode();
    bench.poke(SECRETS, 0x5EC2);
    for page in [PAGE, PAGE + PAGE_SIZE] {
        bench.validate(page);
        bench.poke(page, page);
    }
    bench
}

fn on_page(action: u8, moment: u8, count: u32) -> Bench {
    let word = page_attack(action, moment, 0, count);
    bench(armed(kind::ATTACK_ON_PAGE, PAGE, word))
}

impl Bench {
    fn exit_of_vmpl_0(&mut self) {
        // CPUID raises #VC: an exit like any other.
        self.exit(exit_code::CPUID, 0, 0).unwrap();
        self.cpu.vcpu_mut().vmcb.save.rip = CODE;
        self.cpu.vcpu_mut().vmcb.save.rsp = STACK + 0x1000;
    }

    /// VMPL 2, which cannot fetch here, calls; it has named this page.
    fn call(&mut self, named: Option<u64>) {
        if let Some(page) = named {
            let number = u32::try_from(page / PAGE_SIZE).unwrap();
            self.machine.name_page(7 << 24 | number);
        }
        let left = Left {
            vmpl: Vmpl::Vmpl2,
            served: false,
        };
        self.machine
            .switch_vmpl(&mut self.cpu, 0, Form::Msr)
            .unwrap();
        self.machine
            .attack_behind_exit(&mut self.cpu, left)
            .unwrap();
        self.cpu.vcpu_mut().vmcb.save.rip = CODE;
    }

    /// PVALIDATE(1): EAX, or why the machine stops.
    fn pvalidate(&mut self, page: u64) -> Result<u64, ExitCode> {
        let vcpu = self.cpu.vcpu_mut();
        vcpu.vmcb.save.rax = page;
        (vcpu.registers.rcx, vcpu.registers.rdx) = (0, 1);
        self.execute([0xF2, 0x0F, 0x01, 0xFF], exit_code::INVALID_OPCODE)?;
        Ok(self.cpu.vcpu().vmcb.save.rax)
    }

    fn grant(&mut self, page: u64) -> Result<u64, ExitCode> {
        let target = RmpAdjustTarget::grant(Vmpl::Vmpl2, RmpPermissions::READ);
        let vcpu = self.cpu.vcpu_mut();
        vcpu.vmcb.save.rax = page;
        (vcpu.registers.rcx, vcpu.registers.rdx) = (0, target.into_bits());
        self.execute([0xF3, 0x0F, 0x01, 0xFE], exit_code::INVALID_OPCODE)?;
        Ok(self.cpu.vcpu().vmcb.save.rax)
    }

    /// A private access that the nested tables do not allow; whether it became #VC.
    fn touch(&mut self, page: u64, write: bool) -> Result<bool, ExitCode> {
        self.cpu.vcpu_mut().vmcb.save.rip = CODE;
        self.cpu.vcpu_mut().vmcb.save.rsp = STACK + 0x1000;
        let info = u64::from(write) << 1;
        self.exit(exit_code::NESTED_FAULT, info, page | 1 << 51)?;
        Ok(self.rip() == HANDLER)
    }

    /// Private memory as the nested tables lead to it.
    fn behind(&self, page: u64) -> u64 {
        let host = self.machine.nested.private_page(self.index(page));
        crate::hardware::PhysicalMemory::read_u64(&self.machine.hardware, host)
    }

    fn is_validated(&mut self, page: u64) -> bool {
        let index = self.index(page);
        self.rmp().entry(index).is_some_and(|entry| entry.validated)
    }

    fn events(&self, event: Event) -> u64 {
        self.machine.counters.events(event)
    }
}

#[test]
fn a_page_is_taken_behind_the_exit_that_was_chosen() {
    let mut bench = on_page(UNVALIDATE, AT_EXIT, 3);
    bench.exit_of_vmpl_0();
    bench.exit_of_vmpl_0();
    assert!(bench.is_validated(PAGE));
    bench.exit_of_vmpl_0();
    assert!(!bench.is_validated(PAGE) && bench.is_validated(PAGE + PAGE_SIZE));
    // Contents stay: it is for the guest not to believe them.
    assert_eq!(bench.behind(PAGE), PAGE);
    assert_eq!(bench.events(Event::AttackStruck), 1);
    assert_eq!(bench.touch(PAGE, false), Ok(true));
    // Once.
    assert_eq!(bench.pvalidate(PAGE), Ok(0));
    bench.exit_of_vmpl_0();
    assert!(bench.is_validated(PAGE));
}

#[test]
fn a_page_is_taken_for_the_host() {
    let mut bench = on_page(SHARE, AT_EXIT, 1);
    bench.exit_of_vmpl_0();
    let index = bench.index(PAGE);
    assert!(
        bench
            .rmp()
            .entry(index)
            .is_some_and(|entry| !entry.assigned)
    );
    assert_eq!(bench.touch(PAGE, false), Err(ExitCode::Violation));
    assert!(
        bench
            .records()
            .contains("what=private-access-to-shared-page")
    );
}

#[test]
fn code_and_stack_are_found_by_the_registers() {
    for (target, page) in [(1, CODE), (2, STACK)] {
        let word = page_attack(UNVALIDATE, AT_EXIT, target, 2);
        let mut bench = bench(armed(kind::ATTACK_ON_PAGE, 0, word));
        bench.exit_of_vmpl_0();
        // The second one ends inside the handler, which is in the code's page, with a frame on the stack.
        bench.exit(exit_code::CPUID, 0, 0).unwrap();
        assert!(!bench.is_validated(page));
    }
}

#[test]
fn a_moved_page_shows_the_secret_only_once_it_is_validated() {
    let mut bench = on_page(REMAP, AT_VALIDATION, 2);
    let other = PAGE + PAGE_SIZE;
    let index = bench.index(other);
    bench
        .rmp()
        .pvalidate(index, PageSize::Size4K, false, Vmpl::Vmpl0);
    bench.exit_of_vmpl_0();
    assert_eq!(bench.pvalidate(other), Ok(0));
    assert_eq!(
        bench.behind(other),
        other,
        "the first validation is left alone"
    );
    bench
        .rmp()
        .pvalidate(index, PageSize::Size4K, false, Vmpl::Vmpl0);
    // Behind the host's back nothing is validated: PVALIDATE finds what it expects.
    assert_eq!(bench.pvalidate(other), Ok(0));
    assert_eq!(bench.cpu.vcpu().vmcb.save.rflags & 1, 0);
    assert_eq!(
        (bench.behind(other), bench.behind(SECRETS)),
        (0x5EC2, other)
    );
    assert!(!bench.is_validated(SECRETS));
    assert_eq!(bench.touch(SECRETS, false), Ok(true));
    // Who lets the guest in now has not zeroed.
    assert_eq!(bench.grant(other), Err(ExitCode::Violation));
    assert!(
        bench
            .records()
            .contains("what=granted-with-contents gpa=0x501000")
    );
    let frame = bench.machine.nested.private_page(index);
    crate::hardware::PhysicalMemory::fill(&bench.machine.hardware, frame, PAGE_SIZE, 0);
    assert_eq!(bench.grant(other), Ok(0));
}

#[test]
fn one_frame_is_not_reached_at_two_addresses() {
    let mut bench = on_page(DOUBLE_MAP, AT_VALIDATION, 1);
    let index = bench.index(PAGE);
    bench
        .rmp()
        .pvalidate(index, PageSize::Size4K, false, Vmpl::Vmpl0);
    assert_eq!(bench.pvalidate(PAGE), Err(ExitCode::Violation));
    assert!(
        bench
            .records()
            .contains("violation what=reverse-map gpa=0x500000")
    );
    // The nested tables lead there, and hardware says no.
    assert_eq!(bench.behind(PAGE), 0x5EC2);
    assert_eq!(bench.touch(PAGE, true), Err(ExitCode::Violation));
    assert!(bench.is_validated(SECRETS) && !bench.is_validated(PAGE));
    assert_eq!(bench.events(Event::ReverseMapRefused), 2);
}

#[test]
fn a_frame_that_is_switched_loses_its_validation_each_time() {
    let mut bench = on_page(SWITCH_MAP, AT_VALIDATION, 1);
    let index = bench.index(PAGE);
    bench
        .rmp()
        .pvalidate(index, PageSize::Size4K, false, Vmpl::Vmpl0);
    assert_eq!(bench.pvalidate(PAGE), Ok(0));
    assert!(bench.is_validated(PAGE));
    // The first owner comes back: not validated, and the second has lost it.
    assert_eq!(bench.touch(SECRETS, false), Ok(false));
    assert!(!bench.is_validated(SECRETS));
    assert_eq!(bench.touch(SECRETS, false), Ok(true));
    assert_eq!(bench.touch(PAGE, false), Ok(false));
    assert!(!bench.is_validated(PAGE));
    assert_eq!(bench.events(Event::ReverseMapRefused), 3);
}

/// The same in calls: VMPL 2 names the page, VMPL 0 exits twice and returns.
#[test]
fn a_named_page_is_attacked_one_moment_later_in_each_call() {
    let mut bench = on_page(UNVALIDATE, SWEEP, 0);
    bench.add_vmpl_2();
    let mut moments = Vec::new();
    for round in 0..5 {
        assert_eq!(bench.pvalidate(PAGE).map(|_| ()), Ok(()));
        bench.run_vmpl(Vmpl::Vmpl2);
        bench.call(Some(PAGE));
        let mut taken = (!bench.is_validated(PAGE)).then_some(0);
        for moment in [1, 2] {
            bench.exit_of_vmpl_0();
            taken = taken.or((!bench.is_validated(PAGE)).then_some(moment));
        }
        bench.run_vmpl(Vmpl::Vmpl2);
        taken = taken.or((!bench.is_validated(PAGE)).then_some(3));
        moments.push(taken);
        assert_eq!(bench.events(Event::AttackMissed), u64::from(round == 4));
        // A call for which no page is named is left alone.
        bench.call(None);
    }
    assert_eq!(moments, [Some(0), Some(1), Some(2), Some(3), None]);
    assert_eq!(bench.events(Event::AttackStruck), 4);
}

#[test]
fn each_validation_of_a_call_is_attacked_in_turn() {
    let mut bench = on_page(REMAP, SWEEP_VALIDATIONS, 0);
    bench.add_vmpl_2();
    let other = PAGE + PAGE_SIZE;
    for moved in [PAGE, other] {
        bench.run_vmpl(Vmpl::Vmpl2);
        bench.call(Some(PAGE));
        for page in [PAGE, other] {
            let before = bench.behind(page);
            bench.pvalidate(page).unwrap();
            assert_eq!(bench.behind(page) != before, page == moved);
        }
    }
    assert_eq!(bench.events(Event::AttackStruck), 2);
}

#[test]
fn a_read_only_page_faults_until_somebody_says_so() {
    let mut bench = on_page(READ_ONLY, AT_EXIT, 1);
    bench.exit_of_vmpl_0();
    assert_eq!(
        bench.touch(PAGE, true),
        Ok(false),
        "no exception: the host's affair"
    );
    let end = (0..2000).find_map(|_| bench.touch(PAGE, true).err());
    assert_eq!(end, Some(ExitCode::Died));
    assert!(
        bench
            .records()
            .contains("died what=read-only-page gpa=0x500000 vmpl=0")
    );
    assert_eq!(bench.events(Event::ReadOnlyFault), 1000);
    assert!(bench.is_validated(PAGE));
}

#[test]
fn a_handler_that_is_lost_is_named() {
    let mut bench = on_page(UNVALIDATE, AT_EXIT, 1);
    bench.exit_of_vmpl_0();
    let end = (0..2000).find_map(|_| bench.touch(PAGE, false).err());
    assert_eq!(end, Some(ExitCode::Died));
    assert!(
        bench
            .records()
            .contains("died what=lost-handler gpa=0x500000")
    );
}

#[test]
fn a_reply_is_false_and_the_next_ones_too() {
    let word = FalseReplyWord::new().with_asked(3).with_falsehood(1);
    let mut bench = bench(armed(kind::ATTACK_BY_REPLY, 0, word.into_bits()));
    let page = snp::address::GuestPhysicalAddress::new(PAGE);
    let request = Request::RegisterGhcb(page).encode();
    for _ in 0..2 {
        let answer = bench.request(request);
        assert_eq!(answer, response::register_ghcb(page) ^ 0x1000);
    }
    let features = response::features(crate::msr_protocol::FEATURES);
    assert_eq!(bench.request(Request::Features.encode()), features);
    assert_eq!(bench.events(Event::FalseReply), 2);
}

#[test]
fn restricted_injection_takes_no_vector() {
    let word = InjectionWord::new()
        .with_kind(3)
        .with_vector(13)
        .with_count(2);
    for restricted in [true, false] {
        let mut bench = bench(armed(kind::ATTACK_BY_VECTOR, 0, word.into_bits()));
        let features = bench.cpu.vcpu().features;
        bench.cpu.vcpu_mut().features = features.with_restricted_injection(restricted);
        bench.exit_of_vmpl_0();
        assert_eq!(bench.cpu.vcpu().vmcb.control.event_injection, 0);
        bench.exit_of_vmpl_0();
        let injected = bench.cpu.vcpu().vmcb.control.event_injection;
        assert_eq!(injected == event::GENERAL_PROTECTION, !restricted);
        assert_eq!(bench.events(Event::InjectionRefused), u64::from(restricted));
        assert_eq!(bench.events(Event::Injected), u64::from(!restricted));
        bench.exit_of_vmpl_0();
        assert_eq!(bench.cpu.vcpu().vmcb.control.event_injection, 0, "once");
    }
}

#[test]
fn unknown_attacks_do_not_start() {
    for (kind, word) in [
        (kind::ATTACK_ON_PAGE, 0xF),
        (kind::ATTACK_BY_REPLY, 0xF),
        (kind::ATTACK_BY_VECTOR, 0x700),
        (kind::ATTACK_BY_LAUNCH, 1),
    ] {
        let refused = Bench::launched(Switches::new(), &[armed(kind, 0, word)]);
        assert!(refused.err().unwrap().contains("what=launch-page"));
    }
}
