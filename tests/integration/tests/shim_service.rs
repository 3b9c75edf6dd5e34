// SPDX-License-Identifier: MIT OR Apache-2.0
//! The unmodified shim over the unmodified service on the model machine.
//!
//! The window starts as private pages of the guest's, so the host has to share a chunk before anybody may touch it: a
//! copy of the shim's to a chunk that is not granted ends the test.

#[expect(dead_code, reason = "the tests of the service alone use more of it")]
mod service_machine;
mod shim_orphans;
mod shim_windows;

use std::ptr::{NonNull, without_provenance_mut};

use guest_shim::{
    CallFailed, Config, Constraints, CopyIn, Direction, MapError, Mapping, Platform, Pool,
    PressureLevel, UnmapError, metadata_bytes,
};
use protocol::{CHUNK_BYTES, Call};
use service_machine::{LOW_WINDOW, ServiceMachine, WINDOW};
use snp::address::{GuestPhysicalAddress, PAGE_SIZE, PageSize, Vmpl};
use snp::psc::PscOperation;
use snp::svsm::{CallId, CallRegisters, core_protocol};
use snp_model::psc::HostManner;

const PAGE: usize = 4096;

/// A guest kernel at VMPL2. A pointer into its window is the guest physical address itself; only the copies below ever
/// use one.
struct Guest {
    machine: ServiceMachine,
}

impl Guest {
    fn new(chunks: usize) -> Self {
        Self::with_low(chunks, 0)
    }

    fn with_low(chunks: usize, low_chunks: usize) -> Self {
        let machine = ServiceMachine::with_low(chunks, low_chunks);
        for (window, chunks) in [(WINDOW, chunks), (LOW_WINDOW, low_chunks)] {
            for chunk in 0..chunks as u64 {
                let page = GuestPhysicalAddress::new(window + chunk * CHUNK_BYTES);
                let host = machine.machine;
                assert!(host.host_changes(page, PageSize::Size2M, PscOperation::Private));
            }
        }
        Self { machine }
    }

    fn pool(&self, config: Config) -> Pool<'static, &Self> {
        let bytes = metadata_bytes(self.machine.chunks as u64 * CHUNK_BYTES, config.cpus);
        Pool::attach(self, vec![0; bytes].leak(), config).unwrap()
    }

    fn device_read(&self, address: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        for (at, part) in pages(address, &mut bytes) {
            self.machine.machine.device_read(at, part).unwrap();
        }
        bytes
    }

    fn device_write(&self, address: u64, bytes: &[u8]) {
        for (at, part) in pages(address, &mut bytes.to_vec()) {
            self.machine.machine.device_write(at, part).unwrap();
        }
    }

    /// What both sides believe agrees, and the service's invariants hold.
    fn check(&self, pool: &Pool<'_, &Self>) {
        self.machine.check();
        let service = self.machine.service.statistics();
        let shim = pool.statistics();
        assert_eq!(shim.granted_bytes, service.granted_bytes);
        let calls: u64 = service.calls.iter().sum();
        assert_eq!(shim.total_calls(), calls);
    }
}

/// The pieces of a range that do not cross a page.
fn pages(
    address: u64,
    bytes: &mut [u8],
) -> impl Iterator<Item = (GuestPhysicalAddress, &mut [u8])> {
    let head = usize::try_from(address.wrapping_neg() % PAGE_SIZE)
        .unwrap()
        .min(bytes.len());
    let (first, rest) = bytes.split_at_mut(head);
    let start = GuestPhysicalAddress::new(address);
    let behind = address + head as u64;
    let rest = rest.chunks_mut(PAGE).enumerate().map(move |(index, part)| {
        (
            GuestPhysicalAddress::new(behind + (index * PAGE) as u64),
            part,
        )
    });
    std::iter::once((start, first))
        .filter(|(_, part)| !part.is_empty())
        .chain(rest)
}

// SAFETY: The pointers are addresses that only the copy functions look at, and those go through the model.
unsafe impl Platform for Guest {
    fn call(&self, registers: &mut CallRegisters) -> Result<(), CallFailed> {
        let id = CallId::from_rax(registers.rax);
        if id.protocol == core_protocol::NUMBER {
            // What a paravisor's core protocol does with QUERY_PROTOCOL.
            let asked = registers.rcx;
            let ours = asked >> 32 == u64::from(self.machine.service.protocol_number());
            let version = u32::try_from(asked & u64::from(u32::MAX)).unwrap();
            registers.rax = 0;
            registers.rcx = if ours {
                self.machine.service.query_protocol(version)
            } else {
                0
            };
            return Ok(());
        }
        *registers = self.machine.service.dispatch(registers, None);
        Ok(())
    }

    fn interrupts_save(&self) -> usize {
        0
    }

    fn interrupts_restore(&self, _saved: usize) {}

    fn translate(&self, address: u64, _bytes: u64) -> Option<NonNull<u8>> {
        NonNull::new(without_provenance_mut(usize::try_from(address).ok()?))
    }

