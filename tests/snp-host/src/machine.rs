// SPDX-License-Identifier: MIT OR Apache-2.0
//! The machine that all CPUs of the guest share, and how it stops.

use core::fmt;

use snp_model::psc::HostManner;
use snp_model::rmp::{Rmp, RmpEntry};

use crate::attack::Attacks;
use crate::counters::{Counters, Event};
use crate::cpuid_policy::Place;
use crate::destinations::Destinations;
use crate::doorbell_event::DoorbellEvents;
use crate::firmware_configuration::FirmwareConfiguration;
use crate::hardware::Hardware;
use crate::inspection::MOMENTS;
use crate::memory_plan::MemoryPlan;
use crate::nested_tables::NestedTables;
use crate::nmi::Nmis;
use crate::psc_manner::PscManner;
use crate::record::{self, ExitCode, kind};
use crate::shared_view::SharedView;
use crate::shared_watch::SharedWatch;
use crate::switch_manner::SwitchManner;
use crate::switches::Switches;
use crate::translations::{Kicks, Translations};
use crate::vcpu::Cpu;
use crate::vcpu_creation::PostedChanges;

/// Result of handling an exit; an error stops the machine.
pub type Flow<T = ()> = Result<T, ExitCode>;

/// Words of the guest's stack that a report shows.
const STACK_WORDS: u64 = 32;

/// Memory, reverse map, nested tables and counters of one guest.
#[derive(Debug)]
pub struct Machine<'a, H> {
    /// What this host runs on.
    pub hardware: H,
    /// Where everything is.
    pub plan: MemoryPlan,
    /// How strict to be.
    pub switches: Switches,
    /// How page-state changes are treated.
    pub manner: PscManner,
    /// Which switches between VMPLs are skipped.
    pub switch_manner: SwitchManner,
    /// Events for the #HV doorbell.
    pub doorbell: DoorbellEvents,
    /// What is armed beside the manners.
    pub attacks: Attacks,
    /// Reverse map, by page number of the plan.
    pub rmp: Rmp<'a>,
    /// Which pages are shared on request, and the patterns of the others.
    pub shared_view: SharedView<'a>,
    /// What shared pages held when the guest had it noted.
    pub watch: SharedWatch<'a>,
    /// What each VMPL can reach.
    pub nested: NestedTables,
    /// What firmware is told of the machine.
    pub configuration: FirmwareConfiguration,
    /// What happened so far.
    pub counters: Counters,
    /// CPUs of the guest; their APIC ids are 0 to this.
    pub cpus: u32,
    /// What CPUs registered on others, which have not seen it yet.
    pub posted: PostedChanges,
    /// NMIs that they sent each other.
    pub nmis: Nmis,
    /// Which commands of their local APICs name them.
    pub destinations: Destinations,
    /// When other CPUs lose their translations.
    pub kicks: Kicks,
    /// What this exit has left to do about them.
    pub translations: Translations,
    /// By [`Moment`](crate::inspection::Moment): VMPL 0 was looked at.
    pub(crate) inspected: [bool; MOMENTS],
}

impl<'a, H: Hardware> Machine<'a, H> {
    /// A machine whose pages all belong to the hypervisor. `entries`, `shared` and `held` have one
    /// element per page, all default; nested tables are built at `nested_base`. `None` when a slice has
    /// the wrong length or a manner is unknown.
    pub fn new(
        hardware: H,
        plan: MemoryPlan,
        switches: Switches,
        entries: &'a mut [RmpEntry],
        shared: &'a mut [bool],
        held: &'a mut [u64],
        nested_base: u64,
    ) -> Option<Self> {
        let pages = plan.layout().pages();
        if [entries.len(), shared.len(), held.len()] != [pages; 3] {
            return None;
        }
        let manner = HostManner::from_bits(switches.page_state_manner())?;
        let manner = PscManner::new(manner, switches.page_state_from());
        let switch_manner = switches.switch_manner()?;
        let kicks = switches.kicks()?;
        let doorbell = DoorbellEvents::new(switches.doorbell_events()?);
        let nested = NestedTables::build(&hardware, plan, nested_base, switches.pass_through());
        let shared_view = SharedView::new(shared, !switches.no_pattern());
        let rmp = Rmp::new(entries);
        let counters = Counters::default();
        Some(Self {
            hardware,
            plan,
            switches,
            manner,
            switch_manner,
            doorbell,
            attacks: Attacks::default(),
            rmp,
            shared_view,
            watch: SharedWatch::new(held),
            nested,
            configuration: FirmwareConfiguration::default(),
            counters,
            cpus: 1,
            posted: PostedChanges::default(),
            nmis: Nmis::default(),
            destinations: Destinations::default(),
            kicks,
            translations: Translations::default(),
            inspected: [false; MOMENTS],
        })
    }

