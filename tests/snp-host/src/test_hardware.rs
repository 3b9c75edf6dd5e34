// SPDX-License-Identifier: MIT OR Apache-2.0
//! A machine for the unit tests: sparse memory, recorded port accesses, no processor.

use core::cell::{Cell, RefCell};
use std::boxed::Box;
use std::collections::BTreeMap;
use std::vec::Vec;

use crate::hardware::{Devices, PhysicalMemory, Processor, Processors};
use crate::vcpu::Vcpu;

/// Sparse memory that reads as zero, and what was written to ports.
#[derive(Debug, Default)]
pub struct TestHardware {
    pages: RefCell<BTreeMap<u64, Box<[u64; 512]>>>,
    /// Port writes: (port, bytes, value).
    pub port_writes: RefCell<Vec<(u16, u8, u32)>>,
    /// What the next port or device read yields.
    pub input: Cell<u64>,
    /// Kicks of all guests so far.
    pub kicks: Cell<u32>,
    /// CPUs that were woken, in order.
    pub woken: RefCell<Vec<u32>>,
    /// How often a CPU was to leave its guest at once.
    pub leaves: Cell<u32>,
}

impl TestHardware {
    /// Bytes written to `port`, as text.
    pub fn text(&self, port: u16) -> std::string::String {
        let writes = self.port_writes.borrow();
        let bytes = writes
            .iter()
            .filter(|write| write.0 == port)
            .map(|write| write.2.to_le_bytes()[0]);
        std::string::String::from_utf8_lossy(&bytes.collect::<Vec<_>>()).into_owned()
    }
}

impl PhysicalMemory for TestHardware {
    fn read(&self, address: u64, bytes: &mut [u8]) {
        for (address, byte) in (address..).zip(bytes) {
            let word = self.read_u64(address & !7);
            *byte = word.to_le_bytes()[usize::try_from(address % 8).unwrap()];
        }
    }

    fn write(&self, address: u64, bytes: &[u8]) {
        for (address, byte) in (address..).zip(bytes) {
            let mut word = self.read_u64(address & !7).to_le_bytes();
            word[usize::try_from(address % 8).unwrap()] = *byte;
            self.write_u64(address & !7, u64::from_le_bytes(word));
        }
    }

    fn fill(&self, address: u64, length: u64, word: u64) {
        assert!((address | length).is_multiple_of(64));
        let mut pages = self.pages.borrow_mut();
        for page in (address..address + length).step_by(4096) {
            let content = pages
                .entry(page / 4096)
                .or_insert_with(|| Box::new([0; 512]));
            let first = index(page);
            let end = (address + length - page).div_ceil(8).min(512);
            content[first..usize::try_from(end).unwrap()].fill(word);
        }
    }

    fn first_difference(&self, address: u64, length: u64, word: u64) -> Option<(u64, u64)> {
        (0..length)
            .step_by(8)
            .map(|offset| (offset, self.read_u64(address + offset)))
            .find(|(_, found)| *found != word)
    }

    fn read_u64(&self, address: u64) -> u64 {
        assert!(address.is_multiple_of(8));
        self.pages
            .borrow()
            .get(&(address / 4096))
            .map_or(0, |page| page[index(address)])
    }

    fn write_u64(&self, address: u64, word: u64) {
        assert!(address.is_multiple_of(8));
        let mut pages = self.pages.borrow_mut();
        let page = pages
            .entry(address / 4096)
            .or_insert_with(|| Box::new([0; 512]));
        page[index(address)] = word;
    }
}

/// Number of the word in its page.
fn index(address: u64) -> usize {
    usize::try_from(address % 4096 / 8).unwrap()
}

impl Devices for TestHardware {
    fn port_read(&self, _port: u16, _bytes: u8) -> u32 {
        u32::try_from(self.input.get() & 0xFFFF_FFFF).unwrap()
    }

    fn port_write(&self, port: u16, bytes: u8, value: u32) {
        self.port_writes.borrow_mut().push((port, bytes, value));
    }

    fn device_read(&self, _address: u64, _bytes: u8) -> u64 {
        self.input.get()
    }

    fn device_write(&self, _address: u64, _bytes: u8, value: u64) {
        self.input.set(value);
    }
}

impl Processor for TestHardware {
    fn timestamp(&self) -> u64 {
        0
    }

    fn cpuid(&self, leaf: u32, subleaf: u32) -> [u32; 4] {
        // All leaves up to 0x10, with every feature.
        let eax = if leaf == 0 { 0x10 } else { leaf };
        [
            eax,
            if leaf == 7 { u32::MAX } else { subleaf },
            u32::MAX,
            u32::MAX,
        ]
    }

    fn enter(&self, _vcpu: &mut Vcpu) {}

    fn store_hidden(&self, _vcpu: &mut Vcpu) {}

    fn save_context(&self, _vcpu: &mut Vcpu) {}

    fn load_context(&self, _vcpu: &mut Vcpu) {}
}

impl Processors for TestHardware {
    fn kick_guests(&self, _own: u32) -> u32 {
        self.kicks.set(self.kicks.get() + 1);
        1
    }

    fn wake(&self, cpu: u32) {
        self.woken.borrow_mut().push(cpu);
    }

    fn leave_at_once(&self, _own: u32) {
        self.leaves.set(self.leaves.get() + 1);
    }
}
