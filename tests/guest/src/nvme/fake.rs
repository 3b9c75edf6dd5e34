// SPDX-License-Identifier: MIT OR Apache-2.0
//! A made-up controller: executes commands when a doorbell rings, over memory it shares with the
//! driver.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::vec;
use std::vec::Vec;

use zerocopy::{FromBytes, IntoBytes};

use super::command::{COMMAND_BYTES, Command, Completion, opcode};
use super::memory::{DataBuffers, SharedAllocator, SharedMemory};
use super::registers::{ACQ, AQA, ASQ, CAP, CC, CSTS, DOORBELLS, INTMS, Registers};
use super::{NvmeError, PAGE_BYTES};
use crate::ghcb_channel::ExitError;
use crate::request_plan::{MAX_DEPTH, MAX_REQUEST_BYTES};

/// Bytes of a block.
pub(super) const BLOCK: u64 = 512;
/// First address of shared memory; data buffers come behind queues.
const SHARED: u64 = 0x4000_0000;
/// Distance of the slots' data, off a page boundary as a pool slot can be.
const DATA: u64 = 0x8000_0000;
const DATA_STRIDE: u64 = MAX_REQUEST_BYTES + PAGE_BYTES as u64;

/// One queue pair as the controller knows it.
#[derive(Default, Clone)]
struct Queue {
    submission: u64,
    completion: u64,
    entries: u32,
    head: u32,
    written: u32,
}

/// How it misbehaves.
#[derive(Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum Manner {
    #[default]
    Honest,
    /// Completes reads with a status.
    Fails(u16),
    /// Completes reads under another name.
    Renames(u16),
    /// Completes for another queue.
    OtherQueue,
    /// Never completes anything.
    Silent,
    /// Never gets ready.
    Lazy,
}

/// Controller, memory and what it saw.
pub(super) struct Machine {
    pub(super) capabilities: u64,
    pub(super) manner: Manner,
    pub(super) blocks: u64,
    /// Exponent of the longest transfer in pages.
    pub(super) limit: u8,
    pub(super) format: [u8; 4],
    pub(super) reads: Vec<(u64, u64)>,
    pub(super) lists: u32,
    pub(super) allocated: usize,
    pub(super) mapped: usize,
    configuration: u32,
    registers: BTreeMap<u64, u64>,
    queues: BTreeMap<u64, Queue>,
    pages: BTreeMap<u64, Vec<u8>>,
    next: u64,
}

/// A handle to it: registers, allocator and data buffers in one.
#[derive(Clone)]
pub(super) struct Fake(pub(super) Rc<RefCell<Machine>>);

impl Fake {
    pub(super) fn new() -> Self {
        Self(Rc::new(RefCell::new(Machine {
            // 1024 entries, doorbells 8 bytes apart, NVM command set.
            capabilities: 1 << 37 | 1 << 32 | 1023,
            manner: Manner::Honest,
            blocks: (8 << 20) / BLOCK,
            limit: 7,
            format: [0, 0, 9, 0],
            reads: vec![],
            lists: 0,
            allocated: 0,
            mapped: 0,
            configuration: 0,
            registers: BTreeMap::new(),
            queues: BTreeMap::new(),
            pages: BTreeMap::new(),
            next: SHARED,
        })))
    }

    /// The bytes of a slot's buffer, as the device wrote them.
    pub(super) fn data(&self, slot: usize, bytes: u64) -> Vec<u8> {
        let mut machine = self.0.borrow_mut();
        machine.read(data_address(slot), bytes)
    }
}

/// What the disk holds.
pub(super) fn content(offset: u64) -> u8 {
    (offset / BLOCK).wrapping_mul(0x9e37_79b9).to_le_bytes()[1] ^ offset.to_le_bytes()[0]
}

fn data_address(slot: usize) -> u64 {
    DATA + slot as u64 * DATA_STRIDE
}

impl Machine {
    /// The page an address lies in, from there on.
    fn tail(&mut self, address: u64) -> &mut [u8] {
        let page = PAGE_BYTES as u64;
        let bytes = self.pages.entry(address / page);
        let bytes = bytes.or_insert_with(|| vec![0; PAGE_BYTES]);
        &mut bytes[usize::try_from(address % page).expect("small")..]
    }

