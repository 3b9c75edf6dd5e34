// SPDX-License-Identifier: MIT OR Apache-2.0
//! Images with a Linux kernel: where everything lies, what the kernel finds, and an error for each
//! unsuitable input.

mod small_elf;
mod small_kernel;

use std::collections::BTreeMap;

use igvm::{IgvmDirectiveHeader, IgvmFile, IsolationType};
use igvm_builder::{
    Error, FeatureOptions, Image, Options, PolicyOptions, RamMode, Switch, WindowPlace, build,
};
use paravisor::boot_block::{BootBlock, KIND_GUEST_PAYLOAD, PAYLOAD_LINUX};
use paravisor::layout;
use paravisor::placement::place;
use paravisor::range_list::PhysRange;
use paravisor::termination::Reason;
use small_elf::{SmallElf, code, data};
use small_kernel::{empty_archive, small_kernel};
use tempfile::TempDir;
use zerocopy::FromBytes;

const MIB: u64 = 1 << 20;
/// Bytes of the kernel: four pages, the last one not full.
const KERNEL: usize = 0x3210;

/// Builds with this kernel and initrd, after a change to the options.
fn attempt(
    kernel: &[u8],
    initrd: Option<&[u8]>,
    change: impl FnOnce(&mut Options),
) -> Result<Image, Error> {
    let folder: TempDir = tempfile::tempdir().expect("a temporary folder");
    let file = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).expect("a temporary folder");
        path
    };
    let mut options = Options {
        paravisor: file("paravisor", &SmallElf::new(vec![code(0x41_0000)]).bytes()),
        payload: file("kernel", kernel),
        initrd: initrd.map(|bytes| file("initrd", bytes)),
        window: 64 * MIB,
        low_window: None,
        hard_cap: None,
        window_place: WindowPlace::High,
        unit_limit: Switch::On,
        ram: Some(RamMode::Accepted),
        features: FeatureOptions::USUAL,
        policy: PolicyOptions::USUAL,
        protocol: 0x4000_0001,
        cmdline: "console=ttyS0 quiet".into(),
        cpus: 1,
    };
    change(&mut options);
    build(&options)
}

fn pages(image: &Image) -> BTreeMap<u64, Vec<u8>> {
    let file = IgvmFile::new_from_binary(&image.bytes, Some(IsolationType::Snp));
    let file = file.expect("our own file");
    let list = file.directives().iter();
    let pages = list.filter_map(|directive| match directive {
        IgvmDirectiveHeader::PageData { gpa, data, .. } => Some((*gpa, data.clone())),
        _ => None,
    });
    pages.collect()
}

fn boot_block(pages: &BTreeMap<u64, Vec<u8>>) -> BootBlock {
    let (block, _) = BootBlock::read_from_prefix(&pages[&layout::BOOT_BLOCK]).expect("a page");
    assert_eq!(block.check(), Ok(()));
    block
}

fn u32_at(page: &[u8], offset: usize) -> u64 {
    u32::from_le_bytes(page[offset..offset + 4].try_into().expect("4 bytes")).into()
}

fn u64_at(page: &[u8], offset: usize) -> u64 {
    u64::from_le_bytes(page[offset..offset + 8].try_into().expect("8 bytes"))
}

#[test]
fn kernel_and_initrd_lie_where_the_boot_block_and_the_zero_page_say() {
    let initrd = [empty_archive(), vec![0x5a; 5000]].concat();
    let kernel = small_kernel(KERNEL);
    let pages = pages(&attempt(&kernel, Some(&initrd), |_| ()).expect("suitable files"));
    let block = boot_block(&pages);
    assert_eq!(block.payload_kind, PAYLOAD_LINUX);
    assert_eq!(block.payload_entry, 0x100_0200);
    assert_eq!(block.boot_params, 0x90_0000);
    assert!(block.cmdline.iter().all(|byte| *byte == 0));
    let initrd_at = 0x400_0000; // 16 + 48 MiB
    let needs = block.payload_needs();
    assert_eq!((needs.start, needs.end), (0x100_0000, initrd_at + 0x2000));
    let ranges: Vec<_> = block
        .ranges()
        .iter()
        .filter(|range| range.kind == KIND_GUEST_PAYLOAD)
        .map(|range| (range.gpa, range.bytes))
        .collect();
    let want = [
        (
            layout::LINUX_PAGES,
            layout::LINUX_PAGES_END - layout::LINUX_PAGES,
        ),
        (0x100_0000, 0x4000),
        (initrd_at, 0x2000),
    ];
    assert_eq!(ranges, want);

    let bytes = |start: u64, count: usize| -> Vec<u8> {
        let pages = pages.range(start..).flat_map(|(_, page)| page.clone());
        pages.take(count).collect()
    };
    assert_eq!(bytes(0x100_0000, KERNEL), kernel[2048..2048 + KERNEL]);
    assert_eq!(bytes(initrd_at, initrd.len()), initrd);
    // Every page carries its bytes: loaders differ in how they measure pages without.
    assert!(pages.values().all(|page| page.len() == 4096));
}

