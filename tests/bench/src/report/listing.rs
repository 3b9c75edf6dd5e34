// SPDX-License-Identifier: MIT OR Apache-2.0
//! Plain lists, for runs of one scenario.

use std::fmt::Write as _;

use super::results::Results;

/// A line per allocator: whether it does its job.
pub fn selftests(results: &Results) -> String {
    let mut text = String::new();
    for row in &results.selftests {
        let maps: usize = row.outcome.iter().map(|pass| pass.maps).sum();
        let errors: usize = row.outcome.iter().map(|pass| pass.errors).sum();
        let verdict = if errors == 0 { "ok" } else { "FAILED" };
        // Writing to a string does not fail.
        let _ = writeln!(
            text,
            "self-test {verdict:<6} {:<18} {maps} maps, {errors} errors",
            row.allocator
        );
        for finding in row.outcome.iter().flat_map(|pass| &pass.findings) {
            let _ = writeln!(text, "    {finding}");
        }
    }
    text
}

/// A line per measurement.
pub fn scenarios(results: &Results) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = write_all(&mut text, results);
    text
}

fn write_all(text: &mut String, results: &Results) -> std::fmt::Result {
    for cell in results.cells() {
        writeln!(
            text,
            "\n{} {}, {} threads, fill {}, depth {}: ns per pair",
            cell.mode, cell.size, cell.threads, cell.fill, cell.depth
        )?;
        for name in &results.allocators {
            if let Some(figure) = results.figure(name, &cell) {
                writeln!(
                    text,
                    "  {name:<18} best {:>9.1}  median {:>9.1}  worst {:>9.1}  fail {:>6.2} %",
                    figure.best,
                    figure.median,
                    figure.worst,
                    figure.fail_rate * 100.0
                )?;
            }
        }
    }
    for row in &results.capacities {
        let out = &row.outcome;
        writeln!(
            text,
            "capacity {:<6} {:<18} first failure at {:>5.1} % use, {:.3} pool bytes per payload byte, metadata {:.2} %",
            row.of.to_string(),
            row.allocator,
            out.used_at_first_fail * 100.0,
            out.used_per_payload(),
            out.meta_end as f64 * 100.0 / out.pool as f64
        )?;
    }
    for row in &results.bursts {
        let (plan, out) = (&row.of, &row.outcome);
        writeln!(
            text,
            "burst {} B, background every {} maps, {:<18} {:.1} % fail, {} growth steps, {} conversion requests, map p50 \
             {:.0} ns, longest {:.0} us, pool {} MiB, {} MiB at the end",
            plan.size,
            plan.background_every,
            row.allocator,
            out.fail_rate() * 100.0,
            out.stats.grown_pools,
            out.conversions.atomic_calls + out.conversions.deferred_calls,
            out.map_ns[0],
            out.map_ns[2] / 1000.0,
            out.stats.pool_bytes >> 20,
            out.pool_bytes_after >> 20
        )?;
    }
    for row in &results.failing {
        let ((pool, state), out) = (row.of, &row.outcome);
        writeln!(
            text,
            "failing map, {:>5} MiB, {state:?}, {:<18} mean {:.1} ns, p50 {:.0}, p99 {:.0}, {} of {} succeeded",
            pool >> 20,
            row.allocator,
            out.mean_ns,
            out.map.p50,
            out.map.p99,
            out.succeeded,
            out.tries
        )?;
    }
    Ok(())
}
