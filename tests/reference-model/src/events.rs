// SPDX-License-Identifier: MIT OR Apache-2.0
//! The events of calls, and what is kept of them (chapter 12).

use protocol::statistics::HostAnomaly;
use protocol::trace::TraceRecord;
use snp::svsm::{CallRegisters, ResultCode};

use crate::state::Model;

/// Records that are kept (clause P-12.3).
const KEPT: u64 = 256;

/// Kinds, by the table of clause P-12.2.
pub(crate) mod kind {
    pub const ATTACHED: u16 = 1;
    pub const DETACHED: u16 = 2;
    pub const GRANTED: u16 = 3;
    pub const RELEASED: u16 = 4;
    pub const ADOPTED: u16 = 5;
    pub const ORPHANS_RELEASED: u16 = 6;
    pub const CONVERTED: u16 = 7;
    pub const REFUSED: u16 = 8;
    pub const QUARANTINED: u16 = 9;
    pub const HOST_ANOMALY: u16 = 10;
    pub const REFUSED_IN_A_BLOCK: u16 = 11;
}

impl Model {
    /// P-12.1, P-12.3: the next record; the oldest makes room.
    pub(crate) fn note(&mut self, kind: u16, code: u16, detail: u32, address: u64, bytes: u64) {
        self.trace.push_back(TraceRecord {
            sequence: self.next_event,
            kind,
            code,
            detail,
            address,
            bytes,
        });
        self.next_event += 1;
        let oldest = self.oldest_event();
        self.trace.retain(|record| record.sequence >= oldest);
    }

    /// The oldest number whose record may be there.
    pub(crate) const fn oldest_event(&self) -> u64 {
        self.next_event.saturating_sub(KEPT)
    }

    /// P-12.2: INCOMPLETE is no refusal, a call of another protocol no event.
    pub(crate) fn note_refusal(&mut self, kind: u16, call: &CallRegisters, code: ResultCode) {
        if code != ResultCode::INCOMPLETE && code != ResultCode::UNSUPPORTED_PROTOCOL {
            let number = u16::try_from(call.rax & 0xFFFF_FFFF).unwrap_or(u16::MAX);
            self.note(kind, number, code.0, call.rcx, call.rdx);
        }
    }

    pub(crate) fn note_quarantined_chunks(&mut self, first: u64, bytes: u64) {
        self.note(kind::QUARANTINED, 0, 0, first, bytes);
    }

    pub(crate) fn note_quarantined_page(&mut self, page: u64, bytes: u64) {
        self.note(kind::QUARANTINED, 1, 0, page, bytes);
    }

    /// What the host did wrong with a batch, counted as well (clause P-8.5).
    pub(crate) fn note_anomaly(
        &mut self,
        anomaly: HostAnomaly,
        operation: u8,
        first: u64,
        bytes: u64,
    ) {
        let number = anomaly.index();
        self.counters.host_anomalies[number] += 1;
        let detail = u32::try_from(number).unwrap_or(u32::MAX);
        self.note(kind::HOST_ANOMALY, operation.into(), detail, first, bytes);
    }
}
