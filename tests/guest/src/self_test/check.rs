// SPDX-License-Identifier: MIT OR Apache-2.0
//! Sends the cases and compares everything a refusal must leave alone.

use protocol::Request;
use protocol::request::DescribeItem;
use protocol::response::{ResultRegisters, decode_answer};
use snp::svsm::{CallRegisters, ResultCode};

use super::{Case, Facts, ListPage};

/// Code reported for a call that the SVSM never saw.
const NOT_SEEN: u32 = u32::MAX;

/// How the cases reach the SVSM and the guest's pages.
pub trait Prober {
    /// Makes a call; `None` when the SVSM did not see it.
    fn call(&mut self, registers: CallRegisters) -> Option<CallRegisters>;
    /// Writes the list page.
    fn write_list(&mut self, page: &ListPage);
    /// Reads the list page.
    fn read_list(&self) -> ListPage;
    /// Whether the guest's private page still has its contents.
    fn private_is_intact(&self) -> bool;
}

/// What became of a case.
#[derive(Debug, Clone, Copy)]
pub struct Outcome {
    /// Name of the case.
    pub name: &'static str,
    /// The promised code.
    pub expected: ResultCode,
    /// The code that came; all ones when the SVSM did not see the call.
    pub got: ResultCode,
    /// Right code, and nothing changed.
    pub ok: bool,
}

/// Sends every case of a table and reports each; true when all held.
pub fn run(
    prober: &mut impl Prober,
    facts: &Facts,
    cases: &[Case],
    mut report: impl FnMut(Outcome),
) -> bool {
    let mut all_ok = true;
    for case in cases {
        let outcome = check(prober, facts, case);
        all_ok &= outcome.ok;
        report(outcome);
    }
    all_ok
}

fn check(prober: &mut impl Prober, facts: &Facts, case: &Case) -> Outcome {
    let prepared = !case.cap_at_granted || set_cap(prober, facts, facts.granted_bytes);
    let before = usage(prober, facts);
    let mut list = ListPage::new();
    let call = (case.build)(facts, &mut list);
    prober.write_list(&list);
    let answer = prober.call(call);
    let list_kept = prober.read_list() == list;
    let unchanged = prepared
        && list_kept
        && prober.private_is_intact()
        && before.is_some()
        && usage(prober, facts) == before;
    let restored = !case.cap_at_granted || set_cap(prober, facts, facts.cap);
    let got = answer.map_or(ResultCode(NOT_SEEN), |answer| {
        ResultCode::from_rax(answer.rax)
    });
    let registers_kept = answer.is_some_and(|answer| {
        answer.rcx == case.rcx.unwrap_or(call.rcx) && answer.rdx == call.rdx && answer.r8 == call.r8
    });
    Outcome {
        name: case.name,
        expected: case.expected,
        got,
        ok: got == case.expected && registers_kept && unchanged && restored,
    }
}

/// Cap, granted and quarantined bytes.
fn usage(prober: &mut impl Prober, facts: &Facts) -> Option<ResultRegisters> {
    let request = Request::Describe {
        window: 0,
        item: DescribeItem::Usage,
    };
    let answer = prober.call(request.encode(facts.protocol))?;
    decode_answer(&answer).ok()
}

fn set_cap(prober: &mut impl Prober, facts: &Facts, cap: u64) -> bool {
    let request = Request::SetLimits {
        window: 0,
        epoch: facts.epoch,
        cap,
    };
    let answer = prober.call(request.encode(facts.protocol));
    answer.is_some_and(|answer| decode_answer(&answer).is_ok())
}

/// The tables name a case once, and never describe a call that would be right.
#[cfg(test)]
mod tests {
    use super::super::case::registers;
    use super::super::facts::example;
    use super::super::{convert_cases, core_cases, lost_cases, memory_cases, pool_cases};
    use super::*;
    use std::collections::BTreeSet;
    use std::vec::Vec;

    /// Answers every call with the code its table promises, except where told to misbehave.
    struct Fake {
        facts: Facts,
        cases: Vec<Case>,
        list: ListPage,
        granted: u64,
        sabotage: Option<fn(&mut Fake, &mut CallRegisters)>,
    }

