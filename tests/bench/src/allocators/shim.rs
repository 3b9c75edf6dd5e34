// SPDX-License-Identifier: MIT OR Apache-2.0
//! The guest shim behind the interface: `guest_shim` with the default metadata, `guest_shim_small` with records for a
//! pool full of 64-byte slots.
//!
//! Nothing that the interface cannot express is dropped silently: an unmap or sync that the shim refuses ends the
//! program with a line that says which.

use std::ffi::{CStr, c_int};
use std::fmt::Display;
use std::marker::PhantomData;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};
use std::sync::{Mutex, PoisonError};

use guest_shim::{
    CallFailed, Constraints, CopyIn, Direction, Platform, Pool, metadata_bytes,
    metadata_bytes_with_small,
};
use snp::svsm::CallRegisters;

use super::service::{Service, window_bytes};
use super::table::{Implementation, operations};
use crate::abi::{Config, Operations, Stats, direction, flags};

/// Bytes of the smallest slot, of which `guest_shim_small` can fill the pool.
const SMALLEST_SLOT: usize = 64;

/// The kernel that the shim runs in: the driver's process.
#[derive(Debug)]
pub struct Kernel {
    config: Config,
    copies: bool,
    service: Mutex<Service>,
}

impl Kernel {
    /// A kernel over what the driver lends.
    pub fn new(config: &Config) -> Self {
        Self {
            config: *config,
            copies: config.flags & flags::NO_COPY == 0,
            service: Mutex::new(Service::new(config)),
        }
    }
}

// SAFETY: The pool is memory of the driver that no Rust object overlaps, and what lies above it is the driver's too;
// interrupts do not exist in a process; the driver's copy routine moves exactly the bytes it is told to.
unsafe impl Platform for Kernel {
    fn call(&self, registers: &mut CallRegisters) -> Result<(), CallFailed> {
        let mut service = self.service.lock().unwrap_or_else(PoisonError::into_inner);
        service.serve(registers);
        Ok(())
    }

    #[inline]
    fn cpu(&self) -> usize {
        (self.config.this_cpu)() as usize
    }

    #[inline]
    fn interrupts_save(&self) -> usize {
        0
    }

    #[inline]
    fn interrupts_restore(&self, _saved: usize) {}

    fn translate(&self, address: u64, bytes: u64) -> Option<NonNull<u8>> {
        let offset = address.checked_sub(self.config.pool_bus)?;
        let end = offset.checked_add(bytes)?;
        if end > window_bytes(&self.config) as u64 {
            return None;
        }
        let offset = usize::try_from(offset).ok()?;
        NonNull::new(self.config.pool.wrapping_add(offset))
    }

    #[inline]
    unsafe fn copy_to_pool(&self, pool: NonNull<u8>, buffer: *const u8, bytes: usize) {
        if self.copies {
            (self.config.copy)(pool.as_ptr().cast(), buffer.cast(), bytes);
        }
    }

    #[inline]
    unsafe fn copy_from_pool(&self, buffer: *mut u8, pool: NonNull<u8>, bytes: usize) {
        if self.copies {
            (self.config.copy)(buffer.cast(), pool.as_ptr().cast(), bytes);
        }
    }
}

/// A pool and the memory its records lie in.
#[derive(Debug)]
struct Shim<R> {
    pool: Pool<'static, Kernel>,
    config: Config,
    /// Growths of attach, which are no growth steps.
    growths_at_attach: u64,
    _metadata: Metadata,
    records: PhantomData<R>,
}

/// Private memory for records; outlives the pool because it is declared, and so dropped, after it.
#[derive(Debug)]
struct Metadata(*mut [u8]);

// SAFETY: Only the address, for the drop; the pool that uses the memory is shared by its own rules.
unsafe impl Sync for Metadata {}

impl Drop for Metadata {
    fn drop(&mut self) {
        // SAFETY: Leaked by `start`; the pool that borrowed it is gone.
        drop(unsafe { Box::from_raw(self.0) });
    }
}

/// The shim's configuration for a driver's.
pub fn pool_config(config: &Config) -> guest_shim::Config {
    guest_shim::Config {
        initial_bytes: config.pool_size as u64,
        minimum_bytes: config.pool_size as u64,
        cpus: config.ncpus as usize,
        ..guest_shim::Config::default()
    }
}

/// Bytes of metadata by default.
pub fn default_metadata(config: &Config) -> usize {
    metadata_bytes(window_bytes(config) as u64, config.ncpus as usize)
}

/// Bytes of metadata that let the pool be filled with the smallest slots.
pub fn small_metadata(config: &Config) -> usize {
    let slots = config.pool_size / SMALLEST_SLOT;
    metadata_bytes_with_small(window_bytes(config) as u64, config.ncpus as usize, slots)
}

static MAINTAIN: AtomicBool = AtomicBool::new(false);

/// Whether `background()` calls `maintain`. Nothing in the shim depends on it.
pub fn maintain_in_background(maintain: bool) {
    MAINTAIN.store(maintain, Ordering::Relaxed);
}

