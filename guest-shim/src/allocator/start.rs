// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where in a block a run of units may begin.

/// Which end of a block is handed out. Slabs from one side and extents from the other keep apart what lives long in
/// many small pieces and what has to find room in one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Low,
    High,
}

/// Where a run of units may begin: at units that equal `phase` under `mask`, which is a power of two less 1, unless the
/// run would cross a boundary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Start {
    pub mask: u32,
    pub phase: u32,
    pub boundary: Boundary,
}

/// The multiples of a power of two of units that a run must not cross. Only the run's first units count, as many as the device
/// asked for: what rounding adds behind them may lie across a boundary. The power of two is a multiple of the stride in which
/// runs may begin, and a run that begins at the first start behind a boundary never reaches the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Boundary {
    /// The power of two, less 1.
    mask: u32,
    /// What multiples equal under `mask`.
    phase: u32,
    /// Units of the run that count, less 1.
    further: u32,
}

impl Boundary {
    /// None: nothing is crossed.
    pub const NONE: Self = Self {
        mask: u32::MAX,
        phase: 0,
        further: 0,
    };

    /// Multiples of `units`, counted from the unit `multiple`, for runs whose first `further` + 1 units count.
    pub const fn new(units: u32, multiple: u32, further: u32) -> Self {
        Self {
            mask: units - 1,
            phase: multiple & (units - 1),
            further,
        }
    }

    /// Whether a run that begins at `unit` crosses a boundary.
    #[inline]
    const fn is_crossed(self, unit: u32) -> bool {
        (unit.wrapping_sub(self.phase) & self.mask) > self.mask - self.further
    }

    /// The first multiple at or behind a unit.
    const fn next(self, unit: u32) -> u32 {
        unit.wrapping_add(self.phase.wrapping_sub(unit) & self.mask)
    }
}

impl Start {
    /// Anywhere.
    pub const ANY: Self = Self::multiple_of(1);

    /// At multiples of a power of two.
    pub const fn multiple_of(units: u32) -> Self {
        Self {
            mask: units - 1,
            phase: 0,
            boundary: Boundary::NONE,
        }
    }

    /// Whether a run may begin at `unit`.
    #[inline]
    pub const fn allows(self, unit: u32) -> bool {
        unit & self.mask == self.phase && !self.boundary.is_crossed(unit)
    }

    /// Whether a boundary restricts the run.
    pub const fn has_boundary(self) -> bool {
        self.boundary.further > 0
    }

    /// Units by which a block that has room for certain is longer than the run.
    ///
    /// The first start lies at most `mask` units into a block. If the run crosses a boundary from there, it begins behind
    /// that at last: a whole number of strides further, and no further than what counts of it reaches beyond a boundary there.
    pub const fn slack(self) -> u32 {
        let begins = self.phase.wrapping_sub(self.boundary.phase) & self.mask;
        self.mask | (begins + self.boundary.further)
    }

    /// The lowest one at or behind `unit`.
    const fn at_or_behind(self, unit: u32) -> u32 {
        let first = self.stride_up(unit);
        if self.boundary.is_crossed(first) {
            self.stride_up(self.boundary.next(first))
        } else {
            first
        }
    }

    /// The highest one at or before `unit`; wraps if there is none.
    const fn at_or_before(self, unit: u32) -> u32 {
        let first = self.stride_down(unit);
        if self.boundary.is_crossed(first) {
            let boundary = self.boundary.next(first);
            self.stride_down(boundary.wrapping_sub(self.boundary.further + 1))
        } else {
            first
        }
    }

    const fn stride_up(self, unit: u32) -> u32 {
        unit.wrapping_add(self.phase.wrapping_sub(unit) & self.mask)
    }

    const fn stride_down(self, unit: u32) -> u32 {
        unit.wrapping_sub(unit.wrapping_sub(self.phase) & self.mask)
    }

    /// Where in a block a run of `length` units may begin, as near to a side as can be.
    pub(super) fn fit(self, block: u32, block_length: u32, length: u32, side: Side) -> Option<u32> {
        let last = (block + block_length).checked_sub(length)?;
        let first = match side {
            Side::Low => self.at_or_behind(block),
            Side::High => self.at_or_before(last),
        };
        (block <= first && first <= last).then_some(first)
    }
}

#[cfg(all(test, not(loom)))]
pub(in crate::allocator) mod tests;
