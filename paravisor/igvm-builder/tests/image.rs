// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whole images: contents, reproducibility, and an error for each unsuitable input.

mod small_elf;

use std::collections::BTreeMap;
use std::path::Path;

use igvm::{IgvmDirectiveHeader, IgvmFile, IgvmInitializationHeader, IsolationType};
use igvm_builder::{
    AbiVersion, FeatureOptions, Image, Options, PolicyOptions, RamMode, Switch, WindowPlace, build,
};
use igvm_defs::IgvmPageDataType;
use paravisor::boot_block::{BootBlock, KIND_GUEST_PAYLOAD, KIND_PARAVISOR};
use paravisor::layout;
use small_elf::{SmallElf, code, data};
use tempfile::TempDir;
use zerocopy::FromBytes;

const MIB: u64 = 1 << 20;

fn paravisor() -> SmallElf {
    // 5 bytes of data and three pages of .bss, the first of them partly.
    SmallElf::new(vec![code(0x41_0000), data(0x41_2010, 0x3000)])
}

fn payload() -> SmallElf {
    SmallElf::new(vec![code(0x100_0000), data(0x100_1000, 0x1000)])
}

fn options(folder: &Path, paravisor: &[u8], payload: &[u8]) -> Options {
    let options = Options {
        paravisor: folder.join("paravisor"),
        payload: folder.join("payload"),
        initrd: None,
        window: 256 * MIB,
        low_window: None,
        hard_cap: None,
        window_place: WindowPlace::High,
        unit_limit: Switch::On,
        ram: Some(RamMode::Accepted),
        features: FeatureOptions::USUAL,
        policy: PolicyOptions::USUAL,
        protocol: 0x4000_0001,
        cmdline: "mode=all".into(),
        cpus: 2,
    };
    std::fs::write(&options.paravisor, paravisor).expect("a temporary folder");
    std::fs::write(&options.payload, payload).expect("a temporary folder");
    options
}

/// Options for the usual files, in a folder that has to outlive them.
fn usual() -> (TempDir, Options) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let options = options(folder.path(), &paravisor().bytes(), &payload().bytes());
    (folder, options)
}

fn built() -> Image {
    let (_folder, options) = usual();
    build(&options).expect("suitable files")
}

fn directives(image: &Image) -> Vec<IgvmDirectiveHeader> {
    let file = IgvmFile::new_from_binary(&image.bytes, Some(IsolationType::Snp));
    file.expect("our own file").directives().to_vec()
}

fn pages(image: &Image) -> BTreeMap<u64, (IgvmPageDataType, Vec<u8>)> {
    let list = directives(image).into_iter();
    let pages = list.filter_map(|directive| match directive {
        IgvmDirectiveHeader::PageData {
            gpa,
            data_type,
            data,
            ..
        } => Some((gpa, (data_type, data))),
        _ => None,
    });
    pages.collect()
}

#[test]
fn the_same_input_gives_the_same_bytes() {
    let (one, two) = (built(), built());
    assert_eq!(one.bytes, two.bytes);
    assert_eq!(one.digests, two.digests);
    assert_eq!(one.digests.len(), 2);
}

#[test]
fn every_page_of_both_images_is_launched() {
    let image = built();
    let pages = pages(&image);
    let normal = |gpa: u64| {
        let (kind, bytes) = &pages[&gpa];
        assert_eq!(*kind, IgvmPageDataType::NORMAL, "{gpa:#x}");
        bytes.clone()
    };
    assert_eq!(normal(0x41_0000)[..100], [0xf4; 100]);
    assert_eq!(&normal(0x41_2000)[0x10..0x15], b"hello");
    for zero in [0x41_3000, 0x41_4000, 0x41_5000] {
        assert_eq!(normal(zero), [0; 4096], "{zero:#x}");
    }
    assert_eq!(&normal(0x100_1000)[..5], b"hello");
    assert_eq!(pages[&layout::SECRETS_PAGE].0, IgvmPageDataType::SECRETS);
    assert_eq!(pages[&layout::CPUID_PAGE].0, IgvmPageDataType::CPUID_DATA);
    // Parameter pages and VMSA are no page data.
    assert_eq!(image.launch_pages, pages.len() + 4);
}

