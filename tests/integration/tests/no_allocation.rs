// SPDX-License-Identifier: MIT OR Apache-2.0
//! No call of the service allocates (invariant C1), nor does a map of the shim, not even one that grows the pool: the
//! allocator of this program counts, and the platforms beneath are ones that need no allocator themselves.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::hint::black_box;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, AtomicU64};

use guest_shim::{
    CallFailed, Config, Constraints, CopyIn, Direction, Mapping, Platform, metadata_bytes,
};
use protocol::convert::ConvertEntry;
use protocol::request::DescribeItem;
use protocol::trace::RECORD_BYTES;
use protocol::{CHUNK_BYTES, Call, DEFAULT_PROTOCOL_NUMBER, Request};
use snp::address::{GuestPhysicalAddress, PAGE_SIZE, PageSize};
use snp::operands::{InstructionCode, PvalidateResult, RmpAdjustTarget};
use snp::psc::PscDescriptor;
use snp::svsm::{CallId, CallRegisters, ResultCode, core_protocol};
use svsm_swiotlb::page_state::{PageState, PageStates, RamRange, RamRanges};
use svsm_swiotlb::platform::{Fault, GuestMemory, HostPages, Issue, PageInstructions, PscExit};
use svsm_swiotlb::pool::{ChunkRecords, Pool, Window};
use svsm_swiotlb::{Configuration, Service};

/// Counts what the thread that asks for it allocates.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: Everything is passed on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: Passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: Passed on.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Runs `work`; how often this thread allocated meanwhile.
fn allocations(work: impl FnOnce()) -> u64 {
    let before = ALLOCATIONS.get();
    work();
    ALLOCATIONS.get() - before
}

/// A host that does everything, and guest memory with two lists of one entry each.
struct Still {
    /// Allocates in every access to guest memory: a platform that does what the service must not.
    allocates: bool,
}

impl Still {
    fn touch(&self) {
        if self.allocates {
            drop(black_box(Box::new(0_u8)));
        }
    }
}

impl HostPages for Still {
    fn page_state_change(&self, descriptor: &mut PscDescriptor, _: Issue) -> PscExit {
        descriptor.header.cur_entry = descriptor.header.end_entry + 1;
        PscExit::default()
    }
}

impl GuestMemory for Still {
    fn read(&self, from: GuestPhysicalAddress, bytes: &mut [u8]) -> Result<(), Fault> {
        self.touch();
        let second = from.bits() >= SECOND_LIST.bits();
        let entry = ConvertEntry::request(CONVERTED, PageSize::Size4K, !second);
        let word = match from {
            LIST | SECOND_LIST => 1, // the header: one entry, cursor 0
            BLOCK => u64::from(DEFAULT_PROTOCOL_NUMBER) << 32, // IDENTIFY
            _ => entry.into_bits(),
        };
        for (byte, value) in bytes.iter_mut().zip(word.to_le_bytes()) {
            *byte = value;
        }
        Ok(())
    }

    fn write(&self, _: GuestPhysicalAddress, _: &[u8]) -> Result<(), Fault> {
        self.touch();
        Ok(())
    }
}

impl PageInstructions for Still {
    fn pvalidate(
        &self,
        _: GuestPhysicalAddress,
        _: PageSize,
        _: bool,
    ) -> Result<PvalidateResult, Fault> {
        Ok(PvalidateResult {
            code: InstructionCode::SUCCESS,
            unchanged: false,
        })
    }

    fn rmpadjust(
        &self,
        _: GuestPhysicalAddress,
        _: PageSize,
        _: RmpAdjustTarget,
    ) -> Result<InstructionCode, Fault> {
        Ok(InstructionCode::SUCCESS)
    }

    fn evict(&self, _: GuestPhysicalAddress, _: PageSize) -> Result<(), Fault> {
        Ok(())
    }

    fn zero(&self, _: GuestPhysicalAddress, _: PageSize) -> Result<(), Fault> {
        Ok(())
    }

    fn flush(&self) {}
}

