// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a hostile host does beside its manners: the attacks that a launch image arms, by records of their own.
//!
//! | record | attack |
//! |---|---|
//! | [`kind::ATTACK_ON_PAGE`](crate::launch::kind) | [`PageAttack`]: takes pages away, moves them, or maps them badly |
//! | `ATTACK_BY_REPLY` | [`FalseReply`]: answers the MSR protocol wrongly |
//! | `ATTACK_BY_VECTOR` | [`Injection`]: raises an exception or interrupt in VMPL 0 |
//! | `ATTACK_BY_LAUNCH` | [`SurplusLaunch`]: runs another launch VMSA than the boot CPU's |

use bitfield_struct::bitfield;

use crate::false_reply::FalseReply;
use crate::injection::Injection;
use crate::surplus_launch::SurplusLaunch;

/// `data` of a record that arms an attack on pages; `gpa` is the page, where the target is one.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct PageAttackWord {
    /// [`Action`].
    #[bits(4)]
    pub action: u8,
    /// [`Moment`].
    #[bits(4)]
    pub moment: u8,
    /// [`Target`].
    #[bits(4)]
    pub target: u8,
    /// For `moment`; from 1 on. For the sweeps the only series of calls that is attacked, or 0 for all.
    #[bits(20)]
    pub count: u32,
}

/// What is done to a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// RMPUPDATE: assigned anew and so not validated. Contents stay.
    Unvalidate,
    /// RMPUPDATE: the hypervisor's.
    Share,
    /// Gets the frame of the guest's secrets page, which gets the page's; both are assigned anew.
    Remap,
    /// The same frame for both, while the reverse map goes on naming the secrets page. The host insists on it.
    DoubleMap,
    /// The same, but whenever the guest uses one of the two the reverse map is made to name that one.
    SwitchMap,
    /// Read-only in the nested tables.
    ReadOnly,
    /// Valid though nobody validated it: no host can do that, a defect of hardware could, or a second owner at VMPL 0.
    Validate,
}

/// When.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// Behind the exit of VMPL 0 with this number.
    Exit,
    /// Behind the exit with this number among those that begin, interrupt and end calls.
    Call,
    /// Before the PVALIDATE with this number that validates a page.
    Validation,
    /// Once in each call for which the guest names a page: behind exit 0, its beginning, in the first one, behind exit 1
    /// in the second, and so on.
    Sweep,
    /// In each call for which the guest names a page: before its first PVALIDATE that validates in the first one, before
    /// the second in the second, and so on.
    SweepValidations,
}

/// Whose page, except where the moment tells: the operand of PVALIDATE, the page that the guest names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The record's.
    Address,
    /// The one that VMPL 0 executes from.
    Code,
    /// The one with the top of VMPL 0's stack.
    Stack,
}

/// An attack on pages, and how far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageAttack {
    /// What is done.
    pub action: Action,
    /// When.
    pub moment: Moment,
    /// To whom.
    pub target: Target,
    /// Guest physical address for [`Target::Address`].
    pub address: u64,
    /// For `moment`.
    count: u32,
    /// Exits or validations so far.
    turns: u32,
    /// The page that the guest named for its next call.
    named: Option<usize>,
    /// What the guest called the series of calls that it is in.
    series: Option<u32>,
    /// Calls of the series that are over.
    round: u32,
    /// The call that is served has been attacked.
    has_struck: bool,
}

impl PageAttack {
    /// Reads a record; `None` when a code is unknown.
    #[must_use]
    pub fn decode(address: u64, data: u32) -> Option<Self> {
        let word = PageAttackWord::from_bits(data);
        let action = match word.action() {
            0 => Action::Unvalidate,
            1 => Action::Share,
            2 => Action::Remap,
            3 => Action::DoubleMap,
            4 => Action::SwitchMap,
            5 => Action::ReadOnly,
            6 => Action::Validate,
            _ => return None,
        };
        let moment = match word.moment() {
            0 => Moment::Exit,
            1 => Moment::Call,
            2 => Moment::Validation,
            3 => Moment::Sweep,
            4 => Moment::SweepValidations,
            _ => return None,
        };
        let target = match word.target() {
            0 => Target::Address,
            1 => Target::Code,
            2 => Target::Stack,
            _ => return None,
        };
        Some(Self {
            action,
            moment,
            target,
            address,
            count: word.count(),
            turns: 0,
            named: None,
            series: None,
            round: 0,
            has_struck: false,
        })
    }

