// SPDX-License-Identifier: MIT OR Apache-2.0
//! Kernels that restart, detach, and find what was left behind.

use std::ptr::NonNull;
use std::sync::mpsc::channel;
use std::thread;

use guest_shim::{
    AttachError, Config, Constraints, CopyIn, Direction, ListPage, MapError, Mapping, Pool,
};
use protocol::CHUNK_BYTES;
use snp::address::Vmpl;
use snp::svsm::ResultCode;
use snp_model::psc::HostManner;
use svsm_swiotlb::pool::ChunkState;

use super::Guest;
use super::service_machine::LIST;

const CHUNK: usize = 2 << 20;
/// Of the window in which a kernel dies.
const CHUNKS: usize = 12;

/// The guest's page for lists.
pub struct Page<'a>(pub &'a Guest);

impl ListPage for Page<'_> {
    fn address(&self) -> u64 {
        LIST.bits()
    }

    fn read(&self, offset: usize, bytes: &mut [u8]) {
        let at = LIST.checked_add(offset as u64).unwrap();
        let machine = self.0.machine.machine;
        machine.guest_read(Vmpl::Vmpl0, true, at, bytes).unwrap();
    }

    fn write(&self, offset: usize, bytes: &[u8]) {
        let at = LIST.checked_add(offset as u64).unwrap();
        let machine = self.0.machine.machine;
        machine.guest_write(Vmpl::Vmpl0, true, at, bytes).unwrap();
    }
}

/// Mappings of one chunk each, which only the device writes.
fn fill(pool: &Pool<'_, &Guest>, mappings: usize) -> Vec<Mapping> {
    let mapped = try_to_fill(pool, mappings);
    mapped.collect::<Result<_, _>>().unwrap()
}

fn try_to_fill(
    pool: &Pool<'_, &Guest>,
    mappings: usize,
) -> impl Iterator<Item = Result<Mapping, MapError>> {
    let buffer = NonNull::from(vec![0_u8; CHUNK].leak() as &mut [u8]);
    (0..mappings).map(move |_| {
        let (from, written) = (Direction::FromDevice, CopyIn::DeviceWritten);
        // SAFETY: The buffer lives for ever, and no device writes.
        unsafe { pool.map(buffer, from, written, &Constraints::NONE) }
    })
}

fn granted(guest: &Guest) -> u64 {
    guest.machine.service.statistics().granted_bytes
}

#[test]
fn a_restarted_kernel_adopts_what_it_held_and_works_on_with_it() {
    let guest = Guest::new(12);
    let first = guest.pool(Config::default());
    fill(&first, 5);
    let before = granted(&guest);
    assert!(before >= 5 * CHUNK_BYTES);

    let config = Config {
        initial_bytes: 0,
        ..Config::default()
    };
    let mut second = guest.pool(config);
    assert_eq!(second.attachment().orphaned_bytes, before);
    assert_eq!(second.statistics().granted_bytes, 0);
    let adoption = second.adopt_orphans(&Page(&guest)).unwrap();
    assert_eq!(
        (adoption.adopted_bytes, adoption.uncovered_bytes),
        (before, 0)
    );
    assert_eq!(second.statistics().granted_bytes, before);
    assert_eq!(granted(&guest), before);

    // The adopted memory is what mappings are served from: no growth.
    let chunks = usize::try_from(before / CHUNK_BYTES).unwrap();
    fill(&second, chunks);
    assert_eq!(second.statistics().growths, 0);
    // And it goes back by its old generations.
    let mut third = guest.pool(config);
    third.adopt_orphans(&Page(&guest)).unwrap();
    let given = third.give_back();
    assert_eq!((given.released_bytes, given.stopped_by), (before, None));
    assert_eq!(granted(&guest), 0);
    guest.machine.check();
}

#[test]
fn a_kernel_that_restarts_several_times_finds_the_orphans_of_all_of_them() {
    let guest = Guest::new(12);
    for kernel in 1..=3 {
        let pool = guest.pool(Config::default());
        fill(&pool, kernel);
    }
    let before = granted(&guest);
    let config = Config {
        initial_bytes: 0,
        ..Config::default()
    };
    let fourth = guest.pool(config);
    assert_eq!(fourth.attachment().orphaned_bytes, before);
    let given = fourth.release_orphans(&Page(&guest)).unwrap();
    assert_eq!(given.released_bytes, before);
    assert_eq!(given.acknowledged_bytes, before);
    assert_eq!(granted(&guest), 0);
    fill(&fourth, 12);
    guest.machine.check();
}

/// A kernel dies while another of its processors is in GROW, before VMGEXIT `nth` of it; the next one adopts what it
/// finds, or gives it back. False when there is no such VMGEXIT.
fn dies_in_grow(nth: u64, adopts: bool) -> bool {
    let guest = Guest::new(CHUNKS);
    let machine = guest.machine.machine;
    let first = guest.pool(Config::default());
    fill(&first, 5);
    let before = granted(&guest);
    // So that one GROW is several exits.
    machine.set_manner(HostManner::StopAfter(1));
    let (reached, is_reached) = channel();
    let (go_on, may_go_on) = channel::<()>();
    machine.before_exit(nth, move || {
        reached.send(()).expect("somebody waits");
        let _ = may_go_on.recv();
    });
    let config = Config {
        initial_bytes: 0,
        ..Config::default()
    };
    let quiet = machine.counters().psc_exits;
    let found = thread::scope(|scope| {
        scope.spawn(|| {
            // What becomes of its maps does not matter to a dead kernel.
            try_to_fill(&first, CHUNKS - 5 - 2).for_each(drop);
            machine.before_no_exit();
        });
        is_reached.recv().ok()?;
        // The other processor stays in the host's hands while this one starts anew.
        let in_transit = granted(&guest) - before;
        let mut second = guest.pool(config);
        assert_eq!(second.attachment().orphaned_bytes, before + in_transit);
        let done = settle(&guest, &mut second, adopts);
        // The only chunks that cannot be found yet are those of the call that is under way.
        assert_eq!(done, before);
        drop(go_on);
        Some((second, before))
    });
    let Some((mut second, before)) = found else {
        assert!(machine.counters().psc_exits > quiet, "it grew");
        return false;
    };
    let late = granted(&guest) - second.statistics().granted_bytes;
    assert_eq!(settle(&guest, &mut second, adopts), late);
    guest.machine.check();
    // Nothing is anybody else's, and nothing is lost.
    let held = second.statistics().granted_bytes;
    let expected = if adopts { before + late } else { 0 };
    assert_eq!((held, granted(&guest)), (expected, expected));
    let given = second.give_back();
    assert_eq!((given.released_bytes, given.stopped_by), (held, None));
    let free = |state: &ChunkState| *state == ChunkState::Free;
    assert!(guest.machine.states().iter().all(free));
    fill(&second, CHUNKS);
    true
}

