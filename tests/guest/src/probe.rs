// SPDX-License-Identifier: MIT OR Apache-2.0
//! The self-test on the machine: prepares pages in every wrong state and sends the tables of cases.

use protocol::list::{GrantedRun, ListHeader};
use protocol::response::{Granted, Released, decode_answer};
use protocol::{CHUNK_BYTES, Request};
use snp::address::{GuestPhysicalAddress, PAGE_SIZE};
use snp::psc::PscOperation;
use snp::svsm::CallRegisters;
use test_guest::acceptance::{accept, rescind};
use test_guest::arena::Range;
use test_guest::record::Record;
use test_guest::self_test::{
    Case, Facts, ListPage, Outcome, Prober, convert_cases, core_cases, lost_cases, memory_cases,
    pool_cases, run,
};
use zerocopy::{FromBytes, FromZeros, IntoBytes};

use crate::machine::calling::{Acceptance, Svsm};
use crate::machine::memory::{ExchangePage, PAGE_BYTES, exchange_page, fill_pattern, has_pattern};
use crate::machine::pass_watch::emit;

/// How the calls of a table are made.
#[derive(Debug, Clone, Copy)]
enum Form {
    /// As they are.
    Registers,
    /// From a block, which is a form of the protocol with this number.
    Memory(u32),
}

/// The machine as the cases see it.
struct Probe<'a> {
    svsm: &'a Svsm,
    form: Form,
    list: ExchangePage,
    private: ExchangePage,
}

impl Prober for Probe<'_> {
    fn call(&mut self, registers: CallRegisters) -> Option<CallRegisters> {
        match self.form {
            Form::Registers => self.svsm.call(registers),
            Form::Memory(protocol) => self.svsm.call_from_memory(protocol, &registers).ok(),
        }
    }

    fn write_list(&mut self, page: &ListPage) {
        self.list.write(page.bytes());
    }

    fn read_list(&self) -> ListPage {
        let mut bytes = [0; PAGE_BYTES];
        self.list.read(&mut bytes);
        ListPage::from_bytes(bytes)
    }

    fn private_is_intact(&self) -> bool {
        has_pattern(self.private)
    }
}

/// Outcomes of the calls before ATTACH, which happen before there is a console.
#[derive(Debug, Default)]
pub struct Early {
    outcomes: [Option<Outcome>; pool_cases::DETACHED.len()],
}

/// Sends the calls that need an attachment. To be called before ATTACH.
pub fn before_attach(svsm: &Svsm, facts: &Facts, private: ExchangePage) -> Early {
    let mut early = Early::default();
    let mut slots = early.outcomes.iter_mut();
    let note = |outcome| {
        if let Some(slot) = slots.next() {
            *slot = Some(outcome);
        }
    };
    send(
        svsm,
        facts,
        private,
        pool_cases::DETACHED,
        Form::Registers,
        note,
    );
    early
}

