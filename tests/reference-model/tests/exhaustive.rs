// SPDX-License-Identifier: MIT OR Apache-2.0
//! Every sequence of a few calls on a tiny pool, each call judged by the model.

use std::collections::BTreeSet;

use protocol::list::ListHeader;
use reference_model::light_host::LightHost;
use reference_model::{Chunk, Model, Shape, World, guest, with_world};
use snp::svsm::CallRegisters;
use snp_model::psc::HostManner;
use svsm_swiotlb::page_state::PageState;
use zerocopy::IntoBytes;

const SHAPE: Shape = Shape {
    window: 0x4000_0000,
    chunks: 3,
    hard_cap: 3,
    ram: 0x10_0000,
    ram_pages: 1,
};
const LIST: u64 = SHAPE.ram;

/// A letter of the alphabet. Epochs and generations are the current ones where none is named.
#[derive(Clone, Copy, Debug)]
enum Letter {
    Attach,
    Grow(u64, u64, bool),
    /// First chunk, chunks, generations before the last one, epochs before the current one.
    Release(u64, u64, u32, u32),
    Cap(u64),
    List(u16, u32),
    Statistics,
    /// Not offered by every service.
    Adopt,
    ReleaseOrphans,
    Detach,
    Host(HostManner),
}

use Letter::*;

const ALPHABET: [Letter; 22] = [
    Attach,
    Grow(1, 1, false),
    Grow(1, 2, false),
    Grow(2, 3, true),
    Release(0, 1, 0, 0),
    Release(1, 1, 0, 0),
    Release(0, 2, 0, 0),
    Release(0, 1, 1, 0),
    Release(0, 1, 0, 1),
    Release(2, 2, 0, 0),
    Cap(1),
    Cap(3),
    List(1, 0),
    List(3, 1),
    Statistics,
    Adopt,
    ReleaseOrphans,
    Detach,
    Host(HostManner::Honest),
    Host(HostManner::FailAfter(1)),
    Host(HostManner::Refuse),
    Host(HostManner::ReservedBits),
];

/// Longest sequence of which every one runs; one more takes as many times as long as there are letters.
const LENGTH: usize = if cfg!(miri) { 1 } else { 4 };
/// Longest sequence to a state that has not been seen before.
const DEPTH: usize = if cfg!(miri) { 2 } else { 9 };

type Tiny<'a> = World<'a, LightHost>;

