// SPDX-License-Identifier: MIT OR Apache-2.0
//! Firmware as payload, by small images with OVMF's table and metadata.

mod small_elf;

#[cfg(feature = "beside-firmware")]
use std::collections::BTreeMap;

#[cfg(feature = "beside-firmware")]
use igvm::{IgvmDirectiveHeader, IgvmFile, IsolationType};
use igvm_builder::{
    Error, FeatureOptions, Image, Options, PolicyOptions, RamMode, Switch, WindowPlace, build,
};
#[cfg(feature = "beside-firmware")]
use paravisor::boot_block::{BootBlock, RAM_FIRMWARE};
use paravisor::layout;
use small_elf::{SmallElf, code, data};
#[cfg(feature = "beside-firmware")]
use zerocopy::FromBytes;

/// One section: address, bytes, kind.
type Section = (u32, u32, u32);

const MEMORY: Section = (0x80_0000, 0x9000, 1);
const SECRETS: Section = (0x80_d000, 0x1000, 2);
const CPUID: Section = (0x80_e000, 0x1000, 3);
const CALLING_AREA: Section = (0x80_f000, 0x1000, 4);

/// An image of 64 KiB whose table has another entry in front of that for the metadata.
fn firmware(sections: &[Section]) -> Vec<u8> {
    let mut image = vec![0x90; 0x1_0000];
    let mut metadata = b"ASEV".to_vec();
    let length = u32::try_from(16 + 12 * sections.len()).expect("few");
    let count = u32::try_from(sections.len()).expect("few");
    for word in [length, 1, count] {
        metadata.extend(word.to_le_bytes());
    }
    for (base, bytes, kind) in sections {
        for word in [base, bytes, kind] {
            metadata.extend(word.to_le_bytes());
        }
    }
    image[0x8000..0x8000 + metadata.len()].copy_from_slice(&metadata);
    let guid = |text: &str| {
        let digits = text.replace('-', "");
        let byte = |at: usize| u8::from_str_radix(&digits[2 * at..2 * at + 2], 16).expect("hex");
        // The first three fields are little endian.
        [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15].map(byte)
    };
    let mut table = Vec::new();
    for (data, name) in [
        (0x8000_u32, "dc886566-984a-4798-a75e-5585a7bf67cc"),
        (0xb004, "00f771de-1a7e-4fcb-890e-68c77e2fb44e"),
    ] {
        table.extend(data.to_le_bytes());
        table.extend(22_u16.to_le_bytes());
        table.extend(guid(name));
    }
    let whole = u16::try_from(table.len() + 18).expect("small");
    table.extend(whole.to_le_bytes());
    table.extend(guid("96b582de-1fb2-45f7-baea-a366c55a082d"));
    let end = image.len() - 32;
    image[end - table.len()..end].copy_from_slice(&table);
    image
}

fn image_of(sections: &[Section], change: impl FnOnce(&mut Options)) -> Result<Image, Error> {
    built(&firmware(sections), change)
}

/// The image of a payload with these contents.
fn built(payload: &[u8], change: impl FnOnce(&mut Options)) -> Result<Image, Error> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let base = layout::IMAGE_LOAD;
    let paravisor = SmallElf::new(vec![code(base), data(base + 0x1000, 0x1000)]);
    let mut options = Options {
        paravisor: folder.path().join("paravisor"),
        payload: folder.path().join("payload"),
        initrd: None,
        window: 64 << 20,
        low_window: None,
        hard_cap: None,
        window_place: WindowPlace::High,
        unit_limit: Switch::On,
        ram: None,
        features: FeatureOptions::USUAL,
        policy: PolicyOptions::USUAL,
        protocol: 0x4000_0001,
        cmdline: String::new(),
        cpus: 1,
    };
    std::fs::write(&options.paravisor, paravisor.bytes()).expect("a temporary folder");
    std::fs::write(&options.payload, payload).expect("a temporary folder");
    change(&mut options);
    build(&options)
}

fn refused(sections: &[Section]) -> String {
    let error = image_of(sections, |_| ()).expect_err("it is unsuitable");
    error.to_string()
}

const GOOD: [Section; 4] = [CALLING_AREA, MEMORY, SECRETS, CPUID];

#[test]
fn unsuitable_firmware_is_refused_in_one_line() {
    for (sections, part) in [
        (&[MEMORY, CPUID, CALLING_AREA][..], "names no secrets page"),
        (&[MEMORY, SECRETS, CALLING_AREA], "names no CPUID page"),
        (&[MEMORY, SECRETS, CPUID], "does not know an SVSM"),
        (&[SECRETS, SECRETS, CPUID, CALLING_AREA], "damaged"),
        (&[(0x80_0000, 0x9000, 9)], "damaged"),
        (&[(0x80_0800, 0x1000, 1)], "damaged"),
        (&[(0x4000_0000, 0x1000, 1)], "damaged"),
    ] {
        // The place is looked at once the metadata are whole.
        let message = refused(sections);
        let place = message.contains("beside-firmware") && !cfg!(feature = "beside-firmware");
        assert!(
            place && part != "damaged" || message.contains(part),
            "{message}"
        );
        assert_eq!(message.lines().count(), 1, "{message}");
    }
    let mut cut = firmware(&GOOD);
    cut[0x8000] = 0;
    let message = built(&cut, |_| ()).expect_err("no metadata").to_string();
    assert!(message.contains("no SEV metadata"), "{message}");
    let wrong = image_of(&GOOD, |options| options.ram = Some(RamMode::Accepted));
    assert!(matches!(wrong, Err(Error::FirmwareOptions)));
    let wrong = image_of(&GOOD, |options| options.cmdline = "x".into());
    assert!(matches!(wrong, Err(Error::FirmwareOptions)));
}

#[cfg(not(feature = "beside-firmware"))]
#[test]
fn a_paravisor_at_its_usual_place_would_be_taken_for_ram() {
    let refused = image_of(&GOOD, |_| ());
    assert!(matches!(refused, Err(Error::FirmwarePlace(_))));
}

#[cfg(feature = "beside-firmware")]
#[test]
fn the_image_is_launched_below_4_gib_and_its_memory_as_zeros() {
    let image = image_of(&GOOD, |_| ()).expect("suitable firmware");
    let file = IgvmFile::new_from_binary(&image.bytes, Some(IsolationType::Snp));
    let pages: BTreeMap<u64, Vec<u8>> = file
        .expect("our own file")
        .directives()
        .iter()
        .filter_map(|directive| match directive {
            IgvmDirectiveHeader::PageData { gpa, data, .. } => Some((*gpa, data.clone())),
            _ => None,
        })
        .collect();
    let all = firmware(&GOOD);
    assert_eq!(pages[&0xffff_0000], all[..4096]);
    assert_eq!(pages[&0xffff_f000], all[0xf000..]);
    for gpa in [0x80_0000, 0x80_8000, 0x80_d000, 0x80_f000] {
        assert!(pages[&gpa].iter().all(|byte| *byte == 0), "{gpa:#x}");
    }
    assert!(!pages.contains_key(&0x80_9000), "in no section");
    let (block, _) = BootBlock::read_from_prefix(&pages[&layout::BOOT_BLOCK]).expect("a page");
    assert!(block.is_firmware() && block.check().is_ok());
    assert_eq!(block.ram_mode, RAM_FIRMWARE);
    let found = [block.secrets_page, block.cpuid_page, block.calling_area];
    assert_eq!(found, [0x80_d000, 0x80_e000, 0x80_f000]);
    let image = block.firmware();
    assert_eq!((image.start, image.end), (0xffff_0000, 1 << 32));
}