    impl Fake {
        fn new(cases: &[Case]) -> Self {
            let facts = example();
            let granted = facts.granted_bytes;
            Self {
                facts,
                cases: cases.to_vec(),
                list: ListPage::new(),
                granted,
                sabotage: None,
            }
        }
    }

    impl Prober for Fake {
        fn call(&mut self, call: CallRegisters) -> Option<CallRegisters> {
            let describe = Request::Describe {
                window: 0,
                item: DescribeItem::Usage,
            };
            if call == describe.encode(self.facts.protocol) {
                let rdx = self.granted;
                return Some(CallRegisters::new(0, [self.facts.cap, rdx, 0]));
            }
            if Request::decode(&call).is_ok_and(|r| {
                matches!(r, Request::SetLimits { window: 0, epoch, cap }
                    if epoch == self.facts.epoch && cap <= self.facts.cap)
            }) {
                return Some(CallRegisters { rax: 0, ..call });
            }
            let found = self.cases.iter().find(|case| {
                let mut list = ListPage::new();
                let built = (case.build)(&self.facts, &mut list);
                built == call && list == self.list
            });
            let case = found.expect("a call of the table");
            let rcx = case.rcx.unwrap_or(call.rcx);
            let mut answer = CallRegisters {
                rax: case.expected.to_rax(),
                rcx,
                ..call
            };
            if let Some(sabotage) = self.sabotage {
                sabotage(self, &mut answer);
            }
            Some(answer)
        }
        fn write_list(&mut self, page: &ListPage) {
            self.list = page.clone();
        }
        fn read_list(&self) -> ListPage {
            self.list.clone()
        }
        fn private_is_intact(&self) -> bool {
            true
        }
    }

    fn failures(fake: &mut Fake) -> usize {
        let (facts, cases) = (fake.facts, fake.cases.clone());
        let mut failed = 0;
        run(fake, &facts, &cases, |outcome| {
            failed += usize::from(!outcome.ok);
        });
        failed
    }

    fn tables() -> [&'static [Case]; 7] {
        [
            pool_cases::DETACHED,
            pool_cases::ATTACHED,
            convert_cases::ALL,
            memory_cases::FORMS,
            memory_cases::BLOCKS,
            core_cases::ALL,
            lost_cases::ALL,
        ]
    }

    #[test]
    fn cases_are_named_once_and_pass_against_a_right_service() {
        let mut names = BTreeSet::new();
        for table in tables() {
            assert!(table.iter().all(|case| names.insert(case.name)));
            assert_eq!(failures(&mut Fake::new(table)), 0);
        }
    }

    #[test]
    fn every_kind_of_change_fails_every_case() {
        let sabotages: [fn(&mut Fake, &mut CallRegisters); 4] = [
            |_, answer| answer.rax ^= 1,
            |_, answer| answer.rdx ^= 1,
            |fake, _| fake.granted += 1,
            |fake, _| fake.list.put(100, &[0]),
        ];
        for table in tables() {
            for sabotage in sabotages {
                let mut fake = Fake::new(table);
                fake.sabotage = Some(sabotage);
                assert_eq!(failures(&mut fake), table.len());
            }
        }
    }

    /// Cases whose registers are in order.
    const BEYOND_REGISTERS: &[&str] = &[
        "set-limits-above-window",
        "set-limits-absent-window",
        "grow-absent-window",
        "list-crossing-at-end",
        "list-crossing",
        "list-empty",
        "describe-absent-window",
    ];

    /// The service refuses by its own decoder whatever is wrong in every state.
    #[test]
    fn the_decoder_agrees_with_the_table() {
        for case in pool_cases::ATTACHED.iter().chain(pool_cases::DETACHED) {
            let call = (case.build)(&example(), &mut ListPage::new());
            if registers(example().protocol, 0, [0; 3]).rax >> 32 != call.rax >> 32 {
                continue;
            }
            let by_registers = matches!(
                case.expected,
                ResultCode::INVALID_PARAMETER | ResultCode::UNSUPPORTED_CALL
            );
            match Request::decode(&call) {
                Err(code) => assert_eq!(code, case.expected, "{}", case.name),
                // What is wrong is in memory, or depends on the windows there are.
                Ok(_) => assert!(
                    !by_registers || BEYOND_REGISTERS.contains(&case.name),
                    "{} passes the decoder",
                    case.name
                ),
            }
        }
    }
}
