// SPDX-License-Identifier: MIT OR Apache-2.0
//! One run: inputs, launch, machine, verdict.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use igvm_builder::{LaunchDigest, launch_digest};
use paravisor::boot_block::BootBlock;
use paravisor::layout::SECRETS_PAGE;
use snp_host::memory_plan::{GuestMemory, MemoryPlan};

use crate::Failure;
use crate::attack_options::AttackedPage;
use crate::devices::{Device, DeviceFiles, more_disks};
use crate::disk::{self, Disk};
use crate::expectation::Expectation;
use crate::follow::{End, Limits, Output, Resident, follow};
use crate::guest_memory;
use crate::igvm_input::IgvmInput;
use crate::launch_blob::launch_blob;
use crate::launch_plan::{LaunchPlan, MapEntry, Parameters};
use crate::linux::Driver;
use crate::progress::Progress;
use crate::qemu::{self, Machine};
use crate::run_options::{PscManner, RamState, RunOptions};
use crate::transcript::Transcript;

/// Where a Linux guest leaves its marker on the second disk (tests/linux/init).
const MARKER_OFFSET: u64 = 1 << 20;
/// Bytes of that block.
const MARKER_BYTES: usize = 4096;

/// Everything that is known after a run.
#[derive(Debug)]
pub struct Outcome {
    /// What host and guest said.
    pub transcript: Transcript,
    /// How it ended.
    pub end: End,
    /// Seconds from the start of the machine to its end.
    pub duration: Duration,
    /// Memory of this computer that it took.
    pub resident: Resident,
    /// What was expected.
    pub expectation: Expectation,
    /// Size of the IGVM file in bytes.
    pub igvm_bytes: u64,
    /// Launch digest of the image.
    pub digest: LaunchDigest,
    /// Size of the windows, if the image has any.
    pub window_bytes: Option<u64>,
    /// Where they lie, as the paravisor places them.
    pub windows: Vec<Range<u64>>,
    /// vCPUs of the guest.
    pub vcpus: u32,
    /// Devices of the machine.
    pub devices: BTreeSet<Device>,
    /// The files behind them.
    pub device_files: DeviceFiles,
    /// The block of the second disk where a Linux guest leaves its marker.
    pub second_disk_block: Option<Vec<u8>>,
    /// The guest started with firmware, which boots the kernel from the disk.
    pub firmware: bool,
    /// Who is to bounce in a Linux guest.
    pub driver: Option<Driver>,
    /// The initrd is the user's.
    pub own_initrd: bool,
    /// CPUs that a kernel has which a crash starts.
    pub crash_cpus: u32,
    /// virtio-blk disks of the machine.
    pub disks: usize,
    /// How long the run was allowed to take.
    pub limits: Limits,
    /// Guest memory in bytes.
    pub memory_bytes: u64,
    /// SHA-256 of the disk and of the second disk, as the host computes them after the run.
    pub disk_digests: Option<DiskDigests>,
    /// The host finishes each page-state change in one exit.
    pub prompt_host: bool,
    /// The machine checks pages that are not shared.
    pub pattern_in_use: bool,
    /// The machine counts instructions instead of time.
    pub deterministic: bool,
    /// Version of QEMU.
    pub qemu_version: String,
    /// QEMU's messages.
    pub qemu_messages: Vec<String>,
}

impl Outcome {
    /// PCI devices of the machine that move data.
    #[must_use]
    pub fn pci_devices(&self) -> usize {
        let others = self.devices.iter().filter(|one| **one != Device::Blk);
        self.disks + others.count()
    }
}

/// Digests of the disks on the host's side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskDigests {
    /// Bytes of the disk.
    pub bytes: u64,
    /// Of the disk that was read.
    pub first: String,
    /// Of as many bytes of the second disk, which was written.
    pub second: String,
}

/// What is checked before the machine starts.
struct Inputs {
    qemu_version: String,
    image: IgvmInput,
    memory: GuestMemory,
    plan: MemoryPlan,
    /// RAM as the guest is told.
    ram: Vec<Range<u64>>,
    windows: Vec<Range<u64>>,
    disk: Option<Disk>,
    expectation: Expectation,
}

