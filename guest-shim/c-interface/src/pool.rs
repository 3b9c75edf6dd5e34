// SPDX-License-Identifier: MIT OR Apache-2.0
//! The pool in storage of the caller's, and what never changes about it.

use core::ffi::c_int;
use core::mem::MaybeUninit;

use guest_shim::Pool;
use protocol::identity::SharedAddressing;

use crate::Kernel;
use crate::argument::Output;
use crate::config::Config;
use crate::error::{Error, Outcome, number_of};

/// Storage that a pool needs at most, for static arrays. `svsm_swiotlb_pool_bytes` is what this library really needs.
pub const POOL_BYTES: usize = 4096;
/// Alignment of that storage in bytes.
pub const POOL_ALIGNMENT: usize = 128;

const _: () = assert!(
    size_of::<PoolStorage>() <= POOL_BYTES && align_of::<PoolStorage>() <= POOL_ALIGNMENT,
    "static arrays of C callers are too small: raise POOL_BYTES or POOL_ALIGNMENT"
);

/// Calls come from several CPUs at the same time.
const fn used_from_all_cpus<T: Send + Sync>() {}
const _: () = used_from_all_cpus::<Pool<'static, Kernel>>();

/// What an attached pool's storage begins with, combined with its address: zeroed storage and a copy are no pools.
const TAG: u64 = 0x7dd4_32f1_ec30_4975;

/// An attachment to the service and the memory it has granted. Lives in storage of the caller's and is only used through
/// the pointer that attach returned; a copy of it is no pool.
#[derive(Debug)]
pub struct PoolStorage {
    tag: u64,
    /// Version of the header that the caller was compiled against.
    header_version: u32,
    pool: Pool<'static, Kernel>,
}

impl PoolStorage {
    /// Attaches a pool where it stays: a kernel's stack has no room for one.
    ///
    /// # Errors
    /// Why there is none; the storage is no pool then.
    ///
    /// # Safety
    /// `storage` is valid for writes and aligned, and nothing else uses it from now on.
    pub(crate) unsafe fn attach(
        storage: *mut Self,
        kernel: Kernel,
        metadata: &'static mut [u8],
        config: Config,
    ) -> Outcome {
        // SAFETY: By the caller's contract; a place that nothing was written to needs no initialised bytes.
        let place = unsafe { &mut *(&raw mut (*storage).pool).cast::<MaybeUninit<_>>() };
        Pool::attach_in(place, kernel, metadata, config.into())?;
        // SAFETY: By the caller's contract.
        unsafe { Self::finish(storage, config) };
        Ok(())
    }

    /// Attaches a pool of another window beside that of `first`, where it stays.
    ///
    /// # Errors
    /// Why there is none; the storage is no pool then.
    ///
    /// # Safety
    /// As for [`PoolStorage::attach`].
    pub(crate) unsafe fn attach_beside(
        first: &Pool<'static, Kernel>,
        window: u8,
        storage: *mut Self,
        metadata: &'static mut [u8],
        config: Config,
    ) -> Outcome {
        // SAFETY: As in `attach`.
        let place = unsafe { &mut *(&raw mut (*storage).pool).cast::<MaybeUninit<_>>() };
        let kernel = *first.platform();
        first.attach_beside(place, window, kernel, metadata, config.into())?;
        // SAFETY: By the caller's contract.
        unsafe { Self::finish(storage, config) };
        Ok(())
    }

    /// Makes storage with a pool in it one for the functions of the interface.
    ///
    /// # Safety
    /// As for [`PoolStorage::attach`], and a pool was attached in it.
    unsafe fn finish(storage: *mut Self, config: Config) {
        // SAFETY: By the caller's contract.
        unsafe {
            (&raw mut (*storage).header_version).write(config.header_version());
            (&raw mut (*storage).tag).write(Self::tag_at(storage));
        }
    }

    fn tag_at(storage: *const Self) -> u64 {
        TAG ^ storage.addr() as u64
    }