#[test]
fn the_zero_page_follows_the_boot_protocol() {
    let (kernel, initrd) = (small_kernel(KERNEL), empty_archive());
    let pages = pages(&attempt(&kernel, Some(&initrd), |_| ()).expect("suitable files"));
    let zero = &pages[&layout::ZERO_PAGE];
    assert_eq!(zero[0x210], 0xff, "type_of_loader");
    assert_eq!(u32_at(zero, 0x214), 0x100_0000, "code32_start");
    assert_eq!(u32_at(zero, 0x218), 0x400_0000, "ramdisk_image");
    assert_eq!(u32_at(zero, 0x21c), initrd.len() as u64, "ramdisk_size");
    assert_eq!(
        (u32_at(zero, 0xc0), u32_at(zero, 0xc4), u32_at(zero, 0xc8)),
        (0, 0, 0)
    );
    assert_eq!(u32_at(zero, 0x228), layout::COMMAND_LINE, "cmd_line_ptr");
    assert_eq!(u64_at(zero, 0x250), layout::SETUP_DATA, "setup_data");
    assert_eq!(u64_at(zero, 0x70), layout::ACPI_TABLES, "acpi_rsdp_addr");
    // Copied from the file, and nothing but that: the kernel takes the rest for garbage otherwise.
    assert_eq!(zero[0x1fe..0x210], kernel[0x1fe..0x210]);
    assert_eq!(zero[0x230..0x250], kernel[0x230..0x250]);
    assert_eq!(zero[0x258..0x26c], kernel[0x258..0x26c]);
    assert!(
        zero[0x26c..].iter().all(|byte| *byte == 0),
        "e820 is the paravisor's"
    );
    assert!(zero[0x78..0x1f1].iter().all(|byte| *byte == 0));

    let text = &pages[&layout::COMMAND_LINE];
    assert!(text.starts_with(b"console=ttyS0 quiet\0"));
    let data = &pages[&layout::LINUX_START_DATA];
    assert_eq!(u64_at(data, 0x10), 0x00af_9b00_0000_ffff, "__BOOT_CS");
    assert_eq!(u64_at(data, 0x18), 0x00cf_9300_0000_ffff, "__BOOT_DS");
    let node = &data[0x100..];
    assert_eq!(
        (u64_at(node, 0), u32_at(node, 8), u32_at(node, 12)),
        (0, 7, 4)
    );
    assert_eq!(u32_at(node, 16), layout::CC_BLOB);
    let blob = &pages[&layout::CC_BLOB];
    assert_eq!(u64_at(blob, 0), 0x1_4544_4d41, "magic and version");
    assert_eq!(
        (u64_at(blob, 8), u32_at(blob, 16)),
        (layout::SECRETS_COPY, 4096)
    );
    assert_eq!(
        (u64_at(blob, 24), u32_at(blob, 32)),
        (layout::CPUID_COPY, 4096)
    );
    assert!(pages[&layout::ACPI_TABLES].starts_with(b"RSD PTR "));
}

#[test]
fn a_kernel_without_initrd_has_none() {
    let pages = pages(&attempt(&small_kernel(KERNEL), None, |_| ()).expect("suitable"));
    let zero = &pages[&layout::ZERO_PAGE];
    assert_eq!((u32_at(zero, 0x218), u32_at(zero, 0x21c)), (0, 0));
    assert_eq!(boot_block(&pages).payload_needs_until, 0x400_0000);
}

#[test]
fn whoever_knows_the_memory_map_can_say_that_it_is_too_little() {
    let pages = pages(&attempt(&small_kernel(KERNEL), None, |_| ()).expect("suitable"));
    let block = boot_block(&pages);
    let check = |mib: u64| {
        let ram = [PhysRange::new(0, mib * MIB).expect("no wrap")];
        let placement = place(ram.into_iter(), &[], block.window_wish(), 1).expect("room");
        placement.check_payload(ram.into_iter(), &block.payload_needs())
    };
    // 64 MiB for the kernel, 2 MiB storage, 64 MiB window.
    assert_eq!(check(130), Ok(()));
    assert_eq!(check(128), Err(Reason::PayloadNoRoom));
}

