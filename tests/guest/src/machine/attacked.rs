// SPDX-License-Identifier: MIT OR Apache-2.0
//! Calls whose pages the host attacks while they are served: the guest names the page, the host strikes one exit later in
//! each call (`snp_host::attack`).
//!
//! What has to hold: each call is answered, by a code of the documents; a page that a call says it made private is zero;
//! and the pages that a call had in hand can be named again, whatever became of them, without the VM ending. The guest
//! itself touches no page that it may have lost.

use protocol::convert::ConvertEntry;
use protocol::{Request, result};
use snp::address::{GuestPhysicalAddress, PAGE_SIZE, PageSize};
use snp::psc::PscOperation;
use snp::svsm::{CallId, CallRegisters, ListHeader, PvalidateListEntry, ResultCode, core_protocol};
use test_guest::arena::{Arena, Range};
use test_guest::command_line::Attacked;
use test_guest::page_state;
use test_guest::port;
use test_guest::record::Record;
use zerocopy::IntoBytes;

use super::caller::{Caller, SECRET, each, is_zero, page_at};
use super::memory::{Buffers, exchange_page};
use super::pass_watch::emit;

/// Calls of each series. A call over [`WORK_PAGES`] pages has fewer exits than this.
const ROUNDS: u64 = 32;
/// Pages that a call works on.
const WORK_PAGES: u64 = 3;
/// The same, as the length of a list.
const LIST_ENTRIES: usize = 3;
const _: () = assert!(LIST_ENTRIES as u64 == WORK_PAGES);
/// Memory for all of it.
const BYTES: u64 = ROUNDS * SERIES.len() as u64 * (WORK_PAGES + 1) * PAGE_SIZE;
const _: () = assert!(BYTES <= Buffers::BYTES);

/// What a call does with its pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Work {
    Rescind,
    Validate,
    ToShared,
    ToPrivate,
}

const SERIES: [(Work, &str); 4] = [
    (Work::Rescind, "attacked-rescind"),
    (Work::Validate, "attacked-validate"),
    (Work::ToShared, "attacked-to-shared"),
    (Work::ToPrivate, "attacked-to-private"),
];

/// The codes that a call may have whose pages vanish under its hands.
const DOCUMENTED: [ResultCode; 5] = [
    ResultCode::SUCCESS,
    ResultCode::INVALID_ADDRESS,
    result::PAGE_LOST,
    result::HOST_REFUSED,
    ResultCode(core_protocol::ERROR_NO_CHANGE),
];

/// Goes through all series; `arena` has as much accepted memory as [`Buffers`]. False when something did not hold.
///
/// # Errors
/// What the job could not do; no attack is the cause.
pub fn run(
    caller: Caller<'_>,
    arena: &mut Arena,
    attacked: Attacked,
) -> Result<bool, &'static str> {
    Calls(caller).run(arena, attacked)
}

struct Calls<'a>(Caller<'a>);

