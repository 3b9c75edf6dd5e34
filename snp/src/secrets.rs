// SPDX-License-Identifier: MIT OR Apache-2.0
//! The secrets page (SNP firmware ABI, "secrets page"; SVSM specification, section 2).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::address::Vmpl;

/// Layout version that has the SVSM fields.
pub const VERSION: u32 = 3;

/// Bytes of a key.
pub const KEY_BYTES: usize = 32;
/// Offset of the key of VMPL0, which those of the others follow.
pub const KEYS_OFFSET: usize = core::mem::offset_of!(SecretsPage, vmpck);

/// The page.
#[derive(Clone, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SecretsPage {
    /// [`VERSION`].
    pub version: u32,
    /// Bit 0: an initial migration image is enabled.
    pub flags: u32,
    /// Family, model, stepping.
    pub family_model_stepping: u32,
    reserved_00c: u32,
    /// Guest operating-system visible workarounds.
    pub gosvw: [u8; 16],
    /// VM platform communication keys, one for each VMPL.
    pub vmpck: [[u8; KEY_BYTES]; 4],
    /// Area of the guest operating system.
    pub guest_area: [u8; 96],
    /// VMSA tweak bitmap.
    pub vmsa_tweak_bitmap: [u8; 64],
    /// Start of the SVSM's memory.
    pub svsm_base: u64,
    /// Its bytes; not 0 exactly when there is an SVSM.
    pub svsm_size: u64,
    /// The boot vCPU's calling area.
    pub svsm_calling_area: u64,
    /// Highest version of the core protocol.
    pub svsm_max_version: u32,
    /// The VMPL the guest runs at.
    pub svsm_guest_vmpl: u8,
    reserved_15d: [u8; 3],
    /// TSC factor.
    pub tsc_factor: u32,
    reserved_164: [u8; 0xE9C],
}

impl SecretsPage {
    /// Clears the keys of all levels more privileged than `vmpl`, which its owner must not learn.
    pub fn clear_keys_below(&mut self, vmpl: Vmpl) {
        for key in self.vmpck.iter_mut().take(vmpl.index()) {
            *key = [0; KEY_BYTES];
        }
    }
}

impl core::fmt::Debug for SecretsPage {
    /// Leaves the keys out: a log goes to the host.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("SecretsPage")
            .field("version", &self.version)
            .field("svsm_base", &self.svsm_base)
            .field("svsm_size", &self.svsm_size)
            .field("svsm_calling_area", &self.svsm_calling_area)
            .field("svsm_guest_vmpl", &self.svsm_guest_vmpl)
            .finish_non_exhaustive()
    }
}

const _: () = {
    use core::mem::offset_of;
    assert!(size_of::<SecretsPage>() == 4096);
    assert!(KEYS_OFFSET == 0x20);
    assert!(offset_of!(SecretsPage, guest_area) == 0xA0);
    assert!(offset_of!(SecretsPage, vmsa_tweak_bitmap) == 0x100);
    assert!(offset_of!(SecretsPage, svsm_base) == 0x140);
    assert!(offset_of!(SecretsPage, svsm_calling_area) == 0x150);
    assert!(offset_of!(SecretsPage, svsm_guest_vmpl) == 0x15C);
    assert!(offset_of!(SecretsPage, tsc_factor) == 0x160);
};

#[cfg(test)]
mod tests {
    use zerocopy::FromZeros;

    use super::*;

    #[test]
    fn lower_keys_are_cleared_and_the_guests_own_stays() {
        let mut page = SecretsPage::new_zeroed();
        page.vmpck = [[1; 32], [2; 32], [3; 32], [4; 32]];
        page.clear_keys_below(Vmpl::Vmpl2);
        assert_eq!(page.vmpck, [[0; 32], [0; 32], [3; 32], [4; 32]]);
    }

    #[test]
    fn a_log_shows_no_key() {
        let mut page = SecretsPage::new_zeroed();
        page.vmpck[2] = [0xAB; 32];
        assert!(!std::format!("{page:?}").contains("171"));
    }
}
