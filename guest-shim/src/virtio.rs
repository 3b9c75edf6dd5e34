// SPDX-License-Identifier: MIT OR Apache-2.0
//! [`virtio_drivers::Hal`] over a pool, so that the drivers of that crate do their I/O through bounce buffers.
//!
//! `Hal` has no object and its `share` cannot fail. The kernel therefore names its pool through [`GlobalPool`], and
//! makes a [`Reservation`] for the requests it will have in flight; `share` takes from it. What does not fit goes to the
//! pool at large, and if that has nothing either, [`GlobalPool::stop`] ends the guest: a wrong address given to a device
//! would be worse.

use core::fmt;
use core::marker::PhantomData;
use core::ptr::NonNull;

use virtio_drivers::{BufferDirection, Hal, PAGE_SIZE, PhysAddr};

use crate::constraints::{Constraints, CopyIn, Direction};
use crate::error::{MapError, UnmapError};
use crate::platform::Platform;
use crate::pool::Pool;
use crate::reservation::Reservation;

/// Why the guest cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// A buffer cannot be shared, and the interface has no way to say so.
    Share(NoRoom),
    /// A buffer that was never shared like this is to be unshared: driver and shim disagree about memory.
    Unshare(UnmapError),
    /// A device register range is not mapped.
    Mmio,
}

/// A buffer that could not be shared, and what there was room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoRoom {
    /// Why.
    pub cause: MapError,
    /// Its length.
    pub length: usize,
    /// The length that would have fitted ([`Pool::longest_run_bytes`]).
    pub longest: u64,
    /// Buffers that were mapped at that moment.
    pub shared: u64,
    /// Bytes in use, of those that the service has granted.
    pub used_bytes: u64,
    /// Bytes that the service has granted.
    pub granted_bytes: u64,
}

impl fmt::Display for NoRoom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} bytes cannot be shared: {}; {} would have fitted; {} buffers are mapped, {} of {} granted bytes are in use",
            self.length, self.cause, self.longest, self.shared, self.used_bytes, self.granted_bytes,
        )
    }
}

impl NoRoom {
    /// What a pool says after such a failure.
    fn of<P: Platform>(pool: &Pool<'_, P>, length: usize, cause: MapError) -> Self {
        let statistics = pool.statistics();
        Self {
            cause,
            length,
            longest: pool.longest_run_bytes(),
            shared: statistics.maps.saturating_sub(statistics.unmaps),
            used_bytes: statistics.used_bytes,
            granted_bytes: statistics.granted_bytes,
        }
    }
}

/// The kernel's pool, for code that has no object to carry it.
///
/// # Safety
/// 1. [`pool`](GlobalPool::pool) returns the same pool every time.
/// 2. [`mmio`](GlobalPool::mmio) returns mappings of device registers that are valid for as long as the kernel runs, and
///    overlap no other object of the program.
pub unsafe trait GlobalPool {
    /// What the pool asks its kernel for.
    type Platform: Platform + 'static;

    /// What a buffer that the device writes holds before. Virtio-blk reads use this direction, and a device may write
    /// less than the buffer, or nothing when the request fails. [`CopyIn::Keep`] preserves the old bytes then, at the
    /// price of a copy and of showing them to the host. With [`CopyIn::DeviceWritten`] all bytes are still copied out,
    /// because `Hal` does not say how many the device has written: those it has not are old pool contents, which the
    /// host knows. Choose it only where the driver looks at no byte before it has checked the request's status.
    const DEVICE_WRITES: CopyIn = CopyIn::Keep;

    /// The pool.
    fn pool() -> &'static Pool<'static, Self::Platform>;

    /// A reservation for buffers of this length, if there is one.
    fn reservation(_length: usize) -> Option<&'static Reservation> {
        None
    }

    /// Where device registers are mapped.
    fn mmio(address: u64, bytes: usize) -> Option<NonNull<u8>>;

    /// Reports the reason and ends the guest.
    fn stop(reason: Stop) -> !;
}

/// The hardware abstraction that `virtio_drivers` is instantiated with.
#[derive(Debug)]
pub struct VirtioHal<G>(PhantomData<G>);

// SAFETY: `dma_alloc` returns zeroed pool memory that nobody else is handed until `dma_dealloc`, through the platform's
// mapping; `mmio_phys_to_virt` is the kernel's promise in `GlobalPool`.
unsafe impl<G: GlobalPool> Hal for VirtioHal<G> {
    fn dma_alloc(pages: usize, _direction: BufferDirection) -> (PhysAddr, NonNull<u8>) {
        // Queues are read and written by both sides whatever the direction says. A zero address is the interface's way
        // to report failure here.
        let bytes = pages.saturating_mul(PAGE_SIZE);
        match G::pool().alloc_shared(bytes, PAGE_SIZE as u64) {
            Ok(buffer) => (buffer.address(), buffer.as_ptr()),
            Err(_) => (0, NonNull::dangling()),
        }
    }

    unsafe fn dma_dealloc(address: PhysAddr, _pointer: NonNull<u8>, pages: usize) -> i32 {
        let bytes = pages.saturating_mul(PAGE_SIZE);
        // SAFETY: `dma_alloc` kept no `SharedBuffer`; by the trait's contract the caller is done with the memory.
        match unsafe { G::pool().free_shared_address(address, bytes) } {
            Ok(()) => 0,
            Err(_) => -1,
        }
    }

    unsafe fn mmio_phys_to_virt(address: PhysAddr, size: usize) -> NonNull<u8> {
        G::mmio(address, size).unwrap_or_else(|| G::stop(Stop::Mmio))
    }

    unsafe fn share(buffer: NonNull<[u8]>, direction: BufferDirection) -> PhysAddr {
        let direction = translate(direction);
        let copy_in = if direction.device_reads() {
            CopyIn::Keep
        } else {
            G::DEVICE_WRITES
        };
        let none = &Constraints::NONE;
        let fitting = G::reservation(buffer.len()).filter(|r| buffer.len() <= r.max_length());
        // SAFETY: A driver keeps a buffer valid and unused from `share` to `unshare`: the trait's contract names the
        // call, and the device's access in between needs the rest.
        let mapping = unsafe {
            match fitting {
                Some(reservation) => {
                    G::pool().map_reserved(reservation, buffer, direction, copy_in, none)
                }
                None => G::pool().map(buffer, direction, copy_in, none),
            }
        };
        match mapping {
            Ok(mapping) => mapping.address(),
            Err(cause) => G::stop(Stop::Share(NoRoom::of(G::pool(), buffer.len(), cause))),
        }
    }

    unsafe fn unshare(address: PhysAddr, buffer: NonNull<[u8]>, direction: BufferDirection) {
        let direction = translate(direction);
        let length = buffer.len() as u64;
        // With `DeviceWritten` nothing would be copied without a length, and `Hal` does not know one: all of it.
        let outcome = G::pool().unmap_address_written(address, length, direction, length);
        if let Err(cause) = outcome {
            G::stop(Stop::Unshare(cause));
        }
    }
}

const fn translate(direction: BufferDirection) -> Direction {
    match direction {
        BufferDirection::DriverToDevice => Direction::ToDevice,
        BufferDirection::DeviceToDriver => Direction::FromDevice,
        BufferDirection::Both => Direction::Bidirectional,
    }
}