    fn read(&mut self, address: u64, bytes: u64) -> Vec<u8> {
        let bytes = usize::try_from(bytes).expect("small");
        let mut read = Vec::new();
        while read.len() < bytes {
            let left = bytes - read.len();
            let tail = self.tail(address + read.len() as u64);
            read.extend_from_slice(&tail[..left.min(tail.len())]);
        }
        read
    }

    fn write(&mut self, address: u64, bytes: &[u8]) {
        let mut done = 0;
        while done < bytes.len() {
            let tail = self.tail(address + done as u64);
            let length = tail.len().min(bytes.len() - done);
            tail[..length].copy_from_slice(&bytes[done..][..length]);
            done += length;
        }
    }

    fn enable(&mut self, configuration: u32) {
        self.configuration = configuration;
        if configuration & 1 == 1 {
            assert_eq!(configuration >> 16 & 0xff, 0x46, "entry sizes");
            let entries = u32::try_from(self.registers[&AQA] & 0xfff).expect("small") + 1;
            let admin = Queue {
                submission: self.registers[&ASQ],
                completion: self.registers[&ACQ],
                entries,
                ..Queue::default()
            };
            self.queues = BTreeMap::from([(0, admin)]);
        } else {
            self.queues.clear();
        }
    }

    fn ring(&mut self, number: u64, tail: u32) {
        loop {
            let queue = self.queues[&number].clone();
            if queue.head == tail || self.manner == Manner::Silent {
                return;
            }
            let at = queue.submission + u64::from(queue.head) * COMMAND_BYTES as u64;
            let bytes = self.read(at, COMMAND_BYTES as u64);
            let command = Command::read_from_bytes(&bytes[..]).expect("one entry");
            let status = self.execute(number, &command);
            let phase = u16::from((queue.written / queue.entries).is_multiple_of(2));
            let renamed = match self.manner {
                Manner::Renames(name) if number != 0 => name,
                _ => command.identifier,
            };
            let other = u64::from(self.manner == Manner::OtherQueue && number != 0);
            let completion = Completion {
                queue: u16::try_from(number + other).expect("small"),
                identifier: renamed,
                status_and_phase: status << 1 | phase,
                ..Completion::default()
            };
            let slot = queue.completion + u64::from(queue.written % queue.entries) * 16;
            self.write(slot, completion.as_bytes());
            let queue = self.queues.get_mut(&number).expect("exists");
            queue.head = (queue.head + 1) % queue.entries;
            queue.written += 1;
        }
    }

    fn execute(&mut self, queue: u64, command: &Command) -> u16 {
        let [first, second, ..] = command.arguments;
        let entries = (first >> 16) + 1;
        let number = u64::from(first & 0xffff);
        match (queue, command.opcode) {
            (0, opcode::IDENTIFY) => self.identify(command),
            (0, opcode::CREATE_COMPLETION_QUEUE) => {
                assert_eq!(second, 1, "contiguous, no interrupts");
                let queue = Queue {
                    completion: command.prp[0],
                    entries,
                    ..Queue::default()
                };
                self.queues.insert(number, queue);
            }
            (0, opcode::CREATE_SUBMISSION_QUEUE) => {
                assert_eq!(u64::from(second >> 16), number);
                let queue = self
                    .queues
                    .get_mut(&number)
                    .expect("completion queue first");
                assert_eq!(queue.entries, entries);
                queue.submission = command.prp[0];
            }
            (1.., opcode::READ) => return self.read_blocks(command),
            other => panic!("command {other:?}"),
        }
        0
    }

    fn identify(&mut self, command: &Command) {
        let page = command.prp[0];
        self.write(page, &[0; PAGE_BYTES]);
        if command.arguments[0] == 1 {
            self.write(page + 77, &[self.limit]);
            self.write(page + 516, &1_u32.to_le_bytes());
        } else {
            let (blocks, format) = (self.blocks, self.format);
            self.write(page, &blocks.to_le_bytes());
            self.write(page + 26, &[2]);
            self.write(page + 128 + 2 * 4, &format);
        }
    }

