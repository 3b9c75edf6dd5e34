// SPDX-License-Identifier: MIT OR Apache-2.0
#![doc = include_str!("../README.md")]
#![no_std]

// On a host the standard library brings the panic handler; nothing else of it is used.
#[cfg(not(target_os = "none"))]
extern crate std;

mod argument;
mod attach;
#[cfg(not(feature = "linked-platform"))]
mod callbacks;
mod config;
mod error;
mod find;
#[cfg(feature = "linked-platform")]
mod linked;
mod maintenance;
mod mapping;
mod orphans;
#[cfg(target_os = "none")]
mod panic;
mod pool;
mod registers;
mod reservation;
mod shared_buffer;
mod statistics;
mod sync;
mod unmap;

/// The kernel that a pool is attached over.
#[cfg(not(feature = "linked-platform"))]
use callbacks::Callbacks as Kernel;
#[cfg(feature = "linked-platform")]
use linked::Linked as Kernel;

pub use attach::{
    svsm_swiotlb_attach, svsm_swiotlb_attach_beside, svsm_swiotlb_metadata_bytes,
    svsm_swiotlb_metadata_bytes_with_small, svsm_swiotlb_pool_alignment, svsm_swiotlb_pool_bytes,
    svsm_swiotlb_window_beside,
};
#[cfg(not(feature = "linked-platform"))]
pub use callbacks::PlatformTable;
pub use config::{Config, VERSION, svsm_swiotlb_config_init};
pub use error::{Error, svsm_swiotlb_error_text};
pub use find::svsm_swiotlb_find;
pub use maintenance::{
    GivenBack, svsm_swiotlb_give_back, svsm_swiotlb_maintain, svsm_swiotlb_set_cap,
};
pub use mapping::{
    Constraints, CopyIn, Direction, Mapping, svsm_swiotlb_map, svsm_swiotlb_map_address,
    svsm_swiotlb_map_reserved,
};
pub use orphans::{
    Adoption, svsm_swiotlb_adopt_orphans, svsm_swiotlb_detach, svsm_swiotlb_release_orphans,
};
pub use pool::{
    Attachment, POOL_ALIGNMENT, POOL_BYTES, PoolStorage, Window, svsm_swiotlb_attachment,
    svsm_swiotlb_contains, svsm_swiotlb_window,
};
pub use registers::CallRegisters;
pub use reservation::{Reservation, svsm_swiotlb_cancel_reservation, svsm_swiotlb_reserve};
pub use shared_buffer::{
    SharedBuffer, svsm_swiotlb_alloc_shared, svsm_swiotlb_alloc_shared_within,
    svsm_swiotlb_free_shared, svsm_swiotlb_free_shared_address,
};
pub use statistics::{
    Pressure, PressureLevel, Statistics, svsm_swiotlb_pressure, svsm_swiotlb_statistics,
};
pub use sync::{
    svsm_swiotlb_sync_address_for_cpu, svsm_swiotlb_sync_address_for_device,
    svsm_swiotlb_sync_for_cpu, svsm_swiotlb_sync_for_device,
};
pub use unmap::{
    svsm_swiotlb_unmap, svsm_swiotlb_unmap_address, svsm_swiotlb_unmap_address_written,
    svsm_swiotlb_unmap_written,
};
