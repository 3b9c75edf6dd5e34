// SPDX-License-Identifier: MIT OR Apache-2.0
//! The bare-metal hypervisor: takes the launch image that QEMU has put into memory, runs it as an
//! SNP guest until it ends, and reports on the debug console.

#![no_std]
#![no_main]

mod bare_metal;

use core::ops::Range;

use bare_metal::lock::Lock;
use bare_metal::processors::Entry;
use bare_metal::{
    BareMetal, exceptions, processor, processors, raw_memory, replacement, stop, waiting,
};
use snp_host::hardware::{Processor, Processors};
use snp_host::launch::{self, LaunchImage};
use snp_host::machine::Machine;
use snp_host::memory_plan::{HIGH_BASE, LAUNCH_BASE, LAUNCH_BYTES, MemoryPlan};
use snp_host::permission_maps::PermissionMaps;
use snp_host::record::{self, ExitCode, kind};
use snp_host::residence::Step;
use snp_host::vcpu::Cpu;
use snp_host::vmcb::exit_code;
use snp_model::rmp::RmpEntry;

/// The machine; there is none before it is launched. Who holds it handles an exit.
static MACHINE: Lock<Option<Machine<'static, BareMetal>>> = Lock::new(None);

/// Called by `boot.S` on QEMU's CPU 0. It runs the guest only if that has one CPU.
#[unsafe(no_mangle)]
extern "sysv64" fn host_main() -> ! {
    exceptions::install();
    let cpus = match launch_image() {
        Ok(image) => image.cpus(),
        Err(code) => stop(code),
    };
    let last = launch::processors(cpus) - 1;
    if last == 0 {
        boot_cpu();
    }
    // Held while the replacement must wait.
    let turn = MACHINE.lock();
    if let Err(code) = start(last..last + 1, replacement_main) {
        stop(code);
    }
    replacement::hand_over(last);
    drop(turn);
    replacement::rest()
}

/// Where the replacement of CPU 0 starts.
extern "sysv64" fn replacement_main() -> ! {
    exceptions::install();
    processors::register();
    drop(MACHINE.lock());
    replacement::take_over();
    boot_cpu()
}

/// Launches the machine and runs the boot CPU of the guest.
fn boot_cpu() -> ! {
    processor::enable_svm(0);
    stop(run())
}

/// Where every other CPU of the guest starts.
extern "sysv64" fn application_main() -> ! {
    let number = processors::own_number();
    exceptions::install();
    processor::enable_svm(number);
    processors::register();
    let pass_through = loop {
        let machine = MACHINE.lock();
        if let Some(machine) = machine.as_ref() {
            break machine.switches.pass_through();
        }
        // Said before the lock is given up, so that who launches the machine sees it and wakes
        // this CPU.
        let step = Step::Wait { interrupts: false };
        processors::about_to(number, step);
        drop(machine);
        waiting::wait(number, false);
        processors::back(number);
    };
    let maps = PermissionMaps::new(pass_through);
    run_cpu(Cpu::new(number, &maps, pass_through))
}

/// Runs a CPU of the guest until the machine stops.
fn run_cpu(mut cpu: Cpu) -> ! {
    let number = cpu.apic_id;
    let mut guard = MACHINE.lock();
    loop {
        let Some(machine) = guard.as_mut() else {
            stop(ExitCode::HostFault);
        };
        let step = machine.next_step(&mut cpu);
        processors::about_to(number, step);
        drop(guard);
        match step {
            Step::Guest => {
                let before = BareMetal.timestamp();
                BareMetal.enter(cpu.vcpu_mut());
                cpu.ran(BareMetal.timestamp().wrapping_sub(before));
                processors::back(number);
                if cpu.vcpu().holds_host_state(processor::host_table()) {
                    host_state_found(&cpu);
                }
                if cpu.vcpu().vmcb.control.exit_code == exit_code::NMI {
                    processor::take_nmi();
                }
            }
            Step::Wait { interrupts } => {
                let interrupted = waiting::wait(number, interrupts);
                processors::back(number);
                // A kick is no interrupt: the machine says what it has brought.
                cpu.is_halted &= !interrupted;
            }
        }
        guard = MACHINE.lock();
        if step == Step::Guest
            && let Some(machine) = guard.as_mut()
            && let Err(code) = machine.handle_exit(&mut cpu)
        {
            // The machine is kept: no other CPU handles an exit, or writes a record, any more.
            BareMetal.kick_guests(number);
            stop(machine.finish(code));
        }
    }
}

