// SPDX-License-Identifier: MIT OR Apache-2.0

use super::*;

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
        mask: 31,
        phase: 11,
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
    let start = Start { mask: 31, phase: 8 };
    assert_eq!((room, offset), (Room::Extent { units: 16, start }, 0x1e17));
    // The window begins at an odd chunk: a multiple of 4 MiB is one chunk into it.
    let placement = place(0, 1, Constraints::aligned(4 << 20)).unwrap();
    let start = Start {
        mask: 2047,
        phase: 1024,
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
    assert_eq!(extent(0, 5000, within(65536)), (3, 3, 0, 0));
    let both = Constraints {
        min_align_mask: 4095,
        ..within(65536)
    };
    assert_eq!(extent(0xe17, 5000, both), (4, 7, 1, 0x617));
    // Low bits beyond the boundary say all.
    let both = Constraints {
        min_align_mask: 0xffff,
        ..within(4096)
    };
    assert_eq!(extent(0xe000, 4096, both), (2, 31, 28, 0));
    assert_eq!(place(0xe001, 4096, both), Err(MapError::OutOfReach));
    assert_eq!(place(0, 4097, within(4096)), Err(MapError::OutOfReach));
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
