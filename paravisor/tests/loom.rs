// SPDX-License-Identifier: MIT OR Apache-2.0
//! The table of vCPUs in every order of accesses that the memory model allows (`make test-loom`).
//!
//! Each test is a model that loom runs once for each interleaving, with stale values where an ordering permits them.
#![cfg(loom)]

use std::sync::Arc;

use loom::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use loom::thread;
use paravisor::launch_area::LaunchArea;
use paravisor::vcpu_table::{Reservation, Seat, VcpuIndex, VcpuSlot, VcpuTable};
use snp::address::{GuestPhysicalAddress, PAGE_SIZE};
use snp::svsm::CallRegisters;
use svsm_swiotlb::page_state::{PageState, PageStates, RamRange, RamRanges};

/// The processor whose vCPU comes and goes, and another one.
const PROCESSOR: u32 = 1;
const ANOTHER: u32 = 2;

/// Two pages that may be a VMSA.
const PAGES: [GuestPhysicalAddress; 2] = [
    GuestPhysicalAddress::new(0x10_0000),
    GuestPhysicalAddress::new(0x10_1000),
];
/// A calling area, of which nobody looks at the word.
const AREA: GuestPhysicalAddress = GuestPhysicalAddress::new(0x20_0000);

/// What is in a page: two steps without an order of their own, so that a touch beside another gets lost.
#[derive(Clone)]
struct Contents(Arc<AtomicU32>);

impl Contents {
    fn new() -> Self {
        Self(Arc::new(AtomicU32::new(0)))
    }

    fn touch(&self) {
        let touches = self.0.load(Ordering::Relaxed);
        self.0.store(touches + 1, Ordering::Relaxed);
    }

    fn touches(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A machine with one vCPU, on the first page. Leaked: loom's threads outlive what is on a stack.
#[derive(Clone, Copy)]
struct Machine {
    vcpus: VcpuTable<'static>,
    states: &'static PageStates<'static>,
    /// VMSAs of the processor that the host could run.
    runnable: &'static AtomicU32,
}

impl Machine {
    fn new() -> Self {
        let range = RamRange::new(PAGES[0], 2 * PAGE_SIZE);
        let list: &'static mut [RamRange] = Box::leak(Box::new([range]));
        let words: Vec<AtomicU8> = (0..2).map(|_| AtomicU8::new(1)).collect();
        let states = PageStates::new(RamRanges::new(list).unwrap(), words.leak()).unwrap();
        let machine = Self {
            vcpus: VcpuTable::new(Box::leak(Box::<[VcpuSlot; 3]>::default())),
            states: Box::leak(Box::new(states)),
            runnable: Box::leak(Box::new(AtomicU32::new(0))),
        };
        assert!(machine.create(PROCESSOR, PAGES[0]));
        machine
    }

    /// As CREATE_VCPU: the page's word first, then the slot; the vCPU that has it goes before the new one comes. Whether it
    /// was made, and which page was replaced.
    fn create(self, processor: u32, vmsa: GuestPhysicalAddress) -> bool {
        let Ok(page) = self.states.hold(vmsa, &[PageState::Valid]) else {
            return false;
        };
        let Some(slot) = self.take_place(processor) else {
            page.keep();
            return false;
        };
        if processor == PROCESSOR {
            assert_eq!(self.runnable.fetch_add(1, Ordering::Relaxed), 0);
        }
        slot.fill(vmsa, AREA);
        page.change_to(PageState::Vmsa);
        true
    }

    fn take_place(self, processor: u32) -> Option<Reservation<'static>> {
        if let Some(slot) = self.vcpus.reserve(processor) {
            return Some(slot);
        }
        let old = PAGES.into_iter().find(|page| {
            let place = self.vcpus.place(processor);
            self.vcpus.find(*page) == place
        })?;
        self.retire(old, || ())
    }

    /// What makes a vCPU go; `found` is what its owner does to the page then.
    fn retire(
        self,
        vmsa: GuestPhysicalAddress,
        found: impl FnOnce(),
    ) -> Option<Reservation<'static>> {
        let page = self.states.hold(vmsa, &[PageState::Vmsa]).ok()?;
        let Some(vcpu) = self.vcpus.find(vmsa) else {
            page.keep();
            return None;
        };
        if Some(vcpu) == self.vcpus.place(PROCESSOR) {
            assert_eq!(self.runnable.fetch_sub(1, Ordering::Relaxed), 1);
        }
        let place = self.vcpus.vacate(vcpu, vmsa);
        assert!(
            place.is_some(),
            "its word is held, so it stays where it was found"
        );
        found();
        page.change_to(PageState::Valid);
        place
    }

