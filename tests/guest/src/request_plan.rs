// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which requests a pass over a disk consists of, and how many of them are in flight.
//!
//! Sizes are mixed from 4 KiB to 1 MiB so that the pool serves all its size classes at once. The
//! queue is filled slowly: the depth doubles with each megabytes-long stretch, so that the pool has
//! to grow in several steps while requests are in flight, as under a load that builds up.

/// Bytes of a disk sector.
pub const SECTOR_BYTES: u64 = 512;
/// Longest request.
pub const MAX_REQUEST_BYTES: u64 = 1 << 20;
/// Most requests in flight.
pub const MAX_DEPTH: usize = 16;
/// Requests in flight at the start of the first pass.
const FIRST_DEPTH: usize = 2;
/// Bytes after which the depth doubles.
const STRETCH_BYTES: u64 = 4 << 20;

/// The pattern of request sizes in KiB, repeated over the disk; long ones stand together so that
/// many of them are in flight at once.
const SIZES_KIB: [u64; 24] = [
    4, 64, 1024, 1024, 16, 256, 1024, 8, 512, 1024, 128, 1024, 1024, 32, 1024, 768, 1024, 1024, 20,
    1024, 1024, 384, 1024, 1024,
];

/// A part of the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// First byte, a multiple of [`SECTOR_BYTES`].
    pub offset: u64,
    /// Bytes, a multiple of [`SECTOR_BYTES`], at most [`MAX_REQUEST_BYTES`].
    pub bytes: u64,
}

/// The requests of one pass, in the order of the disk: each byte once.
#[derive(Debug, Clone)]
pub struct RequestPlan {
    next: u64,
    end: u64,
    largest: u64,
    step: usize,
}

impl RequestPlan {
    /// A pass over `bytes` bytes.
    #[must_use]
    pub const fn new(bytes: u64) -> Self {
        Self::limited(bytes, MAX_REQUEST_BYTES)
    }

    /// The same for a device that takes at most `largest` bytes at once, a multiple of its blocks
    /// and not 0.
    #[must_use]
    pub const fn limited(bytes: u64, largest: u64) -> Self {
        Self {
            next: 0,
            end: bytes,
            largest,
            step: 0,
        }
    }
}

impl Iterator for RequestPlan {
    type Item = Request;

    fn next(&mut self) -> Option<Request> {
        let left = self.end.checked_sub(self.next).filter(|left| *left > 0)?;
        let wish = SIZES_KIB.get(self.step % SIZES_KIB.len())? << 10;
        let request = Request {
            offset: self.next,
            bytes: wish.min(self.largest).min(left),
        };
        self.step += 1;
        self.next += request.bytes;
        Some(request)
    }
}

/// How many requests may be in flight when `done` bytes of the first pass are done.
#[must_use]
pub fn depth_at(done: u64) -> usize {
    let doublings = u32::try_from(done / STRETCH_BYTES).unwrap_or(u32::MAX);
    FIRST_DEPTH
        .checked_shl(doublings.min(8))
        .unwrap_or(MAX_DEPTH)
        .min(MAX_DEPTH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_covers_every_byte_once_in_whole_sectors() {
        for bytes in [0, 512, 4096, 4608, 64 << 20, (64 << 20) - 512] {
            let mut next = 0;
            for request in RequestPlan::new(bytes) {
                assert_eq!(request.offset, next);
                assert!(request.bytes > 0 && request.bytes <= MAX_REQUEST_BYTES);
                assert!(request.bytes.is_multiple_of(SECTOR_BYTES));
                next += request.bytes;
            }
            assert_eq!(next, bytes);
        }
    }

    #[test]
    fn a_device_with_a_limit_gets_no_longer_request_and_still_every_byte() {
        let plan = || RequestPlan::limited(64 << 20, 512 << 10);
        assert_eq!(plan().map(|request| request.bytes).sum::<u64>(), 64 << 20);
        assert_eq!(plan().map(|request| request.bytes).max(), Some(512 << 10));
    }

    #[test]
    fn the_depth_builds_up_to_the_whole_queue() {
        assert_eq!(
            [0, 4, 8, 12, 1 << 30].map(|mib| depth_at(mib << 20)),
            [2, 4, 8, 16, 16]
        );
        assert_eq!(depth_at(u64::MAX), MAX_DEPTH);
    }

    #[test]
    fn sizes_are_mixed_and_the_queue_can_hold_several_chunks() {
        let requests: Vec<_> = RequestPlan::new(64 << 20).collect();
        assert!(requests.iter().any(|request| request.bytes == 4096));
        let in_flight = requests
            .windows(MAX_DEPTH)
            .map(|w| w.iter().map(|r| r.bytes).sum::<u64>());
        assert!(in_flight.max().expect("windows") > 8 << 20);
    }
}
