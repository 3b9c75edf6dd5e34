// SPDX-License-Identifier: MIT OR Apache-2.0
//! The shim on a small machine: a service in memory, and a window that really is one.
#![expect(clippy::cast_possible_truncation, reason = "small numbers of tests")]

use proptest::prelude::ProptestConfig;

mod attach;
mod boundary;
mod buffer;
mod convert;
mod growth;
mod interrupted;
mod machine;
mod maintenance;
mod mapping;
mod memory;
mod misuse;
mod model;
mod reservation;
mod scarcity;
mod service;
#[cfg(feature = "virtio")]
mod virtio;

/// How many cases of a property are tried: few, and no file is written, where an interpreter runs them.
pub(crate) fn cases(count: u32) -> ProptestConfig {
    ProptestConfig {
        cases: if cfg!(miri) { 2 } else { count },
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}
