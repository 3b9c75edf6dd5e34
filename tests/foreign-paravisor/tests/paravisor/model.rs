// SPDX-License-Identifier: MIT OR Apache-2.0
//! The paravisor's hardware, played by the model machine, and a guest that calls.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};

use foreign_paravisor::boot::{BootError, Pages, Plan, Storage, configuration, service};
use foreign_paravisor::calling_areas::{CallingAreas, Cpu};
use foreign_paravisor::core_protocol::CoreProtocol;
use foreign_paravisor::dispatcher::{Dispatcher, Next};
use foreign_paravisor::echo::Echo;
use foreign_paravisor::hardware::Hardware;
use foreign_paravisor::platform::Platform;
use snp::address::{GuestPhysicalAddress, PageSize, Vmpl};
use snp::ghcb::exit_code;
use snp::operands::{InstructionCode, PvalidateResult, RmpAdjustTarget, RmpPermissions};
use snp::psc::{MAX_ENTRIES, PscEntry, PscHeader};
use snp::svsm::{CallRegisters, ListHeader, PvalidateListEntry, ResultCode};
use snp_model::layout::Range;
use snp_model::machine::Machine;
use snp_model::psc::{HostError, HostManner, process};
use svsm_swiotlb::Service;
use svsm_swiotlb::page_state::{PageState, RamRange};
use svsm_swiotlb::platform::PageInstructions;
use svsm_swiotlb::storage::{chunk_record_bytes, page_state_bytes};

pub const MIB: u64 = 1 << 20;
/// 16 MiB of RAM, the last four of which become the window.
pub const RAM_BYTES: u64 = 16 * MIB;
pub const WINDOW: u64 = 12 * MIB;
pub const WINDOW_BYTES: u64 = 4 * MIB;
/// Our image.
pub const IMAGE: u64 = 4 * MIB;
/// What the launch validated for the guest, 8 pages: a calling area, pages for lists.
pub const LAUNCHED: u64 = 8 * MIB;
pub const AREA: u64 = LAUNCHED;
pub const LIST: u64 = LAUNCHED + 0x1000;
/// RAM that nobody has validated.
pub const FREE: u64 = 0x10_0000;

pub fn at(address: u64) -> GuestPhysicalAddress {
    GuestPhysicalAddress::new(address)
}

pub fn range(base: u64, bytes: u64) -> RamRange {
    RamRange::new(at(base), bytes)
}

/// A GHCB's shared buffer over a machine, and a host behind it.
pub struct Model {
    pub machine: Machine,
    buffer: Mutex<[u64; MAX_ENTRIES + 1]>,
    pub manner: Mutex<HostManner>,
    /// Words written to the buffer.
    pub written: AtomicU64,
    pub maps_window: bool,
    /// The next exit ends with this page validated: by the host, which mapped it twice, or by another of us.
    pub validated_meanwhile: Mutex<Option<u64>>,
    /// Lowest address of the stack that a call to the platform has seen.
    pub deepest: AtomicUsize,
}

impl Model {
    fn new() -> Self {
        let machine = Machine::new(&[Range {
            base: 0,
            bytes: RAM_BYTES,
        }]);
        machine.launch(at(LAUNCHED), 0x8000);
        let all = RmpPermissions::READ_WRITE_EXECUTE;
        for page in 0..8 {
            let page = at(LAUNCHED + page * 0x1000);
            let target = RmpAdjustTarget::grant(Vmpl::Vmpl2, all);
            machine.rmpadjust(page, PageSize::Size4K, target).unwrap();
        }
        Self {
            machine,
            buffer: Mutex::new([0; MAX_ENTRIES + 1]),
            manner: Mutex::new(HostManner::Honest),
            written: AtomicU64::new(0),
            maps_window: false,
            validated_meanwhile: Mutex::new(None),
            deepest: AtomicUsize::new(usize::MAX),
        }
    }

