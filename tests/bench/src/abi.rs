// SPDX-License-Identifier: MIT OR Apache-2.0
//! The interface between the driver and an allocator: the Rust mirror of `include/bb_abi.h`.

use std::ffi::{CStr, c_char, c_int, c_void};

/// The version of the interface; an allocator of another one is refused.
pub const VERSION: u32 = 2;

/// What `map` returns when there is no memory.
pub const FAIL: u64 = u64::MAX;

/// `dir`: who writes the buffer while the device owns it.
pub mod direction {
    use std::ffi::c_int;

    /// Both may.
    pub const BIDIRECTIONAL: c_int = 0;
    /// The device only reads.
    pub const TO_DEVICE: c_int = 1;
    /// The device only writes.
    pub const FROM_DEVICE: c_int = 2;
}

/// Bits of [`Config::flags`].
pub mod flags {
    /// All the book-keeping, no payload copy.
    pub const NO_COPY: u32 = 1 << 0;
    /// The pool may grow beyond [`pool_size`](super::Config::pool_size).
    pub const GROW: u32 = 1 << 1;
    /// Memory is private by default: what the pool grows by has to be converted.
    pub const CONFIDENTIAL: u32 = 1 << 2;
}

/// `struct bb_cfg`: what the driver lends to an allocator.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Config {
    /// [`VERSION`].
    pub abi: u32,
    /// See [`flags`].
    pub flags: u32,
    /// The pool: shared memory, 2 MiB aligned.
    pub pool: *mut u8,
    /// Its size in bytes.
    pub pool_size: usize,
    /// Bus address of its first byte.
    pub pool_bus: u64,
    /// CPUs of the modelled guest.
    pub ncpus: u32,
    /// Low bits of an address that the device wants preserved.
    pub min_align_mask: u32,
    /// Memory of the modelled guest in bytes.
    pub guest_ram: u64,
    /// The copy routine that every allocator has to use.
    pub copy: extern "C" fn(*mut c_void, *const c_void, usize),
    /// A page-state change of so many 4 KiB pages: address, pages, to shared, from `map` or `unmap`. 0 is success.
    pub convert: extern "C" fn(*mut c_void, usize, c_int, c_int) -> c_int,
    /// `2^order` private pages of the guest, naturally aligned; null if there are none.
    pub get_pages: extern "C" fn(u32, c_int) -> *mut c_void,
    /// Gives them back.
    pub put_pages: extern "C" fn(*mut c_void, u32),
    /// Number of the CPU that the caller runs on.
    pub this_cpu: extern "C" fn() -> u32,
}

// SAFETY: Plain values; what the pointers lead to is the driver's, which lends it to every thread.
unsafe impl Send for Config {}
// SAFETY: As above.
unsafe impl Sync for Config {}

/// `struct bb_stats`; sizes in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Stats {
    /// Capacity now.
    pub pool_bytes: u64,
    /// Not available to others, padding included.
    pub used_bytes: u64,
    /// Static and dynamic metadata.
    pub meta_bytes: u64,
    /// Mappings served by an emergency path.
    pub transient_maps: u64,
    /// Growth steps.
    pub grown_pools: u64,
    /// Waiting to be freed.
    pub pending_free: u64,
    /// Heap allocations made inside `map`.
    pub map_allocs: u64,
}

/// `struct bb_ops`: an allocator.
///
/// `map`, `unmap` and `sync` are called from several threads at a time, everything else from one.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Operations {
    /// [`VERSION`].
    pub abi: u32,
    /// Name in tables, NUL-terminated.
    pub name: *const c_char,
    /// Starts over with this configuration; 0 is success.
    pub init: unsafe extern "C" fn(*const Config) -> c_int,
    /// Ends what `init` began; nothing is mapped any more.
    pub fini: unsafe extern "C" fn(),
    /// The calling thread stands for this CPU from now on.
    pub thread_init: unsafe extern "C" fn(c_int),
    /// Maps a buffer: address, length, direction, alignment mask. Copies in, whatever the direction. Returns a bus
    /// address or [`FAIL`].
    pub map: unsafe extern "C" fn(*mut c_void, usize, c_int, u32) -> u64,
    /// Ends a mapping by bus address, length and direction; copies out unless the device only reads.
    pub unmap: unsafe extern "C" fn(u64, usize, c_int),
    /// Partial sync; the address may lie inside a mapping.
    pub sync: unsafe extern "C" fn(u64, usize, c_int),
    /// Where a bus address is mapped; for verification only.
    pub bus_to_va: unsafe extern "C" fn(u64) -> *mut c_void,
    /// Runs deferred work; how many items were done.
    pub background: unsafe extern "C" fn() -> c_int,
    /// Fills in the statistics.
    pub stats: unsafe extern "C" fn(*mut Stats),
}

// SAFETY: A table of functions and a name that nobody changes.
unsafe impl Send for Operations {}
// SAFETY: As above.
unsafe impl Sync for Operations {}

impl Operations {
    /// The name in tables.
    pub fn name(&self) -> &'static str {
        // SAFETY: By the interface a NUL-terminated string that lives as long as the allocator is loaded, which is for
        // the rest of the program.
        let name = unsafe { CStr::from_ptr(self.name) };
        name.to_str().unwrap_or("(name is not UTF-8)")
    }
}

#[cfg(test)]
mod tests {
    use std::mem::{offset_of, size_of};

    use super::*;

    /// The layout that a C compiler gives the header on x86-64.
    #[test]
    fn the_mirror_has_the_layout_of_the_header() {
        assert_eq!(size_of::<Config>(), 88);
        assert_eq!(offset_of!(Config, pool), 8);
        assert_eq!(offset_of!(Config, pool_bus), 24);
        assert_eq!(offset_of!(Config, ncpus), 32);
        assert_eq!(offset_of!(Config, min_align_mask), 36);
        assert_eq!(offset_of!(Config, guest_ram), 40);
        assert_eq!(offset_of!(Config, copy), 48);
        assert_eq!(offset_of!(Config, this_cpu), 80);
        assert_eq!(size_of::<Stats>(), 56);
        assert_eq!(offset_of!(Stats, map_allocs), 48);
        assert_eq!(size_of::<Operations>(), 88);
        assert_eq!(offset_of!(Operations, name), 8);
        assert_eq!(offset_of!(Operations, stats), 80);
    }
}
