// SPDX-License-Identifier: MIT OR Apache-2.0
//! Shared buffers.

use guest_shim::{CHUNK_BYTES, Constraints, UnmapError};

use super::checks::expect_copies;
use super::mapping::ENDED;
use super::run::Engine;
use crate::driver_buffer::pattern;
use crate::live::{Holder, Item, Wish};
use crate::machine::{Way, take_copies};
use crate::operation::LONGEST_COPY;
use crate::window::BASE;

impl Engine<'_> {
    pub(super) fn alloc_shared(&mut self, length: usize, align: u32) {
        let length = length.min(LONGEST_COPY);
        let aligned = Constraints::aligned(1 << align);
        let constraints = match length % 4 {
            1 => Constraints {
                boundary: (length as u64).next_power_of_two().max(64) << (align % 3),
                ..aligned
            },
            2 => Constraints {
                highest_address: BASE + 2 * CHUNK_BYTES - 1,
                ..aligned
            },
            _ => aligned,
        };
        let wish = Wish::new(0, length, &constraints);
        let before = self.before();
        let allocated = if constraints == aligned {
            self.pool.alloc_shared(length, wish.alignment)
        } else {
            self.pool.alloc_shared_within(length, &constraints)
        };
        let buffer = match allocated {
            Ok(buffer) => buffer,
            Err(cause) => return self.refused(&before, cause, &wish),
        };
        self.served(&before, &wish);
        let address = buffer.address();
        assert_eq!(buffer.length(), length);
        let last = address + length as u64 - 1;
        assert!(
            !wish.crosses(address) && last <= wish.highest,
            "{address:#x} for {wish:x?}"
        );
        assert!(
            address.is_multiple_of(wish.alignment),
            "{address:#x} for {wish:x?}"
        );
        let pointer = self.machine.memory.at(address, length as u64);
        assert_eq!(Some(buffer.as_ptr()), pointer);
        expect_copies(Way::In, address, None, length as u64);
        self.machine.memory.expect(address, &vec![0; length]);
        self.counted.shared_buffers += 1;
        let item = Item {
            extent: wish.extent_at(address),
            address,
            length,
            holder: Holder::Shared(buffer),
        };
        self.check_item(&item);
        self.live.insert(item);
    }

    pub(super) fn write_shared(&mut self, which: usize, offset: usize, length: usize, seed: u64) {
        let Some(key) = self.live.pick(which, |item| item.shared().is_some()) else {
            return;
        };
        let item = self.live.get_mut(key).expect("picked");
        let Holder::Shared(buffer) = &mut item.holder else {
            panic!("picked among the shared buffers");
        };
        let offset = offset % (item.length + 1);
        let bytes = pattern(length % (item.length - offset + 1), seed << 16);
        assert_eq!(buffer.write(offset, &bytes), Ok(()));
        let beyond = buffer.write(item.length - offset + 1, &vec![1; offset]);
        assert_eq!(beyond, Err(UnmapError::OutOfRange));
        self.machine
            .memory
            .expect(item.address + offset as u64, &bytes);
        self.check_item(self.live.get(key).expect("picked"));
    }

    pub(super) fn read_shared(&self, which: usize, offset: usize, length: usize) {
        let Some(key) = self.live.pick(which, |item| item.shared().is_some()) else {
            return;
        };
        let item = self.live.get(key).expect("picked");
        let buffer = item.shared().expect("picked among the shared buffers");
        let offset = offset % (item.length + 1);
        let mut bytes = vec![0x3c; length % (item.length - offset + 1)];
        assert_eq!(buffer.read(offset, &mut bytes), Ok(()));
        let expected = self
            .machine
            .memory
            .expected(item.address + offset as u64, bytes.len());
        assert!(bytes == expected, "read at {offset} of {:x?}", item.extent);
        let mut beyond = vec![0; item.length - offset + 1];
        assert_eq!(
            buffer.read(offset, &mut beyond),
            Err(UnmapError::OutOfRange)
        );
        assert_eq!(
            buffer.read(usize::MAX, &mut beyond),
            Err(UnmapError::OutOfRange)
        );
    }

    pub(super) fn free_shared(&mut self, key: u64, by_address: bool) {
        let item = self.live.remove(key).expect("picked");
        let Holder::Shared(buffer) = item.holder else {
            panic!("picked among the shared buffers");
        };
        let freed = if by_address {
            drop(buffer);
            self.free_address(item.address, item.length)
        } else {
            self.pool.free_shared(buffer)
        };
        assert_eq!(freed, Ok(()), "of {:x?}", item.extent);
        self.counted.shared_buffers -= 1;
        assert_eq!(take_copies(), [], "copies at a free");
        let again = self.free_address(item.address, item.length);
        assert!(
            again.is_err_and(|error| ENDED.contains(&error)),
            "a second free of {:x?} was {again:?}",
            item.extent
        );
    }

    pub(super) fn free_address(&self, address: u64, length: usize) -> Result<(), UnmapError> {
        // SAFETY: Called only where no object of the buffer is left, or where the call must be refused.
        unsafe { self.pool.free_shared_address(address, length) }
    }
}