/// Adopts all orphans, or gives them back; how many bytes.
fn settle(guest: &Guest, pool: &mut Pool<'static, &Guest>, adopts: bool) -> u64 {
    if adopts {
        let adoption = pool.adopt_orphans(&Page(guest)).unwrap();
        assert_eq!(adoption.uncovered_bytes, 0);
        adoption.adopted_bytes
    } else {
        let given = pool.release_orphans(&Page(guest)).unwrap();
        assert_eq!(given.acknowledged_bytes, given.released_bytes);
        given.released_bytes
    }
}

#[test]
fn w2_p_5_2_2_p_5_4_3_no_chunk_is_lost_when_a_kernel_dies_while_another_processor_grows() {
    for adopts in [true, false] {
        let points = (1..).take_while(|nth| dies_in_grow(*nth, adopts)).count();
        println!("{points} exits of GROW before which the kernel dies");
        assert!(points >= 3, "{points}");
    }
}

#[test]
fn what_no_record_covers_is_not_adopted_but_given_back() {
    let guest = Guest::new(12);
    let first = guest.pool(Config::default());
    fill(&first, 12);
    let config = Config {
        initial_bytes: 0,
        ..Config::default()
    };
    let bytes = guest_shim::metadata_bytes(5 * CHUNK_BYTES, 1);
    let mut second = Pool::attach(&guest, vec![0; bytes].leak(), config).unwrap();
    let adoption = second.adopt_orphans(&Page(&guest)).unwrap();
    assert_eq!(
        adoption.adopted_bytes + adoption.uncovered_bytes,
        12 * CHUNK_BYTES
    );
    assert!(adoption.uncovered_bytes > 0);
    assert_eq!(granted(&guest), adoption.adopted_bytes);
    assert_eq!(second.statistics().granted_bytes, adoption.adopted_bytes);
}

#[test]
fn detach_leaves_what_is_mapped_as_orphans_for_the_next_kernel() {
    let guest = Guest::new(12);
    let first = guest.pool(Config::default());
    fill(&first, 2);
    first.give_back();
    assert_eq!(first.detach(), Ok(2 * CHUNK_BYTES));
    assert_eq!(first.detach(), Err(MapError::NotAttached));
    let second = guest.pool(Config::default());
    assert_eq!(second.attachment().orphaned_bytes, 2 * CHUNK_BYTES);
    assert!(!second.attachment().fresh);
}

#[test]
fn the_cap_of_attach_holds_and_one_beyond_the_hard_cap_is_refused() {
    let guest = Guest::new(12);
    let config = Config {
        initial_bytes: 12 * CHUNK_BYTES,
        cap_bytes: Some(3 * CHUNK_BYTES - 1),
        ..Config::default()
    };
    let pool = guest.pool(config);
    assert_eq!(pool.attachment().cap_bytes, 3 * CHUNK_BYTES);
    assert_eq!(granted(&guest), 3 * CHUNK_BYTES);
    let config = Config {
        cap_bytes: Some(13 * CHUNK_BYTES),
        ..config
    };
    let bytes = guest_shim::metadata_bytes(12 * CHUNK_BYTES, 1);
    let refused = Pool::attach(&guest, vec![0; bytes].leak(), config).map(|_| ());
    assert_eq!(
        refused,
        Err(AttachError::Refused(ResultCode::INVALID_PARAMETER))
    );
    assert_eq!(guest.machine.service.statistics().epoch, 0, "and detached");
}

#[test]
fn maintenance_keeps_the_free_memory_between_the_watermarks() {
    let guest = Guest::new(12);
    let config = Config {
        low_watermark_bytes: 2 * CHUNK_BYTES,
        high_watermark_bytes: 3 * CHUNK_BYTES,
        ..Config::default()
    };
    let pool = guest.pool(config);
    assert_eq!(granted(&guest), CHUNK_BYTES);
    pool.maintain();
    assert_eq!(granted(&guest), 2 * CHUNK_BYTES, "grown ahead of need");
    // A burst; what it needed stays for a while without a high watermark, but not beyond it.
    let mappings = fill(&pool, 8);
    pool.maintain();
    assert_eq!(granted(&guest), 10 * CHUNK_BYTES);
    for mapping in mappings {
        pool.unmap_written(mapping, 0).unwrap();
    }
    pool.maintain();
    assert_eq!(granted(&guest), 3 * CHUNK_BYTES);
    let states = guest.machine.states();
    let held = |state: &&ChunkState| matches!(state, ChunkState::Held(_));
    assert_eq!(states.iter().filter(held).count(), 3);
}
