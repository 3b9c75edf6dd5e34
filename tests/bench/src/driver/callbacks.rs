// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the driver lends to an allocator. The interface passes no context, so this is state of the program; a
//! [`Session`](super::Session) makes sure that one allocator at a time uses it.

use std::cell::Cell;
use std::ffi::{c_int, c_void};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::clock::stamp;
use super::memory::ARENA_BYTES;

/// Orders that `put_pages` takes back.
const ORDERS: usize = 12;

std::thread_local! {
    static CPU: Cell<u32> = const { Cell::new(0) };
}

/// The calling thread stands for this CPU.
pub fn set_cpu(cpu: u32) {
    CPU.set(cpu);
}

/// `cfg.this_cpu`.
pub extern "C" fn this_cpu() -> u32 {
    CPU.get()
}

/// `cfg.copy` by the processor's own string move.
pub extern "C" fn copy_string_move(to: *mut c_void, from: *const c_void, bytes: usize) {
    // SAFETY: By the interface both sides are valid for so many bytes and apart.
    unsafe {
        std::arch::asm!(
            "rep movsb",
            inout("rdi") to => _,
            inout("rsi") from => _,
            inout("rcx") bytes => _,
            options(nostack, preserves_flags)
        );
    }
}

/// `cfg.copy` by the C library.
pub extern "C" fn copy_library(to: *mut c_void, from: *const c_void, bytes: usize) {
    // SAFETY: By the interface both sides are valid for so many bytes and apart.
    unsafe { ptr::copy_nonoverlapping(from.cast::<u8>(), to.cast::<u8>(), bytes) }
}

/// Page-state changes that an allocator asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Conversions {
    /// Requests from `map` or `unmap`.
    pub atomic_calls: u64,
    /// Requests from deferred work.
    pub deferred_calls: u64,
    /// 4 KiB pages made shared in `map` or `unmap`.
    pub atomic_shared: u64,
    /// 4 KiB pages made private in `map` or `unmap`.
    pub atomic_private: u64,
    /// 4 KiB pages made shared by deferred work.
    pub deferred_shared: u64,
    /// 4 KiB pages made private by deferred work.
    pub deferred_private: u64,
}

static CALLS: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];
static PAGES: [[AtomicU64; 2]; 2] = [const { [const { AtomicU64::new(0) }; 2] }; 2];
/// Time-stamp ticks that a conversion of one page takes.
static TICKS_PER_PAGE: AtomicU64 = AtomicU64::new(0);
static REFUSE_CONVERSIONS: AtomicBool = AtomicBool::new(false);

/// Makes every conversion take so many ticks per page.
pub fn set_conversion_ticks(ticks_per_page: u64) {
    TICKS_PER_PAGE.store(ticks_per_page, Ordering::Relaxed);
}

/// Makes every conversion fail, or succeed again.
pub fn refuse_conversions(refuse: bool) {
    REFUSE_CONVERSIONS.store(refuse, Ordering::Relaxed);
}

/// `cfg.convert`: counts, and takes the time that was set.
pub extern "C" fn convert(
    _address: *mut c_void,
    pages: usize,
    to_shared: c_int,
    atomic: c_int,
) -> c_int {
    if REFUSE_CONVERSIONS.load(Ordering::Relaxed) {
        return -1;
    }
    let (atomic, shared) = (usize::from(atomic != 0), usize::from(to_shared != 0));
    CALLS[atomic].fetch_add(1, Ordering::Relaxed);
    PAGES[atomic][shared].fetch_add(pages as u64, Ordering::Relaxed);
    let end = stamp() + pages as u64 * TICKS_PER_PAGE.load(Ordering::Relaxed);
    while stamp() < end {
        std::hint::spin_loop();
    }
    0
}

/// The page-state changes since the session began, or since a burst began.
pub fn conversions() -> Conversions {
    let calls = |atomic: usize| CALLS[atomic].load(Ordering::Relaxed);
    let pages = |atomic: usize, shared: usize| PAGES[atomic][shared].load(Ordering::Relaxed);
    Conversions {
        atomic_calls: calls(1),
        deferred_calls: calls(0),
        atomic_shared: pages(1, 1),
        atomic_private: pages(1, 0),
        deferred_shared: pages(0, 1),
        deferred_private: pages(0, 0),
    }
}

/// Counts from zero again.
pub fn forget_conversions() {
    for count in CALLS.iter().chain(PAGES.iter().flatten()) {
        count.store(0, Ordering::Relaxed);
    }
}

/// Guest pages: taken in ascending order, given back to a list per order.
struct Arena {
    base: *mut u8,
    position: usize,
    free: [Vec<*mut u8>; ORDERS],
}

// SAFETY: Addresses only; the lock decides who hands them out.
unsafe impl Send for Arena {}

static ARENA: Mutex<Arena> = Mutex::new(Arena {
    base: ptr::null_mut(),
    position: 0,
    free: [const { Vec::new() }; ORDERS],
});

fn arena() -> MutexGuard<'static, Arena> {
    ARENA.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Forgets everything handed out before; pages come from here on.
pub fn reset_arena(base: *mut u8) {
    let mut arena = arena();
    arena.base = base;
    arena.position = 0;
    arena.free = [const { Vec::new() }; ORDERS];
}

/// `cfg.get_pages`.
pub extern "C" fn get_pages(order: u32, _atomic: c_int) -> *mut c_void {
    let mut arena = arena();
    if let Some(page) = arena.free.get_mut(order as usize).and_then(Vec::pop) {
        return page.cast();
    }
    let bytes = 4096_usize << order;
    let start = arena.position.next_multiple_of(bytes);
    if start + bytes > ARENA_BYTES {
        return ptr::null_mut();
    }
    arena.position = start + bytes;
    arena.base.wrapping_add(start).cast()
}

/// `cfg.put_pages`.
pub extern "C" fn put_pages(address: *mut c_void, order: u32) {
    if let Some(list) = arena().free.get_mut(order as usize) {
        list.push(address.cast());
    }
}
