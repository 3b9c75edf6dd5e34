// SPDX-License-Identifier: MIT OR Apache-2.0
//! A pass over a disk with many requests in flight, consumed in the order of the disk.
//!
//! Slots form a ring. Requests start at the head; they finish in any order; the consumer (a hash,
//! or the writer of a copy) takes them from the tail once they are done, so it sees the bytes in
//! order although the device does not keep it.

use core::fmt;

use crate::request_plan::{MAX_DEPTH, MAX_REQUEST_BYTES, Request, RequestPlan};

/// Names a request the device has not finished yet.
pub type Token = u16;

/// A disk, as far as a pass needs it. A slot is the number of a buffer, below [`MAX_DEPTH`].
pub trait Disk {
    /// Why a request failed.
    type Error: fmt::Debug;
    /// Longest request the device takes, a multiple of its blocks, at most [`MAX_REQUEST_BYTES`].
    fn largest_request(&self) -> u64 {
        MAX_REQUEST_BYTES
    }
    /// Starts a request on a free slot.
    ///
    /// # Errors
    /// The driver's error; the slot stays free.
    fn start(&mut self, slot: usize, request: Request) -> Result<Token, Self::Error>;
    /// The next finished request, if there is one. The device names it: the token may be anything.
    ///
    /// # Errors
    /// The driver's error.
    fn finished(&mut self) -> Result<Option<Token>, Self::Error>;
    /// Ends a finished request; its slot's buffer is the caller's again.
    ///
    /// # Errors
    /// The driver's or the device's error.
    fn complete(&mut self, slot: usize, token: Token) -> Result<(), Self::Error>;
}

impl<D: Disk> Disk for &mut D {
    type Error = D::Error;

    fn largest_request(&self) -> u64 {
        (**self).largest_request()
    }

    fn start(&mut self, slot: usize, request: Request) -> Result<Token, Self::Error> {
        (**self).start(slot, request)
    }

    fn finished(&mut self) -> Result<Option<Token>, Self::Error> {
        (**self).finished()
    }

    fn complete(&mut self, slot: usize, token: Token) -> Result<(), Self::Error> {
        (**self).complete(slot, token)
    }
}

/// Who uses the bytes of a pass, and watches it.
pub trait PassObserver {
    /// Called with each request in the order of the disk; the data are in the slot's buffer.
    fn consume(&mut self, slot: usize, request: Request);
    /// How many requests may be in flight, at most [`MAX_DEPTH`], when `done` bytes are consumed.
    fn depth(&mut self, done: u64) -> usize;
    /// Called after each consumed request.
    fn progress(&mut self, done: u64);
}

/// Why a pass ended early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PassError<E> {
    /// A request failed.
    Disk(E),
    /// The device finished a request that was not in flight.
    UnknownToken(Token),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SlotState {
    Free,
    InFlight(Token, Request),
    Done(Request),
}

/// A pass under way: it is moved on step by step, so that several of them share a processor.
#[derive(Debug, Clone)]
pub struct Pass {
    plan: RequestPlan,
    waiting: Option<Request>,
    slots: [SlotState; MAX_DEPTH],
    head: usize,
    in_ring: usize,
    done: u64,
    bytes: u64,
}

impl Pass {
    /// A pass over the first `bytes` bytes of a disk whose requests have at most `largest` bytes.
    #[must_use]
    pub fn new(bytes: u64, largest: u64) -> Self {
        let mut plan = RequestPlan::limited(bytes, largest);
        Self {
            waiting: plan.next(),
            plan,
            slots: [SlotState::Free; MAX_DEPTH],
            head: 0,
            in_ring: 0,
            done: 0,
            bytes,
        }
    }

    /// Starts what may be started, ends what the device has finished, and hands on what is next in
    /// order, one request at most.
    /// Never waits. True once every byte was handed on.
    ///
    /// # Errors
    /// [`PassError`]; requests may be in flight then, so the device has to be reset.
    pub fn step<D: Disk>(
        &mut self,
        disk: &mut D,
        observer: &mut impl PassObserver,
    ) -> Result<bool, PassError<D::Error>> {
        let depth = observer.depth(self.done).clamp(1, MAX_DEPTH);
        while self.in_ring < depth
            && let Some(request) = self.waiting
        {
            let token = disk.start(self.head, request).map_err(PassError::Disk)?;
            put(
                &mut self.slots,
                self.head,
                SlotState::InFlight(token, request),
            );
            self.head = (self.head + 1) % MAX_DEPTH;
            self.in_ring += 1;
            self.waiting = self.plan.next();
        }
        collect(disk, &mut self.slots)?;
        // One at a time: who watches may take long over it, and others are to have their turn.
        let tail = (self.head + MAX_DEPTH - self.in_ring) % MAX_DEPTH;
        if let Some(&SlotState::Done(request)) = self.slots.get(tail) {
            observer.consume(tail, request);
            put(&mut self.slots, tail, SlotState::Free);
            self.in_ring -= 1;
            self.done += request.bytes;
            observer.progress(self.done);
        }
        Ok(self.done >= self.bytes)
    }
}

