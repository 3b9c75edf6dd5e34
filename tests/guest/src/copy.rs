// SPDX-License-Identifier: MIT OR Apache-2.0
//! Two disks as one: a request is read from the first and then written to the second.

use crate::request_plan::{MAX_DEPTH, Request};
use crate::transfer::{Disk, Token};

#[derive(Debug, Clone, Copy)]
enum Stage {
    Idle,
    Reading(Token, Request),
    Writing(Token),
}

/// Why a copy failed.
#[derive(Debug)]
pub enum CopyError<S, T> {
    /// The disk that is read.
    Source(S),
    /// The disk that is written.
    Target(T),
    /// A disk finished a request that was not in flight.
    UnknownToken(Token),
}

/// Reads from `source` and writes to `target` through the same slots; its tokens are slot numbers.
#[derive(Debug)]
pub struct Copy<S, T> {
    source: S,
    target: T,
    stages: [Stage; MAX_DEPTH],
}

impl<S: Disk, T: Disk> Copy<S, T> {
    /// A copy of `source` to `target`.
    pub const fn new(source: S, target: T) -> Self {
        Self {
            source,
            target,
            stages: [Stage::Idle; MAX_DEPTH],
        }
    }

    /// Starts the write of every request whose read is done.
    fn turn_around(&mut self) -> Result<(), CopyError<S::Error, T::Error>> {
        while let Some(token) = self.source.finished().map_err(CopyError::Source)? {
            let found = self
                .stages
                .iter_mut()
                .enumerate()
                .find_map(|(slot, stage)| match *stage {
                    Stage::Reading(own, request) if own == token => Some((slot, stage, request)),
                    _ => None,
                });
            let (slot, stage, request) = found.ok_or(CopyError::UnknownToken(token))?;
            self.source
                .complete(slot, token)
                .map_err(CopyError::Source)?;
            let write = self
                .target
                .start(slot, request)
                .map_err(CopyError::Target)?;
            *stage = Stage::Writing(write);
        }
        Ok(())
    }
}

impl<S: Disk, T: Disk> Disk for Copy<S, T> {
    type Error = CopyError<S::Error, T::Error>;

    fn start(&mut self, slot: usize, request: Request) -> Result<Token, Self::Error> {
        let token = self
            .source
            .start(slot, request)
            .map_err(CopyError::Source)?;
        if let Some(stage) = self.stages.get_mut(slot) {
            *stage = Stage::Reading(token, request);
        }
        Ok(Token::try_from(slot).unwrap_or(Token::MAX))
    }

    fn finished(&mut self) -> Result<Option<Token>, Self::Error> {
        self.turn_around()?;
        let Some(token) = self.target.finished().map_err(CopyError::Target)? else {
            return Ok(None);
        };
        let slot = self
            .stages
            .iter()
            .position(|stage| matches!(*stage, Stage::Writing(own) if own == token));
        let slot = slot.and_then(|slot| Token::try_from(slot).ok());
        slot.map(Some).ok_or(CopyError::UnknownToken(token))
    }

    fn complete(&mut self, slot: usize, token: Token) -> Result<(), Self::Error> {
        let stage = self
            .stages
            .get_mut(slot)
            .ok_or(CopyError::UnknownToken(token))?;
        let Stage::Writing(write) = *stage else {
            return Err(CopyError::UnknownToken(token));
        };
        *stage = Stage::Idle;
        self.target.complete(slot, write).map_err(CopyError::Target)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request_plan::RequestPlan;
    use crate::transfer::{PassObserver, run_pass};
    use std::cell::RefCell;
    use std::collections::BTreeMap;
    use std::rc::Rc;
    use std::vec;
    use std::vec::Vec;

    type Slots = Rc<RefCell<[u64; MAX_DEPTH]>>;

    /// A disk of marks, one for each request: a read puts the mark into the slot, a write takes it.
    struct Marks {
        slots: Slots,
        marks: BTreeMap<u64, u64>,
        writes: bool,
        queue: Vec<(Token, usize, u64)>,
        next: Token,
    }

    impl Disk for Marks {
        type Error = ();
        fn start(&mut self, slot: usize, request: Request) -> Result<Token, ()> {
            self.next += 1;
            self.queue.push((self.next, slot, request.offset));
            Ok(self.next)
        }
        fn finished(&mut self) -> Result<Option<Token>, ()> {
            Ok(self.queue.last().map(|(token, ..)| *token))
        }
        fn complete(&mut self, slot: usize, token: Token) -> Result<(), ()> {
            let (own, own_slot, offset) = self.queue.pop().ok_or(())?;
            assert_eq!((own, own_slot), (token, slot));
            if self.writes {
                self.marks.insert(offset, self.slots.borrow()[slot]);
            } else {
                self.slots.borrow_mut()[slot] = self.marks[&offset];
            }
            Ok(())
        }
    }

    struct Quiet;

    impl PassObserver for Quiet {
        fn consume(&mut self, _slot: usize, _request: Request) {}
        fn depth(&mut self, _done: u64) -> usize {
            MAX_DEPTH
        }
        fn progress(&mut self, _done: u64) {}
    }

    #[test]
    fn every_request_is_copied_through_its_own_slot() {
        const BYTES: u64 = 24 << 20;
        let slots = Slots::default();
        let marks: BTreeMap<_, _> = RequestPlan::new(BYTES)
            .map(|request| (request.offset, request.offset ^ 0x55))
            .collect();
        let disk = |marks, writes| Marks {
            slots: Rc::clone(&slots),
            marks,
            writes,
            queue: vec![],
            next: 0,
        };
        let mut copy = Copy::new(disk(marks.clone(), false), disk(BTreeMap::new(), true));
        run_pass(&mut copy, &mut Quiet, BYTES).expect("copied");
        assert_eq!(copy.target.marks, marks);
    }
}
