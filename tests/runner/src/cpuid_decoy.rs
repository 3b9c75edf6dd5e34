// SPDX-License-Identifier: MIT OR Apache-2.0
//! A VMM that lists a false entry before the encryption leaf in the CPUID page: whoever takes the first entry with the
//! leaf's number has the wrong C-bit.

use clap::ValueEnum;
use snp::cpuid::{CpuidEntry, CpuidPage, LEAF_ENCRYPTION};
use zerocopy::{FromBytes, IntoBytes};

use crate::launch_plan::{LaunchPlan, PageKind};

/// How the key of the entry differs from that of the encryption leaf.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum CpuidDecoy {
    /// Another sub-leaf.
    Subleaf,
    /// For another XCR0.
    Xcr0,
    /// For another XSS.
    Xss,
}

impl CpuidDecoy {
    /// Puts the entry first in the CPUID page of `plan`; the last of a full page falls out.
    pub fn insert(self, plan: &mut LaunchPlan) {
        let pages = plan.pages.iter_mut();
        for page in pages.filter(|page| page.kind == PageKind::Cpuid) {
            let Ok(cpuid) = CpuidPage::mut_from_bytes(page.contents.as_mut_bytes()) else {
                continue;
            };
            cpuid.entries.rotate_right(1);
            let mut decoy = CpuidEntry {
                eax_in: LEAF_ENCRYPTION,
                ..CpuidEntry::default()
            };
            match self {
                Self::Subleaf => decoy.ecx_in = 1,
                Self::Xcr0 => decoy.xcr0_in = 1,
                Self::Xss => decoy.xss_in = 1,
            }
            cpuid.entries[0] = decoy;
            cpuid.count += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        CpuidDecoy, CpuidEntry, CpuidPage, FromBytes, LEAF_ENCRYPTION, LaunchPlan, PageKind,
    };
    use crate::launch_plan::LaunchPage;

    #[test]
    fn the_entry_stands_first_and_nothing_is_lost() {
        let mut page = Box::new([0; 4096]);
        page[0] = 1;
        page[16..20].copy_from_slice(&LEAF_ENCRYPTION.to_le_bytes());
        let mut plan = LaunchPlan::default();
        plan.pages.push(LaunchPage {
            gpa: 0,
            kind: PageKind::Cpuid,
            contents: page,
        });
        CpuidDecoy::Xss.insert(&mut plan);
        let page = CpuidPage::read_from_bytes(&plan.pages[0].contents[..]).unwrap();
        let leaf = |xss_in| CpuidEntry {
            eax_in: LEAF_ENCRYPTION,
            xss_in,
            ..CpuidEntry::default()
        };
        assert_eq!(page.used(), [leaf(1), leaf(0)]);
    }
}
