// SPDX-License-Identifier: MIT OR Apache-2.0
//! Hosts that resume the caller of RUN_VMPL at once, with the answer of a switch that went well.
//!
//! The answer proves nothing: only a cleared CALL_PENDING tells a guest that VMPL 0 saw its call,
//! and only a set one tells VMPL 0 that the guest ran and wants something (SVSM specification,
//! section 5).

use snp::address::Vmpl;

use crate::counters::Event;
use crate::recurrence::Recurrence;

/// Which switches are skipped, and when.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SwitchManner {
    /// None.
    #[default]
    Honest,
    /// Switches to VMPL 0: a call that is never served.
    Swallow(Recurrence),
    /// Switches from VMPL 0: a return without the guest having run.
    Spurious(Recurrence),
}

impl SwitchManner {
    /// Whether this switch is skipped: what it counts as.
    pub fn skips(&mut self, from: Vmpl, to: Vmpl) -> Option<Event> {
        let (when, counted) = match self {
            Self::Swallow(when) if to == Vmpl::Vmpl0 => (when, Event::SwitchSwallowed),
            Self::Spurious(when) if from == Vmpl::Vmpl0 => (when, Event::SwitchSpurious),
            _ => return None,
        };
        if when.is_due() {
            when.misbehaved();
            Some(counted)
        } else {
            when.behaved();
            None
        }
    }
}
