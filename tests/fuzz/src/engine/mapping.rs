// SPDX-License-Identifier: MIT OR Apache-2.0
//! Mappings: map, sync and unmap, and what each of them must have moved.

use guest_shim::{Constraints, CopyIn, Direction, MapError, Mapping, UNIT_BYTES, UnmapError};

use super::checks::expect_copies;
use super::run::Engine;
use crate::driver_buffer::{DriverBuffer, pattern};
use crate::live::{Holder, Item, LiveMapping, Wish};
use crate::machine::{Way, take_copies};
use crate::operation::{LONGEST_COPY, Manner, Shape};
use crate::window::BASE;

/// What may be said of something that has ended: its room may have become part of something else, or of nothing.
pub(super) const ENDED: [UnmapError; 3] = [
    UnmapError::AlreadyUnmapped,
    UnmapError::StaleHandle,
    UnmapError::UnknownAddress,
];

/// Handles of ended mappings that are kept to be used wrongly.
const DEAD: usize = 64;

impl Shape {
    /// The constraints it stands for, for a mapping of this length.
    pub(super) fn constraints(&self, length: usize) -> Constraints {
        Constraints {
            min_align_mask: (1 << self.mask) - 1,
            alignment: 1 << self.align,
            highest_address: match self.reach {
                0 => u64::MAX,
                units => BASE + units * UNIT_BYTES + length as u64 - 2,
            },
            boundary: match self.boundary {
                0 => 0,
                log2 => 1 << log2,
            },
        }
    }

    /// The shape for a length: where copies are dear, long mappings are of the kind that copies nothing.
    pub(super) fn affordable(self, length: usize) -> Self {
        if length <= LONGEST_COPY {
            return self;
        }
        Self {
            direction: Direction::FromDevice,
            copy_in: CopyIn::DeviceWritten,
            ..self
        }
    }

    /// The shape of something anywhere.
    pub(super) const PLAIN: Self = Self {
        direction: Direction::FromDevice,
        copy_in: CopyIn::DeviceWritten,
        mask: 0,
        align: 0,
        reach: 0,
        boundary: 0,
        phase: 0,
    };
}

impl Wish {
    pub(super) fn new(origin: u64, length: usize, constraints: &Constraints) -> Self {
        Self {
            origin,
            length: length as u64,
            mask: constraints.min_align_mask,
            alignment: constraints.alignment,
            highest: constraints.highest_address,
            boundary: constraints.boundary,
        }
    }
}

