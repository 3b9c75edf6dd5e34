// SPDX-License-Identifier: MIT OR Apache-2.0
//! Random use against a plain model: a list of live mappings, what their buffers hold and what the device sees.

use proptest::prelude::*;
use std::vec::Vec;

use super::buffer::{Buffer, pattern};
use super::cases;
use super::machine::{Machine, map_with};
use super::memory::BASE;
use crate::{CHUNK_BYTES, Config, Constraints, CopyIn, Direction, MapError, Mapping, Pool};

const CHUNKS: usize = 6;

#[derive(Clone, Debug)]
enum Action {
    Map {
        length: usize,
        direction: Direction,
        device_written: bool,
        mask: u32,
        align: u32,
        boundary: u32,
        phase: usize,
    },
    Unmap {
        which: usize,
        written: Option<usize>,
    },
    UnmapAddress {
        which: usize,
    },
    Sync {
        which: usize,
        offset: usize,
        length: usize,
        to_device: bool,
    },
    DeviceWrites {
        which: usize,
        seed: usize,
    },
    DriverWrites {
        which: usize,
        seed: usize,
    },
    Stale {
        which: usize,
    },
    Maintain,
    GiveBack,
}

fn length() -> impl Strategy<Value = usize> {
    prop_oneof![4 => 1_usize..300, 6 => 300_usize..5000, 3 => 5000_usize..70_000, 1 => 70_000_usize..2_600_000]
}

fn action() -> impl Strategy<Value = Action> {
    let direction = prop_oneof![
        Just(Direction::ToDevice),
        Just(Direction::FromDevice),
        Just(Direction::Bidirectional)
    ];
    let which = 0_usize..1000;
    prop_oneof![
        8 => (length(), direction, any::<bool>(), 0_u32..14, 0_u32..16, 0_u32..90, any::<usize>()).prop_map(
            |(length, direction, device_written, mask, align, boundary, phase)| Action::Map {
                length, direction, mask, align, boundary, phase,
                device_written: device_written && direction == Direction::FromDevice,
            }
        ),
        4 => (which.clone(), proptest::option::of(0_usize..6000))
            .prop_map(|(which, written)| Action::Unmap { which, written }),
        2 => which.clone().prop_map(|which| Action::UnmapAddress { which }),
        4 => (which.clone(), 0_usize..6000, 0_usize..6000, any::<bool>()).prop_map(
            |(which, offset, length, to_device)| Action::Sync { which, offset, length, to_device }
        ),
        4 => (which.clone(), 0_usize..100).prop_map(|(which, seed)| Action::DeviceWrites { which, seed }),
        2 => (which.clone(), 0_usize..100).prop_map(|(which, seed)| Action::DriverWrites { which, seed }),
        1 => which.prop_map(|which| Action::Stale { which }),
        1 => Just(Action::Maintain),
        1 => Just(Action::GiveBack),
    ]
}

/// One live mapping, as the model knows it.
struct Live {
    mapping: Mapping,
    buffer: Buffer,
    /// What the driver's buffer holds.
    private: Vec<u8>,
    /// What the device sees.
    shared: Vec<u8>,
    device_written: bool,
    extent: core::ops::Range<u64>,
}

impl Live {
    fn copy_out(&mut self, from: usize, to: usize) {
        self.private[from..to].copy_from_slice(&self.shared[from..to]);
    }

    fn check(&self, machine: &Machine) {
        assert_eq!(self.buffer.read(), self.private, "the driver's buffer");
        let seen = machine.device_read(self.mapping.address(), self.shared.len());
        assert_eq!(seen, self.shared, "the device's view");
    }
}

struct Model<'a> {
    machine: &'a Machine,
    pool: Pool<'static, &'a Machine>,
    live: Vec<Live>,
    dead: Vec<Mapping>,
}