/// Boots the image of `options`, follows it to its end and returns what is known then. Whether that
/// is a success is decided by [`crate::checks`].
///
/// # Errors
/// [`Failure::BadInput`] before anything was started, [`Failure::Died`] when QEMU does not start.
pub fn run(options: &RunOptions) -> Result<Outcome, Failure> {
    let inputs = check_inputs(options)?;
    let folder = Workplace::new(options.keep.as_deref())?;
    let launch = folder.file("launch.bin");
    let launch_bytes = {
        let image = launch_image(options, &inputs)?;
        write(&launch, &image)?;
        image.len() as u64
    };

    let mut disks = Vec::new();
    let second = folder.file("second.img");
    if let Some(disk) = &inputs.disk {
        disk::create_second(&second, second_disk_bytes(options, disk)?)?;
        disks = vec![(disk.path.clone(), true), (second.clone(), false)];
        let more = more_disks(options.more_disks, folder.path())?;
        disks.extend(more.into_iter().map(|disk| (disk, true)));
    }
    let (records, console, log) = (
        folder.file("records.log"),
        options
            .console
            .clone()
            .unwrap_or(folder.file("console.log")),
        folder.file("qemu.log"),
    );
    // An older run's output in a kept folder must not be taken for this one's.
    for file in [&records, &console, &log] {
        write(file, &[])?;
    }
    let devices = options.device_set();
    let list: Vec<_> = devices.iter().copied().collect();
    let device_files = DeviceFiles {
        nvme_writable: options.nvme_writable,
        read_rate: options.disk_rate,
        ..DeviceFiles::provide(
            &list,
            options.nvme_disk.as_deref(),
            options.fetched.as_deref(),
            folder.path(),
        )?
    };
    let runner = std::env::current_exe()
        .map_err(|error| Failure::Died(format!("the runner does not find itself: {error}")))?;
    let machine = Machine {
        program: &options.qemu,
        memory_bytes: inputs.plan.machine_bytes(launch_bytes),
        vcpus: options.vcpus,
        host: &options.host,
        launch: (&launch, inputs.plan.launch_base(launch_bytes)),
        records: &records,
        console: &console,
        log: &log,
        disks: &disks,
        read_rate: options.disk_rate,
        devices: &device_files.arguments(&runner),
        deterministic: options.deterministic,
        threads: options.tcg_thread,
    };
    let limits = options.limits.limits(options.memory);
    if !options.quiet {
        eprintln!("{limits}");
    }
    let limits = limits.limits;
    let mut transcript = Transcript::default();
    let mut progress = match &inputs.expectation {
        _ if options.quiet => Progress::quiet(),
        Expectation::Linux => Progress::console(),
        _ => Progress::new(),
    };
    let output = Output {
        records: &records,
        console: &console,
    };
    let course = follow(
        machine.start()?,
        &output,
        limits,
        &mut transcript,
        &mut progress,
    );

    let disk_digests = match &inputs.disk {
        Some(disk) => Some(disk_digests(disk, &second)?),
        None => None,
    };
    let log = std::fs::read(&log).unwrap_or_default();
    let log = String::from_utf8_lossy(&log);
    let block = inputs.image.boot_block.as_deref();
    Ok(Outcome {
        transcript,
        end: course.end,
        duration: course.duration,
        resident: course.resident,
        expectation: inputs.expectation,
        igvm_bytes: inputs.image.file_bytes,
        digest: launch_digest(&inputs.image.directives, inputs.image.mask, options.vcpus)
            .map_err(|error| Failure::bad_input(error.to_string()))?,
        window_bytes: block.map(|block| block.window_bytes + block.low_window_bytes),
        windows: inputs.windows,
        vcpus: options.vcpus,
        devices,
        device_files,
        second_disk_block: disk::read_block(&second, MARKER_OFFSET, MARKER_BYTES),
        firmware: block.is_some_and(BootBlock::is_firmware),
        driver: options.driver,
        disks: disks.len(),
        own_initrd: options.own_initrd,
        crash_cpus: options.crash_cpus,
        limits,
        memory_bytes: options.memory,
        disk_digests,
        prompt_host: options.psc_manner == PscManner::Honest,
        pattern_in_use: !options.no_pattern,
        deterministic: options.deterministic,
        qemu_version: inputs.qemu_version,
        qemu_messages: qemu::messages(&log).into_iter().map(String::from).collect(),
    })
}

fn check_inputs(options: &RunOptions) -> Result<Inputs, Failure> {
    let qemu_version = qemu::check_version(&options.qemu)?;
    check_host(&options.host)?;
    let image = IgvmInput::read(&options.igvm)?;
    let memory = guest_memory::memory(options.memory, image.boot_block.as_deref());
    let plan = guest_memory::plan(memory)?;
    let mut ram = guest_memory::ram(&plan);
    if let Some(entries) = options.map_entries {
        ram = guest_memory::in_pieces(&ram, entries)?;
    }
    let windows = match &image.boot_block {
        Some(block) => guest_memory::windows(block, &ram, options.vcpus)?,
        None => Vec::new(),
    };
    let has_disks = options.device_set().contains(&Device::Blk);
    let disk = match &options.disk {
        Some(path) if has_disks => Some(Disk::check(path)?),
        _ => None,
    };
    let expectation = options
        .expect
        .clone()
        .unwrap_or_else(|| Expectation::of(image.boot_block.as_deref()));
    if options.device_set().contains(&Device::Ahci) && expectation != Expectation::Linux {
        return Err(Failure::bad_input(
            "the test guest has no driver for AHCI; leave ahci out of --devices, or boot Linux",
        ));
    }
    if has_disks && expectation.reads_disk() && disk.is_none() {
        return Err(Failure::bad_input(
            "this image is expected to read a disk; pass one with --disk ('runner disk' makes one) or another --expect",
        ));
    }
    Ok(Inputs {
        expectation,
        qemu_version,
        image,
        memory,
        plan,
        ram,
        windows,
        disk,
    })
}

