// SPDX-License-Identifier: MIT OR Apache-2.0
//! A case in a process of its own under callgrind.

use std::process::Command;
use std::str::FromStr;

use crate::PAIRS;

/// The functions of which one is counted.
const COUNTED: [&str; 2] = ["counted_pairs", "counted_rounds"];
/// A count per pair, and how many pairs failed.
#[derive(Clone, Copy, Debug)]
pub struct Count {
    /// Instructions of a pair.
    pub instructions: f64,
    /// Pairs that failed.
    pub failed: usize,
    /// Of a case with constraints: how many such mappings the pool has room for.
    pub capacity: usize,
}

/// Runs a case under callgrind.
pub fn count(arguments: &[&str]) -> Result<Count, String> {
    let this = std::env::current_exe().map_err(|error| error.to_string())?;
    let file = std::env::temp_dir().join(format!("bench-callgrind-{}", std::process::id()));
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--quiet", "--collect-atstart=no"])
        .args(COUNTED.map(|function| format!("--toggle-collect={function}")))
        .arg(format!("--callgrind-out-file={}", file.display()))
        .arg(this)
        .args(arguments)
        .output()
        .map_err(|error| format!("valgrind: {error}"))?;
    let counts = std::fs::read_to_string(&file).unwrap_or_default();
    // What is left of a run is no result of it.
    let _ = std::fs::remove_file(&file);
    let case = arguments.join(" ");
    if !output.status.success() {
        let error = String::from_utf8_lossy(&output.stderr);
        let last = error.lines().last().unwrap_or("no message").to_owned();
        return Err(format!("{case}: {last}"));
    }
    let total = value_of::<f64>(&counts, "summary:")
        .filter(|total| *total > 0.0)
        .ok_or_else(|| {
            format!("{case}: callgrind counted nothing in {COUNTED:?}: was the program stripped?")
        })?;
    let text = String::from_utf8_lossy(&output.stdout);
    let succeeded = value_of::<usize>(&text, "succeeded")
        .ok_or_else(|| format!("{case}: no count of successes"))?;
    Ok(Count {
        instructions: total / PAIRS as f64,
        failed: PAIRS - succeeded,
        capacity: value_of(&text, "capacity").unwrap_or(0),
    })
}

/// The value behind a name at the start of a line.
fn value_of<T: FromStr>(text: &str, name: &str) -> Option<T> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().parse().ok()
}

/// The first count is what the others are compared with.
pub fn judge(faults: &mut Vec<String>, counts: &[Count], cases: &[String], most: f64) {
    let Some(first) = counts.first() else { return };
    for (count, case) in counts.iter().zip(cases) {
        let ratio = count.instructions / first.instructions;
        if ratio > most {
            faults.push(format!(
                "{case}: {:.1} instructions are {ratio:.2} times {:.1}, at most {most} is allowed",
                count.instructions, first.instructions
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_found_behind_their_names() {
        let text = "events: Ir\nsummary: 123456\ntotals: 7\n";
        assert_eq!(value_of::<f64>(text, "summary:"), Some(123_456.0));
        assert_eq!(value_of::<f64>(text, "events:"), None);
        assert_eq!(value_of::<f64>(text, "other"), None);
    }

    #[test]
    fn a_cost_that_grows_is_a_fault_that_names_the_case() {
        let count = |instructions| Count {
            instructions,
            failed: 0,
            capacity: 0,
        };
        let cases = ["64 bytes, 0 % full".into(), "64 bytes, 98 % full".into()];
        let mut faults = Vec::new();
        judge(&mut faults, &[count(100.0), count(149.0)], &cases, 1.5);
        assert_eq!(faults, [""; 0]);
        judge(&mut faults, &[count(100.0), count(151.0)], &cases, 1.5);
        assert_eq!(faults.len(), 1);
        assert!(
            faults[0].starts_with("64 bytes, 98 % full"),
            "{}",
            faults[0]
        );
    }
}
