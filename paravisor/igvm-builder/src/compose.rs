// SPDX-License-Identifier: MIT OR Apache-2.0
//! Lays both images and the fixed pages out as IGVM directives (IGVM specification, variable headers;
//! `igvm_defs`).
//!
//! Order: parameter areas and what fills them, measured pages, secrets and CPUID page, parameter
//! inserts, memory the image needs beyond its pages, the boot VMSA. The launch digest follows the
//! order, and KVM wants the VMSA last.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use igvm::{
    IgvmDirectiveHeader, IgvmFile, IgvmInitializationHeader, IgvmPlatformHeader, IgvmRevision,
    IgvmSerializer,
};
use igvm_defs::{
    IGVM_VHS_PARAMETER, IGVM_VHS_PARAMETER_INSERT, IGVM_VHS_SUPPORTED_PLATFORM, IgvmPageDataFlags,
    IgvmPageDataType, IgvmPlatformType,
};
use paravisor::layout;

use crate::boot_page::boot_page;
use crate::cpuid_request::cpuid_request;
use crate::elf_image::ElfImage;
use crate::options::Options;
use crate::payload::Payload;
use crate::{Error, LaunchDigest, launch_digest, start_vmsa};

/// The file serves one platform, so one bit of the compatibility mask is in use.
const SNP: u32 = 1;
/// Parameter area that holds the vCPU count and the environment.
const GENERAL_AREA: u32 = 0;
/// Parameter area that holds the memory map.
const MEMORY_MAP_AREA: u32 = 1;

/// Parameter area that holds the table of processors.
const MADT_AREA: u32 = 2;

/// A finished image.
#[derive(Debug, Clone)]
pub struct Image {
    /// The IGVM file.
    pub bytes: Vec<u8>,
    /// SNP launch digests for 1, 2, ... vCPUs.
    pub digests: Vec<LaunchDigest>,
    /// Pages that are launched, the boot VMSA included.
    pub launch_pages: usize,
}

/// Builds the image of `options`.
///
/// # Errors
/// [`Error`] names the option or file at fault and the remedy.
pub fn build(options: &Options) -> Result<Image, Error> {
    options.check()?;
    let own = layout::IMAGE_LOAD..layout::IMAGE_END;
    let paravisor = ElfImage::parse(&options.paravisor, &read(&options.paravisor)?, &own)?;
    let payload = Payload::read(options)?;
    let directives = directives(options, &paravisor, &payload)?;
    let digests = (1..=options.cpus)
        .map(|cpus| launch_digest(&directives, SNP, cpus))
        .collect::<Result<Vec<_>, _>>()?;
    let launch_pages = directives.iter().filter(|one| is_launched(one)).count();

    let internal = |error: igvm::Error| Error::Internal(error.to_string());
    let platform = IGVM_VHS_SUPPORTED_PLATFORM {
        compatibility_mask: SNP,
        highest_vtl: layout::GUEST_VMPL,
        platform_type: IgvmPlatformType::SEV_SNP,
        platform_version: 1,
        shared_gpa_boundary: 0,
    };
    let policy = IgvmInitializationHeader::GuestPolicy {
        policy: options.policy.policy().into_bits(),
        compatibility_mask: SNP,
    };
    let file = IgvmFile::new(
        IgvmRevision::V1,
        vec![IgvmPlatformHeader::SupportedPlatform(platform)],
        vec![policy],
        directives,
    )
    .map_err(internal)?;
    cross_check(&file, digests.first())?;
    let mut bytes = Vec::new();
    file.serialize(&mut bytes).map_err(internal)?;
    Ok(Image {
        bytes,
        digests,
        launch_pages,
    })
}

/// Two independent computations of the digest that users will pin have to agree.
fn cross_check(file: &IgvmFile, ours: Option<&LaunchDigest>) -> Result<(), Error> {
    let serializer =
        IgvmSerializer::new(file).map_err(|error| Error::Internal(error.to_string()))?;
    let theirs = serializer.measurement_for(IgvmPlatformType::SEV_SNP);
    match (theirs, ours) {
        (Some(theirs), Some(ours)) if theirs.digest == ours.0 => Ok(()),
        _ => Err(Error::Internal("two launch digests disagree".into())),
    }
}

fn is_launched(directive: &IgvmDirectiveHeader) -> bool {
    matches!(
        directive,
        IgvmDirectiveHeader::PageData { .. }
            | IgvmDirectiveHeader::ParameterInsert(_)
            | IgvmDirectiveHeader::SnpVpContext { .. }
    )
}

/// The contents of a file.
///
/// # Errors
/// [`Error::Read`].
pub fn read(path: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(path).map_err(|source| Error::Read {
        path: path.to_owned(),
        source,
    })
}

