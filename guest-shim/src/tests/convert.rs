// SPDX-License-Identifier: MIT OR Apache-2.0
//! Lists of pages, and calls until they are done.

use protocol::Call;
use protocol::convert::Outcome;
use protocol::result::{HOST_REFUSED, PAGE_LOST};
use snp::address::PageSize;
use snp::svsm::ResultCode;

use super::machine::Machine;
use crate::{Config, ConvertError, ConvertList};

const INCOMPLETE: ResultCode = ResultCode::INCOMPLETE;

fn list(entries: u64) -> std::boxed::Box<ConvertList> {
    let mut list = std::boxed::Box::new(ConvertList::new());
    for page in 0..entries {
        assert!(list.push(0x10_0000 + page * 4096, PageSize::Size4K, true));
    }
    list
}

/// Converts a list of `entries` on a service that gives these answers, each after moving the cursor there and writing this
/// outcome into the first entry.
fn convert(entries: u64, answers: &[(u16, u8, ResultCode)]) -> (ConvertResult, usize) {
    let machine = Machine::new(4);
    machine.set(|service| {
        service.converts = true;
        service.convert_answers = answers.to_vec();
    });
    let pool = machine.pool(Config::default());
    let mut list = list(entries);
    let address = (&raw mut *list).expose_provenance() as u64;
    // SAFETY: Nothing is converted: the service only writes the list.
    let result = unsafe { pool.convert(&mut list, address) };
    let calls = machine.count(Call::Convert);
    ((result, list.done(), list.outcome(0)), calls)
}

type ConvertResult = (Result<(), ConvertError>, usize, Option<Outcome>);

#[test]
fn a_list_is_called_until_it_is_done() {
    let converted = Some(Outcome::Converted);
    let answers = [(253, 0, INCOMPLETE), (506, 0, ResultCode::SUCCESS)];
    assert_eq!(convert(506, &answers), ((Ok(()), 506, converted), 2));
    let answers = [(0, 0, ResultCode::BUSY), (3, 0, ResultCode::SUCCESS)];
    assert_eq!(convert(3, &answers), ((Ok(()), 3, converted), 2));
}

#[test]
fn an_answer_without_progress_is_no_answer() {
    for cursor in [0, 5, 6, u16::MAX] {
        let ((result, ..), calls) = convert(5, &[(cursor, 0, INCOMPLETE)]);
        assert_eq!((result, calls), (Err(ConvertError::Malformed), 1));
    }
    let one_by_one: std::vec::Vec<_> = (1..=5).map(|next| (next.min(4), 0, INCOMPLETE)).collect();
    let ((result, ..), calls) = convert(5, &one_by_one);
    assert_eq!((result, calls), (Err(ConvertError::Malformed), 5));
}

#[test]
fn an_error_leaves_the_outcomes_to_be_read() {
    let refused = Err(ConvertError::Refused(HOST_REFUSED));
    let zeroed = Some(Outcome::Zeroed);
    assert_eq!(
        convert(5, &[(2, 2, HOST_REFUSED)]),
        ((refused, 2, zeroed), 1)
    );
    let lost = Err(ConvertError::Refused(PAGE_LOST));
    let unknown = convert(5, &[(2, 9, PAGE_LOST)]);
    assert_eq!(unknown, ((lost, 2, None), 1));
    let wrong = Err(ConvertError::Refused(ResultCode::INVALID_ADDRESS));
    let answers = [(0, 0, ResultCode::INVALID_ADDRESS)];
    assert_eq!(convert(5, &answers), ((wrong, 0, None), 1));
}

#[test]
fn a_service_without_it_is_not_called() {
    let machine = Machine::new(4);
    let pool = machine.pool(Config::default());
    let mut list = list(1);
    // SAFETY: The service is not called.
    let result = unsafe { pool.convert(&mut list, 0x1000) };
    assert_eq!(result, Err(ConvertError::NotOffered));
    assert_eq!(machine.count(Call::Convert), 0);
}

#[test]
fn a_list_is_full_with_its_page() {
    let mut list = list(511);
    assert!(!list.push(0x1000, PageSize::Size4K, true));
    assert_eq!((list.len(), list.done(), list.outcome(0)), (511, 0, None));
    assert_eq!(size_of::<ConvertList>(), 4096);
    list.clear();
    assert!(list.is_empty() && list.push(0x20_0000, PageSize::Size2M, false));
}
