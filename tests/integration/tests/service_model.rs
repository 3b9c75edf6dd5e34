// SPDX-License-Identifier: MIT OR Apache-2.0
//! Random calls on the model machine, against a reference that is a map and a set.
//!
//! The reference knows what is held by whom. It does not predict where a grant lies; it judges every answer: is this
//! grant allowed, is this the reason for this refusal, is the rest of the world unchanged.

mod service_machine;

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use protocol::response::Released;
use protocol::{CHUNK_BYTES, Request, result};
use service_machine::{ServiceMachine, WINDOW};
use snp::address::GuestPhysicalAddress;
use snp::svsm::ResultCode;
use snp_model::psc::HostManner;
use svsm_swiotlb::pool::ChunkState;

const CHUNKS: usize = 12;

/// One step of the guest or the host.
#[derive(Clone, Debug)]
enum Action {
    Attach,
    Grow {
        least: usize,
        extra: usize,
        contiguous: bool,
        stale: bool,
    },
    /// Chunks from the start of the nth grant, or beside it, with an honest or a wrong generation.
    Release {
        grant: usize,
        skip: usize,
        count: usize,
        wrong: bool,
    },
    SetCap(usize),
    List(u16),
    Manner(HostManner),
}

fn action() -> impl Strategy<Value = Action> {
    let manner = prop_oneof![
        4 => Just(HostManner::Honest),
        1 => Just(HostManner::Refuse),
        2 => (1_u16..5).prop_map(HostManner::StopAfter),
        2 => (0_u16..5).prop_map(HostManner::FailAfter),
        1 => (32_u16..1200).prop_map(HostManner::StopInside),
        1 => Just(HostManner::Lie),
        1 => Just(HostManner::NoProgress),
        1 => prop_oneof![
            Just(HostManner::CursorBackwards),
            Just(HostManner::CursorBeyondEnd),
            Just(HostManner::EnlargeEnd),
            Just(HostManner::ReservedBits),
        ],
    ];
    prop_oneof![
        1 => Just(Action::Attach),
        8 => (1_usize..8, 0_usize..12, any::<bool>(), prop::bool::weighted(0.05))
            .prop_map(|(least, extra, contiguous, stale)| Action::Grow {
                least, extra, contiguous, stale,
            }),
        8 => (any::<usize>(), 0_usize..3, 1_usize..8, prop::bool::weighted(0.2))
            .prop_map(|(grant, skip, count, wrong)| Action::Release { grant, skip, count, wrong }),
        1 => (0..=CHUNKS + 2).prop_map(Action::SetCap),
        2 => (1_u16..=170).prop_map(Action::List),
        3 => manner.prop_map(Action::Manner),
    ]
}

/// What should be so.
#[derive(Debug)]
struct Reference {
    epoch: u32,
    cap: usize,
    /// Chunk to (epoch, generation).
    held: BTreeMap<usize, (u32, u32)>,
    quarantined: BTreeSet<usize>,
    generations: BTreeSet<u32>,
    manner: HostManner,
}

impl Reference {
    fn new() -> Self {
        Self {
            epoch: 0,
            cap: CHUNKS,
            held: BTreeMap::new(),
            quarantined: BTreeSet::new(),
            generations: BTreeSet::new(),
            manner: HostManner::Honest,
        }
    }

    fn is_free(&self, chunk: usize) -> bool {
        chunk < CHUNKS && !self.held.contains_key(&chunk) && !self.quarantined.contains(&chunk)
    }

    fn longest_free_run(&self) -> usize {
        let (mut longest, mut current) = (0, 0);
        for chunk in 0..CHUNKS {
            current = if self.is_free(chunk) { current + 1 } else { 0 };
            longest = longest.max(current);
        }
        longest
    }

    /// The host breaks a rule whenever it is asked.
    fn host_breaks_rules(&self) -> bool {
        matches!(
            self.manner,
            HostManner::CursorBackwards
                | HostManner::CursorBeyondEnd
                | HostManner::EnlargeEnd
                | HostManner::ReservedBits
        )
    }

    fn host_declines(&self) -> bool {
        matches!(
            self.manner,
            HostManner::Refuse | HostManner::NoProgress | HostManner::FailAfter(_)
        )
    }