/// Which records the pool gets.
trait Records: Sized + Sync + 'static {
    const NAME: &'static CStr;
    fn place() -> &'static AtomicPtr<Shim<Self>>;
    fn bytes(config: &Config) -> usize;
}

/// `guest_shim`.
#[derive(Debug)]
enum ByDefault {}
/// `guest_shim_small`.
#[derive(Debug)]
enum ForSmallSlots {}

impl Records for ByDefault {
    const NAME: &'static CStr = c"guest_shim";

    #[inline]
    fn place() -> &'static AtomicPtr<Shim<Self>> {
        static PLACE: AtomicPtr<Shim<ByDefault>> = AtomicPtr::new(ptr::null_mut());
        &PLACE
    }

    fn bytes(config: &Config) -> usize {
        default_metadata(config)
    }
}

impl Records for ForSmallSlots {
    const NAME: &'static CStr = c"guest_shim_small";

    #[inline]
    fn place() -> &'static AtomicPtr<Shim<Self>> {
        static PLACE: AtomicPtr<Shim<ForSmallSlots>> = AtomicPtr::new(ptr::null_mut());
        &PLACE
    }

    fn bytes(config: &Config) -> usize {
        small_metadata(config)
    }
}

/// The interface has no way to say this, and going on would measure something else.
#[cold]
fn refused(what: &str, bus: u64, length: usize, cause: impl Display) -> ! {
    eprintln!("guest_shim: {what} of {bus:#x}, {length} bytes, refused: {cause}");
    std::process::abort();
}

#[inline]
const fn direction_of(direction: c_int) -> Direction {
    match direction {
        direction::TO_DEVICE => Direction::ToDevice,
        direction::FROM_DEVICE => Direction::FromDevice,
        _ => Direction::Bidirectional,
    }
}

impl<R: Records> Implementation for Shim<R> {
    const NAME: &'static CStr = R::NAME;

    #[inline]
    fn place() -> &'static AtomicPtr<Self> {
        R::place()
    }

    fn start(config: &Config) -> Result<Self, String> {
        let area = Box::into_raw(vec![0; R::bytes(config)].into_boxed_slice());
        let owner = Metadata(area);
        // SAFETY: The only reference; the box is freed after the pool, see `Metadata`.
        let area: &'static mut [u8] = unsafe { &mut *area };
        let pool = Pool::attach(Kernel::new(config), area, pool_config(config))
            .map_err(|error| format!("no pool: {error}"))?;
        Ok(Self {
            growths_at_attach: pool.statistics().growths,
            pool,
            config: *config,
            _metadata: owner,
            records: PhantomData,
        })
    }

    #[inline]
    fn config(&self) -> &Config {
        &self.config
    }

    #[inline]
    unsafe fn map(
        &self,
        original: *mut u8,
        length: usize,
        direction: c_int,
        align_mask: u32,
    ) -> Option<u64> {
        let buffer = NonNull::slice_from_raw_parts(NonNull::new(original)?, length);
        let constraints = Constraints {
            min_align_mask: self.config.min_align_mask.into(),
            alignment: u64::from(align_mask) + 1,
            ..Constraints::NONE
        };
        let direction = direction_of(direction);
        // SAFETY: The caller's contract. The buffer may be mapped several times at once, like any memory that several
        // requests of a driver refer to.
        let mapping = unsafe { self.pool.map(buffer, direction, CopyIn::Keep, &constraints) };
        mapping.ok().map(|mapping| mapping.address())
    }

    #[inline]
    unsafe fn unmap(&self, bus: u64, length: usize, direction: c_int) {
        let unmapped = self
            .pool
            .unmap_address(bus, length as u64, direction_of(direction));
        if let Err(cause) = unmapped {
            refused("unmap", bus, length, cause);
        }
    }

    unsafe fn sync(&self, bus: u64, length: usize, direction: c_int) {
        let synced = match direction {
            direction::TO_DEVICE => self.pool.sync_address_for_device(bus, length as u64),
            _ => self.pool.sync_address_for_cpu(bus, length as u64),
        };
        if let Err(cause) = synced {
            refused("sync", bus, length, cause);
        }
    }

    fn background(&self) -> c_int {
        if !MAINTAIN.load(Ordering::Relaxed) {
            return 0;
        }
        let given = self.pool.maintain();
        c_int::try_from(given.released_bytes / guest_shim::CHUNK_BYTES).unwrap_or(c_int::MAX)
    }

    fn stats(&self) -> Stats {
        let statistics = self.pool.statistics();
        Stats {
            pool_bytes: statistics.granted_bytes,
            used_bytes: statistics.used_bytes,
            meta_bytes: statistics.metadata_bytes,
            grown_pools: statistics.growths - self.growths_at_attach,
            // The shim has no emergency path, defers no free and has no heap.
            transient_maps: 0,
            pending_free: 0,
            map_allocs: 0,
        }
    }
}

/// With the default metadata.
pub static OPERATIONS: Operations = operations::<Shim<ByDefault>>();
/// With records for a pool full of 64-byte slots.
pub static OPERATIONS_SMALL: Operations = operations::<Shim<ForSmallSlots>>();
