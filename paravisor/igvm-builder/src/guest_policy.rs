// SPDX-License-Identifier: MIT OR Apache-2.0
//! The guest policy (SEV-SNP firmware ABI 1.58, 4.3, table 9): on which hosts the secure processor may launch the VM.
//!
//! The policy is no part of the launch digest. An attestation report shows the one that the VM was launched with, and a verifier
//! has to compare it.

use std::fmt;

use bitfield_struct::bitfield;
use clap::Args;

use crate::Error;
use crate::options::Switch;

/// POLICY of SNP_LAUNCH_START and of an attestation report.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct GuestPolicy {
    /// Least minor version of the firmware's ABI.
    pub abi_minor: u8,
    /// Least major version of the firmware's ABI.
    pub abi_major: u8,
    /// A host with simultaneous multi-threading may run the VM.
    pub smt: bool,
    /// Has to be one.
    pub must_be_one: bool,
    /// A migration agent may be attached.
    pub migration_agent: bool,
    /// The host may debug the VM: read and write its memory.
    pub debugging: bool,
    /// The VM may run on one socket only.
    pub single_socket: bool,
    /// The host may have CXL devices or memory.
    pub cxl: bool,
    /// Memory has to be encrypted by AES-256-XTS.
    pub aes_256_xts: bool,
    /// RAPL, which measures power, has to be disabled.
    pub rapl_disabled: bool,
    /// The host has to hide the ciphertext of memory.
    pub ciphertext_hiding: bool,
    /// SNP_PAGE_MOVE, SNP_SWAP_OUT and SNP_SWAP_IN are refused for the VM.
    pub page_swap_disabled: bool,
    #[bits(38)]
    pub reserved: u64,
}

impl GuestPolicy {
    /// Every flag, with its name for people.
    #[must_use]
    pub const fn flags(self) -> [(&'static str, bool); 10] {
        [
            ("SMT allowed", self.smt()),
            ("the bit that has to be one", self.must_be_one()),
            ("migration agent allowed", self.migration_agent()),
            ("debugging allowed", self.debugging()),
            ("single socket required", self.single_socket()),
            ("CXL allowed", self.cxl()),
            ("AES-256-XTS required", self.aes_256_xts()),
            ("RAPL disabled", self.rapl_disabled()),
            ("ciphertext hiding required", self.ciphertext_hiding()),
            ("page swap disabled", self.page_swap_disabled()),
        ]
    }
}

/// A version of the firmware's ABI.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct AbiVersion {
    /// Major number.
    pub major: u8,
    /// Minor number.
    pub minor: u8,
}

impl fmt::Display for AbiVersion {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}", self.major, self.minor)
    }
}

/// Parses `MAJOR.MINOR`.
fn parse_abi(text: &str) -> Result<AbiVersion, Error> {
    let wrong = || Error::Abi(text.to_owned());
    let (major, minor) = text.split_once('.').ok_or_else(wrong)?;
    Ok(AbiVersion {
        major: major.parse().map_err(|_| wrong())?,
        minor: minor.parse().map_err(|_| wrong())?,
    })
}

/// On which hosts the image may be launched. Migration agents and CXL are never allowed.
#[derive(Debug, Clone, Copy, Args)]
pub struct PolicyOptions {
    /// May the host have SMT on?
    #[arg(long, value_enum, value_name = "ON|OFF", default_value = "on")]
    pub smt: Switch,
    /// Least version of the firmware's ABI
    #[arg(long, value_name = "MAJOR.MINOR", default_value = "0.0", value_parser = parse_abi)]
    pub least_abi: AbiVersion,
    /// Does the host have to hide the ciphertext of memory?
    #[arg(long, value_enum, value_name = "ON|OFF", default_value = "off")]
    pub ciphertext_hiding: Switch,
    /// May the host move pages and swap them out? (`off` needs ABI 1.58)
    #[arg(long, value_enum, value_name = "ON|OFF", default_value = "on")]
    pub page_swap: Switch,
    /// May the host measure power by RAPL?
    #[arg(long, value_enum, value_name = "ON|OFF", default_value = "on")]
    pub rapl: Switch,
    /// Does memory have to be encrypted by AES-256-XTS?
    #[arg(long, value_enum, value_name = "ON|OFF", default_value = "off")]
    pub aes_256_xts: Switch,
    /// May the VM run on one socket only?
    #[arg(long, value_enum, value_name = "ON|OFF", default_value = "off")]
    pub single_socket: Switch,
    /// May the host read and write the VM's memory to debug it? Such a VM keeps no secret
    #[arg(long, value_enum, value_name = "ON|OFF", default_value = "off")]
    pub debugging: Switch,
}

