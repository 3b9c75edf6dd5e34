// SPDX-License-Identifier: MIT OR Apache-2.0
//! The service over the machine of CONVERT, calls of it, and lists.

use core::sync::atomic::{AtomicU8, AtomicU64};
use std::boxed::Box;
use std::vec::Vec;

use protocol::Request;
use protocol::convert::{ConvertEntry, Outcome};
use protocol::response::decode_answer;
use snp::address::{GuestPhysicalAddress, LARGE_PAGE_SIZE, PAGE_SIZE, PageSize};
use snp::psc::PscHeader;
use snp::svsm::{ListHeader, ResultCode};

use super::machine::{ConvertMachine, RAM, RAM_BYTES};
use crate::page_state::{PageState, PageStates, RamRange, RamRanges};
use crate::platform::PscExit;
use crate::pool::{ChunkRecords, Pool, Window};
use crate::test_platform::{Answer, Manner};
use crate::{Configuration, Service};

pub const WINDOW: u64 = 0x3000_0000;
/// Where the tests put their list.
pub const LIST: u64 = RAM + RAM_BYTES - PAGE_SIZE;

/// The service over such a machine, attached.
pub struct World {
    pub machine: &'static ConvertMachine,
    pub service: Service<'static, ConvertMachine>,
    pub epoch: u32,
}

impl World {
    pub fn new() -> Self {
        Self::with_flush(true)
    }

    /// A service whose integrator does, or does not, vouch for the flush.
    pub fn with_flush(flush_reaches_all: bool) -> Self {
        let machine: &'static ConvertMachine = Box::leak(Box::default());
        machine.large_rmp();
        let range = RamRange::new(GuestPhysicalAddress::new(RAM), RAM_BYTES);
        let ranges: &'static mut [RamRange] = Box::leak(Box::new([range]));
        let ranges = RamRanges::new(ranges).unwrap();
        let words: Vec<AtomicU8> = (0..ranges.pages()).map(|_| AtomicU8::new(0)).collect();
        let pages = PageStates::new(ranges, words.leak()).unwrap();
        pages
            .set_at_boot(range.base, range.bytes, PageState::Valid)
            .unwrap();
        let window = Window::new(GuestPhysicalAddress::new(WINDOW), 4 << 20).unwrap();
        let records = Box::leak(Box::new([const { AtomicU64::new(0) }; 2]));
        let pool = Pool::new(window, ChunkRecords::new(records), window.bytes()).unwrap();
        let configuration = Configuration {
            flush_reaches_all,
            ..Configuration::with_encryption_bit(51)
        };
        let service = Service::new(machine, configuration, pool, pages).unwrap();
        let mut world = Self {
            machine,
            service,
            epoch: 0,
        };
        let attached = world.answer(Request::Attach { version: 1 }).unwrap();
        world.epoch = u32::try_from(attached.rcx).unwrap();
        world
    }

    pub fn answer(&self, request: Request) -> Answer {
        let registers = request.encode(self.service.protocol_number());
        decode_answer(&self.service.dispatch(&registers, None))
    }

    /// CONVERT of the list at [`LIST`].
    pub fn call(&self) -> ResultCode {
        let request = Request::Convert {
            list: GuestPhysicalAddress::new(LIST),
            epoch: self.epoch,
        };
        self.answer(request)
            .map_or_else(|refusal| refusal.code, |_| ResultCode::SUCCESS)
    }

    /// One call with a new list: the answer and the cursor.
    pub fn convert(&self, entries: &[ConvertEntry]) -> (ResultCode, u16) {
        self.put(entries);
        (self.call(), self.machine.header(LIST).next)
    }

    pub fn put(&self, entries: &[ConvertEntry]) {
        let header = ListHeader {
            entries: u16::try_from(entries.len()).unwrap(),
            next: 0,
            reserved: 0,
        };
        self.machine.put_list(LIST, header, entries);
    }

    /// Calls until there is no more; how many calls that took.
    pub fn convert_all(&self, entries: &[ConvertEntry]) -> usize {
        self.put(entries);
        for calls in 1..1000 {
            match self.call() {
                ResultCode::INCOMPLETE => {}
                code => {
                    assert_eq!(code, ResultCode::SUCCESS);
                    return calls;
                }
            }
        }
        panic!("no end");
    }

    pub fn state(&self, page: u64) -> PageState {
        let page = GuestPhysicalAddress::new(page);
        self.service.page_states().state(page).unwrap()
    }

    pub fn set(&self, page: u64, state: PageState) {
        let pages = self.service.page_states();
        pages
            .set_at_boot(GuestPhysicalAddress::new(page), PAGE_SIZE, state)
            .unwrap();
    }

    pub fn outcomes(&self, count: u64) -> Vec<Outcome> {
        let outcome = |entry| self.machine.outcome(LIST, entry);
        (0..count).map(outcome).collect()
    }
}

pub fn small(page: u64, to_shared: bool) -> ConvertEntry {
    ConvertEntry::request(GuestPhysicalAddress::new(page), PageSize::Size4K, to_shared)
}

pub fn large(page: u64, to_shared: bool) -> ConvertEntry {
    ConvertEntry::request(GuestPhysicalAddress::new(page), PageSize::Size2M, to_shared)
}

/// So many small pages from here on.
pub fn smalls(page: u64, count: u64, to_shared: bool) -> Vec<ConvertEntry> {
    let pages = (0..count).map(|number| page + number * PAGE_SIZE);
    pages.map(|page| small(page, to_shared)).collect()
}

/// So many large pages from here on.
pub fn larges(page: u64, count: u64, to_shared: bool) -> Vec<ConvertEntry> {
    let pages = (0..count).map(|number| page + number * LARGE_PAGE_SIZE);
    pages.map(|page| large(page, to_shared)).collect()
}

/// A reply whose last entry is not the one submitted.
pub fn broken() -> Manner {
    let header = PscHeader {
        cur_entry: 0,
        end_entry: 999,
        reserved: 0,
    };
    Manner::Reply(header, PscExit::default())
}
