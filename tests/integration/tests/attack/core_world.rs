// SPDX-License-Identifier: MIT OR Apache-2.0
//! Service and core protocol over one machine of 64 MiB, and the check that their account is true.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU8, AtomicU64};

use paravisor::apic_ids::ApicIds;
use paravisor::boot_block::{
    BootBlock, KIND_GUEST_PAYLOAD, KIND_PARAVISOR, LaunchRange, MAGIC, RAM_FIRMWARE, VERSION,
};
use paravisor::boot_plan::BootPlan;
use paravisor::core_protocol::CoreProtocol;
use paravisor::launch_area::LaunchArea;
use paravisor::layout::{
    BOOT_BLOCK, BOOT_CALLING_AREA, FIXED_PAGES_END, HANDOVER_BASE, IMAGE_LOAD, MADT_BYTES,
    MEMORY_MAP_BYTES, PAYLOAD_BASE,
};
use paravisor::memory_map::MemoryMap;
use paravisor::page_account::{record, tracked_ram};
use paravisor::page_owner::PageOwner;
use paravisor::storage_needs::StorageNeeds;
use paravisor::termination::Reason;
use paravisor::vcpu_table::{VcpuIndex, VcpuSlot, VcpuTable};
use protocol::DEFAULT_PROTOCOL_NUMBER;
use protocol::convert::ConvertEntry;
use protocol::memory_form::{CallBlock, outer_call};
use protocol::result::refusal_index;
use reference_model::guest;
use reference_model::world::SECRET;
use snp::address::{PAGE_SIZE, PageSize, Vmpl};
use snp::operands::{RmpAdjustTarget, RmpPermissions};
use snp::psc::PscOperation;
use snp::svsm::{CallId, CallRegisters, PvalidateListEntry, ResultCode, core_protocol as call};
use snp::vmsa::{EFER_SVME, Vmsa};
use snp_model::layout::Range;
use snp_model::machine::Machine;
use svsm_swiotlb::page_state::{PageState, PageStates, RamRanges};
use svsm_swiotlb::platform::PageInstructions;
use svsm_swiotlb::pool::{ChunkRecords, ChunkState, Pool, Pools, Window};
use svsm_swiotlb::{Configuration, Service};
use zerocopy::{FromZeros, IntoBytes};

use crate::order::Order;
use crate::platform::{HostileMachine, Platform, gpa};

pub const MIB: u64 = 1 << 20;
pub const MEMORY: u64 = 64 * MIB;
pub const WINDOW_BYTES: u64 = 8 * MIB;
/// The second window, below the service's storage.
pub const LOW_WINDOW_BYTES: u64 = 4 * MIB;
/// First of the pages that nobody has validated, and a large one of them.
pub const FRESH: u64 = 32 * MIB;
pub const LARGE: u64 = 34 * MIB;
/// The calling area of the vCPU that calls, until it moves it.
pub const AREA: u64 = BOOT_CALLING_AREA;
/// A page of the paravisor.
pub const OWN: u64 = IMAGE_LOAD;
const GUEST_PAGES: u64 = 16;
/// Of the hand-over area, of which no test uses the rest: its first pages.
const HANDOVER_LAUNCHED: u64 = 8 * PAGE_SIZE;
const _: () = assert!(BOOT_CALLING_AREA < HANDOVER_BASE + HANDOVER_LAUNCHED);

pub const SUCCESS: ResultCode = ResultCode::SUCCESS;
pub const ADDRESS: ResultCode = ResultCode::INVALID_ADDRESS;
pub const BUSY: ResultCode = ResultCode::BUSY;

/// A page of the guest that is valid and full of its secrets.
pub const fn page(number: u64) -> u64 {
    assert!(number < GUEST_PAGES);
    PAYLOAD_BASE + number * PAGE_SIZE
}

/// What runs at VMPL0.
pub struct World<'a> {
    pub platform: &'a Platform,
    pub service: &'a Service<'a, Platform>,
    pub core: CoreProtocol<'a, Platform>,
    pub plan: &'a BootPlan<'a>,
    pub vcpu: VcpuIndex,
    /// Pages that were quarantined at one time.
    lost: Mutex<BTreeSet<u64>>,
    /// Pages of which the host may have made anything.
    touched: Mutex<BTreeSet<u64>>,
}

