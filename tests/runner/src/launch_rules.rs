// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a host refuses to launch before the first instruction: a policy that it cannot keep, features that it does not have.
//!
//! Of the guest policy's demands (SEV-SNP firmware ABI 1.58, table 9) the emulated machine keeps all that need nothing from it: it
//! has one socket, no sibling threads, no RAPL and no CXL, its host reads no private memory and neither moves nor swaps pages, and
//! there is no secure processor that would debug, migrate or encrypt.

use igvm::{IgvmDirectiveHeader, IgvmInitializationHeader};
use igvm_builder::{AbiVersion, GuestPolicy};
use snp_host::served_features;

use crate::Failure;

/// The ABI of the firmware whose rules the machine has.
const ABI: AbiVersion = AbiVersion {
    major: 1,
    minor: 58,
};

/// Refuses an image that no host like the emulated one would launch.
///
/// # Errors
/// Bad input that names the policy's demand or the feature.
pub fn check(
    initializations: &[IgvmInitializationHeader],
    directives: &[IgvmDirectiveHeader],
) -> Result<(), Failure> {
    for one in initializations {
        if let IgvmInitializationHeader::GuestPolicy { policy, .. } = one {
            check_policy(GuestPolicy::from_bits(*policy)).map_err(refuse)?;
        }
    }
    for one in directives {
        if let IgvmDirectiveHeader::SnpVpContext { vmsa, .. } = one
            && let Some(feature) = served_features::missing(vmsa.sev_features.into_bits())
        {
            return Err(refuse(format!(
                "asks for the SEV feature {feature}, which the emulated machine does not have"
            )));
        }
    }
    Ok(())
}

fn refuse(what: String) -> Failure {
    Failure::bad_input(format!("the IGVM file {what}; build it without"))
}

fn check_policy(policy: GuestPolicy) -> Result<(), String> {
    let least = AbiVersion {
        major: policy.abi_major(),
        minor: policy.abi_minor(),
    };
    if !policy.must_be_one() || policy.reserved() != 0 {
        let bits = policy.into_bits();
        return Err(format!(
            "has a guest policy with a wrong reserved bit ({bits:#x})"
        ));
    }
    if least > ABI {
        return Err(format!(
            "wants ABI {least} of the firmware, and the emulated machine follows {ABI}"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{GuestPolicy, check_policy};

    #[test]
    fn a_policy_is_kept_or_refused_by_name() {
        let judged = |bits| check_policy(GuestPolicy::from_bits(bits));
        for kept in [0x3_0000, 0x2_0000, 0x3ff_0000, 0x302_013a] {
            assert_eq!(judged(kept), Ok(()), "{kept:#x}");
        }
        for (bits, part) in [
            (0x1_0000, "reserved bit"),
            (1 << 26 | 0x3_0000, "reserved bit"),
            (0x3_013b, "wants ABI 1.59"),
            (0x3_0200, "wants ABI 2.0"),
        ] {
            let message = judged(bits).expect_err(part);
            assert!(message.contains(part), "{message}");
        }
    }
}
