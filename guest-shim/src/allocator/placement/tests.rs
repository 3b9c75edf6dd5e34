// SPDX-License-Identifier: MIT OR Apache-2.0

use proptest::prelude::*;

use super::*;
use crate::allocator::start::Side;
use crate::tests::cases;

const BASE: u64 = 0x4020_0000;

fn place(origin: u64, length: usize, constraints: Constraints) -> Result<Placement, MapError> {
    let window = Window::new(BASE, 8 * CHUNK_BYTES).unwrap();
    Placement::new(&window, origin, length, &constraints)
}

fn mask(min_align_mask: u64) -> Constraints {
    Constraints {
        min_align_mask,
        ..Constraints::NONE
    }
}

fn slot(placement: Placement) -> (u32, u64, u8) {
    let Room::Slot(class) = placement.room else {
        panic!("{placement:?}")
    };
    (class.class().size, placement.offset, placement.shift)
}

#[test]
fn slots_keep_low_bits_by_an_offset() {
    assert_eq!(
        slot(place(0x1234_5e17, 400, Constraints::NONE).unwrap()),
        (448, 0, 0)
    );
    let window = Window::new(BASE, CHUNK_BYTES).unwrap();
    assert!(is_plain(&window, &Constraints::NONE) && !is_plain(&window, &mask(1)));
    assert_eq!(
        slot(place(0x1234_5e17, 400, mask(7)).unwrap()),
        (448, 0x17, 6)
    );
    assert_eq!(
        slot(place(0x1234_5e17, 400, mask(511)).unwrap()),
        (512, 0x17, 9)
    );
    assert_eq!(
        slot(place(0x1234_5e17, 400, mask(4095)).unwrap()),
        (4096, 0xe17, 12)
    );
    assert_eq!(
        slot(place(0x1234_5e17, 500, mask(4095)).unwrap()),
        (8192, 0xe17, 12)
    );
    assert_eq!(
        slot(place(0x1234_5000, 4096, mask(4095)).unwrap()),
        (4096, 0, 12)
    );
    assert_eq!(
        slot(place(0x1234_5e17, 400, Constraints::aligned(1024)).unwrap()),
        (4096, 0, 0)
    );
}

#[test]
fn extents_keep_low_bits_by_where_they_begin() {
    let Placement {
        room,
        offset,
        shift,
        ..
    } = place(0x1234_5e17, 20000, mask(0xffff)).unwrap();
    let start = Start {
        phase: 11,
        ..Start::multiple_of(32)
    };
    assert_eq!(
        (room, offset, shift),
        (Room::Extent { units: 11, start }, 0x617, 11)
    );
    let both = Constraints {
        min_align_mask: 0xffff,
        ..Constraints::aligned(8192)
    };
    let Placement { room, offset, .. } = place(0x1234_5e17, 20000, both).unwrap();
    let start = Start {
        phase: 8,
        ..Start::multiple_of(32)
    };
    assert_eq!((room, offset), (Room::Extent { units: 16, start }, 0x1e17));
    // The window begins at an odd chunk: a multiple of 4 MiB is one chunk into it.
    let placement = place(0, 1, Constraints::aligned(4 << 20)).unwrap();
    let start = Start {
        phase: 1024,
        ..Start::multiple_of(2048)
    };
    assert_eq!(placement.room, Room::Extent { units: 2048, start });
    assert_eq!(placement.growth_bytes(), 6 << 20);
}

fn within(boundary: u64) -> Constraints {
    Constraints {
        boundary,
        ..Constraints::NONE
    }
}

#[test]
fn a_boundary_in_the_window_asks_for_room_that_cannot_cross_it() {
    // The window lies within 1 GiB: no constraint.
    assert_eq!(slot(place(0, 700, within(1 << 30)).unwrap()), (704, 0, 0));
    assert_eq!(slot(place(0, 700, within(4096)).unwrap()), (1024, 0, 0));
    assert_eq!(place(0, 700, within(4096)).unwrap().slot_alignment, 10);
    let both = Constraints {
        min_align_mask: 511,
        ..within(4096)
    };
    assert_eq!(slot(place(0x1fe, 700, both).unwrap()), (2048, 0x1fe, 9));
    let extent = |origin, length, constraints| {
        let Placement { room, offset, .. } = place(origin, length, constraints).unwrap();
        let Room::Extent { units, start } = room else {
            panic!("{room:?}")
        };
        (units, start.mask, start.phase, offset)
    };
    assert_eq!(extent(0, 5000, within(65536)), (3, 0, 0, 0));
    let both = Constraints {
        min_align_mask: 4095,
        ..within(65536)
    };
    assert_eq!(extent(0xe17, 5000, both), (4, 1, 1, 0x617));
    // Low bits beyond the boundary say all.
    let both = Constraints {
        min_align_mask: 0xffff,
        ..within(4096)
    };
    assert_eq!(extent(0xe000, 4096, both), (2, 31, 28, 0));
    assert_eq!(place(0xe001, 4096, both), Err(MapError::OutOfReach));
    assert_eq!(place(0, 4097, within(4096)), Err(MapError::OutOfReach));
}

