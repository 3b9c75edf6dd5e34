// SPDX-License-Identifier: MIT OR Apache-2.0
//! The guest's copies of the CPUID page and the secrets page.
//!
//! The originals stay at VMPL0: the secrets page holds the keys of all levels.

use snp::address::Vmpl;
use snp::cpuid::{CpuidPage, MAX_ENTRIES};
use snp::secrets::{SecretsPage, VERSION};
use snp::svsm::core_protocol;

use crate::layout::{GUEST_VMPL, IMAGE_BASE, IMAGE_END};
use crate::termination::Reason;

/// Turns a copy of the secrets page into the guest's: keys of levels below its own cleared, the SVSM
/// fields set, among them the boot vCPU's `calling_area` (SVSM specification, section 2).
///
/// # Errors
/// [`Reason::SecretsPage`] for a layout older than the SVSM fields.
pub fn prepare_secrets(page: &mut SecretsPage, calling_area: u64) -> Result<(), Reason> {
    if page.version < VERSION {
        return Err(Reason::SecretsPage);
    }
    page.clear_keys_below(Vmpl::Vmpl2);
    page.svsm_base = IMAGE_BASE;
    page.svsm_size = IMAGE_END - IMAGE_BASE;
    page.svsm_calling_area = calling_area;
    page.svsm_max_version = core_protocol::VERSION;
    page.svsm_guest_vmpl = GUEST_VMPL;
    Ok(())
}

/// Turns a copy of the CPUID page into the guest's: it says that there is an SVSM.
///
/// # Errors
/// [`Reason::CpuidPage`] when the count is too large or the leaf for it is missing.
pub fn prepare_cpuid(page: &mut CpuidPage) -> Result<(), Reason> {
    let fits = usize::try_from(page.count).is_ok_and(|count| count <= MAX_ENTRIES);
    if fits && page.set_svsm_present() {
        Ok(())
    } else {
        Err(Reason::CpuidPage)
    }
}

#[cfg(test)]
mod tests {
    use super::{CpuidPage, Reason, SecretsPage, prepare_cpuid, prepare_secrets};
    use snp::cpuid::{CpuidEntry, LEAF_ENCRYPTION, SVSM_PRESENT};
    use zerocopy::{FromZeros, IntoBytes};

    #[test]
    fn the_guest_gets_its_own_key_and_the_svsm_fields() {
        let mut page = SecretsPage::new_zeroed();
        page.version = 3;
        page.vmpck = [[1; 32], [2; 32], [3; 32], [4; 32]];
        prepare_secrets(&mut page, 0x80_3000).unwrap();
        assert_eq!(page.vmpck, [[0; 32], [0; 32], [3; 32], [4; 32]]);
        let bytes = page.as_bytes();
        assert_eq!(bytes[0x140..0x148], 0x40_0000_u64.to_le_bytes());
        assert_eq!(bytes[0x148..0x150], 0x40_0000_u64.to_le_bytes());
        assert_eq!(bytes[0x150..0x158], 0x80_3000_u64.to_le_bytes());
        assert_eq!(bytes[0x158..0x160], [1, 0, 0, 0, 2, 0, 0, 0]);
        page.version = 2;
        let old = prepare_secrets(&mut page, 0x80_3000);
        assert_eq!(old, Err(Reason::SecretsPage));
    }

    #[test]
    fn the_cpuid_copy_shows_the_svsm() {
        let mut page = CpuidPage::new_zeroed();
        assert_eq!(prepare_cpuid(&mut page), Err(Reason::CpuidPage));
        page.count = 1;
        page.entries[0] = CpuidEntry {
            eax_in: LEAF_ENCRYPTION,
            eax: 2,
            ..CpuidEntry::default()
        };
        prepare_cpuid(&mut page).unwrap();
        assert_eq!(page.entries[0].eax, SVSM_PRESENT | 2);
        page.count = 65;
        assert_eq!(prepare_cpuid(&mut page), Err(Reason::CpuidPage));
    }
}
