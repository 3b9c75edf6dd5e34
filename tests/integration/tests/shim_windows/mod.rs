// SPDX-License-Identifier: MIT OR Apache-2.0
//! Two windows of one attachment: each mapping lies where its device reaches it, and its end finds it there.

use std::mem::MaybeUninit;

use guest_shim::{
    AttachError, Config, Constraints, CopyIn, Direction, MapError, Mapping, Pool, UnmapError,
    Windows, metadata_bytes,
};
use protocol::CHUNK_BYTES;
use snp::svsm::ResultCode;

use super::service_machine::{LOW_WINDOW, WINDOW};
use super::shim_orphans::Page;
use super::{Guest, buffer, contents, pattern};

/// Chunks of the windows.
const HIGH: usize = 8;
const LOW: usize = 4;
/// What a narrow device reaches: the low window and nothing of the other.
const NARROW: u64 = WINDOW - 1;

fn two() -> &'static Guest {
    Box::leak(Box::new(Guest::with_low(HIGH, LOW)))
}

fn try_beside(
    guest: &'static Guest,
    first: &Pool<'static, &'static Guest>,
    window: u8,
    config: Config,
) -> Result<Pool<'static, &'static Guest>, AttachError> {
    let bytes = metadata_bytes(LOW as u64 * CHUNK_BYTES, config.cpus);
    let mut place = MaybeUninit::uninit();
    first.attach_beside(&mut place, window, guest, vec![0; bytes].leak(), config)?;
    // SAFETY: Attached, so the pool is there.
    Ok(unsafe { place.assume_init() })
}

fn beside(
    guest: &'static Guest,
    first: &Pool<'static, &'static Guest>,
) -> Pool<'static, &'static Guest> {
    try_beside(guest, first, 1, Config::default()).unwrap()
}

fn map(
    windows: Windows<'_, 'static, &'static Guest>,
    bytes: usize,
    highest_address: u64,
) -> Result<Mapping, MapError> {
    let constraints = Constraints {
        highest_address,
        ..Constraints::NONE
    };
    let buffer = buffer(bytes, 1);
    // SAFETY: The buffer is leaked.
    unsafe { windows.map(buffer, Direction::ToDevice, CopyIn::Keep, &constraints) }
}

fn granted(guest: &Guest) -> [u64; 2] {
    let statistics = guest.machine.service.statistics();
    statistics
        .windows()
        .map(|window| window.granted_bytes / CHUNK_BYTES)
}

#[test]
fn a_mapping_lies_where_its_device_reaches_it_and_nowhere_else() {
    let guest = two();
    let first = guest.pool(Config::default());
    let low = beside(guest, &first);
    assert_eq!(low.window().base(), LOW_WINDOW);
    assert_eq!(low.attachment().epoch, first.attachment().epoch);
    assert_eq!(low.attachment().cap_bytes, LOW as u64 * CHUNK_BYTES);
    let windows = Windows::new(&first, Some(&low));
    let high_end = WINDOW + HIGH as u64 * CHUNK_BYTES;
    let low_end = LOW_WINDOW + LOW as u64 * CHUNK_BYTES;
    for (reach, window) in [
        (u64::MAX, WINDOW),
        (high_end - 1, WINDOW),
        // Not all of the first window: the other is there for that.
        (high_end - 2, LOW_WINDOW),
        (NARROW, LOW_WINDOW),
        (low_end - 1, LOW_WINDOW),
    ] {
        let mapping = map(windows, 5000, reach).unwrap();
        let address = mapping.address();
        assert!(
            (window..window + 4 * CHUNK_BYTES).contains(&address),
            "{reach:#x}"
        );
        assert_eq!(guest.device_read(address, 5000), pattern(5000, 1));
        windows.unmap(mapping).unwrap();
        assert!(windows.unmap(mapping).is_err(), "twice");
    }
    // Less than all of the low window is less than all of either.
    let reach = LOW_WINDOW + CHUNK_BYTES - 1;
    let mapping = map(windows, 5000, reach).unwrap();
    assert!(mapping.address() + 4999 <= reach);
    windows
        .unmap_address(mapping.address(), 5000, Direction::ToDevice)
        .unwrap();
    assert!(map(windows, 5000, LOW_WINDOW - 1).is_err());

    for outside in [LOW_WINDOW - 1, low_end, WINDOW - 1, high_end] {
        assert!(!windows.contains(outside));
        let ended = windows.unmap_address(outside, 1, Direction::ToDevice);
        assert_eq!(ended, Err(UnmapError::UnknownAddress));
        let synced = windows.sync_address_for_cpu(outside, 1);
        assert_eq!(synced, Err(UnmapError::UnknownAddress));
    }
    assert_eq!(first.statistics().used_bytes, 0);
    assert_eq!(low.statistics().used_bytes, 0);
}

