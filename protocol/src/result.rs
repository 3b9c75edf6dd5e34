// SPDX-License-Identifier: MIT OR Apache-2.0
//! Result codes of this protocol, and who is to blame for each (clauses P-6.1 to P-6.3).
//!
//! Generic codes are AMD 58019 section 5.1 and come from [`snp::svsm::ResultCode`]; own codes follow at 0x8000_1000.

use snp::svsm::ResultCode;

/// No ATTACH has happened.
pub const NOT_ATTACHED: ResultCode = ResultCode(0x8000_1001);
/// The epoch named is not the current one: another kernel has attached since.
pub const STALE_EPOCH: ResultCode = ResultCode(0x8000_1002);
/// Granting the least that was asked for would exceed the cap.
pub const CAP_REACHED: ResultCode = ResultCode(0x8000_1003);
/// The host declined, in good order; nothing was granted.
pub const HOST_REFUSED: ResultCode = ResultCode(0x8000_1004);
/// No run of free chunks is long enough.
pub const NO_CONTIGUOUS_RUN: ResultCode = ResultCode(0x8000_1005);
/// A contiguous wish above one batch; RCX holds the limit in bytes.
pub const TOO_LARGE: ResultCode = ResultCode(0x8000_1006);
/// The range is not held by the epoch and generation named.
pub const NOT_HELD: ResultCode = ResultCode(0x8000_1007);
/// The host's reply broke the rules; the chunks concerned are quarantined.
pub const HOST_MISBEHAVED: ResultCode = ResultCode(0x8000_1008);
/// The service ran out of records; reserved, version 1 never answers it.
pub const RECORDS_EXHAUSTED: ResultCode = ResultCode(0x8000_1009);
/// ATTACH asked for a version that is not offered.
pub const UNSUPPORTED_VERSION: ResultCode = ResultCode(0x8000_100A);
/// A page changed its state behind the service's back while it was converted; it is quarantined.
pub const PAGE_LOST: ResultCode = ResultCode(0x8000_100B);

/// First generic error or retry code.
const GENERIC_FIRST: u32 = 0x8000_0000;
/// First code of this protocol's own.
const OWN_FIRST: u32 = 0x8000_1000;

/// Elements of an array with one counter per refusal (clause P-8.4).
pub const REFUSAL_COUNTERS: usize = 24;

/// Counter of a refusal: generic codes 0x8000_0000 + n are n (0 to 7), own codes 0x8000_1000 + n are 8 + n (8 to 23);
/// `None` for success and for codes that this protocol does not define.
pub const fn refusal_index(code: ResultCode) -> Option<usize> {
    let bits = code.0;
    if bits >= GENERIC_FIRST && bits < GENERIC_FIRST + 8 {
        Some((bits - GENERIC_FIRST) as usize)
    } else if bits >= OWN_FIRST && bits < OWN_FIRST + 16 {
        Some((bits - OWN_FIRST) as usize + 8)
    } else {
        None
    }
}

/// Who has to act on a result (clause P-6.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Blame {
    /// Nobody: the call did what it could.
    Nobody,
    /// The caller passed something wrong or asked at the wrong time; repeating does not help.
    Caller,
    /// The host declined or misbehaved; repeating later may help.
    Host,
    /// A limit of the pool is reached; releasing, or raising the cap, helps.
    Pool,
    /// Somebody else is at work on the same page or chunk; repeat the call.
    Contention,
    /// A code that this version does not define.
    Unknown,
}

/// Who is to blame for a result.
pub fn blame(code: ResultCode) -> Blame {
    match code {
        ResultCode::SUCCESS | ResultCode::INCOMPLETE => Blame::Nobody,
        ResultCode::BUSY => Blame::Contention,
        CAP_REACHED | NO_CONTIGUOUS_RUN | RECORDS_EXHAUSTED => Blame::Pool,
        HOST_REFUSED | HOST_MISBEHAVED | PAGE_LOST => Blame::Host,
        ResultCode::UNSUPPORTED_PROTOCOL
        | ResultCode::UNSUPPORTED_CALL
        | ResultCode::INVALID_ADDRESS
        | ResultCode::INVALID_FORMAT
        | ResultCode::INVALID_PARAMETER
        | ResultCode::INVALID_REQUEST
        | NOT_ATTACHED
        | STALE_EPOCH
        | TOO_LARGE
        | NOT_HELD
        | UNSUPPORTED_VERSION => Blame::Caller,
        _ => Blame::Unknown,
    }
}

/// The name of a code, for reports.
pub fn name(code: ResultCode) -> &'static str {
    match code {
        ResultCode::SUCCESS => "SUCCESS",
        ResultCode::INCOMPLETE => "INCOMPLETE",
        ResultCode::UNSUPPORTED_PROTOCOL => "UNSUPPORTED_PROTOCOL",
        ResultCode::UNSUPPORTED_CALL => "UNSUPPORTED_CALL",
        ResultCode::INVALID_ADDRESS => "INVALID_ADDRESS",
        ResultCode::INVALID_FORMAT => "INVALID_FORMAT",
        ResultCode::INVALID_PARAMETER => "INVALID_PARAMETER",
        ResultCode::INVALID_REQUEST => "INVALID_REQUEST",
        ResultCode::BUSY => "BUSY",
        NOT_ATTACHED => "NOT_ATTACHED",
        STALE_EPOCH => "STALE_EPOCH",
        CAP_REACHED => "CAP_REACHED",
        HOST_REFUSED => "HOST_REFUSED",
        NO_CONTIGUOUS_RUN => "NO_CONTIGUOUS_RUN",
        TOO_LARGE => "TOO_LARGE",
        NOT_HELD => "NOT_HELD",
        HOST_MISBEHAVED => "HOST_MISBEHAVED",
        RECORDS_EXHAUSTED => "RECORDS_EXHAUSTED",
        UNSUPPORTED_VERSION => "UNSUPPORTED_VERSION",
        PAGE_LOST => "PAGE_LOST",
        _ => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p_6_1_golden_numbers() {
        assert_eq!(NOT_ATTACHED.0, 0x8000_1001);
        assert_eq!(UNSUPPORTED_VERSION.0, 0x8000_100A);
        assert_eq!(PAGE_LOST.0, 0x8000_100B);
        assert_eq!(ResultCode::BUSY.0, 0x8000_0007);
    }

    #[test]
    fn p_8_4_each_refusal_has_its_counter() {
        assert_eq!(refusal_index(ResultCode::SUCCESS), None);
        assert_eq!(refusal_index(ResultCode::INCOMPLETE), Some(0));
        assert_eq!(refusal_index(ResultCode::BUSY), Some(7));
        assert_eq!(refusal_index(ResultCode(0x8000_0008)), None);
        assert_eq!(refusal_index(NOT_ATTACHED), Some(9));
        assert_eq!(refusal_index(UNSUPPORTED_VERSION), Some(18));
        assert_eq!(
            refusal_index(ResultCode(0x8000_100F)),
            Some(REFUSAL_COUNTERS - 1)
        );
        assert_eq!(refusal_index(ResultCode(0x8000_1010)), None);
    }

    #[test]
    fn p_6_2_blame_and_name_cover_every_code() {
        let generic = (0..8).map(|n| ResultCode(0x8000_0000 + n));
        let own = (1..=11).map(|n| ResultCode(0x8000_1000 + n));
        for code in generic.chain(own) {
            assert_ne!(blame(code), Blame::Unknown, "{}", code.0);
            assert_ne!(name(code), "unknown", "{}", code.0);
        }
        assert_eq!(blame(ResultCode(0x4000_0001)), Blame::Unknown);
    }
}
