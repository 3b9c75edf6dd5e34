// SPDX-License-Identifier: MIT OR Apache-2.0
//! Writes a launch image with a guest that goes through the machine's rules (`self_check.S`), to
//! try this host without paravisor and IGVM file: `self_check OUTPUT MEMORY_MIB SWITCHES MODE`.
//! With MODE 0 the host must end with code 0; 1 to 3 are violations (code 3), 4 damages the
//! pattern of a page that is not shared (code 5). 5 to 8 go on with two CPUs (`smp_check.S`) and
//! end with code 0, 6 on a host that never kicks CPUs, 7 on one that does so for a flush only (switch `kick_manner`);
//! in 8 one CPU restores its floating-point state over and over.

use std::io::Write;

use snp::vmsa::{EFER_NXE, EFER_SVME, LAUNCH_VMSA, Vmsa, VmsaSegment};
use snp_host::launch::{PageToLaunch, kind, write};
use snp_host::memory_plan::GuestMemory;
use snp_host::switches::Switches;
use zerocopy::{FromZeros, IntoBytes};

core::arch::global_asm!(
    ".section .rodata",
    ".balign 4096",
    "self_check_start:",
    include_str!("self_check.S"),
    include_str!("smp_check.S"),
    // Last word of the image: the mode, read in step 20.
    ".balign 4096",
    ".skip 4092",
    "hostile: .long 0",
    "image_end:",
    "self_check_end:",
    ".code64",
    ".previous",
);

unsafe extern "C" {
    static self_check_start: u8;
    static self_check_end: u8;
}

/// Where the guest's code and tables lie.
const CODE: u64 = 0x41_0000;
const TABLES: u64 = 0x42_0000;

/// First mode with two CPUs.
const TWO_CPUS: u64 = 5;

fn guest() -> Vec<u8> {
    let (start, end) = (&raw const self_check_start, &raw const self_check_end);
    // SAFETY: both labels lie in one section, the end behind the start.
    unsafe { std::slice::from_raw_parts(start, end.addr() - start.addr()) }.to_vec()
}

fn boot_vmsa() -> Vmsa {
    let mut vmsa = Vmsa::new_zeroed();
    (vmsa.cr0, vmsa.cr4, vmsa.efer) = (0x31, 0x60, EFER_SVME | EFER_NXE);
    vmsa.cs = VmsaSegment::flat(8, VmsaSegment::CODE_32);
    for segment in [
        &mut vmsa.ds,
        &mut vmsa.es,
        &mut vmsa.ss,
        &mut vmsa.fs,
        &mut vmsa.gs,
    ] {
        *segment = VmsaSegment::flat(16, VmsaSegment::DATA);
    }
    (vmsa.rflags, vmsa.rip, vmsa.xcr0, vmsa.sev_features) = (2, CODE, 1, 0x29);
    // The 32-bit part needs a stack for a moment.
    vmsa.rsp = TABLES + 0x5000;
    vmsa
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [output, numbers @ ..] = arguments.as_slice() else {
        panic!("usage: self_check OUTPUT MEMORY_MIB SWITCHES MODE");
    };
    let numbers: Vec<u64> = numbers
        .iter()
        .map(|text| text.parse().expect("a number"))
        .collect();
    let [memory_mib, switches, mode] = numbers[..] else {
        panic!("three numbers");
    };
    let mut code = guest();
    let end = code.len();
    code[end - 4..].copy_from_slice(&u32::try_from(mode).expect("small").to_le_bytes());
    let vmsa = boot_vmsa();
    let page = |gpa, kind, bytes| PageToLaunch {
        gpa,
        kind,
        bytes,
        pages: 0,
    };
    let mut pages: Vec<PageToLaunch<'_>> = (CODE..)
        .step_by(4096)
        .zip(code.chunks(4096))
        .map(|(gpa, bytes)| page(gpa, kind::NORMAL, bytes))
        .collect();
    pages.extend((0..5).map(|number| page(TABLES + number * 4096, kind::ZERO, &[])));
    pages.push(page(LAUNCH_VMSA, kind::VMSA, vmsa.as_bytes()));
    let mut image = Vec::new();
    let mut sink = |piece: &[u8]| image.extend_from_slice(piece);
    write(
        Switches::from_bits(switches),
        GuestMemory::new(memory_mib << 20),
        if mode >= TWO_CPUS { 2 } else { 1 },
        &pages,
        &mut sink,
    )
    .expect("pages fit");
    let file = std::fs::File::create(output);
    file.and_then(|mut file| file.write_all(&image))
        .expect("written");
}