const CHUNKS: usize = 8;
/// A page of the guest with two lists, the first to shared, the second back.
const LIST: GuestPhysicalAddress = GuestPhysicalAddress::new(0x1000);
const SECOND_LIST: GuestPhysicalAddress = GuestPhysicalAddress::new(0x1800);
/// A page to convert.
const CONVERTED: GuestPhysicalAddress = GuestPhysicalAddress::new(0x2000);
/// The calling area, and the block in it.
const AREA: GuestPhysicalAddress = GuestPhysicalAddress::new(0x3000);
const BLOCK: GuestPhysicalAddress = GuestPhysicalAddress::new(0x3008);
const RAM_PAGES: usize = 3;
const WINDOW: GuestPhysicalAddress = GuestPhysicalAddress::new(1 << 30);

/// A service over leaked storage: a test process ends.
fn service_on(platform: &'static Still) -> Service<'static, Still> {
    let ram_bytes = RAM_PAGES as u64 * PAGE_SIZE;
    let ram: &'static mut _ = Box::leak(Box::new([RamRange::new(LIST, ram_bytes)]));
    let words: &'static _ = Box::leak(Box::new([const { AtomicU8::new(0) }; RAM_PAGES]));
    let records: &'static _ = Box::leak(Box::new([const { AtomicU64::new(0) }; CHUNKS]));
    let pages = PageStates::new(RamRanges::new(ram).unwrap(), words).unwrap();
    pages
        .set_at_boot(LIST, ram_bytes, PageState::Valid)
        .unwrap();
    let window = Window::new(WINDOW, CHUNKS as u64 * CHUNK_BYTES).unwrap();
    let pool = Pool::new(window, ChunkRecords::new(records), window.bytes()).unwrap();
    let configuration = Configuration {
        flush_reaches_all: true,
        ..Configuration::with_encryption_bit(51)
    };
    Service::new(platform, configuration, pool, pages).unwrap()
}

fn service() -> Service<'static, Still> {
    service_on(&Still { allocates: false })
}

/// Calls that succeed one after the other, every call there is among them.
fn requests() -> Vec<Request> {
    let window = 0;
    let (least, most) = (CHUNK_BYTES, 2 * CHUNK_BYTES);
    let describe = |item| Request::Describe { window, item };
    let attach = Request::Attach { version: 1 };
    let grow = Request::Grow {
        window,
        contiguous: false,
        epoch: 1,
        least,
        most,
    };
    let convert = |list| Request::Convert { list, epoch: 3 };
    vec![
        Request::Identify,
        describe(DescribeItem::Geometry),
        describe(DescribeItem::Usage),
        describe(DescribeItem::WorkLimits),
        attach,
        grow,
        Request::ListGranted {
            list: LIST,
            epoch: 1,
        },
        Request::Release {
            base: WINDOW,
            bytes: most,
            epoch: 1,
            generation: 1,
        },
        grow,
        // The chunks of an earlier epoch, first taken over, then given back for it.
        attach,
        Request::Adopt { epoch: 2, from: 1 },
        attach,
        Request::ReleaseOrphans { epoch: 3, from: 2 },
        convert(LIST),
        convert(SECOND_LIST),
        Request::Statistics {
            buffer: LIST,
            bytes: 520,
        },
        Request::Trace {
            buffer: LIST,
            bytes: 8 * RECORD_BYTES,
            from: 0,
        },
        Request::SetLimits {
            window,
            epoch: 3,
            cap: 0,
        },
        Request::Detach { epoch: 3 },
        Request::MemoryForm { block: BLOCK },
    ]
}

/// Makes a call; its answer, and how often it allocated.
fn counted(service: &Service<'_, Still>, request: &Request) -> (CallRegisters, u64) {
    let call = request.encode(service.protocol_number());
    let mut answer = call;
    let count = allocations(|| answer = service.dispatch(&call, Some(AREA)));
    (answer, count)
}

#[test]
fn c1_p_5_7_9_no_call_allocates() {
    let service = service();
    for request in requests() {
        let (answer, count) = counted(&service, &request);
        assert_eq!(count, 0, "{request:?}");
        let expected = match request {
            // The list has room for one entry, and so is not at its end.
            Request::ListGranted { .. } => ResultCode::INCOMPLETE,
            _ => ResultCode::SUCCESS,
        };
        assert_eq!(ResultCode::from_rax(answer.rax), expected, "{request:?}");
        match request {
            Request::Adopt { .. } | Request::ReleaseOrphans { .. } => {
                assert_eq!(answer.rcx, 2 * CHUNK_BYTES, "{request:?}");
            }
            Request::Trace { .. } => assert_eq!(answer.rcx, 8 * RECORD_BYTES),
            Request::MemoryForm { .. } => assert_eq!(answer.r9, 0, "of the call in the block"),
            _ => {}
        }
    }
    let statistics = service.statistics();
    // Two chunks twice, and the page.
    let entries = [
        statistics.psc_entries_shared,
        statistics.psc_entries_private,
    ];
    assert_eq!(entries, [5, 5]);
}

