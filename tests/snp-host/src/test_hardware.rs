// SPDX-License-Identifier: MIT OR Apache-2.0
//! A machine for the unit tests: sparse memory, recorded port accesses, no processor.

use core::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::vec::Vec;

use crate::hardware::{Devices, PhysicalMemory, Processor};
use crate::vcpu::Vcpu;

/// Sparse memory that reads as zero, and what was written to ports.
#[derive(Debug, Default)]
pub struct TestHardware {
    words: RefCell<BTreeMap<u64, u64>>,
    /// Port writes: (port, bytes, value).
    pub port_writes: RefCell<Vec<(u16, u8, u32)>>,
    /// What the next port or device read yields.
    pub input: Cell<u64>,
}

impl TestHardware {
    /// Bytes written to `port`, as text.
    pub fn text(&self, port: u16) -> std::string::String {
        let writes = self.port_writes.borrow();
        let bytes = writes.iter().filter(|write| write.0 == port).map(|write| write.2.to_le_bytes()[0]);
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
        let mut words = self.words.borrow_mut();
        if word == 0 {
            words.retain(|at, _| !(address..address + length).contains(at));
        } else {
            words.extend((address..address + length).step_by(8).map(|at| (at, word)));
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
        self.words.borrow().get(&address).copied().unwrap_or(0)
    }

    fn write_u64(&self, address: u64, word: u64) {
        assert!(address.is_multiple_of(8));
        if word == 0 {
            self.words.borrow_mut().remove(&address);
        } else {
            self.words.borrow_mut().insert(address, word);
        }
    }
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
        [leaf, subleaf, u32::MAX, u32::MAX]
    }

    fn enter(&self, _vcpu: &mut Vcpu) {}

    fn store_hidden(&self, _vcpu: &mut Vcpu) {}

    fn save_context(&self, _vcpu: &mut Vcpu) {}

    fn load_context(&self, _vcpu: &mut Vcpu) {}
}