    fn read_blocks(&mut self, command: &Command) -> u16 {
        if let Manner::Fails(status) = self.manner {
            return status;
        }
        let [low, high, blocks, ..] = command.arguments;
        let offset = (u64::from(high) << 32 | u64::from(low)) * BLOCK;
        let bytes = (u64::from(blocks & 0xffff) + 1) * BLOCK;
        self.reads.push((offset, bytes));
        let page = PAGE_BYTES as u64;
        let in_first = page - command.prp[0] % page;
        let rest = bytes.saturating_sub(in_first).div_ceil(page);
        let list = match rest {
            0 => vec![],
            1 => vec![command.prp[1]],
            _ => {
                self.lists += 1;
                let bytes = self.read(command.prp[1], rest * 8);
                let words = bytes
                    .chunks(8)
                    .map(|word| word.try_into().expect("8 bytes"));
                words.map(u64::from_le_bytes).collect()
            }
        };
        let contents: Vec<u8> = (offset..offset + bytes).map(content).collect();
        let first = usize::try_from(in_first.min(bytes)).expect("small");
        self.write(command.prp[0], &contents[..first]);
        for (entry, part) in list.into_iter().zip(contents[first..].chunks(PAGE_BYTES)) {
            assert_eq!(entry % page, 0);
            self.write(entry, part);
        }
        0
    }
}

impl Registers for Fake {
    fn read_32(&self, offset: u64) -> Result<u32, ExitError> {
        assert_eq!(offset, CSTS);
        let machine = self.0.borrow();
        Ok(if machine.manner == Manner::Lazy {
            0
        } else {
            machine.configuration & 1
        })
    }

    fn read_64(&self, offset: u64) -> Result<u64, ExitError> {
        assert_eq!(offset, CAP);
        Ok(self.0.borrow().capabilities)
    }

    fn write_32(&self, offset: u64, value: u32) -> Result<(), ExitError> {
        let mut machine = self.0.borrow_mut();
        match offset {
            CC => machine.enable(value),
            AQA => drop(machine.registers.insert(AQA, value.into())),
            INTMS => {}
            _ => {
                let bell = (offset - DOORBELLS) / 8;
                assert!((offset - DOORBELLS).is_multiple_of(8), "stride");
                if bell.is_multiple_of(2) {
                    machine.ring(bell / 2, value);
                }
            }
        }
        Ok(())
    }

    fn write_64(&self, offset: u64, value: u64) -> Result<(), ExitError> {
        assert!([ASQ, ACQ].contains(&offset));
        self.0.borrow_mut().registers.insert(offset, value);
        Ok(())
    }
}

/// Memory the controller reaches.
pub(super) struct FakeMemory {
    address: u64,
    machine: Fake,
}

impl SharedMemory for FakeMemory {
    fn address(&self) -> u64 {
        self.address
    }

    fn write(&mut self, offset: usize, bytes: &[u8]) -> Result<(), NvmeError> {
        assert!(offset + bytes.len() <= PAGE_BYTES);
        let mut machine = self.machine.0.borrow_mut();
        machine.write(self.address + offset as u64, bytes);
        Ok(())
    }

    fn read(&self, offset: usize, bytes: &mut [u8]) -> Result<(), NvmeError> {
        assert!(offset + bytes.len() <= PAGE_BYTES);
        let mut machine = self.machine.0.borrow_mut();
        let read = machine.read(self.address + offset as u64, bytes.len() as u64);
        bytes.copy_from_slice(&read);
        Ok(())
    }
}

impl SharedAllocator for Fake {
    type Memory = FakeMemory;

    fn allocate(&self, bytes: usize) -> Option<FakeMemory> {
        assert_eq!(bytes, PAGE_BYTES);
        let mut machine = self.0.borrow_mut();
        machine.allocated += 1;
        machine.next += PAGE_BYTES as u64;
        Some(FakeMemory {
            address: machine.next,
            machine: self.clone(),
        })
    }

    fn free(&self, _memory: FakeMemory) {
        let mut machine = self.0.borrow_mut();
        machine.allocated -= 1;
    }
}

impl DataBuffers for Fake {
    fn map(&mut self, slot: usize, _bytes: u64) -> Option<u64> {
        assert!(slot < MAX_DEPTH);
        self.0.borrow_mut().mapped += 1;
        Some(data_address(slot))
    }

    fn unmap(&mut self, _slot: usize, _written: bool) -> bool {
        self.0.borrow_mut().mapped -= 1;
        true
    }
}
