// SPDX-License-Identifier: MIT OR Apache-2.0
#![doc = include_str!("../README.md")]
#![expect(
    clippy::cast_possible_truncation,
    reason = "tests run on 64-bit machines, with small numbers"
)]

pub mod driver_buffer;
pub mod engine;
pub mod live;
pub mod machine;
pub mod meeting;
pub mod operation;
pub mod script;
pub mod service;
pub mod window;
