// SPDX-License-Identifier: MIT OR Apache-2.0
//! Golden registers of every request, and every way to get one wrong.

use snp::address::GuestPhysicalAddress;
use snp::svsm::{CallRegisters, ResultCode};

use super::{DescribeItem, Request};
use crate::{Call, DEFAULT_PROTOCOL_NUMBER};

const MIB: u64 = 1 << 20;

fn registers(call: Call, rcx: u64, rdx: u64, r8: u64) -> CallRegisters {
    let rax = 0x4000_0001_0000_0000 | u64::from(call.number());
    CallRegisters::new(rax, [rcx, rdx, r8])
}

/// One request of each kind, with the registers that docs/PROTOCOL.md gives for it.
fn golden() -> [(Request, CallRegisters); 15] {
    let base = GuestPhysicalAddress::new(0x3000_0000);
    let page = GuestPhysicalAddress::new(0x0123_4008);
    [
        (Request::Identify, registers(Call::Identify, 0, 0, 0)),
        (
            Request::Describe {
                window: 0,
                item: DescribeItem::WorkLimits,
            },
            registers(Call::Describe, 0, 2, 0),
        ),
        (
            Request::Attach { version: 1 },
            registers(Call::Attach, 1, 0, 0),
        ),
        (
            Request::ListGranted {
                list: page,
                epoch: 3,
            },
            registers(Call::ListGranted, 0x0123_4008, 3, 0),
        ),
        (
            Request::Adopt { epoch: 3, from: 2 },
            registers(Call::Adopt, 0x0000_0003_0000_0002, 0, 0),
        ),
        (
            Request::ReleaseOrphans { epoch: 3, from: 1 },
            registers(Call::ReleaseOrphans, 0x0000_0003_0000_0001, 0, 0),
        ),
        (
            Request::Detach { epoch: 3 },
            registers(Call::Detach, 0x0000_0003_0000_0000, 0, 0),
        ),
        (
            Request::Trace {
                buffer: page,
                bytes: 64,
                from: 1 << 40,
            },
            registers(Call::Trace, 0x0123_4008, 64, 1 << 40),
        ),
        (
            Request::Grow {
                window: 0,
                contiguous: false,
                epoch: 1,
                least: 2 * MIB,
                most: 32 * MIB,
            },
            registers(Call::Grow, 0x0000_0001_0000_0000, 0x20_0000, 0x200_0000),
        ),
        (
            Request::Grow {
                window: 7,
                contiguous: true,
                epoch: 1,
                least: 4 * MIB,
                most: 4 * MIB,
            },
            registers(Call::Grow, 0x0000_0001_0000_0107, 0x40_0000, 0x40_0000),
        ),
        (
            Request::Release {
                base,
                bytes: 4 * MIB,
                epoch: 1,
                generation: 9,
            },
            registers(Call::Release, 0x3000_0000, 0x40_0000, 0x0000_0001_0000_0009),
        ),
        (
            Request::Convert {
                list: page,
                epoch: 3,
            },
            registers(Call::Convert, 0x0123_4008, 3, 0),
        ),
        (
            Request::Statistics {
                buffer: page,
                bytes: 504,
            },
            registers(Call::Statistics, 0x0123_4008, 504, 0),
        ),
        (
            Request::SetLimits {
                window: 0,
                epoch: 2,
                cap: 64 * MIB,
            },
            registers(Call::SetLimits, 0x0000_0002_0000_0000, 0x400_0000, 0),
        ),
        (
            Request::MemoryForm { block: page },
            registers(Call::MemoryForm, 0x0123_4008, u64::MAX, u64::MAX),
        ),
    ]
}

#[test]
fn p_4_2_golden_registers_in_both_directions() {
    for (request, registers) in golden() {
        assert_eq!(
            request.encode(DEFAULT_PROTOCOL_NUMBER),
            registers,
            "{request:?}"
        );
        assert_eq!(Request::decode(&registers), Ok(request));
    }
}

#[test]
fn p_4_3_unknown_and_unoffered_calls_are_named_as_such() {
    for number in [13, 14, 15, 17, u64::from(u32::MAX)] {
        // Arguments do not matter: the call is not there.
        let rax = 0x4000_0001_0000_0000 | number;
        let registers = CallRegisters {
            rax,
            rcx: 7,
            ..CallRegisters::default()
        };
        assert_eq!(
            Request::decode(&registers),
            Err(ResultCode::UNSUPPORTED_CALL)
        );
    }
}

#[test]
fn p_4_4_reserved_bits_are_refused() {
    let bad = [
        registers(Call::Identify, 1, 0, 0),
        registers(Call::Identify, 0, 1, 0),
        registers(Call::Identify, 0, 0, 1),
        registers(Call::Describe, 1 << 63, 0, 0),
        registers(Call::Describe, 0, 3, 0),
        registers(Call::Describe, 0, 0, 1),
        registers(Call::Attach, 1, 1, 0),
        registers(Call::Attach, 1, 0, 1),
        registers(Call::ListGranted, 0x1000, 1 << 32, 0),
        registers(Call::ListGranted, 0x1000, 1, 1),
        registers(Call::Adopt, 2 << 32 | 1, 1, 0),
        registers(Call::Adopt, 2 << 32 | 1, 0, 1),
        registers(Call::ReleaseOrphans, 2 << 32 | 1, 1, 0),
        registers(Call::ReleaseOrphans, 2 << 32 | 1, 0, 1),
        registers(Call::Detach, 2 << 32 | 1, 0, 0),
        registers(Call::Detach, 2 << 32, 1, 0),
        registers(Call::Detach, 2 << 32, 0, 1),
        registers(Call::Grow, 1 << 9, 2 * MIB, 2 * MIB),
        registers(Call::Grow, 1 << 31, 2 * MIB, 2 * MIB),
        registers(Call::Convert, 0x1000, 1 << 32, 0),
        registers(Call::Convert, 0x1000, 1, 1),
        registers(Call::Statistics, 0x1000, 8, 1),
        registers(Call::SetLimits, 1 << 8, 2 * MIB, 0),
        registers(Call::SetLimits, 1 << 31, 2 * MIB, 0),
        registers(Call::SetLimits, 0, 2 * MIB, 1),
    ];
    for registers in bad {
        assert_eq!(
            Request::decode(&registers),
            Err(ResultCode::INVALID_PARAMETER),
            "{registers:?}"
        );
    }
}