    /// Chunks the service quarantined since the last look; they must have been free or just released.
    fn learn_quarantined(&mut self, machine: &ServiceMachine, allowed: impl Fn(usize) -> bool) {
        for (chunk, state) in machine.states().into_iter().enumerate() {
            if state == ChunkState::Quarantined && self.quarantined.insert(chunk) {
                assert!(allowed(chunk), "chunk {chunk} was not part of the batch");
            }
        }
    }

    fn grow(
        &mut self,
        machine: &ServiceMachine,
        least: usize,
        most: usize,
        contiguous: bool,
        stale: bool,
    ) {
        let epoch = self.epoch + u32::from(stale);
        let needed = if contiguous { least } else { 1 };
        let headroom = self.cap.saturating_sub(self.held.len());
        let exits = machine.machine.counters().psc_exits;
        match machine.grow(epoch, least, most, contiguous) {
            Ok(granted) => {
                assert!(!stale && self.epoch != 0);
                assert!(!self.host_breaks_rules());
                let first = ServiceMachine::chunk_of(granted.base.bits());
                let count = usize::try_from(granted.bytes / CHUNK_BYTES).unwrap();
                assert!(needed <= count && count <= most && count <= headroom);
                let number = granted.generation.number();
                assert!(self.generations.insert(number), "a generation is used once");
                for chunk in first..first + count {
                    assert!(self.is_free(chunk), "W2: chunk {chunk} has a holder");
                    self.held.insert(chunk, (self.epoch, number));
                }
                assert!(machine.machine.counters().psc_exits > exits, "always asked");
                if self.manner == HostManner::Honest {
                    let page = GuestPhysicalAddress::new(granted.base.bits());
                    assert!(!machine.machine.entry(page).unwrap().assigned);
                }
            }
            Err(result::NOT_ATTACHED) => assert_eq!(self.epoch, 0),
            Err(result::STALE_EPOCH) => assert!(stale && self.epoch != 0),
            Err(result::CAP_REACHED) => assert!(headroom < needed),
            Err(result::NO_CONTIGUOUS_RUN) => {
                assert!(headroom >= needed && self.longest_free_run() < needed);
            }
            Err(result::HOST_REFUSED) => assert!(self.host_declines()),
            Err(result::HOST_MISBEHAVED) => {
                assert!(self.host_breaks_rules());
                let before = self.quarantined.len();
                let held = self.held.clone();
                self.learn_quarantined(machine, |chunk| !held.contains_key(&chunk));
                assert!(
                    self.quarantined.len() > before,
                    "P3: nothing was quarantined"
                );
            }
            Err(code) => panic!("undocumented for GROW: {code}"),
        }
    }

    fn release(
        &mut self,
        machine: &ServiceMachine,
        grant: usize,
        skip: usize,
        count: usize,
        wrong: bool,
    ) {
        let starts: Vec<(usize, u32)> = self.held.iter().map(|(c, h)| (*c, h.1)).collect();
        let (start, generation) = match starts.len() {
            0 => (0, 1),
            length => starts[grant % length],
        };
        let first = start + skip;
        let generation = generation + u32::from(wrong);
        let range = first..first + count;
        let ours = |chunk| self.held.get(&chunk) == Some(&(self.epoch, generation));
        let holds_all = range.clone().all(ours);
        match machine.release(self.epoch, first, count, generation) {
            Ok(Released {
                bytes,
                acknowledged,
            }) => {
                assert!(holds_all, "W2: released what is not the caller's");
                assert_eq!(bytes, count as u64 * CHUNK_BYTES);
                assert!(acknowledged <= bytes);
                if self.manner == HostManner::Honest {
                    assert_eq!(acknowledged, bytes);
                }
                self.held.retain(|chunk, _| !range.contains(chunk));
                self.learn_quarantined(machine, |chunk| range.contains(&chunk));
            }
            Err(result::NOT_ATTACHED) => assert_eq!(self.epoch, 0),
            Err(result::NOT_HELD) => assert!(!holds_all),
            Err(ResultCode::INVALID_ADDRESS) => assert!(range.end > CHUNKS),
            Err(code) => panic!("undocumented for RELEASE: {code}"),
        }
    }

