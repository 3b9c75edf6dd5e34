// SPDX-License-Identifier: MIT OR Apache-2.0
//! `run.json`: everything a run showed, for programs.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::checks::Check;
use crate::devices::{Device, HostFile};
use crate::guest_line::{Attach, Burst, Busy, Crash, PoolSample, Restart, SelfTest, Trace};
use crate::host_record::{Conversion, Termination};
use crate::longest_calls::{LongestCall, longest_calls};
use crate::own_conversions::OwnConversion;
use crate::pool_story::PoolStory;
use crate::run::Outcome;
use crate::steady_state::SteadyState;
use crate::transcript::Counters;

/// Version of the file's layout.
const VERSION: u32 = 1;

/// The file.
#[derive(Debug, Serialize)]
pub struct Report<'a> {
    version: u32,
    success: bool,
    /// Why the run did not come to its end.
    death: Option<&'a str>,
    checks: &'a [Check],
    image: Image,
    qemu: &'a str,
    memory_bytes: u64,
    seconds: f64,
    /// Seconds from the guest's first instruction to attach.
    boot_to_attach_seconds: Option<f64>,
    /// Seconds from the start of the machine to attach.
    start_to_attach_seconds: Option<f64>,
    tsc_per_second: Option<f64>,
    attach: Option<Attach>,
    digests: Digests<'a>,
    bytes_bounced: Option<u64>,
    pool: PoolStory,
    pool_samples: &'a [PoolSample],
    /// vCPUs of the machine.
    vcpus: u32,
    busy: &'a [Busy],
    bursts: &'a [Burst],
    device_files: BTreeMap<&'a str, &'a HostFile>,
    svsm_calls: &'a Counters,
    shim: &'a Counters,
    counters: Option<&'a Counters>,
    steady_state: Option<SteadyState>,
    conversions: &'a [Conversion],
    own_conversions: Vec<OwnConversion>,
    self_tests: &'a [SelfTest],
    crashes: &'a [Crash],
    restarts: &'a [Restart],
    service: &'a Counters,
    trace: &'a [Trace],
    longest_calls: Vec<LongestCall>,
    termination: Option<Termination>,
    violation: Option<&'a str>,
    broken_lines: &'a [String],
    qemu_messages: &'a [String],
}

#[derive(Debug, Serialize)]
struct Image {
    bytes: u64,
    launch_digest: String,
    window_bytes: Option<u64>,
}

#[derive(Debug, Serialize)]
struct Digests<'a> {
    disk_bytes: Option<u64>,
    host_disk: Option<&'a str>,
    host_second_disk: Option<&'a str>,
    guest: &'a BTreeMap<String, String>,
}

impl<'a> Report<'a> {
    /// The report of `outcome` with its verdict.
    #[must_use]
    pub fn new(outcome: &'a Outcome, checks: &'a [Check], death: Option<&'a str>) -> Self {
        let transcript = &outcome.transcript;
        let host = outcome.disk_digests.as_ref();
        Self {
            version: VERSION,
            success: death.is_none() && checks.iter().all(|check| check.ok),
            death,
            checks,
            image: Image {
                bytes: outcome.igvm_bytes,
                launch_digest: outcome.digest.to_string(),
                window_bytes: outcome.window_bytes,
            },
            qemu: &outcome.qemu_version,
            memory_bytes: outcome.memory_bytes,
            seconds: outcome.duration.as_secs_f64(),
            boot_to_attach_seconds: boot_to_attach(outcome),
            start_to_attach_seconds: transcript.attach_heard.map(|after| after.as_secs_f64()),
            tsc_per_second: transcript.ticks_per_second(),
            attach: transcript.attach,
            digests: Digests {
                disk_bytes: host.map(|host| host.bytes),
                host_disk: host.map(|host| host.first.as_str()),
                host_second_disk: host.map(|host| host.second.as_str()),
                guest: &transcript.digests,
            },
            bytes_bounced: bytes_bounced(&transcript.shim),
            pool: PoolStory::of(transcript),
            pool_samples: &transcript.pool,
            vcpus: outcome.vcpus,
            busy: &transcript.busy,
            bursts: &transcript.bursts,
            device_files: device_files(outcome),
            svsm_calls: &transcript.calls,
            shim: &transcript.shim,
            counters: transcript.newest().map(|newest| &newest.counters),
            steady_state: SteadyState::of(transcript),
            conversions: &transcript.conversions,
            own_conversions: OwnConversion::of(transcript),
            self_tests: &transcript.self_tests,
            crashes: &transcript.crashes,
            restarts: &transcript.restarts,
            service: &transcript.service,
            trace: &transcript.trace,
            longest_calls: transcript.newest().map_or_else(Vec::new, |newest| {
                longest_calls(&newest.counters, outcome.deterministic)
            }),
            termination: transcript.termination,
            violation: transcript.violation.as_deref(),
            broken_lines: &transcript.broken,
            qemu_messages: &outcome.qemu_messages,
        }
    }
}

/// The files behind the devices other than virtio-blk, by device.
fn device_files(outcome: &Outcome) -> BTreeMap<&str, &HostFile> {
    let files = &outcome.device_files;
    [
        (Device::Nvme, &files.nvme),
        (Device::Net, &files.fetched),
        (Device::Ahci, &files.ahci),
    ]
    .into_iter()
    .filter_map(|(device, file)| Some((device.name(), file.as_ref()?)))
    .collect()
}

/// Seconds from the guest's first instruction to attach.
#[must_use]
pub fn boot_to_attach(outcome: &Outcome) -> Option<f64> {
    let attach = outcome.transcript.attach?;
    let ticks = attach.tsc.checked_sub(attach.boot_tsc)?;
    Some(ticks as f64 / outcome.transcript.ticks_per_second()?)
}

/// Bytes that the shim copied into and out of the pool.
#[must_use]
pub fn bytes_bounced(shim: &Counters) -> Option<u64> {
    let (into, out) = (shim.get("bytes-in")?, shim.get("bytes-out")?);
    Some(into.saturating_add(*out))
}