#[test]
fn c1_every_call_that_is_offered_is_one_of_those() {
    let service = service();
    let made: Vec<_> = requests().iter().map(Request::call).collect();
    for call in Call::ALL.into_iter().filter(|call| !made.contains(call)) {
        let id = CallId {
            protocol: service.protocol_number(),
            call: call.number(),
        };
        let answer = service.dispatch(&CallRegisters::new(id.to_rax(), [0; 3]), Some(AREA));
        let code = ResultCode::from_rax(answer.rax);
        assert_eq!(code, ResultCode::UNSUPPORTED_CALL, "{}", call.name());
    }
}

#[test]
fn a_call_that_allocates_is_counted() {
    assert_ne!(allocations(|| drop(black_box(Box::new(1)))), 0);
    let service = service_on(&Still { allocates: true });
    for request in requests() {
        let (_, count) = counted(&service, &request);
        let touches_memory = matches!(
            request,
            Request::ListGranted { .. }
                | Request::Convert { .. }
                | Request::Statistics { .. }
                | Request::Trace { .. }
                | Request::MemoryForm { .. }
        );
        assert_eq!(count > 0, touches_memory, "{request:?}");
    }
}

/// A guest's kernel: the service is a call away, the window is leaked memory.
struct Kernel {
    service: Service<'static, Still>,
    window: NonNull<u8>,
}

// SAFETY: The window is leaked, as long as the service says, and nobody else's; the calls below come from one thread.
unsafe impl Platform for Kernel {
    fn call(&self, registers: &mut CallRegisters) -> Result<(), CallFailed> {
        if CallId::from_rax(registers.rax).protocol == core_protocol::NUMBER {
            (registers.rax, registers.rcx) = (0, self.service.query_protocol(1));
        } else {
            *registers = self.service.dispatch(registers, None);
        }
        Ok(())
    }

    fn interrupts_save(&self) -> usize {
        0
    }

    fn interrupts_restore(&self, _: usize) {}

    fn translate(&self, address: u64, _: u64) -> Option<NonNull<u8>> {
        let offset = usize::try_from(address.checked_sub(WINDOW.bits())?).ok()?;
        // SAFETY: The shim asks for ranges of the window.
        Some(unsafe { self.window.add(offset) })
    }
}

#[test]
fn no_map_allocates_even_where_it_grows() {
    let bytes = CHUNKS as u64 * CHUNK_BYTES;
    let window = vec![0_u8; usize::try_from(bytes).unwrap()].leak();
    let kernel = Kernel {
        service: service(),
        window: NonNull::from(window).cast(),
    };
    let records = vec![0; metadata_bytes(bytes, 1)].leak();
    let pool = guest_shim::Pool::attach(&kernel, records, Config::default()).unwrap();
    let buffer = NonNull::from(vec![7_u8; 1 << 20].leak());
    let mut live: [Option<Mapping>; 12] = [const { None }; 12];
    let before = pool.statistics().granted_bytes;
    let growing = allocations(|| {
        for slot in &mut live {
            let (direction, none) = (Direction::Bidirectional, Constraints::NONE);
            // SAFETY: The buffer is leaked and nobody else uses it.
            *slot = unsafe { pool.map(buffer, direction, CopyIn::Keep, &none) }.ok();
        }
    });
    assert!(live.iter().all(Option::is_some));
    assert!(pool.statistics().granted_bytes > before, "the pool grew");
    let ending = allocations(|| {
        for mapping in live.iter_mut().filter_map(Option::take) {
            pool.unmap(mapping).unwrap();
        }
        for _ in 0..64 {
            pool.maintain();
        }
    });
    assert_eq!((growing, ending), (0, 0));
    assert!(pool.statistics().granted_bytes < 12 << 20, "and shrank");
}
