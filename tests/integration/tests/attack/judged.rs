// SPDX-License-Identifier: MIT OR Apache-2.0
//! The service over a hostile machine, each call judged twice: by the reference model, and by what the reverse map and
//! the order of instructions say, of which the model knows nothing.

use std::collections::BTreeSet;
use std::ops::Deref;
use std::sync::{Mutex, MutexGuard, PoisonError};

use protocol::result::HOST_MISBEHAVED;
use reference_model::world::{CONVERT, SECRET, Watched, machine_ranges, with_configuration};
use reference_model::{Shape, Violation, World};
use snp::address::{PAGE_SIZE, PageSize, Vmpl};
use snp::operands::{RmpAdjustTarget, RmpPermissions};
use snp::psc::PscOperation;
use snp::svsm::{CallRegisters, ResultCode};
use snp_model::machine::Machine;
use snp_model::rmp::RmpEntry;
use svsm_swiotlb::page_state::PageState;
use svsm_swiotlb::platform::PageInstructions;

use crate::hostile_machine::{HostileMachine, gpa};
use crate::order::Order;

const ALL: RmpPermissions = RmpPermissions::READ_WRITE_EXECUTE;

/// A service and the model of it.
#[derive(Debug)]
pub struct Judged<'a> {
    world: &'a World<'a, HostileMachine>,
    /// Pages that were quarantined at one time.
    lost: Mutex<BTreeSet<u64>>,
}

impl<'a> Deref for Judged<'a> {
    type Target = World<'a, HostileMachine>;

    fn deref(&self) -> &Self::Target {
        self.world
    }
}

impl Watched for HostileMachine {
    fn leak(&self, window: u64, bytes: u64) -> Option<Violation> {
        self.machine().leak(window, bytes)
    }

    fn poke(&self, address: u64, bytes: &[u8]) {
        let _ = self
            .machine()
            .guest_write(Vmpl::Vmpl2, true, gpa(address), bytes);
    }
}

/// A machine on which the named pages are in these states, and blocks of 2 MiB valid in one entry of the reverse map.
fn machine(shape: &Shape, pages: &[(u64, PageState)], blocks: &[u64]) -> HostileMachine {
    let machine = Machine::new(&machine_ranges(shape));
    let end = shape.ram + shape.ram_pages * PAGE_SIZE;
    let mut order = Order::new(end, true);
    let secret = SECRET.repeat(512);
    let write = |page| {
        let written = machine.guest_write(Vmpl::Vmpl0, true, gpa(page), &secret);
        written.expect("a valid page");
    };
    let target = RmpAdjustTarget::grant(Vmpl::Vmpl2, ALL);
    for (page, state) in pages {
        if matches!(state, PageState::Valid | PageState::CallingArea) {
            machine.launch(gpa(*page), PAGE_SIZE);
            write(*page);
            let granted = machine.rmpadjust(gpa(*page), PageSize::Size4K, target);
            granted.expect("a valid page");
            order.launched(*page);
        }
    }
    for block in blocks {
        let size = PageSize::Size2M;
        machine.host_changes(gpa(*block), size, PscOperation::Private);
        let valid = machine.pvalidate(gpa(*block), size, true);
        valid.expect("an assigned page");
        machine.zero(gpa(*block), size).expect("a valid page");
        let granted = machine.rmpadjust(gpa(*block), size, target);
        granted.expect("a valid page");
        write(*block);
        write(*block + 511 * PAGE_SIZE);
        for page in 0..size.pages() {
            order.launched(block + page * PAGE_SIZE);
        }
    }
    HostileMachine::new(machine, order)
}

/// Runs a test with a fresh service; pages that are not named are Invalid.
pub fn judged<R>(
    shape: Shape,
    pages: &[(u64, PageState)],
    blocks: &[u64],
    test: impl FnOnce(&Judged<'_>) -> R,
) -> R {
    let machine = machine(&shape, pages, blocks);
    let mut pages = pages.to_vec();
    for block in blocks {
        let parts = (0..512).map(|page| (block + page * PAGE_SIZE, PageState::Valid));
        pages.extend(parts);
    }
    with_configuration(machine, CONVERT, shape, &pages, |world| {
        let world = Judged {
            world,
            lost: Mutex::default(),
        };
        world.check();
        test(&world)
    })
}

impl Judged<'_> {
    pub fn hostile(&self) -> &HostileMachine {
        self.platform.inner()
    }

    pub fn machine(&self) -> &Machine {
        self.hostile().machine()
    }

    fn lost(&self) -> MutexGuard<'_, BTreeSet<u64>> {
        self.lost.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The newest epoch, whether it lasts or not.
    pub fn epoch(&self) -> u32 {
        self.model().epoch
    }

    /// What is in a guest's page; nothing where it is lost.
    pub fn peek<const N: usize>(&self, address: u64) -> Option<[u8; N]> {
        let mut bytes = [0; N];
        let machine = self.machine();
        let read = machine.guest_read(Vmpl::Vmpl0, true, gpa(address), &mut bytes);
        read.is_ok().then_some(bytes)
    }

    /// A call, judged.
    pub fn call(&self, call: &CallRegisters) -> ResultCode {
        self.answer(call).0
    }

    /// The same with all registers.
    pub fn answer(&self, call: &CallRegisters) -> (ResultCode, CallRegisters) {
        let before = self.hostile().calls();
        let answer = if self.service.has_stopped() {
            let answer = self.unjudged(call);
            let done = self.hostile().calls() - before;
            let code = ResultCode::from_rax(answer.rax);
            assert_eq!((code, done), (HOST_MISBEHAVED, 0), "P-5.9.11");
            answer
        } else {
            let answer = self.judge(call);
            answer.unwrap_or_else(|violation| panic!("{violation}"))
        };
        self.check();
        (ResultCode::from_rax(answer.rax), answer)
    }

    /// design.md section 5: what holds between any two calls.
    pub fn check(&self) {
        self.invariants().unwrap();
        let hostile = self.hostile();
        assert_eq!(hostile.broken_order(), [] as [&str; 0]);
        for page in hostile.faulted() {
            let state = self.page(page);
            assert_eq!(state, Some(PageState::Quarantined), "P3: {page:#x}");
        }
        let shape = self.model().shape;
        let mut lost = self.lost();
        let back = lost
            .iter()
            .find(|page| self.page(**page) != Some(PageState::Quarantined));
        assert_eq!(back, None, "P3: it came back");
        // Most pages are like the one before.
        let mut before = None;
        for page in 0..shape.ram_pages {
            let address = shape.ram + page * PAGE_SIZE;
            let state = self.page(address).unwrap();
            let entry = self.machine().entry(gpa(address)).unwrap();
            if state == PageState::Quarantined {
                if lost.insert(address) {
                    hostile.forbid(address);
                }
            } else if before != Some((state, entry)) {
                before = Some((state, entry));
                assert!(
                    is_true(state, entry),
                    "{address:#x} is {state:?}, {entry:?}"
                );
            }
        }
    }
}

/// What the word says of a page is true: the guest's is validated and its alone, what is not validated no lower level
/// reaches.
fn is_true(state: PageState, entry: RmpEntry) -> bool {
    let levels = [Vmpl::Vmpl1, Vmpl::Vmpl2, Vmpl::Vmpl3];
    let levels = levels.map(|vmpl| entry.permissions(vmpl).into_bits());
    match state {
        PageState::Valid | PageState::CallingArea => {
            entry.validated && !entry.vmsa && levels == [0, ALL.into_bits(), 0]
        }
        PageState::Invalid | PageState::Shared => !entry.validated && levels == [0; 3],
        _ => true,
    }
}
