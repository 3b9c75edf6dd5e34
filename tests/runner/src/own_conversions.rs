// SPDX-License-Identifier: MIT OR Apache-2.0
//! What conversions of the guest's own pages cost, by the host's counters between the guest's markers
//! (tests/guest/src/machine/conversion.rs): by CONVERT, and by the core protocol as Linux does it.

use std::ops::RangeInclusive;

use serde::Serialize;

use crate::checks::Check;
use crate::run::Outcome;
use crate::transcript::{Counters, Transcript};

/// Marker before the first conversion; each way there and back has [`MARKS`].
const FIRST_MARK: u64 = 16;
/// Before, between and after.
const MARKS: u64 = 3;
/// Page sizes, and whether the RMP was made to hold small entries before.
const KINDS: [(u64, bool); 3] = [(LARGE, false), (LARGE, true), (SMALL, false)];
/// The last one.
const LAST_MARK: u64 = FIRST_MARK + 2 * KINDS.len() as u64 * MARKS - 1;
/// Bytes of a small page.
const SMALL: u64 = 4096;
/// Bytes of a large page.
const LARGE: u64 = 2 << 20;
/// Work units of a call (docs/PROTOCOL.md, P-6.4).
const UNITS: u64 = 4096;
/// Entries of a batch (P-6.4).
const BATCH: u64 = 253;
/// Entries of a list of PVALIDATE, and of the page-state change that goes with it.
const LINUX_BATCH: u64 = 64;
/// 4 KiB pages in a large one.
const PARTS: u64 = LARGE / SMALL;

/// One conversion of all pages.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct OwnConversion {
    /// By CONVERT; else by PVALIDATE calls and the guest's own page-state changes.
    pub by_convert: bool,
    /// Bytes converted.
    pub bytes: u64,
    /// Bytes of a page.
    pub page_bytes: u64,
    /// The guest saw to it that the RMP holds the pages in entries of 4 KiB; else it holds them as it likes.
    pub split: bool,
    /// To shared; else to private.
    pub shared: bool,
    /// SVSM calls.
    pub calls: u64,
    /// VMGEXITs for page-state changes.
    pub psc_exits: u64,
    /// Flushes of all processors.
    pub flushes: u64,
    /// PVALIDATE and RMPADJUST instructions.
    pub instructions: u64,
}

impl OwnConversion {
    /// All of them, in the order of the markers; those whose markers are missing are left out.
    #[must_use]
    pub fn of(transcript: &Transcript) -> Vec<Self> {
        let bytes = transcript.converted.unwrap_or_default();
        let mut list = Vec::new();
        let mut mark = FIRST_MARK;
        for (page_bytes, split) in KINDS {
            for by_convert in [true, false] {
                for (at, shared) in [(mark, true), (mark + 1, false)] {
                    if let Some(counters) = transcript.growth(at, at + 1) {
                        let one = Self {
                            by_convert,
                            bytes,
                            page_bytes,
                            split,
                            shared,
                            ..Self::counted(&counters)
                        };
                        list.push(one);
                    }
                }
                mark += MARKS;
            }
        }
        list
    }

    fn counted(counters: &Counters) -> Self {
        let sum = |counts: fn(&str) -> bool| {
            let matching = counters.iter().filter(|(name, _)| counts(name));
            matching.map(|(_, value)| value).sum()
        };
        Self {
            calls: sum(|name| name.starts_with("vmgexit.2.") && name.ends_with("run-vmpl")),
            psc_exits: sum(|name| name.starts_with("vmgexit.") && name.ends_with("psc")),
            flushes: sum(|name| name == "instruction.0.invlpgb"),
            instructions: sum(|name| {
                name == "instruction.0.pvalidate" || name == "instruction.0.rmpadjust"
            }),
            ..Self::default()
        }
    }

    /// Whether an instant of the run lies between the first marker and the last.
    #[must_use]
    pub fn covers(transcript: &Transcript, tsc: u64) -> bool {
        let mark = |number| transcript.marks.get(&number).copied();
        let (first, last) = (mark(FIRST_MARK), mark(LAST_MARK));
        first.is_some_and(|first| first <= tsc) && last.is_some_and(|last| tsc <= last)
    }

    /// The words of the table.
    #[must_use]
    pub fn name(&self) -> String {
        let size = match (self.page_bytes, self.split) {
            (LARGE, false) => "2 MiB",
            (LARGE, true) => "2 MiB (RMP 4 KiB)",
            _ => "4 KiB",
        };
        let way = if self.shared { "shared" } else { "private" };
        let by = if self.by_convert {
            "CONVERT"
        } else {
            "PVALIDATE"
        };
        format!("{size} to {way} by {by}")
    }
}

impl OwnConversion {
    /// Whether the figures are what they can be: not more, or the work was not batched, and not less, or some was not done.
    /// A host that is not prompt is asked again for what is left.
    fn is_plausible(&self, prompt_host: bool) -> bool {
        let entries = self.bytes / self.page_bytes;
        let calls = match (self.by_convert, self.page_bytes, self.shared) {
            (true, SMALL, _) => exactly(entries.div_ceil(BATCH)),
            // One by one at best, page by page at worst.
            (true, _, true) => entries.div_ceil(BATCH)..=entries.div_ceil(UNITS / PARTS),
            (true, _, false) => exactly(entries.div_ceil(UNITS / PARTS)),
            (false, SMALL, _) => exactly(entries.div_ceil(LINUX_BATCH)),
            // A large page that fails is done in two lists.
            (false, _, _) => entries.div_ceil(LINUX_BATCH)..=3 * entries,
        };
        let asked = match self.by_convert {
            true => self.calls,
            false => entries.div_ceil(LINUX_BATCH),
        };
        let flushes = match (self.by_convert, self.page_bytes, self.shared) {
            (_, _, false) => exactly(0),
            (true, ..) | (_, SMALL, _) => exactly(self.calls),
            // Of the lists of 256, each takes four.
            (false, ..) => self.calls..=9 * entries,
        };
        calls.contains(&self.calls)
            && self.psc_exits >= asked
            && (self.psc_exits == asked || !prompt_host)
            && flushes.contains(&self.flushes)
    }
}

