// SPDX-License-Identifier: MIT OR Apache-2.0
//! What processors share in the service, in every order of accesses that the memory model allows (`make test-loom`).
//!
//! Each test is a model that loom runs once for each interleaving, with stale values where an ordering permits them.
//! A [`Guarded`] is what a holder touches: a touch that the records do not order gets lost.
#![cfg(loom)]

mod chunks;
mod epochs;
mod pages;
mod trace;

use std::sync::Arc;

use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use protocol::{CHUNK_BYTES, Epoch, Generation, Holder};
use snp::address::GuestPhysicalAddress;
use svsm_swiotlb::pool::{ChunkRecords, GrowWish, Pool, Window};

const HOLDER: Holder = Holder {
    epoch: Epoch::FIRST,
    generation: Generation::FIRST,
};

const BASE: GuestPhysicalAddress = GuestPhysicalAddress::new(0x4000_0000);

/// Something that only the holder of a record may touch: two steps without an order of their own.
#[derive(Clone)]
struct Guarded(Arc<AtomicU32>);

impl Guarded {
    fn new() -> Self {
        Self(Arc::new(AtomicU32::new(0)))
    }

    /// Lost when another touches it meanwhile, or when the record does not order what the last holder did before.
    fn touch(&self) {
        let touches = self.0.load(Ordering::Relaxed);
        self.0.store(touches + 1, Ordering::Relaxed);
    }

    /// Once all threads have ended.
    fn touches(&self) -> u64 {
        self.0.load(Ordering::Relaxed).into()
    }
}

/// A fresh pool. Leaked: loom's threads outlive what is on a stack.
fn pool(chunks: u64, cap: u64) -> &'static Pool<'static> {
    let words: Vec<AtomicU64> = (0..chunks).map(|_| AtomicU64::new(0)).collect();
    let window = Window::new(BASE, chunks * CHUNK_BYTES).unwrap();
    let pool = Pool::new(window, ChunkRecords::new(words.leak()), cap * CHUNK_BYTES).unwrap();
    Box::leak(Box::new(pool))
}

fn wish(least: usize, most: usize, contiguous: bool) -> GrowWish {
    GrowWish {
        least,
        most,
        contiguous,
    }
}

/// Of the chunk at an address.
fn number(base: GuestPhysicalAddress) -> usize {
    usize::try_from((base.bits() - BASE.bits()) / CHUNK_BYTES).unwrap()
}

fn granted(pool: &Pool<'_>) -> u64 {
    pool.accounts().granted_bytes() / CHUNK_BYTES
}