#[test]
fn a_segment_that_begins_inside_a_page_keeps_its_bytes_in_order() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let bytes: Vec<u8> = (0..9000_u32).map(|index| (index % 251) as u8).collect();
    let mut long = data(0x100_2f00, 9000);
    long.data = bytes.clone();
    let payload = SmallElf::new(vec![code(0x100_0000), long]);
    let options = options(folder.path(), &paravisor().bytes(), &payload.bytes());
    let pages = pages(&build(&options).expect("suitable files"));
    let launched: Vec<u8> = pages
        .range(0x100_2000..0x100_6000)
        .flat_map(|(_, (_, page))| page.clone())
        .collect();
    assert_eq!(launched.len(), 4 * 4096);
    assert_eq!(launched[0xf00..0xf00 + 9000], bytes);
    assert!(launched[..0xf00].iter().all(|byte| *byte == 0));
}

#[test]
fn required_memory_fills_the_gaps_and_nothing_else() {
    let image = built();
    let mut covered = vec![false; ((layout::HANDOVER_END - layout::IMAGE_BASE) / 4096) as usize];
    let mut cover = |gpa: u64, bytes: u64| {
        for page in (gpa..gpa + bytes).step_by(4096) {
            let index = ((page - layout::IMAGE_BASE) / 4096) as usize;
            assert!(!covered[index], "{page:#x} is covered twice");
            covered[index] = true;
        }
    };
    let mut areas = BTreeMap::new();
    for directive in directives(&image) {
        match directive {
            IgvmDirectiveHeader::PageData { gpa, .. } if gpa < layout::HANDOVER_END => {
                cover(gpa, 4096);
            }
            IgvmDirectiveHeader::ParameterArea {
                number_of_bytes,
                parameter_area_index,
                ..
            } => {
                areas.insert(parameter_area_index, number_of_bytes);
            }
            IgvmDirectiveHeader::ParameterInsert(insert) => {
                cover(insert.gpa, areas[&insert.parameter_area_index]);
            }
            IgvmDirectiveHeader::RequiredMemory {
                gpa,
                number_of_bytes,
                ..
            } => cover(gpa, u64::from(number_of_bytes)),
            _ => {}
        }
    }
    assert!(covered.iter().all(|page| *page));
}

#[test]
fn the_boot_block_describes_the_image() {
    let (_folder, mut options) = usual();
    options.ram = Some(RamMode::Firmware);
    options.hard_cap = Some(64 * MIB);
    options.unit_limit = Switch::Off;
    options.window_place = WindowPlace::Low;
    let image = build(&options).expect("suitable files");
    let (_, page) = &pages(&image)[&layout::BOOT_BLOCK];
    let (block, rest) = BootBlock::read_from_prefix(page).expect("a page");
    assert_eq!(block.check(), Ok(()));
    assert_eq!(block.window_bytes, 256 * MIB);
    assert_eq!(block.hard_cap, 64 * MIB);
    assert!(block.unit_limit_lifted() && block.restricted_injection());
    assert_eq!(block.window_wish().limit, 1 << 32);
    assert_eq!(block.low_window_bytes, 0);
    assert_eq!(block.ram_mode, 1);
    assert_eq!(block.protocol_number, 0x4000_0001);
    assert_eq!(block.payload_entry, 0x100_0000);
    assert_eq!(block.cmdline[..9], *b"mode=all\0");
    assert!(rest.iter().all(|byte| *byte == 0));
    options.window_place = WindowPlace::High;
    options.low_window = Some(32 * MIB);
    let two = build(&options).expect("suitable files");
    let (_, page) = &pages(&two)[&layout::BOOT_BLOCK];
    let (with_two, _) = BootBlock::read_from_prefix(page).expect("a page");
    assert_eq!(with_two.check(), Ok(()));
    let wish = with_two.window_wish();
    assert_eq!((wish.limit, wish.low_bytes), (u64::MAX, 32 * MIB));
    let ranges: Vec<_> = block
        .ranges()
        .iter()
        .map(|range| (range.gpa, range.bytes, range.kind))
        .collect();
    let want = [
        (0x40_0000, 0x1_0000, KIND_PARAVISOR),
        (0x41_0000, 0x1000, KIND_PARAVISOR),
        (0x41_2000, 0x4000, KIND_PARAVISOR),
        (0x100_0000, 0x1000, KIND_GUEST_PAYLOAD),
        (0x100_1000, 0x1000, KIND_GUEST_PAYLOAD),
    ];
    assert_eq!(ranges, want);
}

