// SPDX-License-Identifier: MIT OR Apache-2.0
//! Model-specific registers of SEV guests and the feature bits they report.

use bitfield_struct::bitfield;

/// GHCB: a guest physical address or a request of the MSR protocol (GHCB specification, 2.3).
pub const GHCB: u32 = 0xC001_0130;
/// SEV_STATUS: which features are active; cannot be intercepted (APM volume 2, 15.34.10).
pub const SEV_STATUS: u32 = 0xC001_0131;
/// SVSM_CAA: a register of software only; a guest's #VC handler answers reads with the calling area.
pub const SVSM_CAA: u32 = 0xC001_F000;

/// SEV_FEATURES of a VMSA (APM volume 2, table B-4, offset 0x3B0).
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct SevFeatures {
    /// SEV-SNP is active.
    pub snp_active: bool,
    /// Memory above vTOM is shared.
    pub vtom: bool,
    /// #VC is delivered to VMPL0.
    pub reflect_vc: bool,
    /// Only #HV may be injected.
    pub restricted_injection: bool,
    /// The more privileged VMPL injects.
    pub alternate_injection: bool,
    /// Debug registers are swapped by hardware.
    pub debug_swap: bool,
    /// Host instruction-based sampling is off.
    pub prevent_host_ibs: bool,
    /// Branch predictions are isolated.
    pub btb_isolation: bool,
    /// Supervisor shadow stacks per VMPL.
    pub vmpl_sss: bool,
    /// The guest has its own time-stamp counter scale.
    pub secure_tsc: bool,
    /// VMGEXIT takes a parameter.
    pub vmgexit_parameter: bool,
    /// Performance counters are virtualised.
    pub pmc_virtualization: bool,
    /// Instruction-based sampling is virtualised.
    pub ibs_virtualization: bool,
    /// The guest controls which instructions are intercepted.
    pub guest_intercept_control: bool,
    /// Registers in the VMSA are masked with a nonce.
    pub vmsa_register_protection: bool,
    /// The sibling thread idles while the guest runs.
    pub smt_protection: bool,
    /// Secure AVIC.
    pub secure_avic: bool,
    #[bits(4)]
    __: u8,
    /// Indirect branch prediction barrier on entry.
    pub ibpb_on_entry: bool,
    #[bits(41)]
    __: u64,
    /// The host restricted the allowed features.
    pub allowed_features_valid: bool,
}

/// The SEV_STATUS register: three mode bits below the features of the running VMSA.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct SevStatus {
    /// SEV is active.
    pub sev: bool,
    /// SEV-ES is active.
    pub sev_es: bool,
    /// [`SevFeatures`], bit 0 of it (SNP) being bit 2 here; its bits 63:62 have no place.
    #[bits(62)]
    pub features: u64,
}

impl SevStatus {
    /// What a vCPU reads whose VMSA has `features`.
    pub const fn of_features(features: SevFeatures) -> Self {
        Self::from_bits((features.into_bits() << 2) | 3)
    }

    /// The features of the running VMSA.
    pub const fn sev_features(&self) -> SevFeatures {
        SevFeatures::from_bits(self.features())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_is_the_features_above_two_mode_bits() {
        let features = SevFeatures::new()
            .with_snp_active(true)
            .with_restricted_injection(true)
            .with_debug_swap(true);
        assert_eq!(features.into_bits(), 0x29);
        let status = SevStatus::of_features(features);
        assert_eq!(status.into_bits(), 0xA7);
        assert!(status.sev() && status.sev_es());
        assert_eq!(status.sev_features(), features);
    }

    #[test]
    fn golden_feature_bits() {
        let bit = |features: SevFeatures| features.into_bits().trailing_zeros();
        let features = SevFeatures::new;
        assert_eq!(bit(features().with_vtom(true)), 1);
        assert_eq!(bit(features().with_alternate_injection(true)), 4);
        assert_eq!(bit(features().with_secure_tsc(true)), 9);
        assert_eq!(bit(features().with_smt_protection(true)), 15);
        assert_eq!(bit(features().with_secure_avic(true)), 16);
        assert_eq!(bit(features().with_ibpb_on_entry(true)), 21);
        assert_eq!(bit(features().with_allowed_features_valid(true)), 63);
    }
}
