// SPDX-License-Identifier: MIT OR Apache-2.0
//! Sequences of calls, and hosts, from bytes: what the fuzz targets and the replay of their corpora run.

use std::ops::Range;

use protocol::list::ListHeader;
use snp::address::{GuestPhysicalAddress, PageSize};
use snp::psc::PscOperation;
use snp::svsm::{CallRegisters, ResultCode};
use snp_model::machine::Machine;
use snp_model::psc::HostManner;
use svsm_swiotlb::page_state::PageState;
use svsm_swiotlb::platform::{GuestMemory, HostPages, PageInstructions};
use zerocopy::IntoBytes;

use crate::asked::{CHUNK, asked};
use crate::guest::{self, PROTOCOL, raw};
use crate::light_host::LightHost;
use crate::world::{self, NO_CONVERT, Watched, with_configuration};
use crate::{Chunk, SecondWindow, Shape, Tried, World, with_world};

/// The world of a case: a small pool, and pages of RAM in each state.
pub const SHAPE: Shape = Shape {
    window: 0x4000_0000,
    chunks: 6,
    hard_cap: 5,
    second: None,
    ram: 0x20_0000,
    // Under Miri no large pages.
    ram_pages: if cfg!(miri) { 24 } else { 3 * LARGE },
};
/// The same with a second window below the first.
pub const TWO: Shape = Shape {
    second: Some(SecondWindow {
        window: 0x3000_0000,
        chunks: 4,
        hard_cap: 3,
    }),
    ..SHAPE
};
/// Pages of 4 KiB in a large one.
const LARGE: u64 = 512;
/// Valid pages one after the other, more than a batch.
const RUN: Range<u64> = 16..300;

/// The calling area, among [`pages`].
const AREA: u64 = 5;

/// The guest's pages: up to 7, the nth is in state n, then [`RUN`], then a large valid page and a large shared one.
pub fn pages() -> Vec<(u64, PageState)> {
    let few = [
        PageState::Invalid,
        PageState::Valid,
        PageState::Valid,
        PageState::Shared,
        PageState::Vmsa,
        PageState::CallingArea,
        PageState::Paravisor,
        PageState::Quarantined,
    ];
    let run = RUN.map(|number| (number, PageState::Valid));
    let valid = (LARGE..2 * LARGE).map(|number| (number, PageState::Valid));
    let shared = (2 * LARGE..3 * LARGE).map(|number| (number, PageState::Shared));
    let all = (0..).zip(few).chain(run).chain(valid).chain(shared);
    all.filter(|(number, _)| *number < SHAPE.ram_pages)
        .map(|(number, state)| (page(number), state))
        .collect()
}

/// Address of a page of RAM.
pub const fn page(number: u64) -> u64 {
    SHAPE.ram + number * 4096
}

/// Bytes that are taken off one after the other; zeros at the end.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        *first
    }

    fn below(&mut self, bound: u64) -> u64 {
        u64::from(self.byte()) % bound
    }

    fn word(&mut self) -> u64 {
        (0..8).fold(0, |word, _| word << 8 | u64::from(self.byte()))
    }
}

