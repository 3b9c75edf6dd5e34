// SPDX-License-Identifier: MIT OR Apache-2.0
//! When a host answers page-state changes in its manner, and when honestly.
//!
//! A hostile manner from the start meets the boot alone, which it ends. So it may begin later: at a request of VMPL 0 with a
//! number, behind a mark of the guest, or only in calls for which the guest says how many requests are to be answered so. The
//! others are honest, among them all those of lower VMPLs then.

use snp::address::Vmpl;
use snp_model::psc::HostManner;

/// When the manner is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum From {
    /// Always, to every VMPL.
    #[default]
    Start,
    /// To VMPL 0, behind this many honest requests.
    Request(u16),
    /// To VMPL 0, once the guest has written this mark.
    Mark(u16),
    /// To VMPL 0, in calls that the guest names.
    NamedCalls,
}

/// The manner and its moments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PscManner {
    manner: HostManner,
    from: From,
    /// Requests that the next call's beginning leaves to the manner.
    named: u32,
    /// Requests of the call that is served, still to be answered so.
    left: u32,
}

/// Number that stands for calls which the guest names.
pub const NAMED_CALLS: u16 = u16::MAX;
/// Number that stands for the moment behind mark 0; those above it, up to [`LAST_MARK`], for the marks that follow.
pub const FIRST_MARK: u16 = 0xFF00;
/// That of the last such mark.
pub const LAST_MARK: u16 = NAMED_CALLS - 1;

impl PscManner {
    /// A manner that begins at VMPL 0's request `first`, counted from 1; 0 is the start, [`NAMED_CALLS`] those, and from
    /// [`FIRST_MARK`] on it is a mark.
    #[must_use]
    pub const fn new(manner: HostManner, first: u16) -> Self {
        let from = match first {
            0 => From::Start,
            NAMED_CALLS => From::NamedCalls,
            FIRST_MARK..=LAST_MARK => From::Mark(first - FIRST_MARK),
            number => From::Request(number - 1),
        };
        Self {
            manner,
            from,
            named: 0,
            left: 0,
        }
    }

    /// The guest says to how many requests of its next call the manner is shown.
    pub const fn name(&mut self, requests: u32) {
        self.named = requests;
    }

    /// The guest has written this mark.
    pub const fn mark(&mut self, id: u32) {
        if let From::Mark(awaited) = self.from
            && awaited as u32 == id
        {
            self.from = From::Request(0);
        }
    }

    /// A call begins.
    pub const fn call_begins(&mut self) {
        self.left = self.named;
        self.named = 0;
    }

    /// It is over.
    pub const fn call_ends(&mut self) {
        self.left = 0;
    }

    /// The manner in which the next request of `vmpl` is answered.
    pub const fn next(&mut self, vmpl: Vmpl) -> HostManner {
        match &mut self.from {
            From::Start => self.manner,
            _ if !matches!(vmpl, Vmpl::Vmpl0) => HostManner::Honest,
            From::Request(0) => self.manner,
            From::Request(left) => {
                *left -= 1;
                HostManner::Honest
            }
            From::Mark(_) => HostManner::Honest,
            From::NamedCalls if self.left > 0 => {
                self.left -= 1;
                self.manner
            }
            From::NamedCalls => HostManner::Honest,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;

    const LIE: HostManner = HostManner::Lie;
    const HONEST: HostManner = HostManner::Honest;

    fn next(manner: &mut PscManner, vmpl: Vmpl, count: usize) -> Vec<HostManner> {
        (0..count).map(|_| manner.next(vmpl)).collect()
    }

    #[test]
    fn from_the_start_it_is_shown_to_all() {
        let mut manner = PscManner::new(LIE, 0);
        assert_eq!(next(&mut manner, Vmpl::Vmpl2, 2), [LIE; 2]);
        assert_eq!(next(&mut manner, Vmpl::Vmpl0, 2), [LIE; 2]);
    }

    #[test]
    fn from_a_request_on_it_is_shown_to_vmpl_0() {
        let mut manner = PscManner::new(LIE, 3);
        assert_eq!(next(&mut manner, Vmpl::Vmpl0, 1), [HONEST]);
        assert_eq!(next(&mut manner, Vmpl::Vmpl2, 9), [HONEST; 9]);
        assert_eq!(next(&mut manner, Vmpl::Vmpl0, 3), [HONEST, LIE, LIE]);
        assert_eq!(next(&mut manner, Vmpl::Vmpl2, 1), [HONEST]);
    }

    #[test]
    fn behind_a_mark_it_is_shown_to_vmpl_0() {
        let mut manner = PscManner::new(LIE, FIRST_MARK + 2);
        assert_eq!(next(&mut manner, Vmpl::Vmpl0, 3), [HONEST; 3]);
        manner.mark(1);
        assert_eq!(next(&mut manner, Vmpl::Vmpl0, 3), [HONEST; 3]);
        manner.mark(2);
        assert_eq!(next(&mut manner, Vmpl::Vmpl2, 1), [HONEST]);
        assert_eq!(next(&mut manner, Vmpl::Vmpl0, 3), [LIE; 3]);
        manner.mark(3);
        assert_eq!(next(&mut manner, Vmpl::Vmpl0, 1), [LIE]);
    }

    #[test]
    fn in_named_calls_it_is_shown_as_often_as_the_guest_says() {
        let mut manner = PscManner::new(LIE, NAMED_CALLS);
        let zero = Vmpl::Vmpl0;
        manner.name(1);
        assert_eq!(next(&mut manner, zero, 1), [HONEST], "not yet");
        manner.call_begins();
        assert_eq!(next(&mut manner, zero, 2), [LIE, HONEST]);
        manner.call_ends();
        manner.call_begins();
        assert_eq!(next(&mut manner, zero, 1), [HONEST], "named once");
        manner.name(9);
        manner.call_begins();
        assert_eq!(next(&mut manner, zero, 3), [LIE; 3]);
        manner.call_ends();
        assert_eq!(next(&mut manner, zero, 1), [HONEST], "over");
    }
}
