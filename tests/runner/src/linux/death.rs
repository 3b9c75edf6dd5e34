// SPDX-License-Identifier: MIT OR Apache-2.0
//! Why a boot of Linux did not come to its end, in one line.

use crate::checks::explain;
use crate::follow::End;
use crate::host_record::Termination;
use crate::run::Outcome;

/// Reason set of the GHCB specification's own reasons.
const GENERAL_SET: u64 = 0;
/// Reason set of the Linux kernel.
const LINUX_SET: u64 = 1;

/// Why the boot is none to check; `None` when the guest turned the machine off.
#[must_use]
pub fn death(outcome: &Outcome) -> Option<String> {
    let transcript = &outcome.transcript;
    let facts = &transcript.linux;
    if let Some(panic) = &facts.panic {
        return Some(panicked(panic, facts.initrd_complaint.as_deref()));
    }
    if let Some(report) = transcript.violation.as_ref().or(transcript.died.as_ref()) {
        return Some(stopped(report, facts.first_line.is_some()));
    }
    if let Some(termination) = transcript.termination {
        return Some(ended(termination));
    }
    if let Some(reset) = &transcript.reset {
        return Some(format!(
            "the guest reset the machine before it was done ({reset})"
        ));
    }
    let reached = reached(outcome);
    match outcome.end {
        End::TooLong => Some(format!(
            "the time limit of {} s (--timeout) ended the run; {reached}",
            outcome.limits.total.as_secs()
        )),
        End::Silent => Some(format!(
            "nothing was said for {} s (--idle): the guest hangs; {reached}",
            outcome.limits.idle.as_secs()
        )),
        End::Ended(status) if transcript.exit_code.is_none() => Some(format!(
            "the machine died (QEMU ended with status {status}); {reached}"
        )),
        End::Ended(_) if transcript.poweroff.is_none() => Some(format!(
            "the machine ended although the guest had not turned it off; {reached}"
        )),
        End::Ended(_) => None,
    }
}

/// The last thing that is known to have worked.
fn reached(outcome: &Outcome) -> &'static str {
    let transcript = &outcome.transcript;
    let facts = &transcript.linux;
    if facts.done.is_some() {
        "all steps were tried"
    } else if facts.user_space.is_some() {
        "user space was running"
    } else if outcome.firmware && facts.log.is_empty() {
        "the firmware was running"
    } else if facts.first_line.is_some() {
        "the kernel was starting"
    } else if transcript.host_booted {
        "the kernel had said nothing"
    } else {
        "the emulated host had said nothing"
    }
}

fn panicked(panic: &str, complaint: Option<&str>) -> String {
    let has = |words: &[&str]| words.iter().any(|words| panic.contains(words));
    if let Some(complaint) = complaint {
        return format!("the initrd is corrupt: {complaint}; {panic}");
    }
    if has(&[
        "Unable to mount root fs",
        "No working init",
        "Requested init",
    ]) {
        return format!("the initrd is corrupt or has no working /init: {panic}");
    }
    if has(&[
        "Out of memory",
        "deadlocked on memory",
        "out of memory",
        "alloc",
    ]) {
        return format!(
            "too little memory for this kernel (pass a larger --memory, make: MEM=): {panic}"
        );
    }
    format!("the guest's kernel panicked: {panic}")
}

/// A report of the machine. A kernel that has not said a line when it breaks the rules of SEV-SNP does not know them: its
/// boot code maps memory without the C-bit.
fn stopped(report: &str, kernel_spoke: bool) -> String {
    if report.contains("vmpl=2") && !kernel_spoke {
        format!(
            "the kernel lacks support for SEV-SNP: before its first line the machine stopped it: {report}"
        )
    } else {
        format!("the machine stopped: {report}")
    }
}

