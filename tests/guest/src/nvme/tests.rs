// SPDX-License-Identifier: MIT OR Apache-2.0
//! The driver over the made-up controller.

use std::vec::Vec;

use super::controller::{Controller, Identity};
use super::disk::NvmeDisk;
use super::fake::{BLOCK, Fake, Manner, content};
use super::{NvmeError, PAGE_BYTES};
use crate::request_plan::{MAX_DEPTH, Request};
use crate::transfer::{PassError, PassObserver, run_pass};

type FakeDisk = NvmeDisk<Fake, Fake, Fake>;

fn open(fake: &Fake) -> Result<FakeDisk, NvmeError> {
    NvmeDisk::open(fake.clone(), fake.clone(), fake.clone())
}

/// Compares everything a pass hands over.
struct Compare {
    fake: Fake,
    bytes: u64,
}

impl PassObserver for Compare {
    fn consume(&mut self, slot: usize, request: Request) {
        let expected: Vec<u8> = (request.offset..request.offset + request.bytes)
            .map(content)
            .collect();
        assert!(self.fake.data(slot, request.bytes) == expected);
        self.bytes += request.bytes;
    }
    fn depth(&mut self, _done: u64) -> usize {
        MAX_DEPTH
    }
    fn progress(&mut self, _done: u64) {}
}

fn pass(fake: &Fake, disk: &mut FakeDisk) -> Result<u64, PassError<NvmeError>> {
    let mut compare = Compare {
        fake: fake.clone(),
        bytes: 0,
    };
    let bytes = disk.bytes();
    run_pass(disk, &mut compare, bytes).map(|()| compare.bytes)
}

#[test]
fn a_namespace_is_read_whole_again_and_again_and_everything_is_freed() {
    let fake = Fake::new();
    let mut disk = open(&fake).expect("a good controller");
    assert_eq!(disk.bytes(), 8 << 20);
    // So often that the queues wrap and the phase turns.
    for _ in 0..5 {
        assert_eq!(pass(&fake, &mut disk), Ok(8 << 20));
    }
    {
        let machine = fake.0.borrow();
        assert_eq!(
            machine.reads.iter().map(|read| read.1).max(),
            Some(512 << 10)
        );
        assert!(machine.reads.len() > 64 && machine.lists > 20);
        assert_eq!(machine.mapped, 0);
    }
    disk.close().expect("stops");
    assert_eq!(fake.0.borrow().allocated, 0);
}

#[test]
fn the_controller_says_what_it_is() {
    let fake = Fake::new();
    fake.0.borrow_mut().format = [0, 0, 12, 0];
    fake.0.borrow_mut().limit = 0;
    let mut controller = Controller::start(fake.clone(), fake).expect("starts");
    let identity = Identity {
        blocks: (8 << 20) / BLOCK,
        block_bytes: 4096,
        largest_transfer: u64::MAX,
    };
    assert_eq!(controller.identify(), Ok(identity));
    assert!(controller.create_queue_pair(1).is_ok());
    assert!(controller.create_queue_pair(2).is_ok(), "one for each user");
}

#[test]
fn a_controller_that_cannot_be_used_is_named() {
    let with = |change: fn(&mut super::fake::Machine)| {
        let fake = Fake::new();
        change(&mut fake.0.borrow_mut());
        open(&fake).err()
    };
    assert_eq!(with(|_| ()), None);
    assert_eq!(
        with(|m| m.capabilities = 1023),
        Some(NvmeError::Capabilities(1023))
    );
    assert_eq!(with(|m| m.blocks = 0), Some(NvmeError::Identification));
    assert_eq!(
        with(|m| m.blocks = u64::MAX),
        Some(NvmeError::Identification)
    );
    assert_eq!(
        with(|m| m.format = [8, 0, 9, 0]),
        Some(NvmeError::Identification)
    );
    assert_eq!(
        with(|m| m.format = [0, 0, 8, 0]),
        Some(NvmeError::Identification)
    );
    assert_eq!(with(|m| m.manner = Manner::Lazy), Some(NvmeError::NotReady));
    assert_eq!(
        with(|m| m.manner = Manner::Silent),
        Some(NvmeError::Timeout)
    );
}

#[test]
fn a_controller_that_lies_or_fails_ends_the_pass() {
    let with = |manner| {
        let fake = Fake::new();
        let mut disk = open(&fake).expect("good so far");
        fake.0.borrow_mut().manner = manner;
        pass(&fake, &mut disk)
    };
    let error = |error| Err(PassError::Disk(error));
    assert_eq!(with(Manner::Fails(0x281)), error(NvmeError::Status(0x281)));
    // Named twice: the second time it is in flight no more. Beyond the slots: never was.
    assert_eq!(
        with(Manner::Renames(0)),
        error(NvmeError::UnknownCommand(0))
    );
    assert_eq!(
        with(Manner::Renames(500)),
        error(NvmeError::UnknownCommand(500))
    );
    assert_eq!(
        with(Manner::OtherQueue),
        error(NvmeError::UnknownCommand(0))
    );
}

#[test]
fn the_queue_has_a_limit() {
    let fake = Fake::new();
    let mut controller = Controller::start(fake.clone(), fake.clone()).expect("starts");
    let mut pair = controller.create_queue_pair(1).expect("created");
    fake.0.borrow_mut().manner = Manner::Silent;
    let read = super::command::Command::read(1, 0, 1, [PAGE_BYTES as u64, 0]);
    for number in 0..63 {
        assert_eq!(pair.submit(number, read), Ok(()));
    }
    assert_eq!(pair.submit(63, read), Err(NvmeError::QueueFull));
    assert_eq!(pair.poll(), Ok(None));
}
