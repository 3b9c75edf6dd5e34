// SPDX-License-Identifier: MIT OR Apache-2.0
//! Everything that host and guest said in the course of a run.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use snp_host::record::kind;

use crate::guest_line::{
    Attach, Burst, Busy, Crash, GuestLine, PhaseProgress, PoolSample, Restart, SelfTest, Trace,
};
use crate::host_record::{Conversion, HostRecord, Inspection, SharedChange, Termination};
use crate::line::LineError;
use crate::linux::Facts;

/// Lines of each kind that are kept for a report of what happened last.
const KEPT_LINES: usize = 20;

/// Counters by name.
pub type Counters = BTreeMap<String, u64>;

/// Counters at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Time stamp counter.
    pub tsc: u64,
    /// Counters since the machine started.
    pub counters: Counters,
}

/// What was said so far.
#[derive(Debug, Default)]
pub struct Transcript {
    /// The host runs.
    pub host_booted: bool,
    /// Complete snapshots by number.
    pub snapshots: BTreeMap<u64, Snapshot>,
    /// Page conversions in order.
    pub conversions: Vec<Conversion>,
    /// Shared pages that changed while they were watched.
    pub changes: Vec<SharedChange>,
    /// Looks at VMPL 0's page tables.
    pub inspections: Vec<Inspection>,
    /// Markers of the guest and their time stamps.
    pub marks: BTreeMap<u64, u64>,
    /// The report of the violation that stopped the machine.
    pub violation: Option<String>,
    /// Why the guest could not go on.
    pub died: Option<String>,
    /// How the guest ended itself.
    pub termination: Option<Termination>,
    /// How the guest turned the machine off.
    pub poweroff: Option<String>,
    /// How the guest reset the machine.
    pub reset: Option<String>,
    /// What a Linux guest said.
    pub linux: Facts,
    /// Differences in pages that were never shared.
    pub patterns: Vec<String>,
    /// The machine's exit code.
    pub exit_code: Option<u64>,
    /// The moment of attaching.
    pub attach: Option<Attach>,
    /// When that was heard, from the start of the machine on.
    pub attach_heard: Option<Duration>,
    /// The pool over time.
    pub pool: Vec<PoolSample>,
    /// Digests by phase.
    pub digests: BTreeMap<String, String>,
    /// vCPUs that the guest uses, where it says so.
    pub cpus: Option<u64>,
    /// When each device was busy.
    pub busy: Vec<Busy>,
    /// What each vCPU did in the burst.
    pub bursts: Vec<Burst>,
    /// SVSM calls by kind, as the guest counts them.
    pub calls: Counters,
    /// Counters of the shim.
    pub shim: Counters,
    /// Kernels that crashed.
    pub crashes: Vec<Crash>,
    /// What the kernels did about what the ones before left behind.
    pub restarts: Vec<Restart>,
    /// Counters of the service.
    pub service: Counters,
    /// The newest events of the service.
    pub trace: Vec<Trace>,
    /// Wrong calls and their answers.
    pub self_tests: Vec<SelfTest>,
    /// Bytes of its own that the guest converted each time.
    pub converted: Option<u64>,
    /// The phase at work.
    pub progress: Option<PhaseProgress>,
    /// The guest's own verdict.
    pub done: Option<bool>,
    /// Lines that break their format.
    pub broken: Vec<String>,
    /// The last records.
    pub last_records: VecDeque<String>,
    /// The last console lines.
    pub last_console: VecDeque<String>,
    /// Arrival of the first and the last pool sample: relates the counter to seconds.
    pub pool_arrivals: Option<(Duration, Duration)>,
    open: Option<(u64, Snapshot)>,
}

impl Transcript {
    /// Takes in one record of the host.
    pub fn host_says(&mut self, text: &str) {
        // Counters would push out what led to the end.
        if !text.starts_with(kind::COUNT) {
            keep(&mut self.last_records, text);
        }
        let understood = HostRecord::parse(text).and_then(|record| self.record(record));
        self.note_broken(text, understood);
    }

    /// Takes in one line of the guest's console, `after` the start of the machine.
    pub fn guest_says(&mut self, text: &str, after: Duration) {
        keep(&mut self.last_console, text);
        let understood = self.linux.hear(text, after);
        self.note_broken(text, understood);
        if let Some(parsed) = GuestLine::parse(text) {
            let understood = parsed.map(|line| self.line(line, after));
            self.note_broken(text, understood);
        }
    }

    fn note_broken(&mut self, text: &str, understood: Result<(), LineError>) {
        if let Err(error) = understood {
            self.broken.push(format!("{error}: {text}"));
        }
    }

    fn record(&mut self, record: HostRecord) -> Result<(), LineError> {
        match record {
            HostRecord::Boot => self.host_booted = true,
            HostRecord::Mark { id, tsc } => {
                self.marks.insert(id, tsc);
            }
            HostRecord::Snapshot { id, tsc } => {
                let counters = Counters::new();
                self.open = Some((id, Snapshot { tsc, counters }));
            }
            HostRecord::Count { name, value } => {
                let (_, snapshot) = self.open.as_mut().ok_or("no snapshot is open")?;
                snapshot.counters.insert(name, value);
            }
            HostRecord::End { id } => match self.open.take() {
                Some((open, snapshot)) if open == id => {
                    self.snapshots.insert(id, snapshot);
                }
                _ => return Err("another snapshot is open".into()),
            },
            HostRecord::PageStateChange(conversion) => self.conversions.push(conversion),
            HostRecord::Inspected(inspection) => self.inspections.push(inspection),
            HostRecord::SharedChange(change) => self.changes.push(change),
            HostRecord::Violation(text) => self.violation = Some(text),
            // The first names the cause, those behind it the state.
            HostRecord::Died(text) => {
                self.died.get_or_insert(text);
            }
            HostRecord::Terminate(termination) => self.termination = Some(termination),
            HostRecord::PowerOff(text) => self.poweroff = Some(text),
            HostRecord::Reset(text) => self.reset = Some(text),
            HostRecord::Pattern(text) => self.patterns.push(text),
            HostRecord::Exit { code } => self.exit_code = Some(code),
            HostRecord::Remark => {}
        }
        Ok(())
    }

