// SPDX-License-Identifier: MIT OR Apache-2.0
//! What to build: the options of the command, and their checks.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use paravisor::placement::LOW_END;

use crate::Error;
use crate::byte_size::parse_size;
use crate::features::FeatureOptions;
use crate::guest_policy::PolicyOptions;

/// Chunks, and so windows and caps, come in 2 MiB.
const CHUNK: u64 = 2 << 20;
/// Protocol numbers below belong to the SVSM specification, those above 31 bits to nobody.
const PRIVATE_PROTOCOLS: std::ops::RangeInclusive<u32> = 0x4000_0000..=0x7fff_ffff;

/// Who validates guest RAM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RamMode {
    /// The paravisor validates, zeroes and grants it before the guest starts.
    Accepted,
    /// The guest asks for it through the core protocol.
    Firmware,
}

/// An option that is on or off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Switch {
    /// In use.
    On,
    /// Left out.
    Off,
}

impl Switch {
    /// Returns `true` for [`Switch::On`].
    #[must_use]
    pub const fn is_on(self) -> bool {
        matches!(self, Self::On)
    }
}

/// Where the window lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum WindowPlace {
    /// At the top of guest memory.
    High,
    /// At the top of what lies below 4 GiB.
    Low,
}

/// Everything that decides the bytes of an image.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// The paravisor, an ELF file
    #[arg(long, value_name = "FILE")]
    pub paravisor: PathBuf,
    /// The guest that is started at VMPL2: an ELF file, a Linux kernel (bzImage), or OVMF
    #[arg(long, value_name = "FILE")]
    pub payload: PathBuf,
    /// Initial user space of a Linux kernel
    #[arg(long, value_name = "FILE")]
    pub initrd: Option<PathBuf>,
    /// Guest memory set aside for the pool
    #[arg(long, value_name = "SIZE", default_value = "256MiB", value_parser = parse_size)]
    pub window: u64,
    /// Where in guest memory: at its top, or below 4 GiB, where devices with 32 address bits reach it
    #[arg(long, value_enum, value_name = "HIGH|LOW", default_value = "high")]
    pub window_place: WindowPlace,
    /// A second window, below 4 GiB, for devices that do not reach the first [default: none]
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub low_window: Option<u64>,
    /// Most of the window that may ever be granted, whatever the guest asks for [default: the window]
    #[arg(long, alias = "cap", value_name = "SIZE", value_parser = parse_size)]
    pub hard_cap: Option<u64>,
    /// Bound one call of the guest to one batch of page-state changes, 506 MiB; `off` lets it take several
    #[arg(long, value_enum, value_name = "ON|OFF", default_value = "on")]
    pub unit_limit: Switch,
    /// Who validates guest RAM [default: firmware does its own, else accepted]
    #[arg(long, value_enum)]
    pub ram: Option<RamMode>,
    /// SVSM protocol number of the pool service
    #[arg(long, value_name = "NUMBER", default_value = "0x40000001", value_parser = parse_number)]
    pub protocol: u32,
    /// Text handed to the guest; the command line of a Linux kernel
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        allow_hyphen_values = true
    )]
    pub cmdline: String,
    /// Print the launch digest for 1 to this many vCPUs
    #[arg(long, value_name = "COUNT", default_value_t = 1)]
    pub cpus: u32,
    /// What the processor protects.
    #[command(flatten, next_help_heading = "SEV features, matched at boot")]
    pub features: FeatureOptions,
    /// Where the image may be launched.
    #[command(flatten, next_help_heading = "Guest policy, which a verifier compares")]
    pub policy: PolicyOptions,
}

impl Options {
    /// Most bytes of the window that may ever be granted.
    #[must_use]
    pub fn hard_cap_bytes(&self) -> u64 {
        self.hard_cap.unwrap_or(self.window)
    }

    /// Bytes of the second window; 0 for none.
    #[must_use]
    pub fn low_window_bytes(&self) -> u64 {
        self.low_window.unwrap_or(0)
    }

    /// Refuses values that no image can have, whatever the input files hold.
    ///
    /// # Errors
    /// One for each option out of its range.
    pub fn check(&self) -> Result<(), Error> {
        let whole_chunks = |bytes: u64| bytes != 0 && bytes.is_multiple_of(CHUNK);
        if !whole_chunks(self.window) {
            return Err(Error::Window(self.window));
        }
        if !whole_chunks(self.hard_cap_bytes()) || self.hard_cap_bytes() > self.window {
            return Err(Error::Cap {
                cap: self.hard_cap_bytes(),
                window: self.window,
            });
        }
        if let Some(low) = self.low_window {
            if !whole_chunks(low) || low >= LOW_END {
                return Err(Error::LowWindow(low));
            }
            if self.window_place == WindowPlace::Low {
                return Err(Error::TwoLowWindows);
            }
        }
        self.features.check()?;
        if !PRIVATE_PROTOCOLS.contains(&self.protocol) {
            return Err(Error::Protocol(self.protocol));
        }
        if !(1..=512).contains(&self.cpus) {
            return Err(Error::Cpus(self.cpus));
        }
        Ok(())
    }
}

/// Parses a decimal or `0x` number.
fn parse_number(text: &str) -> Result<u32, Error> {
    let number = match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16),
        None => text.parse(),
    };
    number.map_err(|_| Error::Number(text.to_owned()))
}
