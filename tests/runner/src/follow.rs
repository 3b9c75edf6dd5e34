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
#[derive(Debug, Clone, Copy)]
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

/// Files that the machine writes.
#[derive(Debug)]
pub struct Output<'a> {
    /// Records of the host.
    pub records: &'a Path,
    /// Console of the guest.
    pub console: &'a Path,
}

/// Reads what the machine writes until it ends or a limit is reached; gives the time it took.
pub fn follow(
    mut machine: RunningMachine,
    output: &Output<'_>,
    limits: Limits,
    transcript: &mut Transcript,
    progress: &mut Progress,
) -> (End, Duration) {
    let start = Instant::now();
    let mut records = Tail::new(output.records);
    let mut console = Tail::new(output.console);
    let mut heard = Duration::ZERO;
    let end = loop {
        // Asked first: what was written before the end is then read below.
        let ended = machine.ended();
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
    (end, now)
}
