// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a boot of Linux cost, phase by phase, by the host's own account: SVSM calls, page-state changes, shared memory.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use serde::{Deserialize, Serialize};
use snp_host::record::FINAL_SNAPSHOT;

use crate::host_record::Conversion;
use crate::run::Outcome;
use crate::transcript::{Counters, Transcript};

/// Marks of the guest (tests/linux/init): the module is loaded, or none is wanted.
pub const LOADED: u64 = 1;
/// All drivers are there, the work begins.
pub const BEGIN: u64 = 2;
/// It is done.
pub const END: u64 = 3;
/// The pool has been asked to give back what it does not need.
pub const AFTER: u64 = 4;

const PAGE: usize = 4096;

/// Times between marks, by name.
const PHASES: [(&str, Option<u64>, u64); 3] = [
    ("boot", None, BEGIN),
    ("work", Some(BEGIN), END),
    ("after", Some(END), FINAL_SNAPSHOT as u64),
];

/// Page-state changes of one phase.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageState {
    /// Exits of the guest by the MSR protocol, one page each.
    pub msr_exits: u64,
    /// Exits of the guest by GHCB.
    pub ghcb_exits: u64,
    /// Exits of the service.
    pub service_exits: u64,
    /// Bytes made shared, by whomever.
    pub to_shared: u64,
    /// Bytes made private.
    pub to_private: u64,
}

/// What one phase cost.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Phase {
    /// SVSM calls by kind.
    pub calls: Counters,
    /// Page-state changes.
    pub page_state: PageState,
}

impl Phase {
    /// SVSM calls of all kinds.
    #[must_use]
    pub fn all_calls(&self) -> u64 {
        self.calls.values().sum()
    }
}

/// Bytes shared with the host at each moment.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shared {
    /// When the work begins.
    pub boot: u64,
    /// When it ends.
    pub in_use: u64,
    /// The most at any time up to then.
    pub peak: u64,
    /// After what is not needed was given back.
    pub after: u64,
}

/// The account of one boot.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// By name: boot (until the drivers are there), work, after.
    pub phases: BTreeMap<String, Phase>,
    /// Guest memory that is shared, the windows included.
    pub shared: Shared,
    /// Of that, the windows.
    pub window: Shared,
    /// Bytes outside the windows that became shared once the module was there.
    pub shared_elsewhere: u64,
    /// Bytes of shared pages outside the windows, and no GHCBs, that changed once the module was there.
    pub changed_elsewhere: u64,
    /// Pages that were watched for that.
    pub watched_pages: u64,
}

impl Account {
    /// The account of a boot; what was not reached is zero.
    #[must_use]
    pub fn of(outcome: &Outcome) -> Self {
        let transcript = &outcome.transcript;
        let windows = &outcome.windows;
        let loaded = transcript.marks.get(&LOADED);
        let elsewhere = |conversion: &&Conversion| {
            conversion.shared && loaded.is_some_and(|loaded| conversion.tsc > *loaded)
        };
        let count = |name: &str| {
            let newest = transcript.newest();
            newest.and_then(|one| one.counters.get(name).copied())
        };
        Self {
            phases: PHASES
                .iter()
                .filter_map(|(name, from, to)| {
                    let growth = match from {
                        None => transcript.snapshots.get(to)?.counters.clone(),
                        Some(from) => transcript.growth(*from, *to)?,
                    };
                    Some(((*name).to_owned(), phase(transcript, &growth, *from, *to)))
                })
                .collect(),
            shared: shared(transcript, |conversion| conversion.total_shared),
            window: shared(transcript, within(windows)),
            shared_elsewhere: transcript
                .conversions
                .iter()
                .filter(elsewhere)
                .map(|conversion| conversion.bytes - overlap(conversion, windows))
                .sum(),
            changed_elsewhere: transcript
                .changes
                .iter()
                .filter(|change| {
                    let inside = windows.iter().any(|window| window.contains(&change.gpa));
                    !change.protocol && !inside
                })
                .map(|change| change.bytes)
                .sum(),
            watched_pages: count("shared.watched").unwrap_or(0),
        }
    }
}

fn phase(transcript: &Transcript, growth: &Counters, from: Option<u64>, to: u64) -> Phase {
    let count = |name: &str| growth.get(name).copied().unwrap_or(0);
    let time = |mark: &u64| transcript.snapshots.get(mark).map(|snapshot| snapshot.tsc);
    let start = from.as_ref().and_then(time).unwrap_or(0);
    let end = time(&to).unwrap_or(u64::MAX);
    let bytes = |shared: bool| {
        let all = transcript.conversions.iter();
        all.filter(|one| one.shared == shared && (start..end).contains(&one.tsc))
            .map(|one| one.bytes)
            .sum()
    };
    Phase {
        calls: growth
            .iter()
            .filter_map(|(name, value)| Some((name.strip_prefix("svsm.")?.to_owned(), *value)))
            .collect(),
        page_state: PageState {
            msr_exits: count("vmgexit.2.msr-psc"),
            ghcb_exits: count("vmgexit.2.psc"),
            service_exits: count("vmgexit.0.psc") + count("vmgexit.0.msr-psc"),
            to_shared: bytes(true),
            to_private: bytes(false),
        },
    }
}

