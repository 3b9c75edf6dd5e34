// SPDX-License-Identifier: MIT OR Apache-2.0
//! Hosts that launch what they should not: a second launch VMSA that runs, CPUID entries and parameters beyond the image's.
//! And what does not change with the host: how VMPL 0 maps its memory, and where its keys are.

use paravisor::termination::Reason;

use crate::bench::{Bench, Outcome};
use crate::hostile::assert_reason;

/// A machine with N vCPUs is launched with N VMSAs, all alike, of which the image needs one. The digest covers them all.
mod surplus_vmsa {
    use super::*;

    /// The host runs another one at each of these moments, on a machine with 2 vCPUs and one with 4.
    fn each_ends_the_vm(moments: &[&str]) -> Vec<Outcome> {
        let bench = Bench::small("selftest", &[]);
        let run = |vcpus, moment: &&str| {
            let outcome = bench.small_run(&["--vcpus", vcpus, "--surplus-launch", moment]);
            assert_eq!(outcome.counter("attack.struck"), 1, "{}", outcome.text);
            assert_reason(&outcome, Reason::EnteredAgain);
            outcome
        };
        let machines = ["2", "4"].into_iter();
        machines
            .flat_map(|vcpus| moments.iter().map(move |moment| run(vcpus, moment)))
            .collect()
    }

    fn guest_ran(outcome: &Outcome) {
        assert_ne!(outcome.counter("vmpl-switch"), 0, "{}", outcome.text);
    }

    /// The first one is before paging is on; page tables are the entry code's until a few requests later. The last one finds
    /// VMPL 0 at accepting RAM.
    #[test]
    fn one_that_runs_while_vmpl_0_boots() {
        each_ends_the_vm(&["1", "2", "10", "1000"]);
    }

    /// Behind the 2500 exits of a boot: the last processor waits in VMPL 0's run loop, or runs the guest.
    #[test]
    fn one_that_runs_beside_the_run_loop() {
        let outcomes = each_ends_the_vm(&["4000", "8000"]);
        outcomes.iter().for_each(guest_ran);
    }

    /// At the beginning of a call, behind each exit inside it, and behind its end.
    #[test]
    fn one_that_runs_during_a_call() {
        let outcomes = each_ends_the_vm(&["call:1", "call:2", "call:3", "call:50"]);
        outcomes.iter().for_each(guest_ran);
    }
}

/// The CPUID page has an entry of the encryption leaf's number before it, whose C-bit is none.
mod cpuid_decoys {
    use super::*;

    #[test]
    fn an_entry_is_told_by_its_whole_key() {
        let bench = Bench::small("selftest", &[]);
        for decoy in ["subleaf", "xcr0", "xss"] {
            let outcome = bench.small_run(&["--cpuid-decoy", decoy]);
            assert_eq!(outcome.code, 0, "{decoy}: {}", outcome.text);
        }
    }
}

/// Bytes behind the parameters, in a page of which the VMM writes the beginning.
mod parameter_tails {
    use super::*;

    #[test]
    fn an_entry_behind_the_end_of_the_map() {
        let bench = Bench::small("selftest", &[]);
        let outcome = bench.small_run(&["--memory-map", "0+0x6000,0+0,0x7000+1"]);
        assert_reason(&outcome, Reason::ParameterTail);
    }
}

/// What the host, being the processor's emulation, sees of VMPL 0's page tables: in the entry code and before the guest runs.
mod own_memory {
    use super::*;

    const CHECK: &str =
        "VMPL0's page tables are W^X, its stacks have guard pages, and its keys are gone";

    fn is_checked(outcome: &Outcome) {
        assert_eq!(outcome.code, 0, "{}", outcome.text);
        let checks = outcome.report["checks"].as_array().expect("checks");
        let check = checks.iter().find(|check| check["name"] == CHECK);
        assert_eq!(check.expect(CHECK)["ok"], true, "{}", outcome.text);
    }

    #[test]
    fn page_tables_are_w_xor_x_and_keys_are_gone() {
        let bench = Bench::small("selftest", &[]);
        bench.small_run_on_each_rmp(&[]).iter().for_each(is_checked);
        is_checked(&bench.small_run(&["--vcpus", "2"]));
        let firmware = Bench::small("selftest", &["--ram", "firmware"]);
        is_checked(&firmware.small_run(&[]));
    }
}
