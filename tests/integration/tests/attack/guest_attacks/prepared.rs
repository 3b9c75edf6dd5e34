// SPDX-License-Identifier: MIT OR Apache-2.0
//! A world in which every victim has what it needs.

use std::thread;

use protocol::list::ListHeader;
use reference_model::guest;
use snp::svsm::{ResultCode, core_protocol as call};
use snp_model::psc::HostManner;
use zerocopy::IntoBytes;

use crate::core_world::{FRESH, SUCCESS, World, page, world};
use crate::platform::Act;

/// The page that victims name and attacks change.
pub const TARGET: u64 = page(0);
/// Pages with lists of the attackers.
pub const OTHER_LIST: u64 = page(1);
/// Further pages of the victims.
pub const FIRST: u64 = page(4);
pub const SECOND: u64 = page(5);
pub const THIRD: u64 = page(6);

/// A call, or something a guest does to its own memory.
pub type Doing = fn(&World<'_>) -> ResultCode;

pub fn core(world: &World<'_>, number: u32, rcx: u64, rdx: u64, r8: u64) -> ResultCode {
    let answer = world.core(number, rcx, rdx, r8);
    answer.expect("no call of a guest ends the VM")
}

pub fn window(world: &World<'_>) -> u64 {
    world.plan.placement.window().start
}

/// Epoch 1 holds the first chunk with generation 1; page 9 is a VMSA, page 10 its calling area; the host returns early.
pub fn prepared(test: impl FnOnce(&World<'_>)) {
    world(|world| {
        assert_eq!(world.pool(&guest::attach()).0, SUCCESS);
        assert_eq!(world.pool(&guest::grow(1, 1, 1, false)).0, SUCCESS);
        world.put_vmsa(page(9));
        let create = |processor| core(world, call::CREATE_VCPU, page(9), page(10), processor);
        assert_eq!(create(1), SUCCESS);
        assert_eq!(core(world, call::DELETE_VCPU, page(9), 0, 0), SUCCESS);
        world.put_vmsa(page(9));
        assert_eq!(create(2), SUCCESS);
        world.platform.perform(Act::Renew(FRESH));
        let header = ListHeader {
            capacity: 4,
            ..ListHeader::default()
        };
        world.put(TARGET, header.as_bytes());
        world.platform.set_manner(HostManner::StopAfter(1));
        world.check();
        test(world);
        world.check();
    });
}

/// The block of 2 MiB becomes the guest's.
pub fn give_large(world: &World<'_>) {
    world.give_large(OTHER_LIST);
}

/// Runs `victim` on this processor, and `attack` on another before its nth platform call; nothing of the attack if there
/// are fewer.
pub fn interrupted<V, A: Send>(
    world: &World<'_>,
    nth: u64,
    victim: impl FnOnce() -> V,
    attack: impl FnOnce() -> A + Send,
) -> (V, Option<A>) {
    let attacker = world.platform.recorder.gate(nth);
    thread::scope(|scope| {
        let other = scope.spawn(|| {
            let mut done = None;
            attacker.when_reached(|| done = Some(attack()));
            done
        });
        let answer = victim();
        world.platform.recorder.open_gate();
        (answer, other.join().expect("the attacker"))
    })
}
