// SPDX-License-Identifier: MIT OR Apache-2.0
//! Each answer that no service may give, in a pool with something mapped: refused, and nothing is used that is not held.

use fuzz::driver_buffer::DriverBuffer;
use fuzz::machine::Machine;
use fuzz::service::{Mood, Trouble};
use fuzz::window::CHUNK;
use guest_shim::{
    CHUNK_BYTES, Config, Constraints, CopyIn, Direction, MapError, Mapping, Pool, metadata_bytes,
};

const CHUNKS: usize = 4;
const LENGTH: usize = CHUNK - (64 << 10);

fn map(pool: &Pool<'_, &Machine>, buffer: &DriverBuffer) -> Result<Mapping, MapError> {
    let (from, none) = (Direction::FromDevice, Constraints::NONE);
    buffer.map(pool, from, CopyIn::DeviceWritten, &none)
}

fn with_pool(test: impl FnOnce(&Machine, &Pool<'_, &Machine>, &DriverBuffer)) {
    let machine = Machine::new(CHUNKS, 255);
    let cpus = 1;
    let mut metadata = vec![0; metadata_bytes(CHUNKS as u64 * CHUNK_BYTES, cpus)];
    let pool = Pool::attach(&machine, &mut metadata, Config::default()).unwrap();
    test(&machine, &pool, &DriverBuffer::new(&vec![0; LENGTH], 0, 0));
    machine.close();
}

fn set_trouble(machine: &Machine, trouble: Trouble) {
    machine.service(|service| {
        service.mood = Mood {
            trouble: Some((trouble, 1)),
            ..Mood::PLAIN
        };
    });
}

#[test]
fn a_grant_that_cannot_be_true_is_not_used() {
    for kind in if cfg!(miri) { 2..3 } else { 0..6 } {
        with_pool(|machine, pool, buffer| {
            let first = map(pool, buffer).unwrap();
            set_trouble(machine, Trouble::Lie(kind));
            let refused = map(pool, buffer);
            assert_eq!(refused, Err(MapError::ServiceFault), "lie {kind}");
            pool.maintain();
            let mut live = vec![first];
            while let Ok(mapping) = map(pool, buffer) {
                live.push(mapping);
            }
            assert_eq!(live.len(), CHUNKS, "all there is, after lie {kind}");
            let mut addresses: Vec<u64> = live.iter().map(Mapping::address).collect();
            addresses.sort_unstable();
            let apart = |pair: &[u64]| pair[1] - pair[0] >= LENGTH as u64;
            assert!(
                addresses.windows(2).all(apart),
                "lie {kind}: {addresses:x?}"
            );
            live.into_iter().for_each(|it| pool.unmap(it).unwrap());
            pool.give_back();
            assert_eq!(
                machine.service(|service| service.granted()),
                0,
                "lie {kind}"
            );
        });
    }
}

#[test]
fn a_chunk_whose_owner_is_open_is_never_used_again() {
    use protocol::result as code;
    for trouble in [
        Trouble::Lie(0),
        Trouble::Lie(1),
        Trouble::Refused(code::NOT_HELD),
    ] {
        with_pool(|machine, pool, buffer| {
            let live = [map(pool, buffer).unwrap(), map(pool, buffer).unwrap()];
            live.into_iter().for_each(|it| pool.unmap(it).unwrap());
            set_trouble(machine, trouble);
            let given = pool.give_back();
            assert!(given.stopped_by.is_some(), "{trouble:?}: {given:?}");
            let open = machine.service(|service| service.open());
            assert!(open > 0);
            assert_eq!(pool.statistics().lost_bytes, open as u64 * CHUNK_BYTES);
            let rest: Vec<Mapping> = std::iter::from_fn(|| map(pool, buffer).ok()).collect();
            assert_eq!(rest.len(), CHUNKS - open, "{trouble:?}");
            for mapping in rest {
                let held =
                    machine.service(|service| service.may_use(mapping.address(), LENGTH as u64));
                assert!(held, "{mapping:x?} after {trouble:?}");
                pool.unmap(mapping).unwrap();
            }
        });
    }
}

#[test]
fn a_call_that_did_not_arrive_changes_nothing() {
    with_pool(|machine, pool, buffer| {
        let first = map(pool, buffer).unwrap();
        set_trouble(machine, Trouble::NotRun);
        assert_eq!(map(pool, buffer), Err(MapError::ServiceFault));
        pool.unmap(first).unwrap();
        set_trouble(machine, Trouble::NotRun);
        let given = pool.give_back();
        assert_eq!(given.released_bytes, 0);
        assert_eq!(pool.statistics().lost_bytes, 0);
        let given = pool.give_back();
        assert_eq!(given.stopped_by, None);
        assert_eq!(machine.service(|service| service.granted()), 0);
    });
}
