// SPDX-License-Identifier: MIT OR Apache-2.0
//! The options of `runner run`.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, ValueEnum, value_parser};
use igvm_builder::parse_size;
use snp_host::launch::MAX_CPUS;
use snp_host::psc_manner::{FIRST_MARK, LAST_MARK, NAMED_CALLS};
use snp_host::switches::Switches;

use crate::attack_options::AttackOptions;
use crate::devices::Device;
use crate::expectation::Expectation;
use crate::limit_options::LimitOptions;
use crate::linux::Driver;
use crate::qemu::Threads;

/// Size of RMP entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RmpPages {
    /// 2 MiB wherever the guest asks for it.
    #[value(name = "2m")]
    Large,
    /// 4 KiB only.
    #[value(name = "4k")]
    Small,
}

/// Who owns guest RAM when the guest starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RamState {
    /// The hypervisor, as QEMU reports it.
    Shared,
    /// The guest, not yet validated.
    Private,
}

/// What the host does about an access whose C-bit does not fit the page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum HostManner {
    /// Stops with a report.
    Refuse,
    /// Converts the page, as KVM does.
    Implicit,
}

/// How the host answers page-state changes; `snp_model::psc::HostManner` says what each does. The
/// order is its numbering, which the launch switches carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PscManner {
    /// As the specification says.
    Honest,
    /// Refuses all of them.
    Refuse,
    /// Stops early without an error.
    Stop,
    /// Reports an error in the middle.
    Fail,
    /// Claims success and does nothing.
    Lie,
    /// Moves the cursor back.
    CursorBackwards,
    /// Moves the cursor beyond the end.
    CursorBeyondEnd,
    /// Enlarges the list.
    EnlargeEnd,
    /// Sets reserved bits.
    ReservedBits,
    /// Does nothing, for ever.
    NoProgress,
    /// Stops early inside an entry, without an error.
    StopInside,
}

/// From which page-state change of VMPL 0 on its manner is shown (`snp_host::psc_manner`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PscFrom(u16);

impl FromStr for PscFrom {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "named" {
            return Ok(Self(NAMED_CALLS));
        }
        let (text, numbers, base) = match text.strip_prefix("mark=") {
            Some(mark) => (mark, 0..=LAST_MARK - FIRST_MARK, FIRST_MARK),
            None => (text, 1..=FIRST_MARK - 1, 0),
        };
        let number = text.parse().ok().filter(|number| numbers.contains(number));
        number
            .map(|number: u16| Self(base + number))
            .ok_or_else(|| "write a number from 1 on, mark=NUMBER, or named".into())
    }
}

/// When the host signals a #HV event to VMPL 0, which must take it before it runs the guest
/// (`snp_host::doorbell_event`). The order is the numbering of the launch switches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum HvEvents {
    /// Never.
    Never,
    /// Once.
    Once,
    /// Again and again, at a different point of the entry each time.
    Ring,
}

/// Which VMPL switches the host skips, claiming success (`snp_host::switch_manner`). The order is
/// the numbering of the launch switches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum VmplSwitches {
    /// None.
    Honest,
    /// Calls of the guest: they are never served.
    Swallow,
    /// Entries of the guest: VMPL 0 goes on without it having run.
    Spurious,
}

/// When other CPUs lose the translations of what is taken back (`snp_host::translations`). The order is the numbering of
/// the launch switches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Kick {
    /// At once.
    Always,
    /// Never, as no host may do it.
    Never,
    /// When INVLPGB and TLBSYNC have flushed, as hardware allows it.
    Flush,
}

