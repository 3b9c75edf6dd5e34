// SPDX-License-Identifier: MIT OR Apache-2.0
//! Mapping a buffer of the kernel's for a device.

use core::ffi::{c_int, c_void};
use core::ptr::NonNull;

use crate::Kernel;
use crate::argument::{Output, input};
use crate::error::{Error, Outcome, number_of};
use crate::pool::PoolStorage;
use crate::reservation::Reservation;
use guest_shim::Pool;

/// Who writes the buffer while the device owns it: DMA_TO_DEVICE and so on in Linux, with other numbers, so that a
/// structure full of zeroes is no mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub enum Direction {
    /// The device only reads.
    ToDevice = 1,
    /// The device only writes.
    FromDevice = 2,
    /// Both.
    Bidirectional = 3,
}

/// What a mapping that the device only writes holds before it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub enum CopyIn {
    /// The buffer's old contents, so that bytes the device leaves alone come back unchanged, as drivers written for Linux
    /// expect. This discloses the old contents to the host. The only choice where the device reads.
    ///
    /// No byte of another mapping, or of what the pool held before, ever reaches the buffer: at map all of the mapping's
    /// bytes in the pool are the buffer's, and afterwards only the device, and the driver's syncs, change them.
    Keep = 0,
    /// Whatever the pool held before, another mapping's bytes perhaps. Nothing is copied in. `svsm_swiotlb_unmap` copies
    /// nothing out; `svsm_swiotlb_unmap_written` copies the first `written` bytes, and `svsm_swiotlb_sync_for_cpu` the bytes
    /// it is given. Both copy whatever lies there: a caller names no byte that the device has not written, by the
    /// caller's own knowledge and not by a length that the device reports without a check, or another mapping's old bytes
    /// reach the buffer. Where that is not known, KEEP is the choice.
    DeviceWritten = 1,
}

/// Where a mapping may lie; all of it holds together. A structure full of zeroes, or a null pointer, means anywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Constraints {
    /// These low bits of the device address equal those of the buffer's address: 0, or a power of two minus 1 (Linux
    /// `min_align_mask`; 4095 for NVMe).
    pub min_align_mask: u64,
    /// Power of two, or 0 for 1. The pool bytes set aside begin and end at a multiple of it (Linux `alloc_align_mask`
    /// plus 1). Without a `min_align_mask` the device address itself is a multiple.
    pub alignment: u64,
    /// Highest address the device can reach, or 0 for any: the mapping's last byte is at most there.
    pub highest_address: u64,
    /// Power of two, or 0 for none: the mapping does not cross a multiple of it (Linux `dma_get_seg_boundary` plus 1).
    /// Read only if the configuration at attach was of version 3 or later.
    pub boundary: u64,
}

/// What a header before version 3 knows of it.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
struct EarlyConstraints {
    min_align_mask: u64,
    alignment: u64,
    highest_address: u64,
}

/// A buffer that a device can reach: a plain value to keep in a queue. Using one after its unmap is an error that is
/// always detected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Mapping {
    /// The address to give to the device: a guest physical address in the window, without the C-bit.
    pub address: u64,
    /// Length in bytes.
    pub length: u64,
    /// Distinguishes this mapping from earlier and later ones at the same address.
    pub generation: u64,
    /// `enum svsm_swiotlb_direction`.
    pub direction: i32,
    /// 0.
    pub reserved: u32,
}

/// The direction behind a number from C.
pub(crate) fn direction_of(number: c_int) -> Result<guest_shim::Direction, Error> {
    match number {
        1 => Ok(guest_shim::Direction::ToDevice),
        2 => Ok(guest_shim::Direction::FromDevice),
        3 => Ok(guest_shim::Direction::Bidirectional),
        _ => Err(Error::InvalidArgument),
    }
}

fn copy_in_of(number: c_int) -> Result<guest_shim::CopyIn, Error> {
    match number {
        0 => Ok(guest_shim::CopyIn::Keep),
        1 => Ok(guest_shim::CopyIn::DeviceWritten),
        _ => Err(Error::InvalidArgument),
    }
}

impl Mapping {
    fn of(mapping: &guest_shim::Mapping) -> Self {
        let direction = match mapping.direction() {
            guest_shim::Direction::ToDevice => Direction::ToDevice,
            guest_shim::Direction::FromDevice => Direction::FromDevice,
            guest_shim::Direction::Bidirectional => Direction::Bidirectional,
        };
        Self {
            address: mapping.address(),
            length: mapping.length(),
            generation: mapping.generation(),
            direction: direction as i32,
            reserved: 0,
        }
    }

    /// The shim's handle. It proves nothing; only private records are believed.
    pub(crate) fn handle(&self) -> Result<guest_shim::Mapping, Error> {
        Ok(guest_shim::Mapping::from_parts(
            self.address,
            self.length,
            direction_of(self.direction)?,
            self.generation,
        ))
    }
}

