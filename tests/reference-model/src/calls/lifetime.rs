// SPDX-License-Identifier: MIT OR Apache-2.0
//! ATTACH, ADOPT, RELEASE_ORPHANS, DETACH.

use protocol::{Refusal, ResultRegisters, result};
use snp::svsm::ResultCode;

use super::{Answer, results};
use crate::state::{Chunk, Model, bytes};
use crate::{Event, events::kind, require};

/// Last epoch (clause P-3.5).
const LAST_EPOCH: u32 = 0xFF_FFFF;
/// Chunk records listed or changed by one call (clause P-6.5).
const WORK_UNITS: usize = 4096;
/// Entries of a batch (clause P-6.4).
const BATCH: usize = 253;
const PRIVATE: u8 = 1;

impl Model {
    pub(super) fn attach(&mut self, version: u64) -> Result<ResultRegisters, Refusal> {
        if version != 1 {
            return Err(result::UNSUPPORTED_VERSION.into());
        }
        if self.epoch == LAST_EPOCH {
            return Err(ResultCode::INVALID_REQUEST.into()); // P-5.2.3
        }
        let fresh = self.epoch == 0;
        self.epoch += 1;
        self.attached = true;
        // P-5.2.2: whatever is granted now is an orphan.
        let orphans = bytes(self.granted());
        self.note(kind::ATTACHED, 0, self.epoch, 0, orphans);
        let flags = u64::from(fresh) | u64::from(orphans != 0) << 1;
        Ok(results(self.epoch.into(), flags, orphans))
    }

    /// P-5.6.1
    pub(super) fn detach(&mut self) -> ResultRegisters {
        self.attached = false;
        let granted = bytes(self.granted());
        self.note(kind::DETACHED, 0, self.epoch, 0, granted);
        results(0, 0, granted)
    }

    /// P-5.4.1
    pub(super) fn adopt(&mut self, epoch: u32, older: u32) -> ResultRegisters {
        let mut adopted = 0;
        for chunk in &mut self.chunks {
            if let Chunk::Held { epoch: of, .. } = chunk
                && *of == older
                && adopted < WORK_UNITS
            {
                *of = epoch;
                adopted += 1;
            }
        }
        if adopted > 0 {
            self.note(kind::ADOPTED, 0, older, 0, bytes(adopted));
        }
        let left = self.held_by(older);
        results(bytes(adopted), bytes(left), 0)
    }

    /// P-5.5.1: as RELEASE, one batch, wherever in a window its chunks lie; the first window that has any.
    pub(super) fn release_orphans(&mut self, older: u32, events: &mut &[Event]) -> Answer {
        if self.held_by(older) == 0 {
            return Ok(Ok(results(0, 0, 0)));
        }
        let held = |chunk: &&Chunk| matches!(chunk, Chunk::Held { epoch, .. } if *epoch == older);
        let of_window = |window| self.chunks_of_window(window).iter().filter(held).count();
        let (window, orphans) = match of_window(0) {
            0 => (1, of_window(1)),
            orphans => (0, orphans),
        };
        let batch = self.next_change(events)?;
        let chunks = self.chunks_of(&batch)?;
        require!(
            batch.operation == PRIVATE && chunks.len() == orphans.min(BATCH),
            "P-5.5.1: {batch:?} for {orphans} orphans"
        );
        let numbers = self.shape.numbers(window).unwrap_or_default();
        for (number, chunk) in chunks.iter().enumerate() {
            let orphan = matches!(self.chunks[*chunk], Chunk::Held { epoch, .. } if epoch == older);
            let once = !chunks[..number].contains(chunk);
            require!(
                orphan && once && numbers.contains(chunk),
                "W2: chunk {chunk} is none of epoch {older} and window {window}, or comes twice"
            );
        }
        let acknowledged = self.settle_release(&chunks, &batch);
        let released = bytes(chunks.len());
        self.note(kind::ORPHANS_RELEASED, 0, older, batch.chunks[0], released);
        let left = self.held_by(older);
        Ok(Ok(results(released, acknowledged, bytes(left))))
    }
}