    /// The guest names the page for its next call; another `series` begins from the first moment again.
    pub fn name(&mut self, page: usize, series: u32) {
        if self.series != Some(series) {
            (self.series, self.round) = (Some(series), 0);
        }
        self.named = Some(page);
    }

    /// A moment of the kind that is counted passes; true when it is the one.
    pub const fn passes(&mut self) -> bool {
        self.turns += 1;
        self.turns == self.count
    }

    /// The same in a call for which the guest named a page, counted from the call's beginning: that page, if it is of a
    /// series that is attacked.
    pub fn passes_in_call(&mut self) -> Option<usize> {
        let due = self.turns == self.round && (self.count == 0 || self.series == Some(self.count));
        self.turns += 1;
        if due { self.named } else { None }
    }

    /// A call for which the guest may have named a page begins.
    pub const fn call_begins(&mut self) {
        (self.turns, self.has_struck) = (0, false);
    }

    /// The call that is served was attacked.
    pub const fn struck(&mut self) {
        self.has_struck = true;
    }

    /// It ends; true when a page was named and the moment did not come.
    pub const fn call_ends(&mut self) -> bool {
        if self.named.take().is_none() {
            return false;
        }
        self.round += 1;
        !self.has_struck
    }
}

/// Everything that is armed.
#[derive(Clone, Debug, Default)]
pub struct Attacks {
    /// On pages.
    pub page: Option<PageAttack>,
    /// By replies.
    pub reply: Option<FalseReply>,
    /// By events.
    pub vector: Option<Injection>,
    /// By a launch VMSA.
    pub surplus: Option<SurplusLaunch>,
    /// The page with the guest's secrets.
    pub secrets: Option<usize>,
    /// The page that was attacked last.
    pub victim: Option<usize>,
    /// Faults there that nothing ended.
    pub faults: u32,
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;

    fn attack(moment: u8, count: u32) -> PageAttack {
        let word = PageAttackWord::new().with_moment(moment).with_count(count);
        PageAttack::decode(0x5000, word.into_bits()).unwrap()
    }

    #[test]
    fn records_are_read_and_unknown_codes_refused() {
        let word = PageAttackWord::new()
            .with_action(4)
            .with_moment(2)
            .with_target(1)
            .with_count(7);
        assert_eq!(word.into_bits(), 0x7124);
        let attack = PageAttack::decode(0x5000, 0x7124).unwrap();
        assert_eq!(
            (attack.action, attack.moment, attack.target, attack.address),
            (Action::SwitchMap, Moment::Validation, Target::Code, 0x5000)
        );
        for data in [7, 0x50, 0x300] {
            assert_eq!(PageAttack::decode(0, data), None);
        }
    }

    #[test]
    fn one_turn_is_the_one() {
        let mut attack = attack(0, 3);
        let turns: Vec<_> = (0..5).map(|_| attack.passes()).collect();
        assert_eq!(turns, [false, false, true, false, false]);
    }

    #[test]
    fn a_sweep_goes_one_moment_further_in_each_call() {
        let mut attack = attack(3, 0);
        // No page is named: the call is left alone, and is no round.
        attack.call_begins();
        assert_eq!(attack.passes_in_call(), None);
        assert!(!attack.call_ends());
        let mut rounds = Vec::new();
        for (page, series) in [(5, 1), (6, 1), (7, 1), (8, 2)] {
            attack.name(page, series);
            attack.call_begins();
            let mut at = None;
            for turn in 0..2 {
                if attack.passes_in_call() == Some(page) {
                    attack.struck();
                    at = Some(turn);
                }
            }
            rounds.push((at, attack.call_ends()));
        }
        // Two moments a call, so the third round finds none; the second series begins anew.
        let expected = [
            (Some(0), false),
            (Some(1), false),
            (None, true),
            (Some(0), false),
        ];
        assert_eq!(rounds, expected);
    }

    #[test]
    fn a_sweep_of_one_series_leaves_the_others_alone() {
        let mut attack = attack(4, 2);
        let struck = [1, 2, 2, 3].map(|series| {
            attack.name(5, series);
            attack.call_begins();
            let turns: Vec<_> = (0..2).map(|_| attack.passes_in_call()).collect();
            attack.call_ends();
            turns
        });
        assert_eq!(struck[0], [None, None]);
        assert_eq!(struck[1], [Some(5), None]);
        assert_eq!(struck[2], [None, Some(5)]);
        assert_eq!(struck[3], [None, None]);
    }
}