#[test]
fn a_kernel_prefers_an_address_and_gets_the_next_that_is_free() {
    let entry = |preferred: u64, relocatable: bool| {
        let mut kernel = small_kernel(KERNEL);
        kernel[0x258..0x260].copy_from_slice(&preferred.to_le_bytes());
        kernel[0x234] = u8::from(relocatable);
        let image = attempt(&kernel, None, |_| ())?;
        Ok::<_, Error>(boot_block(&pages(&image)).payload_entry)
    };
    assert_eq!(entry(0x10_0000, true).expect("suitable"), 0x100_0200);
    assert_eq!(entry(0x123_4567, true).expect("suitable"), 0x140_0200);
    assert_eq!(entry(0x200_0000, false).expect("suitable"), 0x200_0200);
    for (preferred, relocatable) in [
        (0x10_0000, false),
        (0x123_4567, false),
        (0x6f00_0000, true),
        (u64::MAX, true),
    ] {
        let message = entry(preferred, relocatable)
            .expect_err("no room")
            .to_string();
        assert!(message.contains("pass a relocatable kernel"), "{message}");
    }
}

/// Expects one line with a cause that contains `part`, and a remedy.
fn refused(result: Result<Image, Error>, part: &str) {
    let message = match result {
        Ok(_) => panic!("accepted: {part}"),
        Err(error) => error.to_string(),
    };
    assert!(message.contains(part), "'{part}' is not in: {message}");
    assert!(!message.contains('\n'), "{message}");
    assert!(message.contains(';'), "no remedy: {message}");
}

#[test]
fn unsuitable_kernels_are_refused() {
    let with = |offset: usize, bytes: &[u8], part: &str| {
        let mut kernel = small_kernel(KERNEL);
        kernel[offset..offset + bytes.len()].copy_from_slice(bytes);
        refused(attempt(&kernel, None, |_| ()), part);
    };
    with(0x206, &[0x0b, 2], "older than 2.12");
    with(0x236, &[0, 0], "no 64-bit entry");
    with(0x211, &[0], "below 1 MiB");
    with(0x201, &[0x10], "impossible length");
    with(0x1f1, &[60], "shorter than its header says");
    with(0x1f4, &[0xff; 4], "shorter than its header says");
    with(0x1f4, &[1, 0, 0, 0], "shorter than its header says");
    with(0x230, &[0, 0, 3, 0], "alignment");
    with(0x230, &[0, 0, 0, 0x80], "alignment");
    with(0x260, &[0, 0x10, 0, 0], "less than it is");
    // Not recognized as a kernel at all.
    with(0x202, b"HdrX", "no ELF file");
    let whole = small_kernel(KERNEL);
    refused(attempt(&whole[..0x220], None, |_| ()), "cut short");
    refused(attempt(&whole[..0x900], None, |_| ()), "shorter than");
}

#[test]
fn unsuitable_options_are_refused() {
    let kernel = small_kernel(KERNEL);
    let archive = empty_archive();
    let with = |change: fn(&mut Options)| attempt(&kernel, Some(&archive), change);
    refused(
        with(|options| options.ram = Some(RamMode::Firmware)),
        "--ram accepted",
    );
    refused(
        with(|options| options.cmdline = "x".repeat(2048)),
        "shorten it to 2047",
    );
    assert!(with(|options| options.cmdline = "x".repeat(2047)).is_ok());
    refused(
        with(|options| options.cmdline = "a\0b".into()),
        "shorten it",
    );
    refused(
        with(|options| options.initrd = Some("/nowhere".into())),
        "cannot read /nowhere",
    );
    refused(
        attempt(&kernel, Some(b"hello"), |_| ()),
        "is no cpio archive",
    );
    let elf = SmallElf::new(vec![code(0x100_0000), data(0x100_1000, 5)]).bytes();
    refused(attempt(&elf, Some(&archive), |_| ()), "is no Linux kernel");
    // The kernel's own limit for the address of an initrd.
    let mut low = small_kernel(KERNEL);
    low[0x22c..0x230].copy_from_slice(&0x400_0040_u32.to_le_bytes());
    refused(
        attempt(&low, Some(&archive), |_| ()),
        "65 fit behind the kernel",
    );
    // A command line of more than a page is refused though the kernel would take it.
    let mut long = small_kernel(KERNEL);
    long[0x238..0x23c].copy_from_slice(&9000_u32.to_le_bytes());
    let text = attempt(&long, None, |options| options.cmdline = "x".repeat(4096));
    refused(text, "shorten it to 4095");
}
