// SPDX-License-Identifier: MIT OR Apache-2.0
//! Wrong calls of the core protocol (SVSM specification, chapter 6), the window's addresses first
//! among them: no page of it may ever be validated or become a VMSA.

use snp::address::{GuestPhysicalAddress, LARGE_PAGE_SIZE, PAGE_SIZE, PageSize};
use snp::svsm::{
    CallRegisters, PvalidateListEntry, PvalidateListHeader, ResultCode, core_protocol,
};

use super::case::registers;
use super::{Case, Facts, ListPage};

const UNSUPPORTED_CALL: ResultCode = ResultCode::UNSUPPORTED_CALL;
const ADDRESS: ResultCode = ResultCode::INVALID_ADDRESS;
const PARAMETER: ResultCode = ResultCode::INVALID_PARAMETER;
const NO_CHANGE: ResultCode = ResultCode(core_protocol::ERROR_NO_CHANGE);

const fn call(number: u32, arguments: [u64; 3]) -> CallRegisters {
    registers(core_protocol::NUMBER, number, arguments)
}

const fn remap(calling_area: u64) -> CallRegisters {
    call(core_protocol::REMAP_CA, [calling_area, 0, 0])
}

const fn create(vmsa: u64, calling_area: u64, apic_id: u64) -> CallRegisters {
    call(core_protocol::CREATE_VCPU, [vmsa, calling_area, apic_id])
}

const fn delete(vmsa: u64) -> CallRegisters {
    call(core_protocol::DELETE_VCPU, [vmsa, 0, 0])
}

const fn query(protocol: u32, version: u32) -> CallRegisters {
    let wanted = (protocol as u64) << 32 | version as u64;
    call(core_protocol::QUERY_PROTOCOL, [wanted, 0, 0])
}

const fn pvalidate(list: u64) -> CallRegisters {
    call(core_protocol::PVALIDATE, [list, 0, 0])
}

const fn entry(page: u64, size: PageSize, validate: bool) -> PvalidateListEntry {
    PvalidateListEntry::request(GuestPhysicalAddress::new(page), size, validate)
}

/// PVALIDATE of a list with this one entry.
fn pvalidate_one(facts: &Facts, list: &mut ListPage, entry: PvalidateListEntry) -> CallRegisters {
    list.pvalidate(entry);
    pvalidate(facts.list)
}

/// PVALIDATE(1) of one small page.
fn validate(facts: &Facts, list: &mut ListPage, page: u64) -> CallRegisters {
    pvalidate_one(facts, list, entry(page, PageSize::Size4K, true))
}

/// PVALIDATE(0) of one small page.
fn rescind(facts: &Facts, list: &mut ListPage, page: u64) -> CallRegisters {
    pvalidate_one(facts, list, entry(page, PageSize::Size4K, false))
}

/// PVALIDATE of a list with this header at `offset` of the list page.
fn with_header(
    facts: &Facts,
    list: &mut ListPage,
    offset: u16,
    entries: u16,
    next: u16,
) -> CallRegisters {
    let header = PvalidateListHeader {
        entries,
        next,
        reserved: 0,
    };
    list.pvalidate_header(usize::from(offset), header);
    pvalidate(facts.list + u64::from(offset))
}

