// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where the pool windows and the service's storage go, and the boot-time half of invariant W1.
//!
//! The window is the top of the highest range of RAM that is large enough, or of those below 4 GiB if the
//! image wants it there; the storage lies right below it. The low window, if the image wants one, is the top of the highest range
//! below 4 GiB, and below the window, of what is left. A violation never moves a window elsewhere: it ends the boot with its reason, because a VMM
//! that hands over such a map is broken or hostile.

use crate::layout::{HANDOVER_END, IMAGE_BASE, LARGE_PAGE_BYTES, LAUNCH_VMSA, PAGE_BYTES};
use crate::range_list::PhysRange;
use crate::termination::Reason;

/// Video memory, option ROMs and BIOS. A VMM may call it RAM (QEMU does): then it is accepted like
/// all RAM, because a kernel reads it, but it is never called usable.
pub const LEGACY_RANGE: PhysRange = PhysRange {
    start: 0xa_0000,
    end: 0x10_0000,
};

/// Ranges in which a PC has ROM or devices whatever its memory map says: the legacy range, and
/// interrupt controllers and flash below 4 GiB.
const DEVICE_RANGES: [PhysRange; 2] = [
    LEGACY_RANGE,
    PhysRange {
        start: 0xfec0_0000,
        end: 0x1_0000_0000,
    },
];

/// The paravisor's region and the hand-over area behind it.
pub const OWN_REGION: PhysRange = PhysRange {
    start: IMAGE_BASE,
    end: HANDOVER_END,
};

/// Where addresses of 32 bits end.
pub const LOW_END: u64 = 1 << 32;

/// The windows that an image wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WindowWish {
    /// Bytes of the window.
    pub bytes: u64,
    /// Where it ends at the latest.
    pub limit: u64,
    /// Bytes of the low window; 0 for none.
    pub low_bytes: u64,
}

/// What boot carves out of RAM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placement {
    /// The pool windows by their numbers, the low one second and empty if there is none: never validated, never mapped.
    pub windows: [PhysRange; 2],
    /// The service's state; 2 MiB aligned at both ends, so that no large page is shared with the
    /// guest.
    pub storage: PhysRange,
}

impl Placement {
    /// The window, number 0.
    #[must_use]
    pub const fn window(&self) -> PhysRange {
        let [window, _] = self.windows;
        window
    }

    /// The low window, number 1; `None` if there is none.
    #[must_use]
    pub fn low_window(&self) -> Option<PhysRange> {
        let [_, low] = self.windows;
        Some(low).filter(|low| !low.is_empty())
    }

    /// Whether `needs`, the memory that a payload needs to start, lies in one range of RAM and is not
    /// ours. Builder, runner and image decide by this one function.
    ///
    /// # Errors
    /// [`Reason::PayloadNoRoom`].
    pub fn check_payload(
        &self,
        ram: impl Iterator<Item = PhysRange>,
        needs: &PhysRange,
    ) -> Result<(), Reason> {
        let ours = [self.storage, OWN_REGION];
        let free = needs.is_empty()
            || is_in(ram, needs)
                && !ours
                    .iter()
                    .chain(&self.windows)
                    .chain(&DEVICE_RANGES)
                    .any(|one| one.overlaps(needs));
        if free {
            Ok(())
        } else {
            Err(Reason::PayloadNoRoom)
        }
    }
}

/// Chooses windows and storage.
///
/// `ram` is the RAM of the checked memory map, `launch` the launch ranges, sorted.
///
/// # Errors
/// A reason per rule of invariant W1 that the memory map breaks.
pub fn place(
    ram: impl Iterator<Item = PhysRange> + Clone,
    launch: &[PhysRange],
    wish: WindowWish,
    storage_bytes: u64,
) -> Result<Placement, Reason> {
    let is_ram = |range: &PhysRange| is_in(ram.clone(), range);
    if !is_ram(&OWN_REGION) {
        return Err(Reason::ImageOutsideRam);
    }
    if !launch.iter().all(is_ram) {
        return Err(Reason::LaunchOutsideRam);
    }
    let nothing = PhysRange::default();
    let (entry, window) = highest(ram.clone(), &nothing, wish.bytes, wish.limit)?;
    check_window(&window, launch)?;

    let below = PhysRange {
        start: entry.start,
        end: window.start,
    };
    let storage = top_of(&below, storage_bytes.next_multiple_of(LARGE_PAGE_BYTES))
        .filter(|storage| is_free(storage, launch))
        .ok_or(Reason::StorageNoRoom)?;
    let mut low = nothing;
    if wish.low_bytes != 0 {
        let taken = PhysRange {
            start: storage.start,
            end: window.end,
        };
        // Above the window it would serve nobody: who reaches it reaches the window.
        let limit = LOW_END.min(window.start);
        (_, low) = highest(ram, &taken, wish.low_bytes, limit)?;
        check_window(&low, launch)?;
    }
    Ok(Placement {
        windows: [window, low],
        storage,
    })
}

