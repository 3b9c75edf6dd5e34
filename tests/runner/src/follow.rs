// SPDX-License-Identifier: MIT OR Apache-2.0
//! Follows a running machine to its end, or ends it.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::progress::Progress;
use crate::qemu::RunningMachine;
use crate::tail::Tail;
use crate::transcript::Transcript;

/// How often the files are looked at.
const POLL: Duration = Duration::from_millis(20);

/// How long a run may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// In all.
    pub total: Duration,
    /// Without a new record or console line.
    pub idle: Duration,
}

/// Why there is nothing more to follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The machine ended with this status of QEMU.
    Ended(i32),
    /// The time limit ended it.
    TooLong,
    /// Nothing was said for too long.
    Silent,
}

/// Memory of this computer that the machine had, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Resident {
    /// When the guest had attached, before it grew the pool further.
    pub attached: u64,
    /// At most.
    pub peak: u64,
    /// At last, when the guest had given back what it could.
    pub last: u64,
}

impl Resident {
    /// Takes a look.
    fn look(&mut self, bytes: u64, attached: bool) {
        if bytes == 0 {
            return;
        }
        if attached && self.attached == 0 {
            self.attached = bytes;
        }
        self.peak = self.peak.max(bytes);
        self.last = bytes;
    }
}

/// How a run went by.
#[derive(Debug, Clone, Copy)]
pub struct Course {
    /// How it ended.
    pub end: End,
    /// How long it took.
    pub duration: Duration,
    /// What memory it took.
    pub resident: Resident,
}

/// Files that the machine writes.
#[derive(Debug)]
pub struct Output<'a> {
    /// Records of the host.
    pub records: &'a Path,
    /// Console of the guest.
    pub console: &'a Path,
}

/// Reads what the machine writes until it ends or a limit is reached.
pub fn follow(
    mut machine: RunningMachine,
    output: &Output<'_>,
    limits: Limits,
    transcript: &mut Transcript,
    progress: &mut Progress,
) -> Course {
    let start = Instant::now();
    let mut records = Tail::new(output.records);
    let mut console = Tail::new(output.console);
    let mut heard = Duration::ZERO;
    let mut resident = Resident::default();
    let end = loop {
        // Asked first: what was written before the end is then read below.
        let ended = machine.ended();
        resident.look(machine.resident_bytes(), transcript.attach_heard.is_some());
        let now = start.elapsed();
        let read_before = records.bytes_read() + console.bytes_read();
        let new_records = records.lines();
        let new_lines = console.lines();
        // A prompt is something, too.
        if records.bytes_read() + console.bytes_read() > read_before {
            heard = now;
        }
        new_records
            .iter()
            .for_each(|line| transcript.host_says(line));
        new_lines
            .iter()
            .for_each(|line| transcript.guest_says(line, now));
        progress.console_lines(&new_lines);
        progress.show(transcript);
        if let Some(status) = ended {
            break End::Ended(status);
        }
        if now > limits.total {
            break End::TooLong;
        }
        if now - heard > limits.idle {
            break End::Silent;
        }
        std::thread::sleep(POLL);
    };
    drop(machine);
    let now = start.elapsed();
    if let Some(line) = records.rest() {
        transcript.host_says(&line);
    }
    if let Some(line) = console.rest() {
        progress.console_lines(std::slice::from_ref(&line));
        transcript.guest_says(&line, now);
    }
    progress.finish();
    Course {
        end,
        duration: now,
        resident,
    }
}

#[cfg(test)]
mod tests {
    use super::Resident;

    #[test]
    fn memory_is_noted_at_the_attach_at_most_and_at_last() {
        let mut resident = Resident::default();
        for (bytes, attached) in [(5, false), (7, true), (9, true), (8, true), (0, true)] {
            resident.look(bytes, attached);
        }
        let want = Resident {
            attached: 7,
            peak: 9,
            last: 8,
        };
        assert_eq!(resident, want);
    }
}
