// SPDX-License-Identifier: MIT OR Apache-2.0
//! Raw access to the guest's private pages, by their addresses.
//!
//! The guest maps its memory one to one, so an address is a pointer. Pages that the SVSM reads and
//! writes as well are only touched by volatile copies.

use zerocopy::{FromBytes, IntoBytes};

use snp::address::PAGE_SIZE;
use test_guest::arena::{Arena, Range};
use test_guest::page_table::{Access, TableMemory};
use test_guest::request_plan::{MAX_DEPTH, MAX_REQUEST_BYTES};

/// Copies a structure out of memory at `address`.
///
/// # Safety
/// `size_of::<T>()` bytes at `address` are mapped and written by nobody meanwhile.
pub unsafe fn copy_from<T: FromBytes>(address: u64) -> T {
    // SAFETY: The caller vouches for the memory; any bytes are a `T`.
    unsafe { (address as *const T).read_unaligned() }
}

/// `count` structures in a row at `address`.
///
/// # Safety
/// They begin with a page, are mapped, and nobody ever writes to them.
pub unsafe fn array<T: FromBytes>(address: u64, count: usize) -> &'static [T] {
    // SAFETY: The caller vouches for the memory; any bytes are a `T`. A page is aligned for all of them.
    unsafe { core::slice::from_raw_parts(address as *const T, count) }
}

/// The guest's image by its linker script: the whole, and its parts by access.
pub fn image() -> (Range, [(Range, Access); 3]) {
    unsafe extern "C" {
        static image_start: u8;
        static constants_start: u8;
        static data_start: u8;
        static image_end: u8;
    }
    let [start, constants, data, end] = [
        &raw const image_start,
        &raw const constants_start,
        &raw const data_start,
        &raw const image_end,
    ]
    .map(|symbol| symbol as u64);
    let parts = [
        (Range::new(start, constants), Access::CODE),
        (Range::new(constants, data), Access::CONSTANTS),
        (Range::new(data, end), Access::DATA),
    ];
    (Range::new(start, end), parts)
}

/// A private page that the SVSM may read or write during a call.
#[derive(Debug, Clone, Copy)]
pub struct ExchangePage {
    address: u64,
}

impl ExchangePage {
    /// The page at `address`.
    ///
    /// # Safety
    /// It is mapped, private, writable, and no Rust object lies in it.
    pub const unsafe fn new(address: u64) -> Self {
        Self { address }
    }

    /// Its address.
    pub const fn address(&self) -> u64 {
        self.address
    }

    /// Copies `bytes` to its beginning; what does not fit is left out.
    pub fn write(&self, bytes: &[u8]) {
        for (offset, byte) in (0..PAGE_SIZE).zip(bytes) {
            // SAFETY: The offset is below the page size; `new` vouches for the page.
            unsafe { ((self.address + offset) as *mut u8).write_volatile(*byte) };
        }
    }

    /// Copies its beginning out.
    pub fn read(&self, bytes: &mut [u8]) {
        for (offset, byte) in (0..PAGE_SIZE).zip(bytes) {
            // SAFETY: As in `write`.
            *byte = unsafe { ((self.address + offset) as *const u8).read_volatile() };
        }
    }
}

/// Bytes of a page as an index.
pub const PAGE_BYTES: usize = 4096;
const _: () = assert!(PAGE_BYTES as u64 == PAGE_SIZE);

/// Memory of the page that [`exchange_page`] names; only its address is used.
#[repr(C, align(4096))]
struct PageMemory([u8; PAGE_BYTES]);

static mut EXCHANGE: PageMemory = PageMemory([0; PAGE_BYTES]);

/// The page in the guest's image that lists for the SVSM are written in. It is part of the launch,
/// so it is usable before any RAM is accepted.
pub fn exchange_page() -> ExchangePage {
    // SAFETY: The page is static and private, and nothing else uses it as an object.
    unsafe { ExchangePage::new(&raw const EXCHANGE as u64) }
}

