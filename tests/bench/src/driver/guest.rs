// SPDX-License-Identifier: MIT OR Apache-2.0
//! A guest in this process that uses the shim by its own interface.

use std::ptr::NonNull;

use guest_shim::{Constraints, CopyIn, Direction, Mapping, Pool};

use super::machine::Machine;
use crate::allocators::shim::{Kernel, default_metadata, pool_config};

/// Longest mapping.
const LONGEST: usize = 4 << 20;

/// A pool and a driver's buffer. Both live as long as the program.
#[derive(Debug)]
pub struct Guest {
    /// The pool.
    pub pool: Pool<'static, Kernel>,
    buffer: Vec<u8>,
}

impl Guest {
    /// A guest with a pool that is as large as the machine's.
    ///
    /// # Panics
    /// If the service in this process does not grant it.
    pub fn new(machine: &Machine, flags: u32) -> Self {
        let config = machine.config(flags);
        let metadata = vec![0; default_metadata(&config)].leak();
        let pool = Pool::attach(Kernel::new(&config), metadata, pool_config(&config))
            .expect("the in-process service grants its pool");
        Self {
            pool,
            buffer: vec![0x5a; LONGEST],
        }
    }

    /// The first bytes of the buffer.
    pub fn slice(&self, bytes: usize) -> NonNull<[u8]> {
        NonNull::from(&self.buffer[..bytes])
    }

    /// Maps them for a device that only reads and has no constraints.
    #[inline(always)]
    pub fn try_map(&self, bytes: usize) -> Option<Mapping> {
        self.try_map_with(bytes, &Constraints::NONE)
    }

    /// The same where it must succeed.
    ///
    /// # Panics
    /// If there is no room.
    #[inline(always)]
    pub fn map(&self, bytes: usize) -> Mapping {
        self.try_map(bytes).expect("the pool has room")
    }

    /// Maps them for a device with constraints.
    #[inline(always)]
    pub fn try_map_with(&self, bytes: usize, wish: &Constraints) -> Option<Mapping> {
        let (buffer, direction) = (self.slice(bytes), Direction::ToDevice);
        // SAFETY: The buffer lives as long as the guest, and the device only reads.
        unsafe { self.pool.map(buffer, direction, CopyIn::Keep, wish) }.ok()
    }

    /// Ends a mapping.
    ///
    /// # Panics
    /// If it is not live.
    #[inline(always)]
    pub fn unmap(&self, mapping: Mapping) {
        self.pool.unmap(mapping).expect("the mapping is live");
    }
}