/// Any registers: the service and the independent reading of chapters 4 and 5 refuse and accept the same, and the
/// encoder of requests is the decoder's reverse.
///
/// # Panics
/// When they differ.
pub fn decode(bytes: &[u8]) -> Tried {
    let mut bytes = Bytes(bytes);
    // Small numbers are what calls are made of; they also pass the first checks.
    let any = |bytes: &mut Bytes<'_>| match bytes.below(9) {
        0 => bytes.word(),
        1 => 0,
        2 => bytes.below(8) * CHUNK,
        3 => SHAPE.window + bytes.below(8) * CHUNK,
        4 => page(bytes.below(9)) + 8 * bytes.below(256),
        5 => bytes.below(4) << 32 | bytes.below(4),
        6 => bytes.below(16),
        7 => u64::MAX,
        _ => 1 << bytes.below(64),
    };
    let number = bytes.below(18);
    let protocol = if bytes.below(16) == 0 {
        bytes.word() << 32
    } else {
        PROTOCOL << 32
    };
    let mut arguments = [any(&mut bytes), any(&mut bytes), any(&mut bytes)];
    // What MEMORY_FORM asks for comes by itself too seldom.
    if number == 16 && bytes.byte() % 2 == 1 {
        let [rcx, ..] = arguments;
        arguments = [rcx, u64::MAX, u64::MAX];
    }
    let call = CallRegisters::new(protocol | number, arguments);
    let mut tried = Tried::default();
    if call.rax >> 32 != PROTOCOL {
        return tried;
    }
    let by_text = asked(&call, 0x4000_0001, OFFERED).map_err(|refusal| refusal.code);
    let by_code = protocol::Request::decode(&call);
    match (by_text, by_code) {
        (Ok(_), Ok(request)) => assert_eq!(request.encode(0x4000_0001), call),
        (Err(text), Err(code)) => assert_eq!(text, code, "{call:x?}"),
        (text, code) => panic!("{call:x?} is {text:?} by the text and {code:?} by the code"),
    }
    let code = by_text.err().unwrap_or(ResultCode::SUCCESS);
    tried.answers.insert((number, code.0));
    tried
}

/// Calls that are decoded, whether a service offers them or not: bits 0 to 3 and 6 of the features (clause P-2.4).
const OFFERED: u32 = 0x4F;

/// A guest's calls with a host that is honest, each judged by the model.
///
/// # Panics
/// At the first difference between service and model.
pub fn calls(bytes: &[u8]) -> Tried {
    with_world(LightHost::default(), SHAPE, &pages(), |world| {
        run_calls(world, &mut Bytes(bytes));
        world.model().tried.clone()
    })
}

/// The same with a service that does not offer CONVERT.
///
/// # Panics
/// At the first difference between service and model.
pub fn calls_without_convert(bytes: &[u8]) -> Tried {
    let light = LightHost::default();
    with_configuration(light, NO_CONVERT, SHAPE, &pages(), |world| {
        run_calls(world, &mut Bytes(bytes));
        world.model().tried.clone()
    })
}

/// The same as [`hostile_host`] beside a second window: the bytes have another meaning.
///
/// # Panics
/// At the first difference between service and model.
pub fn two_windows(bytes: &[u8]) -> Tried {
    let (length, rest) = bytes.split_first().unwrap_or((&0, &[]));
    let (host, guest) = rest.split_at(rest.len().min(4 * usize::from(*length % 16)));
    with_world(LightHost::default(), TWO, &pages(), |world| {
        world.platform.inner().feed(host);
        run_calls(world, &mut Bytes(guest));
        world.model().tried.clone()
    })
}

/// The same as [`calls`] with a host whose replies are bytes as well, and instructions that surprise: up to 15 times four
/// bytes of replies, as the first byte says, then up to 15 surprises of two bytes, as the second says.
///
/// # Panics
/// At the first difference between service and model.
pub fn hostile_host(bytes: &[u8]) -> Tried {
    let (length, rest) = bytes.split_first().unwrap_or((&0, &[]));
    let (host, rest) = rest.split_at(rest.len().min(4 * usize::from(*length % 16)));
    let (length, rest) = rest.split_first().unwrap_or((&0, &[]));
    let (surprises, guest) = rest.split_at(rest.len().min(2 * usize::from(*length % 16)));
    with_world(LightHost::default(), SHAPE, &pages(), |world| {
        world.platform.inner().feed(host);
        world.platform.inner().feed_surprises(surprises);
        run_calls(world, &mut Bytes(guest));
        world.model().tried.clone()
    })
}

/// A machine with the rules of the hardware, and a host that changes its manner, splits and takes pages away at any time.
///
/// # Panics
/// At the first difference between service and model, or when a private byte shows.
pub fn machine(bytes: &[u8]) -> Tried {
    let mut bytes = Bytes(bytes);
    let pages = pages();
    with_world(world::machine(&SHAPE, &pages), SHAPE, &pages, |world| {
        let mut list = page(1);
        while !bytes.0.is_empty() {
            host_acts(world.platform.inner(), &mut bytes);
            let call = next_call(world, &mut list, &mut bytes);
            world.call(&call);
        }
        world.model().tried.clone()
    })
}

