// SPDX-License-Identifier: MIT OR Apache-2.0
//! Everything a driver can get wrong: an error that says what, and nothing changed.

use guest_shim::{
    CHUNK_BYTES, Constraints, CopyIn, Direction, MapError, Mapping, Statistics, UnmapError,
};

use super::mapping::ENDED;
use super::run::Engine;
use crate::driver_buffer::DriverBuffer;
use crate::machine::take_copies;
use crate::operation::Misuse;
use crate::window::BASE;

use UnmapError::{
    AlreadyUnmapped, OutOfRange, StaleHandle, UnknownAddress, WrongDirection, WrongLength,
};

impl Engine<'_> {
    pub(super) fn misuse(&self, which: usize, misuse: Misuse, variant: usize) {
        let before = self.pool.statistics();
        match misuse {
            Misuse::Stale => {
                if let Some(mapping) = self.dead.get(which % self.dead.len().max(1)) {
                    self.refuses(mapping, variant, &ENDED);
                }
            }
            Misuse::Length
            | Misuse::Direction
            | Misuse::Generation
            | Misuse::Address
            | Misuse::Range => {
                if let Some(mapping) = self.live_mapping(which) {
                    self.misuse_handle(mapping, misuse, variant);
                }
            }
            Misuse::Kind => self.misuse_kind(which, variant),
            Misuse::Nowhere => self.misuse_nowhere(which, variant),
            Misuse::Request => self.misuse_request(variant),
            Misuse::Reserved => self.misuse_reservation(which, variant),
        }
        let unchanged = Statistics {
            failures: before.failures,
            failures_by_cause: before.failures_by_cause,
            ..self.pool.statistics()
        };
        assert_eq!(unchanged, before, "misuse has changed something");
        assert_eq!(take_copies(), [], "copies of something that was refused");
    }

    fn live_mapping(&self, which: usize) -> Option<Mapping> {
        let key = self.live.pick(which, |item| item.mapping().is_some())?;
        Some(self.live.get(key)?.mapping()?.mapping)
    }

    /// One of the operations by handle.
    fn refuses(&self, mapping: &Mapping, variant: usize, allowed: &[UnmapError]) {
        let result = match variant % 4 {
            0 => self.pool.unmap(*mapping),
            1 => self.pool.unmap_written(*mapping, 0),
            2 => self.pool.sync_for_cpu(mapping, 0, 1.min(mapping.length())),
            _ => self.pool.sync_for_device(mapping, 0, 0),
        };
        check(result, allowed, mapping);
    }

    fn misuse_handle(&self, mapping: Mapping, misuse: Misuse, variant: usize) {
        let (address, length) = (mapping.address(), mapping.length());
        let (direction, generation) = (mapping.direction(), mapping.generation());
        let other = variant / 4;
        match misuse {
            Misuse::Length => {
                let lengths = [
                    length + 1,
                    length - 1,
                    0,
                    length * 2,
                    u64::MAX,
                    length + (1 << 14),
                    length + (1 << 38),
                ];
                let wrong = lengths[other % lengths.len()];
                let forged = Mapping::from_parts(address, wrong, direction, generation);
                self.refuses(&forged, variant, &[WrongLength]);
                check(
                    self.pool.unmap_address(address, wrong, direction),
                    &[WrongLength],
                    &forged,
                );
            }
            Misuse::Direction => {
                let all = [
                    Direction::ToDevice,
                    Direction::FromDevice,
                    Direction::Bidirectional,
                ];
                for wrong in all.into_iter().filter(|wrong| *wrong != direction) {
                    let forged = Mapping::from_parts(address, length, wrong, generation);
                    self.refuses(&forged, variant, &[WrongDirection]);
                    let result = self.pool.unmap_address_written(address, length, wrong, 0);
                    check(result, &[WrongDirection], &forged);
                }
            }
            Misuse::Generation => {
                let wrong = [
                    generation.wrapping_add(1),
                    generation.wrapping_sub(1),
                    u64::MAX,
                    generation ^ 1 << 45,
                    generation ^ 1 << 63,
                ];
                let wrong = wrong[other % wrong.len()];
                let forged = Mapping::from_parts(address, length, direction, wrong);
                self.refuses(&forged, variant, &[StaleHandle]);
            }
            Misuse::Address => {
                if length < 2 {
                    return;
                }
                let inside = address + 1 + (other as u64 * 61) % (length - 1);
                let allowed = [UnknownAddress, AlreadyUnmapped, StaleHandle];
                let forged = Mapping::from_parts(inside, length, direction, generation);
                self.refuses(&forged, variant, &allowed);
                let result = self.pool.unmap_address(inside, length, direction);
                check(result, &allowed, &forged);
            }
            _ => {
                let results = [
                    self.pool.unmap_written(mapping, length + 1 + other as u64),
                    self.pool.unmap_written(mapping, u64::MAX - other as u64),
                    self.pool
                        .unmap_address_written(address, length, direction, length + 1),
                    self.pool.sync_for_cpu(&mapping, other as u64, length + 1),
                    self.pool
                        .sync_for_device(&mapping, length + 1 + other as u64, 0),
                    self.pool.sync_for_cpu(&mapping, u64::MAX, 2),
                    self.pool.sync_for_device(&mapping, 1, u64::MAX),
                    self.pool
                        .sync_address_for_cpu(address + length - 1, 2 + other as u64),
                    self.pool.sync_address_for_device(address, length + 1),
                    self.pool.sync_address_for_cpu(address, u64::MAX),
                ];
                for result in results {
                    check(result, &[OutOfRange], &mapping);
                }
            }
        }
    }

    /// A shared buffer is no mapping, and a mapping is no shared buffer.
    fn misuse_kind(&self, which: usize, variant: usize) {
        if let Some(mapping) = self.live_mapping(which) {
            let result = self.free_address(mapping.address(), mapping.length() as usize);
            check(result, &[WrongDirection], &mapping);
        }
        if let Some(key) = self.live.pick(which, |item| item.shared().is_some()) {
            let item = self.live.get(key).expect("picked");
            let (address, length) = (item.address, item.length as u64);
            let inside = address + variant as u64 % length;
            let results = [
                self.pool
                    .unmap_address(address, length, Direction::Bidirectional),
                self.pool
                    .unmap_address(address, length, Direction::ToDevice),
                self.pool.sync_address_for_cpu(inside, 1),
                self.pool.sync_address_for_device(inside, 0),
            ];
            for result in results {
                check(result, &[WrongDirection, UnknownAddress], &item.extent);
            }
            let wrong = self.free_address(address, item.length + 1);
            check(wrong, &[WrongLength], &item.extent);
        }
    }

    /// Addresses at which nothing is.
    fn misuse_nowhere(&self, which: usize, variant: usize) {
        let window = self.pool.window();
        let end = BASE + window.bytes();
        let inside = BASE + (which as u64 * 0x1_0041) % window.bytes();
        let outside = [
            0,
            1,
            BASE - 1,
            end,
            end + 1,
            u64::MAX,
            u64::MAX - CHUNK_BYTES,
        ];
        for address in outside.into_iter().chain([inside]) {
            if window.offset_of(address).is_some() && !self.live.is_free(address) {
                continue;
            }
            let length = 1 + variant as u64;
            let to = Direction::ToDevice;
            let mapping = Mapping::from_parts(address, length, to, variant as u64 % 3);
            let results = [
                self.pool.unmap(mapping),
                self.pool.unmap_address(address, length, to),
                self.pool.sync_for_device(&mapping, 0, 1),
                self.pool.sync_address_for_cpu(address, 1),
                self.pool.sync_address_for_device(address, length),
                self.free_address(address, length as usize),
            ];
            let mut allowed = vec![UnknownAddress];
            if address == inside {
                // Something was here, or the rest of a slot is.
                allowed.extend([AlreadyUnmapped, StaleHandle, OutOfRange]);
            }
            for result in results {
                check(result, &allowed, &mapping);
            }
        }
    }

    /// Requests that no pool serves.
    fn misuse_request(&self, variant: usize) {
        let buffer = DriverBuffer::new(&[7; 100], 0, variant);
        let empty = DriverBuffer::new(&[], 0, variant);
        let none = Constraints::NONE;
        let mask = |min_align_mask| Constraints {
            min_align_mask,
            ..none
        };
        let highest = |highest_address| Constraints {
            highest_address,
            ..none
        };
        let within = |boundary| Constraints { boundary, ..none };
        let aligned = Constraints::aligned;
        let (to, from) = (Direction::ToDevice, Direction::FromDevice);
        let invalid = MapError::InvalidRequest;
        let cases = [
            (&empty, to, CopyIn::Keep, none, invalid),
            (&empty, from, CopyIn::DeviceWritten, none, invalid),
            (&buffer, to, CopyIn::DeviceWritten, none, invalid),
            (
                &buffer,
                Direction::Bidirectional,
                CopyIn::DeviceWritten,
                none,
                invalid,
            ),
            (&buffer, to, CopyIn::Keep, aligned(0), invalid),
            (
                &buffer,
                to,
                CopyIn::Keep,
                aligned(3 + variant as u64 * 2),
                invalid,
            ),
            (&buffer, to, CopyIn::Keep, aligned(u64::MAX), invalid),
            (&buffer, to, CopyIn::Keep, mask(0xff0), invalid),
            (&buffer, to, CopyIn::Keep, within(0xff), invalid),
            (&buffer, to, CopyIn::Keep, within(3 << 62), invalid),
            (&buffer, to, CopyIn::Keep, within(64), MapError::OutOfReach),
            (&buffer, to, CopyIn::Keep, mask(1 << 63), invalid),
            (
                &buffer,
                to,
                CopyIn::Keep,
                mask(u64::MAX),
                MapError::OutOfReach,
            ),
            (
                &buffer,
                to,
                CopyIn::Keep,
                aligned(1 << 40),
                MapError::OutOfReach,
            ),
            (
                &buffer,
                to,
                CopyIn::Keep,
                aligned(1 << 63),
                MapError::OutOfReach,
            ),
            (
                &buffer,
                to,
                CopyIn::Keep,
                highest(BASE + 98),
                MapError::OutOfReach,
            ),
            (
                &buffer,
                to,
                CopyIn::Keep,
                highest(variant as u64),
                MapError::OutOfReach,
            ),
        ];
        for (buffer, direction, copy_in, constraints, cause) in cases {
            let result = buffer.map(&self.pool, direction, copy_in, &constraints);
            assert_eq!(result, Err(cause), "{constraints:x?}");
        }
        let window = self.pool.window().bytes() as usize;
        for (length, align, cause) in [
            (0, 1, invalid),
            (1, 0, invalid),
            (1, 6, invalid),
            (window + 1, 1, MapError::TooLarge),
            (usize::MAX, 1, MapError::TooLarge),
            (usize::MAX, 1 << 20, MapError::TooLarge),
            (usize::MAX - 4094, 4096, MapError::TooLarge),
        ] {
            let result = self.pool.alloc_shared(length, align);
            assert_eq!(result.err(), Some(cause), "{length} at {align}");
            let result = self.pool.reserve(1, length, align);
            assert_eq!(result.err(), Some(cause), "{length} at {align}");
        }
    }

    /// Requests of another shape than what was reserved.
    fn misuse_reservation(&self, which: usize, variant: usize) {
        let Some(reserved) = self.reserved.get(which % self.reserved.len().max(1)) else {
            return;
        };
        let longest = reserved.reservation.max_length();
        let none = Constraints::NONE;
        let cases = [
            (longest + 1 + variant % 7, none),
            (longest, Constraints::aligned(reserved.align * 2)),
            (
                1,
                Constraints {
                    min_align_mask: reserved.align * 2 - 1,
                    ..none
                },
            ),
            (
                1,
                Constraints {
                    highest_address: BASE + CHUNK_BYTES / 2,
                    ..none
                },
            ),
            (
                1,
                Constraints {
                    boundary: 4096,
                    ..none
                },
            ),
        ];
        for (length, constraints) in cases {
            let buffer = DriverBuffer::new(&vec![9; length], 0, 0);
            let (from, device_written) = (Direction::FromDevice, CopyIn::DeviceWritten);
            let result = buffer.map_reserved(
                &self.pool,
                &reserved.reservation,
                from,
                device_written,
                &constraints,
            );
            assert_eq!(result, Err(MapError::InvalidRequest), "{constraints:x?}");
        }
    }
}

fn check(result: Result<(), UnmapError>, allowed: &[UnmapError], what: &impl std::fmt::Debug) {
    match result {
        Ok(()) => panic!("{what:x?} was taken for what it is not; it should be {allowed:?}"),
        Err(error) => assert!(
            allowed.contains(&error),
            "{what:x?} was refused as {error:?}; it should be {allowed:?}"
        ),
    }
}
