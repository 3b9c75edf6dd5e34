// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the image needs of its host, and which reason names the first of it that is missing.

use snp::ghcb_msr::HypervisorFeatures;

use crate::termination::Reason;

/// Checks what the host says it offers (GHCB specification, 4.1.7); with `restricted_injection` for an image that uses it.
///
/// # Errors
/// The feature that is missing: [`Reason::NoSnp`], [`Reason::NoApCreation`], [`Reason::NoMultiVmpl`] or
/// [`Reason::NoRestrictedInjection`].
pub const fn check(features: HypervisorFeatures, restricted_injection: bool) -> Result<(), Reason> {
    if !features.snp() {
        return Err(Reason::NoSnp);
    }
    if !features.ap_creation() {
        return Err(Reason::NoApCreation);
    }
    if !features.multi_vmpl() {
        return Err(Reason::NoMultiVmpl);
    }
    if restricted_injection && !features.restricted_injection() {
        return Err(Reason::NoRestrictedInjection);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{HypervisorFeatures, Reason, check};

    #[test]
    fn what_is_missing_is_named_with_its_remedy() {
        let all = HypervisorFeatures::new()
            .with_snp(true)
            .with_ap_creation(true)
            .with_multi_vmpl(true)
            .with_restricted_injection(true);
        assert_eq!(check(all, true), Ok(()));
        for (without, reason, words) in [
            (all.with_snp(false), Reason::NoSnp, "kvm_amd.sev_snp=1"),
            (
                all.with_ap_creation(false),
                Reason::NoApCreation,
                "Linux 6.11",
            ),
            (
                all.with_multi_vmpl(false),
                Reason::NoMultiVmpl,
                "KVM and QEMU that run VMPLs",
            ),
            (
                all.with_restricted_injection(false),
                Reason::NoRestrictedInjection,
                "RESTRICTED_INJECTION=off",
            ),
        ] {
            assert_eq!(check(without, true), Err(reason));
            assert!(reason.text().contains(words), "{}", reason.text());
        }
        let without = all.with_restricted_injection(false);
        assert_eq!(check(without, false), Ok(()), "the image does without");
    }
}