/// Moves `bytes` bytes between `disk` and the slots' buffers.
///
/// # Errors
/// [`PassError`]; requests may be in flight then, so the device has to be reset.
pub fn run_pass<D: Disk>(
    disk: &mut D,
    observer: &mut impl PassObserver,
    bytes: u64,
) -> Result<(), PassError<D::Error>> {
    let mut pass = Pass::new(bytes, disk.largest_request());
    while !pass.step(disk, observer)? {
        core::hint::spin_loop();
    }
    Ok(())
}

fn put(slots: &mut [SlotState], index: usize, state: SlotState) {
    if let Some(slot) = slots.get_mut(index) {
        *slot = state;
    }
}

/// Ends every request that the device has finished.
fn collect<D: Disk>(
    disk: &mut D,
    slots: &mut [SlotState; MAX_DEPTH],
) -> Result<(), PassError<D::Error>> {
    while let Some(token) = disk.finished().map_err(PassError::Disk)? {
        let found = slots
            .iter_mut()
            .enumerate()
            .find_map(|(index, state)| match *state {
                SlotState::InFlight(own, request) if own == token => Some((index, state, request)),
                _ => None,
            });
        let (index, state, request) = found.ok_or(PassError::UnknownToken(token))?;
        disk.complete(index, token).map_err(PassError::Disk)?;
        *state = SlotState::Done(request);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::vec::Vec;

    /// Finishes the youngest request first, some at a time.
    #[derive(Default)]
    struct Backwards {
        in_flight: BTreeMap<Token, (usize, Request)>,
        most: usize,
        turn: u32,
        next: Token,
        lie: bool,
        fail_at: Option<u64>,
    }

    impl Disk for Backwards {
        type Error = &'static str;
        fn start(&mut self, slot: usize, request: Request) -> Result<Token, Self::Error> {
            assert!(
                self.in_flight.values().all(|(used, _)| *used != slot),
                "slot in use"
            );
            self.next += 1;
            self.in_flight.insert(self.next, (slot, request));
            self.most = self.most.max(self.in_flight.len());
            Ok(self.next)
        }
        fn finished(&mut self) -> Result<Option<Token>, Self::Error> {
            self.turn += 1;
            if self.lie {
                return Ok(Some(999));
            }
            let youngest = self.in_flight.keys().next_back().copied();
            Ok(if self.turn.is_multiple_of(3) {
                None
            } else {
                youngest
            })
        }
        fn complete(&mut self, slot: usize, token: Token) -> Result<(), Self::Error> {
            let (expected, request) = self.in_flight.remove(&token).expect("in flight");
            assert_eq!(slot, expected);
            if self.fail_at == Some(request.offset) {
                Err("I/O error")
            } else {
                Ok(())
            }
        }
    }

    struct Log {
        offsets: Vec<u64>,
        done: u64,
        depth: usize,
    }

    impl PassObserver for Log {
        fn consume(&mut self, slot: usize, request: Request) {
            assert!(slot < MAX_DEPTH);
            self.offsets.push(request.offset);
        }
        fn depth(&mut self, _done: u64) -> usize {
            self.depth
        }
        fn progress(&mut self, done: u64) {
            assert!(done > self.done);
            self.done = done;
        }
    }

    const BYTES: u64 = (20 << 20) + 512;

    fn run(disk: &mut Backwards, depth: usize) -> (Result<(), PassError<&'static str>>, Log) {
        let mut log = Log {
            offsets: Vec::new(),
            done: 0,
            depth,
        };
        let result = run_pass(disk, &mut log, BYTES);
        (result, log)
    }

    #[test]
    fn bytes_come_in_order_whatever_the_device_does() {
        let mut disk = Backwards::default();
        let (result, log) = run(&mut disk, usize::MAX);
        assert_eq!((result, log.done, disk.most), (Ok(()), BYTES, MAX_DEPTH));
        let planned: Vec<_> = RequestPlan::new(BYTES)
            .map(|request| request.offset)
            .collect();
        assert_eq!(log.offsets, planned);
    }

    #[test]
    fn the_depth_is_kept() {
        let mut disk = Backwards::default();
        assert_eq!(run(&mut disk, 3).0, Ok(()));
        assert_eq!(disk.most, 3);
    }

    #[test]
    fn two_passes_take_turns() {
        let log = || Log {
            offsets: Vec::new(),
            done: 0,
            depth: 4,
        };
        let mut parts = [(); 2].map(|()| {
            let pass = Pass::new(BYTES, 256 << 10);
            (pass, Backwards::default(), log(), false)
        });
        while parts.iter().any(|(.., done)| !done) {
            for (pass, disk, log, done) in &mut parts {
                *done = *done || pass.step(disk, log).expect("good device");
            }
        }
        let planned: Vec<_> = RequestPlan::limited(BYTES, 256 << 10)
            .map(|request| request.offset)
            .collect();
        assert!(parts.iter().all(|(_, _, log, _)| log.offsets == planned));
    }

    #[test]
    fn a_device_that_lies_or_fails_ends_the_pass() {
        let mut liar = Backwards {
            lie: true,
            ..Backwards::default()
        };
        assert_eq!(run(&mut liar, 4).0, Err(PassError::UnknownToken(999)));
        let mut broken = Backwards {
            fail_at: Some(4096),
            ..Backwards::default()
        };
        assert_eq!(run(&mut broken, 4).0, Err(PassError::Disk("I/O error")));
    }
}
