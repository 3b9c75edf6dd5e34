// SPDX-License-Identifier: MIT OR Apache-2.0
//! Over a million random steps of kernels that grow, release in any order, restart, detach, adopt and release what they find:
//! after every step the service's accounts are those of the reference, and no chunk leaks.
//!
//! The platform is the lightest there can be, so that the steps and not the machine take the time.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use protocol::response::decode_answer;
use protocol::{CHUNK_BYTES, Refusal, Request, ResultRegisters};
use snp::address::{GuestPhysicalAddress, PageSize};
use snp::operands::{InstructionCode, PvalidateResult, RmpAdjustTarget};
use snp::psc::PscDescriptor;
use svsm_swiotlb::page_state::{PageStates, RamRange, RamRanges};
use svsm_swiotlb::platform::{Fault, GuestMemory, HostPages, Issue, PageInstructions, PscExit};
use svsm_swiotlb::pool::{ChunkRecords, ChunkState, Pool, Window};
use svsm_swiotlb::{Configuration, Service};

const STEPS: u64 = 1_100_000;
const CHUNKS: usize = 48;
const WINDOW: u64 = 1 << 30;

/// A host that declines one request in 32 after part of it.
struct Host(AtomicU64);

impl HostPages for Host {
    fn page_state_change(&self, descriptor: &mut PscDescriptor, _: Issue) -> PscExit {
        let entries = descriptor.header.end_entry + 1;
        let turn = self.0.fetch_add(1, Ordering::Relaxed);
        if turn % 32 == 31 {
            descriptor.header.cur_entry = u16::try_from(turn / 32 % u64::from(entries)).unwrap();
            return PscExit {
                sw_exit_info_1: 0,
                sw_exit_info_2: snp::psc::error::GENERIC,
            };
        }
        descriptor.header.cur_entry = entries;
        PscExit::default()
    }
}

impl GuestMemory for Host {
    fn read(&self, _: GuestPhysicalAddress, _: &mut [u8]) -> Result<(), Fault> {
        Err(Fault)
    }

    fn write(&self, _: GuestPhysicalAddress, _: &[u8]) -> Result<(), Fault> {
        Err(Fault)
    }
}

/// No step needs one: no page of the window is ever validated.
impl PageInstructions for Host {
    fn pvalidate(
        &self,
        _: GuestPhysicalAddress,
        _: PageSize,
        _: bool,
    ) -> Result<PvalidateResult, Fault> {
        unreachable!("PVALIDATE")
    }

    fn rmpadjust(
        &self,
        _: GuestPhysicalAddress,
        _: PageSize,
        _: RmpAdjustTarget,
    ) -> Result<InstructionCode, Fault> {
        unreachable!("RMPADJUST")
    }

    fn evict(&self, _: GuestPhysicalAddress, _: PageSize) -> Result<(), Fault> {
        unreachable!("an eviction")
    }

    fn zero(&self, _: GuestPhysicalAddress, _: PageSize) -> Result<(), Fault> {
        unreachable!("zeroing")
    }

    fn flush(&self) {
        unreachable!("a flush")
    }
}

/// Chunk to (epoch, generation): who holds what, by the answers alone.
type Held = BTreeMap<usize, (u32, u32)>;

struct World {
    service: Service<'static, Host>,
    held: Held,
    /// The current epoch, and the newest; 0 where there is none.
    epoch: u32,
    newest: u32,
    random: u64,
}

