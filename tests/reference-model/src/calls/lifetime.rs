// SPDX-License-Identifier: MIT OR Apache-2.0
//! ATTACH, ADOPT, RELEASE_ORPHANS, DETACH.

use protocol::{Refusal, ResultRegisters, result};
use snp::svsm::ResultCode;

use super::{Answer, refused, results};
use crate::state::{Chunk, Model, bytes};
use crate::{Event, Violation, require};

/// Last epoch (clause P-3.5).
const LAST_EPOCH: u32 = 0xFF_FFFF;
/// Chunk records listed or changed by one call (clause P-6.5).
const WORK_UNITS: usize = 4096;
/// Entries of a batch (clause P-6.4).
const BATCH: usize = 253;

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
        let flags = u64::from(fresh) | u64::from(orphans != 0) << 1;
        Ok(results(self.epoch.into(), flags, orphans))
    }

    /// P-5.6.1
    pub(super) fn detach(&mut self) -> ResultRegisters {
        self.attached = false;
        results(0, 0, bytes(self.granted()))
    }

    /// P-5.4.1, with the check of P-5.5.1: the older epoch is older.
    pub(super) fn adopt(&mut self, epoch: u32, older: u32) -> Result<ResultRegisters, Refusal> {
        if older == 0 || older >= epoch {
            return Err(ResultCode::INVALID_PARAMETER.into());
        }
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
        let left = self.held_by(older);
        Ok(results(bytes(adopted), bytes(left), 0))
    }

    /// P-5.5.1: as RELEASE, one batch, of which the service chooses where it lies.
    pub(super) fn release_orphans(
        &mut self,
        epoch: u32,
        older: u32,
        events: &mut &[Event],
    ) -> Answer {
        if older == 0 || older >= epoch {
            return refused(ResultCode::INVALID_PARAMETER);
        }
        if self.held_by(older) == 0 {
            return Ok(Ok(results(0, 0, 0)));
        }
        let mut released = 0;
        let mut acknowledged = 0;
        // Orphans do not lie in one row: several descriptors may make up what P-6.4 calls a batch.
        while !events.is_empty() {
            let batch = self.next_change(events)?;
            let run = self.run_of(&batch)?;
            self.require_orphans(&run, older)?;
            acknowledged += self.settle_release(run, &batch);
            released += batch.chunks;
        }
        require!(
            (1..=BATCH).contains(&released),
            "P-5.5.1: {released} chunks in one call"
        );
        let left = self.held_by(older);
        Ok(Ok(results(bytes(released), acknowledged, bytes(left))))
    }

    fn require_orphans(&self, run: &std::ops::Range<usize>, older: u32) -> Result<(), Violation> {
        let mut chunks = self.chunks.get(run.clone()).unwrap_or(&[]).iter();
        let orphans =
            chunks.all(|chunk| matches!(chunk, Chunk::Held { epoch, .. } if *epoch == older));
        require!(orphans, "W2: {run:?} is not all held by epoch {older}");
        Ok(())
    }
}
