// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is measured, each behind the interface of [`abi`](crate::abi), so that all of them cost the driver the same.
//!
//! * [`shim`]: the guest shim, over a [`service`] in the same process
//! * [`classic`]: next-fit over 2 KiB slots, the algorithm that guests run today, written from its description
//! * [`locked_lifo`]: slots of one size on a stack under one lock; what the simplest thing costs
//! * [`copies`]: no allocator at all, only the copies; what the machine allows

pub mod classic;
pub mod copies;
pub mod locked_lifo;
pub mod service;
pub mod shim;
mod spin_lock;
mod table;

use crate::driver::Allocator;

/// Every allocator of this package, the limits first.
pub fn all() -> [Allocator; 6] {
    [
        &copies::HOT,
        &copies::WALK,
        &locked_lifo::OPERATIONS,
        &classic::OPERATIONS,
        &shim::OPERATIONS,
        &shim::OPERATIONS_SMALL,
    ]
    // SAFETY: The functions are this package's own and do what the interface says.
    .map(|operations| unsafe { Allocator::new(operations) })
}
