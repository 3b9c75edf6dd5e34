// SPDX-License-Identifier: MIT OR Apache-2.0
//! What has to hold of several boots together.

use std::collections::BTreeMap;

use super::super::pool_checks::HARD_WORK;
use super::boot::Boot;
use crate::checks::Check;

/// SVSM calls of its own that the module may make until the drivers are there.
const OWN_CALLS: u64 = 12;
/// Calls that the kernel may make besides where its own swiotlb is small: 1 MiB is no large page, so it is shared in more
/// pieces than 64 MiB. Four are usual.
const SMALL_SWIOTLB_CALLS: u64 = 8;

/// Judges the boots.
#[must_use]
pub fn promises(boots: &[Boot]) -> Vec<Check> {
    let mut list = vec![same_conditions(boots)];
    for boot in boots {
        list.push(ended(boot));
    }
    list.push(digests(boots));
    for boot in boots.iter().filter(|boot| !is_excused(boot)) {
        list.push(own_checks(boot));
    }
    for pool in boots.iter().filter(|boot| boot.is_pool()) {
        list.push(calls_at_boot(pool, boots));
        list.push(converts_nothing(pool));
    }
    list
}

fn same_conditions(boots: &[Boot]) -> Check {
    let conditions = |boot: &Boot| {
        let guest = &boot.guest;
        format!(
            "{}, {} vCPUs, {} MiB, {} work",
            guest.release.as_deref().unwrap_or("no kernel"),
            boot.vcpus,
            boot.memory_bytes >> 20,
            guest.work.as_deref().unwrap_or("no"),
        )
    };
    let first = boots.first().map(conditions).unwrap_or_default();
    let other = boots.iter().find(|boot| conditions(boot) != first);
    let both = boots.iter().any(Boot::is_pool) && boots.iter().any(|boot| !boot.is_pool());
    Check {
        name: "one kernel, one machine, one work, with the module and without it",
        ok: other.is_none() && both,
        detail: match other {
            Some(other) => format!("{first}; {}: {}", other.name, conditions(other)),
            None if both => first,
            None => "no boot with the module, or none without it".into(),
        },
    }
}

fn ended(boot: &Boot) -> Check {
    // Its promises are about the module; here it is enough that it ended by itself.
    Check {
        name: "a boot comes to its end",
        ok: boot.death.is_none() && boot.guest.done.is_some(),
        detail: match &boot.death {
            Some(death) => format!("{}: {death}", boot.name),
            None => boot.name.clone(),
        },
    }
}

/// Without the module a read may stall under hard work; what it costs then is judged by [`trouble_without`].
fn is_excused(boot: &Boot) -> bool {
    !boot.is_pool() && boot.guest.work.as_deref() == Some(HARD_WORK)
}

/// Each boot read what the host has, as its own checks say, and so all of them the same.
fn digests(boots: &[Boot]) -> Check {
    let of_devices = |name: &str| name.ends_with("matches") || name.contains("marker");
    let mut wrong = boots
        .iter()
        .filter(|boot| !is_excused(boot))
        .flat_map(|boot| {
            let kept = boot.kept.iter();
            let wrong = kept.filter(|kept| !kept.ok && of_devices(&kept.name));
            wrong.map(|wrong| format!("{}: {}: {}", boot.name, wrong.name, wrong.detail))
        });
    let wrong = wrong.next();
    let digests = boots.iter().flat_map(|boot| &boot.guest.digests);
    let mut all = BTreeMap::new();
    let same = digests
        .into_iter()
        .all(|(device, digest)| all.entry(device).or_insert(digest) == &digest);
    Check {
        name: "every digest is the host's, in every boot",
        ok: wrong.is_none() && same && !all.is_empty(),
        detail: wrong.unwrap_or_else(|| match same {
            true => format!("{} devices", all.len()),
            false => "the boots read different bytes".into(),
        }),
    }
}

fn own_checks(boot: &Boot) -> Check {
    let broken: Vec<_> = boot.kept.iter().filter(|kept| !kept.ok).collect();
    Check {
        name: "a boot passes its own checks",
        ok: broken.is_empty() && !boot.kept.is_empty(),
        detail: match broken.first() {
            Some(first) => format!(
                "{}: {} broken, first: {}: {}",
                boot.name,
                broken.len(),
                first.name,
                first.detail
            ),
            None => format!("{}: {} of them", boot.name, boot.kept.len()),
        },
    }
}

fn calls_at_boot(pool: &Boot, boots: &[Boot]) -> Check {
    let calls = |boot: &Boot| {
        boot.phase("boot")
            .map(super::super::account::Phase::all_calls)
    };
    let others = boots.iter().filter(|boot| !boot.is_pool());
    let without = others.filter_map(calls).min();
    let with = calls(pool);
    let own: u64 = pool.phase("boot").map_or(0, |phase| {
        let own = phase
            .calls
            .iter()
            .filter(|(kind, _)| kind.contains(".pool."));
        own.map(|(_, count)| count).sum()
    });
    Check {
        name: "until the drivers are there, at most 12 SVSM calls of the module's, and else as many as without it",
        ok: own <= OWN_CALLS
            && matches!((with, without), (Some(with), Some(without)) if with <= without + own + SMALL_SWIOTLB_CALLS),
        detail: match (with, without) {
            (Some(with), Some(without)) => {
                format!("{with}, {own} of them the module's; without it {without}")
            }
            _ => "a boot did not get so far".into(),
        },
    }
}

fn converts_nothing(pool: &Boot) -> Check {
    let exits = pool.phase("work").map(|work| {
        let page_state = &work.page_state;
        page_state.msr_exits + page_state.ghcb_exits
    });
    Check {
        name: "during the work the guest converts no page of its own",
        ok: exits == Some(0),
        detail: exits.map_or("it did not get so far".into(), |n| format!("{n} exits")),
    }
}

/// Whether each boot without the module shows what the kernel's own pool does under hard work: trouble.
#[must_use]
pub fn trouble_without(boots: &[Boot]) -> Check {
    let (mut each, mut words) = (true, Vec::new());
    for boot in boots.iter().filter(|boot| is_excused(boot)) {
        let (full, bad) = (boot.troubles("buffer is full"), boot.guest.bad_transfers());
        let steps = boot.guest.failed.len();
        each &= full != 0 || bad != 0 || steps != 0;
        let name = &boot.name;
        words.push(format!(
            "{name}: {full} lines 'buffer is full', {steps} steps failed, {bad} transfers bad or stalled"
        ));
    }
    Check {
        name: "the same work runs into a full swiotlb in each boot without the module",
        ok: each && !words.is_empty(),
        detail: if words.is_empty() {
            "no boot without the module works hard".into()
        } else {
            words.join("; ")
        },
    }
}
