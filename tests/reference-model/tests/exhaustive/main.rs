// SPDX-License-Identifier: MIT OR Apache-2.0
//! Every sequence of a few calls on a tiny pool, each call judged by the model.

mod letters;

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::thread;

use letters::{
    BOTH, CONVERT_LIST, LARGE, Letter, PAGES_ONLY, POOL, SHAPE, Tiny, every_letter, registers, tiny,
};
use protocol::convert::Outcome;
use reference_model::world::{CONVERT, NO_CONVERT};
use reference_model::{Chunk, Model, Tried, guest};
use snp::svsm::ResultCode;
use svsm_swiotlb::Configuration;
use svsm_swiotlb::page_state::PageState;

/// Longest sequence of which every one runs; one more takes as many times as long as there are letters.
const LENGTH: usize = if cfg!(miri) { 1 } else { 4 };
/// Longest sequence to a state that has not been seen before.
const DEPTH: usize = 9;
const PAGES_DEPTH: usize = 7;

/// What distinguishes one state from another, without counters and records; epochs and generations by their distance, as
/// far as the letters name it.
type State = (
    bool,
    bool,
    bool,
    usize,
    Vec<Chunk>,
    Vec<Option<PageState>>,
    Vec<u8>,
    String,
);

fn state(world: &Tiny<'_>) -> State {
    let model = world.model();
    let mut chunks = model.chunks.clone();
    for chunk in &mut chunks {
        if let Chunk::Held { epoch, generation } = chunk {
            *epoch = (model.epoch - *epoch).min(2);
            *generation = (model.generation - *generation).min(2);
        }
    }
    let few = (SHAPE.ram..=LARGE).step_by(4096);
    let host = world.platform.inner();
    (
        model.epoch > 0,
        model.attached,
        model.stopped,
        model.cap_of(0),
        chunks,
        few.map(|page| model.page(page)).collect(),
        host.load(CONVERT_LIST, 32),
        host.temper(),
    )
}

/// A sequence and what is left after it.
type Way = (Vec<Letter>, Model);

struct Walk {
    alphabet: Vec<Letter>,
    configuration: Configuration,
    sequences: u64,
    calls: u64,
    states: BTreeSet<State>,
    tried: Tried,
}

impl Walk {
    fn new(alphabet: Vec<Letter>, configuration: Configuration) -> Self {
        Self {
            alphabet,
            configuration,
            sequences: 0,
            calls: 0,
            states: BTreeSet::new(),
            tried: Tried::default(),
        }
    }

    fn fresh(&self) -> Model {
        tiny(self.configuration, |world| world.model().clone())
    }

    /// Repeats a prefix, of which `model` is the end, and judges one more letter.
    fn step(&mut self, prefix: &[Letter], letter: Letter, model: &Model) -> (Model, State) {
        self.sequences += 1;
        self.calls += 1 + prefix.len() as u64;
        let (model, state) = tiny(self.configuration, |world| {
            for letter in prefix {
                // Judged as a sequence of its own before.
                if let Some(call) = registers(world, *letter) {
                    let answer = world.unjudged(&call);
                    if answer.rax == 0 && call.rax == guest::attach().rax {
                        world.model().epoch += 1;
                    }
                    let granted = match letter {
                        Letter::Grow(..) => answer.rax == 0,
                        Letter::FromMemory(Letter::Grow(..)) => answer.rax | answer.r9 == 0,
                        _ => false,
                    };
                    if granted {
                        world.model().generation += 1;
                    }
                }
            }
            *world.model() = model.clone();
            if let Some(call) = registers(world, letter)
                && let Err(violation) = world.judge(&call)
            {
                panic!("{prefix:x?}, then {letter:x?}: {violation}");
            }
            let state = state(world);
            (world.model().clone(), state)
        });
        self.tried.answers.extend(&model.tried.answers);
        self.tried.outcomes.extend(&model.tried.outcomes);
        (model, state)
    }

    /// Every sequence that begins with the prefix and ends in a call.
    fn all(&mut self, prefix: &mut Vec<Letter>, model: &Model, length: usize) {
        for letter in self.alphabet.clone() {
            let last = prefix.len() + 1 == length;
            if last && letter.is_no_call() {
                continue;
            }
            let (after, state) = self.step(prefix, letter, model);
            self.states.insert(state);
            if !last {
                prefix.push(letter);
                self.all(prefix, &after, length);
                prefix.pop();
            }
        }
    }

