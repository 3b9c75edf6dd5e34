// SPDX-License-Identifier: MIT OR Apache-2.0
//! The unmodified service on the model machine, and a guest that calls it.

use std::sync::atomic::{AtomicU8, AtomicU64};

use protocol::list::{ENTRY_BYTES, GrantedRun, HEADER_BYTES, ListHeader};
use protocol::response::{Attached, Granted, Released, decode_answer};
use protocol::{CHUNK_BYTES, Refusal, Request, ResultRegisters};
use snp::address::{GuestPhysicalAddress, PAGE_SIZE, Vmpl};
use snp::svsm::ResultCode;
use snp_model::layout::Range;
use snp_model::machine::Machine;
use svsm_swiotlb::page_state::{PageState, PageStates, RamRange, RamRanges};
use svsm_swiotlb::pool::{ChunkRecords, ChunkState, Pool, Pools, Window};
use svsm_swiotlb::storage::{chunk_record_bytes, page_state_bytes};
use svsm_swiotlb::{Configuration, Service};

/// Guest RAM, apart from the window.
const RAM: RamRange = RamRange::new(GuestPhysicalAddress::new(0), 2 << 20);
/// First byte of the window.
pub const WINDOW: u64 = 64 << 20;
/// First byte of the low window, if there is one.
pub const LOW_WINDOW: u64 = 4 << 20;
/// The guest's page for lists.
pub const LIST: GuestPhysicalAddress = GuestPhysicalAddress::new(0x1000);

/// A machine with the service at VMPL0. Storage is leaked: a test process ends.
pub struct ServiceMachine {
    pub machine: &'static Machine,
    pub service: Service<'static, Machine>,
    pub chunks: usize,
}

impl ServiceMachine {
    /// A window of so many chunks, one page of RAM for lists.
    pub fn new(chunks: usize) -> Self {
        Self::with_low(chunks, 0)
    }

    /// The same beside a low window of so many chunks, unless they are 0.
    pub fn with_low(chunks: usize, low_chunks: usize) -> Self {
        let bytes = |chunks| chunks as u64 * CHUNK_BYTES;
        let window_bytes = bytes(chunks);
        let mut ranges = vec![
            Range {
                base: RAM.base.bits(),
                bytes: RAM.bytes,
            },
            Range {
                base: LOW_WINDOW,
                bytes: bytes(low_chunks),
            },
            Range {
                base: WINDOW,
                bytes: window_bytes,
            },
        ];
        ranges.retain(|range| range.bytes > 0);
        let machine: &'static Machine = Box::leak(Box::new(Machine::new(&ranges)));
        machine.launch(LIST, PAGE_SIZE);

        let words: Vec<AtomicU8> = zeroed(page_state_bytes(RAM.bytes));
        let list: &'static mut [RamRange] = Box::leak(Box::new([RAM]));
        let pages = PageStates::new(RamRanges::new(list).unwrap(), words.leak()).unwrap();
        pages
            .set_at_boot(LIST, PAGE_SIZE, PageState::Valid)
            .unwrap();
        let pool = |base, bytes| {
            let window = Window::new(GuestPhysicalAddress::new(base), bytes).unwrap();
            let records: Vec<AtomicU64> = zeroed(chunk_record_bytes(bytes) / 8);
            Pool::new(window, ChunkRecords::new(records.leak()), bytes).unwrap()
        };
        let first = pool(WINDOW, window_bytes);
        let pools = match low_chunks {
            0 => first.into(),
            low => Pools::two(first, pool(LOW_WINDOW, bytes(low))).unwrap(),
        };
        let configuration = Configuration::with_encryption_bit(51);
        let service = Service::new(machine, configuration, pools, pages).unwrap();
        Self {
            machine,
            service,
            chunks,
        }
    }

    pub fn call(&self, request: Request) -> Result<ResultRegisters, Refusal> {
        decode_answer(
            &self
                .service
                .dispatch(&request.encode(self.service.protocol_number()), None),
        )
    }

    pub fn attach(&self) -> Attached {
        Attached::decode(self.call(Request::Attach { version: 1 }).unwrap()).unwrap()
    }