/// Stops the machine: the control block of `cpu` describes this host.
fn host_state_found(cpu: &Cpu) -> ! {
    let machine = MACHINE.lock();
    let (control, save) = (&cpu.vcpu().vmcb.control, &cpu.vcpu().vmcb.save);
    record::write(
        &BareMetal,
        kind::DIED,
        format_args!(
            "what=host-state-in-vmcb cpu={} vmpl={} exit={:#x} info1={:#x} info2={:#x} event={:#x} rip={:#x} rsp={:#x} rflags={:#x}",
            cpu.apic_id,
            cpu.current.number(),
            control.exit_code,
            control.exit_info_1,
            control.exit_info_2,
            control.exit_interrupt_info,
            save.rip,
            save.rsp,
            save.rflags,
        ),
    );
    let _kept = machine;
    stop(ExitCode::HostFault)
}

/// The launch image; the code to stop with when there is none.
fn launch_image() -> Result<LaunchImage<'static>, ExitCode> {
    let mut memory = raw_memory::launch_memory(LAUNCH_BASE, LAUNCH_BYTES);
    if let Some(address) = launch::elsewhere(memory) {
        let end = HIGH_BASE + raw_memory::ram_above_4_gib();
        memory = raw_memory::launch_memory(address, end.saturating_sub(address));
    }
    LaunchImage::parse(memory)
        .map_err(|error| refuse(format_args!("what=launch-image error={error:?}")))
}

/// Starts these processors; the code to stop with when one does not come.
fn start(numbers: Range<u32>, entry: Entry) -> Result<(), ExitCode> {
    processors::start(numbers, entry)
        .map_err(|missing| refuse(format_args!("what=cpu-did-not-start cpu={missing}")))
}

fn run() -> ExitCode {
    let image = match launch_image() {
        Ok(image) => image,
        Err(code) => return code,
    };
    let memory = image.memory();
    let bytes = memory.ram;
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
    if let Err(code) = start(1..image.cpus(), application_main) {
        return code;
    }
    let Some(plan) = MemoryPlan::new(memory) else {
        return refuse(format_args!("what=launch-memory-size bytes={bytes}"));
    };
    let available = HIGH_BASE + raw_memory::ram_above_4_gib();
    if plan.tables_base() + plan.tables_bytes() > available {
        return refuse(format_args!(
            "what=machine-too-small needs={}",
            plan.machine_bytes(0)
        ));
    }
    let pages = plan.layout().pages();
    let base = plan.tables_base();
    let shared_base = base + (pages * size_of::<RmpEntry>()) as u64;
    let held_base = (shared_base + pages as u64).next_multiple_of(size_of::<u64>() as u64);
    let nested_base =
        (held_base + (pages * size_of::<u64>()) as u64).next_multiple_of(snp::address::PAGE_SIZE);
    // SAFETY: the plan puts the tables behind both views, where nothing else is, and QEMU has RAM
    // there (checked above); the slices do not overlap. Zero bytes are valid elements.
    let (entries, shared, held) = unsafe {
        (
            raw_memory::zeroed_slice::<RmpEntry>(base, pages),
            raw_memory::zeroed_slice::<bool>(shared_base, pages),
            raw_memory::zeroed_slice::<u64>(held_base, pages),
        )
    };
    let Some(mut machine) = Machine::new(
        BareMetal,
        plan,
        switches,
        entries,
        shared,
        held,
        nested_base,
    ) else {
        return refuse(format_args!(
            "what=launch-switches switches={:#x}",
            switches.into_bits()
        ));
    };
    let maps = PermissionMaps::new(switches.pass_through());
    let mut cpu = Cpu::new(0, &maps, switches.pass_through());
    if let Err(code) = machine.launch(&mut cpu, &image) {
        return machine.finish(code);
    }
    let mut guard = MACHINE.lock();
    *guard = Some(machine);
    processors::wake_all(0);
    drop(guard);
    run_cpu(cpu)
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