fn host_acts(machine: &Machine, bytes: &mut Bytes<'_>) {
    match bytes.byte() % 8 {
        0 => {
            let manner = u16::from(bytes.byte()) << 8 | u16::from(bytes.byte() % 11);
            if let Some(manner) = HostManner::from_bits(manner) {
                machine.set_manner(manner);
            }
        }
        1 => {
            let page = GuestPhysicalAddress::new(page(bytes.below(8)));
            machine.host_changes(page, PageSize::Size4K, operation(bytes));
        }
        2 => {
            let chunk = SHAPE.window + bytes.below(SHAPE.chunks as u64) * CHUNK;
            let chunk = GuestPhysicalAddress::new(chunk);
            machine.host_changes(chunk, PageSize::Size2M, operation(bytes));
        }
        3 => {
            let large = GuestPhysicalAddress::new(page(bytes.below(3) * LARGE));
            match bytes.byte() % 4 {
                0 => machine.host_splits(large),
                _ => drop(machine.host_changes(large, PageSize::Size2M, operation(bytes))),
            }
        }
        4 => {
            let page = GuestPhysicalAddress::new(page(bytes.below(SHAPE.ram_pages / 2) * 2));
            machine.host_changes(page, PageSize::Size4K, operation(bytes));
        }
        _ => {}
    }
}

fn operation(bytes: &mut Bytes<'_>) -> PscOperation {
    match bytes.byte() % 2 {
        0 => PscOperation::Shared,
        _ => PscOperation::Private,
    }
}

fn run_calls(world: &World<'_, LightHost>, bytes: &mut Bytes<'_>) {
    let mut list = page(1);
    while !bytes.0.is_empty() {
        match bytes.byte() % 32 {
            // One of the next platform calls fails.
            31 => {
                let nth = world.platform.calls() + 1 + bytes.below(16);
                world.platform.fail_at(nth);
            }
            30 => world.platform.inner().split_all(),
            _ => {}
        }
        let call = next_call(world, &mut list, bytes);
        world.call(&call);
    }
}