/// How to boot an image and what to expect of it.
#[derive(Debug, Clone, Args)]
pub struct RunOptions {
    /// The image to boot, any SEV-SNP IGVM file
    #[arg(long, value_name = "FILE")]
    pub igvm: PathBuf,
    /// The emulated SNP host (target/x86_64-unknown-none/release/snp-host)
    #[arg(long, value_name = "FILE")]
    pub host: PathBuf,
    /// Disk to read, a raw file; it is not written
    #[arg(long, value_name = "FILE")]
    pub disk: Option<PathBuf>,
    /// Size of the second disk, which is written [default: that of the disk]
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub second_disk_size: Option<u64>,
    /// Devices of the machine [default: blk; of `linux`: blk,net,nvme]
    #[arg(long, value_enum, value_delimiter = ',', value_name = "LIST")]
    pub devices: Vec<Device>,
    /// Disk to read through NVMe, a raw file [default: one is made]
    #[arg(long, value_name = "FILE")]
    pub nvme_disk: Option<PathBuf>,
    /// Let the guest write the NVMe disk; the file stays as it is
    #[arg(long)]
    pub nvme_writable: bool,
    /// File that the guest can fetch over the network [default: one is made]
    #[arg(long, value_name = "FILE")]
    pub fetched: Option<PathBuf>,
    /// Guest memory, the window included
    #[arg(long, value_name = "SIZE", default_value = "1GiB", value_parser = parse_size)]
    pub memory: u64,
    /// Entries of the memory map, most of them a page with a hole behind it [default: as few as there are ranges of RAM]
    #[arg(long, value_name = "COUNT", conflicts_with = "memory_map")]
    pub map_entries: Option<usize>,
    /// vCPUs of the guest
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = value_parser!(u32).range(1..=i64::from(MAX_CPUS)))]
    pub vcpus: u32,
    /// Folder for run.json and pool.svg
    #[arg(long, value_name = "DIR")]
    pub report: Option<PathBuf>,
    /// How long the run may take
    #[command(flatten)]
    pub limits: LimitOptions,
    /// Size of RMP entries
    #[arg(long, value_enum, default_value = "2m")]
    pub rmp: RmpPages,
    /// Who owns guest RAM at the start
    #[arg(long, value_enum, default_value = "shared")]
    pub ram_state: RamState,
    /// What the host does about an access whose C-bit does not fit the page
    #[arg(long, value_enum, default_value = "refuse")]
    pub host_manner: HostManner,
    /// How the host answers page-state changes
    #[arg(long, value_enum, default_value = "honest")]
    pub psc_manner: PscManner,
    /// Entries that the manners `stop` and `fail` complete first, 4 KiB pages that `stop-inside` does
    #[arg(long, value_name = "COUNT", default_value_t = 1)]
    pub psc_count: u8,
    /// From which request of VMPL0 on it does so: its number, mark=NUMBER for all behind that mark of the guest (of Linux: 2 when the work begins), or named for those that the guest names (mode=host-replies)
    /// [default: from the start, to every VMPL]
    #[arg(long, value_name = "NUMBER|mark=NUMBER|named")]
    pub psc_from: Option<PscFrom>,
    /// When the host signals a #HV event to VMPL0, which must take it before it runs the guest
    #[arg(long, value_enum, default_value = "never")]
    pub hv: HvEvents,
    /// Entries of the guest before `once`, and between any two events of `ring`
    #[arg(long, value_name = "COUNT", default_value_t = 16, value_parser = value_parser!(u8).range(1..))]
    pub hv_count: u8,
    /// Which VMPL switches the host skips, claiming success
    #[arg(long, value_enum, default_value = "honest")]
    pub switch: VmplSwitches,
    /// Honest switches of that direction before each one that is skipped
    #[arg(long, value_name = "COUNT", default_value_t = 16)]
    pub switch_count: u8,
    /// What is false beyond that
    #[command(flatten)]
    pub attacks: AttackOptions,
    /// Let CPUID, I/O and MSR accesses of the guest through instead of raising #VC
    #[arg(long)]
    pub pass_through: bool,
    /// Record every exit of the guest
    #[arg(long)]
    pub trace: bool,
    /// Do not fill and check pages that are not shared
    #[arg(long)]
    pub no_pattern: bool,
    /// When other CPUs lose the translations of what is taken back
    #[arg(long, value_enum, default_value = "always")]
    pub kick: Kick,
    /// Count instructions instead of time, so that the same run gives the same records
    #[arg(long)]
    pub deterministic: bool,
    /// How QEMU runs its processors: all in one thread, or a thread each [default: QEMU's choice]
    #[arg(long, value_enum, conflicts_with = "deterministic")]
    pub tcg_thread: Option<Threads>,
    /// Who bounces in the Linux guest: with `pool`, check that nobody but the module does
    #[arg(long, value_enum)]
    pub driver: Option<Driver>,
    /// Further read-only virtio-blk disks, each with other contents than the first one
    #[arg(long, value_name = "COUNT", default_value_t = 0, value_parser = value_parser!(u32).range(..=2))]
    pub more_disks: u32,
    /// Most that each disk gives in a second, so that requests wait in its queue [default: no limit]
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub disk_rate: Option<u64>,
    /// The image's initrd is not this project's: of Linux, check what kernel and host say only
    #[arg(long)]
    pub own_initrd: bool,
    /// CPUs of a Linux kernel that a crash starts
    #[arg(long, value_name = "COUNT", default_value_t = 1)]
    pub crash_cpus: u32,
    /// Also write the guest's console to this file
    #[arg(long, value_name = "FILE")]
    pub console: Option<PathBuf>,
    /// What the run has to show: all, disk, selftest, success, nothing, terminate=SET:REASON or
    /// violation=TEXT [default: by the image]
    #[arg(long, value_name = "WHAT")]
    pub expect: Option<Expectation>,
    /// Keep launch.bin, records.log, console.log, qemu.log and the second disk in this folder
    #[arg(long, value_name = "DIR")]
    pub keep: Option<PathBuf>,
    /// The QEMU program
    #[arg(long, value_name = "PROGRAM", default_value = "qemu-system-x86_64")]
    pub qemu: PathBuf,
    /// No progress and no table
    #[arg(long)]
    pub quiet: bool,
}

impl RunOptions {
    /// Devices of the machine, each once.
    #[must_use]
    pub fn device_set(&self) -> BTreeSet<Device> {
        match self.devices.as_slice() {
            [] if self.expect == Some(Expectation::Linux) => Device::USUAL.into(),
            [] => [Device::Blk].into(),
            some => some.iter().copied().collect(),
        }
    }

    /// The switches of the emulated machine.
    #[must_use]
    pub fn switches(&self) -> Switches {
        let count = match self.psc_manner {
            PscManner::Stop | PscManner::Fail | PscManner::StopInside => u16::from(self.psc_count),
            _ => 0,
        };
        let turns = |misbehaves: bool, count| if misbehaves { count } else { 0 };
        Switches::new()
            .with_small_pages_only(self.rmp == RmpPages::Small)
            .with_ram_starts_private(self.ram_state == RamState::Private)
            .with_implicit_conversion(self.host_manner == HostManner::Implicit)
            .with_pass_through(self.pass_through)
            .with_trace(self.trace)
            .with_no_pattern(self.no_pattern)
            .with_kick_manner(self.kick as u8)
            .with_page_state_manner(self.psc_manner as u16 | count << 8)
            .with_page_state_from(self.psc_from.map_or(0, |PscFrom(number)| number))
            .with_doorbell_manner(self.hv as u8)
            .with_doorbell_turns(turns(self.hv != HvEvents::Never, self.hv_count))
            .with_switch_manner_code(self.switch as u8)
            .with_switch_turns(turns(
                self.switch != VmplSwitches::Honest,
                self.switch_count,
            ))
    }
}