    /// As DELETE_VCPU.
    fn delete(self, vmsa: GuestPhysicalAddress, found: impl FnOnce()) -> bool {
        self.retire(vmsa, found).is_some()
    }

    /// What the run loop does with a vCPU that it finds; whether it found one, on which page.
    fn run(
        self,
        vcpu: VcpuIndex,
        enter: impl FnOnce(GuestPhysicalAddress),
    ) -> Option<GuestPhysicalAddress> {
        match self.vcpus.seat(vcpu, self.states) {
            Seat::Taken(vmsa, page) => {
                enter(vmsa);
                page.keep();
                Some(vmsa)
            }
            Seat::Busy | Seat::Vacant => None,
        }
    }
}

#[test]
fn p5_a_vcpu_that_is_deleted_is_not_run() {
    loom::model(|| {
        let machine = Machine::new();
        let contents = Contents::new();
        let place = machine.vcpus.place(PROCESSOR).unwrap();
        let deleter = thread::spawn({
            let contents = contents.clone();
            move || machine.delete(PAGES[0], || contents.touch())
        });
        let ran = machine.run(place, |_| contents.touch());
        let deleted = deleter.join().unwrap();
        assert!(deleted || ran.is_some());
        assert_eq!(
            contents.touches(),
            u32::from(deleted) + u32::from(ran.is_some())
        );
        let expected = if deleted {
            PageState::Valid
        } else {
            PageState::Vmsa
        };
        assert_eq!(machine.states.state(PAGES[0]), Some(expected));
    });
}

#[test]
fn p5_a_page_that_became_another_vcpus_is_not_run() {
    loom::model(|| {
        let machine = Machine::new();
        let place = machine.vcpus.place(PROCESSOR).unwrap();
        let other = thread::spawn(move || {
            machine.delete(PAGES[0], || ()) && machine.create(ANOTHER, PAGES[0])
        });
        // Inside, the page is still this processor's.
        let ran = machine.run(place, |vmsa| {
            assert_eq!(machine.vcpus.find(vmsa), Some(place));
        });
        let moved = other.join().unwrap();
        assert!(moved || ran.is_some());
    });
}

/// The page of the processor's vCPU at the end; the other one is no VMSA.
fn last(machine: Machine) -> GuestPhysicalAddress {
    let is_vmsa =
        |page: &GuestPhysicalAddress| machine.states.state(*page) == Some(PageState::Vmsa);
    let vmsas: Vec<_> = PAGES.into_iter().filter(is_vmsa).collect();
    assert_eq!(vmsas.len(), 1);
    assert_eq!(machine.vcpus.find(vmsas[0]), machine.vcpus.place(PROCESSOR));
    vmsas[0]
}

#[test]
fn of_two_that_make_one_vcpu_one_stays() {
    loom::model(|| {
        let machine = Machine::new();
        assert!(machine.delete(PAGES[0], || ()));
        let other = thread::spawn(move || machine.create(PROCESSOR, PAGES[0]));
        let here = machine.create(PROCESSOR, PAGES[1]);
        let made = [other.join().unwrap(), here];
        let last = last(machine);
        let stays = PAGES.into_iter().position(|page| page == last).unwrap();
        assert!(made[stays], "the other one was replaced, or found it taken");
    });
}

#[test]
fn p5_a_vcpu_that_is_replaced_is_not_run() {
    loom::model(|| {
        let machine = Machine::new();
        let contents = Contents::new();
        let place = machine.vcpus.place(PROCESSOR).unwrap();
        let replacer = thread::spawn({
            let contents = contents.clone();
            move || {
                let replaced = machine.create(PROCESSOR, PAGES[1]);
                if replaced {
                    contents.touch();
                }
                replaced
            }
        });
        let ran = machine.run(place, |vmsa| {
            if vmsa == PAGES[0] {
                contents.touch();
            }
        });
        let replaced = replacer.join().unwrap();
        assert!(replaced || ran == Some(PAGES[0]));
        assert_eq!(last(machine), PAGES[usize::from(replaced)]);
        let touches = u32::from(replaced) + u32::from(ran == Some(PAGES[0]));
        assert_eq!(contents.touches(), touches);
    });
}

#[test]
fn a_vcpu_that_is_replaced_and_deleted_at_once_goes_once() {
    loom::model(|| {
        let machine = Machine::new();
        let replacer = thread::spawn(move || machine.create(PROCESSOR, PAGES[1]));
        let deleted = machine.delete(PAGES[0], || ());
        let created = replacer.join().unwrap();
        assert!(deleted || created);
        assert_eq!(machine.states.state(PAGES[0]), Some(PageState::Valid));
        assert_eq!(machine.vcpus.find(PAGES[1]).is_some(), created);
        let runnable = machine.runnable.load(Ordering::Relaxed);
        assert_eq!(runnable, u32::from(created));
    });
}

