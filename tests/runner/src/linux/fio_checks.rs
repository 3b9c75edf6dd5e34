// SPDX-License-Identifier: MIT OR Apache-2.0
//! What has to hold when fio works a Linux guest's disks (tests/linux/work/fio.sh).

use super::facts::Facts;
use crate::checks::Check;
use crate::table::mebibytes;

/// The work, as the guest names it.
pub const FIO: &str = "fio";
/// What the guest does one after the other: with room, at the cap, and reading all of it again.
const PHASES: [&str; 3] = ["room", "cap", "again"];
/// What it does it on.
const DISKS: [&str; 2] = ["vdb", "nvme0n1"];

/// The promises of such a boot, beside those of every boot with the module.
#[must_use]
pub fn fio_checks(facts: &Facts) -> Vec<Check> {
    if facts.work.as_deref() != Some(FIO) {
        return Vec::new();
    }
    vec![
        verified(facts),
        grows_and_shrinks(facts),
        only_at_the_cap(facts),
    ]
}

/// Every job of every phase and disk said that all it read was right, and the file systems are whole. That none said
/// otherwise is a check of every boot.
fn verified(facts: &Facts) -> Check {
    let right = |what: &str| facts.stress.get(&format!("{what}-right")).copied();
    let cpus = facts.cpus.unwrap_or(0).max(1);
    let jobs = PHASES
        .iter()
        .flat_map(|phase| DISKS.map(|disk| (format!("{phase}-{disk}"), cpus)));
    let file_systems = DISKS.map(|disk| (format!("fsck-{disk}"), 1));
    let fetched = ("fetch".to_owned(), 1);
    let mut missing = jobs
        .chain(file_systems)
        .chain([fetched])
        .filter(|(what, least)| right(what).unwrap_or(0) < *least);
    let missing = missing.next();
    let all: u64 = facts.stress.values().sum();
    Check {
        name: "fio verifies all that it wrote, with room and at the cap, and the file systems are whole",
        ok: missing.is_none(),
        detail: match missing {
            Some((what, least)) => {
                format!("{what}: {} of {least} are right", right(&what).unwrap_or(0))
            }
            None => format!("{all} jobs, transfers and file systems"),
        },
    }
}

fn grows_and_shrinks(facts: &Facts) -> Check {
    let of = |name| facts.statistic("room", name).unwrap_or(0);
    let (growths, given_back) = (of("growths"), of("given_back_bytes"));
    Check {
        name: "the pool grows and gives back between the rounds",
        ok: growths != 0 && given_back != 0,
        detail: format!("{growths} growths, {} given back", mebibytes(given_back)),
    }
}

/// There were failures when the cap was low, there are none otherwise, and each has that cause.
fn only_at_the_cap(facts: &Facts) -> Check {
    let at = |moment, name| facts.statistic(moment, name);
    let failures = ["room", "cap", "after"].map(|moment| at(moment, "failures"));
    let by_cap = at("after", "failures_cap_reached");
    Check {
        name: "maps fail at the cap, by that cause, and never else",
        ok: matches!(
            failures,
            [Some(0), Some(cap), Some(after)] if cap != 0 && cap == after && by_cap == Some(after)
        ),
        detail: {
            let words = |count: Option<u64>| count.map_or("?".into(), |n| n.to_string());
            let [room, cap, after] = failures.map(words);
            let by_cap = words(by_cap);
            format!(
                "{room} with room, {cap} until the cap is lifted, {after} in all, {by_cap} of them by the cap"
            )
        },
    }
}
