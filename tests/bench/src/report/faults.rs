// SPDX-License-Identifier: MIT OR Apache-2.0
//! What must not happen, however fast the machine is: these decide whether a run succeeds, timings never do.

use super::results::{Results, SHIM, SHIM_SMALL};
use crate::allocators;
use crate::driver::Fill;

/// One line per fault, each with its cause.
pub fn of(results: &Results) -> Vec<String> {
    let mut faults = Vec::new();
    let ours = allocators::all().map(|allocator| allocator.name());
    // A peer that fails its self-test is shown; mending it is its owner's business.
    let selftests = results.selftests.iter();
    for row in selftests.filter(|row| ours.contains(&row.allocator)) {
        for (pass, outcome) in row.outcome.iter().enumerate() {
            if outcome.errors > 0 {
                let first = outcome.findings.first().map_or("", String::as_str);
                let (name, errors) = (row.allocator, outcome.errors);
                faults.push(format!(
                    "{name}: self-test pass {pass}: {errors} errors, the first: {first}"
                ));
            }
        }
    }
    for row in results.pairs.iter().filter(|row| is_shim(row.allocator)) {
        let (cell, rate) = (&row.of, row.outcome.fail_rate);
        if cell.fill == Fill::EMPTY && rate > 0.0 {
            let percent = rate * 100.0;
            faults.push(format!(
                "{}: {percent:.3} % of the maps of {} bytes fail in an empty pool",
                row.allocator, cell.size
            ));
        }
    }
    for row in results.bursts.iter().filter(|row| is_shim(row.allocator)) {
        let (name, out) = (row.allocator, &row.outcome);
        if out.failed > 0 {
            let (failed, first) = (out.failed, out.first_fail_at >> 20);
            faults.push(format!(
                "{name}: {failed} maps of a burst fail, the first after {first} MiB: growth does not keep up"
            ));
        }
        let (requests, steps) = (out.conversions.atomic_calls, out.stats.grown_pools);
        if requests != steps {
            faults.push(format!(
                "{name}: {requests} conversion requests for {steps} growth steps: one each is enough"
            ));
        }
    }
    faults
}

/// Others fail where they fail; that is a figure, not a fault of this project.
fn is_shim(name: &str) -> bool {
    name == SHIM || name == SHIM_SMALL
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::burst::{self, Plan};
    use crate::driver::pair::{self, Mode, Size};
    use crate::driver::selftest::Pass;
    use crate::plan::{FILLS, cell};
    use crate::report::Row;

    fn row<Of, Outcome>(allocator: &'static str, of: Of, outcome: Outcome) -> Row<Of, Outcome> {
        Row {
            allocator,
            of,
            round: 0,
            outcome,
        }
    }

    fn failing_pair(allocator: &'static str, fill: Fill) -> Results {
        let outcome = pair::Outcome {
            fail_rate: 0.001,
            mean_ns: 1e9,
            ..pair::Outcome::default()
        };
        let cell = pair::Cell {
            fill,
            ..cell(Size::Mix, Mode::NoCopy)
        };
        Results {
            pairs: vec![row(allocator, cell, outcome)],
            ..Results::default()
        }
    }

    #[test]
    fn a_failure_in_an_empty_pool_is_a_fault_of_the_shim_only() {
        assert_eq!(of(&failing_pair(SHIM, Fill::EMPTY)).len(), 1);
        assert_eq!(of(&failing_pair("classic", Fill::EMPTY)).len(), 0);
        assert_eq!(
            of(&failing_pair(SHIM, FILLS[1])).len(),
            0,
            "a figure, not a fault"
        );
    }

    #[test]
    fn a_burst_that_fails_or_converts_too_often_is_a_fault() {
        let plan = Plan {
            size: 65536,
            background_every: 0,
            copies: false,
        };
        let mut outcome = burst::Outcome::default();
        outcome.stats.grown_pools = 9;
        outcome.conversions.atomic_calls = 9;
        let faults = |outcome: &burst::Outcome| {
            of(&Results {
                bursts: vec![row(SHIM, plan, outcome.clone())],
                ..Results::default()
            })
        };
        assert_eq!(faults(&outcome), [""; 0]);
        outcome.conversions.atomic_calls = 99;
        assert_eq!(faults(&outcome).len(), 1);
        outcome.failed = 1;
        assert_eq!(faults(&outcome).len(), 2);
    }

    #[test]
    fn a_self_test_decides_for_this_package_and_not_for_peers() {
        let broken = Pass {
            errors: 3,
            findings: vec!["leak".into()],
            ..Pass::default()
        };
        let results = |allocator| Results {
            selftests: vec![row(allocator, (), vec![Pass::default(), broken.clone()])],
            ..Results::default()
        };
        let faults = of(&results("classic"));
        assert_eq!(
            faults,
            ["classic: self-test pass 1: 3 errors, the first: leak"]
        );
        assert_eq!(of(&results("somebody_elses")), [""; 0]);
    }
}
