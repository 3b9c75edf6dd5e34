// SPDX-License-Identifier: MIT OR Apache-2.0
//! A kernel is started on another processor while a call of the one before it is under way, at each platform call: it calls through the launch
//! area, attaches, and has every chunk in the end.

use reference_model::guest;
use snp::svsm::{CallRegisters, ResultCode, core_protocol as call};
use svsm_swiotlb::page_state::PageState;
use svsm_swiotlb::platform::GuestMemory;

use super::prepared::{FIRST, SECOND, TARGET, core, interrupted, prepared, window};
use super::victims::{VICTIMS, Victim};
use crate::core_world::{AREA, BUSY, SUCCESS, World, documented, page, small};
use crate::platform::gpa;

/// Where the first kernel's boot vCPU calls from.
const MOVED: u64 = page(11);
/// Memory of the new kernel, and a list of it.
const OWN_PAGE: u64 = page(12);
const OWN_LIST: u64 = page(13);

/// The new kernel, on the processor whose VMSA is page 9.
struct NewKernel<'a> {
    world: &'a World<'a>,
    epoch: u32,
    /// Bytes that it was granted.
    held: u64,
}

impl<'a> NewKernel<'a> {
    /// Starts it: two calls of the core protocol, ATTACH, what can be given back of the orphans, and GROW.
    fn start(world: &'a World<'a>) -> Self {
        let mut kernel = Self {
            world,
            epoch: 0,
            held: 0,
        };
        world.put(AREA, &[1]);
        kernel.claim();
        world.put_list(OWN_LIST, &[small(OWN_PAGE, false)]);
        for _ in 0..2 {
            let code = kernel.core(call::PVALIDATE, OWN_LIST);
            assert!(documented(code), "{code}");
        }
        assert_eq!(world.state(OWN_PAGE), Some(PageState::Invalid));
        let (code, answer) = kernel.pool(&guest::attach());
        assert_eq!(code, SUCCESS);
        kernel.epoch = u32::try_from(answer.rcx).unwrap();
        for older in 1..kernel.epoch {
            let (code, _) = kernel.pool(&guest::release_orphans(kernel.epoch, older));
            assert!(documented(code), "{code}");
        }
        kernel.grow();
        kernel
    }

    fn vcpu(&self) -> paravisor::vcpu_table::VcpuIndex {
        let vcpu = self.world.core.vcpus.find(gpa(page(9)));
        vcpu.expect("the first kernel made it")
    }

    /// As the dispatcher at the first VMGEXIT.
    fn claim(&self) {
        let core = &self.world.core;
        let remap = CallRegisters::new(call::REMAP_CA.into(), [0; 3]);
        let take = |area: snp::address::GuestPhysicalAddress| {
            let mut pending = [0];
            self.world.platform.read(area, &mut pending)?;
            self.world.platform.write(area, &[0])?;
            Ok(pending != [0])
        };
        let claimed = core
            .launch_area
            .claim(&core.vcpus, core.states, self.vcpu(), &remap, take);
        assert!(claimed, "the new kernel is not heard");
        assert_eq!(core.vcpus.calling_area(self.vcpu()), Some(gpa(AREA)));
    }

    fn core(&self, number: u32, rcx: u64) -> ResultCode {
        let mut registers = CallRegisters::new(number.into(), [rcx, 0, 0]);
        let done = self.world.core.call(self.vcpu(), &mut registers);
        done.expect("no call of a guest ends the VM");
        ResultCode::from_rax(registers.rax)
    }

    fn pool(&self, call: &CallRegisters) -> (ResultCode, CallRegisters) {
        let area = self.world.core.vcpus.calling_area(self.vcpu());
        let answer = self.world.service.dispatch(call, area);
        (ResultCode::from_rax(answer.rax), answer)
    }

    fn grow(&mut self) {
        let (code, answer) = self.pool(&guest::grow(self.epoch, 1, 1, false));
        assert!(documented(code), "{code}");
        if code == SUCCESS {
            self.held += answer.rdx;
        }
    }

    /// Once nothing of the first kernel is under way.
    fn settle(&mut self) {
        for older in 1..self.epoch {
            let give_back = guest::release_orphans(self.epoch, older);
            while self.pool(&give_back).0 != SUCCESS {}
        }
        self.grow();
        let statistics = self.world.service.statistics();
        assert_eq!(statistics.granted_bytes, self.held, "lost, or leaked");
        assert_eq!(statistics.quarantined_bytes, 0);
        let whole = self.world.plan.placement.window().bytes();
        while self.held < whole {
            let before = self.held;
            self.grow();
            assert_ne!(
                self.held,
                before,
                "of {window:#x}",
                window = window(self.world)
            );
        }
        // Its own page, and those that the first kernel had in its hands.
        self.world.put_list(OWN_LIST, &[small(OWN_PAGE, true)]);
        assert_eq!(self.core(call::PVALIDATE, OWN_LIST), SUCCESS);
        for page in [TARGET, FIRST, SECOND] {
            assert_ne!(self.world.state(page), Some(PageState::Busy));
        }
    }
}

/// Whether it takes the vCPU away that the new kernel runs on, which needs that vCPU stopped.
fn takes_the_vcpu(victim: &Victim) -> bool {
    victim.name == "DELETE_VCPU" || victim.name.starts_with("CREATE_VCPU that replaces")
}

#[test]
fn w2_p5_p_14_1_p_5_2_2_a_kernel_starts_while_a_call_of_the_one_before_it_is_under_way() {
    let mut points = 0;
    for victim in VICTIMS.iter().filter(|victim| !takes_the_vcpu(victim)) {
        for nth in 1.. {
            let mut reached = false;
            prepared(|world| {
                (victim.prepare)(world);
                assert_eq!(core(world, call::REMAP_CA, MOVED, 0, 0), SUCCESS);
                let start = || NewKernel::start(world);
                let (code, kernel) = interrupted(world, nth, || (victim.call)(world), start);
                assert!(documented(code) || code == BUSY, "{}: {code}", victim.name);
                let Some(mut kernel) = kernel else { return };
                reached = true;
                kernel.settle();
            });
            if !reached {
                break;
            }
            points += 1;
        }
    }
    println!("{points} points at which a kernel starts");
    assert!(points > 100, "{points}");
}
