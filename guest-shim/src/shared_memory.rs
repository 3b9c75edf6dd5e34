// SPDX-License-Identifier: MIT OR Apache-2.0
//! The only file that touches pool memory (invariant S1).
//!
//! The host and its devices may write any byte here at any moment. So there is never a Rust reference to it, and every
//! access is volatile or one instruction that the compiler cannot see through: it may neither read a byte twice, which
//! would hand an attacker two different values, nor look at the pool again after a copy.

use core::mem::MaybeUninit;
use core::ptr::NonNull;

use snp::instructions::copy_bytes;

/// Where the guest has mapped the window.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WindowView(NonNull<u8>);

// SAFETY: The pointer is only used for volatile accesses through this file; the platform contract keeps the mapping
// alive and equal on all CPUs.
unsafe impl Send for WindowView {}
// SAFETY: As above.
unsafe impl Sync for WindowView {}

impl WindowView {
    /// A view of the whole window.
    ///
    /// # Safety
    /// `base` is what [`Platform::translate`](crate::Platform::translate) returned for all of the window.
    pub const unsafe fn new(base: NonNull<u8>) -> Self {
        Self(base)
    }

    /// The pointer to a byte of the window.
    ///
    /// # Safety
    /// `offset` is at most the window's size.
    pub const unsafe fn at(self, offset: usize) -> NonNull<u8> {
        // SAFETY: Within the one mapping that the contract of `new` names.
        unsafe { self.0.add(offset) }
    }
}

/// A word that carries whatever the bytes are, padding of a driver's structure included.
type Word = MaybeUninit<u64>;
const WORD: usize = size_of::<Word>();

/// Up to here a loop over words is faster than the start of `rep movsb`, and an interpreter of Rust has no other way.
const LONGEST_LOOP: usize = if cfg!(miri) { usize::MAX } else { 128 };

/// Copies into the pool, in aligned words where the pool address allows it.
///
/// # Safety
/// `buffer` is valid for reads and `pool` is pool memory, both for `bytes` bytes.
pub(crate) unsafe fn copy_to_pool(pool: NonNull<u8>, buffer: *const u8, bytes: usize) {
    if bytes > LONGEST_LOOP {
        // SAFETY: The caller's contract; a buffer is private memory, so it does not overlap the pool.
        return unsafe { copy_bytes(pool.as_ptr(), buffer, bytes) };
    }
    let (words_from, words_to) = aligned_part(pool, bytes);
    // SAFETY: All offsets are below `bytes`; words are aligned on the pool's side by `aligned_part`, and the private
    // side is read without alignment.
    unsafe {
        for at in (0..words_from).chain(words_to..bytes) {
            // A byte may be padding of a driver's structure, so it is carried as possibly uninitialised.
            let byte = buffer.add(at).cast::<MaybeUninit<u8>>().read();
            pool.add(at).cast::<MaybeUninit<u8>>().write_volatile(byte);
        }
        for at in (words_from..words_to).step_by(WORD) {
            let word = buffer.add(at).cast::<Word>().read_unaligned();
            pool.add(at).cast::<Word>().write_volatile(word);
        }
    }
}

/// Copies out of the pool, reading every byte once.
///
/// # Safety
/// `buffer` is valid for writes and `pool` is pool memory, both for `bytes` bytes.
pub(crate) unsafe fn copy_from_pool(buffer: *mut u8, pool: NonNull<u8>, bytes: usize) {
    if bytes > LONGEST_LOOP {
        // SAFETY: As in `copy_to_pool`.
        return unsafe { copy_bytes(buffer, pool.as_ptr(), bytes) };
    }
    let (words_from, words_to) = aligned_part(pool, bytes);
    // SAFETY: As in `copy_to_pool`, with the sides exchanged.
    unsafe {
        for at in (0..words_from).chain(words_to..bytes) {
            buffer.add(at).write(pool.add(at).read_volatile());
        }
        for at in (words_from..words_to).step_by(WORD) {
            let word = pool.add(at).cast::<Word>().read_volatile();
            buffer.add(at).cast::<Word>().write_unaligned(word);
        }
    }
}

/// The part of a range that is whole, aligned words on the pool's side; offsets of its begin and end.
fn aligned_part(pool: NonNull<u8>, bytes: usize) -> (usize, usize) {
    let head = (pool.addr().get().wrapping_neg() % WORD).min(bytes);
    (head, bytes - (bytes - head) % WORD)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    #[test]
    fn copies_move_exactly_the_bytes_at_every_phase() {
        let source: Vec<u8> = (1..=255).collect();
        for phase in 0..9 {
            for length in (0..40).chain(LONGEST_LOOP.min(200) - 1..LONGEST_LOOP.min(200) + 9) {
                let mut pool = std::vec![0xee_u8; 256];
                let mut back = std::vec![0xdd_u8; 256];
                let at = NonNull::new(pool.as_mut_ptr().wrapping_add(phase)).unwrap();
                // SAFETY: phase + length and 5 + length stay below 255 bytes on all sides.
                unsafe {
                    copy_to_pool(at, source.as_ptr().add(3), length);
                    copy_from_pool(back.as_mut_ptr().add(5), at, length);
                }
                assert_eq!(&pool[phase..phase + length], &source[3..3 + length]);
                assert!(
                    pool[..phase]
                        .iter()
                        .chain(&pool[phase + length..])
                        .all(|&byte| byte == 0xee)
                );
                assert_eq!(&back[5..5 + length], &source[3..3 + length]);
                assert!(
                    back[..5]
                        .iter()
                        .chain(&back[5 + length..])
                        .all(|&byte| byte == 0xdd)
                );
            }
        }
    }
}