#[test]
fn what_a_device_writes_in_the_low_window_comes_back() {
    let guest = two();
    let first = guest.pool(Config::default());
    let low = beside(guest, &first);
    let windows = Windows::new(&first, Some(&low));
    let narrow = Constraints {
        highest_address: NARROW,
        ..Constraints::NONE
    };
    let target = buffer(9000, 2);
    // SAFETY: The buffer is leaked.
    let mapping = unsafe { windows.map(target, Direction::FromDevice, CopyIn::Keep, &narrow) };
    let mapping = mapping.unwrap();
    guest.device_write(mapping.address(), &pattern(9000, 3));
    windows
        .sync_address_for_cpu(mapping.address() + 100, 50)
        .unwrap();
    assert_eq!(contents(target)[100..150], pattern(9000, 3)[100..150]);
    windows.unmap_written(mapping, 8000).unwrap();
    assert_eq!(contents(target)[..8000], pattern(9000, 3)[..8000]);
    let shared = windows.alloc_shared_within(4096, &narrow).unwrap();
    assert!(low.contains(shared.address()));
    windows.free_shared(shared).unwrap();
}

#[test]
fn p_5_7_a_window_that_is_full_takes_nothing_from_the_other() {
    let guest = two();
    let first = guest.pool(Config::default());
    let low = beside(guest, &first);
    let windows = Windows::new(&first, Some(&low));
    let chunk = usize::try_from(CHUNK_BYTES).unwrap();
    let fill = |reach| {
        let mut mapped = Vec::new();
        let cause = loop {
            match map(windows, chunk, reach) {
                Ok(mapping) => mapped.push(mapping),
                Err(cause) => break cause,
            }
        };
        (mapped, cause)
    };
    let (narrow, cause) = fill(NARROW);
    assert_eq!((narrow.len(), cause), (LOW, MapError::CapReached));
    assert_eq!(granted(guest), [1, LOW as u64]);
    let (wide, cause) = fill(u64::MAX);
    assert_eq!((wide.len(), cause), (HIGH, MapError::CapReached));
    assert_eq!(granted(guest), [HIGH as u64, LOW as u64]);
    for mapping in narrow {
        windows.unmap(mapping).unwrap();
    }
    // There is room below 4 GiB now, and it stays for those that need it.
    assert_eq!(map(windows, 64, u64::MAX), Err(MapError::CapReached));
    for mapping in wide {
        windows.unmap(mapping).unwrap();
    }
    for pool in [&first, &low] {
        assert_eq!(pool.give_back().stopped_by, None);
    }
    assert_eq!(granted(guest), [0, 0]);
}

#[test]
fn one_window_serves_whom_it_reaches_as_before() {
    let guest: &'static Guest = Box::leak(Box::new(Guest::new(HIGH)));
    let first = guest.pool(Config::default());
    let windows = Windows::new(&first, None);
    assert!(map(windows, 64, u64::MAX).is_ok());
    assert!(map(windows, 64, WINDOW + CHUNK_BYTES - 1).is_ok());
    assert!(map(windows, 64, NARROW).is_err());
    assert_eq!(first.window_beside(1), Ok(None));
    let absent = AttachError::Refused(ResultCode::INVALID_PARAMETER);
    let refused = try_beside(guest, &first, 1, Config::default());
    assert_eq!(refused.map(|_| ()), Err(absent));
}

