// SPDX-License-Identifier: MIT OR Apache-2.0
//! Writes a launch image with a guest of a few instructions, to try the host alone:
//! `smoke_image OUTPUT MEMORY_MIB SWITCHES`.

use std::io::Write;

use snp::vmsa::{EFER_NXE, EFER_SVME, LAUNCH_VMSA, Vmsa, VmsaSegment};
use snp_host::launch::{PageToLaunch, kind, write};
use snp_host::switches::Switches;
use zerocopy::{FromZeros, IntoBytes};

core::arch::global_asm!(
    r#"
    .section .rodata
    .balign 4096
smoke_start:
    .code32
    mov ecx, 0xc0010130
    xor edx, edx
    mov eax, 2
    wrmsr
    rep vmmcall
    rdmsr
    and eax, 0xfff
    xor edx, edx
    cmp eax, 1
    mov eax, 0xb100
    je 1f
    mov eax, 0x1b100
1:  wrmsr
    rep vmmcall
    hlt
    .code64
smoke_end:
    .previous
    "#
);

unsafe extern "C" {
    static smoke_start: u8;
    static smoke_end: u8;
}

const BASE: u64 = 0x41_0000;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let output = arguments.next().expect("OUTPUT");
    let memory: u64 = arguments.next().expect("MEMORY_MIB").parse().expect("a number");
    let switches: u64 = arguments.next().expect("SWITCHES").parse().expect("a number");
    let (start, end) = (&raw const smoke_start, &raw const smoke_end);
    // SAFETY: both labels lie in one section, the end behind the start.
    let code = unsafe { std::slice::from_raw_parts(start, end.addr() - start.addr()) };
    let mut vmsa = Vmsa::new_zeroed();
    (vmsa.cr0, vmsa.cr4, vmsa.efer) = (0x31, 0x60, EFER_SVME | EFER_NXE);
    vmsa.cs = VmsaSegment::flat(8, VmsaSegment::CODE_32);
    for segment in [&mut vmsa.ds, &mut vmsa.es, &mut vmsa.ss, &mut vmsa.fs, &mut vmsa.gs] {
        *segment = VmsaSegment::flat(16, VmsaSegment::DATA);
    }
    (vmsa.rflags, vmsa.rip, vmsa.xcr0, vmsa.sev_features) = (2, BASE, 1, 0x29);
    let mut pages: Vec<PageToLaunch<'_>> = (BASE..)
        .step_by(4096)
        .zip(code.chunks(4096))
        .map(|(gpa, bytes)| PageToLaunch { gpa, kind: kind::NORMAL, bytes, pages: 0 })
        .collect();
    pages.push(PageToLaunch { gpa: LAUNCH_VMSA, kind: kind::VMSA, bytes: vmsa.as_bytes(), pages: 0 });
    let mut image = Vec::new();
    write(Switches::from_bits(switches), memory << 20, &pages, |piece| image.extend_from_slice(piece)).expect("pages fit");
    std::fs::File::create(output).and_then(|mut file| file.write_all(&image)).expect("written");
}