#[test]
fn the_boot_vcpu_starts_at_the_entry_with_the_promised_features() {
    let with = |change: fn(&mut FeatureOptions)| {
        let mut features = FeatureOptions::USUAL;
        change(&mut features);
        features
    };
    let each = [
        (with(|_| ()), 0b10_1001),
        (
            with(|all| all.restricted_injection = Switch::Off),
            0b10_0001,
        ),
        (with(|all| all.prevent_host_ibs = Switch::On), 0x29 | 1 << 6),
        (with(|all| all.btb_isolation = Switch::On), 0x29 | 1 << 7),
        (with(|all| all.smt_protection = Switch::On), 0x29 | 1 << 15),
        (with(|all| all.ibpb_on_entry = Switch::On), 0x29 | 1 << 21),
    ];
    for (asked, features) in each {
        let (_folder, mut options) = usual();
        options.features = asked;
        let image = build(&options).expect("suitable files");
        let Some(IgvmDirectiveHeader::SnpVpContext { gpa, vmsa, .. }) = directives(&image).pop()
        else {
            panic!("the VMSA is not last");
        };
        assert_eq!(gpa, 0xffff_ffff_f000);
        assert_eq!((vmsa.rip, vmsa.cr0, vmsa.efer), (0x41_0000, 0x31, 0x1800));
        assert_eq!(vmsa.sev_features.into_bits(), features);
        let (_, page) = &pages(&image)[&layout::BOOT_BLOCK];
        let (block, _) = BootBlock::read_from_prefix(page).expect("a page");
        assert_eq!(block.sev_features, features);
        assert_eq!(block.check(), Ok(()));
        assert_eq!(
            block.restricted_injection(),
            asked.restricted_injection.is_on()
        );
    }
}

#[test]
fn the_file_has_the_policy_that_was_asked_for_and_the_digest_does_not() {
    let policy = |image: &Image| {
        let file = IgvmFile::new_from_binary(&image.bytes, Some(IsolationType::Snp))
            .expect("our own file");
        match file.initializations() {
            [IgvmInitializationHeader::GuestPolicy { policy, .. }] => *policy,
            others => panic!("no policy, but {others:?}"),
        }
    };
    let usual_image = built();
    assert_eq!(policy(&usual_image), 0x3_0000);
    let (_folder, mut options) = usual();
    options.policy = PolicyOptions {
        smt: Switch::Off,
        least_abi: AbiVersion {
            major: 1,
            minor: 58,
        },
        ciphertext_hiding: Switch::On,
        page_swap: Switch::Off,
        ..PolicyOptions::USUAL
    };
    let strict = build(&options).expect("suitable files");
    assert_eq!(policy(&strict), 0x302_013a);
    assert_eq!(strict.digests, usual_image.digests);
}

/// Builds with these files and expects one line that contains `part`.
fn refused(paravisor: &[u8], payload: &[u8], part: &str) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let message = match build(&options(folder.path(), paravisor, payload)) {
        Ok(_) => panic!("accepted: {part}"),
        Err(error) => error.to_string(),
    };
    assert!(message.contains(part), "'{part}' is not in: {message}");
    assert!(!message.contains('\n'), "{message}");
    assert!(message.contains(';'), "no remedy: {message}");
}