    fn line(&mut self, line: GuestLine, after: Duration) {
        match line {
            GuestLine::Attach(attach) => {
                self.attach = Some(attach);
                self.attach_heard = Some(after);
            }
            GuestLine::Pool(sample) => {
                let (first, _) = self.pool_arrivals.unwrap_or((after, after));
                self.pool_arrivals = Some((first, after));
                self.pool.push(sample);
            }
            GuestLine::Progress(progress) => self.progress = Some(progress),
            GuestLine::Digest { phase, sha256 } => {
                self.digests.insert(phase, sha256);
            }
            GuestLine::Cpus { count } => self.cpus = Some(count),
            GuestLine::Busy(busy) => self.busy.push(busy),
            GuestLine::Burst(burst) => self.bursts.push(burst),
            GuestLine::Calls { name, count } => {
                self.calls.insert(name, count);
            }
            GuestLine::Shim { name, value } => {
                self.shim.insert(name, value);
            }
            GuestLine::Crash(crash) => self.crashes.push(crash),
            GuestLine::Restart(restart) => self.restarts.push(restart),
            GuestLine::Service { name, value } => {
                self.service.insert(name, value);
            }
            GuestLine::Trace(trace) => self.trace.push(trace),
            GuestLine::SelfTest(test) => self.self_tests.push(test),
            GuestLine::Convert { bytes } => self.converted = Some(bytes),
            GuestLine::Done { ok } => self.done = Some(ok),
        }
    }

    /// Counters of the newest complete snapshot.
    #[must_use]
    pub fn newest(&self) -> Option<&Snapshot> {
        self.snapshots.values().max_by_key(|snapshot| snapshot.tsc)
    }

    /// What the counters grew by between two snapshots; those that did not grow are left out.
    #[must_use]
    pub fn growth(&self, from: u64, to: u64) -> Option<Counters> {
        let (from, to) = (self.snapshots.get(&from)?, self.snapshots.get(&to)?);
        let grown = to.counters.iter().filter_map(|(name, value)| {
            let before = from.counters.get(name).copied().unwrap_or(0);
            let more = value.saturating_sub(before);
            (more != 0).then(|| (name.clone(), more))
        });
        Some(grown.collect())
    }

    /// Ticks of the time stamp counter per second, when the pool was watched long enough to tell.
    #[must_use]
    pub fn ticks_per_second(&self) -> Option<f64> {
        let (first, last) = self.pool_arrivals?;
        let seconds = last.checked_sub(first)?.as_secs_f64();
        let ticks = self.pool.last()?.tsc.checked_sub(self.pool.first()?.tsc)?;
        (seconds > 0.2 && ticks != 0).then(|| ticks as f64 / seconds)
    }
}

fn keep(lines: &mut VecDeque<String>, text: &str) {
    if lines.len() == KEPT_LINES {
        lines.pop_front();
    }
    lines.push_back(text.to_owned());
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Transcript;

    fn told(records: &[&str]) -> Transcript {
        let mut transcript = Transcript::default();
        records
            .iter()
            .for_each(|record| transcript.host_says(record));
        transcript
    }

    #[test]
    fn growth_is_the_difference_of_two_snapshots() {
        let transcript = told(&[
            "snapshot id=1 tsc=10",
            "count name=a value=1",
            "count name=b value=5",
            "end id=1",
            "snapshot id=2 tsc=20",
            "count name=a value=4",
            "count name=b value=5",
            "count name=c value=2",
            "end id=2",
        ]);
        let growth = transcript.growth(1, 2).expect("both exist");
        assert_eq!(growth, [("a".into(), 3), ("c".into(), 2)].into());
        assert_eq!(transcript.growth(1, 3), None);
        assert_eq!(transcript.newest().map(|newest| newest.tsc), Some(20));
        assert!(transcript.broken.is_empty());
    }

    #[test]
    fn lines_out_of_place_are_noted() {
        let transcript = told(&[
            "count name=a value=1",
            "snapshot id=1 tsc=1",
            "end id=2",
            "?",
        ]);
        assert_eq!(transcript.broken.len(), 3, "{:?}", transcript.broken);
        assert!(transcript.snapshots.is_empty());
    }

    #[test]
    fn the_counter_is_related_to_seconds() {
        let mut transcript = Transcript::default();
        for (tsc, millis) in [(1_000, 500), (4_000, 1_000), (5_000, 2_500)] {
            let line = format!("@pool tsc={tsc} granted=0 used=0");
            transcript.guest_says(&line, Duration::from_millis(millis));
        }
        assert_eq!(transcript.ticks_per_second(), Some(2_000.0));
        transcript.guest_says("hello", Duration::from_secs(3));
        assert_eq!(transcript.done, None, "text for people says nothing to us");
    }
}
