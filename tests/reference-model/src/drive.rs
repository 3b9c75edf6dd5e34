// SPDX-License-Identifier: MIT OR Apache-2.0
//! Sequences of calls, and hosts, from bytes: what the fuzz targets and the replay of their corpora run.

use std::sync::OnceLock;

use protocol::list::ListHeader;
use snp::address::{GuestPhysicalAddress, PageSize};
use snp::psc::PscOperation;
use snp::svsm::CallRegisters;
use snp_model::machine::Machine;
use snp_model::psc::HostManner;
use svsm_swiotlb::page_state::PageState;
use svsm_swiotlb::platform::{GuestMemory, HostPages, PageInstructions};
use zerocopy::IntoBytes;

use crate::asked::{CHUNK, asked};
use crate::guest::{self, PROTOCOL, raw};
use crate::light_host::LightHost;
use crate::world::{self, Watched};
use crate::{Chunk, Shape, World, with_world};

/// The world of a case: a small pool, and a page of RAM in each state.
pub const SHAPE: Shape = Shape {
    window: 0x4000_0000,
    chunks: 6,
    hard_cap: 5,
    ram: 0x20_0000,
    ram_pages: 8,
};
/// The guest's pages: the nth is in state n.
pub const PAGES: [(u64, PageState); 7] = [
    (page(1), PageState::Valid),
    (page(2), PageState::Valid),
    (page(3), PageState::Shared),
    (page(4), PageState::Vmsa),
    (page(5), PageState::CallingArea),
    (page(6), PageState::Paravisor),
    (page(7), PageState::Quarantined),
];

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
pub fn decode(bytes: &[u8]) {
    let mut bytes = Bytes(bytes);
    // Small numbers are what calls are made of; they also pass the first checks.
    let any = |bytes: &mut Bytes<'_>| match bytes.below(8) {
        0 => bytes.word(),
        1 => 0,
        2 => bytes.below(8) * CHUNK,
        3 => SHAPE.window + bytes.below(8) * CHUNK,
        4 => page(bytes.below(9)) + 8 * bytes.below(256),
        5 => bytes.below(4) << 32 | bytes.below(4),
        6 => bytes.below(16),
        _ => 1 << bytes.below(64),
    };
    let number = bytes.below(18);
    let protocol = if bytes.below(16) == 0 {
        bytes.word() << 32
    } else {
        PROTOCOL << 32
    };
    let call = CallRegisters {
        rax: protocol | number,
        rcx: any(&mut bytes),
        rdx: any(&mut bytes),
        r8: any(&mut bytes),
    };
    if call.rax >> 32 != PROTOCOL {
        return;
    }
    // Decoding knows CONVERT whether a service offers it or not.
    let features = protocol_features() | FEATURE_CONVERT;
    let by_text = asked(&call, 0x4000_0001, features).map_err(|refusal| refusal.code);
    let by_code = protocol::Request::decode(&call);
    match (by_text, by_code) {
        (Ok(_), Ok(request)) => assert_eq!(request.encode(0x4000_0001), call),
        (Err(text), Err(code)) => assert_eq!(text, code, "{call:x?}"),
        (text, code) => panic!("{call:x?} is {text:?} by the text and {code:?} by the code"),
    }
}

/// Bit 0 of the features (clause P-2.4).
const FEATURE_CONVERT: u32 = 1;

/// Feature bits of a service as it is.
fn protocol_features() -> u32 {
    static FEATURES: OnceLock<u32> = OnceLock::new();
    *FEATURES.get_or_init(|| {
        with_world(LightHost::default(), SHAPE, &PAGES, |world| {
            world.model().features
        })
    })
}

/// A guest's calls with a host that is honest, each judged by the model.
///
/// # Panics
/// At the first difference between service and model.
pub fn calls(bytes: &[u8]) {
    with_world(LightHost::default(), SHAPE, &PAGES, |world| {
        run_calls(world, &mut Bytes(bytes));
    });
}

/// The same with a host whose replies are bytes as well: as many as the first byte says, times four.
///
/// # Panics
/// At the first difference between service and model.
pub fn hostile_host(bytes: &[u8]) {
    let (length, rest) = bytes.split_first().unwrap_or((&0, &[]));
    let (host, guest) = rest.split_at(rest.len().min(4 * usize::from(*length)));
    with_world(LightHost::default(), SHAPE, &PAGES, |world| {
        world.platform.inner().feed(host);
        run_calls(world, &mut Bytes(guest));
    });
}

/// A machine with the rules of the hardware, and a host that changes its manner and takes pages away at any time.
///
/// # Panics
/// At the first difference between service and model, or when a private byte shows.
pub fn machine(bytes: &[u8]) {
    let mut bytes = Bytes(bytes);
    with_world(world::machine(&SHAPE, &PAGES), SHAPE, &PAGES, |world| {
        while !bytes.0.is_empty() {
            host_acts(world.platform.inner(), &mut bytes);
            let call = next_call(world, &mut bytes);
            world.call(&call);
        }
    });
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
    while !bytes.0.is_empty() {
        if bytes.byte() % 32 == 31 {
            // One of the next platform calls fails.
            let nth = world.platform.calls() + 1 + bytes.below(4);
            world.platform.fail_at(nth);
        }
        let call = next_call(world, bytes);
        world.call(&call);
    }
}

/// Mostly calls that could be right, by what the model knows; some of any registers.
fn next_call<P: HostPages + GuestMemory + PageInstructions + Watched>(
    world: &World<'_, P>,
    bytes: &mut Bytes<'_>,
) -> CallRegisters {
    let kind = bytes.below(16);
    let (current, held) = {
        let model = world.model();
        let at = bytes.below(SHAPE.chunks as u64);
        let chunk = usize::try_from(at).map_or(Chunk::Free, |at| model.chunks[at]);
        (u64::from(model.epoch), (at, chunk))
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
            let least = sizes[0].min(sizes[1]) * CHUNK;
            let most = sizes[0].max(sizes[1]) * CHUNK;
            raw(7, epoch << 32 | u64::from(claim & 1) << 8, least, most)
        }
        6..=9 => {
            let (at, chunk) = held;
            let (epoch, generation) = match chunk {
                Chunk::Held { epoch, generation } => (u64::from(epoch), u64::from(generation)),
                _ => (epoch, sizes[1]),
            };
            let base = SHAPE.window + at * CHUNK;
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
        13 => raw(12, epoch << 32, sizes[0] * CHUNK, 0),
        14 => match bytes.below(6) {
            0 => guest::adopt(low(current), low(epoch).saturating_sub(1)),
            1 => guest::release_orphans(low(epoch), low(current).saturating_sub(1)),
            2 => guest::detach(low(epoch)),
            3 => raw(11, address, 32 * (1 + bytes.below(8)), bytes.below(4)),
            _ => raw(bytes.below(2), 0, bytes.below(4), 0),
        },
        _ => raw(bytes.below(18), bytes.word(), bytes.word(), bytes.word()),
    }
}

fn low(epoch: u64) -> u32 {
    u32::try_from(epoch).unwrap_or(u32::MAX)
}
