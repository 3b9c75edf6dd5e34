// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who bounces in a Linux guest.

use clap::ValueEnum;

/// Who bounces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Driver {
    /// The project's module, by the pool.
    Pool,
    /// The kernel, by its own pool.
    Swiotlb,
}

impl Driver {
    /// Its name on the guest's command line (`svsm.driver=`).
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Pool => "pool",
            Self::Swiotlb => "swiotlb",
        }
    }
}