    unsafe fn copy_to_pool(&self, pool: NonNull<u8>, buffer: *const u8, bytes: usize) {
        // SAFETY: Valid for reads by the contract.
        let mut copy = unsafe { std::slice::from_raw_parts(buffer, bytes) }.to_vec();
        for (at, part) in pages(pool.addr().get() as u64, &mut copy) {
            self.machine
                .machine
                .guest_write(Vmpl::Vmpl2, false, at, part)
                .unwrap();
        }
    }

    unsafe fn copy_from_pool(&self, buffer: *mut u8, pool: NonNull<u8>, bytes: usize) {
        let mut copy = vec![0; bytes];
        for (at, part) in pages(pool.addr().get() as u64, &mut copy) {
            self.machine
                .machine
                .guest_read(Vmpl::Vmpl2, false, at, part)
                .unwrap();
        }
        // SAFETY: Valid for writes by the contract.
        unsafe { buffer.copy_from(copy.as_ptr(), bytes) };
    }
}

fn pattern(length: usize, seed: usize) -> Vec<u8> {
    let first: Vec<u8> = (0..251)
        .map(|at| u8::try_from((at * 7 + seed * 31) % 251).unwrap())
        .collect();
    let mut bytes = first.repeat(length / first.len() + 1);
    bytes.truncate(length);
    bytes
}

/// A buffer that lives until the process ends.
fn buffer(length: usize, seed: usize) -> NonNull<[u8]> {
    NonNull::from(Vec::leak(pattern(length, seed)))
}

fn contents(buffer: NonNull<[u8]>) -> Vec<u8> {
    // SAFETY: Leaked, and the shim is not copying now.
    unsafe { buffer.as_ref() }.to_vec()
}

fn map(
    pool: &Pool<'_, &Guest>,
    buffer: NonNull<[u8]>,
    direction: Direction,
) -> Result<Mapping, MapError> {
    // SAFETY: The buffer is leaked.
    unsafe { pool.map(buffer, direction, CopyIn::Keep, &Constraints::NONE) }
}

#[test]
fn a_round_trip_grows_the_pool_and_steady_state_neither_calls_nor_converts() {
    let guest = Guest::new(24);
    let pool = guest.pool(Config::default());
    let round = |seed: usize| {
        let lengths = [1, 512, 4096, 65536, 131_072, 1 << 20, 5 << 20];
        let buffers = lengths.map(|length| buffer(length, seed));
        let live = buffers.map(|buffer| {
            (
                map(&pool, buffer, Direction::Bidirectional).unwrap(),
                buffer,
            )
        });
        for (index, (mapping, buffer)) in live.iter().enumerate() {
            let length = buffer.len();
            assert_eq!(
                guest.device_read(mapping.address(), length),
                pattern(length, seed)
            );
            guest.device_write(mapping.address(), &pattern(length, seed + index + 1));
        }
        for (index, (mapping, buffer)) in live.into_iter().enumerate() {
            pool.unmap(mapping).unwrap();
            assert_eq!(contents(buffer), pattern(buffer.len(), seed + index + 1));
        }
    };
    round(1);
    guest.check(&pool);
    let (calls, exits) = (
        pool.statistics().total_calls(),
        guest.machine.machine.counters().psc_exits,
    );
    round(2);
    round(3);
    assert_eq!(pool.statistics().total_calls(), calls);
    assert_eq!(guest.machine.machine.counters().psc_exits, exits);

    let held = pool.statistics().granted_bytes;
    let given = pool.give_back();
    assert_eq!(
        (given.released_bytes, given.acknowledged_bytes),
        (held, held)
    );
    assert_eq!(
        guest.machine.machine.counters().pages_private,
        24 * 512 + held / PAGE_SIZE
    );
    guest.check(&pool);
}

#[test]
fn a_refusing_host_is_named_and_a_willing_one_is_found_again() {
    let guest = Guest::new(8);
    let pool = guest.pool(Config::default());
    guest.machine.machine.set_manner(HostManner::Refuse);
    let large = buffer(3 << 20, 1);
    let before = pool.statistics().calls_of(Call::Grow);
    for _ in 0..100 {
        assert_eq!(
            map(&pool, large, Direction::ToDevice),
            Err(MapError::HostRefused)
        );
    }
    assert_eq!(
        pool.statistics().calls_of(Call::Grow) - before,
        7,
        "the first, then after 1, 2, 4, ... failures"
    );
    assert_eq!(pool.pressure().cause, Some(MapError::HostRefused));
    assert_eq!(pool.pressure().level, PressureLevel::Exhausted);
    guest.check(&pool);
    guest.machine.machine.set_manner(HostManner::Honest);
    pool.maintain();
    let mapping = map(&pool, large, Direction::ToDevice).unwrap();
    assert_eq!(pool.unmap(mapping), Ok(()));
    assert_eq!(pool.unmap(mapping), Err(UnmapError::AlreadyUnmapped));
    guest.check(&pool);
}

