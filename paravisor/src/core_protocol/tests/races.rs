// SPDX-License-Identifier: MIT OR Apache-2.0
//! Calls from several processors at once: two threads on one machine, whose instructions are atomic.

use core::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Barrier, Mutex};
use std::thread;
use std::time::Duration;

use snp::address::{GuestPhysicalAddress, PageSize};
use snp::operands::{PvalidateResult, RmpAdjustTarget};
use snp::svsm::{CallId, CallRegisters, ResultCode, core_protocol as call};
use snp::vmsa::{EFER_SVME, Vmsa};
use svsm_swiotlb::page_state::PageState;
use svsm_swiotlb::platform::{Fault, GuestMemory, PageInstructions};
use zerocopy::{FromZeros, IntoBytes};

use super::{NO_CHANGE, SUCCESS, Step, small};
use crate::apic_ids::{ProcessorId, tests::apic_ids};
use crate::core_protocol::CoreProtocol;
use crate::launch_area::LaunchArea;
use crate::layout::BOOT_CALLING_AREA;
use crate::page_account::tests::recorded;
use crate::page_owner::PageOwner;
use crate::test_machine::TestMachine;
use crate::vcpu_control::{StartError, VcpuControl};
use crate::vcpu_table::{Seat, VcpuIndex, VcpuSlot, VcpuTable};

/// Where a processor marks the VMSA that it runs.
const MARK: u64 = 0x100;
/// First of the guest's pages here.
const FIRST: u64 = 0x300_1000;

const fn page(number: u64) -> u64 {
    FIRST + number * 4096
}

/// A machine for several threads.
struct Shared(Mutex<TestMachine>);

impl Shared {
    fn with<R>(&self, work: impl FnOnce(&TestMachine) -> R) -> R {
        work(&self.0.lock().unwrap())
    }
}

impl PageInstructions for Shared {
    fn pvalidate(
        &self,
        page: GuestPhysicalAddress,
        size: PageSize,
        validate: bool,
    ) -> Result<PvalidateResult, Fault> {
        self.with(|machine| machine.pvalidate(page, size, validate))
    }

    fn rmpadjust(
        &self,
        page: GuestPhysicalAddress,
        size: PageSize,
        target: RmpAdjustTarget,
    ) -> Result<snp::operands::InstructionCode, Fault> {
        self.with(|machine| {
            let code = machine.rmpadjust(page, size, target);
            // All of them would be the second processor's.
            let vmsas = (0..16)
                .map(self::page)
                .filter(|gpa| machine.page(*gpa, |page| page.vmsa));
            assert!(vmsas.count() <= 1, "two VMSAs that the host can run");
            code
        })
    }

    fn evict(&self, page: GuestPhysicalAddress, size: PageSize) -> Result<(), Fault> {
        self.with(|machine| machine.evict(page, size))
    }

    fn zero(&self, page: GuestPhysicalAddress, size: PageSize) -> Result<(), Fault> {
        self.with(|machine| machine.zero(page, size))
    }

    fn flush(&self) {
        self.with(PageInstructions::flush);
    }
}

impl GuestMemory for Shared {
    fn read(&self, from: GuestPhysicalAddress, bytes: &mut [u8]) -> Result<(), Fault> {
        self.with(|machine| machine.read(from, bytes))
    }

    fn write(&self, to: GuestPhysicalAddress, bytes: &[u8]) -> Result<(), Fault> {
        self.with(|machine| machine.write(to, bytes))
    }
}

impl VcpuControl for Shared {
    fn start_processor(&self, processor: ProcessorId) -> Result<(), StartError> {
        let started = self.with(|machine| machine.start_processor(processor));
        thread::yield_now(); // a VMGEXIT: others get on meanwhile
        started
    }
}

/// A guest whose pages FIRST and on are valid; it has its boot vCPU.
struct World<'a> {
    core: CoreProtocol<'a, Shared>,
    boot: VcpuIndex,
}