impl Engine<'_> {
    /// Maps a new buffer.
    pub(super) fn map(&mut self, length: usize, shape: Shape) -> Result<u64, MapError> {
        let shape = shape.affordable(length);
        let buffer = self.new_buffer(length, shape);
        let constraints = shape.constraints(length);
        let wish = Wish::new(buffer.address(), length, &constraints);
        let before = self.before();
        let result = buffer.map(&self.pool, shape.direction, shape.copy_in, &constraints);
        match result {
            Ok(mapping) => {
                self.served(&before, &wish);
                Ok(self.mapped(mapping, buffer, shape, None))
            }
            Err(cause) => {
                self.refused(&before, cause, &wish);
                Err(cause)
            }
        }
    }

    /// Maps until there is no room, as far as that is not too many.
    pub(super) fn fill(&mut self, length: usize) {
        let most = if cfg!(miri) { 12 } else { 2500 };
        for _ in 0..most {
            if self.map(length, Shape::PLAIN).is_err() {
                break;
            }
        }
    }

    pub(super) fn new_buffer(&mut self, length: usize, shape: Shape) -> DriverBuffer {
        let contents = pattern(length, self.draw());
        DriverBuffer::new(&contents, (1 << shape.mask) - 1, shape.phase)
    }

    /// Enters a new mapping, if all about it is right.
    pub(super) fn mapped(
        &mut self,
        mapping: Mapping,
        buffer: DriverBuffer,
        shape: Shape,
        reservation: Option<u64>,
    ) -> u64 {
        let (address, length) = (mapping.address(), buffer.length());
        let constraints = shape.constraints(length);
        let wish = Wish::new(buffer.address(), length, &constraints);
        assert_eq!(
            (mapping.length(), mapping.direction()),
            (length as u64, shape.direction)
        );
        let again = Mapping::from_parts(
            address,
            length as u64,
            shape.direction,
            mapping.generation(),
        );
        assert_eq!(again, mapping);
        let low_bits = |address: u64| address & wish.mask;
        assert_eq!(
            low_bits(address),
            low_bits(wish.origin),
            "low bits of {address:#x}"
        );
        let aligned = wish.mask != 0 || address.is_multiple_of(wish.alignment);
        assert!(
            aligned,
            "{address:#x} is no multiple of {:#x}",
            wish.alignment
        );
        let last = address + length as u64 - 1;
        assert!(last <= wish.highest, "the device does not reach {last:#x}");
        assert!(!wish.crosses(address), "{address:#x} for {wish:x?}");
        let extent = wish.extent_at(address);
        let held = self
            .machine
            .service(|service| service.may_use(extent.start, extent.end - extent.start));
        assert!(held, "{extent:x?} is not granted");

        let private = pattern(length, self.drawn);
        if shape.copy_in == CopyIn::Keep {
            expect_copies(Way::In, address, Some(buffer.address()), length as u64);
            self.machine.memory.expect(address, &private);
            self.counted.bytes_in += length as u64;
        }
        assert_eq!(take_copies(), [], "copies of a map that needs none");
        self.counted.maps += 1;
        let key = extent.start;
        self.live.insert(Item {
            extent,
            address,
            length,
            holder: Holder::Mapping(LiveMapping {
                mapping,
                buffer,
                private,
                copy_in: shape.copy_in,
                reservation,
            }),
        });
        self.check_item(self.live.get(key).expect("just inserted"));
        key
    }

    /// Ends a mapping.
    pub(super) fn unmap(&mut self, key: u64, manner: Manner, written: usize) {
        let mut item = self.live.remove(key).expect("picked among the live ones");
        let (address, length) = (item.address, item.length);
        let Holder::Mapping(live) = &mut item.holder else {
            panic!("picked among the mappings");
        };
        let (mapping, direction) = (live.mapping, live.mapping.direction());
        let written = (written % (length + 1)).min(LONGEST_COPY);
        let (ended, moved) = match manner {
            Manner::Handle => (self.pool.unmap(mapping), None),
            Manner::Address => (
                self.pool.unmap_address(address, length as u64, direction),
                None,
            ),
            Manner::HandleWritten => (
                self.pool.unmap_written(mapping, written as u64),
                Some(written),
            ),
            Manner::AddressWritten => (
                self.pool
                    .unmap_address_written(address, length as u64, direction, written as u64),
                Some(written),
            ),
        };
        assert_eq!(ended, Ok(()), "{manner:?} of {mapping:x?}");
        let all = if live.copy_in == CopyIn::Keep {
            length
        } else {
            0
        };
        let moved = if direction.device_writes() {
            moved.unwrap_or(all)
        } else {
            0
        };
        expect_copies(Way::Out, address, Some(live.buffer.address()), moved as u64);
        let seen = self.machine.memory.expected(address, moved);
        live.private[..moved].copy_from_slice(&seen);
        self.counted.unmaps += 1;
        self.counted.bytes_out += moved as u64;
        if let Some(number) = live.reservation {
            let reserved = self.reserved.iter_mut().find(|it| it.number == number);
            reserved.expect("not cancelled while in use").in_use -= 1;
        }
        self.check_item(&item);
        let again = self.pool.unmap(mapping);
        assert!(
            again.is_err_and(|error| ENDED.contains(&error)),
            "a second unmap of {mapping:x?} was {again:?}"
        );
        if self.dead.len() == DEAD {
            self.dead.remove(0);
        }
        self.dead.push(mapping);
    }

    /// Passes part of a mapping to and fro.
    pub(super) fn sync(
        &mut self,
        which: usize,
        for_device: bool,
        by_address: bool,
        offset: usize,
        length: usize,
    ) {
        let Some(key) = self.live.pick(which, |item| item.mapping().is_some()) else {
            return;
        };
        let item = self.live.get_mut(key).expect("picked");
        let (address, all) = (item.address, item.length);
        let Holder::Mapping(live) = &mut item.holder else {
            panic!("picked among the mappings");
        };
        // An address behind the mapping is not one inside it.
        let offset = offset % if by_address { all } else { all + 1 };
        let length = (length % (all - offset + 1)).min(LONGEST_COPY);
        let (at, bytes) = (offset as u64, length as u64);
        let synced = match (for_device, by_address) {
            (true, false) => self.pool.sync_for_device(&live.mapping, at, bytes),
            (false, false) => self.pool.sync_for_cpu(&live.mapping, at, bytes),
            (true, true) => self.pool.sync_address_for_device(address + at, bytes),
            (false, true) => self.pool.sync_address_for_cpu(address + at, bytes),
        };
        assert_eq!(
            synced,
            Ok(()),
            "of {bytes} at {offset} of {:x?}",
            live.mapping
        );
        self.counted.syncs += 1;
        let direction = live.mapping.direction();
        let private = Some(live.buffer.address() + at);
        if for_device && direction.device_reads() {
            expect_copies(Way::In, address + at, private, bytes);
            let part = &live.private[offset..offset + length];
            self.machine.memory.expect(address + at, part);
        } else if !for_device && direction.device_writes() {
            expect_copies(Way::Out, address + at, private, bytes);
            let seen = self.machine.memory.expected(address + at, length);
            live.private[offset..offset + length].copy_from_slice(&seen);
        }
        assert_eq!(take_copies(), [], "copies of a sync that needs none");
        self.check_item(self.live.get(key).expect("picked"));
    }
}
