// SPDX-License-Identifier: MIT OR Apache-2.0
//! The VMM's part: what an image's directives become in guest memory.

use igvm::IgvmDirectiveHeader::{
    self, EnvironmentInfo, Madt, MemoryMap, PageData, ParameterArea, ParameterInsert,
    RequiredMemory, SnpVpContext, VpCount,
};
use igvm::snp_defs::SevVmsa;
use igvm_defs::{
    IGVM_VHS_PARAMETER, IGVM_VHS_PARAMETER_INSERT, IgvmPageDataFlags, IgvmPageDataType,
};
use runner::{LaunchPlan, MapEntry, PageKind, Parameters};
use zerocopy::FromZeros;

const MASK: u32 = 1;

fn area(index: u32, pages: u64) -> IgvmDirectiveHeader {
    ParameterArea {
        number_of_bytes: pages * 4096,
        parameter_area_index: index,
        initial_data: Vec::new(),
    }
}

fn at(area: u32, offset: u32) -> IGVM_VHS_PARAMETER {
    IGVM_VHS_PARAMETER {
        parameter_area_index: area,
        byte_offset: offset,
    }
}

fn insert(area: u32, gpa: u64) -> IgvmDirectiveHeader {
    ParameterInsert(IGVM_VHS_PARAMETER_INSERT {
        gpa,
        compatibility_mask: MASK,
        parameter_area_index: area,
    })
}

fn page(gpa: u64, mask: u32, data: &[u8]) -> IgvmDirectiveHeader {
    PageData {
        gpa,
        compatibility_mask: mask,
        flags: IgvmPageDataFlags::new(),
        data_type: IgvmPageDataType::NORMAL,
        data: data.to_vec(),
    }
}

fn vmsa() -> IgvmDirectiveHeader {
    SnpVpContext {
        gpa: 0xffff_ffff_f000,
        compatibility_mask: MASK,
        vp_index: 0,
        vmsa: Box::new(SevVmsa {
            rip: 0x1122_3344,
            ..SevVmsa::new_zeroed()
        }),
    }
}

fn execute(directives: &[IgvmDirectiveHeader]) -> Result<LaunchPlan, String> {
    let parameters = Parameters {
        memory_map: vec![
            MapEntry::ram(&(0..0xa_0000)),
            MapEntry::ram(&(0x10_0000..0x4000_0000)),
        ],
        cpus: 3,
        memory_is_shared: true,
    };
    LaunchPlan::execute(directives, MASK, &parameters).map_err(|failure| failure.to_string())
}

#[test]
fn parameters_are_filled_where_the_image_wants_them() {
    let plan = execute(&[
        area(0, 1),
        area(1, 1),
        VpCount(at(0, 0)),
        EnvironmentInfo(at(0, 4)),
        MemoryMap(at(1, 0)),
        insert(0, 0x40_1000),
        insert(1, 0x40_2000),
        vmsa(),
    ])
    .expect("a complete image");
    let [general, map, start] = &plan.pages[..] else {
        panic!("{} pages", plan.pages.len());
    };
    assert_eq!(
        (general.gpa, general.kind),
        (0x40_1000, PageKind::Unmeasured)
    );
    assert_eq!(general.contents[..8], [3, 0, 0, 0, 1, 0, 0, 0]);
    let word = |index: usize| {
        let bytes = &map.contents[index * 8..index * 8 + 8];
        u64::from_le_bytes(bytes.try_into().expect("eight bytes"))
    };
    // First page, number of pages, type and flags; the entry of no pages ends the list.
    assert_eq!([word(0), word(1), word(2)], [0, 0xa0, 0]);
    assert_eq!([word(3), word(4), word(5)], [0x100, 0x3ff00, 0]);
    assert_eq!([word(6), word(7), word(8)], [0, 0, 0]);
    assert_eq!((start.gpa, start.kind), (plan.vmsa_gpa, PageKind::Vmsa));
    assert_eq!(
        start.contents[0x178..0x17c],
        [0x44, 0x33, 0x22, 0x11],
        "RIP"
    );
}

/// What a hostile VMM may do: there is no room for the entry that ends the list. One more is not the image's fault.
#[test]
fn a_map_that_fills_its_area_has_no_end() {
    let entry = |first| MapEntry {
        first,
        pages: 1,
        kind: 1,
    };
    let contents = |entries| {
        let parameters = Parameters {
            memory_map: (0..entries).map(entry).collect(),
            cpus: 1,
            memory_is_shared: true,
        };
        let list = [area(0, 1), MemoryMap(at(0, 0)), insert(0, 0x1000), vmsa()];
        LaunchPlan::execute(&list, MASK, &parameters).map(|plan| plan.pages[0].contents.clone())
    };
    // 170 entries of 24 bytes are 4080.
    let full = contents(170).expect("a full page");
    assert_eq!(full[4056..4064], 169_u64.to_le_bytes());
    assert_eq!(full[4080..], [0; 16]);
    let message = contents(171).unwrap_err().to_string();
    assert!(
        message.contains("171 entries") && message.contains("takes 170;"),
        "{message}"
    );
    assert!(!message.contains("build it again"), "{message}");
}

#[test]
fn long_areas_and_the_madt_span_pages() {
    let list = [area(5, 2), Madt(at(5, 4090)), insert(5, 0x9000), vmsa()];
    let plan = execute(&list).expect("a complete image");
    let gpas: Vec<_> = plan.pages.iter().map(|page| page.gpa).collect();
    assert_eq!(gpas, [0x9000, 0xa000, plan.vmsa_gpa]);
    assert_eq!(plan.pages[0].contents[4090..], *b"APIC\x44\0");
}

#[test]
fn pages_of_other_platforms_are_left_out_and_short_ones_padded() {
    let required = RequiredMemory {
        gpa: 0x50_0000,
        compatibility_mask: MASK,
        number_of_bytes: 0x3000,
        vtl2_protectable: false,
    };
    let list = [
        page(0x1000, MASK, b"ours"),
        page(0x2000, 2, b"foreign"),
        required,
        vmsa(),
    ];
    let plan = execute(&list).expect("a complete image");
    assert_eq!(plan.pages.len(), 2);
    assert_eq!(plan.pages[0].contents[..5], *b"ours\0");
    let required = plan.required.iter().map(|range| (range.start, range.end));
    assert!(required.eq([(0x50_0000, 0x50_3000)]));
}

#[test]
fn contradictions_are_refused() {
    for (list, part) in [
        (vec![], "no boot VMSA"),
        (vec![vmsa(), vmsa()], "more than one VMSA"),
        (vec![insert(0, 0x1000), vmsa()], "unknown parameter area"),
        (vec![VpCount(at(0, 0)), vmsa()], "does not fit its area"),
        (
            vec![area(0, 1), VpCount(at(0, 4093)), vmsa()],
            "does not fit its area",
        ),
        (
            vec![area(0, 1), VpCount(at(0, u32::MAX)), vmsa()],
            "does not fit its area",
        ),
        (vec![area(0, 1 << 40), vmsa()], "above 16 MiB"),
        (
            vec![page(0x1000, MASK, &[0; 4097]), vmsa()],
            "longer than a page",
        ),
    ] {
        let message = execute(&list).expect_err(part);
        assert!(message.contains(part), "'{part}' is not in: {message}");
        assert!(!message.contains('\n'));
    }
}
