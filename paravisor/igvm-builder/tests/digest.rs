// SPDX-License-Identifier: MIT OR Apache-2.0
//! The launch digest against a vector that was computed by hand and by other tools.

use igvm::IgvmDirectiveHeader::{PageData, ParameterArea, ParameterInsert, SnpVpContext};
use igvm::snp_defs::{SevFeatures, SevVmsa};
use igvm::{
    IgvmDirectiveHeader, IgvmFile, IgvmInitializationHeader, IgvmPlatformHeader, IgvmRevision,
    IgvmSerializer,
};
use igvm_builder::launch_digest;
use igvm_defs::{
    IGVM_VHS_PARAMETER_INSERT, IGVM_VHS_SUPPORTED_PLATFORM, IgvmPageDataFlags, IgvmPageDataType,
    IgvmPlatformType,
};
use zerocopy::FromZeros;

const MASK: u32 = 1;

fn page(gpa: u64, data_type: IgvmPageDataType, data: Vec<u8>) -> IgvmDirectiveHeader {
    PageData {
        gpa,
        compatibility_mask: MASK,
        flags: IgvmPageDataFlags::new(),
        data_type,
        data,
    }
}

/// Two parameter pages, a page with data, one without, an unmeasured one, secrets, CPUID, a VMSA.
fn directives() -> Vec<IgvmDirectiveHeader> {
    let vmsa = SevVmsa {
        efer: 0x1000,
        cr0: 0x31,
        rip: 0x1_0000,
        sev_features: SevFeatures::new().with_snp(true),
        ..SevVmsa::new_zeroed()
    };
    vec![
        ParameterArea {
            number_of_bytes: 8192,
            parameter_area_index: 0,
            initial_data: Vec::new(),
        },
        ParameterInsert(IGVM_VHS_PARAMETER_INSERT {
            gpa: 0x5000,
            compatibility_mask: MASK,
            parameter_area_index: 0,
        }),
        page(0x1_0000, IgvmPageDataType::NORMAL, vec![0xab; 4096]),
        page(0x1_1000, IgvmPageDataType::NORMAL, Vec::new()),
        PageData {
            gpa: 0x1_2000,
            compatibility_mask: MASK,
            flags: IgvmPageDataFlags::new().with_unmeasured(true),
            data_type: IgvmPageDataType::NORMAL,
            data: Vec::new(),
        },
        page(0x1_3000, IgvmPageDataType::SECRETS, Vec::new()),
        page(0x1_4000, IgvmPageDataType::CPUID_DATA, vec![0; 4096]),
        SnpVpContext {
            gpa: 0xffff_ffff_f000,
            compatibility_mask: MASK,
            vp_index: 0,
            vmsa: Box::new(vmsa),
        },
    ]
}

#[test]
fn digest_of_the_test_vector() {
    let digest = launch_digest(&directives(), MASK, 1).expect("a complete list");
    assert_eq!(
        digest.to_string(),
        "1209b32397ef3628e98f7c2ea423e20987d4f223fe4c424ae549fc0f00d455df\
         68f5a41887995cf1129284f60caf52e2"
    );
}

#[test]
fn one_vmsa_per_vcpu_is_measured() {
    let mut list = directives();
    let one = launch_digest(&list, MASK, 1).expect("a complete list");
    let two = launch_digest(&list, MASK, 2).expect("a complete list");
    assert_ne!(one, two);
    // A file that holds the VMSA twice is measured so by every tool.
    list.push(list.last().expect("the VMSA").clone());
    let platform = IGVM_VHS_SUPPORTED_PLATFORM {
        compatibility_mask: MASK,
        highest_vtl: 2,
        platform_type: IgvmPlatformType::SEV_SNP,
        platform_version: 1,
        shared_gpa_boundary: 0,
    };
    let policy = IgvmInitializationHeader::GuestPolicy {
        policy: 0x3_0000,
        compatibility_mask: MASK,
    };
    let platforms = vec![IgvmPlatformHeader::SupportedPlatform(platform)];
    let file = IgvmFile::new(IgvmRevision::V1, platforms, vec![policy], list).expect("valid");
    let serializer = IgvmSerializer::new(&file).expect("measurable");
    let theirs = serializer.measurement_for(IgvmPlatformType::SEV_SNP);
    assert_eq!(theirs.expect("an SNP platform").digest, two.0);
}

#[test]
fn other_platforms_do_not_count() {
    let mut list = directives();
    let before = launch_digest(&list, MASK, 1).expect("a complete list");
    let mut foreign = page(0x9000, IgvmPageDataType::NORMAL, vec![1; 4096]);
    *foreign.compatibility_mask_mut().expect("it has one") = 2;
    list.insert(3, foreign);
    assert_eq!(launch_digest(&list, MASK, 1).expect("complete"), before);
    assert_ne!(launch_digest(&list, 3, 1).expect("complete"), before);
}

#[test]
fn pages_behind_the_vmsa_are_refused() {
    let mut list = directives();
    list.push(page(0x2_0000, IgvmPageDataType::NORMAL, Vec::new()));
    assert!(launch_digest(&list, MASK, 1).is_err());
}