/// A termination request in words. The kernel's own reasons are in `sev-common.h` of its source.
fn ended(termination: Termination) -> String {
    let cause = match (termination.vmpl, termination.set, termination.reason) {
        (2, LINUX_SET, 0) => "the kernel's GHCB page was not registered where it asked",
        (2, LINUX_SET, 1) => "a page-state change of the kernel failed",
        (2, LINUX_SET, 2) => "a PVALIDATE of the kernel failed or was refused by the SVSM",
        (2, LINUX_SET, 3) => {
            "the kernel does not run below VMPL0: it lacks support for an SVSM (6.11 or later has it)"
        }
        (2, LINUX_SET, 4) => "the kernel found its CPUID table missing or damaged",
        (2, LINUX_SET, 5) => "the kernel found a hypervisor's CPUID leaf damaged",
        (2, LINUX_SET, 6) => "the kernel found its secrets page missing or damaged",
        (2, LINUX_SET, 7) => "the kernel was given no SVSM (svsm_size of its secrets page is 0)",
        (2, LINUX_SET, 8) => "the kernel was told that it runs at VMPL0, beside an SVSM",
        (2, LINUX_SET, 9) => "the kernel was given a misaligned calling area",
        (2, LINUX_SET, 10) => "the kernel could not set up Secure TSC",
        (2, LINUX_SET, 11) => "the SVSM refused to move the calling area",
        (2, GENERAL_SET, 0) => {
            "the kernel gave up without a reason of its own (a #VC it could not handle)"
        }
        (2, GENERAL_SET, 1) => "the kernel and the host share no GHCB protocol version",
        (2, GENERAL_SET, 2) => "the kernel lacks a feature of SEV-SNP, or the host does",
        _ => return explain(termination),
    };
    let Termination { vmpl, set, reason } = termination;
    format!("VMPL{vmpl} ended the VM with reason {set:#x}:{reason:#x}: {cause}")
}

#[cfg(test)]
mod tests {
    use super::{ended, panicked, stopped};
    use crate::host_record::Termination;

    #[test]
    fn the_kernels_reasons_have_names() {
        let words = |vmpl, set, reason| ended(Termination { vmpl, set, reason });
        for (reason, part) in [
            (2, "PVALIDATE"),
            (3, "lacks support for an SVSM"),
            (7, "no SVSM"),
            (8, "VMPL0"),
            (9, "misaligned calling area"),
        ] {
            let words = words(2, 1, reason);
            assert!(words.contains(part) && words.contains("0x1:0x"), "{words}");
        }
        // The same numbers of VMPL0 are the paravisor's affair, and unknown ones stay numbers.
        assert_eq!(words(2, 1, 99), "VMPL2 ended the VM with reason 0x1:0x63");
        assert!(words(0, 0xa, 0x4a).contains("no single RAM entry"));
        assert!(!words(0, 1, 7).contains("no SVSM"));
    }

    #[test]
    fn a_kernel_that_knows_no_snp_is_told_from_a_wrong_access() {
        let report = "what=nested-tables-differ gpa=0x9e013 vmpl=2 rip=0x9e013";
        assert!(stopped(report, false).starts_with("the kernel lacks support for SEV-SNP"));
        assert!(stopped(report, true).starts_with("the machine stopped: what="));
        let paravisor = "what=vmpl-permission gpa=0x500000 vmpl=0";
        assert!(stopped(paravisor, false).starts_with("the machine stopped: what="));
    }

    #[test]
    fn panics_name_their_cause() {
        let root = "Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)";
        assert!(panicked(root, None).starts_with("the initrd is corrupt or has no"));
        let complaint = Some("Initramfs unpacking failed: junk");
        assert!(panicked(root, complaint).contains("junk; Kernel panic"));
        let memory = "Kernel panic - not syncing: System is deadlocked on memory";
        assert!(panicked(memory, None).contains("MEM="));
        let other = "Kernel panic - not syncing: sysrq triggered crash";
        assert_eq!(
            panicked(other, None),
            format!("the guest's kernel panicked: {other}")
        );
    }
}
