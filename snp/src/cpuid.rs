// SPDX-License-Identifier: MIT OR Apache-2.0
//! The CPUID page: values the security processor has checked (SNP firmware ABI, "PAGE_TYPE_CPUID").

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Entries the page has room for.
pub const MAX_ENTRIES: usize = 64;
/// The leaf with the encryption features.
pub const LEAF_ENCRYPTION: u32 = 0x8000_001F;
/// EAX of [`LEAF_ENCRYPTION`]: an SVSM is present; set by software only.
pub const SVSM_PRESENT: u32 = 1 << 28;
/// EBX of [`LEAF_ENCRYPTION`]: caches need no help of software when a page is validated (COHERENCY_SFW_NO).
pub const COHERENCY_SFW_NO: u32 = 1 << 31;
/// Leaves whose sub-leaf matters when they are looked up.
const INDEXED_LEAVES: [u32; 5] = [0x4, 0x7, 0xB, 0x8000_001D, 0x8000_0026];

/// One function.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct CpuidEntry {
    /// Leaf.
    pub eax_in: u32,
    /// Sub-leaf.
    pub ecx_in: u32,
    /// XCR0 the values hold for.
    pub xcr0_in: u64,
    /// XSS the values hold for.
    pub xss_in: u64,
    /// EAX.
    pub eax: u32,
    /// EBX.
    pub ebx: u32,
    /// ECX.
    pub ecx: u32,
    /// EDX.
    pub edx: u32,
    /// Zero.
    pub reserved: u64,
}

/// The page.
#[derive(Clone, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct CpuidPage {
    /// Entries in use.
    pub count: u32,
    reserved_1: u32,
    reserved_2: u64,
    /// The entries.
    pub entries: [CpuidEntry; MAX_ENTRIES],
    reserved_3: [u8; 0x3F0],
}

impl CpuidPage {
    /// The entries in use; a count beyond the page is cut.
    pub fn used(&self) -> &[CpuidEntry] {
        let count = usize::try_from(self.count)
            .unwrap_or(MAX_ENTRIES)
            .min(MAX_ENTRIES);
        self.entries.get(..count).unwrap_or(&[])
    }

    /// The entry whose whole key is this leaf and, of an indexed leaf, this sub-leaf: elsewhere the
    /// sub-leaf is 0, and XCR0 and XSS are. Leaf 0xD, to which these matter, is never found.
    pub fn find(&self, leaf: u32, subleaf: u32) -> Option<&CpuidEntry> {
        self.used().get(self.position(leaf, subleaf)?)
    }

    fn position(&self, leaf: u32, subleaf: u32) -> Option<usize> {
        let indexed = INDEXED_LEAVES.contains(&leaf);
        let key = (leaf, if indexed { subleaf } else { 0 }, 0, 0);
        self.used()
            .iter()
            .position(|entry| (entry.eax_in, entry.ecx_in, entry.xcr0_in, entry.xss_in) == key)
    }

    /// Whether caches have to be helped when a page is validated: unless the processor says that they need not.
    pub fn needs_eviction(&self) -> bool {
        self.find(LEAF_ENCRYPTION, 0)
            .is_none_or(|entry| entry.ebx & COHERENCY_SFW_NO == 0)
    }

    /// Position of the C-bit in a page-table entry.
    pub fn c_bit_position(&self) -> Option<u32> {
        self.find(LEAF_ENCRYPTION, 0).map(|entry| entry.ebx & 0x3F)
    }

    /// Says in the copy for the guest that there is an SVSM. False when the leaf is missing.
    pub fn set_svsm_present(&mut self) -> bool {
        let position = self.position(LEAF_ENCRYPTION, 0);
        let entry = position.and_then(|position| self.entries.get_mut(position));
        entry.map(|entry| entry.eax |= SVSM_PRESENT).is_some()
    }
}

const _: () = {
    use core::mem::offset_of;
    assert!(size_of::<CpuidEntry>() == 48);
    assert!(offset_of!(CpuidEntry, eax) == 24);
    assert!(offset_of!(CpuidPage, entries) == 16);
    assert!(size_of::<CpuidPage>() == 4096);
};

#[cfg(test)]
mod tests {
    use zerocopy::FromZeros;

    use super::*;

    fn page() -> CpuidPage {
        let mut page = CpuidPage::new_zeroed();
        page.count = 3;
        page.entries[0] = CpuidEntry {
            eax_in: 7,
            ecx_in: 1,
            eax: 71,
            ..CpuidEntry::default()
        };
        page.entries[1] = CpuidEntry {
            eax_in: 1,
            eax: 11,
            ..CpuidEntry::default()
        };
        page.entries[2] = CpuidEntry {
            eax_in: LEAF_ENCRYPTION,
            ebx: 51 | (1 << 6),
            ..CpuidEntry::default()
        };
        page
    }

    #[test]
    fn leaves_are_found() {
        let page = page();
        assert_eq!(page.find(7, 1).map(|entry| entry.eax), Some(71));
        assert_eq!(page.find(7, 0), None);
        assert_eq!(page.find(1, 9).map(|entry| entry.eax), Some(11));
        assert_eq!(page.c_bit_position(), Some(51));
    }

    #[test]
    fn caches_need_help_unless_the_processor_says_that_they_do_not() {
        let mut page = page();
        assert!(page.needs_eviction());
        page.entries[2].ebx |= COHERENCY_SFW_NO;
        assert!(!page.needs_eviction());
        page.count = 2;
        assert!(page.needs_eviction(), "nothing is said");
    }

    #[test]
    fn an_entry_is_told_by_its_whole_key() {
        let decoys: [fn(&mut CpuidEntry); 3] = [
            |entry| entry.ecx_in = 1,
            |entry| entry.xcr0_in = 1 << 32,
            |entry| entry.xss_in = 1,
        ];
        for decoy in decoys {
            let mut page = page();
            page.entries[1] = CpuidEntry {
                ebx: 37,
                ..page.entries[2]
            };
            decoy(&mut page.entries[1]);
            assert_eq!(page.c_bit_position(), Some(51));
            assert!(page.set_svsm_present());
            assert_eq!(
                (page.entries[1].eax, page.entries[2].eax),
                (0, SVSM_PRESENT)
            );
            // Alone it is no answer, and what lies behind the entries in use is none either.
            page.count = 2;
            assert_eq!(page.c_bit_position(), None);
            assert!(!page.set_svsm_present());
        }
    }

    #[test]
    fn entries_beyond_the_count_do_not_exist() {
        let mut page = page();
        page.count = 2;
        assert_eq!(page.c_bit_position(), None);
        page.count = u32::MAX;
        assert_eq!(page.used().len(), MAX_ENTRIES);
    }

    #[test]
    fn the_svsm_bit_is_set_in_the_copy() {
        let mut page = page();
        assert!(page.set_svsm_present());
        assert_eq!(
            page.find(LEAF_ENCRYPTION, 0).map(|entry| entry.eax),
            Some(SVSM_PRESENT)
        );
        assert!(!CpuidPage::new_zeroed().set_svsm_present());
    }
}