    fn list(&self, machine: &ServiceMachine, capacity: u16) {
        let Ok(runs) = machine.list(self.epoch, capacity) else {
            assert_eq!(self.epoch, 0);
            return;
        };
        let mut listed = BTreeMap::new();
        for run in runs {
            let first = ServiceMachine::chunk_of(run.base);
            let count = usize::try_from(run.bytes / CHUNK_BYTES).unwrap();
            for chunk in first..first + count {
                let twice = listed.insert(chunk, (run.epoch, run.generation));
                assert_eq!(twice, None, "chunk {chunk} listed twice");
            }
        }
        assert_eq!(listed, self.held);
    }

    fn step(&mut self, machine: &ServiceMachine, action: &Action) {
        match *action {
            Action::Attach => {
                let attached = machine.attach();
                assert_eq!(attached.fresh, self.epoch == 0);
                assert_eq!(
                    attached.orphaned_bytes,
                    self.held.len() as u64 * CHUNK_BYTES
                );
                assert!(attached.epoch.number() > self.epoch);
                self.epoch = attached.epoch.number();
            }
            Action::Grow {
                least,
                extra,
                contiguous,
                stale,
            } => {
                self.grow(machine, least, least + extra, contiguous, stale);
            }
            Action::Release {
                grant,
                skip,
                count,
                wrong,
            } => {
                self.release(machine, grant, skip, count, wrong);
            }
            Action::SetCap(chunks) => {
                let cap = chunks as u64 * CHUNK_BYTES;
                let (window, epoch) = (0, self.epoch);
                let answer = machine.call(Request::SetLimits { window, epoch, cap });
                if let Ok(results) = answer {
                    assert_eq!(results.rcx, self.cap as u64 * CHUNK_BYTES);
                    self.cap = chunks;
                } else {
                    assert!(self.epoch == 0 || chunks > CHUNKS);
                }
            }
            Action::List(capacity) => self.list(machine, capacity),
            Action::Manner(manner) => {
                machine.machine.set_manner(manner);
                self.manner = manner;
            }
        }
        machine.check();
        for (chunk, state) in machine.states().into_iter().enumerate() {
            let held = match state {
                ChunkState::Held(holder) => {
                    Some((holder.epoch.number(), holder.generation.number()))
                }
                _ => None,
            };
            assert_eq!(held, self.held.get(&chunk).copied(), "chunk {chunk}");
            let quarantined = state == ChunkState::Quarantined;
            assert_eq!(
                quarantined,
                self.quarantined.contains(&chunk),
                "chunk {chunk}"
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn w1_w2_p3_p4_p_3_3_random_calls_agree_with_the_reference(
        actions in prop::collection::vec(action(), 1..60),
    ) {
        let machine = ServiceMachine::new(CHUNKS);
        let mut reference = Reference::new();
        reference.step(&machine, &Action::Attach);
        for action in &actions {
            reference.step(&machine, action);
        }
        machine.check_window_never_validated();
    }
}

#[test]
fn p_3_5_before_the_first_attach_everything_is_refused_as_such() {
    let machine = ServiceMachine::new(CHUNKS);
    let mut reference = Reference::new();
    for action in [
        Action::Grow {
            least: 1,
            extra: 0,
            contiguous: false,
            stale: false,
        },
        Action::Release {
            grant: 0,
            skip: 0,
            count: 1,
            wrong: false,
        },
        Action::SetCap(1),
        Action::List(1),
    ] {
        reference.step(&machine, &action);
    }
    assert_eq!(machine.machine.counters().psc_exits, 0);
}

#[test]
fn s_devices_reach_a_grant_and_nothing_else_changes_for_the_guest() {
    let machine = ServiceMachine::new(CHUNKS);
    let epoch = machine.attach().epoch.number();
    let granted = machine.grow(epoch, 1, 1, false).unwrap();
    assert_eq!(granted.base.bits(), WINDOW);
    let vmpl = snp::address::Vmpl::Vmpl2;
    machine
        .machine
        .device_write(granted.base, b"from the disk")
        .unwrap();
    let mut seen = [0; 13];
    machine
        .machine
        .guest_read(vmpl, false, granted.base, &mut seen)
        .unwrap();
    assert_eq!(&seen, b"from the disk");
    // The same address with the C-bit set is no memory of the guest's.
    assert!(
        machine
            .machine
            .guest_read(vmpl, true, granted.base, &mut seen)
            .is_err()
    );
}