pub fn boot_block() -> BootBlock {
    let mut block = BootBlock::new_zeroed();
    (block.magic, block.version) = (MAGIC, VERSION);
    block.protocol_number = 0x4000_0001;
    (block.window_bytes, block.hard_cap) = (WINDOW_BYTES, WINDOW_BYTES);
    block.low_window_bytes = LOW_WINDOW_BYTES;
    block.payload_entry = PAYLOAD_BASE;
    block.calling_area = BOOT_CALLING_AREA;
    block.ram_mode = RAM_FIRMWARE;
    let range = |gpa, bytes, kind| LaunchRange {
        gpa,
        bytes,
        kind,
        flags: 0,
    };
    block.launch_range_count = 3;
    block.launch_ranges[0] = range(BOOT_BLOCK, FIXED_PAGES_END - BOOT_BLOCK, KIND_PARAVISOR);
    block.launch_ranges[1] = range(IMAGE_LOAD, 0x4000, KIND_PARAVISOR);
    block.launch_ranges[2] = range(PAYLOAD_BASE, GUEST_PAGES * PAGE_SIZE, KIND_GUEST_PAYLOAD);
    block
}

/// A memory map parameter with (first page, pages, type) entries.
pub fn memory_map(entries: &[(u64, u64, u16)]) -> [u8; MEMORY_MAP_BYTES] {
    let mut bytes = [0; MEMORY_MAP_BYTES];
    for (slot, (first, count, kind)) in bytes.chunks_exact_mut(24).zip(entries) {
        slot[..8].copy_from_slice(&first.to_le_bytes());
        slot[8..16].copy_from_slice(&count.to_le_bytes());
        slot[16..18].copy_from_slice(&kind.to_le_bytes());
    }
    bytes
}

/// The table of a VMM with processors 0 to 3: local APICs (type 0), all enabled.
fn processors(table: &mut [u8; MADT_BYTES]) -> ApicIds<'_> {
    let entries = (0..4_u8).flat_map(|id| [0, 8, id, id, 1, 0, 0, 0]);
    let bytes = 44 + 4 * 8;
    table[..4].copy_from_slice(b"APIC");
    table[4] = bytes;
    for (slot, byte) in table[44..].iter_mut().zip(entries) {
        *slot = byte;
    }
    let sum = table.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
    table[9] = sum.wrapping_neg();
    ApicIds::parse(table, 4).unwrap()
}

fn machine(encrypted: bool) -> HostileMachine {
    let machine = Machine::new(&[Range {
        base: 0,
        bytes: MEMORY,
    }]);
    if !encrypted {
        machine.encrypt_no_more();
    }
    machine.launch(gpa(IMAGE_LOAD), 0x4000);
    machine.launch(gpa(HANDOVER_BASE), HANDOVER_LAUNCHED);
    machine.launch(gpa(PAYLOAD_BASE), GUEST_PAGES * PAGE_SIZE);
    let secret = SECRET.repeat(512);
    let own = (0..4).map(|number| IMAGE_LOAD + number * PAGE_SIZE);
    for target in own.chain((0..GUEST_PAGES).map(page)) {
        machine
            .guest_write(Vmpl::Vmpl0, true, gpa(target), &secret)
            .unwrap();
    }
    let handover = (HANDOVER_BASE..HANDOVER_BASE + HANDOVER_LAUNCHED).step_by(4096);
    for target in handover.chain((0..GUEST_PAGES).map(page)) {
        let all = RmpAdjustTarget::grant(Vmpl::Vmpl2, RmpPermissions::READ_WRITE_EXECUTE);
        machine
            .rmpadjust(gpa(target), PageSize::Size4K, all)
            .unwrap();
    }
    let mut order = Order::new(MEMORY, false);
    let own = (0..4).map(|number| IMAGE_LOAD + number * PAGE_SIZE);
    let handover = (HANDOVER_BASE..HANDOVER_BASE + HANDOVER_LAUNCHED).step_by(4096);
    for page in own.chain(handover).chain((0..GUEST_PAGES).map(page)) {
        order.launched(page);
    }
    HostileMachine::new(machine, order)
}