fn world(test: impl FnOnce(&World<'_>)) {
    let machine = TestMachine::default();
    (0..16).for_each(|number| machine.launch(page(number)));
    machine.launch(BOOT_CALLING_AREA);
    let machine = Shared(Mutex::new(machine));
    recorded(|plan, states| {
        let slots: [VcpuSlot; 4] = Default::default();
        let vcpus = VcpuTable::new(&slots);
        let gpa = GuestPhysicalAddress::new;
        let boot = vcpus.reserve(0).unwrap();
        let boot = boot.fill(gpa(0x43_0000), gpa(BOOT_CALLING_AREA));
        test(&World {
            core: CoreProtocol {
                owner: PageOwner::new(plan, &machine),
                states: &states,
                vcpus,
                guest_features: 1,
                processors: apic_ids(&[0, 1]),
                launch_area: LaunchArea(gpa(BOOT_CALLING_AREA)),
                protocols: &[],
            },
            boot,
        });
    });
}

impl World<'_> {
    fn machine(&self) -> &Shared {
        self.core.owner.machine()
    }

    /// A call that must not end the VM.
    fn call(&self, number: u32, rcx: u64, rdx: u64, r8: u64) -> ResultCode {
        let rax = CallId {
            protocol: 0,
            call: number,
        }
        .to_rax();
        let mut registers = CallRegisters::new(rax, [rcx, rdx, r8]);
        self.core.call(self.boot, &mut registers).unwrap();
        ResultCode::from_rax(registers.rax)
    }

    fn create(&self, vmsa: u64, area: u64) -> ResultCode {
        let mut contents = Vmsa::new_zeroed();
        (contents.vmpl, contents.efer, contents.sev_features) = (2, EFER_SVME, 1);
        let gpa = GuestPhysicalAddress::new(vmsa);
        self.machine().write(gpa, contents.as_bytes()).unwrap();
        self.call(call::CREATE_VCPU, vmsa, area, 1)
    }

    /// Nobody writes to the mark of a page that is no VMSA any more.
    fn unmarked(&self, vmsa: u64, round: u64) {
        let field = GuestPhysicalAddress::new(vmsa + MARK);
        self.machine().write(field, &[0x11]).unwrap();
        thread::yield_now();
        let mut found = [0];
        self.machine().read(field, &mut found).unwrap();
        assert_eq!(found, [0x11], "round {round}");
    }

    fn state(&self, gpa: u64) -> PageState {
        let gpa = GuestPhysicalAddress::new(gpa);
        self.core.states.state(gpa).unwrap()
    }
}

/// Two that create a vCPU of one processor: one of them at least does, and who comes second replaces it or finds it busy.
#[test]
fn p5_of_two_that_create_one_vcpu_one_stays() {
    world(|world| {
        let mut replaced = 0;
        for _ in 0..200 {
            let barrier = Barrier::new(2);
            let create = |first| {
                barrier.wait();
                world.create(page(first), page(first + 1))
            };
            let codes = thread::scope(|scope| {
                let other = scope.spawn(|| create(2));
                [create(0), other.join().unwrap()]
            });
            let stays = [0, 2].map(|first| world.state(page(first)) == PageState::Vmsa);
            assert_ne!(stays[0], stays[1]);
            for ((number, stays), code) in [0, 2].into_iter().zip(stays).zip(codes) {
                let (vmsa, area) = match stays {
                    true => (PageState::Vmsa, PageState::CallingArea),
                    false => (PageState::Valid, PageState::Valid),
                };
                assert!(code == SUCCESS || code == ResultCode::BUSY && !stays);
                replaced += u32::from(code == SUCCESS && !stays);
                assert_eq!(world.state(page(number)), vmsa);
                assert_eq!(world.state(page(number + 1)), area);
                let is_vmsa = |machine: &TestMachine| machine.page(page(number), |page| page.vmsa);
                assert_eq!(world.machine().with(is_vmsa), stays);
                let deleted = world.call(call::DELETE_VCPU, page(number), 0, 0);
                let was_vcpu = stays || code == SUCCESS;
                assert_eq!(deleted == SUCCESS, was_vcpu, "{deleted}");
            }
        }
        assert_ne!(replaced, 0, "none was replaced");
        let steps = world.machine().with(TestMachine::steps);
        let starts = steps
            .iter()
            .filter(|step| matches!(step, Step::Start(ProcessorId { number: 1, .. })));
        assert_eq!(starts.count(), 1);
    });
}

