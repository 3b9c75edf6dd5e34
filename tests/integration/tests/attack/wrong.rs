// SPDX-License-Identifier: MIT OR Apache-2.0
//! How platform calls go wrong; replies to a page-state change that are wrong in one way each (chapter 9 of the
//! protocol).

use std::collections::BTreeSet;

use snp::operands::InstructionCode;
use snp::psc::{PscHeader, error};
use svsm_swiotlb::platform::PscExit;

/// How one platform call goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// An exception: #VC 0x404. What copies has copied half.
    Fault,
    /// The instruction refuses with this code.
    Code(InstructionCode),
    /// PVALIDATE sets CF.
    Unchanged,
    /// The host replies so: a row of [`WRONG_REPLIES`].
    Reply(usize),
    /// The host does not start a processor.
    Refused,
}

const CODES: [InstructionCode; 5] = [
    InstructionCode::FAIL_INPUT,
    InstructionCode::FAIL_PERMISSION,
    InstructionCode::FAIL_INUSE,
    InstructionCode::FAIL_SIZEMISMATCH,
    InstructionCode(0xFFFF_FFFF),
];

impl Wrong {
    /// All the ways in which a function of the platform can go wrong. A flush cannot.
    pub fn all(function: &str) -> Vec<Self> {
        let codes = CODES.map(Self::Code);
        match function {
            "page_state_change" => (0..WRONG_REPLIES.len()).map(Self::Reply).collect(),
            "pvalidate" => [&[Self::Fault, Self::Unchanged][..], &codes].concat(),
            "rmpadjust" => [&[Self::Fault][..], &codes].concat(),
            "start_processor" => vec![Self::Refused],
            "flush" => Vec::new(),
            _ => vec![Self::Fault],
        }
    }
}

/// What the host does before it replies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Does {
    Nothing,
    /// The first half of what is left.
    Half,
    Everything,
}

/// A reply.
#[derive(Debug)]
pub struct WrongReply {
    pub name: &'static str,
    pub does: Does,
    /// Made of the header that was submitted, and the cursor where the host stopped.
    pub reply: fn(PscHeader, u16) -> (PscHeader, PscExit),
}

const FINE: PscExit = exit(0, 0);

const fn exit(sw_exit_info_1: u64, sw_exit_info_2: u64) -> PscExit {
    PscExit {
        sw_exit_info_1,
        sw_exit_info_2,
    }
}

const fn at(header: PscHeader, cur_entry: u16) -> PscHeader {
    PscHeader {
        cur_entry,
        ..header
    }
}

const fn ending(header: PscHeader, end_entry: u16) -> PscHeader {
    PscHeader {
        cur_entry: header.end_entry.saturating_add(1),
        end_entry,
        ..header
    }
}

const fn wrong(
    name: &'static str,
    does: Does,
    reply: fn(PscHeader, u16) -> (PscHeader, PscExit),
) -> WrongReply {
    WrongReply { name, does, reply }
}

use Does::{Everything, Half, Nothing};

/// The replies. Those in good order come first.
pub const WRONG_REPLIES: [WrongReply; 20] = [
    wrong("stops after half", Half, |header, done| {
        (at(header, done), FINE)
    }),
    wrong("makes no progress", Nothing, |header, _| (header, FINE)),
    wrong("fails after half", Half, |header, done| {
        (at(header, done), exit(0, error::GENERIC))
    }),
    wrong("refuses", Nothing, |header, _| {
        (header, exit(0, error::GENERIC))
    }),
    wrong("calls the header malformed", Nothing, |header, _| {
        (header, exit(0, error::INVALID_HEADER))
    }),
    wrong("calls an entry malformed", Half, |header, done| {
        (at(header, done), exit(0, error::INVALID_ENTRY))
    }),
    wrong("calls the request malformed", Nothing, |header, _| {
        (header, exit(2, 5))
    }),
    wrong("refuses what it did", Everything, |header, _| {
        (header, exit(0, 1))
    }),
    wrong("lies", Nothing, |header, _| {
        (at(header, header.end_entry + 1), FINE)
    }),
    wrong("lies about half", Nothing, |header, _| {
        (at(header, header.end_entry.div_ceil(2)), FINE)
    }),
    wrong("does half and says all", Half, |header, _| {
        (at(header, header.end_entry + 1), FINE)
    }),
    wrong(
        "moves the cursor beyond the end",
        Everything,
        |header, _| (at(header, header.end_entry + 2), FINE),
    ),
    wrong("moves it as far as it goes", Nothing, |header, _| {
        (at(header, u16::MAX), FINE)
    }),
    wrong("enlarges the end", Everything, |header, _| {
        (ending(header, header.end_entry + 1), FINE)
    }),
    wrong("shrinks the end", Half, |header, done| {
        (ending(header, done.wrapping_sub(1)), FINE)
    }),
    wrong("sets a reserved bit", Everything, |header, done| {
        let mut header = at(header, done);
        header.reserved = 1 << 31;
        (header, FINE)
    }),
    wrong("completes with an error", Everything, |header, done| {
        (at(header, done), exit(0, error::GENERIC))
    }),
    wrong(
        "completes a malformed request",
        Everything,
        |header, done| (at(header, done), exit(2, 0)),
    ),
    wrong("asks for an exception", Everything, |header, done| {
        (at(header, done), exit(1, 0))
    }),
    wrong("answers a status of 64 bits", Everything, |header, done| {
        (at(header, done), exit(1 << 32, 0))
    }),
];

/// Whether a reply breaks the rules of clause P-9.1, by its text.
pub fn breaks_the_rules(submitted: PscHeader, reply: PscHeader, exit: PscExit) -> bool {
    let complete = reply.cur_entry == submitted.end_entry + 1;
    let failed = exit.sw_exit_info_1 == 2 || exit.sw_exit_info_2 != 0;
    reply.reserved != 0
        || reply.end_entry != submitted.end_entry
        || reply.cur_entry < submitted.cur_entry
        || reply.cur_entry > submitted.end_entry + 1
        || exit.sw_exit_info_1 & !2 != 0
        || failed && complete
}

/// Names of the functions of a trait in a source, as they are written there.
pub fn functions(source: &'static str, of: &str) -> BTreeSet<&'static str> {
    let start = source.find(&format!("pub trait {of}")).expect("a trait");
    let body = &source[start..];
    let end = body.find("\n}").expect("its end");
    let lines = body[..end].lines();
    let names = lines.filter_map(|line| line.strip_prefix("    fn ")?.split('(').next());
    names.collect()
}
