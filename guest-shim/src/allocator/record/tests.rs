// SPDX-License-Identifier: MIT OR Apache-2.0

use super::*;

const TO: Kind = Kind::Mapping(Direction::ToDevice, CopyIn::Keep);

#[test]
fn a_record_keeps_every_field_at_its_limits() {
    let record = Record::unused();
    record.restart(GENERATION_MASK);
    let origin = Origin::of(u64::MAX - 5, 15);
    assert_eq!(
        record.publish(origin, Kind::SharedBuffer, 16383),
        GENERATION_MASK
    );
    let state = record.state();
    assert_eq!(
        (state.kind(), state.usage(), state.extra()),
        (Kind::SharedBuffer, Use::Live(0), 16383)
    );
    assert_eq!(
        (record.origin().address(), record.origin().low_bits()),
        (u64::MAX - 5, 0x7ffa)
    );
    assert!(record.claim_and_retire(state));
    let state = record.state();
    assert_eq!(
        (state.generation(), state.usage(), state.extra()),
        (0, Use::Free, 16383)
    );
    assert_eq!(
        Origin::of(0x00ff_1234_5678_9abc, 0).address(),
        0x00ff_1234_5678_9abc
    );
    assert_eq!(Origin::of(0xabc, 0).low_bits(), 0);
}

#[test]
fn live_means_live_and_of_this_kind_and_length() {
    let state = |kind, usage, extra| State::of(kind, usage, extra, 7);
    assert!(state(TO, Use::Live(0), 99).is_live(TO, 100));
    for other in [
        state(TO, Use::Claimed, 99),
        state(TO, Use::Live(1), 99),
        state(TO, Use::Live(MOST_SYNCS), 99),
        state(TO, Use::Free, 99),
        state(TO, Use::Live(0), 98),
        state(Kind::SharedBuffer, Use::Live(0), 99),
    ] {
        assert!(!other.is_live(TO, 100));
    }
    let live = state(TO, Use::Live(0), 99);
    assert!(!live.is_live(TO, 0) && !live.is_live(TO, 100 + (1 << 14)));
    let keep = Kind::Mapping(Direction::FromDevice, CopyIn::Keep);
    let written = Kind::Mapping(Direction::FromDevice, CopyIn::DeviceWritten);
    assert!(state(written, Use::Live(0), 99).is_live(keep, 100));
}

#[test]
fn a_claim_is_won_once() {
    let record = Record::unused();
    record.publish(Origin::of(4096, 0), TO, 0);
    let seen = record.state();
    assert!(record.claim(seen) && !record.claim(seen) && !record.claim_and_retire(seen));
    assert_eq!(record.share(seen), Err(NotShared::Gone));
    record.retire(seen);
    assert!(!record.claim(seen));
    assert_eq!(record.publish(Origin::of(4096, 0), TO, 0), 1);
}

#[test]
fn syncs_share_and_keep_others_from_a_claim() {
    let record = Record::unused();
    record.publish(Origin::of(4096, 0), TO, 16383);
    let seen = record.state();
    for syncs in 0..MOST_SYNCS {
        assert_eq!(record.state().usage(), Use::Live(syncs));
        // What was seen before the other syncs serves as well.
        assert_eq!(record.share(seen), Ok(()));
        assert!(!record.claim(seen) && !record.claim_and_retire(seen));
    }
    let full = record.state();
    assert_eq!(record.share(seen), Err(NotShared::TooMany));
    assert_eq!(record.share(full), Err(NotShared::TooMany));
    assert_eq!((record.state(), full.extra()), (full, 16383));
    (0..MOST_SYNCS).for_each(|_| record.unshare());
    assert_eq!(record.state(), seen);
    assert!(record.claim_and_retire(seen));
    assert_eq!(record.share(seen), Err(NotShared::Gone));
    record.publish(Origin::of(4096, 0), TO, 16383);
    assert_eq!(
        record.share(seen),
        Err(NotShared::Gone),
        "another generation"
    );
}

#[test]
fn kinds_survive_their_encoding() {
    for kind in [
        Kind::Nothing,
        TO,
        Kind::Mapping(Direction::FromDevice, CopyIn::Keep),
        Kind::Mapping(Direction::FromDevice, CopyIn::DeviceWritten),
        Kind::Mapping(Direction::Bidirectional, CopyIn::Keep),
        Kind::SharedBuffer,
    ] {
        assert_eq!(Kind::from_bits(kind.into_bits()), kind);
    }
}