/// Runs a test in a fresh world, in which RAM but the launch is the host's.
pub fn world<R>(test: impl FnOnce(&World<'_>) -> R) -> R {
    world_on(machine(true), test)
}

/// The same where memory is not encrypted: the host reads all of it, so nothing of it can be checked there.
pub fn world_in_plain_sight<R>(test: impl FnOnce(&World<'_>) -> R) -> R {
    world_on(machine(false), test)
}

fn world_on<R>(machine: HostileMachine, test: impl FnOnce(&World<'_>) -> R) -> R {
    let platform = Platform::new(machine);
    let map = memory_map(&[(0x100, MEMORY / PAGE_SIZE - 0x100, 0)]);
    let map = MemoryMap::parse(&map, 1 << 51).unwrap();
    let needs = StorageNeeds::of(&boot_block(), map.ram(), 1);
    let plan = BootPlan::new(&boot_block(), map, needs).unwrap();
    let mut tracked: Vec<_> = tracked_ram(&plan).collect();
    let ranges = RamRanges::new(&mut tracked).unwrap();
    let words: Vec<AtomicU8> = (0..ranges.pages()).map(|_| AtomicU8::new(0)).collect();
    let states = PageStates::new(ranges, &words).unwrap();
    record(&boot_block(), &plan, &states).unwrap();
    let [first, second] = plan.placement.windows.map(|window| {
        let window = Window::new(gpa(window.start), window.bytes()).unwrap();
        let records: Vec<AtomicU64> = (0..window.chunks()).map(|_| AtomicU64::new(0)).collect();
        (window, records)
    });
    let [first, second] = [&first, &second].map(|(window, records)| {
        Pool::new(*window, ChunkRecords::new(records), window.bytes()).unwrap()
    });
    let pool = Pools::two(first, second).unwrap();
    let configuration = Configuration {
        flush_reaches_all: true,
        ..Configuration::with_encryption_bit(51)
    };
    let service = Service::new(&platform, configuration, pool, states).unwrap();
    let mut table = [0; MADT_BYTES];
    let slots: [VcpuSlot; 4] = Default::default();
    let vcpus = VcpuTable::new(&slots);
    let vcpu = vcpus.reserve(0).unwrap();
    let vcpu = vcpu.fill(gpa(0x43_0000), gpa(BOOT_CALLING_AREA));
    test(&World {
        platform: &platform,
        service: &service,
        core: CoreProtocol {
            owner: PageOwner::new(&plan, &platform),
            states: service.page_states(),
            vcpus,
            guest_features: 1,
            processors: processors(&mut table),
            launch_area: LaunchArea(gpa(BOOT_CALLING_AREA)),
            protocols: &[],
        },
        plan: &plan,
        vcpu,
        lost: Mutex::default(),
        touched: Mutex::default(),
    })
}

impl World<'_> {
    /// A call of the core protocol; what ends the VM is an error.
    pub fn core(&self, number: u32, rcx: u64, rdx: u64, r8: u64) -> Result<ResultCode, Reason> {
        let id = CallId {
            protocol: 0,
            call: number,
        };
        let mut registers = CallRegisters::new(id.to_rax(), [rcx, rdx, r8]);
        self.core.call(self.vcpu, &mut registers)?;
        Ok(ResultCode::from_rax(registers.rax))
    }

    /// A call of the service.
    pub fn pool(&self, call: &CallRegisters) -> (ResultCode, CallRegisters) {
        let area = self.core.vcpus.calling_area(self.vcpu);
        let answer = self.service.dispatch(call, area);
        (ResultCode::from_rax(answer.rax), answer)
    }

    /// A call of the service from a block in the caller's calling area, wherever that is.
    pub fn by_memory_form(&self, call: &CallRegisters) -> ResultCode {
        let area = self.core.vcpus.calling_area(self.vcpu);
        let block = area.expect("a vCPU").bits() + 8;
        self.put(block, CallBlock::of(call).as_bytes());
        let (code, answer) = self.pool(&outer_call(DEFAULT_PROTOCOL_NUMBER, gpa(block)));
        match code {
            ResultCode::SUCCESS => ResultCode::from_rax(answer.r9),
            code => code,
        }
    }

    /// PVALIDATE of a list that is written to `list` first.
    pub fn pvalidate(
        &self,
        list: u64,
        entries: &[PvalidateListEntry],
    ) -> Result<ResultCode, Reason> {
        self.put_list(list, entries);
        self.core(call::PVALIDATE, list, 0, 0)
    }

    /// CONVERT of a list that is written to `list` first.
    pub fn convert(&self, list: u64, entries: &[ConvertEntry]) -> ResultCode {
        self.put_conversions(list, entries);
        let epoch = self.service.statistics().epoch;
        self.pool(&guest::raw(9, list, epoch, 0)).0
    }

    pub fn put_conversions(&self, list: u64, entries: &[ConvertEntry]) {
        let count = u16::try_from(entries.len()).unwrap();
        self.put(list, &u64::from(count).to_le_bytes());
        self.put(list + 8, entries.as_bytes());
    }

    /// [`LARGE`] becomes the guest's, in one entry of the reverse map.
    pub fn give_large(&self, list: u64) {
        let machine = self.platform.machine();
        machine.host_changes(gpa(LARGE), PageSize::Size2M, PscOperation::Private);
        let entry = ConvertEntry::request(gpa(LARGE), PageSize::Size2M, false);
        assert_eq!(self.convert(list, &[entry]), SUCCESS);
    }

    pub fn put_list(&self, list: u64, entries: &[PvalidateListEntry]) {
        let count = u16::try_from(entries.len()).unwrap();
        self.put(list, [count, 0, 0, 0].as_bytes());
        self.put(list + 8, entries.as_bytes());
    }

    /// A guest's write to a page of its own; nothing where it has lost it.
    pub fn put(&self, address: u64, bytes: &[u8]) {
        let machine = self.platform.machine();
        let _ = machine.guest_write(Vmpl::Vmpl2, true, gpa(address), bytes);
    }

    /// Writes an acceptable VMSA into a page.
    pub fn put_vmsa(&self, target: u64) {
        let mut vmsa = Vmsa::new_zeroed();
        (vmsa.vmpl, vmsa.efer, vmsa.sev_features) = (2, EFER_SVME, 1);
        self.put(target, vmsa.as_bytes());
    }

    pub fn state(&self, address: u64) -> Option<PageState> {
        self.core.states.state(gpa(address))
    }

    /// Notes that the host made something of a page.
    pub fn touch(&self, address: u64) {
        self.touched.lock().unwrap().insert(address);
    }

    /// Whether the account is true: each word says what the reverse map says, no word is taken, quarantine is for ever,
    /// no window page is validated, no chunk in transition, nothing was granted before it was zeroed, and the host reads
    /// nothing private.
    pub fn check(&self) {
        let machine = self.platform.machine();
        for window in self.plan.placement.windows {
            let validated = machine.any_validated(gpa(window.start), window.bytes());
            assert!(!validated, "W1: {window:?}");
        }
        assert_eq!(machine.host_finds(&SECRET), None, "the host reads secrets");
        assert_eq!(machine.granted_with_contents(), None, "D");
        assert_eq!(self.platform.broken_order(), [] as [&str; 0]);
        for page in self.platform.faulted() {
            let state = self.state(page);
            assert_eq!(state, Some(PageState::Quarantined), "P3: {page:#x}");
        }
        let statistics = self.service.statistics().windows();
        for (pool, statistics) in self.service.pools().iter().zip(statistics) {
            let records = pool.records();
            let states = (0..records.len()).map(|chunk| records.state(chunk));
            let transit = states.clone().position(ChunkState::in_transition);
            assert_eq!(transit, None, "P-3.9: a chunk");
            let held = states.filter(|state| matches!(state, ChunkState::Held(_)));
            let held = held.count() as u64 * 2 * MIB;
            assert_eq!(statistics.granted_bytes, held, "P-3.12");
        }
        let fresh = (FRESH..FRESH + 8 * PAGE_SIZE).step_by(4096);
        let large = [0, 1, 255, 511].map(|number| LARGE + number * PAGE_SIZE);
        let own = (0..4).map(|number| OWN + number * PAGE_SIZE);
        let handover = (HANDOVER_BASE..HANDOVER_BASE + HANDOVER_LAUNCHED).step_by(4096);
        let pages = (0..GUEST_PAGES).map(page).chain(fresh).chain(large);
        for address in pages.chain(own).chain(handover) {
            self.check_page(address);
        }
    }

    fn check_page(&self, address: u64) {
        let state = self.state(address).unwrap();
        let mut lost = self.lost.lock().unwrap();
        if state == PageState::Quarantined {
            lost.insert(address);
            self.platform.forbid(address);
        } else {
            assert!(!lost.contains(&address), "P3: {address:#x} left quarantine");
        }
        assert_ne!(state, PageState::Busy, "P5: {address:#x} was left taken");
        let entry = self.platform.machine().entry(gpa(address)).unwrap();
        let guest = entry.permissions(Vmpl::Vmpl2);
        let others = [Vmpl::Vmpl1, Vmpl::Vmpl3].map(|vmpl| entry.permissions(vmpl).into_bits());
        assert_eq!(others, [0, 0], "{address:#x}");
        let touched = self.touched.lock().unwrap().contains(&address);
        let true_state = match state {
            // What the guest cannot reach may be anything.
            PageState::Valid | PageState::CallingArea if touched => true,
            PageState::Vmsa if touched => true,
            PageState::Valid | PageState::CallingArea => {
                entry.validated && !entry.vmsa && guest.into_bits() & 0xF == 0xF
            }
            PageState::Invalid | PageState::Shared => !entry.validated && guest.into_bits() == 0,
            // Each is one processor's, so no processor has two.
            PageState::Vmsa => {
                let is_known = self.core.vcpus.find(gpa(address)).is_some();
                entry.validated && entry.vmsa && !guest.write() && is_known
            }
            PageState::Paravisor => guest.into_bits() == 0,
            _ => true,
        };
        assert!(
            true_state,
            "{address:#x} is {state:?}, the hardware says {entry:?}"
        );
    }
}

/// Whether either protocol documents a code.
pub fn documented(code: ResultCode) -> bool {
    let core = code.0 >= 0x8000_1000 && code.0 <= 0x8000_1012;
    code == SUCCESS || refusal_index(code).is_some() || core
}

pub fn small(address: u64, validate: bool) -> PvalidateListEntry {
    PvalidateListEntry::request(gpa(address), PageSize::Size4K, validate)
}

pub fn large(address: u64, validate: bool) -> PvalidateListEntry {
    PvalidateListEntry::request(gpa(address), PageSize::Size2M, validate)
}