#[test]
fn p_4_5_p_5_7_1_misaligned_zero_wrapping_and_crossing_ranges_are_refused() {
    let bad = [
        registers(Call::ListGranted, 0x1004, 1, 0),
        registers(Call::Convert, 0x1004, 1, 0),
        registers(Call::Grow, 8, 2 * MIB, 2 * MIB),
        registers(Call::Grow, 0, 0, 2 * MIB),
        registers(Call::Grow, 0, MIB, 2 * MIB),
        registers(Call::Grow, 0, 2 * MIB, 3 * MIB),
        registers(Call::Grow, 0, 4 * MIB, 2 * MIB),
        registers(Call::Release, 0x3000_1000, 2 * MIB, 1 << 32),
        registers(Call::Release, 0x3000_0000, 0, 1 << 32),
        registers(Call::Release, 0x3000_0000, MIB, 1 << 32),
        registers(Call::Release, 0x3000_0000, 0xFFFF_FFFF_FFE0_0000, 1 << 32),
        registers(Call::Release, 0xFFFF_FFFF_FFE0_0000, 2 * MIB, 1 << 32),
        registers(Call::Release, 0x000F_FFFF_FFE0_0000, 4 * MIB, 1 << 32),
        registers(Call::Statistics, 0x1004, 8, 0),
        registers(Call::Statistics, 0x1000, 0, 0),
        registers(Call::Statistics, 0x1000, 12, 0),
        registers(Call::Statistics, 0x1008, 4096, 0),
        registers(Call::Trace, 0x1004, 32, 0),
        registers(Call::Trace, 0x1000, 0, 0),
        registers(Call::Trace, 0x1000, 40, 0),
        registers(Call::Trace, 0x1008, 4096, 0),
        registers(Call::SetLimits, 0, MIB, 0),
        registers(Call::SetLimits, 8, 2 * MIB, 0),
    ];
    for registers in bad {
        assert_eq!(
            Request::decode(&registers),
            Err(ResultCode::INVALID_PARAMETER),
            "{registers:?}"
        );
    }
}

#[test]
fn p_5_16_1_a_block_is_aligned_behind_the_header_and_ends_in_its_page() {
    const ONES: u64 = u64::MAX;
    let bad = [
        (0x1000, ONES, ONES),
        (0x1004, ONES, ONES),
        (0x100C, ONES, ONES),
        (0x1FE8, ONES, ONES),
        (0x1FF8, ONES, ONES),
        (0x1008, 0, ONES),
        (0x1008, ONES, 0),
        (0x1008, ONES - 1, ONES),
        (0x1008, ONES, ONES >> 1),
        (ONES, ONES, ONES),
    ];
    for (rcx, rdx, r8) in bad {
        assert_eq!(
            Request::decode(&registers(Call::MemoryForm, rcx, rdx, r8)),
            Err(ResultCode::INVALID_PARAMETER),
            "{rcx:#x} {rdx:#x} {r8:#x}"
        );
    }
    for block in [0x1008, 0x1010, 0x1FE0] {
        let block = GuestPhysicalAddress::new(block);
        assert_eq!(
            Request::decode(&registers(Call::MemoryForm, block.bits(), ONES, ONES)),
            Ok(Request::MemoryForm { block })
        );
    }
}

#[test]
fn p_4_5_the_edges_are_accepted() {
    let good = [
        registers(Call::Statistics, 0x1000, 4096, 0),
        registers(Call::Statistics, 0x1FF8, 8, 0),
        registers(Call::Trace, 0x1000, 4096, u64::MAX),
        registers(Call::Trace, 0x1FE0, 32, 0),
        registers(Call::SetLimits, 0, 0, 0),
        registers(Call::Release, 0x000F_FFFF_FFE0_0000, 2 * MIB, 0),
        registers(Call::Describe, 7, 0, 0),
    ];
    for registers in good {
        let request = Request::decode(&registers);
        assert_eq!(
            request.map(|r| r.encode(DEFAULT_PROTOCOL_NUMBER)),
            Ok(registers)
        );
    }
}

#[test]
fn p_5_4_2_p_5_5_2_only_an_older_epoch_has_orphans() {
    for call in [Call::Adopt, Call::ReleaseOrphans] {
        for (epoch, from) in [(2, 2), (2, 3), (2, 0), (0, 0), (1, 1)] {
            let registers = registers(call, epoch << 32 | from, 0, 0);
            assert_eq!(
                Request::decode(&registers),
                Err(ResultCode::INVALID_PARAMETER),
                "{registers:?}"
            );
        }
    }
}
