// SPDX-License-Identifier: MIT OR Apache-2.0
//! What has to hold when the module drives the devices of a Linux guest.

use super::account::Account;
use super::facts::Facts;
use super::fio_checks::{FIO, fio_checks};
use crate::checks::Check;
use crate::run::Outcome;
use crate::table::mebibytes;

/// Most that the pool may hold before the work.
const MOST_BEFORE: u64 = 2 << 20;
/// Most that it may hold when what is not needed was given back: a buffer that the network keeps may lie in what was granted later.
const MOST_AFTER: u64 = 4 << 20;
/// Moments from which on nobody may use the kernel's own bounce buffer.
const MOMENTS: [&str; 4] = ["loaded", "begin", "end", "after"];
/// The work that does not fit into what the pool begins with.
pub const HARD_WORK: &str = "stress";
/// Steps of the guest that concern the module.
pub const STEPS: [&str; 3] = ["module", "swiotlb", "give-back"];

/// The promises of the pool.
#[must_use]
pub fn pool_checks(outcome: &Outcome, account: &Account) -> Vec<Check> {
    let facts = &outcome.transcript.linux;
    let mut list = vec![
        devices(outcome),
        swiotlb_unused(facts),
        bounced_elsewhere(account),
        shared_elsewhere(account),
        no_trouble(facts),
        held(facts, account),
    ];
    // It takes the pool to its cap.
    if facts.work.as_deref() != Some(FIO) {
        list.push(no_failures(facts));
    }
    list.extend(fio_checks(facts));
    list.extend(grows_with_interrupts_off(facts));
    list
}

/// The module is there, and has every device.
fn devices(outcome: &Outcome) -> Check {
    let facts = &outcome.transcript.linux;
    let failed = STEPS.iter().find_map(|step| facts.failed.get(*step));
    let listed = facts
        .pool
        .get("begin")
        .and_then(|all| all.get("devices"))
        .map_or("", String::as_str);
    // A number, or their names.
    let count = match listed.parse() {
        Ok(count) => count,
        Err(_) => listed.split_whitespace().count(),
    };
    let maps = facts.statistic("end", "maps").unwrap_or(0);
    Check {
        name: "the module is loaded and drives every device",
        ok: failed.is_none() && count >= outcome.pci_devices() && maps != 0,
        detail: match failed {
            Some(cause) => cause.clone(),
            None => format!("{count} of {} devices, {maps} maps", outcome.pci_devices()),
        },
    }
}

/// The guest's word, which the host's account supports.
fn swiotlb_unused(facts: &Facts) -> Check {
    let used = MOMENTS.iter().find(|moment| {
        let bounce = facts.bounce.get(**moment);
        bounce.is_none_or(|bounce| bounce.used != 0 || bounce.peak != 0)
    });
    Check {
        name: "the kernel's own swiotlb is not used once the module is loaded",
        ok: used.is_none(),
        detail: match used.map(|moment| (moment, facts.bounce.get(*moment))) {
            None => "0 bytes".into(),
            Some((moment, Some(bounce))) => {
                format!(
                    "{moment}: {} bytes in use, at most {}",
                    bounce.used, bounce.peak
                )
            }
            Some((moment, None)) => format!("{moment}: the guest does not say"),
        },
    }
}

/// From outside: what is shared elsewhere holds what it held when the module was loaded.
fn bounced_elsewhere(account: &Account) -> Check {
    Check {
        name: "nothing is bounced elsewhere: no shared page outside the window changes, but GHCBs",
        ok: account.changed_elsewhere == 0 && account.watched_pages != 0,
        detail: match account.watched_pages {
            0 => "the host watched no page".into(),
            pages => format!("{} bytes of {pages} pages", account.changed_elsewhere),
        },
    }
}

fn shared_elsewhere(account: &Account) -> Check {
    Check {
        name: "no page outside the window becomes shared once the module is loaded",
        ok: account.shared_elsewhere == 0,
        detail: format!("{} bytes", account.shared_elsewhere),
    }
}

fn no_failures(facts: &Facts) -> Check {
    let failures = facts.statistic("after", "failures");
    Check {
        name: "no map fails",
        ok: failures == Some(0),
        detail: failures.map_or("the module does not say".into(), |n| {
            format!("{n} failures")
        }),
    }
}

fn no_trouble(facts: &Facts) -> Check {
    let bad = facts.bad_transfers();
    Check {
        name: "the kernel reports no trouble with devices, and no transfer is lost or wrong",
        ok: facts.trouble.is_empty() && bad == 0,
        detail: match facts.trouble.first() {
            Some(line) => line.clone(),
            None => format!("{bad} transfers are"),
        },
    }
}

/// Under hard work, where the module counts it.
fn grows_with_interrupts_off(facts: &Facts) -> Option<Check> {
    let calls = facts.statistic("after", "calls_grow_interrupts_off")?;
    (facts.work.as_deref() == Some(HARD_WORK)).then(|| Check {
        name: "the pool grows at least once with interrupts off",
        ok: calls != 0,
        detail: format!("{calls} calls"),
    })
}

/// The network keeps receive buffers for as long as its device is bound, in whatever chunks they came to lie. Hard work
/// scatters them, so what is held behind it is told and not bounded.
fn held(facts: &Facts, account: &Account) -> Check {
    let (before, after) = (account.window.boot, account.window.after);
    let most_after = match facts.work.as_deref() {
        Some(HARD_WORK | FIO) => account.window.peak,
        _ => MOST_AFTER,
    };
    let peak = mebibytes(account.window.peak);
    Check {
        name: "the pool holds little before the work and after",
        ok: (1..=MOST_BEFORE).contains(&before) && after <= most_after,
        detail: format!(
            "{} before, {peak} at most, {} after; allowed are {} and {}",
            mebibytes(before),
            mebibytes(after),
            mebibytes(MOST_BEFORE),
            mebibytes(most_after)
        ),
    }
}
