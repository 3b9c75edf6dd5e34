// SPDX-License-Identifier: MIT OR Apache-2.0
//! From measured quantities to counts, in one place.

/// The whole part of a quantity; 0 for negative ones.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a cast from a float saturates, which is what is wanted"
)]
pub const fn whole(quantity: f64) -> usize {
    quantity as usize
}

/// The number of a CPU or thread as the interface wants it.
///
/// # Panics
/// Above 2^31, which no machine has.
pub fn cpu_number(index: usize) -> u32 {
    u32::try_from(index).expect("a CPU number has 32 bits")
}
