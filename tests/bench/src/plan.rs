// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a run measures.

use crate::driver::burst;
use crate::driver::failing::State;
use crate::driver::pair::{Cell, Mode, Size};
use crate::driver::{Fill, Setup};

/// Sizes of the workload.
pub const SIZES: [Size; 8] = [
    Size::Bytes(64),
    Size::Bytes(256),
    Size::Bytes(1500),
    Size::Bytes(4096),
    Size::Bytes(16384),
    Size::Bytes(65536),
    Size::Bytes(262_144),
    Size::Mix,
];
/// Fills of the workload besides the empty pool.
pub const FILLS: [Fill; 3] = [Fill::Used(90.0), Fill::Used(98.0), Fill::Fragmented(90.0)];
/// Pools of the failing map.
pub const FAILING_POOLS: [usize; 5] = [64 << 20, 256 << 20, 1 << 30, 4 << 30, 16 << 30];
/// Length of the burst's mappings.
const BURST_SIZE: usize = 64 << 10;
/// Sizes of a quick run.
const QUICK_SIZES: [Size; 5] = [SIZES[0], SIZES[3], SIZES[5], SIZES[6], SIZES[7]];

/// What a run measures, in this order.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What every machine is made with.
    pub setup: Setup,
    /// How often the cells are repeated.
    pub rounds: u64,
    /// Whether every allocator has to pass the self-test first.
    pub selftest: bool,
    /// Pairs of map and unmap.
    pub cells: Vec<Cell>,
    /// Sizes of the capacity scenario.
    pub capacities: Vec<Size>,
    /// Bursts.
    pub bursts: Vec<burst::Plan>,
    /// Pools and states of the failing map.
    pub failing: Vec<(usize, State)>,
}

impl Plan {
    /// Nothing yet.
    pub const fn empty(setup: Setup, rounds: u64) -> Self {
        Self {
            setup,
            rounds,
            selftest: false,
            cells: Vec::new(),
            capacities: Vec::new(),
            bursts: Vec::new(),
            failing: Vec::new(),
        }
    }

    /// Everything that the table of figures asks for.
    pub fn full(setup: Setup) -> Self {
        let mut plan = Self::standard(setup, 5, &SIZES, &FAILING_POOLS);
        plan.cells.extend([1, 2].map(|threads| Cell {
            depth: 32,
            threads,
            ..cell(Size::Bytes(4096), Mode::NoCopy)
        }));
        let transmit = [Size::Bytes(1500), Size::Bytes(4096), Size::Mix];
        plan.cells
            .extend(transmit.map(|size| cell(size, Mode::Transmit)));
        plan
    }

    /// The same with fewer sizes and rounds, to look at a change.
    pub fn quick(mut setup: Setup) -> Self {
        setup.bulk_ms /= 2.0;
        setup.timed_operations /= 4;
        Self::standard(setup, 3, &QUICK_SIZES, &FAILING_POOLS[..3])
    }

    fn standard(setup: Setup, rounds: u64, sizes: &[Size], failing_pools: &[usize]) -> Self {
        let mut plan = Self {
            selftest: true,
            capacities: vec![Size::Bytes(64), Size::Bytes(1500), Size::Mix],
            bursts: burst_plans(BURST_SIZE).to_vec(),
            ..Self::empty(setup, rounds)
        };
        for threads in thread_counts(setup.cpus) {
            let cells = sizes.iter().map(|&size| Cell {
                threads,
                ..cell(size, Mode::NoCopy)
            });
            plan.cells.extend(cells);
        }
        for fill in FILLS {
            let cells = sizes.iter().map(|&size| Cell {
                fill,
                ..cell(size, Mode::NoCopy)
            });
            plan.cells.extend(cells);
        }
        let receive = sizes.iter().map(|&size| cell(size, Mode::Receive));
        plan.cells.extend(receive);
        for &bytes in failing_pools {
            plan.failing
                .extend([(bytes, State::Full), (bytes, State::Comb)]);
        }
        plan
    }
}

/// Map and unmap at once, in an empty pool, on one thread.
pub const fn cell(size: Size, mode: Mode) -> Cell {
    Cell {
        size,
        mode,
        threads: 1,
        fill: Fill::EMPTY,
        depth: 1,
    }
}

/// Bursts without deferred work, and with it after every 256 maps.
pub fn burst_plans(size: usize) -> [burst::Plan; 2] {
    [0, 256].map(|background_every| burst::Plan {
        size,
        background_every,
        copies: false,
    })
}

/// 1, 2, 4, ... up to the CPUs.
pub fn thread_counts(cpus: usize) -> Vec<usize> {
    std::iter::successors(Some(1), |threads| Some(threads * 2))
        .take_while(|&threads| threads <= cpus)
        .collect()
}