/// Reports the early outcomes and sends everything else; true when every case held.
///
/// `facts` lack the attachment's grant and the pages in wrong states are private yet; the pages are
/// private again when this returns.
pub fn after_attach(
    svsm: &Svsm,
    mut facts: Facts,
    private: ExchangePage,
    early: Early,
) -> Result<bool, &'static str> {
    let mut all_ok = early.outcomes.iter().all(Option::is_some);
    for outcome in early.outcomes.into_iter().flatten() {
        all_ok &= outcome.ok;
        report(outcome);
    }
    let list = exchange_page();
    let run = first_grant(svsm, &facts, list).ok_or("no granted run is listed")?;
    (facts.granted, facts.generation) = (run.base, run.generation);
    let mut acceptance = Acceptance { svsm, list };
    let pages = [facts.unvalidated, facts.shared];
    for page in pages {
        rescind(&mut acceptance, page).map_err(|_| "a page was not rescinded")?;
    }
    let shared = Range::new(facts.shared, facts.shared + PAGE_SIZE);
    if !Acceptance::change_by_msr(shared, PscOperation::Shared) {
        return Err("a page was not shared");
    }
    // The map goes on calling these valid.
    let lost = Range::new(facts.lost, facts.lost + lost_cases::PAGES * PAGE_SIZE);
    for operation in [PscOperation::Shared, PscOperation::Private] {
        if !Acceptance::change_by_msr(lost, operation) {
            return Err("a page was not lost");
        }
    }
    for (table, form) in [
        (pool_cases::ATTACHED, Form::Registers),
        (convert_cases::ALL, Form::Registers),
        (memory_cases::FORMS, Form::Registers),
        (memory_cases::BLOCKS, Form::Memory(facts.protocol)),
        (core_cases::ALL, Form::Registers),
        (lost_cases::ALL, Form::Registers),
    ] {
        all_ok &= send(svsm, &facts, private, table, form, report);
    }
    grow_and_release_from_memory(svsm, &facts)?;
    for page in pages {
        accept(&mut acceptance, Range::new(page, page + PAGE_SIZE))
            .map_err(|_| "a page was not accepted again")?;
    }
    Ok(all_ok)
}

fn send(
    svsm: &Svsm,
    facts: &Facts,
    private: ExchangePage,
    cases: &[Case],
    form: Form,
    report: impl FnMut(Outcome),
) -> bool {
    let list = exchange_page();
    fill_pattern(private);
    run(
        &mut Probe {
            svsm,
            form,
            list,
            private,
        },
        facts,
        cases,
        report,
    )
}

/// One chunk more and back, by calls from a block.
fn grow_and_release_from_memory(svsm: &Svsm, facts: &Facts) -> Result<(), &'static str> {
    let call = |request: Request| {
        let registers = request.encode(facts.protocol);
        let answer = svsm.call_from_memory(facts.protocol, &registers).ok()?;
        decode_answer(&answer).ok()
    };
    let granted = call(Request::Grow {
        window: 0,
        contiguous: true,
        epoch: facts.epoch,
        least: CHUNK_BYTES,
        most: CHUNK_BYTES,
    });
    let granted = granted.and_then(|results| Granted::decode(results).ok());
    let granted = granted.ok_or("GROW from memory was refused")?;
    let released = call(Request::Release {
        base: granted.base,
        bytes: granted.bytes,
        epoch: facts.epoch,
        generation: granted.generation.number(),
    });
    match released.map(Released::decode) {
        Some(Ok(released)) if released.bytes == CHUNK_BYTES => Ok(()),
        _ => Err("RELEASE from memory was refused"),
    }
}

fn report(outcome: Outcome) {
    emit(Record::SelfTest {
        name: outcome.name,
        expected: outcome.expected.0,
        got: outcome.got.0,
        ok: outcome.ok,
    });
}

/// The first run that LIST_GRANTED names.
fn first_grant(svsm: &Svsm, facts: &Facts, list: ExchangePage) -> Option<GrantedRun> {
    // Room for more than there is: a full list would be answered INCOMPLETE.
    list.write(
        ListHeader {
            capacity: 2,
            written: 0,
            cursor: 0,
        }
        .as_bytes(),
    );
    let address = GuestPhysicalAddress::new(list.address());
    let request = Request::ListGranted {
        list: address,
        epoch: facts.epoch,
    };
    decode_answer(&svsm.call(request.encode(facts.protocol))?).ok()?;
    let mut bytes = [0; size_of::<ListHeader>() + size_of::<GrantedRun>()];
    list.read(&mut bytes);
    let (header, run) = bytes.split_at(size_of::<ListHeader>());
    let mut copy = ListHeader::new_zeroed();
    copy.as_mut_bytes().copy_from_slice(header);
    if copy.written == 1 {
        GrantedRun::read_from_bytes(run).ok()
    } else {
        None
    }
}
