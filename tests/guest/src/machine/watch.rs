// SPDX-License-Identifier: MIT OR Apache-2.0
//! A page that one vCPU reads while another converts it: the promise of the flush (docs/PROTOCOL.md, P-5.9.5).
//!
//! On a right machine the reader faults, which ends the VM with a report of the host's. On one that leaves the reader's
//! translation alone it goes on reading, and this says so.

use core::hint::spin_loop;
use core::sync::atomic::{AtomicU64, Ordering};

use guest_shim::ConvertList;
use guest_shim::virtio::GlobalPool;
use snp::address::{PAGE_SIZE, PageSize};
use test_guest::arena::Range;
use test_guest::stop::Stop;

use super::calling::GuestPool;
use super::ending::fail;
use super::memory::{ExchangePage, copy_from};
use super::processor::time_stamp;
use super::team;

/// Reads that show that a vCPU is at it.
const ENOUGH: u64 = 1000;
/// Ticks that the reader has: some ten seconds.
const PATIENCE: u64 = 30_000_000_000;
/// What the page holds while it is private.
const SECRET: u64 = 0x5ec2_e75e_c2e7_5ec2;

/// The page.
static PAGE: AtomicU64 = AtomicU64::new(0);
/// Times that the reader has found the secret there.
static READS: AtomicU64 = AtomicU64::new(0);

static mut LIST: ConvertList = ConvertList::new();

/// Converts the first page of `area`, which is accepted and nobody's, under the eyes of vCPU 1. Returns when the reader
/// neither reads nor faults.
pub fn run(cpus: usize, area: Range) {
    if cpus < 2 {
        fail(Stop::Vcpu, format_args!("the reader needs a second vCPU"));
    }
    // SAFETY: The page is private and holds no object.
    unsafe { ExchangePage::new(area.start) }.write(&SECRET.to_le_bytes());
    PAGE.store(area.start, Ordering::Relaxed);
    team::run_on_all(cpus, watch);
}

fn watch(number: usize) {
    match number {
        0 => convert(),
        1 => read(),
        _ => {}
    }
}

/// Whether the reader found the secret often from now on.
fn is_read() -> bool {
    let (from, first) = (time_stamp(), READS.load(Ordering::Relaxed));
    while READS.load(Ordering::Relaxed) < first + ENOUGH {
        if time_stamp().wrapping_sub(from) > PATIENCE {
            return false;
        }
        spin_loop();
    }
    true
}

fn convert() {
    if !is_read() {
        fail(Stop::Vcpu, format_args!("the reader does not read"));
    }
    let raw = &raw mut LIST;
    // SAFETY: Only this function names it, and only on the boot vCPU.
    let list = unsafe { &mut *raw };
    list.push(PAGE.load(Ordering::Relaxed), PageSize::Size4K, true);
    // SAFETY: The list lies in the image, which is mapped one to one. That the page is being read is what this is about:
    // by a volatile copy, into a number.
    if let Err(error) = unsafe { GuestPool::pool().convert(list, raw as u64) } {
        fail(Stop::SelfTest, format_args!("{error}"));
    }
    if is_read() {
        fail(
            Stop::Stale,
            format_args!("vCPU 1 reads a private page that was converted to shared"),
        );
    }
}

/// Reads as long as the secret is there.
fn read() {
    let page = PAGE.load(Ordering::Relaxed);
    debug_assert!(page.is_multiple_of(PAGE_SIZE));
    let mut value = SECRET;
    while value == SECRET {
        // SAFETY: A page of RAM, mapped; one that is not the guest's faults.
        value = unsafe { copy_from(page) };
        core::sync::atomic::compiler_fence(Ordering::SeqCst);
        READS.fetch_add(1, Ordering::Relaxed);
    }
}
