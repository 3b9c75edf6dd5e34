// SPDX-License-Identifier: MIT OR Apache-2.0
//! Epochs: attaching, orphans, calls that come too early or too late.

use protocol::response::Attached;
use protocol::{Epoch, Request, result};

use super::{LIST, address, code};
use crate::pool::ChunkState;
use crate::test_platform::{CHUNK, Guest, WINDOW_BASE, service};

#[test]
fn p_3_5_p_5_2_1_calls_before_attach_and_of_an_old_epoch_are_refused_and_change_nothing() {
    let (platform, service) = service(4);
    let calls = |epoch: u32| {
        [
            service.guest_grow(epoch, 1, 1),
            service.guest_release(WINDOW_BASE, CHUNK, epoch, 1),
            service.call(Request::SetLimits {
                window: 0,
                epoch,
                cap: 0,
            }),
            service.call(Request::ListGranted {
                list: address(LIST),
                epoch,
            }),
        ]
        .map(code)
    };
    assert_eq!(calls(0), [result::NOT_ATTACHED; 4]);
    assert_eq!(calls(1), [result::NOT_ATTACHED; 4]);
    let old = service.guest_attach();
    let epoch = service.guest_attach();
    assert_eq!(calls(old), [result::STALE_EPOCH; 4]);
    assert_eq!(calls(epoch + 1), [result::STALE_EPOCH; 4]);
    assert_eq!(platform.exit_count(), 0);
    assert_eq!(service.pool().accounts().cap_bytes(), 4 * CHUNK);
}

#[test]
fn p_3_7_p_5_2_2_attach_makes_orphans_and_never_frees_or_grants_them() {
    let (platform, service) = service(4);
    let attach = || Attached::decode(service.call(Request::Attach { version: 1 }).unwrap());
    let first = attach().unwrap();
    assert_eq!((first.fresh, first.orphaned_bytes), (true, 0));
    let grant = service.guest_grow(first.epoch.number(), 2, 2).unwrap();
    let exits = platform.exit_count();

    let second = attach().unwrap();
    assert_eq!((second.fresh, second.orphaned_bytes), (false, 2 * CHUNK));
    assert_eq!(
        platform.exit_count(),
        exits,
        "attaching asks the host for nothing"
    );
    let epoch = second.epoch.number();
    let rest = service.guest_grow(epoch, 1, 4).unwrap();
    assert_eq!((rest.rcx, rest.rdx), (WINDOW_BASE + 2 * CHUNK, 2 * CHUNK));
    assert_eq!(code(service.guest_grow(epoch, 1, 1)), result::CAP_REACHED);
    // Not even by claiming the right generation.
    let release = service.guest_release(grant.rcx, grant.rdx, epoch, grant.r8);
    assert_eq!(code(release), result::NOT_HELD);
    assert!(
        matches!(service.pool().records().state(0), ChunkState::Held(h) if h.epoch == first.epoch)
    );
}

#[test]
fn p_5_2_2_a_grow_whose_epoch_ends_before_its_chunks_are_reserved_is_refused() {
    // As if another processor attached just behind the check of the epoch.
    let (platform, service) = service(4);
    let first = Epoch::new(service.guest_attach()).unwrap();
    service.guest_attach();
    let grow = || {
        service
            .grow(service.pool(), first, false, CHUNK, CHUNK)
            .map_err(|refusal| refusal.code)
    };
    assert_eq!(grow().unwrap_err(), result::STALE_EPOCH);
    service.call(Request::Detach { epoch: 2 }).unwrap();
    assert_eq!(grow().unwrap_err(), result::NOT_ATTACHED);
    assert_eq!(platform.exit_count(), 0);
    let statistics = service.statistics();
    assert_eq!(
        (statistics.granted_bytes, statistics.quarantined_bytes),
        (0, 0)
    );
}

#[test]
fn p_2_2_attach_refuses_another_version_and_begins_no_epoch() {
    let (_, service) = service(4);
    for version in [0, 2, 1 << 32 | 1] {
        let answer = service.call(Request::Attach { version });
        assert_eq!(code(answer), result::UNSUPPORTED_VERSION);
    }
    assert_eq!(service.guest_attach(), 1);
}