/// Windows of up to 32 chunks with multiples of boundaries wherever, and requests in them.
fn requests() -> impl Strategy<Value = (Window, u64, usize, Constraints)> {
    let window = (1_u64..33, 0_u64..64, 30_u32..52);
    let length = prop_oneof![1_usize..20_000, 1_usize..(32 << 20)];
    let powers = (0_u32..24, 0_u32..24, 12_u32..52);
    (window, any::<u64>(), length, powers).prop_map(
        |((chunks, below, log2), origin, length, (mask, alignment, boundary))| {
            let base = (1 << log2) - below.min((1 << log2 >> 21) - 1) * CHUNK_BYTES;
            let constraints = Constraints {
                min_align_mask: (1 << mask) - 1,
                alignment: 1 << alignment,
                boundary: 1 << boundary,
                ..Constraints::NONE
            };
            let window = Window::new(base, chunks * CHUNK_BYTES).unwrap();
            (window, origin, length, constraints)
        },
    )
}

proptest! {
    #![proptest_config(cases(2000))]
    #[test]
    fn an_extent_begins_wherever_the_constraints_hold((window, origin, length, constraints) in requests()) {
        let Ok(placement) = Placement::new(&window, origin, length, &constraints) else {
            return Ok(());
        };
        let Room::Extent { units, start } = placement.room else {
            return Ok(());
        };
        let Constraints { min_align_mask: mask, alignment, boundary, .. } = constraints;
        let step = if cfg!(miri) { 37 } else { 1 };
        for unit in (0..=unit_of(window.bytes()) - units).step_by(step) {
            let room = window.base() + unit_offset(unit);
            let first = room + placement.offset;
            let last = first + placement.length - 1;
            let holds = room.is_multiple_of(alignment)
                && (first ^ origin) & mask == 0
                && first / boundary == last / boundary;
            prop_assert_eq!(start.allows(unit), holds, "unit {}: {:#x} to {:#x}", unit, first, last);
        }
        prop_assert!(placement.offset + placement.length <= unit_offset(units));
    }

    #[test]
    fn what_the_pool_grows_by_has_room((window, origin, length, constraints) in requests()) {
        let Ok(placement) = Placement::new(&window, origin, length, &constraints) else {
            return Ok(());
        };
        let grown = placement.growth_bytes();
        let Room::Extent { units, start } = placement.room else {
            prop_assert_eq!(grown, CHUNK_BYTES);
            return Ok(());
        };
        let Constraints { boundary, .. } = constraints;
        let chunks = |bytes: u64| unit_of(bytes) / UNITS_PER_CHUNK;
        let fits = |first: u32, bytes: u64| {
            start.fit(first * UNITS_PER_CHUNK, unit_of(bytes), units, Side::Low).is_some()
        };
        for first in 0..=chunks(window.bytes()).saturating_sub(chunks(grown)) {
            prop_assert!(fits(first, grown), "{} bytes from chunk {}: {:?}", grown, first, placement);
        }
        // Nor is it more than needs be: of a chunk less there are runs without room in an endless window of the kind.
        let less = grown - CHUNK_BYTES;
        let period = 2 * boundary.max(unit_offset(start.mask) + UNIT_BYTES) / CHUNK_BYTES + 2;
        if less > 0 && !window.lies_within(boundary) && period < 5000 {
            prop_assert!(!(0..unit_of(period * UNIT_BYTES)).all(|first| fits(first, less)), "{:?}", placement);
        }
    }
}

#[test]
fn requests_that_no_growth_cures_name_their_cause() {
    let limit = |highest_address| Constraints {
        highest_address,
        ..Constraints::NONE
    };
    let cases = [
        (0, Constraints::NONE, MapError::InvalidRequest),
        (1, Constraints::aligned(0), MapError::InvalidRequest),
        (1, Constraints::aligned(48), MapError::InvalidRequest),
        (1, mask(0xff0), MapError::InvalidRequest),
        (8 * (2 << 20) + 1, Constraints::NONE, MapError::TooLarge),
        (usize::MAX, Constraints::NONE, MapError::TooLarge),
        (1, Constraints::aligned(1 << 40), MapError::OutOfReach),
        (1, mask(u64::MAX), MapError::OutOfReach),
        (2, limit(BASE), MapError::OutOfReach),
        (1, limit(BASE - 1), MapError::OutOfReach),
        (1, within(3), MapError::InvalidRequest),
        (1, within(3 << 40), MapError::InvalidRequest),
        (65, within(64), MapError::OutOfReach),
    ];
    for (length, constraints, cause) in cases {
        assert_eq!(
            place(0, length, constraints),
            Err(cause),
            "{length} {constraints:?}"
        );
    }
    assert_eq!(place(0, 1, limit(BASE)).unwrap().end_limit, Some(1));
    assert_eq!(
        place(0, 1, limit(BASE + 8 * CHUNK_BYTES - 1))
            .unwrap()
            .end_limit,
        None
    );
}
