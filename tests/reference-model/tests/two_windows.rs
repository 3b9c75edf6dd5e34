// SPDX-License-Identifier: MIT OR Apache-2.0
//! Calls about a second window, each judged by the model.

use protocol::list::ListHeader;
use reference_model::drive::{TWO, pages};
use reference_model::guest::{adopt, raw, release_orphans};
use reference_model::light_host::LightHost;
use reference_model::world::Watched;
use reference_model::{Chunk, World, with_world};
use snp::svsm::{CallRegisters, ResultCode};
use zerocopy::IntoBytes;

const CHUNK: u64 = 2 << 20;
/// A valid page of the world's.
const LIST: u64 = TWO.ram + 0x1000;

type Tiny<'a> = World<'a, LightHost>;

fn attach(world: &Tiny<'_>) -> u64 {
    world.call(&raw(2, 1, 0, 0)).rcx
}

fn grow(world: &Tiny<'_>, epoch: u64, window: u64, chunks: u64) -> CallRegisters {
    let most = chunks * CHUNK;
    world.call(&raw(7, epoch << 32 | window, most, most))
}

/// Lists all that is granted, one entry a call; how many calls that took.
fn list(world: &Tiny<'_>, epoch: u64) -> u32 {
    let mut cursor = 0;
    for calls in 1.. {
        let header = ListHeader {
            capacity: 1,
            written: 0,
            cursor,
        };
        let host = world.platform.inner();
        host.poke(LIST, header.as_bytes());
        let answer = world.call(&raw(3, LIST, epoch, 0));
        let cursor_out = host.load(LIST + 4, 4);
        cursor = u32::from_le_bytes(cursor_out.try_into().unwrap());
        if answer.rax == 0 {
            return calls;
        }
        assert_eq!(answer.rax, u64::from(ResultCode::INCOMPLETE.0));
    }
    unreachable!()
}

#[test]
fn p_3_2_w2_both_windows_are_granted_listed_adopted_and_released() {
    with_world(LightHost::default(), TWO, &pages(), |world| {
        let first = attach(world);
        let low = grow(world, first, 1, 2);
        assert_eq!((low.rax, low.rcx), (0, 0x3000_0000));
        let high = grow(world, first, 0, 3);
        assert_eq!((high.rax, high.rcx), (0, TWO.window));
        assert_eq!(grow(world, first, 2, 1).rax, 0x8000_0005);
        // Their caps: 3 of 4 chunks, and 5 of 6.
        let more = grow(world, first, 1, 2);
        assert_eq!((more.rax, more.rdx), (0, CHUNK));
        assert_eq!(grow(world, first, 1, 1).rax, 0x8000_1003);
        let cap = world.call(&raw(12, first << 32 | 1, CHUNK, 0));
        assert_eq!((cap.rax, cap.rcx), (0, 3 * CHUNK));
        for window in 0..2 {
            for item in 0..3 {
                assert_eq!(world.call(&raw(1, window, item, 0)).rax, 0);
            }
        }
        assert_eq!(list(world, first), 4, "three runs and the end");
        world.call(&raw(10, LIST, 560, 0));

        let second = attach(world);
        let [old, new] = [first, second].map(|epoch| u32::try_from(epoch).unwrap());
        assert_eq!(world.call(&adopt(new, old)).rcx, 6 * CHUNK);
        let released = world.call(&raw(8, low.rcx, CHUNK, second << 32 | low.r8));
        assert_eq!((released.rax, released.rcx), (0, CHUNK));

        let third = u32::try_from(attach(world)).unwrap();
        let of_first = world.call(&release_orphans(third, new));
        assert_eq!((of_first.rcx, of_first.r8), (3 * CHUNK, 2 * CHUNK));
        let of_second = world.call(&release_orphans(third, new));
        assert_eq!((of_second.rcx, of_second.r8), (2 * CHUNK, 0));
        assert!(world.model().chunks.iter().all(|one| *one == Chunk::Free));
    });
}
