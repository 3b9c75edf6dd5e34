// SPDX-License-Identifier: MIT OR Apache-2.0
//! The SNP launch digest of a list of IGVM directives.
//!
//! The firmware chains SHA-384 over one `PAGE_INFO` record per launched 4 KiB page (SEV-SNP firmware
//! ABI, `SNP_LAUNCH_UPDATE`). KVM measures one VMSA per vCPU at `SNP_LAUNCH_FINISH` although an IGVM
//! file holds a single one, so the digest depends on the number of vCPUs; the `igvm` crate computes
//! that of one vCPU only.

use std::collections::BTreeMap;
use std::fmt;

use igvm::IgvmDirectiveHeader;
use igvm_defs::{IgvmPageDataType, PAGE_SIZE_4K};
use sha2::{Digest, Sha384};
use zerocopy::IntoBytes;

use crate::Error;

/// Size of `PAGE_INFO` in bytes.
const PAGE_INFO_BYTES: u16 = 0x70;

/// A SHA-384 launch digest; displays as 96 lower-case hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LaunchDigest(pub [u8; 48]);

impl fmt::Display for LaunchDigest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0
            .iter()
            .try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

/// `PAGE_TYPE` of `SNP_LAUNCH_UPDATE`.
#[derive(Debug, Clone, Copy)]
#[repr(u8)]
enum PageType {
    Normal = 1,
    Vmsa = 2,
    Unmeasured = 4,
    Secrets = 5,
    Cpuid = 6,
}

/// The running digest.
struct Chain([u8; 48]);

impl Chain {
    /// Adds one page; `contents` is `None` for the types whose bytes are not measured.
    fn page(&mut self, page_type: PageType, gpa: u64, contents: Option<&[u8; 4096]>) {
        let contents = contents.map_or([0; 48], |bytes| Sha384::digest(bytes).into());
        let mut info = Sha384::new();
        info.update(self.0);
        info.update(contents);
        info.update(PAGE_INFO_BYTES.to_le_bytes());
        info.update([page_type as u8, 0]); // then: no image-migration page,
        info.update([0; 4]); // one reserved byte and no permission for VMPL1 to VMPL3
        info.update(gpa.to_le_bytes());
        self.0 = info.finalize().into();
    }
}

/// The digest of `directives` for the platform of `compatibility_mask` with `cpus` vCPUs.
///
/// # Errors
/// [`Error::Internal`] when the list names a parameter area that does not exist, carries page data
/// that is longer than a page, or has page data after the VMSA: KVM would measure those in another
/// order.
pub fn launch_digest(
    directives: &[IgvmDirectiveHeader],
    compatibility_mask: u32,
    cpus: u32,
) -> Result<LaunchDigest, Error> {
    let mut chain = Chain([0; 48]);
    let mut parameter_areas = BTreeMap::new();
    let mut vmsa = None;
    let applies = |directive: &&IgvmDirectiveHeader| {
        directive
            .compatibility_mask()
            .is_none_or(|mask| mask & compatibility_mask != 0)
    };
    for directive in directives.iter().filter(applies) {
        match directive {
            IgvmDirectiveHeader::ParameterArea {
                number_of_bytes,
                parameter_area_index,
                ..
            } => {
                parameter_areas.insert(*parameter_area_index, *number_of_bytes);
            }
            IgvmDirectiveHeader::PageData { .. } | IgvmDirectiveHeader::ParameterInsert(_)
                if vmsa.is_some() =>
            {
                return Err(Error::Internal("a page follows the VMSA".into()));
            }
            IgvmDirectiveHeader::PageData {
                gpa,
                flags,
                data_type,
                data,
                ..
            } => match *data_type {
                _ if flags.shared() => {}
                IgvmPageDataType::SECRETS => chain.page(PageType::Secrets, *gpa, None),
                IgvmPageDataType::CPUID_DATA | IgvmPageDataType::CPUID_XF => {
                    chain.page(PageType::Cpuid, *gpa, None);
                }
                _ if flags.unmeasured() => chain.page(PageType::Unmeasured, *gpa, None),
                _ => chain.page(PageType::Normal, *gpa, Some(&whole_page(data)?)),
            },
            IgvmDirectiveHeader::ParameterInsert(insert) => {
                let bytes = parameter_areas
                    .get(&insert.parameter_area_index)
                    .ok_or_else(|| Error::Internal("an unknown parameter area".into()))?;
                for page in 0..bytes / PAGE_SIZE_4K {
                    let gpa = insert.gpa + page * PAGE_SIZE_4K;
                    chain.page(PageType::Unmeasured, gpa, None);
                }
            }
            IgvmDirectiveHeader::SnpVpContext {
                gpa, vmsa: state, ..
            } => {
                vmsa = Some((*gpa, whole_page(state.as_bytes())?));
            }
            _ => {}
        }
    }
    if let Some((gpa, state)) = vmsa {
        (0..cpus).for_each(|_| chain.page(PageType::Vmsa, gpa, Some(&state)));
    }
    Ok(LaunchDigest(chain.0))
}

/// `data` padded with zeros to a page, as a loader does.
fn whole_page(data: &[u8]) -> Result<[u8; 4096], Error> {
    let mut page = [0; 4096];
    page.get_mut(..data.len())
        .ok_or_else(|| Error::Internal("page data longer than a page".into()))?
        .copy_from_slice(data);
    Ok(page)
}