fn tiny<R>(test: impl FnOnce(&Tiny<'_>) -> R) -> R {
    let pages = [(LIST, PageState::Valid)];
    with_world(LightHost::default(), SHAPE, &pages, test)
}

/// The registers of a letter, for a service in this state; what it needs in memory is put there.
fn registers(world: &Tiny<'_>, letter: Letter) -> Option<CallRegisters> {
    let (epoch, generation) = {
        let model = world.model();
        (model.epoch, model.generation)
    };
    Some(match letter {
        Attach => guest::attach(),
        Grow(least, most, contiguous) => guest::grow(epoch, least, most, contiguous),
        Release(first, chunks, before, older) => {
            let base = SHAPE.window + (first << 21);
            let generation = generation.saturating_sub(before);
            guest::release(base, chunks, epoch.saturating_sub(older), generation)
        }
        Cap(chunks) => guest::set_limits(epoch, chunks),
        List(capacity, cursor) => {
            let header = ListHeader {
                capacity,
                written: 0,
                cursor,
            };
            world.platform.inner().store(LIST, header.as_bytes());
            guest::list(epoch, LIST)
        }
        Statistics => guest::statistics(LIST, 504),
        Adopt => guest::adopt(epoch, epoch.saturating_sub(1)),
        ReleaseOrphans => guest::release_orphans(epoch, epoch.saturating_sub(1)),
        Detach => guest::detach(epoch),
        Host(manner) => {
            world.platform.inner().set_manner(manner);
            return None;
        }
    })
}

/// What distinguishes one state from another, without counters; epochs and generations by their distance, as far as the
/// letters name it.
type State = (bool, bool, usize, Vec<Chunk>, String);

fn state(model: &Model, manner: HostManner) -> State {
    let mut chunks = model.chunks.clone();
    for chunk in &mut chunks {
        if let Chunk::Held { epoch, generation } = chunk {
            *epoch = (model.epoch - *epoch).min(2);
            *generation = (model.generation - *generation).min(2);
        }
    }
    let manner = format!("{manner:?}");
    (model.epoch > 0, model.attached, model.cap, chunks, manner)
}

#[derive(Default)]
struct Walk {
    sequences: u64,
    calls: u64,
    states: BTreeSet<State>,
}

impl Walk {
    /// Repeats a prefix, of which `model` is the end, and judges one more letter.
    fn step(&mut self, prefix: &[Letter], letter: Letter, model: &Model) -> Model {
        self.sequences += 1;
        self.calls += 1 + prefix.len() as u64;
        tiny(|world| {
            for letter in prefix {
                // Judged as a sequence of its own before.
                if let Some(call) = registers(world, *letter) {
                    let answer = world.unjudged(&call);
                    if answer.rax == 0 && call.rax == guest::attach().rax {
                        world.model().epoch += 1;
                    }
                    if answer.rax == 0 && matches!(letter, Grow(..)) {
                        world.model().generation += 1;
                    }
                }
            }
            *world.model() = model.clone();
            if let Some(call) = registers(world, letter)
                && let Err(violation) = world.judge(&call)
            {
                panic!("{prefix:?}, then {letter:?}: {violation}");
            }
            world.model().clone()
        })
    }

    /// Every sequence that begins with the prefix.
    fn all(&mut self, prefix: &mut Vec<Letter>, model: &Model, manner: HostManner) {
        for letter in ALPHABET {
            let after = self.step(prefix, letter, model);
            let manner = manner_after(manner, letter);
            self.states.insert(state(&after, manner));
            if prefix.len() + 1 < LENGTH {
                prefix.push(letter);
                self.all(prefix, &after, manner);
                prefix.pop();
            }
        }
    }

    /// Every letter in every state, by the shortest way there.
    fn states(&mut self, fresh: &Model) {
        let mut front = vec![(Vec::new(), fresh.clone(), HostManner::Honest)];
        for _ in 0..DEPTH {
            let mut next = Vec::new();
            for (prefix, model, manner) in &front {
                for letter in ALPHABET {
                    let after = self.step(prefix, letter, model);
                    let manner = manner_after(*manner, letter);
                    if self.states.insert(state(&after, manner)) {
                        let mut way: Vec<Letter> = prefix.clone();
                        way.push(letter);
                        next.push((way, after, manner));
                    }
                }
            }
            front = next;
        }
    }
}

const fn manner_after(before: HostManner, letter: Letter) -> HostManner {
    match letter {
        Host(manner) => manner,
        _ => before,
    }
}

#[test]
fn every_short_sequence_of_calls_agrees_with_the_model() {
    let mut walk = Walk::default();
    let fresh = tiny(|world| world.model().clone());
    walk.all(&mut Vec::new(), &fresh, HostManner::Honest);
    println!(
        "{} sequences of at most {LENGTH} of {} letters, {} calls, {} states",
        walk.sequences,
        ALPHABET.len(),
        walk.calls,
        walk.states.len()
    );
    assert!(
        cfg!(miri) || walk.states.len() > 100,
        "{} states",
        walk.states.len()
    );
}

#[test]
fn every_call_in_every_state_agrees_with_the_model() {
    let mut walk = Walk::default();
    walk.states(&tiny(|world| world.model().clone()));
    println!(
        "{} sequences of at most {DEPTH} letters, {} calls, {} states",
        walk.sequences,
        walk.calls,
        walk.states.len()
    );
    assert!(
        cfg!(miri) || walk.states.len() > 1000,
        "{} states",
        walk.states.len()
    );
}
