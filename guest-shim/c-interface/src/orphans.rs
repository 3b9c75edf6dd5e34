// SPDX-License-Identifier: MIT OR Apache-2.0
//! What an earlier kernel left behind, and leaving in good order.

use core::ffi::{c_int, c_void};

use guest_shim::ListPage;

use crate::argument::Output;
use crate::error::{Error, Outcome, number_of};
use crate::maintenance::GivenBack;
use crate::pool::PoolStorage;

/// Bytes of a page for lists.
const PAGE_BYTES: usize = 4096;

/// What became of an earlier kernel's chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Adoption {
    /// Bytes that are the pool's now.
    pub adopted_bytes: u64,
    /// Bytes of an earlier kernel that the metadata does not cover; given back.
    pub uncovered_bytes: u64,
}

/// A page of the kernel's, which the service writes.
struct Page {
    start: *mut u8,
    address: u64,
}

impl Page {
    /// # Safety
    /// A pointer that is neither null nor misaligned points to a page that nobody else uses while this lives.
    unsafe fn new(start: *mut c_void, address: u64) -> Result<Self, Error> {
        let start = start.cast::<u8>();
        let aligned = start.addr().is_multiple_of(PAGE_BYTES) && address.is_multiple_of(4096);
        if start.is_null() || !aligned {
            return Err(Error::InvalidArgument);
        }
        Ok(Self { start, address })
    }
}

impl ListPage for Page {
    fn address(&self) -> u64 {
        self.address
    }

    fn read(&self, offset: usize, bytes: &mut [u8]) {
        for (at, byte) in (offset..PAGE_BYTES).zip(bytes) {
            // SAFETY: Inside the page by the range; the service writes there, hence volatile.
            *byte = unsafe { self.start.add(at).read_volatile() };
        }
    }

    fn write(&self, offset: usize, bytes: &[u8]) {
        for (at, byte) in (offset..PAGE_BYTES).zip(bytes) {
            // SAFETY: As in `read`.
            unsafe { self.start.add(at).write_volatile(*byte) };
        }
    }
}

/// Takes over every chunk that earlier kernels hold: the pool has grown without asking the host. Chunks of the other window become
/// the attachment's as well; a pool of it takes them in by the same call, and without one they stay held and unused. Called right after
/// attach, after all devices were quieted, while no other function of the library is called for this pool.
///
/// `page` is a page of private, validated memory for the length of the call, `page_address` its guest physical address.
/// `adoption` may be null.
///
/// Errors: INVALID_ARGUMENT; else what kept a call from being answered. What was taken over until then is the pool's.
///
/// # Safety
/// `pool` is null or a pool that nobody else uses during the call; `page` is null or a page nobody else uses; `adoption` is
/// null or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn svsm_swiotlb_adopt_orphans(
    pool: *mut PoolStorage,
    page: *mut c_void,
    page_address: u64,
    adoption: *mut Adoption,
) -> c_int {
    let answer = || -> Outcome {
        // SAFETY: The caller's contract.
        let pool = unsafe { PoolStorage::get_mut(pool)? };
        // SAFETY: The caller's contract.
        let page = unsafe { Page::new(page, page_address)? };
        let output = Output::optional(adoption)?;
        let adopted = pool.adopt_orphans(&page)?;
        let adoption = Adoption {
            adopted_bytes: adopted.adopted_bytes,
            uncovered_bytes: adopted.uncovered_bytes,
        };
        // SAFETY: The caller's contract.
        unsafe { output.set(adoption) };
        Ok(())
    };
    number_of(answer())
}

/// Gives back every chunk that earlier kernels hold, of all windows. Called after all devices were quieted. A pool of the other window that
/// was refused memory before, asks again after its next `svsm_swiotlb_maintain`.
///
/// `page` and `page_address` as for `svsm_swiotlb_adopt_orphans`; `given_back` may be null.
///
/// Errors: INVALID_ARGUMENT; else what kept a call from being answered.
///
/// # Safety
/// `pool` is null or a pool; `page` is null or a page nobody else uses; `given_back` is null or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn svsm_swiotlb_release_orphans(
    pool: *mut PoolStorage,
    page: *mut c_void,
    page_address: u64,
    given_back: *mut GivenBack,
) -> c_int {
    let answer = || -> Outcome {
        // SAFETY: The caller's contract.
        let pool = unsafe { PoolStorage::get(pool)? };
        // SAFETY: The caller's contract.
        let page = unsafe { Page::new(page, page_address)? };
        let output = Output::optional(given_back)?;
        let given = GivenBack::of(&pool.release_orphans(&page)?);
        // SAFETY: The caller's contract.
        unsafe { output.set(given) };
        Ok(())
    };
    number_of(answer())
}

/// Ends the attachment, which is that of the pool of the other window, too. What is granted still becomes an orphan; `orphaned_bytes`, which may be null, says how much. A kernel
/// unmaps everything and calls `svsm_swiotlb_give_back` before, and afterwards only ends mappings that are left.
///
/// Errors: INVALID_ARGUMENT; else what kept the call from being answered.
///
/// # Safety
/// `pool` is null or a pool; `orphaned_bytes` is null or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn svsm_swiotlb_detach(
    pool: *mut PoolStorage,
    orphaned_bytes: *mut u64,
) -> c_int {
    let answer = || -> Outcome {
        // SAFETY: The caller's contract.
        let pool = unsafe { PoolStorage::get(pool)? };
        let output = Output::optional(orphaned_bytes)?;
        let orphaned = pool.detach()?;
        // SAFETY: The caller's contract.
        unsafe { output.set(orphaned) };
        Ok(())
    };
    number_of(answer())
}