/// The arguments of a map, checked as far as C can get them wrong.
#[derive(Clone, Copy)]
struct Request {
    buffer: NonNull<[u8]>,
    direction: guest_shim::Direction,
    copy_in: guest_shim::CopyIn,
}

impl Request {
    #[inline(always)]
    fn new(
        buffer: *mut c_void,
        length: usize,
        direction: c_int,
        copy_in: c_int,
    ) -> Result<Self, Error> {
        let start = NonNull::new(buffer.cast::<u8>()).ok_or(Error::InvalidArgument)?;
        let wraps = start.addr().checked_add(length).is_none();
        if wraps || isize::try_from(length).is_err() {
            return Err(Error::InvalidRequest);
        }
        Ok(Self {
            buffer: NonNull::slice_from_raw_parts(start, length),
            direction: direction_of(direction)?,
            copy_in: copy_in_of(copy_in)?,
        })
    }

    /// Maps the buffer where the constraints allow it. Nearly every request has none, and then the compiler knows it.
    ///
    /// # Safety
    /// As for [`svsm_swiotlb_map`].
    #[inline(always)]
    unsafe fn map(
        self,
        pool: &Pool<'_, Kernel>,
        constraints: *const Constraints,
        header_version: u32,
    ) -> Result<guest_shim::Mapping, Error> {
        if !constraints.is_null() {
            // SAFETY: The caller's contract.
            return unsafe { self.map_within(pool, constraints, header_version) };
        }
        let none = guest_shim::Constraints::NONE;
        // SAFETY: The caller's contract.
        Ok(unsafe { pool.map(self.buffer, self.direction, self.copy_in, &none)? })
    }

    /// The same where there are some.
    ///
    /// # Safety
    /// As for [`svsm_swiotlb_map`].
    #[inline(never)]
    unsafe fn map_within(
        self,
        pool: &Pool<'_, Kernel>,
        constraints: *const Constraints,
        header_version: u32,
    ) -> Result<guest_shim::Mapping, Error> {
        // SAFETY: The caller's contract.
        let constraints = unsafe { Constraints::read(constraints, header_version)? };
        // SAFETY: The caller's contract.
        Ok(unsafe { pool.map(self.buffer, self.direction, self.copy_in, &constraints)? })
    }
}

impl Constraints {
    /// A caller's constraints; null for none.
    ///
    /// # Safety
    /// `pointer` is null, misaligned or initialised, as far as the caller's header knows the structure.
    pub(crate) unsafe fn read(
        pointer: *const Self,
        header_version: u32,
    ) -> Result<guest_shim::Constraints, Error> {
        if pointer.is_null() {
            return Ok(guest_shim::Constraints::NONE);
        }
        if header_version >= 3 {
            // SAFETY: The caller's contract.
            return Ok(unsafe { input(pointer)? }.resolved());
        }
        // SAFETY: The caller's contract; an earlier structure has these fields.
        let early = unsafe { input(pointer.cast::<EarlyConstraints>())? };
        let all = Self {
            min_align_mask: early.min_align_mask,
            alignment: early.alignment,
            highest_address: early.highest_address,
            boundary: 0,
        };
        Ok(all.resolved())
    }

    const fn resolved(&self) -> guest_shim::Constraints {
        guest_shim::Constraints {
            min_align_mask: self.min_align_mask,
            alignment: if self.alignment == 0 {
                1
            } else {
                self.alignment
            },
            highest_address: match self.highest_address {
                0 => u64::MAX,
                highest => highest,
            },
            boundary: self.boundary,
        }
    }
}

/// Makes `length` bytes at `buffer` reachable for a device, as `dma_map_single` does. Copies exactly these bytes into the
/// pool where the direction or `copy_in` asks for it. Calls the service only to grow, and never sleeps.
///
/// `direction` is an `enum svsm_swiotlb_direction`, `copy_in` an `enum svsm_swiotlb_copy_in`; `constraints` may be null.
/// `*mapping` is for the driver to keep; `mapping->address` is what the device gets. The copy is done when the function
/// returns; a doorbell written after that needs no other barrier than the device itself asks for.
///
/// Errors: INVALID_ARGUMENT, INVALID_REQUEST, and those that `enum svsm_swiotlb_error` names for map; nothing is mapped
/// then, though the pool may have grown.
///
/// # Safety
/// `pool` is null or a pool; `constraints` is null or initialised; `mapping` is null or writable. Until the mapping is
/// unmapped the buffer stays valid: for reads, and for writes too unless the direction is TO_DEVICE. Nothing else writes
/// to it while this function, a sync or an unmap of the mapping runs; syncs of the mapping that run at the same time and
/// copy to the buffer name bytes that do not overlap. No part of the buffer lies in the window.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn svsm_swiotlb_map(
    pool: *mut PoolStorage,
    buffer: *mut c_void,
    length: usize,
    direction: c_int,
    copy_in: c_int,
    constraints: *const Constraints,
    mapping: *mut Mapping,
) -> c_int {
    let answer = || -> Outcome {
        // SAFETY: The caller's contract.
        let (pool, version) = unsafe { PoolStorage::get_versioned(pool)? };
        let output = Output::required(mapping)?;
        let request = Request::new(buffer, length, direction, copy_in)?;
        // SAFETY: The caller's contract.
        let mapped = unsafe { request.map(pool, constraints, version)? };
        // SAFETY: The caller's contract.
        unsafe { output.set(Mapping::of(&mapped)) };
        Ok(())
    };
    number_of(answer())
}