    fn note_stack(&self) {
        let here = 0_u8;
        let address = std::ptr::from_ref(&here).addr();
        self.deepest.fetch_min(address, Ordering::Relaxed);
    }
}

impl Hardware for Model {
    fn write_buffer(&self, offset: usize, word: u64) {
        self.written.fetch_add(1, Ordering::Relaxed);
        self.buffer.lock().unwrap()[offset / 8] = word;
    }

    fn read_buffer(&self, offset: usize) -> u64 {
        self.buffer.lock().unwrap()[offset / 8]
    }

    fn exit_with_buffer(&self, exit_code: u64) -> (u64, u64) {
        self.note_stack();
        assert_eq!(exit_code, exit_code::PAGE_STATE_CHANGE);
        let mut buffer = self.buffer.lock().unwrap();
        let header: PscHeader = zerocopy::transmute!(buffer[0]);
        let mut entries: Vec<_> = buffer[1..]
            .iter()
            .map(|bits| PscEntry::from_bits(*bits))
            .collect();
        let manner = *self.manner.lock().unwrap();
        let reply = process(header, manner, &mut entries, |page, size, operation| {
            let done = self.machine.host_changes(page, size, operation);
            done.then_some(()).ok_or(HostError)
        });
        buffer[0] = zerocopy::transmute!(reply.header);
        for (word, entry) in buffer[1..].iter_mut().zip(entries) {
            *word = entry.into_bits();
        }
        if let Some(page) = self.validated_meanwhile.lock().unwrap().take() {
            self.machine.launch(at(page), 0x1000);
        }
        (0, reply.exit_info_2)
    }

    fn copy_from_guest(&self, from: GuestPhysicalAddress, bytes: &mut [u8]) -> bool {
        self.note_stack();
        self.machine
            .guest_read(Vmpl::Vmpl0, true, from, bytes)
            .is_ok()
    }

    fn copy_to_guest(&self, to: GuestPhysicalAddress, bytes: &[u8]) -> bool {
        self.note_stack();
        self.machine
            .guest_write(Vmpl::Vmpl0, true, to, bytes)
            .is_ok()
    }

    fn pvalidate(
        &self,
        page: GuestPhysicalAddress,
        size: PageSize,
        validate: bool,
    ) -> Option<PvalidateResult> {
        self.note_stack();
        self.machine.pvalidate(page, size, validate).ok()
    }

    fn rmpadjust(
        &self,
        page: GuestPhysicalAddress,
        size: PageSize,
        target: RmpAdjustTarget,
    ) -> Option<InstructionCode> {
        self.note_stack();
        self.machine.rmpadjust(page, size, target).ok()
    }

    fn evict(&self, page: GuestPhysicalAddress, size: PageSize) -> bool {
        self.note_stack();
        PageInstructions::evict(&self.machine, page, size).is_ok()
    }

    fn zero(&self, page: GuestPhysicalAddress, size: PageSize) -> bool {
        self.note_stack();
        PageInstructions::zero(&self.machine, page, size).is_ok()
    }

    fn flush_guest(&self) {
        self.note_stack();
        self.machine.flush();
    }

    fn maps_private(&self, _: GuestPhysicalAddress, _: u64) -> bool {
        self.maps_window
    }
}

pub type Paravisor = Dispatcher<'static, Platform<Model>>;

fn zeroed<T: Default>(count: u64) -> &'static [T] {
    (0..count).map(|_| T::default()).collect::<Vec<_>>().leak()
}