/// Size of the second disk, which takes all that the first one has.
fn second_disk_bytes(options: &RunOptions, disk: &Disk) -> Result<u64, Failure> {
    let smallest = match options.expect {
        Some(Expectation::Linux) => MARKER_OFFSET + MARKER_BYTES as u64,
        _ => 0,
    };
    let bytes = options.second_disk_size.unwrap_or(disk.bytes.max(smallest));
    if bytes < disk.bytes || !bytes.is_multiple_of(disk::SECTOR) {
        return Err(Failure::bad_input(format!(
            "a second disk of {bytes} bytes is impossible; pass a multiple of 512, at least {}",
            disk.bytes
        )));
    }
    Ok(bytes)
}

/// QEMU's own complaint about an unsuitable `-kernel` names neither cause nor remedy.
fn check_host(path: &Path) -> Result<(), Failure> {
    let name = path.display();
    let remedy = "build it with 'make images' and pass target/x86_64-unknown-none/release/snp-host";
    match std::fs::read(path) {
        Ok(bytes) if bytes.starts_with(b"\x7fELF") => Ok(()),
        Ok(_) => Err(Failure::bad_input(format!(
            "{name} is no ELF file; {remedy}"
        ))),
        Err(error) => Err(Failure::bad_input(format!(
            "{name} cannot be read ({error}); {remedy}"
        ))),
    }
}

fn launch_image(options: &RunOptions, inputs: &Inputs) -> Result<Vec<u8>, Failure> {
    let memory_map = match options.attacks.memory_map.as_slice() {
        [] => inputs.ram.iter().map(MapEntry::ram).collect(),
        false_map => false_map.to_vec(),
    };
    let parameters = Parameters {
        memory_map,
        cpus: options.vcpus,
        memory_is_shared: options.ram_state == RamState::Shared,
    };
    let mut plan = LaunchPlan::execute(&inputs.image.directives, inputs.image.mask, &parameters)?;
    if let Some(decoy) = options.attacks.cpuid_decoy {
        decoy.insert(&mut plan);
    }
    let armed = options
        .attacks
        .armed(|page| locate(options.vcpus, inputs, page));
    launch_blob(
        &plan,
        inputs.memory,
        options.vcpus,
        options.switches(),
        &armed,
    )
}

/// Where a page with a name is; 0, which is nobody's, in an image that has none.
fn locate(vcpus: u32, inputs: &Inputs, page: AttackedPage) -> u64 {
    let Some(block) = inputs.image.boot_block.as_deref() else {
        return 0;
    };
    match page {
        AttackedPage::CallingArea => block.calling_area,
        AttackedPage::Storage => match inputs.windows.first() {
            Some(window) => window.start - guest_memory::storage(&inputs.ram, block, vcpus),
            None => 0,
        },
        _ => SECRETS_PAGE,
    }
}

fn disk_digests(disk: &Disk, second: &Path) -> Result<DiskDigests, Failure> {
    let hash = |path: &Path| {
        disk::sha256(path, disk.bytes)
            .map_err(|error| Failure::Died(format!("{} cannot be read: {error}", path.display())))
    };
    Ok(DiskDigests {
        bytes: disk.bytes,
        first: hash(&disk.path)?,
        second: hash(second)?,
    })
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    std::fs::write(path, bytes)
        .map_err(|error| Failure::bad_input(format!("cannot write {}: {error}", path.display())))
}

/// The folder that holds the files of a run.
#[derive(Debug)]
enum Workplace {
    Kept(PathBuf),
    Temporary(tempfile::TempDir),
}

impl Workplace {
    fn new(keep: Option<&Path>) -> Result<Self, Failure> {
        match keep {
            Some(path) => std::fs::create_dir_all(path).map(|()| Self::Kept(path.to_owned())),
            None => tempfile::tempdir().map(Self::Temporary),
        }
        .map_err(|error| {
            Failure::bad_input(format!(
                "cannot make a folder for the run ({error}); pass a writable one with --keep"
            ))
        })
    }

    fn file(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    fn path(&self) -> &Path {
        match self {
            Self::Kept(path) => path,
            Self::Temporary(folder) => folder.path(),
        }
    }
}
