// SPDX-License-Identifier: MIT OR Apache-2.0
//! Every sequence of a few calls on a tiny pool, each call judged by the model.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;

use protocol::convert::Outcome;
use protocol::list::ListHeader;
use reference_model::light_host::{LightHost, Surprise};
use reference_model::world::{CONVERT, NO_CONVERT, with_pages};
use reference_model::{Chunk, Model, Shape, Tried, World, guest};
use snp::svsm::{CallRegisters, ResultCode};
use snp_model::psc::HostManner;
use svsm_swiotlb::Configuration;
use svsm_swiotlb::page_state::PageState;
use zerocopy::IntoBytes;

/// Pages of 4 KiB in a large one.
const LARGE_PAGES: u64 = 512;
/// Pages before the large one.
const FEW: u64 = 5;
const LARGE: u64 = 0x20_0000;
const SHAPE: Shape = Shape {
    window: 0x4000_0000,
    chunks: 3,
    hard_cap: 3,
    ram: LARGE - FEW * 4096,
    // Under Miri there is no large page.
    ram_pages: if cfg!(miri) { FEW } else { FEW + LARGE_PAGES },
};
const LIST: u64 = SHAPE.ram;
/// Where the list of CONVERT is.
const CONVERT_LIST: u64 = LIST + 0x1000;
const FIRST: u64 = LIST + 0x2000;
const SECOND: u64 = LIST + 0x3000;
/// A page that is not converted.
const CALLING_AREA: u64 = LIST + 0x4000;

/// The guest's pages.
fn pages() -> Arc<BTreeMap<u64, PageState>> {
    static PAGES: OnceLock<Arc<BTreeMap<u64, PageState>>> = OnceLock::new();
    Arc::clone(PAGES.get_or_init(|| Arc::new(all_pages())))
}

fn all_pages() -> BTreeMap<u64, PageState> {
    let all = (0..SHAPE.ram_pages).map(|number| SHAPE.ram + number * 4096);
    all.map(|page| match page {
        CALLING_AREA => (page, PageState::CallingArea),
        page => (page, PageState::Valid),
    })
    .collect()
}

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
    Trace,
    Convert(&'static [u64]),
    /// CONVERT of the list as the last one left it: epochs before the current one, bytes behind its address.
    Again(u32, u64),
    Host(HostManner),
    /// After so many more instructions, one ends so; unless one is to come already.
    Surprise(u64, Surprise),
    /// The host splits all large pages.
    Split,
}

use Letter::*;

const fn shared(page: u64) -> u64 {
    guest::convert_entry(page, page == LARGE, true)
}

const fn private(page: u64) -> u64 {
    guest::convert_entry(page, page == LARGE, false)
}

/// The pool.
const POOL: [Letter; 22] = [
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
/// What is in neither of the other two.
const PAGES_ONLY: [Letter; 14] = [
    Trace,
    Convert(&[shared(FIRST), shared(SECOND)]),
    Convert(&[private(FIRST), private(SECOND)]),
    Convert(&[shared(FIRST), private(FIRST), shared(LARGE)]),
    Convert(&[shared(LARGE)]),
    Convert(&[private(LARGE)]),
    Convert(&[shared(FIRST), shared(CALLING_AREA)]),
    Again(0, 0),
    Again(1, 0),
    Again(0, 8),
    Surprise(0, Surprise::Fault),
    Surprise(3, Surprise::Unchanged),
    Surprise(6, Surprise::Unchanged),
    Split,
];
/// What of the pool's letters concerns the guest's pages.
const BOTH: [Letter; 7] = [
    Attach,
    Detach,
    Statistics,
    Host(HostManner::Honest),
    Host(HostManner::FailAfter(1)),
    Host(HostManner::Refuse),
    Host(HostManner::ReservedBits),
];

fn every_letter() -> Vec<Letter> {
    [&POOL[..], &PAGES_ONLY].concat()
}

/// Longest sequence of which every one runs; one more takes as many times as long as there are letters.
const LENGTH: usize = if cfg!(miri) { 1 } else { 4 };
/// Longest sequence to a state that has not been seen before.
const DEPTH: usize = if cfg!(miri) { 1 } else { 9 };
const PAGES_DEPTH: usize = if cfg!(miri) { 1 } else { 7 };

type Tiny<'a> = World<'a, LightHost>;

fn tiny<R>(configuration: Configuration, test: impl FnOnce(&Tiny<'_>) -> R) -> R {
    with_pages(LightHost::default(), configuration, SHAPE, pages(), test)
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
        Trace => guest::trace(LIST, 128, 0),
        Convert(entries) => {
            let list = guest::convert_list(entries);
            world.platform.inner().store(CONVERT_LIST, &list);
            guest::convert(epoch, CONVERT_LIST)
        }
        Again(older, offset) => guest::convert(epoch.saturating_sub(older), CONVERT_LIST + offset),
        Host(manner) => {
            world.platform.inner().set_manner(manner);
            return None;
        }
        Surprise(after, how) => {
            let host = world.platform.inner();
            if host.surprises_left() == 0 {
                host.surprise(after, how);
            }
            return None;
        }
        Split => {
            world.platform.inner().split_all();
            return None;
        }
    })
}

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
        model.cap,
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
                    if answer.rax == 0 && matches!(letter, Grow(..)) {
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
            if last && matches!(letter, Host(_) | Surprise(..) | Split) {
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
fn every_call_in_every_state_of_the_pool_agrees_with_the_model() {
    let mut walk = Walk::new(POOL.to_vec(), CONVERT);
    walk.states(DEPTH);
    walk.report(DEPTH);
    assert!(cfg!(miri) || walk.states.len() > 1000);
}

#[test]
fn every_call_in_every_state_of_pages_agrees_with_the_model() {
    let alphabet = [&BOTH[..], &PAGES_ONLY].concat();
    let mut walk = Walk::new(alphabet, CONVERT);
    walk.states(PAGES_DEPTH);
    walk.report(PAGES_DEPTH);
    assert!(cfg!(miri) || walk.states.len() > 1000);
    let every = (Outcome::Converted, Outcome::Quarantined);
    assert!(cfg!(miri) || walk.tried.outcomes.contains(&(false, every.1)));
}

#[test]
fn p_5_9_5_every_short_sequence_without_convert_agrees_with_the_model() {
    let length = LENGTH.min(2);
    let walk = all_sequences(&every_letter(), NO_CONVERT, length);
    walk.report(length);
    assert_eq!(walk.tried.outcomes, BTreeSet::new());
    let refused = (9, ResultCode::UNSUPPORTED_CALL.0);
    assert!(walk.tried.answers.contains(&refused));
    assert!(!walk.tried.answers.contains(&(9, 0)));
}