const fn exactly(value: u64) -> RangeInclusive<u64> {
    value..=value
}

/// Whether CONVERT kept to its bounds, and what it is compared with to its own.
#[must_use]
pub fn check(outcome: &Outcome) -> Check {
    let transcript = &outcome.transcript;
    let found = OwnConversion::of(transcript);
    let bytes = transcript.converted.unwrap_or_default();
    let prompt = outcome.prompt_host;
    let wrong = found.iter().find(|one| !one.is_plausible(prompt));
    let small = |by_convert| {
        let mut small = found.iter().filter(|one| one.page_bytes == SMALL);
        small.find(|one| one.by_convert == by_convert)
    };
    Check {
        name: "CONVERT takes a call, an exit and a flush for 253 pages",
        ok: bytes != 0 && found.len() == 4 * KINDS.len() && wrong.is_none(),
        detail: match (wrong, small(true), small(false)) {
            (Some(one), ..) => format!("{one:?}"),
            (None, Some(one), Some(other)) => format!(
                "{} MiB in 4 KiB pages: {} calls, {} exits; by PVALIDATE {} and {}",
                bytes >> 20,
                one.calls,
                one.psc_exits,
                other.calls,
                other.psc_exits
            ),
            (None, ..) => "nothing was converted".into(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::OwnConversion;
    use crate::transcript::Transcript;

    #[test]
    fn figures_are_what_grows_between_two_markers() {
        let mut transcript = Transcript::default();
        for (id, calls, exits) in [(16, 3, 5), (17, 4, 7), (19, 0, 0), (26, 9, 9), (27, 11, 9)] {
            for record in [
                format!("mark id={id} tsc={id}"),
                format!("snapshot id={id} tsc={id}"),
                format!("count name=vmgexit.2.msr-run-vmpl value={calls}"),
                format!("count name=vmgexit.2.psc value={exits}"),
                format!("count name=vmgexit.0.psc value={exits}"),
                format!("count name=vmgexit.0.run-vmpl value={exits}"),
                format!("count name=instruction.0.invlpgb value={calls}"),
                format!("count name=instruction.0.tlbsync value={exits}"),
                format!("end id={id}"),
            ] {
                transcript.host_says(&record);
            }
        }
        let found = OwnConversion::of(&transcript);
        let [one, split] = &found[..] else {
            panic!("{found:?}")
        };
        assert_eq!(split.name(), "2 MiB (RMP 4 KiB) to private by PVALIDATE");
        assert_eq!((split.calls, split.psc_exits), (2, 0));
        assert!(one.by_convert && one.shared && one.page_bytes == 2 << 20 && !one.split);
        assert_eq!((one.calls, one.psc_exits, one.flushes), (1, 4, 1));
        assert!(
            !OwnConversion::covers(&transcript, 16),
            "the last is missing"
        );
        transcript.host_says("mark id=33 tsc=90");
        assert!(OwnConversion::covers(&transcript, 16));
        assert!(!OwnConversion::covers(&transcript, 15));
        assert!(!OwnConversion::covers(&transcript, 91));
    }

    #[test]
    fn figures_are_neither_too_high_nor_too_low() {
        let figures = |by_convert, page_bytes, shared, [calls, psc_exits, flushes]: [u64; 3]| {
            let one = OwnConversion {
                by_convert,
                bytes: 64 << 20,
                page_bytes,
                shared,
                calls,
                psc_exits,
                flushes,
                ..OwnConversion::default()
            };
            [true, false].map(|prompt| one.is_plausible(prompt))
        };
        let (small, large) = (4096, 2 << 20);
        for (by_convert, page_bytes, shared, good) in [
            (true, small, true, [65, 65, 65]),
            (true, small, false, [65, 65, 0]),
            (false, small, true, [256, 256, 256]),
            (false, small, false, [256, 256, 0]),
            (true, large, true, [1, 1, 1]),
            (true, large, true, [4, 4, 4]),
            (true, large, false, [4, 4, 0]),
            (false, large, true, [1, 1, 1]),
            (false, large, true, [96, 1, 288]),
            (false, large, false, [96, 1, 0]),
        ] {
            let judged = |figures_of| figures(by_convert, page_bytes, shared, figures_of);
            assert_eq!(judged(good), [true; 2], "{good:?}");
            let [calls, exits, flushes] = good;
            assert_eq!(judged([calls, exits + 1, flushes]), [false, true]);
            assert_eq!(judged([calls, exits - 1, flushes]), [false; 2], "{good:?}");
            assert_eq!(judged([0, exits, flushes]), [false; 2], "{good:?}");
            if flushes > 0 {
                assert_eq!(judged([calls, exits, 0]), [false; 2], "{good:?}");
            }
            if page_bytes == small {
                assert_eq!(judged([calls + 1, exits + 1, flushes]), [false; 2]);
                assert_eq!(judged([calls, exits, flushes + 1]), [false; 2]);
            }
        }
        assert_eq!(figures(true, large, true, [5, 5, 5]), [false; 2]);
    }
}
