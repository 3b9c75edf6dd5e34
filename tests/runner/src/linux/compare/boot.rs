// SPDX-License-Identifier: MIT OR Apache-2.0
//! One boot of several, as its `linux.json` tells it.

use std::path::Path;

use serde::Deserialize;

use super::super::account::{Account, Phase};
use super::super::facts::Facts;
use crate::Failure;

/// A promise of that boot and whether it was kept.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Kept {
    /// What was promised.
    pub name: String,
    /// Whether it holds.
    pub ok: bool,
    /// The numbers behind it.
    pub detail: String,
}

/// One boot.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Boot {
    /// How the table calls it.
    #[serde(skip)]
    pub name: String,
    /// Why it did not come to its end.
    pub death: Option<String>,
    /// Its own promises.
    #[serde(rename = "checks")]
    pub kept: Vec<Kept>,
    /// vCPUs of the guest.
    pub vcpus: u32,
    /// Guest memory in bytes.
    pub memory_bytes: u64,
    /// What the guest said.
    pub guest: Facts,
    /// What it cost.
    pub account: Account,
}

impl Boot {
    /// Reads the report that `named` (NAME=FILE) names.
    ///
    /// # Errors
    /// Bad input when it is none.
    pub fn read(named: &str) -> Result<Self, Failure> {
        let (name, path) = named.split_once('=').ok_or_else(|| {
            Failure::bad_input(format!(
                "'{named}' is no NAME=FILE; pass --boot pool=linux.json"
            ))
        })?;
        let path = Path::new(path);
        let refuse = |error: String| {
            Failure::bad_input(format!(
                "{} is no report of 'runner linux' ({error}); boot with --report first",
                path.display()
            ))
        };
        let text = std::fs::read(path).map_err(|error| refuse(error.to_string()))?;
        let boot: Self =
            serde_json::from_slice(&text).map_err(|error| refuse(error.to_string()))?;
        Ok(Self {
            name: name.to_owned(),
            ..boot
        })
    }

    /// Whether the module bounces.
    #[must_use]
    pub fn is_pool(&self) -> bool {
        self.guest.driver.as_deref() == Some("pool")
    }

    /// What the time between two marks cost; nothing of a boot that did not get so far.
    #[must_use]
    pub fn phase(&self, name: &str) -> Option<&Phase> {
        self.account.phases.get(name)
    }

    /// A statistic of the module at the end; `None` without the module.
    #[must_use]
    pub fn statistic(&self, name: &str) -> Option<u64> {
        self.guest.statistic("after", name)
    }

    /// Lines of the kernel's log with these words.
    #[must_use]
    pub fn troubles(&self, words: &str) -> usize {
        let lines = self.guest.trouble.iter();
        lines.filter(|line| line.contains(words)).count()
    }
}
