// SPDX-License-Identifier: MIT OR Apache-2.0
//! Boots an SEV-SNP IGVM file on the emulated machine and tells what came of it.
//!
//! The runner plays the VMM: `igvm_input` and `launch_plan` execute the IGVM directives,
//! `launch_blob` writes the result for the emulated host, `qemu` starts the machine. `follow` reads
//! what host (`host_record`) and guest (`guest_line`) say into a `transcript`; `checks` judge it,
//! `table`, `report` and `chart` show it. `linux` is the same for a Linux guest, `initrd` its user
//! space. `disk`, `disk_image`, `boot_disk`, `devices` and `serve` care for what the guest can reach.

mod attack_options;
mod boot_disk;
mod chart;
mod checks;
mod cpio;
mod cpuid_decoy;
mod device_checks;
mod devices;
mod disk;
mod disk_image;
mod expectation;
mod failure;
mod follow;
mod guest_line;
mod guest_memory;
mod host_record;
mod igvm_input;
mod initrd;
mod kernel_module;
mod launch_blob;
mod launch_plan;
mod launch_rules;
mod limit_options;
mod line;
mod linux;
mod longest_calls;
mod madt;
mod own_conversions;
mod own_tables;
mod pool_story;
mod progress;
mod qemu;
mod report;
mod restart_checks;
mod run;
mod run_options;
mod serve;
mod steady_state;
mod table;
mod tail;
mod transcript;
mod verdict;

pub use attack_options::{
    Armed, AttackMoment, AttackOptions, AttackedPage, Injected, MsrReply, PageAction,
};
pub use boot_disk::{BootDiskOptions, make_boot_disk};
pub use checks::{Check, checks, death};
pub use devices::{Device, DeviceFiles, HostFile};
pub use disk_image::{DiskOptions, make_disk};
pub use expectation::Expectation;
pub use failure::Failure;
pub use follow::{End, Limits, Resident};
pub use guest_line::{Attach, PhaseProgress, PoolSample, SelfTest};
pub use host_record::{Conversion, Termination};
pub use igvm_input::IgvmInput;
pub use initrd::{InitrdOptions, make_initrd};
pub use launch_plan::{LaunchPage, LaunchPlan, MapEntry, PageKind, Parameters};
pub use limit_options::LimitOptions;
pub use linux::{CompareOptions, Driver, Facts, compare_and_report, linux_and_report};
pub use own_conversions::OwnConversion;
pub use pool_story::PoolStory;
pub use qemu::Threads;
pub use run::{DiskDigests, Outcome, run};
pub use run_options::{
    HostManner, HvEvents, PscManner, RamState, RmpPages, RunOptions, VmplSwitches,
};
pub use serve::{ServeOptions, serve};
pub use steady_state::SteadyState;
pub use transcript::{Counters, Snapshot, Transcript};
pub use verdict::run_and_report;
