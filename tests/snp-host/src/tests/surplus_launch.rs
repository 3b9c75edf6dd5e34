// SPDX-License-Identifier: MIT OR Apache-2.0
//! A launch VMSA that runs beside the boot CPU's.

use snp::address::Vmpl;
use snp::vmsa::{EFER_SVME, Vmsa};
use zerocopy::FromZeros;

use super::bench::{Bench, CODE};
use crate::counters::Event;
use crate::launch::{PageToLaunch, kind};
use crate::page_attack::Left;
use crate::permission_maps::PermissionMaps;
use crate::residence::Step;
use crate::surplus_launch::SurplusLaunchWord;
use crate::switches::Switches;
use crate::vcpu::Cpu;

fn bench(word: SurplusLaunchWord, cpus: u32) -> (Bench, Cpu) {
    let armed = PageToLaunch {
        gpa: 0,
        kind: kind::ATTACK_BY_LAUNCH,
        bytes: &[],
        pages: word.into_bits(),
    };
    let mut bench = Bench::launched(Switches::new(), &[armed]).unwrap();
    bench.enter_long_mode();
    bench.machine.cpus = cpus;
    (bench, Cpu::new(1, &PermissionMaps::new(false), false))
}

impl Bench {
    fn exit_of(&mut self, vmpl: Vmpl, served: bool) {
        let left = Left { vmpl, served };
        self.machine
            .attack_behind_exit(&mut self.cpu, left)
            .unwrap();
    }
}

#[test]
fn it_begins_where_the_boot_cpu_began_at_its_moment() {
    let (mut bench, mut other) = bench(SurplusLaunchWord::new().with_count(2), 2);
    let idle = Step::Wait { interrupts: false };
    bench.exit_of(Vmpl::Vmpl0, false);
    bench.exit_of(Vmpl::Vmpl2, false);
    assert_eq!(bench.machine.next_step(&mut other), idle);
    // The second exit is the moment; the third finds it armed still, as the other CPU has not looked.
    for _ in 0..2 {
        bench.exit_of(Vmpl::Vmpl0, false);
    }
    assert_eq!(*bench.machine.hardware.woken.borrow(), [1]);
    assert_eq!(bench.machine.next_step(&mut other), Step::Guest);
    let vcpu = other.vcpu();
    assert!(vcpu.is_unpaged() && vcpu.vmcb.save.rip == CODE);
    assert!(!bench.cpu.vcpu().is_unpaged(), "the boot CPU runs on");
    bench.exit_of(Vmpl::Vmpl0, false);
    assert_eq!(bench.machine.counters.events(Event::AttackStruck), 1);
}

#[test]
fn a_cpu_that_runs_a_guest_leaves_it() {
    let word = SurplusLaunchWord::new().with_in_calls(true).with_count(1);
    let (mut bench, mut other) = bench(word, 2);
    let mut vmsa = Vmsa::new_zeroed();
    (vmsa.efer, vmsa.rip) = (EFER_SVME, CODE + 64);
    (other.current, other.is_halted) = (Vmpl::Vmpl2, true);
    other.vcpu_mut().load(&vmsa);
    bench.exit_of(Vmpl::Vmpl0, false);
    assert_eq!(bench.machine.counters.events(Event::AttackStruck), 0);
    bench.exit_of(Vmpl::Vmpl0, true);
    assert_eq!(bench.machine.next_step(&mut other), Step::Guest);
    assert_eq!(
        (other.current, other.vcpu().vmcb.save.rip),
        (Vmpl::Vmpl0, CODE)
    );
}

#[test]
fn a_machine_with_one_cpu_has_none() {
    let (mut bench, _) = bench(SurplusLaunchWord::new().with_count(1), 1);
    bench.exit_of(Vmpl::Vmpl0, false);
    assert_eq!(bench.machine.counters.events(Event::AttackStruck), 0);
    assert_eq!(*bench.machine.hardware.woken.borrow(), []);
}