    /// Where `cpu` is among the CPUs of the guest.
    pub(crate) const fn place(&self, cpu: &Cpu) -> Place {
        Place {
            apic_id: cpu.apic_id,
            cpus: self.cpus,
        }
    }

    /// Writes one record.
    pub fn record(&self, kind: &str, fields: fmt::Arguments<'_>) {
        record::write(&self.hardware, kind, fields);
    }

    /// Writes all counters as snapshot `id`.
    pub fn snapshot(&self, id: u32) {
        record::write_snapshot(
            &self.hardware,
            id,
            self.hardware.timestamp(),
            &self.counters,
        );
    }

    /// Reports an access that a correct guest does not make.
    pub fn violation(&self, cpu: &Cpu, what: &str, gpa: u64) -> ExitCode {
        let rip = cpu.vcpu().vmcb.save.rip;
        self.record(
            kind::VIOLATION,
            format_args!(
                "what={what} gpa={gpa:#x} vmpl={} rip={rip:#x}",
                cpu.current.number()
            ),
        );
        self.report_registers(cpu);
        ExitCode::Violation
    }

    /// Reports that the guest cannot go on.
    pub fn died(&self, cpu: &Cpu, what: &str) -> ExitCode {
        self.record(
            kind::DIED,
            format_args!("what={what} vmpl={}", cpu.current.number()),
        );
        self.report_registers(cpu);
        ExitCode::Died
    }

    /// Exit, registers and stack of the VMPL that runs, for `addr2line`.
    fn report_registers(&self, cpu: &Cpu) {
        let vcpu = cpu.vcpu();
        let (control, save, registers) = (&vcpu.vmcb.control, &vcpu.vmcb.save, &vcpu.registers);
        let show = |fields: fmt::Arguments<'_>| self.record(kind::TRACE, fields);
        show(format_args!(
            "exit={:#x} info1={:#x} info2={:#x} rip={:#x} rsp={:#x} rflags={:#x} cs={:#x} efer={:#x} ghcb={:#x}",
            control.exit_code,
            control.exit_info_1,
            control.exit_info_2,
            save.rip,
            save.rsp,
            save.rflags,
            save.cs.selector,
            save.efer,
            vcpu.ghcb_msr,
        ));
        show(format_args!(
            "cr0={:#x} cr2={:#x} cr3={:#x} cr4={:#x} rax={:#x} registers={registers:x?}",
            save.cr0, save.cr2, save.cr3, save.cr4, save.rax,
        ));
        for number in 0..STACK_WORDS {
            let mut word = [0; 8];
            let address = save.rsp.wrapping_add(8 * number);
            if self.read_linear(vcpu, address, &mut word).is_err() {
                break;
            }
            show(format_args!(
                "stack={address:#x} value={:#x}",
                u64::from_le_bytes(word)
            ));
        }
    }

    /// Ends the run: compares every pattern, writes the final snapshot and the exit record.
    pub fn finish(&mut self, code: ExitCode) -> ExitCode {
        let checked = self.check_all_patterns();
        self.report_shared_changes();
        let code = if self.counters.events(Event::PatternBad) != 0 && code == ExitCode::Success {
            ExitCode::PatternDamaged
        } else {
            code
        };
        self.snapshot(record::FINAL_SNAPSHOT);
        self.record(
            kind::EXIT,
            format_args!("code={} checked={checked}", code as u32),
        );
        code
    }
}