/// Whether one range of RAM holds all of `range`.
// Once in the image: what walks over RAM is long.
#[inline(never)]
fn is_in(mut ram: impl Iterator<Item = PhysRange>, range: &PhysRange) -> bool {
    ram.any(|entry| entry.contains(range))
}

/// The highest range of RAM that ends at `limit` at the latest and has room for `bytes`, and its top; of the range in which
/// `taken` lies, what is below.
#[inline(never)]
fn highest(
    ram: impl Iterator<Item = PhysRange>,
    taken: &PhysRange,
    bytes: u64,
    limit: u64,
) -> Result<(PhysRange, PhysRange), Reason> {
    let mut found = Err(Reason::WindowNoRoom);
    for mut entry in ram {
        if entry.overlaps(taken) {
            entry.end = taken.start;
        }
        if let Some(top) = top_of(&entry, bytes)
            && entry.end <= limit
        {
            found = Ok((entry, top));
        }
    }
    found
}

/// The last `bytes` bytes of `entry` that begin and end at a multiple of 2 MiB.
fn top_of(entry: &PhysRange, bytes: u64) -> Option<PhysRange> {
    let end = entry.end - entry.end % LARGE_PAGE_BYTES;
    let start = end.checked_sub(bytes)?;
    (start >= entry.start).then_some(PhysRange { start, end })
}

/// Whether nothing of the launch and no device is in `range`.
fn is_free(range: &PhysRange, launch: &[PhysRange]) -> bool {
    !launch
        .iter()
        .chain(&DEVICE_RANGES)
        .chain([&OWN_REGION])
        .any(|other| other.overlaps(range))
}