/// Bytes of a conversion in the windows, which are apart.
fn overlap(conversion: &Conversion, windows: &[Range<u64>]) -> u64 {
    let end = conversion.gpa.saturating_add(conversion.bytes);
    let of_one = |window: &Range<u64>| {
        end.min(window.end)
            .saturating_sub(conversion.gpa.max(window.start))
    };
    windows.iter().map(of_one).sum()
}

/// Shared bytes at each moment; `then` says how many there are after a conversion.
fn shared(transcript: &Transcript, mut then: impl FnMut(&Conversion) -> u64) -> Shared {
    let time = |mark| {
        let mark = transcript.snapshots.get(&mark);
        mark.map_or(u64::MAX, |snapshot| snapshot.tsc)
    };
    let (begin, end, after) = (time(BEGIN), time(END), time(AFTER));
    let mut all = Shared::default();
    for conversion in &transcript.conversions {
        let now = then(conversion);
        if conversion.tsc < begin {
            all.boot = now;
        }
        if conversion.tsc < end {
            all.in_use = now;
            all.peak = all.peak.max(now);
        }
        if conversion.tsc < after {
            all.after = now;
        }
    }
    all
}

/// Shared bytes of `windows` after each conversion. Page by page: a chunk may be shared that is shared.
fn within(windows: &[Range<u64>]) -> impl FnMut(&Conversion) -> u64 {
    let mut pages = BTreeSet::new();
    move |conversion| {
        let end = conversion.gpa.saturating_add(conversion.bytes);
        let touched = |window: &Range<u64>| conversion.gpa.max(window.start)..end.min(window.end);
        for page in windows
            .iter()
            .flat_map(|window| touched(window).step_by(PAGE))
        {
            if conversion.shared {
                pages.insert(page);
            } else {
                pages.remove(&page);
            }
        }
        (pages.len() * PAGE) as u64
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Phase, Shared, shared, within};
    use crate::transcript::Transcript;

    fn told(records: &str) -> Transcript {
        let mut transcript = Transcript::default();
        for record in records.lines() {
            transcript.host_says(record.trim());
        }
        transcript.guest_says("", Duration::ZERO);
        assert_eq!(transcript.broken, [""; 0]);
        transcript
    }

    const BOOT: &str = "psc tsc=10 vmpl=2 op=shared gpa=0x1000 bytes=4096 total_shared=4096
        psc tsc=11 vmpl=0 op=shared gpa=0x200000 bytes=2097152 total_shared=2101248
        snapshot id=2 tsc=20
        count name=svsm.msr.pool.grow value=1
        count name=vmgexit.2.psc value=4
        end id=2
        psc tsc=21 vmpl=0 op=shared gpa=0x400000 bytes=2097152 total_shared=4198400
        psc tsc=22 vmpl=0 op=shared gpa=0x400000 bytes=2097152 total_shared=4198400
        psc tsc=23 vmpl=0 op=private gpa=0x400000 bytes=2097152 total_shared=2101248
        snapshot id=3 tsc=30
        count name=svsm.msr.pool.grow value=3
        count name=vmgexit.2.psc value=4
        count name=vmgexit.2.msr-psc value=7
        end id=3
        psc tsc=31 vmpl=0 op=private gpa=0x200000 bytes=2097152 total_shared=4096
        snapshot id=4 tsc=40
        end id=4";

    #[test]
    fn shared_memory_is_told_at_each_moment() {
        let transcript = told(BOOT);
        let all = shared(&transcript, |conversion| conversion.total_shared);
        let of = |boot, in_use, peak, after| Shared {
            boot,
            in_use,
            peak,
            after,
        };
        assert_eq!(all, of(2_101_248, 2_101_248, 4_198_400, 4096));
        let window = shared(
            &transcript,
            within(&[0x20_0000..0x40_0000, 0x40_0000..0x60_0000]),
        );
        assert_eq!(window, of(2 << 20, 2 << 20, 4 << 20, 0));
    }

    #[test]
    fn phases_have_what_they_grew_by() {
        let transcript = told(BOOT);
        let growth = transcript.growth(2, 3).expect("both are there");
        let work = super::phase(&transcript, &growth, Some(2), 3);
        assert_eq!(work.calls, [("msr.pool.grow".into(), 2)].into());
        let page_state = &work.page_state;
        assert_eq!((page_state.msr_exits, page_state.ghcb_exits), (7, 0));
        assert_eq!(
            (page_state.to_shared, page_state.to_private),
            (4 << 20, 2 << 20)
        );
        assert_eq!(Phase::default().all_calls(), 0);
    }
}
