// SPDX-License-Identifier: MIT OR Apache-2.0
//! No call of the service allocates (invariant C1): the allocator of this program counts, and the platform beneath the
//! service is one that needs no allocator itself.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicU8, AtomicU64};

use protocol::{CHUNK_BYTES, Request};
use snp::address::{GuestPhysicalAddress, PAGE_SIZE};
use snp::psc::PscDescriptor;
use svsm_swiotlb::page_state::{PageState, PageStates, RamRange, RamRanges};
use svsm_swiotlb::platform::{Fault, GuestMemory, HostPages, Issue, PscExit};
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

const CHUNKS: usize = 8;

#[test]
fn c1_p_5_7_9_no_call_allocates() {
    let page = GuestPhysicalAddress::new(0x1000);
    let ram = [RamRange {
        base: page,
        bytes: PAGE_SIZE,
    }];
    let words = [const { AtomicU8::new(0) }; 1];
    let records = [const { AtomicU64::new(0) }; CHUNKS];
    let pages = PageStates::new(RamRanges::new(&ram).unwrap(), &words).unwrap();
    pages
        .set_at_boot(page, PAGE_SIZE, PageState::Valid)
        .unwrap();
    let base = GuestPhysicalAddress::new(1 << 30);
    let window = Window::new(base, CHUNKS as u64 * CHUNK_BYTES).unwrap();
    let pool = Pool::new(window, ChunkRecords::new(&records), window.bytes()).unwrap();
    let configuration = Configuration::with_encryption_bit(51);
    let service = Service::new(&Still, configuration, pool, pages).unwrap();

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
        Request::ListGranted { list: page, epoch },
        Request::Release {
            base,
            bytes: most,
            epoch,
            generation: 1,
        },
        Request::Statistics {
            buffer: page,
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
