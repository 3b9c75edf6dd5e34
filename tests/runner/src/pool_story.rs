// SPDX-License-Identifier: MIT OR Apache-2.0
//! How the pool's size changed in the course of a run.

use serde::Serialize;

use crate::own_conversions::OwnConversion;
use crate::transcript::Transcript;

/// Marker behind the last transfer, before chunks are given back.
const BEFORE_GIVING_BACK: u64 = 2;

/// The pool from attach to end.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct PoolStory {
    /// Bytes granted at attach.
    pub start: u64,
    /// Each growth: ticks since attach, bytes granted afterwards.
    pub growth_steps: Vec<(u64, u64)>,
    /// Most bytes granted.
    pub peak: u64,
    /// Growths after the attach, counted by the shim: two in quick succession are one step of the samples, and a host
    /// that converts a chunk in several exits makes many conversions of one.
    pub growths: u64,
    /// Bytes that VMPL0 had shared since the attach, by the host's record, without those of CONVERT.
    pub shared: u64,
    /// Most bytes in use.
    pub peak_used: u64,
    /// Bytes granted at the end.
    pub end: u64,
    /// Bytes that the guest gave back after the peak.
    pub given_back: u64,
    /// Bytes that VMPL0 asked the host to take back and the host converted.
    pub freed: u64,
}

impl PoolStory {
    /// Reads it off the pool samples and, for what became of the chunks, the host's conversions.
    #[must_use]
    pub fn of(transcript: &Transcript) -> Self {
        let mut story = Self::default();
        let Some(attach) = &transcript.attach else {
            return story;
        };
        story.start = attach.granted;
        let mut granted = attach.granted;
        for sample in &transcript.pool {
            if sample.granted > granted {
                let ticks = sample.tsc.saturating_sub(attach.tsc);
                story.growth_steps.push((ticks, sample.granted));
            }
            granted = sample.granted;
            story.peak = story.peak.max(granted);
            story.peak_used = story.peak_used.max(sample.used);
        }
        story.peak = story.peak.max(attach.granted);
        story.end = granted;
        story.given_back = story.peak - granted;
        // The attach is the first one it counts.
        let growths = transcript.shim.get("growths").copied().unwrap_or(0);
        story.growths = growths.saturating_sub(1);
        story.shared = transcript
            .conversions
            .iter()
            .filter(|one| one.vmpl == 0 && one.shared && one.tsc >= attach.tsc)
            .filter(|one| !OwnConversion::covers(transcript, one.tsc))
            .map(|one| one.bytes)
            .sum();
        if let Some(from) = transcript.marks.get(&BEFORE_GIVING_BACK) {
            story.freed = transcript
                .conversions
                .iter()
                .filter(|one| one.vmpl == 0 && !one.shared && one.tsc >= *from)
                .map(|one| one.bytes)
                .sum();
        }
        story
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::PoolStory;
    use crate::transcript::Transcript;

    #[test]
    fn growth_peak_and_giving_back_are_told_apart() {
        let mut transcript = Transcript::default();
        let mut guest = |line: &str| transcript.guest_says(line, Duration::ZERO);
        guest("@attach tsc=100 boot_tsc=0 window=64 granted=2");
        guest("@pool tsc=100 granted=2 used=0");
        guest("@pool tsc=110 granted=2 used=1");
        guest("@pool tsc=120 granted=4 used=3");
        guest("@pool tsc=130 granted=8 used=5");
        guest("@pool tsc=140 granted=2 used=0");
        guest("@shim name=growths value=4");
        for record in [
            "psc tsc=90 vmpl=0 op=shared gpa=0 bytes=4194304 total_shared=0",
            "psc tsc=121 vmpl=0 op=shared gpa=0 bytes=4194304 total_shared=0",
            "psc tsc=125 vmpl=0 op=private gpa=0 bytes=1 total_shared=0",
            "mark id=2 tsc=131",
            "psc tsc=135 vmpl=2 op=private gpa=0 bytes=7 total_shared=0",
            "psc tsc=136 vmpl=0 op=shared gpa=0 bytes=9 total_shared=0",
            "psc tsc=139 vmpl=0 op=private gpa=0 bytes=6 total_shared=0",
        ] {
            transcript.host_says(record);
        }
        assert!(transcript.broken.is_empty(), "{:?}", transcript.broken);
        let want = PoolStory {
            start: 2,
            growth_steps: vec![(20, 4), (30, 8)],
            growths: 3,
            shared: 4_194_304 + 9,
            peak: 8,
            peak_used: 5,
            end: 2,
            given_back: 6,
            freed: 6,
        };
        assert_eq!(PoolStory::of(&transcript), want);
    }
}