impl Calls<'_> {
    fn run(&self, arena: &mut Arena, attacked: Attacked) -> Result<bool, &'static str> {
        let mut all_ok = true;
        for (number, (work, name)) in (1..).zip(SERIES) {
            for _ in 0..ROUNDS {
                let mut take = |pages: u64| {
                    let range = arena.take(pages * PAGE_SIZE, PAGE_SIZE);
                    range.ok_or("too little memory")
                };
                let list = take(1)?.start;
                let pages = take(WORK_PAGES)?;
                self.prepare(work, pages)?;
                let page = match attacked {
                    Attacked::List => list,
                    Attacked::Work => pages.start + PAGE_SIZE,
                };
                self.name(page, number)?;
                let code = self.call(work, list, pages).ok_or("a call was not seen")?;
                let kept = match attacked {
                    Attacked::Work => true,
                    // A list that was lost is out of use for good; the host counts who touches it.
                    Attacked::List if code == ResultCode::INVALID_ADDRESS => {
                        self.ask(work, list) == Some(code)
                    }
                    Attacked::List => self.is_kept(work, code, pages),
                };
                let ok = kept && DOCUMENTED.contains(&code);
                self.settle(pages)?;
                all_ok &= ok;
                emit(Record::SelfTest {
                    name,
                    expected: ResultCode::SUCCESS.0,
                    got: code.0,
                    ok,
                });
            }
        }
        Ok(all_ok)
    }

    /// Brings the pages into the state that the work starts from, by calls that are left alone.
    fn prepare(&self, work: Work, pages: Range) -> Result<(), &'static str> {
        for page in each(pages) {
            page_at(page).write(&SECRET.to_le_bytes());
        }
        let before = match work {
            Work::Rescind | Work::ToShared => return Ok(()),
            Work::Validate => Work::Rescind,
            Work::ToPrivate => Work::ToShared,
        };
        let code = self.call(before, exchange_page().address(), pages);
        if code != Some(ResultCode::SUCCESS) {
            return Err("a page could not be prepared");
        }
        if work == Work::Validate {
            // As Linux does it: the host gives the page anew.
            for operation in [PscOperation::Shared, PscOperation::Private] {
                page_state::change(&self.0.ghcb.channel(), pages, operation)
                    .map_err(|_| "the host declined")?;
            }
        }
        Ok(())
    }

    /// Names a page to the host.
    fn name(&self, page: u64, series: u32) -> Result<(), &'static str> {
        let number = u32::try_from(page / PAGE_SIZE).map_err(|_| "a page beyond 64 GiB")?;
        let written = self
            .0
            .ghcb
            .channel()
            .port_write(port::ATTACK, 4, series << 24 | number);
        written.map_err(|_| "the host took no page")
    }

    /// The call itself; `None` when the SVSM did not see it.
    fn call(&self, work: Work, list: u64, pages: Range) -> Option<ResultCode> {
        let count = pages.bytes() / PAGE_SIZE;
        let header = ListHeader {
            entries: u16::try_from(count).ok()?,
            next: 0,
            reserved: 0,
        };
        // Both lists have the same form.
        let entry = |page| {
            let (page, size) = (GuestPhysicalAddress::new(page), PageSize::Size4K);
            match work {
                Work::Rescind | Work::Validate => {
                    let validate = work == Work::Validate;
                    PvalidateListEntry::request(page, size, validate).into_bits()
                }
                Work::ToShared | Work::ToPrivate => {
                    ConvertEntry::request(page, size, work == Work::ToShared).into_bits()
                }
            }
        };
        let mut bytes = [0; size_of::<ListHeader>() + 8 * LIST_ENTRIES];
        let (head, body) = bytes.split_at_mut(size_of::<ListHeader>());
        head.copy_from_slice(header.as_bytes());
        for (slot, page) in body.chunks_exact_mut(8).zip(each(pages)) {
            slot.copy_from_slice(&entry(page).to_le_bytes());
        }
        page_at(list).write(&bytes);
        self.ask(work, list)
    }

    /// The call with whatever list is there.
    fn ask(&self, work: Work, list: u64) -> Option<ResultCode> {
        let list = GuestPhysicalAddress::new(list);
        let registers = match work {
            Work::Rescind | Work::Validate => {
                let call = CallId {
                    protocol: core_protocol::NUMBER,
                    call: core_protocol::PVALIDATE,
                };
                CallRegisters {
                    rax: call.to_rax(),
                    rcx: list.bits(),
                    ..CallRegisters::default()
                }
            }
            Work::ToShared | Work::ToPrivate => {
                let epoch = self.0.epoch;
                Request::Convert { list, epoch }.encode(self.0.protocol)
            }
        };
        let answer = self.0.svsm.call(registers)?;
        Some(ResultCode::from_rax(answer.rax))
    }

    /// Whether pages that the call says it made private are zero. Only where nobody attacked them.
    fn is_kept(&self, work: Work, code: ResultCode, pages: Range) -> bool {
        let private = matches!(work, Work::Validate | Work::ToPrivate);
        !private || code != ResultCode::SUCCESS || each(pages).all(is_zero)
    }

    /// Names the pages in calls once more, one by one: what the service believes of them and what they are must
    /// not contradict each other, or the VM ends.
    fn settle(&self, pages: Range) -> Result<(), &'static str> {
        let list = exchange_page().address();
        for page in each(pages) {
            let one = Range::new(page, page + PAGE_SIZE);
            // Validating what is the host's would wait for the host.
            page_state::change(&self.0.ghcb.channel(), one, PscOperation::Private)
                .map_err(|_| "the host declined")?;
            for work in [
                Work::Validate,
                Work::Rescind,
                Work::Validate,
                Work::ToPrivate,
            ] {
                self.call(work, list, one).ok_or("a call was not seen")?;
            }
        }
        Ok(())
    }
}