    /// Sizes in chunks.
    pub fn grow(
        &self,
        epoch: u32,
        least: usize,
        most: usize,
        contiguous: bool,
    ) -> Result<Granted, ResultCode> {
        let request = Request::Grow {
            window: 0,
            contiguous,
            epoch,
            least: least as u64 * CHUNK_BYTES,
            most: most as u64 * CHUNK_BYTES,
        };
        let results = self.call(request).map_err(|refusal| refusal.code)?;
        Ok(Granted::decode(results).unwrap())
    }

    /// Position and size in chunks.
    pub fn release(
        &self,
        epoch: u32,
        first: usize,
        count: usize,
        generation: u32,
    ) -> Result<Released, ResultCode> {
        let request = Request::Release {
            base: GuestPhysicalAddress::new(WINDOW + first as u64 * CHUNK_BYTES),
            bytes: count as u64 * CHUNK_BYTES,
            epoch,
            generation,
        };
        let results = self.call(request).map_err(|refusal| refusal.code)?;
        Ok(Released::decode(results).unwrap())
    }

    /// Everything LIST_GRANTED reports, in as many calls as it takes with so many entries each.
    pub fn list(&self, epoch: u32, capacity: u16) -> Result<Vec<GrantedRun>, ResultCode> {
        let header = ListHeader {
            capacity,
            ..ListHeader::default()
        };
        self.put(LIST, zerocopy::IntoBytes::as_bytes(&header));
        let mut runs = Vec::new();
        loop {
            let answer = self.call(Request::ListGranted { list: LIST, epoch });
            let code = answer.err().map(|refusal| refusal.code);
            if !matches!(code, None | Some(ResultCode::INCOMPLETE)) {
                return Err(code.unwrap());
            }
            let header: ListHeader = self.get(LIST);
            for entry in 0..u64::from(header.written) {
                let offset = HEADER_BYTES + entry * ENTRY_BYTES;
                runs.push(self.get(LIST.checked_add(offset).unwrap()));
            }
            if code.is_none() {
                return Ok(runs);
            }
        }
    }

    pub fn states(&self) -> Vec<ChunkState> {
        let records = self.service.pool().records();
        (0..self.chunks).map(|chunk| records.state(chunk)).collect()
    }

    /// First chunk of an address in the window.
    pub fn chunk_of(base: u64) -> usize {
        usize::try_from((base - WINDOW) / CHUNK_BYTES).unwrap()
    }

    /// Invariants that hold whatever the host did and the guest asked.
    pub fn check(&self) {
        let states = self.states();
        let count = |wanted: fn(&ChunkState) -> bool| {
            states.iter().filter(|state| wanted(state)).count() as u64 * CHUNK_BYTES
        };
        let statistics = self.service.statistics();
        let held = count(|state| matches!(state, ChunkState::Held(_)));
        let quarantined = count(|state| *state == ChunkState::Quarantined);
        assert_eq!(
            (statistics.granted_bytes, statistics.quarantined_bytes),
            (held, quarantined)
        );
        assert!(
            states.iter().all(|state| !state.in_transition()),
            "a call left a chunk half-way"
        );
    }

    /// Invariant W1, on the hardware's side of the account.
    pub fn check_window_never_validated(&self) {
        let window = GuestPhysicalAddress::new(WINDOW);
        let bytes = self.chunks as u64 * CHUNK_BYTES;
        assert!(!self.machine.any_validated(window, bytes));
        assert_eq!(self.machine.counters().pvalidate, 0);
    }

    fn put(&self, address: GuestPhysicalAddress, bytes: &[u8]) {
        // As the guest does it, not through the service's platform, whose calls may be told to fail.
        let written = self.machine.guest_write(Vmpl::Vmpl0, true, address, bytes);
        written.unwrap();
    }

    fn get<T: zerocopy::FromBytes + zerocopy::IntoBytes>(
        &self,
        address: GuestPhysicalAddress,
    ) -> T {
        let mut value = T::new_zeroed();
        let bytes = value.as_mut_bytes();
        let read = self.machine.guest_read(Vmpl::Vmpl0, true, address, bytes);
        read.unwrap();
        value
    }
}

fn zeroed<T: Default>(count: u64) -> Vec<T> {
    (0..count).map(|_| T::default()).collect()
}