#[test]
fn a_second_pool_is_of_another_window_and_its_config_about_that() {
    let guest = two();
    let first = guest.pool(Config::default());
    let found = first.window_beside(1);
    assert_eq!(
        found.map(|one| one.map(|one| one.base())),
        Ok(Some(LOW_WINDOW))
    );
    let same = try_beside(guest, &first, 0, Config::default());
    assert_eq!(same.map(|_| ()), Err(AttachError::UnusableWindow));
    let config = |cap| Config {
        cap_bytes: Some(cap * CHUNK_BYTES),
        initial_bytes: 0,
        ..Config::default()
    };
    let above = try_beside(guest, &first, 1, config(LOW as u64 + 1));
    let absent = AttachError::Refused(ResultCode::INVALID_PARAMETER);
    assert_eq!(above.map(|_| ()), Err(absent));
    let low = try_beside(guest, &first, 1, config(2)).unwrap();
    assert_eq!(low.attachment().cap_bytes, 2 * CHUNK_BYTES);
    let statistics = guest.machine.service.statistics();
    assert_eq!(statistics.cap_bytes, HIGH as u64 * CHUNK_BYTES, "untouched");
    assert_eq!(granted(guest), [1, 0]);
    assert_eq!(low.detach(), Ok(CHUNK_BYTES), "the attachment is one");
}

#[test]
fn a_restarted_kernel_finds_what_it_held_in_both_windows() {
    let guest = two();
    let first = guest.pool(Config::default());
    let low = beside(guest, &first);
    let windows = Windows::new(&first, Some(&low));
    let chunk = usize::try_from(CHUNK_BYTES).unwrap();
    for reach in [u64::MAX, u64::MAX, NARROW, NARROW, NARROW] {
        map(windows, chunk, reach).unwrap();
    }
    let held = granted(guest);
    assert!(held[0] >= 2 && held[1] >= 3, "{held:?}");
    let sum = (held[0] + held[1]) * CHUNK_BYTES;
    let config = Config {
        initial_bytes: 0,
        ..Config::default()
    };

    // Adopted: each pool finds its own.
    let mut again = guest.pool(config);
    assert_eq!(again.attachment().orphaned_bytes, sum);
    let page = Page(guest);
    let adopted = again.adopt_orphans(&page).unwrap();
    assert_eq!(adopted.adopted_bytes, held[0] * CHUNK_BYTES);
    let mut low_again = try_beside(guest, &again, 1, config).unwrap();
    let adopted = low_again.adopt_orphans(&page).unwrap();
    assert_eq!(
        (adopted.adopted_bytes, adopted.uncovered_bytes),
        (held[1] * CHUNK_BYTES, 0)
    );
    assert_eq!(granted(guest), held, "nothing was granted for it");
    let windows = Windows::new(&again, Some(&low_again));
    assert!(map(windows, 3 * chunk, NARROW).is_ok());

    // Released: by whichever pool, of both windows.
    let last = guest.pool(config);
    let given = last.release_orphans(&page).unwrap();
    assert_eq!(given.released_bytes, sum);
    assert_eq!(granted(guest), [0, 0]);
}

/// As a crash under full load leaves them: nothing can be granted before it is given back, and all of it afterwards.
#[test]
fn a_kernel_that_finds_both_windows_full_has_all_of_them_once_they_are_given_back() {
    let guest = two();
    let chunk = usize::try_from(CHUNK_BYTES).unwrap();
    let reaches = [[u64::MAX; HIGH].as_slice(), &[NARROW; LOW]].concat();
    for kernel in 1..=2 {
        let first = guest.pool(Config::default());
        let low = beside(guest, &first);
        let windows = Windows::new(&first, Some(&low));
        if kernel == 2 {
            let full = (HIGH + LOW) as u64 * CHUNK_BYTES;
            assert_eq!(first.attachment().orphaned_bytes, full);
            // Often enough for a pool to wait before it asks again.
            for reach in [u64::MAX, NARROW].repeat(5) {
                assert_eq!(map(windows, 64, reach), Err(MapError::CapReached));
            }
            let given = windows.release_orphans(&Page(guest)).unwrap();
            assert_eq!((given.released_bytes, given.stopped_by), (full, None));
            assert_eq!(granted(guest), [0, 0]);
        }
        for reach in &reaches {
            map(windows, chunk, *reach).unwrap();
        }
        assert_eq!(granted(guest), [HIGH as u64, LOW as u64]);
    }
}
