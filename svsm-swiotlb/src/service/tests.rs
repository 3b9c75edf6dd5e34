// SPDX-License-Identifier: MIT OR Apache-2.0
//! Every call through the entry, as a guest makes it: what it answers, what it changes, what it refuses.

use snp::address::{GuestPhysicalAddress, PAGE_SIZE};
use snp::svsm::ResultCode;

use crate::test_platform::{Answer, RAM_BASE};

mod construction;
mod convert;
mod discovery;
mod epochs;
mod grow;
mod guest_pages;
mod hostile;
mod memory_form;
mod model;
mod order;
mod orphans;
mod release;
mod successor;
mod trace;
mod two_windows;
mod unattached;
mod worked_sequence;

const LIST: u64 = RAM_BASE + PAGE_SIZE;

fn code(answer: Answer) -> ResultCode {
    answer.unwrap_err().code
}

fn address(bits: u64) -> GuestPhysicalAddress {
    GuestPhysicalAddress::new(bits)
}