/// All of them; they need no attachment, but a window to be refused.
pub const ALL: &[Case] = &[
    Case::refused("core-call-unknown", UNSUPPORTED_CALL, |_, _| {
        call(0x100, [0; 3])
    }),
    Case::refused("core-deposit", UNSUPPORTED_CALL, |f, _| {
        call(core_protocol::DEPOSIT_MEM, [f.list, 0, 0])
    }),
    Case::refused("core-withdraw", UNSUPPORTED_CALL, |f, _| {
        call(core_protocol::WITHDRAW_MEM, [f.list, 0, 0])
    }),
    Case::refused("core-configure-vtom", UNSUPPORTED_CALL, |_, _| {
        call(core_protocol::CONFIGURE_VTOM, [1, 0, 0])
    }),
    // QUERY_PROTOCOL answers SUCCESS with an empty range.
    Case::refused("query-unknown-protocol", ResultCode::SUCCESS, |_, _| {
        query(0x1234_5678, 1)
    })
    .returning(0),
    Case::refused("query-unknown-version", ResultCode::SUCCESS, |f, _| {
        query(f.protocol, 99)
    })
    .returning(0),
    Case::refused("query-core-version-2", ResultCode::SUCCESS, |_, _| {
        query(0, 2)
    })
    .returning(0),
    // PVALIDATE: the list.
    Case::refused("pvalidate-misaligned", PARAMETER, |f, _| {
        pvalidate(f.list + 4)
    }),
    Case::refused("pvalidate-no-entries", PARAMETER, |f, l| {
        with_header(f, l, 0, 0, 0)
    }),
    Case::refused("pvalidate-crossing", PARAMETER, |f, l| {
        with_header(f, l, 0, 512, 0)
    }),
    Case::refused("pvalidate-crossing-at-end", PARAMETER, |f, l| {
        with_header(f, l, 4088, 1, 0)
    }),
    Case::refused("pvalidate-cursor", PARAMETER, |f, l| {
        with_header(f, l, 0, 1, 1)
    }),
    Case::refused("pvalidate-list-in-window", ADDRESS, |f, _| {
        pvalidate(f.window.start)
    }),
    Case::refused("pvalidate-list-in-paravisor", ADDRESS, |f, _| {
        pvalidate(f.paravisor_page())
    }),
    Case::refused("pvalidate-list-unvalidated", ADDRESS, |f, _| {
        pvalidate(f.unvalidated)
    }),
    Case::refused("pvalidate-list-shared", ADDRESS, |f, _| pvalidate(f.shared)),
    Case::refused("pvalidate-list-device", ADDRESS, |_, _| {
        pvalidate(Facts::DEVICE)
    }),
    // PVALIDATE: the entry.
    Case::refused("pvalidate-entry-reserved", PARAMETER, |f, l| {
        let wrong = entry(f.private, PageSize::Size4K, false).with_reserved(1);
        pvalidate_one(f, l, wrong)
    }),
    Case::refused("pvalidate-entry-size", PARAMETER, |f, l| {
        let wrong = entry(f.private, PageSize::Size4K, false).with_size_code(2);
        pvalidate_one(f, l, wrong)
    }),
    Case::refused("pvalidate-entry-misaligned", PARAMETER, |f, l| {
        pvalidate_one(
            f,
            l,
            entry(f.private_large + PAGE_SIZE, PageSize::Size2M, false),
        )
    }),
    Case::refused("pvalidate-twice", NO_CHANGE, |f, l| {
        validate(f, l, f.private)
    }),
    Case::refused("pvalidate-window", ADDRESS, |f, l| {
        validate(f, l, f.window.start)
    }),
    Case::refused("pvalidate-window-end", ADDRESS, |f, l| {
        validate(f, l, f.window.end - PAGE_SIZE)
    }),
    Case::refused("pvalidate-window-large", ADDRESS, |f, l| {
        pvalidate_one(f, l, entry(f.window.start, PageSize::Size2M, true))
    }),
    Case::refused("rescind-window", ADDRESS, |f, l| {
        rescind(f, l, f.window.start)
    }),
    Case::refused("pvalidate-paravisor", ADDRESS, |f, l| {
        validate(f, l, f.paravisor_page())
    }),
    Case::refused("rescind-paravisor", ADDRESS, |f, l| {
        rescind(f, l, f.paravisor_page())
    }),
    Case::refused("pvalidate-storage", ADDRESS, |f, l| {
        validate(f, l, f.storage_page())
    }),
    Case::refused("rescind-storage", ADDRESS, |f, l| {
        rescind(f, l, f.storage_page())
    }),
    Case::refused("rescind-launch-vmsa", ADDRESS, |f, l| {
        rescind(f, l, Facts::LAUNCH_VMSA)
    }),
    Case::refused("pvalidate-device", ADDRESS, |f, l| {
        validate(f, l, Facts::DEVICE)
    }),
    Case::refused("pvalidate-beyond", ADDRESS, |f, l| {
        validate(f, l, Facts::BEYOND)
    }),
    Case::refused("rescind-unvalidated", NO_CHANGE, |f, l| {
        rescind(f, l, f.unvalidated)
    }),
    Case::refused("pvalidate-last-page", ADDRESS, |f, l| {
        validate(f, l, PAGE_SIZE.wrapping_neg())
    }),
    Case::refused("pvalidate-last-large-page", ADDRESS, |f, l| {
        let page = LARGE_PAGE_SIZE.wrapping_neg();
        pvalidate_one(f, l, entry(page, PageSize::Size2M, true))
    }),
    Case::refused("pvalidate-entry-size-3", PARAMETER, |f, l| {
        pvalidate_one(
            f,
            l,
            entry(f.private, PageSize::Size4K, false).with_size_code(3),
        )
    }),
    Case::refused("rescind-calling-area", ADDRESS, |f, l| {
        rescind(f, l, f.calling_area)
    }),
    // REMAP_CA.
    Case::refused("remap-misaligned", PARAMETER, |f, _| remap(f.private + 8)),
    Case::refused("remap-window", ADDRESS, |f, _| remap(f.window.start)),
    Case::refused("remap-paravisor", ADDRESS, |f, _| remap(f.paravisor_page())),
    Case::refused("remap-storage", ADDRESS, |f, _| remap(f.storage_page())),
    Case::refused("remap-unvalidated", ADDRESS, |f, _| remap(f.unvalidated)),
    Case::refused("remap-shared", ADDRESS, |f, _| remap(f.shared)),
    Case::refused("remap-device", ADDRESS, |_, _| remap(Facts::DEVICE)),
    Case::refused("remap-launch-vmsa", ADDRESS, |_, _| {
        remap(Facts::LAUNCH_VMSA)
    }),
    // CREATE_VCPU and DELETE_VCPU.
    Case::refused("create-vmsa-in-window", ADDRESS, |f, _| {
        create(f.window.start, f.private, 0)
    }),
    Case::refused("create-area-in-window", ADDRESS, |f, _| {
        create(f.private, f.window.start, 0)
    }),
    Case::refused("create-vmsa-in-paravisor", ADDRESS, |f, _| {
        create(f.paravisor_page(), f.private, 0)
    }),
    Case::refused("create-vmsa-unvalidated", ADDRESS, |f, _| {
        create(f.unvalidated, f.private, 0)
    }),
    Case::refused("create-vmsa-shared", ADDRESS, |f, _| {
        create(f.shared, f.private, 0)
    }),
    Case::refused("create-vmsa-misaligned", PARAMETER, |f, _| {
        create(f.private + 8, f.list, 0)
    }),
    Case::refused("create-area-misaligned", PARAMETER, |f, _| {
        create(f.private, f.list + 8, 0)
    }),
    Case::refused("create-same-page-twice", PARAMETER, |f, _| {
        create(f.private, f.private, 0)
    }),
    Case::refused("create-absent-processor", PARAMETER, |f, _| {
        create(f.private, f.list, 0xffff_fffe)
    }),
    Case::refused("create-processor-reserved", PARAMETER, |f, _| {
        create(f.private, f.list, 1 << 32)
    }),
    Case::refused("create-large-aligned-vmsa", PARAMETER, |f, _| {
        create(f.private_large, f.private, 0)
    }),
    // The boot vCPU has the processor already, whatever the page holds.
    Case::refused("create-second-vcpu", ResultCode::INVALID_REQUEST, |f, _| {
        create(f.list, f.private, 0)
    }),
    Case::refused("create-area-unvalidated", ADDRESS, |f, _| {
        create(f.private, f.unvalidated, 0)
    }),
    Case::refused("create-area-shared", ADDRESS, |f, _| {
        create(f.private, f.shared, 0)
    }),
    Case::refused("create-vmsa-is-calling-area", ADDRESS, |f, _| {
        create(f.calling_area, f.private, 0)
    }),
    Case::refused("create-area-is-calling-area", ADDRESS, |f, _| {
        create(f.private, f.calling_area, 0)
    }),
    Case::refused("delete-unvalidated", ADDRESS, |f, _| delete(f.unvalidated)),
    Case::refused("delete-shared", ADDRESS, |f, _| delete(f.shared)),
    Case::refused("delete-calling-area", ADDRESS, |f, _| {
        delete(f.calling_area)
    }),
    Case::refused("delete-launch-vmsa", ADDRESS, |_, _| {
        delete(Facts::LAUNCH_VMSA)
    }),
    Case::refused("delete-window", ADDRESS, |f, _| delete(f.window.start)),
    Case::refused("delete-not-a-vmsa", ADDRESS, |f, _| delete(f.private)),
    Case::refused("delete-paravisor", ADDRESS, |f, _| {
        delete(f.paravisor_page())
    }),
    Case::refused("delete-misaligned", PARAMETER, |f, _| delete(f.private + 8)),
];