    /// Every letter in every state, by the shortest way there.
    fn states(&mut self, depth: usize) {
        let mut front: Vec<Way> = vec![(Vec::new(), self.fresh())];
        for _ in 0..depth {
            let mut next = Vec::new();
            for (prefix, model) in &front {
                for letter in self.alphabet.clone() {
                    let (after, state) = self.step(prefix, letter, model);
                    if self.states.insert(state) {
                        let mut way: Vec<Letter> = prefix.clone();
                        way.push(letter);
                        next.push((way, after));
                    }
                }
            }
            front = next;
        }
    }

    fn report(&self, length: usize) {
        println!(
            "{} sequences of at most {length} of {} letters, {} calls, {} states",
            self.sequences,
            self.alphabet.len(),
            self.calls,
            self.states.len()
        );
    }
}

/// The sequences that begin with each of some letters, on as many threads as there are processors to spare.
fn all_sequences(alphabet: &[Letter], configuration: Configuration, length: usize) -> Walk {
    let firsts = Mutex::new(alphabet.to_vec());
    let whole = Mutex::new(Walk::new(alphabet.to_vec(), configuration));
    let work = || {
        loop {
            let first = firsts.lock().unwrap().pop();
            let Some(first) = first else { break };
            let mut walk = Walk::new(alphabet.to_vec(), configuration);
            let (after, state) = walk.step(&[], first, &walk.fresh());
            walk.states.insert(state);
            if length > 1 {
                walk.all(&mut vec![first], &after, length);
            }
            let mut whole = whole.lock().unwrap();
            whole.sequences += walk.sequences;
            whole.calls += walk.calls;
            whole.states.append(&mut walk.states);
            whole.tried.answers.append(&mut walk.tried.answers);
            whole.tried.outcomes.append(&mut walk.tried.outcomes);
        }
    };
    thread::scope(|scope| {
        scope.spawn(work);
        scope.spawn(work);
    });
    whole.into_inner().unwrap()
}

#[test]
fn every_short_sequence_of_calls_agrees_with_the_model() {
    let walk = all_sequences(&every_letter(), CONVERT, LENGTH);
    walk.report(LENGTH);
    assert!(cfg!(miri) || walk.states.len() > 1000);
    // What CONVERT made of entries: unchanged, the fault of one entry, of the host, of the service's trust.
    assert!(
        cfg!(miri) || walk.tried.outcomes.len() >= 5,
        "{:?}",
        walk.tried
    );
}

#[test]
#[cfg_attr(miri, ignore = "no more than the sequences of one call")]
fn every_call_in_every_state_of_the_pool_agrees_with_the_model() {
    let mut walk = Walk::new(POOL.to_vec(), CONVERT);
    walk.states(DEPTH);
    walk.report(DEPTH);
    assert!(walk.states.len() > 1000);
}

#[test]
#[cfg_attr(miri, ignore = "no more than the sequences of one call")]
fn every_call_in_every_state_of_pages_agrees_with_the_model() {
    let alphabet = [&BOTH[..], &PAGES_ONLY].concat();
    let mut walk = Walk::new(alphabet, CONVERT);
    walk.states(PAGES_DEPTH);
    walk.report(PAGES_DEPTH);
    assert!(walk.states.len() > 1000);
    assert!(walk.tried.outcomes.contains(&(false, Outcome::Quarantined)));
}

#[test]
fn p_5_9_5_every_short_sequence_without_convert_agrees_with_the_model() {
    let length = LENGTH.min(2);
    let alphabet = match cfg!(miri) {
        true => PAGES_ONLY.to_vec(),
        false => every_letter(),
    };
    let walk = all_sequences(&alphabet, NO_CONVERT, length);
    walk.report(length);
    assert_eq!(walk.tried.outcomes, BTreeSet::new());
    let refused = (9, ResultCode::UNSUPPORTED_CALL.0);
    assert!(walk.tried.answers.contains(&refused));
    assert!(!walk.tried.answers.contains(&(9, 0)));
}