#[test]
fn the_cap_of_the_service_is_the_cap_of_the_pool() {
    let guest = Guest::new(8);
    let pool = guest.pool(Config::default());
    assert_eq!(pool.attachment().cap_bytes, 8 * CHUNK_BYTES);
    assert_eq!(pool.set_cap(2 * CHUNK_BYTES), Ok(8 * CHUNK_BYTES));
    assert_eq!(pool.set_cap(9 * CHUNK_BYTES), Err(MapError::TooLarge));
    let chunk = buffer(2 << 20, 1);
    let live = [(); 2].map(|()| map(&pool, chunk, Direction::ToDevice).unwrap());
    assert_eq!(
        map(&pool, chunk, Direction::ToDevice),
        Err(MapError::CapReached)
    );
    live.into_iter()
        .for_each(|mapping| pool.unmap(mapping).unwrap());
    guest.check(&pool);
}

#[test]
fn shared_memory_is_zeroed_over_what_the_host_left_there() {
    let guest = Guest::new(2);
    let pool = guest.pool(Config::default());
    guest.device_write(WINDOW, &[0xaa; 2 << 20]);
    let shared = pool.alloc_shared(3 * PAGE, PAGE_SIZE).unwrap();
    assert_eq!(guest.device_read(shared.address(), 3 * PAGE), [0; 3 * PAGE]);
    pool.free_shared(shared).unwrap();
}

#[test]
fn a_later_kernel_makes_the_first_ones_attachment_stale() {
    let guest = Guest::new(8);
    let first = guest.pool(Config::default());
    let second = guest.pool(Config::default());
    assert_eq!(second.attachment().orphaned_bytes, CHUNK_BYTES);
    assert!(!second.attachment().fresh);
    let large = buffer(3 << 20, 1);
    assert_eq!(
        map(&first, large, Direction::ToDevice),
        Err(MapError::NotAttached)
    );
    assert!(map(&second, large, Direction::ToDevice).is_ok());
}

/// Every manner, then an honest host: whatever happened, the data that got through is right and both sides agree on
/// what is held, except for what a misbehaving host made the service quarantine.
#[test]
fn p_3_11_a_hostile_host_costs_memory_and_never_data() {
    let manners = [
        HostManner::Refuse,
        HostManner::StopAfter(1),
        HostManner::StopInside(100),
        HostManner::FailAfter(1),
        HostManner::NoProgress,
        HostManner::CursorBackwards,
        HostManner::CursorBeyondEnd,
        HostManner::EnlargeEnd,
        HostManner::ReservedBits,
    ];
    for manner in manners {
        let guest = Guest::new(16);
        let pool = guest.pool(Config::default());
        let (small, large) = (buffer(1 << 20, 1), buffer(5 << 20, 2));
        guest.machine.machine.set_manner(manner);
        let mut live: Vec<_> = (0..8)
            .flat_map(|_| [small, large])
            .filter_map(|buffer| Some((map(&pool, buffer, Direction::Bidirectional).ok()?, buffer)))
            .collect();
        guest.machine.machine.set_manner(HostManner::Honest);
        pool.maintain();
        live.extend(
            map(&pool, small, Direction::Bidirectional)
                .ok()
                .map(|mapping| (mapping, small)),
        );
        assert!(!live.is_empty(), "{manner:?}");
        for (mapping, buffer) in live {
            let written = pattern(buffer.len(), 3);
            guest.device_write(mapping.address(), &written);
            pool.unmap(mapping).unwrap();
            assert_eq!(contents(buffer), written, "{manner:?}");
        }
        guest.machine.check();
        pool.give_back();
        guest.machine.check();
        let (shim, service) = (pool.statistics(), guest.machine.service.statistics());
        assert_eq!((shim.granted_bytes, shim.used_bytes), (0, 0), "{manner:?}");
        assert_eq!(service.granted_bytes, 0, "{manner:?}");
    }
}

/// One platform call of the service fails, at every place it can.
#[test]
fn any_single_failure_of_the_platform_leaves_a_working_pool() {
    for failing in 1..=6 {
        let guest = Guest::new(8);
        let pool = guest.pool(Config::default());
        guest.machine.machine.fail_platform_call(failing);
        let buffers = [1 << 20, 3 << 20, 2 << 20].map(|length| buffer(length, 1));
        for _ in 0..3 {
            let live = buffers.map(|buffer| map(&pool, buffer, Direction::ToDevice));
            live.into_iter()
                .flatten()
                .for_each(|mapping| pool.unmap(mapping).unwrap());
            pool.maintain();
        }
        let all = buffers.map(|buffer| map(&pool, buffer, Direction::ToDevice).unwrap());
        all.into_iter()
            .for_each(|mapping| pool.unmap(mapping).unwrap());
        guest.machine.check();
        pool.give_back();
        assert_eq!(
            guest.machine.service.statistics().granted_bytes,
            0,
            "failure {failing}"
        );
    }
}
