// SPDX-License-Identifier: MIT OR Apache-2.0
//! Why a run did not succeed, and the exit status that says so.

use std::process::ExitCode;

/// A run that did not succeed. Every message is complete in itself; those of bad input are one line
/// with the cause and the remedy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// A file, an option or this machine is unsuitable; nothing was started.
    BadInput(String),
    /// The run came to its end, but a promise was broken.
    Checks(Vec<String>),
    /// The guest, the paravisor or the emulated machine died or hung.
    Died(String),
}

impl Failure {
    /// Exit status of the command: 2 bad input, 1 a check failed, 3 died or hung.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Checks(_) => 1,
            Self::BadInput(_) => 2,
            Self::Died(_) => 3,
        })
    }

    /// Bad input with this message.
    #[must_use]
    pub fn bad_input(message: impl Into<String>) -> Self {
        Self::BadInput(message.into())
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::BadInput(message) | Self::Died(message) => formatter.write_str(message),
            // One is a line, as every other cause; several are a list.
            Self::Checks(broken) if broken.len() == 1 => {
                write!(formatter, "1 of the checks failed: {}", broken[0])
            }
            Self::Checks(broken) => {
                write!(formatter, "{} of the checks failed:", broken.len())?;
                broken
                    .iter()
                    .try_for_each(|check| write!(formatter, "\n  {check}"))
            }
        }
    }
}
