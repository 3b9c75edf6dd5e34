// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the host counts, and how the counters are named in records.
//!
//! `exit.<vmpl>.<cause>`, `vmgexit.<vmpl>.<cause>` and `instruction.<vmpl>.<name>` per VMPL,
//! `svsm.<form>.<protocol>.<call>` for calls of the SVSM, `longest.<figure>.<protocol>.<call>` for their times; the others for the machine. A counter that is zero has no line in a snapshot.

use core::fmt;

use snp::address::Vmpl;

use crate::call_times::{CallTimes, ServedCall};
use crate::svsm_calls::{Form, SvsmCalls};

/// Declares an enumeration of causes with their names in records.
macro_rules! causes {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)*
        }

        impl $name {
            /// Names by variant, as records show them.
            pub const NAMES: &'static [&'static str] = &[$($text),*];
        }
    };
}

causes! {
    /// Why a guest left the processor.
    Exit {
        /// CR0 was written with paging off.
        Cr0 = "cr0",
        /// #UD: an emulated instruction, or a real one.
        InvalidOpcode = "ud",
        /// VMMCALL and VMGEXIT.
        Vmmcall = "vmmcall",
        /// CPUID.
        Cpuid = "cpuid",
        /// RDMSR and WRMSR.
        Msr = "msr",
        /// IN and OUT.
        Io = "io",
        /// HLT.
        Halt = "hlt",
        /// RDPMC, INVD, WBINVD, MONITOR, MWAIT.
        OtherInstruction = "other-instruction",
        /// Nested page fault.
        NestedFault = "npf",
        /// Interrupt or NMI for the host.
        Interrupt = "intr",
    }
}

causes! {
    /// What a VMGEXIT asked for; `msr-…` by the MSR protocol.
    Vmgexit {
        /// SEV information.
        MsrSevInfo = "msr-sev-info",
        /// CPUID.
        MsrCpuid = "msr-cpuid",
        /// Preferred GHCB.
        MsrPreferred = "msr-preferred",
        /// Registering a GHCB.
        MsrRegister = "msr-register",
        /// Page-state change of one page.
        MsrPsc = "msr-psc",
        /// Another VMPL.
        MsrRunVmpl = "msr-run-vmpl",
        /// Hypervisor features.
        MsrFeatures = "msr-features",
        /// Termination.
        MsrTerminate = "msr-terminate",
        /// CPUID.
        Cpuid = "cpuid",
        /// HLT.
        Halt = "hlt",
        /// AP reset hold.
        ResetHold = "ap-reset-hold",
        /// List of APIC identifiers.
        ApicIdList = "apic-id-list",
        /// WBINVD, MONITOR and MWAIT, which do nothing here.
        NoEffect = "no-effect",
        /// Ports.
        Ioio = "ioio",
        /// MSRs.
        Msr = "msr",
        /// MMIO read.
        MmioRead = "mmio-read",
        /// MMIO write.
        MmioWrite = "mmio-write",
        /// An NMI is complete.
        NmiComplete = "nmi-complete",
        /// Page-state change.
        Psc = "psc",
        /// AP creation.
        ApCreate = "ap-create",
        /// #HV doorbell.
        HvDoorbell = "hv-doorbell",
        /// Another VMPL.
        RunVmpl = "run-vmpl",
        /// Hypervisor features.
        Features = "features",
        /// Termination.
        Terminate = "terminate",
        /// An event this host does not know, or a malformed one.
        Refused = "refused",
    }
}

causes! {
    /// Emulated instructions.
    Instruction {
        /// PVALIDATE.
        Pvalidate = "pvalidate",
        /// RMPADJUST.
        RmpAdjust = "rmpadjust",
        /// RMPQUERY.
        RmpQuery = "rmpquery",
        /// INVLPGB.
        Invlpgb = "invlpgb",
        /// TLBSYNC.
        Tlbsync = "tlbsync",
    }
}

causes! {
    /// Counters of the whole machine.
    Event {
        /// 4 KiB pages made shared.
        ConvertShared4K = "convert.shared.4k",
        /// 2 MiB pages made shared.
        ConvertShared2M = "convert.shared.2m",
        /// 4 KiB pages made private.
        ConvertPrivate4K = "convert.private.4k",
        /// 2 MiB pages made private.
        ConvertPrivate2M = "convert.private.2m",
        /// Pages converted because they were touched.
        ConvertImplicit = "convert.implicit",
        /// Large RMP entries split.
        Psmash = "psmash",
        /// #VC 0x404 injected.
        NotValidated = "vc404",
        /// Fetches and walks without C-bit taken to the private view.
        Alias = "alias",
        /// Switches between VMPLs.
        VmplSwitch = "vmpl-switch",
        /// RUN_VMPL(0) of a guest that was resumed without VMPL 0 having run.
        SwitchSwallowed = "switch.swallowed",
        /// RUN_VMPL of VMPL 0 that returned without the guest having run.
        SwitchSpurious = "switch.spurious",
        /// CPUs made to leave their guest because another one took a page or a permission back.
        Kick = "kick",
        /// Waits of a CPU whose guest halted.
        Wait = "wait",
        /// Writes to interrupt controllers that were not made: INIT, SIPI and SMI, NMI where nobody takes it.
        InterruptRefused = "interrupt.refused",
        /// NMIs that CPUs of the guest sent, one for each target.
        NmiSent = "nmi.sent",
        /// Others that came while as many waited as are kept.
        NmiMerged = "nmi.merged",
        /// NMIs injected.
        NmiInjected = "nmi.injected",
        /// Events shown in the #HV doorbell page.
        HvSignalled = "hv.signalled",
        /// #HV exceptions raised for them.
        HvInjected = "hv.injected",
        /// Pages that the host attacked.
        AttackStruck = "attack.struck",
        /// Calls for which the guest named a page, and which were over before the moment to attack it.
        AttackMissed = "attack.missed",
        /// Accesses to a frame for which the reverse map names another page.
        ReverseMapRefused = "attack.reverse-map",
        /// Writes to a page that the host maps read-only.
        ReadOnlyFault = "attack.read-only",
        /// Replies of the MSR protocol that were false.
        FalseReply = "attack.false-reply",
        /// Page-state changes by GHCB that were answered in another manner than the honest one.
        FalsePageState = "attack.psc",
        /// Events that the host raised in VMPL 0.
        Injected = "attack.injected",
        /// Events that the processor did not take from the host.
        InjectionRefused = "attack.injection-refused",
        /// Pages that were shared when the guest had this host note what they hold.
        SharedWatched = "shared.watched",
        /// Those of them that held something else later.
        SharedChanged = "shared.changed",
        /// Pages whose pattern was compared.
        PatternChecked = "pattern.checked",
        /// Pages whose pattern was damaged.
        PatternBad = "pattern.bad",
    }
}

