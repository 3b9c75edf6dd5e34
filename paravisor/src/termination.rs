// SPDX-License-Identifier: MIT OR Apache-2.0
//! Why the paravisor ended the VM: the reason codes of its termination requests.
//!
//! A termination request carries a reason set and a reason code (GHCB specification, 2.3.1 and
//! 4.1.12). Sets 0 and 1 belong to the specification and to Linux.

/// Reason set of the paravisor.
pub const REASON_SET: u8 = 0xa;
/// Reason set of the test guest: code 0 is success, others are its own failures.
pub const GUEST_REASON_SET: u8 = 0xb;
/// Codes below this one are the vector of an exception that nothing fixes up.
pub const FIRST_NAMED_CODE: u8 = 0x20;

/// Writes the enumeration, its texts and the list of all reasons from one table.
macro_rules! reasons {
    ($($code:literal $name:ident $text:literal,)*) => {
        /// A reason to end the VM, other than an unexpected exception.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Reason {
            $(#[doc = $text] $name = $code,)*
        }

        impl Reason {
            /// Every reason, by code.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// One line that says what happened.
            #[must_use]
            pub const fn text(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// Name of the reason as written in the source.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)* }
            }
        }
    };
}

reasons! {
    // The machine. The first two and 0x28 are raised by the 32-bit entry code, which names them by number.
    0x20 NoCpuidLeaf "the CPUID page has no leaf 0x8000001f, so the C-bit position is unknown",
    0x21 CbitPosition "the C-bit position in the CPUID page is not between 32 and 51",
    0x22 SevStatus "SEV_STATUS differs from the measured expectation",
    0x23 GhcbProtocol "the host does not speak GHCB protocol version 2",
    0x24 CbitMismatch "host and CPUID page disagree on the C-bit position",
    0x25 HypervisorFeatures "the host does not say which features it has",
    0x26 GhcbShare "the GHCB page could not be made shared",
    0x27 GhcbRegister "the host did not register the GHCB where it was asked to",
    0x28 EnteredAgain "another processor entered the image at its start: the host ran a surplus launch VMSA",
    0x29 DoorbellRegister "the host did not accept the #HV doorbell page",
    0x2a NoSnp "the host offers no SEV-SNP (feature bit 0): enable it in the BIOS, and boot the host with kvm_amd.sev_snp=1",
    0x2b NoApCreation "the host offers no AP creation (feature bit 1): it needs Linux 6.11 or later",
    0x2c NoMultiVmpl "the host offers no VMPLs but one (feature bit 5): it needs a KVM and QEMU that run VMPLs",
    0x2d NoRestrictedInjection "the host offers no restricted injection (feature bit 2): build the image again with RESTRICTED_INJECTION=off",

    // Inputs: boot block, IGVM parameters, secrets and CPUID pages.
    0x30 BootBlockVersion "the boot block has a wrong magic or version",
    0x31 BootBlockField "a field of the boot block has an unknown value",
    0x32 LaunchRanges "the launch ranges are misaligned, unsorted, overlapping or too many",
    0x33 CpuidPage "the CPUID page has more entries than fit",
    0x34 SecretsPage "the secrets page has an unknown version",
    0x35 VpCount "the number of vCPUs is 0 or more than supported",
    0x36 EnvironmentInfo "an unknown bit of the IGVM environment information is set",
    0x37 PayloadEntry "the payload's entry point is in no launched payload page",
    0x38 PayloadNoRoom "too little memory: what the payload needs to start is not all usable RAM",
    0x39 LinuxPages "the boot parameters and tables of a Linux payload are no launched payload pages",
    0x3a MadtForm "the VMM's table of processors (MADT) has a wrong signature, length, checksum or entry",
    0x3b MadtProcessors "the VMM's table of processors (MADT) does not list every vCPU once",

    0x3c ParameterTail "a parameter page of the VMM holds something behind its parameters",

    // The memory map and the window (invariant W1).
    0x40 MapEmpty "the memory map has no RAM",
    0x41 MapUnterminated "the memory map has more than 681 entries, or no zero entry at its end",
    0x42 MapUnsorted "the memory map is not sorted by address",
    0x43 MapOverlap "two entries of the memory map overlap",
    0x44 MapWrap "an entry of the memory map ends beyond the address space",
    0x45 MapType "an entry of the memory map has an unknown type or flag",
    0x46 MapTooLong "memory is in more pieces than page tables were carved for",
    0x47 LaunchOutsideRam "a launch page is not in RAM by the memory map",
    0x48 ImageOutsideRam "the paravisor's region or the hand-over area is not in RAM",
    0x49 WindowSize "a window is empty, no multiple of 2 MiB, smaller than its cap, or too large to be low",
    0x4a WindowNoRoom "no single RAM entry has room for the window, or none below 4 GiB for the low one",
    0x4b WindowOverLaunch "a window overlaps launch pages",
    0x4c WindowOverHole "a window overlaps a device or ROM range",
    0x4d WindowOverVmsa "a window overlaps a VMSA page",
    0x4e StorageNoRoom "no room for the service's storage below the window",
    0x4f WindowMapped "a page of a window is mapped by our page tables",

    // Page states.
    0x50 PscRefused "the host refused a page-state change at boot",
    0x51 PscMisbehaved "the host's reply to a page-state change broke the rules",
    0x52 ValidateFailed "PVALIDATE failed at boot",
    0x53 ValidateTwice "a page was valid before we validated it (remapping attack)",
    0x54 ValidateForbidden "a window, launch or unknown page was about to be validated",
    0x55 GrantFailed "RMPADJUST failed on a page of ours",
    0x56 StorageInvalid "the service's storage was refused",
    0x57 RescindFailed "a page of ours was found unvalidated when it was rescinded",

    // Running the guest.
    0x60 VmsaCreate "the host refused to create the guest's vCPU",
    0x61 RunVmpl "the host answered RUN_VMPL with an error",
    0x62 HandoverMap "the guest's memory map has more entries than its pages hold",

    // Faults.
    0x70 NotValidated "a page of ours is no longer validated (#VC 0x404)",
    0x71 UnexpectedVc "#VC with an exit code that the image never causes",
    0x72 Panic "the image panicked",
    0x73 DoorbellEvent "the #HV doorbell reports an event that is not allowed",
}

impl Reason {
    /// The code that is sent with [`REASON_SET`].
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The reason with this code.
    #[must_use]
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL
            .iter()
            .copied()
            .find(|reason| reason.code() == code)
    }
}

/// Describes a reason code of [`REASON_SET`] for a report: an exception vector below
/// [`FIRST_NAMED_CODE`], a [`Reason`] from there on.
#[must_use]
pub fn describe(code: u8) -> &'static str {
    match Reason::from_code(code) {
        Some(reason) => reason.text(),
        None if code < FIRST_NAMED_CODE => {
            "an exception that nothing fixes up; the code is its vector"
        }
        None => "unknown reason",
    }
}

#[cfg(test)]
mod tests {
    use super::{FIRST_NAMED_CODE, Reason, describe};

    #[test]
    fn codes_are_unique_named_and_leave_the_vectors_alone() {
        let mut last = FIRST_NAMED_CODE - 1;
        for reason in Reason::ALL {
            assert!(reason.code() > last, "{} is out of order", reason.name());
            last = reason.code();
            assert_eq!(Reason::from_code(last), Some(*reason));
            assert_eq!(describe(last), reason.text());
        }
    }
}
