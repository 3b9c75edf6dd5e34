// SPDX-License-Identifier: MIT OR Apache-2.0
//! MEMORY_FORM: a call whose registers lie in the caller's calling area (docs/PROTOCOL.md, section 5.16).
//!
//! For a caller that cannot load RCX, RDX and R8 itself. A stock Linux kernel lends modules one function that makes SVSM
//! calls, `snp_issue_svsm_attest_req`: it puts a copy of the caller's structure behind the header of the calling area and
//! the copy's address into RCX, sets RDX and R8 to all ones, and repeats the call with interrupts off for as long as RAX says
//! BUSY or INCOMPLETE. So RAX says only whether the block was read, and the code of the call in it comes back in R9.

use snp::address::GuestPhysicalAddress;
use snp::svsm::{CallRegisters, ResultCode};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::Request;

/// What RDX and R8 hold, and what a careful caller puts into R9.
pub const MARK: u64 = u64::MAX;

/// The registers of a call as they lie in memory, little endian.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct CallBlock {
    /// Protocol number and call number, as RAX would hold them.
    pub rax: u64,
    /// First argument.
    pub rcx: u64,
    /// Second argument.
    pub rdx: u64,
    /// Third argument.
    pub r8: u64,
}

/// Bytes of [`CallBlock`].
pub const BLOCK_BYTES: u64 = size_of::<CallBlock>() as u64;

const _: () = assert!(size_of::<CallBlock>() == 32);
const _: () = assert!(core::mem::offset_of!(CallBlock, rcx) == 8);
const _: () = assert!(core::mem::offset_of!(CallBlock, rdx) == 16);
const _: () = assert!(core::mem::offset_of!(CallBlock, r8) == 24);

impl CallBlock {
    /// The block that makes this call.
    pub const fn of(call: &CallRegisters) -> Self {
        Self {
            rax: call.rax,
            rcx: call.rcx,
            rdx: call.rdx,
            r8: call.r8,
        }
    }

    /// The call that the block makes.
    pub const fn registers(self) -> CallRegisters {
        CallRegisters::new(self.rax, [self.rcx, self.rdx, self.r8])
    }
}

/// Why the call in a block has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unanswered {
    /// The SVSM has not seen the call: RAX still asks for it, or is what the caller preset.
    NotRun,
    /// The SVSM did not read the block, for this reason. Nothing was done.
    Refused(ResultCode),
    /// The block was read, but R9 holds no code: this SVSM does not return that register. What was done is not known.
    NoCode,
}

/// The registers that make the call in the block at this address.
pub fn outer_call(protocol: u32, block: GuestPhysicalAddress) -> CallRegisters {
    CallRegisters {
        r9: MARK,
        ..Request::MemoryForm { block }.encode(protocol)
    }
}

/// The registers that answer MEMORY_FORM, from those that would answer the call in the block.
pub const fn encode_answer(inner: &CallRegisters) -> CallRegisters {
    CallRegisters {
        rax: ResultCode::SUCCESS.to_rax(),
        rcx: inner.rcx,
        rdx: inner.rdx,
        r8: inner.r8,
        r9: inner.rax,
    }
}

/// What the call in the block was answered, in the registers that its own form would have returned.
///
/// Decides by the registers alone. A kernel's own report of failure says less: it also stands for a host that gave a false
/// answer in the GHCB after the SVSM has run (clause P-5.16.9).
///
/// # Errors
/// [`Unanswered`].
pub const fn decode_answer(outer: &CallRegisters) -> Result<CallRegisters, Unanswered> {
    // A code has 32 bits; a call has the protocol's number above them, and a preset of all ones more.
    if outer.rax >> 32 != 0 {
        return Err(Unanswered::NotRun);
    }
    if outer.rax != ResultCode::SUCCESS.to_rax() {
        return Err(Unanswered::Refused(ResultCode::from_rax(outer.rax)));
    }
    if outer.r9 >> 32 != 0 {
        return Err(Unanswered::NoCode);
    }
    Ok(CallRegisters::new(
        outer.r9,
        [outer.rcx, outer.rdx, outer.r8],
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DEFAULT_PROTOCOL_NUMBER;

    fn grow() -> CallRegisters {
        let arguments = [0x0000_0001_0000_0000, 0x20_0000, 0x200_0000];
        CallRegisters::new(0x4000_0001_0000_0007, arguments)
    }

    fn outer() -> CallRegisters {
        outer_call(
            DEFAULT_PROTOCOL_NUMBER,
            GuestPhysicalAddress::new(0x80_4008),
        )
    }

    #[test]
    fn p_5_16_1_golden_block_and_registers() {
        let block = CallBlock::of(&grow());
        let golden: [u8; 32] = [
            7, 0, 0, 0, 1, 0, 0, 0x40, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0,
            2, 0, 0, 0, 0,
        ];
        assert_eq!(block.as_bytes(), golden);
        assert_eq!(block.registers(), grow());
        let asked = CallRegisters {
            rax: 0x4000_0001_0000_0010,
            rcx: 0x80_4008,
            rdx: u64::MAX,
            r8: u64::MAX,
            r9: u64::MAX,
        };
        assert_eq!(outer(), asked);
    }

    #[test]
    fn p_5_16_3_the_inner_code_is_apart_from_the_outer_one() {
        let busy = CallRegisters {
            rax: ResultCode::BUSY.to_rax(),
            ..grow()
        };
        let answer = encode_answer(&busy);
        assert_eq!((answer.rax, answer.r9), (0, 0x8000_0007));
        assert_eq!(decode_answer(&answer), Ok(busy));
        assert_eq!(
            crate::response::decode_answer(&busy),
            Err(ResultCode::BUSY.into())
        );
    }

    #[test]
    fn p_5_16_9_what_was_not_run_is_told_from_what_was_refused() {
        assert_eq!(decode_answer(&outer()), Err(Unanswered::NotRun));
        let preset = CallRegisters {
            rax: u64::MAX,
            ..CallRegisters::default()
        };
        assert_eq!(decode_answer(&preset), Err(Unanswered::NotRun));
        let with = |rax, r9| CallRegisters { rax, r9, ..outer() };
        let unsupported = ResultCode::UNSUPPORTED_CALL;
        assert_eq!(
            decode_answer(&with(unsupported.to_rax(), MARK)),
            Err(Unanswered::Refused(unsupported))
        );
        assert_eq!(decode_answer(&with(0, MARK)), Err(Unanswered::NoCode));
        assert!(decode_answer(&with(0, 0)).is_ok());
    }
}
