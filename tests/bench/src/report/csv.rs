// SPDX-License-Identifier: MIT OR Apache-2.0
//! The raw figures, one file per scenario.

use std::fmt::Write as _;
use std::path::Path;
use std::{fs, io};

use super::results::Results;

/// Columns of `pair.csv`.
const PAIR: &str = "so,scenario,size,mode,threads,fill,fill_reached,depth,round,pairs,mean_ns,map_p50,map_p99,map_p999,\
map_max,unmap_p50,unmap_p99,pair_p50,pair_p99,pair_p999,pair_max,fail_rate,pool_per_payload,ballast_payload,meta_bytes,\
tsc_over_ns,ballast_fails";
const CAPACITY: &str = "so,size,first_fail_payload,used_at_first_fail,payload_at_1pct_fail,payload_at_end,used_at_end,\
pool,mappings,pool_per_payload_end,meta_end,heap_allocs_in_map";
const BURST: &str = "so,size,total,bg_every,ok,fail,fail_rate,first_fail_at,map_p50,map_p99,map_max,pool_bytes,grow_steps,\
transient_live,heap_allocs_in_map,init_conv_pages,conv_calls_atomic,conv_pages_atomic,conv_calls_bg,\
conv_pages_bg_shared,conv_pages_bg_private,unmap_mean_ns,pending_free_bytes,after_pair4k_ns,allfull_pair_ns,\
pool_bytes_after";
const FAILING: &str = "so,pool,state,tries,succeeded,mean_ns,median_ns,p50,p99,p999,max,used";

/// Writes a file per scenario that was run.
///
/// # Errors
/// What the file system says.
pub fn write(results: &Results, overhead_ns: f64, folder: &Path) -> io::Result<()> {
    let files = [
        ("pair.csv", pair(results, overhead_ns)),
        ("capacity.csv", capacity(results)),
        ("burst.csv", burst(results)),
        ("failing.csv", failing(results)),
    ];
    for (name, text) in files {
        if text.lines().count() > 1 {
            fs::write(folder.join(name), text)?;
        }
    }
    Ok(())
}

fn table(header: &str, rows: impl Iterator<Item = String>) -> String {
    let mut text = String::from(header);
    text.push('\n');
    for row in rows {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{row}");
    }
    text
}

fn pair(results: &Results, overhead_ns: f64) -> String {
    let rows = results.pairs.iter().map(|row| {
        let (cell, out) = (&row.of, &row.outcome);
        let (map, unmap, pair) = (&out.map, &out.unmap, &out.pair);
        format!(
            "{},pair,{},{},{},{},{:.4},{},{},{},{:.1},{:.0},{:.0},{:.0},{:.0},{:.0},{:.0},{:.0},{:.0},{:.0},{:.0},{:.5},\
             {:.3},{},{},{overhead_ns:.1},{}",
            row.allocator,
            cell.size,
            cell.mode,
            cell.threads,
            cell.fill,
            out.fill_reached,
            cell.depth,
            row.round,
            out.pairs,
            out.mean_ns,
            map.p50,
            map.p99,
            map.p999,
            map.max,
            unmap.p50,
            unmap.p99,
            pair.p50,
            pair.p99,
            pair.p999,
            pair.max,
            out.fail_rate,
            out.pool_per_payload,
            out.ballast_payload,
            out.meta_bytes,
            out.ballast_failures,
        )
    });
    table(PAIR, rows)
}

fn capacity(results: &Results) -> String {
    let rows = results.capacities.iter().map(|row| {
        let out = &row.outcome;
        format!(
            "{},{},{},{:.4},{},{},{:.4},{},{},{:.3},{},{}",
            row.allocator,
            row.of,
            out.first_fail_payload,
            out.used_at_first_fail,
            out.payload_at_1pct_fail,
            out.payload_at_end,
            out.used_at_end,
            out.pool,
            out.mappings,
            out.pool_per_payload(),
            out.meta_end,
            out.map_allocs,
        )
    });
    table(CAPACITY, rows)
}

