// SPDX-License-Identifier: MIT OR Apache-2.0
//! Memory set aside in advance, in storage of the caller's.

use core::ffi::c_int;
use core::mem::{ManuallyDrop, MaybeUninit};
use core::sync::atomic::{AtomicU64, Ordering};

use crate::argument::{Output, input};
use crate::error::{Error, Outcome, number_of};
use crate::pool::PoolStorage;

/// Extents for a number of mappings at a time. Filled by `svsm_swiotlb_reserve` and used in place: a copy is no
/// reservation. What it holds is private to the library.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Reservation {
    /// Private to the library.
    pub opaque: [u64; 10],
}

/// What is in the storage.
#[repr(C)]
struct Live {
    /// [`TAG`] combined with the storage's address while the reservation exists.
    tag: AtomicU64,
    reservation: MaybeUninit<guest_shim::Reservation>,
}

const _: () = assert!(
    size_of::<Live>() <= size_of::<Reservation>()
        && align_of::<Live>() <= align_of::<Reservation>(),
    "the C structure is too small for the shim's reservation"
);

const TAG: u64 = 0xac6a_7fe4_6323_e39a;

impl Live {
    fn tag_at(storage: *const Reservation) -> u64 {
        TAG ^ storage.addr() as u64
    }
}

impl Reservation {
    /// The shim's reservation in a caller's storage.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if there is none: null, never reserved, cancelled, or a copy.
    ///
    /// # Safety
    /// A pointer that is neither null nor misaligned points to initialised storage, and no cancellation runs.
    pub(crate) unsafe fn get<'a>(
        storage: *const Self,
    ) -> Result<&'a guest_shim::Reservation, Error> {
        // SAFETY: The caller's contract.
        let live = unsafe { input(storage.cast::<Live>())? };
        if live.tag.load(Ordering::Acquire) != Live::tag_at(storage) {
            return Err(Error::InvalidArgument);
        }
        // SAFETY: The tag says that `reserve` filled this storage.
        Ok(unsafe { live.reservation.assume_init_ref() })
    }
}

/// Sets memory aside for `count` mappings at a time, each of at most `max_length` bytes, growing the pool as needed. While
/// the reservation exists, `svsm_swiotlb_map_reserved` cannot fail for a request of its shape as long as fewer than `count`
/// such mappings are in use; unmapping puts an extent back. `align` is a power of two: the largest alignment, and one more
/// than the largest `min_align_mask`, that later requests may have.
///
/// `reservation` must not hold one that is still in use. May take several calls' time.
///
/// Errors: INVALID_ARGUMENT, INVALID_REQUEST, and those that `enum svsm_swiotlb_error` names for map; nothing is reserved
/// then, though the pool may have grown.
///
/// # Safety
/// `pool` is null or a pool; `reservation` is null or writable, and stays in place until it is cancelled.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn svsm_swiotlb_reserve(
    pool: *mut PoolStorage,
    count: usize,
    max_length: usize,
    align: u64,
    reservation: *mut Reservation,
) -> c_int {
    let answer = || -> Outcome {
        // SAFETY: The caller's contract.
        let pool = unsafe { PoolStorage::get(pool)? };
        let output = Output::required(reservation.cast::<Live>())?;
        let reserved = pool.reserve(count, max_length, align)?;
        let live = Live {
            tag: AtomicU64::new(Live::tag_at(reservation)),
            reservation: MaybeUninit::new(reserved),
        };
        // SAFETY: The caller's contract; the structure is at least as large, see the assertion above.
        unsafe { output.set(live) };
        Ok(())
    };
    number_of(answer())
}

/// Ends a reservation. Its storage may be used for something else afterwards.
///
/// Errors: INVALID_ARGUMENT for storage without one; IN_USE while mappings use its extents, or if it is another pool's.
/// The reservation is unchanged then.
///
/// # Safety
/// `pool` is null or a pool; `reservation` is null or initialised. Nothing maps from it or cancels it at the same time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn svsm_swiotlb_cancel_reservation(
    pool: *mut PoolStorage,
    reservation: *mut Reservation,
) -> c_int {
    let answer = || -> Outcome {
        // SAFETY: The caller's contract.
        let pool = unsafe { PoolStorage::get(pool)? };
        // SAFETY: The caller's contract.
        let reserved = unsafe { Reservation::get(reservation)? };
        // SAFETY: A move out of the storage: below, either the tag goes or the copy is forgotten.
        let moved = unsafe { core::ptr::read(reserved) };
        pool.cancel_reservation(moved).map_err(|kept| {
            // Unchanged, and still in the storage.
            let _ = ManuallyDrop::new(kept);
            Error::InUse
        })?;
        // SAFETY: The storage holds a `Live`, and nobody else uses it by the caller's contract.
        let live = unsafe { &*reservation.cast::<Live>() };
        live.tag.store(0, Ordering::Release);
        Ok(())
    };
    number_of(answer())
}
