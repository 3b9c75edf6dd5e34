// SPDX-License-Identifier: MIT OR Apache-2.0
#![doc = include_str!("../README.md")]
#![no_std]

#[cfg(any(test, loom))]
extern crate std;

mod allocator;
mod atomic;
mod attach;
mod claim;
mod client;
mod constraints;
mod convert;
mod error;
mod geometry;
mod growth;
mod lock;
mod maintenance;
mod map;
mod orphans;
mod platform;
mod pool;
mod reservation;
mod room;
mod shared_buffer;
mod shared_memory;
mod statistics;
mod supply;
mod sync;
#[cfg(feature = "transport")]
pub mod transport;
mod unmap;
#[cfg(feature = "virtio")]
pub mod virtio;
mod windows;

#[cfg(all(test, loom))]
mod loom_tests;
#[cfg(all(test, not(loom)))]
mod tests;

pub use allocator::{metadata_bytes, metadata_bytes_with_small};
pub use attach::{AttachError, Attachment, Config, find_window};
pub use constraints::{Constraints, CopyIn, Direction};
pub use convert::{ConvertError, ConvertList};
pub use error::{MapError, UnmapError};
pub use geometry::{CHUNK_BYTES, MAX_WINDOW_BYTES, SMALLEST_SLOT_BYTES, UNIT_BYTES, Window};
pub use maintenance::GivenBack;
pub use map::Mapping;
pub use orphans::{Adoption, ListPage};
pub use platform::{CallFailed, Platform};
pub use pool::Pool;
pub use reservation::Reservation;
pub use shared_buffer::SharedBuffer;
pub use statistics::{Pressure, PressureLevel, Statistics};
pub use windows::Windows;