fn burst(results: &Results) -> String {
    let rows = results.bursts.iter().map(|row| {
        let (plan, out) = (&row.of, &row.outcome);
        let (stats, conversions) = (&out.stats, &out.conversions);
        let [p50, p99, max] = out.map_ns;
        format!(
            "{},{},{},{},{},{},{:.4},{},{p50:.0},{p99:.0},{max:.0},{},{},{},{},{},{},{},{},{},{},{:.0},{},{:.0},{:.0},{}",
            row.allocator,
            plan.size,
            out.total,
            plan.background_every,
            out.ok,
            out.failed,
            out.fail_rate(),
            out.first_fail_at,
            stats.pool_bytes,
            stats.grown_pools,
            stats.transient_maps,
            stats.map_allocs,
            out.init_pages,
            conversions.atomic_calls,
            conversions.atomic_shared + conversions.atomic_private,
            conversions.deferred_calls,
            conversions.deferred_shared,
            conversions.deferred_private,
            out.unmap_ns,
            out.pending_free,
            out.after_pair_ns,
            out.full_pair_ns,
            out.pool_bytes_after,
        )
    });
    table(BURST, rows)
}

fn failing(results: &Results) -> String {
    let rows = results.failing.iter().map(|row| {
        let ((pool, state), out) = (row.of, &row.outcome);
        let map = &out.map;
        format!(
            "{},{pool},{state:?},{},{},{:.1},{:.1},{:.0},{:.0},{:.0},{:.0},{:.4}",
            row.allocator,
            out.tries,
            out.succeeded,
            out.mean_ns,
            out.median_ns,
            map.p50,
            map.p99,
            map.p999,
            map.max,
            out.used,
        )
    });
    table(FAILING, rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::Fill;
    use crate::driver::burst::{self, Plan};
    use crate::driver::failing::{self, State};
    use crate::driver::pair::{self, Cell, Mode, Size};
    use crate::report::Row;

    fn row<Of, Outcome>(of: Of, outcome: Outcome) -> Row<Of, Outcome> {
        Row {
            allocator: "guest_shim",
            of,
            round: 3,
            outcome,
        }
    }

    fn results() -> Results {
        let mut results = Results::default();
        let cell = Cell {
            size: Size::Mix,
            mode: Mode::Receive,
            threads: 2,
            fill: Fill::Fragmented(90.0),
            depth: 32,
        };
        let outcome = pair::Outcome {
            mean_ns: 24.25,
            pairs: 1000,
            fail_rate: 0.5,
            ..pair::Outcome::default()
        };
        results.pairs.push(row(cell, outcome));
        let outcome = crate::driver::capacity::Outcome {
            pool: 64,
            payload_at_end: 32,
            ..Default::default()
        };
        results.capacities.push(row(Size::Bytes(64), outcome));
        let plan = Plan {
            size: 65536,
            background_every: 256,
            copies: false,
        };
        results.bursts.push(row(plan, burst::Outcome::default()));
        let outcome = failing::Outcome::default();
        results.failing.push(row((1 << 30, State::Comb), outcome));
        results
    }

    #[test]
    fn every_row_has_a_value_for_every_column() {
        let results = results();
        for text in [
            pair(&results, 20.0),
            capacity(&results),
            burst(&results),
            failing(&results),
        ] {
            let columns: Vec<usize> = text.lines().map(|line| line.split(',').count()).collect();
            assert_eq!(columns.len(), 2, "{text}");
            assert_eq!(columns[0], columns[1], "{text}");
        }
    }

    #[test]
    fn values_stand_under_their_names() {
        let results = results();
        let value = |text: &str, name: &str| {
            let mut lines = text.lines().map(|line| line.split(','));
            let at = lines.next()?.position(|column| column == name)?;
            lines.next()?.nth(at).map(String::from)
        };
        let pair = pair(&results, 20.0);
        for (name, expected) in [
            ("so", "guest_shim"),
            ("size", "mix"),
            ("mode", "rx"),
            ("threads", "2"),
            ("fill", "f90"),
            ("depth", "32"),
            ("round", "3"),
            ("mean_ns", "24.2"),
            ("fail_rate", "0.50000"),
            ("tsc_over_ns", "20.0"),
        ] {
            assert_eq!(value(&pair, name).as_deref(), Some(expected), "{name}");
        }
        let capacity = capacity(&results);
        assert_eq!(
            value(&capacity, "pool_per_payload_end").as_deref(),
            Some("2.000")
        );
        assert_eq!(value(&failing(&results), "state").as_deref(), Some("Comb"));
    }

    #[test]
    fn only_scenarios_that_were_run_get_a_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut results = results();
        results.bursts.clear();
        write(&results, 20.0, folder.path()).expect("files");
        assert!(folder.path().join("pair.csv").exists());
        assert!(!folder.path().join("burst.csv").exists());
    }
}
