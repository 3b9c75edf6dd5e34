// SPDX-License-Identifier: MIT OR Apache-2.0
//! The figures that are no durations: what fits, and what happens when nothing fits any more.

use super::{Line, Reach, Section, others};
use crate::driver::burst;
use crate::driver::pair::Size;
use crate::plan::burst_plans;
use crate::report::published;
use crate::report::{Results, SHIM, SHIM_SMALL};

/// Pool bytes per payload byte.
const SMALL_PER_PAYLOAD: f64 = 1.0;
const MIX_PER_PAYLOAD: f64 = 1.06;
/// Use at the first failure, percent.
const FIRST_FAILURE: f64 = 97.0;
/// Metadata, percent of the pool.
const METADATA: f64 = 1.0;
/// Least growth step, MiB.
const GROWTH_MIB: f64 = 2.0;
/// How much fits, and what it costs to know where it is.
pub(super) fn capacity(results: &Results) -> Section {
    let small = Size::Bytes(64);
    let line = |name: &str, figure: Option<f64>, reach, others, published| Line {
        name: name.into(),
        ours: figure.map(|figure| (figure, figure)),
        failed: 0.0,
        reach,
        limit: None,
        others,
        published,
        digits: 2,
    };
    let per_payload = |name: &str, size| {
        let outcome = results.capacity(name, size)?;
        Some(outcome.used_per_payload())
    };
    let pool_share = |name: &str, size| {
        let outcome = results.capacity(name, size)?;
        Some(outcome.meta_end as f64 * 100.0 / outcome.pool as f64)
    };
    let used = |name: &str, size| Some(results.capacity(name, size)?.used_at_first_fail * 100.0);
    let all = |figure: &dyn Fn(&str) -> Option<f64>| {
        others(results, |name| {
            figure(name).map(|figure| format!("{figure:.2}"))
        })
    };
    let lines = vec![
        line(
            "pool bytes per payload byte, 64 B, records for small slots",
            per_payload(SHIM_SMALL, small),
            Reach::AtMost(SMALL_PER_PAYLOAD),
            all(&|name| per_payload(name, small)),
            published::per_payload(small),
        ),
        line(
            "the same, default records",
            per_payload(SHIM, small),
            Reach::Shown,
            Vec::new(),
            "",
        ),
        line(
            "pool bytes per payload byte, mix",
            per_payload(SHIM, Size::Mix),
            Reach::AtMost(MIX_PER_PAYLOAD),
            all(&|name| per_payload(name, Size::Mix)),
            published::per_payload(Size::Mix),
        ),
        line(
            "use at the first failure, mix, percent",
            used(SHIM, Size::Mix),
            Reach::AtLeast(FIRST_FAILURE),
            all(&|name| used(name, Size::Mix)),
            published::FIRST_FAILURE,
        ),
        line(
            "use at the first failure, 64 B, default records, percent",
            used(SHIM, small),
            Reach::Shown,
            all(&|name| used(name, small)),
            "",
        ),
        line(
            "metadata, percent of the pool",
            pool_share(SHIM, Size::Mix),
            Reach::AtMost(METADATA),
            all(&|name| pool_share(name, Size::Mix)),
            published::METADATA,
        ),
        line(
            "the same, records for small slots",
            pool_share(SHIM_SMALL, small),
            Reach::Shown,
            Vec::new(),
            "",
        ),
    ];
    Section {
        title: "memory".into(),
        goal: "1.0 and 1.06 pool bytes per payload byte, first failure at 97 %, metadata of 1 %",
        lines,
    }
}

/// A burst beyond the pool.
pub(super) fn burst(results: &Results) -> Section {
    let mut lines = Vec::new();
    let plans: Vec<_> = results.bursts.iter().map(|row| row.of).collect();
    let known = plans
        .first()
        .map_or([].to_vec(), |plan| burst_plans(plan.size).to_vec());
    for plan in known {
        let ours = results.burst(SHIM, &plan);
        let when = match plan.background_every {
            0 => "never".into(),
            every => format!("every {every} maps"),
        };
        let line = |name: String, figure: Option<f64>, reach, others, published| Line {
            name,
            ours: figure.map(|figure| (figure, figure)),
            failed: 0.0,
            reach,
            limit: None,
            others,
            published,
            digits: 2,
        };
        lines.push(line(
            format!("maps that fail, background {when}, percent"),
            ours.map(|outcome| outcome.fail_rate() * 100.0),
            Reach::AtMost(0.0),
            others(results, |name| {
                let outcome = results.burst(name, &plan)?;
                Some(format!("{:.1}", outcome.fail_rate() * 100.0))
            }),
            published::burst(plan.background_every),
        ));
        if plan.background_every != 0 {
            continue;
        }
        let steps = |outcome: &burst::Outcome| outcome.stats.grown_pools as f64;
        lines.push(line(
            "conversion requests per growth step".into(),
            ours.map(|outcome| outcome.conversions.atomic_calls as f64 / steps(outcome)),
            Reach::AtMost(1.0),
            Vec::new(),
            "64 pages each",
        ));
        lines.push(line(
            "MiB per growth step".into(),
            ours.map(|outcome| outcome.conversions.atomic_shared as f64 / 256.0 / steps(outcome)),
            Reach::AtLeast(GROWTH_MIB),
            Vec::new(),
            "1 to 4",
        ));
        lines.push(line(
            "longest map, growth included (no real call), us".into(),
            ours.map(|outcome| outcome.map_ns[2] / 1000.0),
            Reach::Shown,
            others(results, |name| {
                let outcome = results.burst(name, &plan)?;
                Some(format!("{:.2}", outcome.map_ns[2] / 1000.0))
            }),
            "",
        ));
    }
    Section {
        title: "a burst of four times the pool, nothing unmapped".into(),
        goal: "no failure, one conversion request per growth step of 2 MiB or more",
        lines,
    }
}