/// The rules for the window itself. The guest's boot VMSA is a page of the image and so excluded
/// with it.
#[inline(never)]
fn check_window(window: &PhysRange, launch: &[PhysRange]) -> Result<(), Reason> {
    let vmsa = PhysRange {
        start: LAUNCH_VMSA,
        end: LAUNCH_VMSA + PAGE_BYTES,
    };
    if launch
        .iter()
        .chain([&OWN_REGION])
        .any(|range| range.overlaps(window))
    {
        return Err(Reason::WindowOverLaunch);
    }
    if vmsa.overlaps(window) {
        return Err(Reason::WindowOverVmsa);
    }
    if DEVICE_RANGES.iter().any(|range| range.overlaps(window)) {
        return Err(Reason::WindowOverHole);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{
        LAUNCH_VMSA, LOW_END, OWN_REGION, PhysRange, Placement, Reason, WindowWish, place,
    };

    const MIB: u64 = 1 << 20;

    const fn mib(start: u64, end: u64) -> PhysRange {
        PhysRange {
            start: start * MIB,
            end: end * MIB,
        }
    }

    const LOW: PhysRange = mib(1, 512);
    /// One window, wherever it finds room.
    const fn anywhere(bytes: u64) -> WindowWish {
        WindowWish {
            bytes,
            limit: u64::MAX,
            low_bytes: 0,
        }
    }
    const PAYLOAD: PhysRange = mib(16, 18);

    #[test]
    fn window_is_the_top_of_the_highest_range_that_holds_it() {
        let ram = [LOW, mib(4096, 4097 + 256), mib(8192, 8200)];
        let placed = place(ram.into_iter(), &[PAYLOAD], anywhere(128 * MIB), 5000).unwrap();
        let want = Placement {
            windows: [mib(4224, 4352), PhysRange::default()],
            storage: mib(4222, 4224),
        };
        assert_eq!(placed, want);
    }

    #[test]
    fn a_low_window_is_the_top_of_the_highest_range_below_the_limit() {
        let ram = [LOW, mib(1024, 2048), mib(4096, 8192)];
        let placed = |ram: &[PhysRange], bytes| {
            let wish = WindowWish {
                limit: LOW_END,
                ..anywhere(bytes)
            };
            place(ram.iter().copied(), &[PAYLOAD], wish, 5000)
        };
        assert_eq!(placed(&ram, 128 * MIB).unwrap().window(), mib(1920, 2048));
        assert_eq!(placed(&ram, 1024 * MIB), Err(Reason::StorageNoRoom));
        assert_eq!(placed(&ram, 1026 * MIB), Err(Reason::WindowNoRoom));
        assert_eq!(
            placed(&[LOW, ram[2]], 128 * MIB).unwrap().window(),
            mib(384, 512)
        );
    }

    #[test]
    fn a_second_window_lies_below_4_gib_and_changes_nothing_above() {
        let placed = |ram: &[PhysRange], low: u64| {
            let wish = WindowWish {
                low_bytes: low * MIB,
                ..anywhere(128 * MIB)
            };
            place(ram.iter().copied(), &[PAYLOAD], wish, 5000)
        };
        let ram = [LOW, mib(1024, 2048), mib(4096, 8192)];
        let one = placed(&ram, 0).unwrap();
        assert_eq!(one.low_window(), None);
        let two = placed(&ram, 64).unwrap();
        assert_eq!((two.window(), two.storage), (one.window(), one.storage));
        assert_eq!(two.low_window(), Some(mib(1984, 2048)));
        // The highest range where there is room; none of it where there is none.
        let smaller = [LOW, mib(1024, 1084), mib(4096, 8192)];
        assert_eq!(
            placed(&smaller, 64).unwrap().low_window(),
            Some(mib(448, 512))
        );
        assert_eq!(placed(&ram, 1026), Err(Reason::WindowNoRoom));
        assert_eq!(
            placed(&[LOW, mib(3072, 8192)], 512),
            Err(Reason::WindowNoRoom),
            "a range that goes on above 4 GiB"
        );
        assert_eq!(placed(&[LOW, ram[2]], 496), Err(Reason::WindowOverLaunch));
        let devices = [LOW, mib(4064, 4096), ram[2]];
        assert_eq!(placed(&devices, 22), Err(Reason::WindowOverHole));
        // With all RAM below 4 GiB it lies under storage and window.
        let all_low = placed(&[LOW], 64).unwrap();
        assert_eq!(all_low.window(), mib(384, 512));
        assert_eq!(all_low.storage, mib(382, 384));
        assert_eq!(all_low.low_window(), Some(mib(318, 382)));
        // A range above the window has no room for it, and the low window no business there.
        let above = placed(&[LOW, mib(1024, 1084)], 32).unwrap();
        assert_eq!(above.windows, [mib(384, 512), mib(350, 382)]);
        let check = |needs| all_low.check_payload([LOW].into_iter(), &needs).is_ok();
        assert!(check(mib(16, 318)));
        assert!(!check(mib(16, 319)));
    }

    #[test]
    fn a_broken_map_names_the_rule() {
        let reason = |ram: &[PhysRange], launch: &[PhysRange], window, storage| {
            place(ram.iter().copied(), launch, anywhere(window), storage).unwrap_err()
        };
        assert_eq!(
            reason(&[mib(5, 512)], &[], 2 * MIB, 1),
            Reason::ImageOutsideRam
        );
        assert_eq!(
            reason(&[LOW], &[mib(511, 513)], 2 * MIB, 1),
            Reason::LaunchOutsideRam
        );
        assert_eq!(
            reason(&[LOW], &[PAYLOAD], 512 * MIB, 1),
            Reason::WindowNoRoom
        );
        assert_eq!(
            reason(&[LOW], &[PAYLOAD], 496 * MIB, 1),
            Reason::WindowOverLaunch
        );
        assert_eq!(reason(&[LOW], &[], 508 * MIB, 1), Reason::WindowOverLaunch);
        assert_eq!(
            reason(&[LOW], &[PAYLOAD], 494 * MIB, 3 * MIB),
            Reason::StorageNoRoom
        );
        assert_eq!(
            reason(&[mib(4, 32)], &[], 22 * MIB, 3 * MIB),
            Reason::StorageNoRoom
        );
        assert_eq!(
            reason(&[LOW, mib(4064, 4096)], &[], 22 * MIB, 1),
            Reason::WindowOverHole
        );
        let vmsa = PhysRange {
            start: LAUNCH_VMSA - 31 * MIB,
            end: LAUNCH_VMSA + 2 * MIB,
        };
        assert_eq!(
            reason(&[LOW, vmsa], &[], 22 * MIB, 1),
            Reason::WindowOverVmsa
        );
    }

    #[test]
    fn a_payload_needs_ram_that_is_not_ours() {
        let ram = [LOW, mib(4096, 4352)];
        let high = place(ram.into_iter(), &[PAYLOAD], anywhere(128 * MIB), 1).unwrap();
        let check = |needs| high.check_payload(ram.into_iter(), &needs).is_ok();
        assert!(check(mib(16, 512)));
        assert!(check(mib(16, 16)), "nothing");
        assert!(!check(mib(16, 513)), "beyond RAM");
        assert!(!check(mib(8, 32)), "the hand-over area");
        assert!(!check(mib(4096, 4223)), "storage");
        let low = place([LOW].into_iter(), &[PAYLOAD], anywhere(128 * MIB), 1).unwrap();
        let check = |needs| low.check_payload([LOW].into_iter(), &needs).is_ok();
        assert!(check(mib(16, 382)));
        assert!(!check(mib(16, 383)), "storage");
        assert!(!check(mib(400, 401)), "window");
    }

    #[test]
    fn storage_never_shares_a_large_page() {
        let placed = place(
            [mib(4, 512)].into_iter(),
            &[OWN_REGION],
            anywhere(2 * MIB),
            2 * MIB + 1,
        )
        .unwrap();
        assert_eq!(placed.storage, mib(506, 510));
    }
}