impl PolicyOptions {
    /// Those of an image for which nothing was asked.
    pub const USUAL: Self = Self {
        smt: Switch::On,
        least_abi: AbiVersion { major: 0, minor: 0 },
        ciphertext_hiding: Switch::Off,
        page_swap: Switch::On,
        rapl: Switch::On,
        aes_256_xts: Switch::Off,
        single_socket: Switch::Off,
        debugging: Switch::Off,
    };

    /// The policy.
    #[must_use]
    pub const fn policy(&self) -> GuestPolicy {
        GuestPolicy::new()
            .with_abi_major(self.least_abi.major)
            .with_abi_minor(self.least_abi.minor)
            .with_must_be_one(true)
            .with_smt(self.smt.is_on())
            .with_ciphertext_hiding(self.ciphertext_hiding.is_on())
            .with_page_swap_disabled(!self.page_swap.is_on())
            .with_rapl_disabled(!self.rapl.is_on())
            .with_aes_256_xts(self.aes_256_xts.is_on())
            .with_single_socket(self.single_socket.is_on())
            .with_debugging(self.debugging.is_on())
    }
}

#[cfg(test)]
mod tests {
    use super::{AbiVersion, GuestPolicy, PolicyOptions, Switch, parse_abi};

    /// Each option and the policy that it alone makes of the usual one.
    #[test]
    fn each_option_sets_its_bit() {
        let with = |change: fn(&mut PolicyOptions)| {
            let mut options = PolicyOptions::USUAL;
            change(&mut options);
            options.policy().into_bits()
        };
        assert_eq!(with(|_| ()), 0x3_0000);
        assert_eq!(with(|all| all.smt = Switch::Off), 0x2_0000);
        assert_eq!(with(|all| all.debugging = Switch::On), 0xb_0000);
        assert_eq!(with(|all| all.single_socket = Switch::On), 0x13_0000);
        assert_eq!(with(|all| all.aes_256_xts = Switch::On), 0x43_0000);
        assert_eq!(with(|all| all.rapl = Switch::Off), 0x83_0000);
        assert_eq!(with(|all| all.ciphertext_hiding = Switch::On), 0x103_0000);
        assert_eq!(with(|all| all.page_swap = Switch::Off), 0x203_0000);
        let abi = |all: &mut PolicyOptions| {
            all.least_abi = AbiVersion {
                major: 1,
                minor: 58,
            };
        };
        assert_eq!(with(abi), 0x3_013a);
    }

    #[test]
    fn no_flag_is_left_out_of_the_names() {
        let all = GuestPolicy::from_bits(0x3ff_0000);
        assert_eq!(all.flags().iter().filter(|(_, set)| *set).count(), 10);
        assert_eq!(
            GuestPolicy::from_bits(!0x3ff_ffff)
                .flags()
                .iter()
                .filter(|(_, set)| *set)
                .count(),
            0
        );
    }

    #[test]
    fn a_version_is_two_numbers() {
        let version = parse_abi("1.58").expect("a version");
        assert_eq!((version.major, version.minor), (1, 58));
        for wrong in ["", "1", "1.", ".58", "1.58.3", "256.0", "1.x"] {
            let message = parse_abi(wrong).expect_err(wrong).to_string();
            assert!(message.contains("1.58"), "{message}");
        }
    }
}
