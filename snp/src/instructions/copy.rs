// SPDX-License-Identifier: MIT OR Apache-2.0
//! A copy between private and shared memory that the compiler cannot look into.

use core::arch::asm;

/// Copies `bytes` bytes from `source` to `target`, each byte read once and written once.
///
/// The other side may change shared memory at any moment. Were this `memcpy`, the compiler could read the shared side a
/// second time instead of the copy, which would hand an attacker two different values for one check (it forwards
/// copies of copies). `rep movsb` is one instruction, and fast from a few dozen bytes on where CPUID reports ERMS and
/// FSRM, as every processor with SEV-SNP does (AMD 24594, MOVS; fast short REP MOVSB).
///
/// # Safety
/// 1. `source` is readable and `target` writable for `bytes` bytes, and they do not overlap.
/// 2. No Rust reference to the shared side exists, and none to the private side that conflicts with the access.
/// 3. The direction flag is clear, as the calling conventions have it.
#[inline]
pub unsafe fn copy_bytes(target: *mut u8, source: *const u8, bytes: usize) {
    // SAFETY: The caller's contract; the three registers are all that the instruction changes.
    unsafe {
        asm!(
            "rep movsb",
            inout("rcx") bytes => _,
            inout("rdi") target => _,
            inout("rsi") source => _,
            options(nostack, preserves_flags)
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_the_bytes_move() {
        let source: [u8; 300] = core::array::from_fn(|at| (at % 251).try_into().unwrap());
        for (offset, bytes) in [(0, 0), (0, 1), (3, 64), (7, 255), (0, 300)] {
            let mut target = [0; 302];
            // SAFETY: Both parts lie in their arrays.
            unsafe {
                copy_bytes(
                    target.as_mut_ptr().add(1),
                    source.as_ptr().add(offset),
                    bytes.min(300 - offset),
                );
            };
            let bytes = bytes.min(300 - offset);
            assert_eq!(target[1..=bytes], source[offset..offset + bytes]);
            assert_eq!(target[0], 0);
            assert!(target[bytes + 1..].iter().all(|byte| *byte == 0));
        }
    }
}
