// SPDX-License-Identifier: MIT OR Apache-2.0
//! Shows how a run proceeds: a bar on a terminal, a line per quarter elsewhere.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::guest_line::PhaseProgress;
use crate::transcript::Transcript;

/// What a phase does, for people.
fn title(phase: &str) -> &str {
    match phase {
        "selftest" => "wrong-call self-test",
        "read1" => "first read, the pool grows",
        "read2" => "second read, steady state",
        "write" => "writing the second disk",
        "verify" => "reading the second disk back",
        other => other,
    }
}

/// The display on standard error.
#[derive(Debug)]
pub struct Progress {
    bar: Option<ProgressBar>,
    shown: Option<(String, u64)>,
    attached: bool,
    self_tests: usize,
    quiet: bool,
    console: bool,
}

impl Progress {
    /// A display that shows nothing.
    #[must_use]
    pub fn quiet() -> Self {
        Self {
            bar: None,
            shown: None,
            attached: false,
            self_tests: 0,
            quiet: true,
            console: false,
        }
    }

    /// A display; without a terminal it prints plain lines.
    #[must_use]
    pub fn new() -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(0);
            let style = ProgressStyle::with_template("{spinner} {msg:32} {wide_bar} {percent:>3}%")
                .unwrap_or_else(|_| ProgressStyle::default_bar());
            bar.set_style(style);
            bar.enable_steady_tick(Duration::from_millis(200));
            bar.set_message("booting");
            bar
        });
        Self {
            bar,
            quiet: false,
            ..Self::quiet()
        }
    }

    /// A display of the guest's console, as it comes.
    #[must_use]
    pub fn console() -> Self {
        Self {
            quiet: false,
            console: true,
            ..Self::quiet()
        }
    }

    /// Shows lines of the console, if that is what is displayed.
    pub fn console_lines(&self, lines: &[String]) {
        if self.console {
            lines.iter().for_each(|text| self.line(text));
        }
    }

    /// Brings the display up to date.
    pub fn show(&mut self, transcript: &Transcript) {
        if let (false, Some(attach)) = (self.attached, &transcript.attach) {
            self.attached = true;
            self.line(&format!(
                "attached: window of {} MiB, {} MiB granted",
                attach.window >> 20,
                attach.granted >> 20
            ));
        }
        if self.self_tests != transcript.self_tests.len() {
            self.self_tests = transcript.self_tests.len();
            if let Some(bar) = &self.bar {
                bar.set_message(format!("self-test, {} wrong calls", self.self_tests));
            }
        }
        if let Some(progress) = &transcript.progress {
            self.phase(progress);
        }
    }

    fn phase(&mut self, progress: &PhaseProgress) {
        let title = title(&progress.phase);
        if let Some(bar) = &self.bar {
            bar.set_message(title.to_owned());
            bar.set_length(progress.total);
            bar.set_position(progress.done);
            return;
        }
        let quarter = (progress.done.saturating_mul(4))
            .checked_div(progress.total)
            .unwrap_or(0);
        let now = (progress.phase.clone(), quarter);
        if self.shown.as_ref() != Some(&now) {
            self.line(&format!("{title}: {}%", quarter.saturating_mul(25)));
            self.shown = Some(now);
        }
    }

    /// Prints a line above the bar.
    pub fn line(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.println(text),
            None if self.quiet => {}
            None => eprintln!("{text}"),
        }
    }

    /// Removes the bar.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}
