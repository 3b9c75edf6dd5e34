// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a mapping asks for: direction, copy-in and where in the window it may lie.

/// Who writes the buffer while the device owns it; the names are those of Linux's DMA API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// The device only reads.
    ToDevice,
    /// The device only writes.
    FromDevice,
    /// Both.
    Bidirectional,
}

impl Direction {
    /// Whether the device's view is filled from the buffer when ownership passes to the device.
    pub const fn device_reads(self) -> bool {
        matches!(self, Self::ToDevice | Self::Bidirectional)
    }

    /// Whether the buffer is filled from the device's view when ownership comes back.
    pub const fn device_writes(self) -> bool {
        matches!(self, Self::FromDevice | Self::Bidirectional)
    }
}

/// What a [`Direction::FromDevice`] mapping holds before the device writes to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum CopyIn {
    /// The buffer's old contents, so that bytes the device leaves alone come back unchanged, as drivers written for
    /// Linux expect. **This discloses the old contents to the host.** The only choice where the device reads.
    #[default]
    Keep,
    /// Whatever the pool held before (the host has seen it). Nothing is copied in, and only
    /// [`unmap_written`](crate::Pool::unmap_written) and [`sync_for_cpu`](crate::Pool::sync_for_cpu) copy out, for the
    /// bytes the driver knows the device has written.
    DeviceWritten,
}

/// Where a mapping may lie; all of it holds together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Constraints {
    /// These low bits of the device address equal those of the buffer's address: 0, or a power of two minus 1
    /// (Linux `min_align_mask`; 4095 for NVMe).
    pub min_align_mask: u64,
    /// Power of two. The pool bytes set aside for the mapping begin and end at a multiple of it, so that nothing else
    /// shares such a unit (Linux `alloc_align_mask` plus 1). Without a `min_align_mask` the device address itself is a
    /// multiple.
    pub alignment: u64,
    /// Highest address the device can reach; the mapping's last byte is at most there.
    pub highest_address: u64,
    /// Power of two, or 0 for none. The mapping does not cross a multiple of it (Linux `dma_get_seg_boundary` plus 1).
    ///
    /// Where the window itself crosses one, pool bytes of up to a page are a slot whose length is a power of two. Longer ones
    /// begin wherever the mapping crosses none; only the mapping itself counts, not what its room is rounded up to.
    pub boundary: u64,
}

impl Constraints {
    /// Anywhere.
    pub const NONE: Self = Self {
        min_align_mask: 0,
        alignment: 1,
        highest_address: u64::MAX,
        boundary: 0,
    };

    /// A device address that is a multiple of `alignment`.
    pub const fn aligned(alignment: u64) -> Self {
        Self {
            alignment,
            ..Self::NONE
        }
    }
}

impl Default for Constraints {
    fn default() -> Self {
        Self::NONE
    }
}