/// All counters.
#[derive(Clone, Debug, Default)]
pub struct Counters {
    exits: [[u64; Exit::NAMES.len()]; 4],
    vmgexits: [[u64; Vmgexit::NAMES.len()]; 4],
    instructions: [[u64; Instruction::NAMES.len()]; 4],
    events: [u64; Event::NAMES.len()],
    svsm_calls: SvsmCalls,
    call_times: CallTimes,
}

fn add(counters: &mut [u64], index: usize, count: u64) {
    if let Some(counter) = counters.get_mut(index) {
        *counter += count;
    }
}

impl Counters {
    /// Counts an exit.
    pub fn exit(&mut self, vmpl: Vmpl, cause: Exit) {
        add(&mut self.exits[vmpl.index()], cause as usize, 1);
    }

    /// Counts a VMGEXIT.
    pub fn vmgexit(&mut self, vmpl: Vmpl, cause: Vmgexit) {
        add(&mut self.vmgexits[vmpl.index()], cause as usize, 1);
    }

    /// Counts an emulated instruction.
    pub fn instruction(&mut self, vmpl: Vmpl, instruction: Instruction) {
        add(
            &mut self.instructions[vmpl.index()],
            instruction as usize,
            1,
        );
    }

    /// Counts a switch to VMPL 0 by the caller's RAX.
    pub fn svsm_call(&mut self, form: Form, rax: u64) {
        self.svsm_calls.count(form, rax);
    }

    /// A call of the SVSM was served.
    pub fn svsm_call_ended(&mut self, call: ServedCall, now: u64) {
        self.call_times.end(call, now);
    }

    /// Counts an event of the machine.
    pub fn event(&mut self, event: Event) {
        add(&mut self.events, event as usize, 1);
    }

    /// Counts `count` events of the machine.
    pub fn events_add(&mut self, event: Event, count: u64) {
        add(&mut self.events, event as usize, count);
    }

    /// Value of a machine counter.
    #[must_use]
    pub fn events(&self, event: Event) -> u64 {
        self.events.get(event as usize).copied().unwrap_or(0)
    }

    /// Calls `line` with name and value of each counter that is not zero.
    ///
    /// # Errors
    /// What `line` returns.
    pub fn for_each(
        &self,
        mut line: impl FnMut(fmt::Arguments<'_>, u64) -> fmt::Result,
    ) -> fmt::Result {
        for vmpl in Vmpl::ALL {
            let families = [
                ("exit", Exit::NAMES, &self.exits[vmpl.index()][..]),
                ("vmgexit", Vmgexit::NAMES, &self.vmgexits[vmpl.index()][..]),
                (
                    "instruction",
                    Instruction::NAMES,
                    &self.instructions[vmpl.index()][..],
                ),
            ];
            for (family, names, values) in families {
                for (name, value) in names.iter().zip(values).filter(|(_, value)| **value != 0) {
                    line(format_args!("{family}.{}.{name}", vmpl.number()), *value)?;
                }
            }
        }
        self.svsm_calls.for_each(&mut line)?;
        self.call_times.for_each(&mut line)?;
        for (name, value) in Event::NAMES
            .iter()
            .zip(self.events)
            .filter(|(_, value)| *value != 0)
        {
            line(format_args!("{name}"), value)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::string::{String, ToString};
    use std::vec::Vec;

    use super::*;

    #[test]
    fn names_are_what_the_runner_looks_for() {
        let mut counters = Counters::default();
        counters.exit(Vmpl::Vmpl2, Exit::NestedFault);
        counters.vmgexit(Vmpl::Vmpl0, Vmgexit::MsrRunVmpl);
        counters.vmgexit(Vmpl::Vmpl0, Vmgexit::MsrRunVmpl);
        counters.instruction(Vmpl::Vmpl0, Instruction::Pvalidate);
        counters.event(Event::ConvertShared2M);
        let mut lines: Vec<(String, u64)> = Vec::new();
        counters
            .for_each(|name, value| {
                lines.push((name.to_string(), value));
                Ok(())
            })
            .unwrap();
        let expected = [
            ("vmgexit.0.msr-run-vmpl", 2),
            ("instruction.0.pvalidate", 1),
            ("exit.2.npf", 1),
            ("convert.shared.2m", 1),
        ];
        assert_eq!(
            lines,
            expected.map(|(name, value)| (name.to_string(), value))
        );
    }
}