impl Model<'_> {
    fn pick(&self, which: usize) -> Option<usize> {
        (!self.live.is_empty()).then(|| which % self.live.len())
    }

    fn apply(&mut self, action: &Action) {
        match *action {
            Action::Map {
                length,
                direction,
                device_written,
                mask,
                align,
                boundary,
                phase,
            } => {
                // Mostly none; from 64 bytes to 2 GiB.
                let boundary = match boundary {
                    6..32 => 1 << boundary,
                    _ => 0,
                };
                let mask = (1_usize << mask) - 1;
                let constraints = Constraints {
                    min_align_mask: mask as u64,
                    alignment: 1 << align,
                    highest_address: BASE + CHUNKS as u64 * CHUNK_BYTES - 1,
                    boundary,
                };
                let buffer = Buffer::at_phase(length, mask, phase);
                buffer.write(&pattern(length, phase % 1000));
                let copy_in = if device_written {
                    CopyIn::DeviceWritten
                } else {
                    CopyIn::Keep
                };
                match map_with(&self.pool, &buffer, direction, copy_in, &constraints) {
                    Ok(mapping) => self.mapped(mapping, buffer, device_written, &constraints),
                    Err(MapError::OutOfReach) => {
                        let begins = buffer.raw().addr().get() & mask;
                        let room = boundary as usize - (begins & (boundary as usize - 1));
                        assert!(room < length, "{action:?}");
                    }
                    Err(_) => {
                        let held: usize = self.live.iter().map(|live| live.private.len()).sum();
                        let much = held as u64 > CHUNKS as u64 * CHUNK_BYTES / 2;
                        let full = self.live.len() > 20 || much;
                        assert!(length > 60_000 || full, "{action:?}");
                    }
                }
            }
            Action::Unmap { which, written } => {
                let Some(index) = self.pick(which) else {
                    return;
                };
                let mut live = self.live.swap_remove(index);
                let (length, writes) =
                    (live.private.len(), live.mapping.direction().device_writes());
                match written {
                    Some(written) => {
                        let written = written.min(length);
                        self.pool
                            .unmap_written(live.mapping, written as u64)
                            .unwrap();
                        live.copy_out(0, if writes { written } else { 0 });
                    }
                    None => {
                        self.pool.unmap(live.mapping).unwrap();
                        live.copy_out(
                            0,
                            if writes && !live.device_written {
                                length
                            } else {
                                0
                            },
                        );
                    }
                }
                assert_eq!(live.buffer.read(), live.private);
                self.dead.push(live.mapping);
            }
            Action::UnmapAddress { which } => {
                let Some(index) = self.pick(which) else {
                    return;
                };
                let mut live = self.live.swap_remove(index);
                let (length, direction) = (live.private.len(), live.mapping.direction());
                self.pool
                    .unmap_address(live.mapping.address(), length as u64, direction)
                    .unwrap();
                let copied = direction.device_writes() && !live.device_written;
                live.copy_out(0, if copied { length } else { 0 });
                assert_eq!(live.buffer.read(), live.private);
                self.dead.push(live.mapping);
            }
            Action::Sync {
                which,
                offset,
                length,
                to_device,
            } => {
                let Some(index) = self.pick(which) else {
                    return;
                };
                let live = &mut self.live[index];
                let direction = live.mapping.direction();
                let from = offset.min(live.private.len());
                let to = (from + length).min(live.private.len());
                let (offset, length) = (from as u64, (to - from) as u64);
                if to_device {
                    self.pool
                        .sync_for_device(&live.mapping, offset, length)
                        .unwrap();
                    if direction.device_reads() {
                        live.shared[from..to].copy_from_slice(&live.private[from..to]);
                    }
                } else {
                    self.pool
                        .sync_for_cpu(&live.mapping, offset, length)
                        .unwrap();
                    live.copy_out(from, if direction.device_writes() { to } else { from });
                }
                live.check(self.machine);
            }
            Action::DeviceWrites { which, seed } => {
                let Some(index) = self.pick(which) else {
                    return;
                };
                let live = &mut self.live[index];
                live.shared = pattern(live.shared.len(), seed);
                self.machine
                    .device_write(live.mapping.address(), &live.shared);
            }
            Action::DriverWrites { which, seed } => {
                let Some(index) = self.pick(which) else {
                    return;
                };
                let live = &mut self.live[index];
                live.private = pattern(live.private.len(), seed);
                live.buffer.write(&live.private);
            }
            Action::Stale { which } => {
                if self.dead.is_empty() {
                    return;
                }
                let mapping = self.dead[which % self.dead.len()];
                self.pool.unmap(mapping).unwrap_err();
                self.pool.sync_for_cpu(&mapping, 0, 1).unwrap_err();
            }
            Action::Maintain => drop(self.pool.maintain()),
            Action::GiveBack => drop(self.pool.give_back()),
        }
    }

    fn mapped(
        &mut self,
        mapping: Mapping,
        buffer: Buffer,
        device_written: bool,
        constraints: &Constraints,
    ) {
        let private = buffer.read();
        let (address, length) = (mapping.address(), private.len());
        let origin = buffer.raw().addr().get() as u64;
        assert_eq!(
            address & constraints.min_align_mask,
            origin & constraints.min_align_mask
        );
        let granule = constraints.alignment;
        let extent = address & !(granule - 1)..(address + length as u64).next_multiple_of(granule);
        assert!(BASE <= extent.start && extent.end <= BASE + CHUNKS as u64 * CHUNK_BYTES);
        if constraints.min_align_mask == 0 {
            assert_eq!(address, extent.start);
        }
        let last = address + length as u64 - 1;
        let boundary = constraints.boundary;
        assert!(
            boundary == 0 || address ^ last < boundary,
            "{address:#x} crosses {boundary:#x}"
        );
        for other in &self.live {
            assert!(
                extent.end <= other.extent.start || other.extent.end <= extent.start,
                "overlap"
            );
        }
        let shared = self.machine.device_read(address, length);
        assert!(device_written || shared == private, "copied in");
        self.live.push(Live {
            mapping,
            buffer,
            private,
            shared,
            device_written,
            extent,
        });
    }

    fn finish(&mut self) {
        self.live.iter().for_each(|live| live.check(self.machine));
        while !self.live.is_empty() {
            self.apply(&Action::Unmap {
                which: 0,
                written: None,
            });
        }
        let statistics = self.pool.statistics();
        assert_eq!((statistics.used_bytes, statistics.lost_bytes), (0, 0));
        assert_eq!(
            statistics.granted_bytes,
            self.machine.granted() as u64 * CHUNK_BYTES
        );
        assert_eq!(statistics.maps, statistics.unmaps);
        self.pool.give_back();
        assert_eq!(self.machine.granted(), 0);
    }
}

proptest! {
    #![proptest_config(cases(32))]
    #[test]
    fn random_use_agrees_with_the_model(actions in proptest::collection::vec(action(), 1..120)) {
        let machine = Machine::new(CHUNKS);
        let pool = machine.pool(Config::default());
        let mut model = Model { machine: &machine, pool, live: Vec::new(), dead: Vec::new() };
        for action in &actions {
            model.apply(action);
        }
        model.finish();
    }
}
