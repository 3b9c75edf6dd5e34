// SPDX-License-Identifier: MIT OR Apache-2.0
use snp::cpuid::{CpuidPage, LEAF_ENCRYPTION};
use snp::vmsa::{EFER_SVME, LAUNCH_VMSA, Vmsa};
use zerocopy::{FromZeros, IntoBytes};

use super::bench::{Bench, CODE, FREE, MEMORY};
use crate::hardware::PhysicalMemory;
use crate::launch::{PageToLaunch, kind};
use crate::shared_view::pattern;
use crate::switches::Switches;

fn page(gpa: u64, kind: u32, bytes: &[u8]) -> PageToLaunch<'_> {
    PageToLaunch {
        gpa,
        kind,
        bytes,
        pages: 0,
    }
}

#[test]
fn launch_pages_are_validated_and_nothing_else_is() {
    let mut bench = Bench::launched(Switches::new(), &[page(FREE, kind::NORMAL, &[7; 8])]).unwrap();
    assert_eq!(bench.peek(FREE), 0x0707_0707_0707_0707);
    assert_eq!(bench.machine.hardware.read_u64(FREE), pattern(FREE));
    let (launched, other) = (bench.index(FREE), bench.index(FREE + 0x1000));
    let entry = *bench.rmp().entry(launched).unwrap();
    assert!(entry.assigned && entry.validated);
    assert!(!bench.rmp().entry(other).unwrap().assigned);
    assert!(bench.cpu.vcpu().is_unpaged() && bench.cpu.vcpu().vmcb.save.rip == CODE);
}

#[test]
fn the_host_fills_secrets_and_cpuid() {
    let mut cpuid = CpuidPage::new_zeroed();
    cpuid.count = 1;
    cpuid.entries[0].eax_in = LEAF_ENCRYPTION;
    let pages = [
        page(FREE, kind::SECRETS, &[]),
        page(FREE + 0x1000, kind::CPUID, cpuid.as_bytes()),
    ];
    let bench = Bench::launched(Switches::new(), &pages).unwrap();
    assert_eq!(bench.peek(FREE) & 0xFFFF_FFFF, 3);
    assert_ne!(bench.peek(FREE + 0x20), bench.peek(FREE + 0x40));
    assert_eq!(bench.peek(FREE + 0x1000 + 16 + 24) >> 32 & 0x3F, 51);
}

#[test]
fn required_memory_and_private_ram_wait_for_validation() {
    let required = PageToLaunch {
        gpa: FREE,
        kind: kind::REQUIRED,
        bytes: &[],
        pages: 3,
    };
    let mut bench = Bench::launched(Switches::new(), &[required]).unwrap();
    let first = bench.index(FREE);
    for index in first..first + 3 {
        let entry = bench.rmp().entry(index).unwrap();
        assert!(entry.assigned && !entry.validated && !entry.large);
    }
    assert!(!bench.rmp().entry(first + 3).unwrap().assigned);

    let private = Switches::new().with_ram_starts_private(true);
    let mut bench = Bench::launched(private, &[]).unwrap();
    let (code, large) = (bench.index(CODE), bench.index(0x60_0000));
    assert!(bench.rmp().entry(large).unwrap().large);
    assert!(bench.rmp().entry(code).unwrap().validated);
    let beside = *bench.rmp().entry(code + 6).unwrap();
    assert!(beside.assigned && !beside.validated && !beside.large);
    let small = private.with_small_pages_only(true);
    assert!(
        !Bench::launched(small, &[])
            .unwrap()
            .rmp()
            .entry(large)
            .unwrap()
            .large
    );
}

#[test]
fn what_does_not_fit_is_refused_by_name() {
    let beyond = Bench::launched(Switches::new(), &[page(MEMORY, kind::ZERO, &[])])
        .err()
        .unwrap();
    assert!(beyond.contains("died what=launch-page gpa=0x1000000\n"));
    let vmsa = Bench::launched(Switches::new(), &[page(0xFFFF_FFFF_F000, kind::VMSA, &[])]).err();
    assert!(vmsa.unwrap().contains("launch-page gpa=0xfffffffff000"));
    let mut secure_tsc = Vmsa::new_zeroed();
    (secure_tsc.efer, secure_tsc.sev_features) = (EFER_SVME, 0x229);
    let vmsa = page(LAUNCH_VMSA, kind::VMSA, secure_tsc.as_bytes());
    let vmsa = Bench::launched(Switches::new(), &[vmsa]).err().unwrap();
    assert!(
        vmsa.contains("died what=launch-feature-secure-tsc gpa="),
        "{vmsa}"
    );
}