/// Boots. Everything is leaked: a test process ends.
pub fn boot(change: impl FnOnce(&mut Model)) -> Result<Paravisor, BootError> {
    let mut model = Model::new();
    change(&mut model);
    let platform: &'static _ = Box::leak(Box::new(Platform { hardware: model }));
    let taken = [range(IMAGE, 2 * MIB), range(LAUNCHED, 0x8000)];
    let plan: &'static mut Plan = Box::leak(Box::new(Plan::new(
        &mut [range(0, RAM_BYTES)],
        &taken,
        WINDOW_BYTES,
    )?));
    let ram = plan.ram().iter().map(|range| range.bytes).sum();
    let storage = Storage {
        records: zeroed::<AtomicU64>(chunk_record_bytes(WINDOW_BYTES) / 8),
        states: zeroed::<AtomicU8>(page_state_bytes(ram)),
    };
    let pages = Pages {
        ours: &taken[..1],
        launched: &taken[1..],
        calling_area: at(AREA),
    };
    // The model's flush reaches all.
    let configuration = configuration(51, true, true);
    let service: &'static Service<'_, _> = Box::leak(Box::new(service(
        plan,
        storage,
        pages,
        platform,
        configuration,
        WINDOW_BYTES,
    )?));
    let areas: &'static CallingAreas = Box::leak(Box::default());
    areas.set(Cpu(0), at(AREA));
    Ok(Dispatcher {
        core: CoreProtocol {
            platform,
            service,
            areas,
            launch_area: at(AREA),
        },
        echo: Echo::default(),
    })
}

pub fn paravisor() -> Paravisor {
    boot(|_| {}).unwrap()
}

/// What the guest on processor 0 does.
pub trait Guest {
    fn hardware(&self) -> &Model;
    fn poke(&self, address: u64, bytes: &[u8]);
    fn peek(&self, address: u64, bytes: usize) -> Vec<u8>;
    fn state(&self, address: u64) -> Option<PageState>;
    fn make(&self, protocol: u32, call: u32, arguments: [u64; 3]) -> Next;

    /// A call that is served.
    fn call(&self, protocol: u32, call: u32, arguments: [u64; 3]) -> (ResultCode, [u64; 3]) {
        let Next::Resume(CallRegisters {
            rax, rcx, rdx, r8, ..
        }) = self.make(protocol, call, arguments)
        else {
            panic!("the call was not served");
        };
        (ResultCode::from_rax(rax), [rcx, rdx, r8])
    }

    /// PVALIDATE of these entries, and the cursor afterwards.
    fn pvalidate(&self, entries: &[PvalidateListEntry]) -> (ResultCode, u16) {
        self.poke(LIST, &u16::try_from(entries.len()).unwrap().to_le_bytes());
        self.poke(LIST + 2, &[0; 6]);
        for (index, entry) in entries.iter().enumerate() {
            let offset = (size_of::<ListHeader>() + 8 * index) as u64;
            self.poke(LIST + offset, &entry.into_bits().to_le_bytes());
        }
        let (code, _) = self.call(0, 1, [LIST, 0, 0]);
        let cursor = self.peek(LIST + 2, 2).try_into().unwrap();
        (code, u16::from_le_bytes(cursor))
    }
}

impl Guest for Paravisor {
    fn hardware(&self) -> &Model {
        &self.core.platform.hardware
    }

    fn poke(&self, address: u64, bytes: &[u8]) {
        let machine = &self.hardware().machine;
        machine
            .guest_write(Vmpl::Vmpl2, true, at(address), bytes)
            .unwrap();
    }

    fn peek(&self, address: u64, bytes: usize) -> Vec<u8> {
        let mut read = vec![0; bytes];
        let machine = &self.hardware().machine;
        machine
            .guest_read(Vmpl::Vmpl2, true, at(address), &mut read)
            .unwrap();
        read
    }

    fn state(&self, address: u64) -> Option<PageState> {
        self.core.service.page_states().state(at(address))
    }

    fn make(&self, protocol: u32, call: u32, [rcx, rdx, r8]: [u64; 3]) -> Next {
        if let Some(area) = self.core.areas.of(Cpu(0)) {
            // As the guest's kernel does before VMGEXIT.
            let machine = &self.hardware().machine;
            let _ = machine.guest_write(Vmpl::Vmpl2, true, area, &[1]);
        }
        let rax = u64::from(protocol) << 32 | u64::from(call);
        self.returned(Cpu(0), &CallRegisters::new(rax, [rcx, rdx, r8]))
    }
}
