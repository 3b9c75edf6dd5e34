// SPDX-License-Identifier: MIT OR Apache-2.0
//! No call of the service allocates (invariant C1), nor does a map of the shim, not even one that grows the pool: the
//! allocator of this program counts, and the platforms beneath are ones that need no allocator themselves.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, AtomicU64};

use guest_shim::{
    CallFailed, Config, Constraints, CopyIn, Direction, Mapping, Platform, metadata_bytes,
};
use protocol::{CHUNK_BYTES, Request};
use snp::address::{GuestPhysicalAddress, PAGE_SIZE, PageSize};
use snp::operands::{InstructionCode, PvalidateResult, RmpAdjustTarget};
use snp::psc::PscDescriptor;
use snp::svsm::{CallId, CallRegisters, core_protocol};
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

/// A host that does everything, and guest memory that holds a list with room for one entry.
struct Still;

impl HostPages for Still {
    fn page_state_change(&self, descriptor: &mut PscDescriptor, _: Issue) -> PscExit {
        descriptor.header.cur_entry = descriptor.header.end_entry + 1;
        PscExit::default()
    }
}

impl GuestMemory for Still {
    fn read(&self, _: GuestPhysicalAddress, bytes: &mut [u8]) -> Result<(), Fault> {
        bytes.fill(0);
        bytes[0] = 1;
        Ok(())
    }

    fn write(&self, _: GuestPhysicalAddress, _: &[u8]) -> Result<(), Fault> {
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

    fn zero(&self, _: GuestPhysicalAddress, _: PageSize) -> Result<(), Fault> {
        Ok(())
    }

    fn flush(&self) {}
}

const CHUNKS: usize = 8;
/// The guest's page for lists, and the window.
const PAGE: GuestPhysicalAddress = GuestPhysicalAddress::new(0x1000);
const WINDOW: GuestPhysicalAddress = GuestPhysicalAddress::new(1 << 30);

/// A service over leaked storage: a test process ends.
fn service() -> Service<'static, Still> {
    let ram: &'static _ = Box::leak(Box::new([RamRange {
        base: PAGE,
        bytes: PAGE_SIZE,
    }]));
    let words: &'static _ = Box::leak(Box::new([const { AtomicU8::new(0) }; 1]));
    let records: &'static _ = Box::leak(Box::new([const { AtomicU64::new(0) }; CHUNKS]));
    let pages = PageStates::new(RamRanges::new(ram).unwrap(), words).unwrap();
    pages
        .set_at_boot(PAGE, PAGE_SIZE, PageState::Valid)
        .unwrap();
    let window = Window::new(WINDOW, CHUNKS as u64 * CHUNK_BYTES).unwrap();
    let pool = Pool::new(window, ChunkRecords::new(records), window.bytes()).unwrap();
    let configuration = Configuration::with_encryption_bit(51);
    Service::new(&Still, configuration, pool, pages).unwrap()
}

#[test]
fn c1_p_5_7_9_no_call_allocates() {
    let service = service();
    let (window, epoch) = (0, 1);
    let (least, most) = (CHUNK_BYTES, 2 * CHUNK_BYTES);
    let requests = [
        Request::Identify,
        Request::Attach { version: 1 },
        Request::Grow {
            window,
            contiguous: false,
            epoch,
            least,
            most,
        },
        Request::ListGranted { list: PAGE, epoch },
        Request::Release {
            base: WINDOW,
            bytes: most,
            epoch,
            generation: 1,
        },
        Request::Statistics {
            buffer: PAGE,
            bytes: 504,
        },
        Request::SetLimits {
            window,
            epoch,
            cap: 0,
        },
    ];
    for request in requests {
        let call = request.encode(service.protocol_number());
        let mut answer = call;
        assert_eq!(allocations(|| answer = service.dispatch(&call)), 0);
        let code = answer.rax;
        // The list has room for one entry, and so is not at its end.
        let expected = match request {
            Request::ListGranted { .. } => 0x8000_0000,
            _ => 0,
        };
        assert_eq!(code, expected, "{request:?}");
    }
    assert_ne!(allocations(|| drop(Box::new(1))), 0, "the counter counts");
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
            *registers = self.service.dispatch(registers);
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