/// Page tables in private memory, taken from an arena.
#[derive(Debug)]
pub struct Tables<'a> {
    arena: &'a mut Arena,
}

impl<'a> Tables<'a> {
    /// Tables from `arena`.
    ///
    /// # Safety
    /// Its memory is mapped one to one, private and writable, and stays so while tables are built.
    pub unsafe fn new(arena: &'a mut Arena) -> Self {
        Self { arena }
    }
}

impl TableMemory for Tables<'_> {
    fn new_table(&mut self) -> Option<u64> {
        let page = self.arena.take(PAGE_SIZE, PAGE_SIZE)?;
        // SAFETY: The arena handed the page to us alone; `new` vouches for the mapping.
        unsafe { (page.start as *mut u8).write_bytes(0, PAGE_BYTES) };
        Some(page.start)
    }

    fn read(&self, table: u64, index: usize) -> u64 {
        // SAFETY: `table` came from `new_table`, the index is below 512.
        unsafe { (table as *const u64).add(index % 512).read_volatile() }
    }

    fn write(&mut self, table: u64, index: usize, entry: u64) {
        // SAFETY: As in `read`.
        unsafe { (table as *mut u64).add(index % 512).write_volatile(entry) };
    }
}

/// Hands a part of the arena out as bytes for good, zeroed.
///
/// # Safety
/// The arena's memory is mapped one to one, private and writable for ever.
pub unsafe fn leak_bytes(arena: &mut Arena, bytes: u64) -> Option<&'static mut [u8]> {
    let part = arena.take(bytes, PAGE_SIZE)?;
    let length = usize::try_from(bytes).ok()?;
    // SAFETY: The arena handed the part to us alone and never takes it back.
    unsafe {
        (part.start as *mut u8).write_bytes(0, length);
        Some(core::slice::from_raw_parts_mut(
            part.start as *mut u8,
            length,
        ))
    }
}

/// Buffers of the requests in flight: one of [`MAX_REQUEST_BYTES`] for each slot.
#[derive(Debug, Clone, Copy)]
pub struct Buffers {
    base: u64,
}

impl Buffers {
    /// Bytes of all buffers.
    pub const BYTES: u64 = MAX_DEPTH as u64 * MAX_REQUEST_BYTES;

    /// Buffers in `memory`.
    pub fn new(memory: &'static mut [u8]) -> Option<Self> {
        (memory.len() as u64 >= Self::BYTES).then_some(Self {
            base: memory.as_ptr() as u64,
        })
    }

    /// The first `bytes` bytes of a slot's buffer.
    ///
    /// # Safety
    /// While the result is used nobody else uses the slot: no request is in flight on it and no
    /// other result for it exists.
    pub unsafe fn slot(&self, slot: usize, bytes: usize) -> &'static mut [u8] {
        assert!(
            slot < MAX_DEPTH && bytes as u64 <= MAX_REQUEST_BYTES,
            "slot out of range"
        );
        let address = self.base + slot as u64 * MAX_REQUEST_BYTES;
        // SAFETY: The slot lies in the buffers, which are ours for ever; the caller vouches that
        // nobody else uses it now.
        unsafe { core::slice::from_raw_parts_mut(address as *mut u8, bytes) }
    }
}

/// Fills a private page with a pattern that depends on its address.
pub fn fill_pattern(page: ExchangePage) {
    let bytes: [u64; PAGE_BYTES / 8] = core::array::from_fn(|index| pattern(page, index));
    page.write(bytes.as_bytes());
}

/// Whether the page still holds its pattern.
pub fn has_pattern(page: ExchangePage) -> bool {
    let mut bytes = [0_u64; PAGE_BYTES / 8];
    page.read(bytes.as_mut_bytes());
    bytes
        .iter()
        .enumerate()
        .all(|(index, word)| *word == pattern(page, index))
}

const fn pattern(page: ExchangePage, index: usize) -> u64 {
    (page.address + index as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}
