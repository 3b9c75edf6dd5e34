// SPDX-License-Identifier: MIT OR Apache-2.0
//! The bare-metal hypervisor: takes the launch image that QEMU has put into memory, runs it as an
//! SNP guest until it ends, and reports on the debug console.

#![no_std]
#![no_main]

mod bare_metal;

use bare_metal::{BareMetal, exceptions, processor, raw_memory, stop};
use snp_host::hardware::Processor;
use snp_host::launch::LaunchImage;
use snp_host::machine::Machine;
use snp_host::memory_plan::{HIGH_BASE, LAUNCH_BASE, LAUNCH_BYTES, MemoryPlan};
use snp_host::permission_maps::PermissionMaps;
use snp_host::record::{self, ExitCode, kind};
use snp_host::vcpu::Cpu;
use snp_model::rmp::RmpEntry;

/// Called by `boot.S` on the boot CPU.
#[unsafe(no_mangle)]
extern "sysv64" fn host_main() -> ! {
    exceptions::install();
    processor::enable_svm();
    stop(run())
}

fn run() -> ExitCode {
    let image = match LaunchImage::parse(raw_memory::launch_memory(LAUNCH_BASE, LAUNCH_BYTES)) {
        Ok(image) => image,
        Err(error) => return refuse(format_args!("what=launch-image error={error:?}")),
    };
    let bytes = image.memory_bytes();
    let switches = image.switches();
    record::write(
        &BareMetal,
        kind::BOOT,
        format_args!(
            "version=1 mem={bytes} switches={:#x} tsc={}",
            switches.into_bits(),
            BareMetal.timestamp(),
        ),
    );
    let Some(plan) = MemoryPlan::new(bytes) else {
        return refuse(format_args!("what=launch-memory-size bytes={bytes}"));
    };
    let available = HIGH_BASE + raw_memory::ram_above_4_gib();
    if plan.tables_base() + plan.tables_bytes() > available {
        return refuse(format_args!(
            "what=machine-too-small needs={}",
            plan.machine_bytes()
        ));
    }
    let pages = plan.layout().pages();
    let base = plan.tables_base();
    let shared_base = base + (pages * size_of::<RmpEntry>()) as u64;
    let nested_base = (shared_base + pages as u64).next_multiple_of(snp::address::PAGE_SIZE);
    // SAFETY: the plan puts the tables behind both views, where nothing else is, and QEMU has RAM
    // there (checked above); the slices do not overlap. Zero bytes are valid elements.
    let (entries, shared) = unsafe {
        (
            raw_memory::zeroed_slice::<RmpEntry>(base, pages),
            raw_memory::zeroed_slice::<bool>(shared_base, pages),
        )
    };
    let Some(mut machine) = Machine::new(BareMetal, plan, switches, entries, shared, nested_base)
    else {
        return refuse(format_args!(
            "what=launch-switches switches={:#x}",
            switches.into_bits()
        ));
    };
    let maps = PermissionMaps::new(switches.pass_through());
    let mut cpu = Cpu::new(0, &maps, switches.pass_through());
    match machine.launch(&mut cpu, &image) {
        Ok(()) => machine.run(&mut cpu),
        Err(code) => machine.finish(code),
    }
}

fn refuse(fields: core::fmt::Arguments<'_>) -> ExitCode {
    record::write(&BareMetal, kind::DIED, fields);
    record::write(
        &BareMetal,
        kind::EXIT,
        format_args!("code={}", ExitCode::BadLaunch as u32),
    );
    ExitCode::BadLaunch
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    let (file, line) = info
        .location()
        .map_or(("unknown", 0), |at| (at.file(), at.line()));
    record::write(
        &BareMetal,
        kind::DIED,
        format_args!("what=host-panic at={file}:{line}"),
    );
    stop(ExitCode::HostFault)
}
