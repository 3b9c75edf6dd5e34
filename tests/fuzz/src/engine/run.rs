// SPDX-License-Identifier: MIT OR Apache-2.0
//! The case as a whole: attach, steps, and giving everything back.

use std::cell::Cell;

use guest_shim::{
    CHUNK_BYTES, Config, Mapping, Pool, Reservation, Statistics, metadata_bytes,
    metadata_bytes_with_small,
};

use crate::live::{Holder, Live};
use crate::machine::{CpuNumber, Machine, set_cpu, take_copies};
use crate::operation::{Manner, Operation, Setup};
use crate::script::Script;
use crate::service::Mood;

const CANARY: u8 = 0x96;
const CANARY_BYTES: usize = 256;
const PAGE: usize = 4096;

/// A reservation, and how many of its extents are in use.
#[derive(Debug)]
pub(super) struct Reserved {
    pub number: u64,
    pub reservation: Reservation,
    pub align: u64,
    pub in_use: usize,
}

/// What the pool should have counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counted {
    pub maps: u64,
    pub unmaps: u64,
    pub syncs: u64,
    pub shared_buffers: u64,
    pub bytes_in: u64,
    pub bytes_out: u64,
}

/// What stands between a request and room that is free.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Standing {
    /// A refusal is remembered, and the service not asked.
    pub refused: bool,
    /// Growths when this was last looked at.
    pub growths: u64,
}

/// A pool and its model.
#[derive(Debug)]
pub struct Engine<'a> {
    pub(super) machine: &'a Machine,
    pub(super) pool: Pool<'a, &'a Machine>,
    pub(super) setup: Setup,
    pub(super) live: Live,
    pub(super) reserved: Vec<Reserved>,
    /// Handles of mappings that have ended.
    pub(super) dead: Vec<Mapping>,
    pub(super) counted: Counted,
    pub(super) standing: Standing,
    /// Numbers that were used up: seeds of contents, numbers of reservations.
    pub(super) drawn: u64,
    /// Where the next check of contents begins.
    pub(super) next_checked: u64,
}

thread_local! {
    static STEP: Cell<Option<(usize, Operation)>> = const { Cell::new(None) };
}

/// The step that runs now, or that failed, by its number.
pub fn step() -> Option<(usize, Operation)> {
    STEP.get()
}

/// Runs a case from attach to the end of the pool.
///
/// # Panics
/// If the pool does anything that the model does not.
pub fn run(script: &Script) {
    let setup = Setup::decode(script.setup);
    let machine = Machine::new(setup.chunks, setup.grow_limit);
    let window = setup.chunks as u64 * CHUNK_BYTES;
    let bytes = match setup.small_mappings {
        0 => metadata_bytes(window, setup.cpus),
        small => metadata_bytes_with_small(window, setup.cpus, small),
    };
    // What it holds before is nobody's business, and it begins anywhere; in the same case always at the same place.
    let mut area = vec![CANARY; bytes + 2 * CANARY_BYTES + PAGE];
    let to_page = area.as_ptr().addr().wrapping_neg() % PAGE;
    let first = CANARY_BYTES + (to_page + setup.metadata_phase) % PAGE;
    let metadata = first..first + bytes;
    area[metadata.clone()].fill(0xa7);
    let config = Config {
        initial_bytes: setup.initial * CHUNK_BYTES,
        minimum_bytes: setup.minimum * CHUNK_BYTES,
        growth_limit_bytes: setup.growth_limit * CHUNK_BYTES,
        cpus: setup.cpus,
        ..Config::default()
    };
    let pool = Pool::attach(&machine, &mut area[metadata.clone()], config);
    let mut engine = Engine {
        machine: &machine,
        pool: pool.expect("everything that attach needs is there"),
        setup,
        live: Live::default(),
        reserved: Vec::new(),
        dead: Vec::new(),
        counted: Counted::default(),
        standing: Standing::default(),
        drawn: 0,
        next_checked: 0,
    };
    for (number, record) in script.operations.iter().enumerate() {
        let operation = Operation::decode(*record);
        STEP.set(Some((number, operation)));
        engine.apply(operation);
        engine.check_step();
    }
    STEP.set(None);
    engine.finish();
    let outside = area[..metadata.start].iter().chain(&area[metadata.end..]);
    assert!(
        outside.copied().all(|byte| byte == CANARY),
        "the pool wrote outside its metadata"
    );
    machine.close();
}