/// A processor looks at its vCPU again and again while others create and delete it: once it is deleted,
/// the processor no longer touches the page, though it may be that of a vCPU again.
#[test]
fn p5_a_processor_leaves_a_deleted_vcpu_alone() {
    world(|world| {
        let done = AtomicBool::new(false);
        let seats = AtomicU8::new(0);
        thread::scope(|scope| {
            scope.spawn(|| {
                let vcpu = world.core.vcpus.place(1).unwrap();
                while !done.load(Ordering::Relaxed) {
                    let Seat::Taken(vmsa, word) = world.core.vcpus.seat(vcpu, world.core.states)
                    else {
                        thread::yield_now();
                        continue;
                    };
                    let field = GuestPhysicalAddress::new(vmsa.bits() + MARK);
                    world.machine().write(field, &[0x77]).unwrap();
                    seats.fetch_or(1, Ordering::Relaxed);
                    word.keep();
                    // The guest runs.
                    thread::sleep(Duration::from_micros(50));
                }
            });
            for round in 0..60 {
                let [vmsa, area] = [page(round % 2), page(4)];
                assert_eq!(world.create(vmsa, area), SUCCESS);
                // Every third one replaces another before it is deleted.
                if round % 3 == 0 {
                    let [first, second] = [vmsa, page(2)];
                    while world.create(second, area) != SUCCESS {
                        thread::yield_now();
                    }
                    world.unmarked(first, round);
                    while world.create(first, area) != SUCCESS {
                        thread::yield_now();
                    }
                    world.unmarked(second, round);
                }
                let code = loop {
                    let code = world.call(call::DELETE_VCPU, vmsa, 0, 0);
                    if code != ResultCode::BUSY {
                        break code;
                    }
                    thread::yield_now();
                };
                assert_eq!(code, SUCCESS);
                world.unmarked(vmsa, round);
                // Both of them have their turn, also where there is one processor.
                if round == 0 {
                    assert_eq!(world.create(vmsa, area), SUCCESS);
                    while seats.load(Ordering::Relaxed) == 0 {
                        thread::yield_now();
                    }
                    while world.call(call::DELETE_VCPU, vmsa, 0, 0) != SUCCESS {
                        thread::yield_now();
                    }
                }
            }
            done.store(true, Ordering::Relaxed);
        });
    });
}

#[test]
fn p1_p5_two_processors_convert_one_page() {
    world(|world| {
        // Each until it has changed the page often enough; who has just found it taken gives way.
        let convert = |list: u64| {
            let mut changes = 0_u32;
            while changes < 100 {
                let entry = small(page(8), changes % 2 == 1);
                let gpa = GuestPhysicalAddress::new;
                world.machine().write(gpa(list), &[1, 0, 0, 0]).unwrap();
                let bytes = entry.as_bytes();
                world.machine().write(gpa(list + 8), bytes).unwrap();
                // The call itself fails the test when it ends the VM: PVALIDATE(1) of a valid page.
                match world.call(call::PVALIDATE, list, 0, 0) {
                    // NO_CHANGE: the other one has done it already, so the next turn is to undo it.
                    SUCCESS | NO_CHANGE => changes += 1,
                    code => assert_eq!(code, ResultCode::BUSY),
                }
                thread::yield_now();
            }
        };
        thread::scope(|scope| {
            scope.spawn(|| convert(page(10)));
            convert(page(11));
        });
        let valid = world.state(page(8)) == PageState::Valid;
        world.machine().with(|machine| {
            machine.page(page(8), |page| {
                assert_eq!(page.valid, valid);
                assert_eq!(page.permissions[2], if valid { 0xf } else { 0 });
            });
        });
    });
}
