// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which SEV features VMPL0 runs with: the options, and SEV_FEATURES as the start VMSA and the boot block have it.

use clap::Args;
use snp::msr::SevFeatures;

use crate::Error;
use crate::options::Switch;

/// Features of the processor that protect the VM from its host (APM volume 2, table B-4 and 15.36.17). The paravisor starts only
/// where SEV_STATUS shows exactly these.
#[derive(Debug, Clone, Copy, Args)]
pub struct FeatureOptions {
    /// Refuse injected exceptions at VMPL0; `off` for hosts that lack restricted injection
    #[arg(long, value_enum, value_name = "ON|OFF", default_value = "on")]
    pub restricted_injection: Switch,
    /// Keep the host's branch predictions from the VM
    #[arg(long, value_enum, value_name = "ON|OFF", default_value = "off")]
    pub btb_isolation: Switch,
    /// Keep the host from sampling the VM's instructions (IBS)
    #[arg(long, value_enum, value_name = "ON|OFF", default_value = "off")]
    pub prevent_host_ibs: Switch,
    /// Run only while the sibling thread of the core is idle
    #[arg(long, value_enum, value_name = "ON|OFF", default_value = "off")]
    pub smt_protection: Switch,
    /// Flush indirect branch predictions at each entry; the guest's kernel has to know the bit (docs/ATTESTATION.md)
    #[arg(long, value_enum, value_name = "ON|OFF", default_value = "off")]
    pub ibpb_on_entry: Switch,
    /// Refused when `on`: neither paravisor nor guest would get the scale of its time stamps
    #[arg(long, value_enum, value_name = "ON|OFF", default_value = "off")]
    pub secure_tsc: Switch,
}

impl FeatureOptions {
    /// Those of an image for which nothing was asked.
    pub const USUAL: Self = Self {
        restricted_injection: Switch::On,
        btb_isolation: Switch::Off,
        prevent_host_ibs: Switch::Off,
        smt_protection: Switch::Off,
        ibpb_on_entry: Switch::Off,
        secure_tsc: Switch::Off,
    };

    /// Refuses what no image can have.
    ///
    /// # Errors
    /// [`Error::SecureTsc`].
    pub fn check(&self) -> Result<(), Error> {
        match self.secure_tsc {
            Switch::On => Err(Error::SecureTsc),
            Switch::Off => Ok(()),
        }
    }

    /// SEV_FEATURES of VMPL0: SNP, no host access to debug registers, and what was asked for. With restricted injection the host may
    /// inject nothing but #HV, so it cannot forge an exception.
    #[must_use]
    pub const fn sev_features(&self) -> SevFeatures {
        SevFeatures::new()
            .with_snp_active(true)
            .with_debug_swap(true)
            .with_restricted_injection(self.restricted_injection.is_on())
            .with_btb_isolation(self.btb_isolation.is_on())
            .with_prevent_host_ibs(self.prevent_host_ibs.is_on())
            .with_smt_protection(self.smt_protection.is_on())
            .with_ibpb_on_entry(self.ibpb_on_entry.is_on())
    }
}