    /// The pool behind a pointer from C.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a null pointer, or for storage that no pool was attached in.
    ///
    /// # Safety
    /// A pointer that is neither null nor misaligned points to storage in which a pool was attached and is still usable,
    /// or to as many initialised bytes of another content.
    pub(crate) unsafe fn get<'a>(pointer: *const Self) -> Result<&'a Pool<'static, Kernel>, Error> {
        if pointer.is_null() || !pointer.is_aligned() {
            return Err(Error::InvalidArgument);
        }
        // SAFETY: Neither null nor misaligned, so initialised by the caller's contract; any bytes are a number.
        let tag = unsafe { (&raw const (*pointer).tag).read() };
        if tag != Self::tag_at(pointer) {
            return Err(Error::InvalidArgument);
        }
        // SAFETY: The tag says that a pool was attached here.
        Ok(unsafe { &(*pointer).pool })
    }

    /// The same, and the version of the header that its caller was compiled against.
    ///
    /// # Errors
    /// As [`PoolStorage::get`].
    ///
    /// # Safety
    /// As [`PoolStorage::get`].
    pub(crate) unsafe fn get_versioned<'a>(
        pointer: *const Self,
    ) -> Result<(&'a Pool<'static, Kernel>, u32), Error> {
        // SAFETY: By the caller's contract.
        let pool = unsafe { Self::get(pointer)? };
        // SAFETY: It is a pool.
        Ok((pool, unsafe { (*pointer).header_version }))
    }

    /// The same, to be changed as a whole.
    ///
    /// # Errors
    /// As [`PoolStorage::get`].
    ///
    /// # Safety
    /// As [`PoolStorage::get`], and nobody else uses the pool while the result lives.
    pub(crate) unsafe fn get_mut<'a>(
        pointer: *mut Self,
    ) -> Result<&'a mut Pool<'static, Kernel>, Error> {
        // SAFETY: By the caller's contract.
        unsafe { Self::get(pointer)? };
        // SAFETY: It is a pool, and by the caller's contract nobody else's at present.
        Ok(unsafe { &mut (*pointer).pool })
    }
}

/// A range of guest physical addresses, without the C-bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Window {
    /// First address.
    pub base: u64,
    /// Size in bytes.
    pub bytes: u64,
}

/// What the service said at attach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Attachment {
    /// Bytes an earlier kernel still holds; its devices may still write to them.
    pub orphaned_bytes: u64,
    /// Cap on granted bytes.
    pub cap_bytes: u64,
    /// Number of this attachment.
    pub epoch: u32,
    /// Features the service offers beyond version 1's base (docs/PROTOCOL.md, clause P-2.4).
    pub features: u32,
    /// 0: shared memory is mapped with the C-bit clear. 1: at its address plus 1 << `position`.
    pub addressing: u32,
    /// Position of the C-bit, or of the bit that is added.
    pub position: u32,
    /// 1 if nobody had attached before, else 0.
    pub fresh: u32,
    /// 0.
    pub reserved: u32,
}

/// The range of addresses that the pool can ever use.
///
/// # Safety
/// `pool` is null or a pool; `window` is null or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn svsm_swiotlb_window(
    pool: *const PoolStorage,
    window: *mut Window,
) -> c_int {
    let answer = || -> Outcome {
        // SAFETY: The caller's contract.
        let pool = unsafe { PoolStorage::get(pool)? };
        let output = Output::required(window)?;
        let window = Window {
            base: pool.window().base(),
            bytes: pool.window().bytes(),
        };
        // SAFETY: The caller's contract.
        unsafe { output.set(window) };
        Ok(())
    };
    number_of(answer())
}

/// Whether a device address lies in the pool's window: one compare. False for a null pool.
///
/// # Safety
/// `pool` is null or a pool.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn svsm_swiotlb_contains(pool: *const PoolStorage, address: u64) -> bool {
    // SAFETY: The caller's contract.
    unsafe { PoolStorage::get(pool) }.is_ok_and(|pool| pool.contains(address))
}

/// What the service said at attach.
///
/// # Safety
/// `pool` is null or a pool; `attachment` is null or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn svsm_swiotlb_attachment(
    pool: *const PoolStorage,
    attachment: *mut Attachment,
) -> c_int {
    let answer = || -> Outcome {
        // SAFETY: The caller's contract.
        let pool = unsafe { PoolStorage::get(pool)? };
        let output = Output::required(attachment)?;
        let said = pool.attachment();
        let (addressing, position) = match said.addressing {
            SharedAddressing::EncryptionBitClear(position) => (0, position),
            SharedAddressing::AliasOffset(position) => (1, position),
        };
        let attachment = Attachment {
            orphaned_bytes: said.orphaned_bytes,
            cap_bytes: said.cap_bytes,
            epoch: said.epoch,
            features: said.features.into_bits(),
            addressing,
            position: position.into(),
            fresh: said.fresh.into(),
            reserved: 0,
        };
        // SAFETY: The caller's contract.
        unsafe { output.set(attachment) };
        Ok(())
    };
    number_of(answer())
}