/// The launch area, and the areas of two vCPUs of the first kernel.
const LAUNCH: GuestPhysicalAddress = GuestPhysicalAddress::new(0x10_0000);
const AREAS: [GuestPhysicalAddress; 2] = [
    GuestPhysicalAddress::new(0x10_1000),
    GuestPhysicalAddress::new(0x10_2000),
];

/// A guest whose two vCPUs have moved their calling areas, and CALL_PENDING of the launch area.
#[derive(Clone, Copy)]
struct FirstKernel {
    vcpus: VcpuTable<'static>,
    states: &'static PageStates<'static>,
    pending: &'static AtomicU8,
    /// Accesses to the launch area's page.
    contents: &'static Contents,
}

impl FirstKernel {
    fn new() -> Self {
        let range = RamRange::new(LAUNCH, 3 * PAGE_SIZE);
        let list: &'static mut [RamRange] = Box::leak(Box::new([range]));
        let of = [
            PageState::Valid,
            PageState::CallingArea,
            PageState::CallingArea,
        ];
        let words: Vec<AtomicU8> = of.map(|state| AtomicU8::new(state.to_byte())).into();
        let states = PageStates::new(RamRanges::new(list).unwrap(), words.leak()).unwrap();
        let vcpus = VcpuTable::new(Box::leak(Box::<[VcpuSlot; 3]>::default()));
        for (number, area) in (0..).zip(AREAS) {
            vcpus.reserve(number).unwrap().fill(PAGES[0], area);
        }
        Self {
            vcpus,
            states: Box::leak(Box::new(states)),
            pending: Box::leak(Box::new(AtomicU8::new(0))),
            contents: Box::leak(Box::new(Contents::new())),
        }
    }

    fn vcpu(self, number: u32) -> VcpuIndex {
        self.vcpus.place(number).unwrap()
    }

    /// As a processor whose vCPU has stopped with the registers of REMAP_CA.
    fn claim(self, number: u32) -> bool {
        let registers = CallRegisters::new(0, [0; 3]);
        let take = |_| {
            self.contents.touch();
            Ok(self.pending.swap(0, Ordering::AcqRel) != 0)
        };
        let vcpu = self.vcpu(number);
        LaunchArea(LAUNCH).claim(&self.vcpus, self.states, vcpu, &registers, take)
    }
}

#[test]
fn p_14_2_one_of_two_vcpus_takes_a_call_and_the_page_is_its_own() {
    loom::model(|| {
        let guest = FirstKernel::new();
        guest.pending.store(1, Ordering::Release);
        let other = thread::spawn(move || guest.claim(1));
        let claims = [guest.claim(0), other.join().unwrap()];
        // Whoever finds the word taken as often as it asks leaves the byte.
        assert_ne!(claims, [true, true]);
        let unserved = guest.pending.load(Ordering::Acquire) == 1;
        assert_eq!(claims == [false, false], unserved);
        for (number, claimed) in (0..).zip(claims) {
            let [area, state] = match claimed {
                true => [LAUNCH, AREAS[number as usize]],
                false => [AREAS[number as usize]; 2],
            };
            assert_eq!(guest.vcpus.calling_area(guest.vcpu(number)), Some(area));
            let expected = match claimed {
                true => PageState::Valid,
                false => PageState::CallingArea,
            };
            assert_eq!(guest.states.state(state), Some(expected));
        }
        let expected = match unserved {
            true => PageState::Valid,
            false => PageState::CallingArea,
        };
        assert_eq!(guest.states.state(LAUNCH), Some(expected));
    });
}

#[test]
fn p5_p_14_2_a_launch_area_that_is_taken_away_is_not_touched() {
    loom::model(|| {
        let guest = FirstKernel::new();
        guest.pending.store(1, Ordering::Release);
        // As PVALIDATE, which takes the page from the guest.
        let rescinder = thread::spawn(move || {
            let Ok(page) = guest.states.hold(LAUNCH, &[PageState::Valid]) else {
                return false;
            };
            guest.contents.touch();
            page.change_to(PageState::Invalid);
            true
        });
        let claimed = guest.claim(0);
        let rescinded = rescinder.join().unwrap();
        assert!(!(claimed && rescinded));
        let touches = guest.contents.touches();
        assert_eq!(touches, u32::from(claimed) + u32::from(rescinded));
    });
}