#[test]
fn files_that_are_no_suitable_elf_are_refused() {
    let (good, good_payload) = (paravisor().bytes(), payload().bytes());
    refused(&[], &good_payload, "is empty");
    refused(b"#!/bin/sh\n", &good_payload, "is no ELF file");
    refused(&good[..40], &good_payload, "unreadable ELF headers");
    refused(&good[..180], &good_payload, "outside the file");
    let with = |change: fn(&mut SmallElf)| {
        let mut elf = payload();
        change(&mut elf);
        elf.bytes()
    };
    refused(&good, &with(|elf| elf.class = 1), "a 32-bit ELF file");
    refused(&good, &with(|elf| elf.machine = 183), "for another machine");
    refused(
        &good,
        &with(|elf| elf.kind = 3),
        "not a fixed-address executable",
    );
    refused(
        &good,
        &with(|elf| elf.entry = 0x100_1000),
        "no executable segment",
    );
    refused(
        &good,
        &with(|elf| elf.loads[1].memory_bytes = 2),
        "larger in the file",
    );
    refused(
        &good,
        &with(|elf| elf.loads[1].virtual_address = 0),
        "virtual and physical",
    );
    refused(&good, &with(|elf| elf.loads[1].address = u64::MAX), "wraps");
}

#[test]
fn segments_in_forbidden_places_are_refused() {
    let (good, good_payload) = (paravisor(), payload());
    let at = |mut elf: SmallElf, address: u64| {
        elf.loads[1].address = address;
        elf.loads[1].virtual_address = address;
        elf.bytes()
    };
    let outside = "is outside";
    for fixed_page in [
        layout::BOOT_BLOCK,
        layout::SECRETS_PAGE,
        layout::IMAGE_LOAD - 0x1000,
    ] {
        refused(
            &at(good.clone(), fixed_page),
            &good_payload.bytes(),
            outside,
        );
    }
    let end = layout::IMAGE_END - 0x2000;
    refused(&at(good.clone(), end), &good_payload.bytes(), outside);
    for forbidden in [0x1000, 0x41_8000, layout::HANDOVER_PAGE, 0x7fff_f000] {
        refused(&good.bytes(), &at(good_payload.clone(), forbidden), outside);
    }
    refused(
        &good.bytes(),
        &at(good_payload, 0x100_0800),
        "share the page at 0x1000000",
    );
}

#[test]
fn more_segments_than_the_boot_block_lists_are_refused() {
    let many = (0..31)
        .map(|index| code(0x100_0000 + index * 0x2000))
        .collect();
    refused(
        &paravisor().bytes(),
        &SmallElf::new(many).bytes(),
        "at most 32",
    );
}

#[test]
fn impossible_options_are_refused() {
    let refused = |change: fn(&mut Options), part: &str| {
        let (_folder, mut options) = usual();
        change(&mut options);
        let message = build(&options).expect_err(part).to_string();
        assert!(message.contains(part), "'{part}' is not in: {message}");
        assert!(
            !message.contains('\n') && message.contains(';'),
            "{message}"
        );
    };
    refused(|options| options.window = 0, "a window of 0B");
    refused(|options| options.window = 3 * MIB, "a window of 3MiB");
    refused(
        |options| options.hard_cap = Some(258 * MIB),
        "a cap of 258MiB",
    );
    refused(|options| options.hard_cap = Some(MIB), "a cap of 1MiB");
    refused(|options| options.low_window = Some(0), "a low window of 0B");
    refused(
        |options| options.low_window = Some(MIB),
        "a low window of 1MiB",
    );
    refused(
        |options| options.low_window = Some(4096 * MIB),
        "a low window of 4GiB",
    );
    refused(
        |options| {
            (options.low_window, options.window_place) = (Some(2 * MIB), WindowPlace::Low);
        },
        "--low-window is a window beside a high one;",
    );
    refused(|options| options.protocol = 2, "protocol 0x2");
    refused(|options| options.cpus = 0, "0 vCPUs");
    refused(
        |options| options.features.secure_tsc = Switch::On,
        "Secure TSC",
    );
    refused(
        |options| options.cmdline = "x".repeat(256),
        "shorten it to 255",
    );
    refused(
        |options| options.payload = "/nowhere".into(),
        "cannot read /nowhere",
    );
}
