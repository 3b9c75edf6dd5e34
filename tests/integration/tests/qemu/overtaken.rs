// SPDX-License-Identifier: MIT OR Apache-2.0
//! The project's own guest starts anew while its other vCPUs are inside GROW, RELEASE and CONVERT, and go on with them.

use crate::bench::Bench;

#[test]
fn p_14_1_p_5_2_2_a_kernel_starts_while_other_vcpus_of_the_one_before_it_are_inside_calls() {
    for vcpus in [2, 4] {
        let bench = Bench::small("overtaken", &[]);
        // The service's calls are counted by number: ATTACH is 2, CONVERT 9.
        let vcpus_option = format!("{vcpus}");
        let options = [
            "--vcpus",
            &vcpus_option,
            "--memory",
            "192MiB",
            "--expect",
            "success",
        ];
        for outcome in bench.small_run_on_each_rmp(&options) {
            assert_eq!(outcome.code, 0, "{}", outcome.text);
            // Each other vCPU, and the orphans.
            assert_eq!(outcome.self_tests(), vcpus, "{}", outcome.text);
            // The first kernel moves its calling area, and not back.
            assert_eq!(outcome.counter("svsm.msr.core.remap-ca"), 1);
            assert_eq!(outcome.counter("svsm.msr.pool.2"), 2);
            let converted = outcome.counter("svsm.msr.pool.9");
            assert!(converted >= 4 * (vcpus as u64 - 1), "{converted}");
        }
    }
}
