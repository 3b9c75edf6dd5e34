// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which SEV features this machine has. KVM refuses a VMSA with others (KVM_SEV_INIT2, AP_CREATION).
//!
//! Restricted injection is served. A virtual machine sees nothing of the others but their bits in SEV_STATUS: nobody debugs it,
//! samples it, shares a core with it or trains a predictor for it here.

use snp::msr::SevFeatures;

/// The features, by SNP itself first.
const SERVED: SevFeatures = SevFeatures::new()
    .with_snp_active(true)
    .with_restricted_injection(true)
    .with_debug_swap(true)
    .with_prevent_host_ibs(true)
    .with_btb_isolation(true)
    .with_smt_protection(true)
    .with_ibpb_on_entry(true);

/// Name of a feature among `features` that the machine does not have; `None` when it has them all.
#[must_use]
pub const fn missing(features: u64) -> Option<&'static str> {
    let missing = SevFeatures::from_bits(features & !SERVED.into_bits());
    match missing {
        _ if missing.into_bits() == 0 => None,
        _ if missing.vtom() => Some("vtom"),
        _ if missing.reflect_vc() => Some("reflect-vc"),
        _ if missing.alternate_injection() => Some("alternate-injection"),
        _ if missing.vmpl_sss() => Some("vmpl-sss"),
        // The time-stamp counter would have to run at a rate that the host cannot change, by scale and offset of the VMSA.
        _ if missing.secure_tsc() => Some("secure-tsc"),
        _ if missing.vmgexit_parameter() => Some("vmgexit-parameter"),
        _ if missing.pmc_virtualization() => Some("pmc-virtualization"),
        _ if missing.ibs_virtualization() => Some("ibs-virtualization"),
        _ if missing.guest_intercept_control() => Some("guest-intercept-control"),
        _ if missing.vmsa_register_protection() => Some("vmsa-register-protection"),
        _ if missing.secure_avic() => Some("secure-avic"),
        _ if missing.allowed_features_valid() => Some("allowed-features"),
        _ => Some("unknown"),
    }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;

    #[test]
    fn what_the_machine_lacks_is_named() {
        for served in [0, 1, 0x29, 0x29 | 1 << 6 | 1 << 7 | 1 << 15 | 1 << 21] {
            assert_eq!(missing(served), None, "{served:#x}");
        }
        assert_eq!(missing(0x29 | 1 << 9), Some("secure-tsc"));
        assert_eq!(missing(1 << 4), Some("alternate-injection"));
        assert_eq!(missing(1 << 17), Some("unknown"));
        // No two features have one name.
        let names: Vec<_> = (0..64)
            .filter_map(|bit| missing(1 << bit))
            .filter(|name| *name != "unknown")
            .collect();
        let mut once = names.clone();
        once.sort_unstable();
        once.dedup();
        assert_eq!((once.len(), names.len()), (12, 12));
    }
}