/// Mostly calls that could be right, by what the model knows; some of any registers. `list` is where CONVERT's last list
/// is.
fn next_call<P: HostPages + GuestMemory + PageInstructions + Watched>(
    world: &World<'_, P>,
    list: &mut u64,
    bytes: &mut Bytes<'_>,
) -> CallRegisters {
    let kind = bytes.below(24);
    let (current, held) = {
        let model = world.model();
        let at = bytes.below(model.shape.all_chunks() as u64);
        let at = usize::try_from(at).unwrap_or(0);
        let held = (model.shape.chunk_address(at), model.chunks[at]);
        (u64::from(model.epoch), held)
    };
    let window = match world.model().shape.second {
        Some(_) => u64::from(bytes.byte() % 2),
        None => 0,
    };
    let claim = bytes.byte();
    let epoch = match claim {
        0..=239 => current,
        240..=247 => current.wrapping_sub(1) & 0xFFFF_FFFF,
        _ => u64::from(claim),
    };
    let address = page(bytes.below(10)) + 8 * bytes.below(256);
    let sizes = [bytes.below(7), bytes.below(7)];
    match kind {
        0 => raw(2, u64::from(claim != 7), 0, 0),
        1..=5 => {
            // More than a batch, now and then.
            let more = if claim == 201 { 300 } else { 0 };
            let least = (sizes[0].min(sizes[1]) + more) * CHUNK;
            let most = (sizes[0].max(sizes[1]) + more) * CHUNK;
            raw(
                7,
                epoch << 32 | u64::from(claim & 1) << 8 | window,
                least,
                most,
            )
        }
        6..=9 => {
            let (base, chunk) = held;
            let (epoch, generation) = match chunk {
                Chunk::Held { epoch, generation } => (u64::from(epoch), u64::from(generation)),
                _ => (epoch, sizes[1]),
            };
            let wrong = u64::from(claim >= 250);
            raw(
                8,
                base,
                sizes[0] * CHUNK,
                epoch << 32 | (generation + wrong),
            )
        }
        10 | 11 => {
            let list = address;
            let header = ListHeader {
                capacity: u16::from(bytes.byte()) % 9 * if claim == 9 { 99 } else { 1 },
                written: 0xEEEE,
                cursor: u32::from(bytes.byte()) % 8,
            };
            world.platform.inner().poke(list, header.as_bytes());
            raw(3, list, epoch, 0)
        }
        12 => raw(10, address, 8 * (1 + bytes.below(80)), 0),
        13 => raw(12, epoch << 32 | window, sizes[0] * CHUNK, 0),
        14 => match bytes.below(6) {
            0 => guest::adopt(low(current), low(epoch).saturating_sub(1)),
            1 => guest::release_orphans(low(epoch), low(current).saturating_sub(1)),
            2 => guest::detach(low(epoch)),
            3 => raw(11, address, 32 * (1 + bytes.below(40)), bytes.below(64)),
            _ => raw(bytes.below(2), window, bytes.below(4), 0),
        },
        15 => raw(bytes.below(18), bytes.word(), bytes.word(), bytes.word()),
        16..=19 => {
            *list = page(bytes.below(10)) + 8 * bytes.below(4);
            let entries = convert_list(bytes);
            world.platform.inner().poke(*list, &entries);
            raw(9, *list, epoch, 0)
        }
        // The same things from a block: mostly in the calling area, mostly right.
        20 => {
            let call = next_call(world, list, bytes);
            let area = if claim < 240 { page(AREA) } else { address };
            let block = area + 8 * (1 + u64::from(claim % 4));
            world.platform.inner().poke(block, &guest::block(&call));
            match claim {
                230..=235 => raw(16, block, bytes.word(), u64::MAX),
                236..=239 => raw(16, address, u64::MAX, u64::MAX),
                _ => guest::memory_form(block),
            }
        }
        // With what the last call has made of the list.
        _ => raw(9, *list + 8 * u64::from(claim & 31 == 30), epoch, 0),
    }
}

/// A list of pages of every kind, most of them right.
fn convert_list(bytes: &mut Bytes<'_>) -> Vec<u8> {
    let mut entries = Vec::new();
    for _ in 0..=bytes.below(5) {
        let kind = bytes.byte();
        let to_shared = kind & 1 != 0;
        match kind / 2 % 8 {
            0 | 1 => entries.push(guest::convert_entry(
                page(bytes.below(10)),
                false,
                to_shared,
            )),
            2 => entries.push(guest::convert_entry(page(RUN.start), false, to_shared)),
            3 => {
                let first = RUN.start + bytes.below(8);
                let run = (first..).take(usize::from(bytes.byte()) + 1);
                entries
                    .extend(run.map(|number| guest::convert_entry(page(number), false, to_shared)));
            }
            4 | 5 => {
                let large = page((1 + bytes.below(2)) * LARGE);
                entries.push(guest::convert_entry(large, true, to_shared));
            }
            6 => {
                let wrong = page(bytes.below(4) * LARGE) + (u64::from(bytes.byte()) << 3);
                entries.push(guest::convert_entry(wrong, kind & 16 != 0, to_shared));
            }
            _ => entries.push(SHAPE.window | u64::from(kind & 4) | bytes.word() >> 32),
        }
    }
    entries.truncate(500);
    let mut list = guest::convert_list(&entries);
    match bytes.byte() {
        0..=239 => {}
        // A cursor, a number of entries, a reserved word.
        wrong => list[usize::from(wrong) % 8] = bytes.byte(),
    }
    list
}

fn low(epoch: u64) -> u32 {
    u32::try_from(epoch).unwrap_or(u32::MAX)
}