impl Engine<'_> {
    fn apply(&mut self, operation: Operation) {
        match operation {
            Operation::Map { length, shape } => {
                let _ = self.map(length, shape);
            }
            Operation::MapMany {
                count,
                length,
                shape,
            } => {
                for _ in 0..count {
                    if self.map(length, shape).is_err() {
                        break;
                    }
                }
            }
            Operation::Fill { length } => self.fill(length),
            Operation::MapReserved {
                which,
                length,
                shape,
            } => self.map_reserved(which, length, shape),
            Operation::Unmap {
                which,
                manner,
                written,
            } => {
                if let Some(key) = self.live.pick(which, |item| item.mapping().is_some()) {
                    self.unmap(key, manner, written);
                }
            }
            Operation::Remap { which, shape } => {
                if let Some(key) = self.live.pick(which, |item| item.mapping().is_some()) {
                    let length = self.live.get(key).expect("picked").length;
                    self.unmap(key, Manner::Handle, 0);
                    let _ = self.map(length, shape);
                }
            }
            Operation::EndMany { count, first, step } => {
                for index in 0..count {
                    self.end(first + index * (step - 1));
                }
            }
            Operation::Sync {
                which,
                for_device,
                by_address,
                offset,
                length,
            } => self.sync(which, for_device, by_address, offset, length),
            Operation::DriverWrites { which, seed } => self.driver_writes(which, seed),
            Operation::DeviceWrites { which, seed } => self.device_writes(which, seed),
            Operation::Scribble { seed } => self.machine.scribble(seed),
            Operation::Attack { seed } => self.attack(seed),
            Operation::AllocShared { length, align } => self.alloc_shared(length, align),
            Operation::WriteShared {
                which,
                offset,
                length,
                seed,
            } => self.write_shared(which, offset, length, seed),
            Operation::ReadShared {
                which,
                offset,
                length,
            } => self.read_shared(which, offset, length),
            Operation::FreeShared { which, by_address } => {
                if let Some(key) = self.live.pick(which, |item| item.shared().is_some()) {
                    self.free_shared(key, by_address);
                }
            }
            Operation::Reserve {
                count,
                length,
                align,
            } => self.reserve(count, length, align),
            Operation::CancelReservation { which } => self.cancel(which),
            Operation::Maintain => self.give(false),
            Operation::GiveBack => self.give(true),
            Operation::SetCap { bytes } => self.set_cap(bytes),
            Operation::SetMood { mood } => self.machine.service(|service| service.mood = mood),
            Operation::SetCpu { number } => set_cpu(number),
            Operation::Misuse {
                which,
                misuse,
                variant,
            } => self.misuse(which, misuse, variant),
        }
    }

    /// A number that was not drawn before.
    pub(super) const fn draw(&mut self) -> u64 {
        self.drawn += 1;
        self.drawn
    }

    /// Ends one of the items, whatever it is.
    pub(super) fn end(&mut self, which: usize) {
        let Some(key) = self.live.pick(which, |_| true) else {
            return;
        };
        if self
            .live
            .get(key)
            .is_some_and(|item| item.mapping().is_some())
        {
            self.unmap(key, Manner::Handle, 0);
        } else {
            self.free_shared(key, false);
        }
    }

    /// `maintain` or `give_back`.
    fn give(&mut self, all: bool) {
        self.standing.refused &= all;
        let before = self
            .machine
            .service(|service| (service.granted(), service.open()));
        let given = if all {
            self.pool.give_back()
        } else {
            self.pool.maintain()
        };
        let after = self
            .machine
            .service(|service| (service.granted(), service.open()));
        let gone = before.0 - after.0 - (after.1 - before.1);
        assert_eq!(given.released_bytes, gone as u64 * CHUNK_BYTES, "{given:?}");
        assert_eq!(given.acknowledged_bytes, given.released_bytes, "{given:?}");
        assert_eq!(take_copies(), [], "copies while giving back");
    }

    fn set_cap(&mut self, bytes: u64) {
        let before = self.machine.service(|service| service.cap());
        let set = self.pool.set_cap(bytes);
        let after = self.machine.service(|service| service.cap());
        match set {
            Ok(previous) => {
                assert_eq!((previous, after), (before, bytes));
                self.standing.refused = false;
            }
            Err(_) => assert_eq!(after, before),
        }
        if !bytes.is_multiple_of(CHUNK_BYTES) {
            assert_eq!(set, Err(guest_shim::MapError::InvalidRequest));
        } else if bytes > self.pool.window().bytes() && !self.machine.service(|s| s.troubled) {
            assert_eq!(set, Err(guest_shim::MapError::TooLarge));
        }
    }

    /// Ends everything, and sees that nothing is left.
    fn finish(mut self) {
        self.machine.service(|service| service.mood = Mood::PLAIN);
        set_cpu(CpuNumber::Fixed(0));
        self.check_everything();
        while self.live.count() > 0 {
            // From both ends and the middle, so that neighbours come together in every order.
            self.end(self.drawn as usize);
            self.draw();
        }
        self.check_step();
        for reserved in std::mem::take(&mut self.reserved) {
            let cancelled = self.pool.cancel_reservation(reserved.reservation);
            cancelled.expect("nothing uses the reservation");
        }
        let end: Statistics = self.pool.statistics();
        assert_eq!(end.used_bytes, 0, "used by nobody: {end:?}");
        assert_eq!(end.maps, end.unmaps);
        let given = self.pool.give_back();
        assert_eq!(given.stopped_by, None);
        let left = self.machine.service(|service| service.granted());
        assert_eq!(
            left, 0,
            "chunks that are empty were not given back: {given:?}"
        );
    }

    /// Bytes that must be counted as used.
    pub(super) fn used_floor(&self) -> u64 {
        let free_standing = |item: &&crate::live::Item| match &item.holder {
            Holder::Mapping(mapping) => mapping.reservation.is_none(),
            Holder::Shared(_) => true,
        };
        let items: u64 = self
            .live
            .iter()
            .filter(free_standing)
            .map(|item| item.length as u64)
            .sum();
        let reserved =
            |it: &Reserved| (it.reservation.count() * it.reservation.max_length()) as u64;
        items + self.reserved.iter().map(reserved).sum::<u64>()
    }
}