/// The same for callers that keep only the address, which `svsm_swiotlb_unmap_address` ends: returns the address to give
/// to the device, or an error, which is negative. Addresses have at most 52 bits.
///
/// Errors: as `svsm_swiotlb_map`.
///
/// # Safety
/// As for `svsm_swiotlb_map`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn svsm_swiotlb_map_address(
    pool: *mut PoolStorage,
    buffer: *mut c_void,
    length: usize,
    direction: c_int,
    copy_in: c_int,
    constraints: *const Constraints,
) -> i64 {
    let answer = || -> Result<u64, Error> {
        // SAFETY: The caller's contract.
        let (pool, version) = unsafe { PoolStorage::get_versioned(pool)? };
        let request = Request::new(buffer, length, direction, copy_in)?;
        // SAFETY: The caller's contract.
        Ok(unsafe { request.map(pool, constraints, version)? }.address())
    };
    match answer() {
        Ok(address) => address.cast_signed(),
        Err(error) => error.number().into(),
    }
}

/// The same out of a reservation. Cannot fail while the reservation has an idle extent and the request has its shape;
/// without an idle extent it falls back to `svsm_swiotlb_map`.
///
/// Errors: INVALID_ARGUMENT; INVALID_REQUEST for another shape or another pool's reservation; else as `svsm_swiotlb_map`.
///
/// # Safety
/// As for `svsm_swiotlb_map`. `reservation` is null, or was filled by `svsm_swiotlb_reserve` and is not being cancelled.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn svsm_swiotlb_map_reserved(
    pool: *mut PoolStorage,
    reservation: *const Reservation,
    buffer: *mut c_void,
    length: usize,
    direction: c_int,
    copy_in: c_int,
    constraints: *const Constraints,
    mapping: *mut Mapping,
) -> c_int {
    let answer = || -> Outcome {
        // SAFETY: The caller's contract.
        let (pool, version) = unsafe { PoolStorage::get_versioned(pool)? };
        let output = Output::required(mapping)?;
        // SAFETY: The caller's contract.
        let reservation = unsafe { Reservation::get(reservation)? };
        // SAFETY: The caller's contract.
        let constraints = unsafe { Constraints::read(constraints, version)? };
        let request = Request::new(buffer, length, direction, copy_in)?;
        // SAFETY: The caller's contract.
        let mapped = unsafe {
            pool.map_reserved(
                reservation,
                request.buffer,
                request.direction,
                request.copy_in,
                &constraints,
            )?
        };
        // SAFETY: The caller's contract.
        unsafe { output.set(Mapping::of(&mapped)) };
        Ok(())
    };
    number_of(answer())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_enumerators_agree() {
        for (direction, expected) in [
            (Direction::ToDevice, guest_shim::Direction::ToDevice),
            (Direction::FromDevice, guest_shim::Direction::FromDevice),
            (
                Direction::Bidirectional,
                guest_shim::Direction::Bidirectional,
            ),
        ] {
            assert_eq!(direction_of(direction as c_int), Ok(expected));
            let mapping = guest_shim::Mapping::from_parts(1, 2, expected, 3);
            assert_eq!(Mapping::of(&mapping).handle(), Ok(mapping));
        }
        for (copy_in, expected) in [
            (CopyIn::Keep, guest_shim::CopyIn::Keep),
            (CopyIn::DeviceWritten, guest_shim::CopyIn::DeviceWritten),
        ] {
            assert_eq!(copy_in_of(copy_in as c_int), Ok(expected));
        }
        for unknown in [c_int::MIN, -1, 0, 4, c_int::MAX] {
            assert_eq!(direction_of(unknown), Err(Error::InvalidArgument));
            assert!(unknown == 0 || copy_in_of(unknown) == Err(Error::InvalidArgument));
        }
    }

    #[test]
    fn zeroed_constraints_are_no_constraints() {
        let zeroed = Constraints {
            min_align_mask: 0,
            alignment: 0,
            highest_address: 0,
            boundary: 0,
        };
        assert_eq!(zeroed.resolved(), guest_shim::Constraints::NONE);
    }

    #[test]
    fn an_early_caller_has_no_boundary() {
        let constraints = Constraints {
            min_align_mask: 7,
            alignment: 64,
            highest_address: 99,
            boundary: 4096,
        };
        let read = |version| {
            // SAFETY: Initialised.
            unsafe { Constraints::read(&raw const constraints, version) }.unwrap()
        };
        assert_eq!(read(3), constraints.resolved());
        let early = Constraints {
            boundary: 0,
            ..constraints
        };
        assert_eq!([1, 2].map(read), [early.resolved(); 2]);
    }
}