fn directives(
    options: &Options,
    paravisor: &ElfImage,
    payload: &Payload,
) -> Result<Vec<IgvmDirectiveHeader>, Error> {
    let normal = IgvmPageDataType::NORMAL;
    let entry = u32::try_from(paravisor.entry)
        .map_err(|_| Error::Internal("a 32-bit entry above 4 GiB".into()))?;

    let mut list = vec![
        area(GENERAL_AREA, layout::PAGE_BYTES),
        area(MEMORY_MAP_AREA, layout::MEMORY_MAP_BYTES as u64),
        area(MADT_AREA, layout::MADT_BYTES as u64),
    ];
    list.push(IgvmDirectiveHeader::VpCount(IGVM_VHS_PARAMETER {
        parameter_area_index: GENERAL_AREA,
        byte_offset: offset(layout::VP_COUNT_OFFSET),
    }));
    list.push(IgvmDirectiveHeader::EnvironmentInfo(IGVM_VHS_PARAMETER {
        parameter_area_index: GENERAL_AREA,
        byte_offset: offset(layout::ENVIRONMENT_OFFSET),
    }));
    list.push(IgvmDirectiveHeader::MemoryMap(IGVM_VHS_PARAMETER {
        parameter_area_index: MEMORY_MAP_AREA,
        byte_offset: 0,
    }));

    list.push(IgvmDirectiveHeader::Madt(IGVM_VHS_PARAMETER {
        parameter_area_index: MADT_AREA,
        byte_offset: 0,
    }));

    let boot_page = boot_page(options, paravisor, payload)?;
    list.push(page(layout::BOOT_BLOCK, normal, &boot_page));
    // Zero pages carry explicit bytes: loaders differ in how they measure pages without data.
    for (gpa, contents) in paravisor.pages.iter().chain(&payload.pages) {
        list.push(page(*gpa, normal, contents.as_slice()));
    }
    list.push(page(
        layout::SECRETS_PAGE,
        IgvmPageDataType::SECRETS,
        &[0; 4096],
    ));
    list.push(page(
        layout::CPUID_PAGE,
        IgvmPageDataType::CPUID_DATA,
        &cpuid_request(),
    ));
    list.push(insert(layout::PARAM_GENERAL, GENERAL_AREA));
    list.push(insert(layout::PARAM_MEMORY_MAP, MEMORY_MAP_AREA));
    list.push(insert(layout::PARAM_MADT, MADT_AREA));
    for gap in unlaunched(&paravisor.pages) {
        list.push(IgvmDirectiveHeader::RequiredMemory {
            gpa: gap.start,
            compatibility_mask: SNP,
            number_of_bytes: u32::try_from(gap.end - gap.start).unwrap_or(0),
            vtl2_protectable: false,
        });
    }
    list.push(IgvmDirectiveHeader::SnpVpContext {
        gpa: layout::LAUNCH_VMSA,
        compatibility_mask: SNP,
        vp_index: 0,
        vmsa: start_vmsa(entry, options.features.sev_features()),
    });
    Ok(list)
}

/// What is not launched of the paravisor's region and the hand-over area: the image takes it into
/// use itself, so a host has to back it.
fn unlaunched(pages: &BTreeMap<u64, Box<[u8; 4096]>>) -> Vec<Range<u64>> {
    let launched = |gpa: u64| {
        pages.contains_key(&gpa) || (layout::BOOT_BLOCK..layout::FIXED_PAGES_END).contains(&gpa)
    };
    let mut gaps: Vec<Range<u64>> = Vec::new();
    for gpa in (layout::IMAGE_BASE..layout::HANDOVER_END).step_by(4096) {
        if launched(gpa) {
            continue;
        }
        match gaps.last_mut() {
            Some(gap) if gap.end == gpa => gap.end += layout::PAGE_BYTES,
            _ => gaps.push(gpa..gpa + layout::PAGE_BYTES),
        }
    }
    gaps
}

/// A parameter area. Each of its pages is measured, as a VMM launches them; igvmmeasure counts one page of
/// any, so of the memory map and the table of processors too.
fn area(index: u32, number_of_bytes: u64) -> IgvmDirectiveHeader {
    IgvmDirectiveHeader::ParameterArea {
        number_of_bytes,
        parameter_area_index: index,
        initial_data: Vec::new(),
    }
}

fn insert(gpa: u64, area: u32) -> IgvmDirectiveHeader {
    IgvmDirectiveHeader::ParameterInsert(IGVM_VHS_PARAMETER_INSERT {
        gpa,
        compatibility_mask: SNP,
        parameter_area_index: area,
    })
}

fn page(gpa: u64, data_type: IgvmPageDataType, contents: &[u8]) -> IgvmDirectiveHeader {
    IgvmDirectiveHeader::PageData {
        gpa,
        compatibility_mask: SNP,
        flags: IgvmPageDataFlags::new(),
        data_type,
        data: contents.to_vec(),
    }
}

fn offset(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}