impl World {
    fn new() -> Self {
        let range: &'static mut [RamRange] = Box::leak(Box::new([RamRange::new(
            GuestPhysicalAddress::new(0),
            4096,
        )]));
        let words: &'static [AtomicU8] = Box::leak(Box::new([AtomicU8::new(0)]));
        let pages = PageStates::new(RamRanges::new(range).unwrap(), words).unwrap();
        let bytes = CHUNKS as u64 * CHUNK_BYTES;
        let window = Window::new(GuestPhysicalAddress::new(WINDOW), bytes).unwrap();
        let records: Vec<_> = (0..CHUNKS).map(|_| AtomicU64::new(0)).collect();
        let pool = Pool::new(window, ChunkRecords::new(records.leak()), bytes).unwrap();
        let host: &'static Host = Box::leak(Box::new(Host(AtomicU64::new(0))));
        let configuration = Configuration::with_encryption_bit(51);
        Self {
            service: Service::new(host, configuration, pool, pages).unwrap(),
            held: Held::new(),
            epoch: 0,
            newest: 0,
            random: 0x2545_F491_4F6C_DD1D,
        }
    }

    fn random(&mut self, below: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % below
    }

    fn call(&self, request: Request) -> Result<ResultRegisters, Refusal> {
        let registers = request.encode(self.service.protocol_number());
        decode_answer(&self.service.dispatch(&registers, None))
    }

    fn chunks_of(base: u64, bytes: u64) -> std::ops::Range<usize> {
        let chunk = |address: u64| usize::try_from((address - WINDOW) / CHUNK_BYTES).unwrap();
        chunk(base)..chunk(base + bytes)
    }

    fn held_by(&self, epoch: u32) -> u64 {
        let held = self.held.values().filter(|holder| holder.0 == epoch);
        held.count() as u64 * CHUNK_BYTES
    }

    fn grow(&mut self) {
        let least = 1 + self.random(4);
        let most = least + self.random(6);
        let request = Request::Grow {
            window: 0,
            contiguous: self.random(2) == 0,
            epoch: self.epoch,
            least: least * CHUNK_BYTES,
            most: most * CHUNK_BYTES,
        };
        let Ok(granted) = self.call(request) else {
            return;
        };
        let generation = u32::try_from(granted.r8).unwrap();
        for chunk in Self::chunks_of(granted.rcx, granted.rdx) {
            let before = self.held.insert(chunk, (self.epoch, generation));
            assert_eq!(before, None, "granted twice");
        }
    }

    /// Some chunks of some grant, in whatever order.
    fn release(&mut self) {
        let own: Vec<_> = self
            .held
            .iter()
            .filter(|(_, holder)| holder.0 == self.epoch)
            .map(|(chunk, holder)| (*chunk, *holder))
            .collect();
        if own.is_empty() {
            return;
        }
        let pick = usize::try_from(self.random(own.len() as u64)).unwrap();
        let (first, holder) = own[pick];
        let run = (first..CHUNKS)
            .take_while(|chunk| self.held.get(chunk) == Some(&holder))
            .count();
        let count = 1 + self.random(run as u64);
        let request = Request::Release {
            base: GuestPhysicalAddress::new(WINDOW + first as u64 * CHUNK_BYTES),
            bytes: count * CHUNK_BYTES,
            epoch: self.epoch,
            generation: holder.1,
        };
        let released = self.call(request).unwrap();
        assert_eq!(released.rcx, count * CHUNK_BYTES);
        for chunk in first..first + usize::try_from(count).unwrap() {
            self.held.remove(&chunk);
        }
    }

    fn attach(&mut self) {
        let attached = self.call(Request::Attach { version: 1 }).unwrap();
        self.newest += 1;
        self.epoch = self.newest;
        assert_eq!(attached.rcx, u64::from(self.epoch), "an epoch is used once");
        assert_eq!(attached.r8, self.held.len() as u64 * CHUNK_BYTES);
    }

    /// An older epoch, most often the last one.
    fn older(&mut self) -> Option<u32> {
        let back = 1 + u32::try_from(self.random(3)).unwrap();
        self.epoch.checked_sub(back).filter(|epoch| *epoch > 0)
    }

    fn adopt(&mut self) {
        let Some(from) = self.older() else { return };
        let epoch = self.epoch;
        let adopted = self.call(Request::Adopt { epoch, from }).unwrap();
        assert_eq!((adopted.rcx, adopted.rdx), (self.held_by(from), 0));
        let orphans = self.held.values_mut().filter(|holder| holder.0 == from);
        orphans.for_each(|holder| holder.0 = epoch);
    }

    fn release_orphans(&mut self) {
        let Some(from) = self.older() else { return };
        let epoch = self.epoch;
        let released = self.call(Request::ReleaseOrphans { epoch, from }).unwrap();
        assert_eq!((released.rcx, released.r8), (self.held_by(from), 0));
        self.held.retain(|_, holder| holder.0 != from);
    }

    fn detach(&mut self) {
        let epoch = self.epoch;
        let detached = self.call(Request::Detach { epoch }).unwrap();
        assert_eq!(detached.r8, self.held.len() as u64 * CHUNK_BYTES);
        self.attach();
    }

    fn step(&mut self) {
        match self.random(1000) {
            0 => self.attach(),
            1 => self.detach(),
            2 | 3 => self.adopt(),
            4 | 5 => self.release_orphans(),
            6..500 => self.grow(),
            _ => self.release(),
        }
    }

    fn check_accounts(&self) {
        let accounts = self.service.pool().accounts();
        assert_eq!(
            accounts.granted_bytes(),
            self.held.len() as u64 * CHUNK_BYTES
        );
        assert_eq!(accounts.quarantined_bytes(), 0);
    }

    /// Chunk by chunk.
    fn check_records(&self) {
        let records = self.service.pool().records();
        for chunk in 0..CHUNKS {
            let expected = self.held.get(&chunk).copied();
            let found = match records.state(chunk) {
                ChunkState::Free => None,
                ChunkState::Held(holder) => {
                    Some((holder.epoch.number(), holder.generation.number()))
                }
                other => panic!("chunk {chunk} is {other:?}"),
            };
            assert_eq!(found, expected, "chunk {chunk}");
        }
    }
}

#[test]
fn p_3_12_over_a_million_random_steps_no_chunk_leaks() {
    let mut world = World::new();
    world.attach();
    for step in 0..STEPS {
        world.step();
        world.check_accounts();
        if step % 64 == 0 {
            world.check_records();
        }
    }
    world.check_records();
    // Whatever is left goes back, epoch by epoch, and the window is whole again.
    world.attach();
    for from in 1..world.newest {
        let epoch = world.epoch;
        world.call(Request::ReleaseOrphans { epoch, from }).unwrap();
    }
    let accounts = world.service.pool().accounts();
    assert_eq!(accounts.granted_bytes(), 0);
    assert!(
        accounts.peak_bytes() >= (CHUNKS as u64 - 4) * CHUNK_BYTES,
        "the steps fill the pool"
    );
    assert!(world.newest > 1000, "kernels come and go");
}
