// SPDX-License-Identifier: MIT OR Apache-2.0
//! What drivers and devices do between the calls of the shim.

use std::sync::atomic::Ordering;

use super::run::Engine;
use crate::driver_buffer::pattern;
use crate::live::Holder;

impl Engine<'_> {
    /// A driver writes new contents to its buffer.
    pub(super) fn driver_writes(&mut self, which: usize, seed: u64) {
        let Some(key) = self.live.pick(which, |item| item.mapping().is_some()) else {
            return;
        };
        let item = self.live.get_mut(key).expect("picked");
        if let Holder::Mapping(live) = &mut item.holder {
            live.private = pattern(item.length, seed);
            live.buffer.write(0, &live.private);
        }
    }

    /// A device writes to all of a mapping or shared buffer, whatever its direction.
    pub(super) fn device_writes(&self, which: usize, seed: u64) {
        if let Some(key) = self.live.pick(which, |_| true) {
            let item = self.live.get(key).expect("picked");
            let bytes = pattern(item.length, seed << 32);
            self.machine.memory.write(item.address, &bytes);
        }
    }

    /// From now on a device writes while the shim copies; or no longer.
    pub(super) fn attack(&self, seed: u64) {
        self.machine.attack.store(seed, Ordering::Relaxed);
    }
}
