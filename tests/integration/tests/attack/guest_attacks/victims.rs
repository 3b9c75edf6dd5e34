// SPDX-License-Identifier: MIT OR Apache-2.0
//! Calls that are interrupted. Each has a prepared world of its own.

use reference_model::guest;
use snp::svsm::core_protocol as call;

use super::prepared::{Doing, FIRST, SECOND, TARGET, core, give_large, window};
use crate::conversions::{self, large, trace};
use crate::core_world::{FRESH, LARGE, SUCCESS, World, page, small};

/// A call, and what the world needs besides.
pub struct Victim {
    pub name: &'static str,
    pub prepare: fn(&World<'_>),
    pub call: Doing,
}

impl Victim {
    /// Whether it has [`TARGET`] in its hands from its first platform call to its last.
    pub fn holds_the_list(&self) -> bool {
        !matches!(
            self.name,
            "GROW"
                | "GROW contiguous"
                | "GROW from memory"
                | LIST_FROM_MEMORY
                | "RELEASE"
                | "RELEASE_ORPHANS"
                | "ADOPT"
                | "DETACH"
                | "CREATE_VCPU of the page"
                | "CREATE_VCPU that replaces, with the same calling area"
                | "DELETE_VCPU"
        )
    }

    /// The same before its nth platform call.
    pub fn holds_the_list_before(&self, nth: u64) -> bool {
        self.holds_the_list() || self.name == LIST_FROM_MEMORY && nth > 1
    }
}

/// LIST_GRANTED whose registers are read from a page of their own first.
const LIST_FROM_MEMORY: &str = "LIST_GRANTED from memory";

const fn victim(name: &'static str, call: Doing) -> Victim {
    after(name, |_| {}, call)
}

const fn after(name: &'static str, prepare: fn(&World<'_>), call: Doing) -> Victim {
    Victim {
        name,
        prepare,
        call,
    }
}

/// Epoch 2, to which the chunk of epoch 1 is an orphan.
fn attach_again(world: &World<'_>) {
    assert_eq!(world.pool(&guest::attach()).0, SUCCESS);
}

pub const VICTIMS: [Victim; 23] = [
    victim("LIST_GRANTED", |world| {
        world.pool(&guest::list(1, TARGET)).0
    }),
    victim("STATISTICS", |world| {
        world.pool(&guest::statistics(TARGET, 520)).0
    }),
    victim("TRACE", |world| world.pool(&trace(TARGET, 3, 0)).0),
    victim("GROW", |world| world.pool(&guest::grow(1, 2, 3, false)).0),
    victim("GROW from memory", |world| {
        world.by_memory_form(&guest::grow(1, 2, 3, false))
    }),
    victim(LIST_FROM_MEMORY, |world| {
        world.by_memory_form(&guest::list(1, TARGET))
    }),
    victim("GROW contiguous", |world| {
        world.pool(&guest::grow(1, 3, 3, true)).0
    }),
    victim("RELEASE", |world| {
        world.pool(&guest::release(window(world), 1, 1, 1)).0
    }),
    after("RELEASE_ORPHANS", attach_again, |world| {
        world.pool(&guest::release_orphans(2, 1)).0
    }),
    after("ADOPT", attach_again, |world| {
        world.pool(&guest::adopt(2, 1)).0
    }),
    victim("DETACH", |world| world.pool(&guest::detach(1)).0),
    victim("CONVERT to shared", |world| {
        let list = [FIRST, SECOND].map(|page| conversions::small(page, true));
        world.convert(TARGET, &list)
    }),
    victim("CONVERT to private", |world| {
        let list = [FRESH, FRESH + 0x1000].map(|page| conversions::small(page, false));
        world.convert(TARGET, &list)
    }),
    after("CONVERT of 2 MiB to shared", give_large, |world| {
        let list = [large(LARGE, true), conversions::small(FIRST, true)];
        world.convert(TARGET, &list)
    }),
    victim("CONVERT of 2 MiB to private", |world| {
        world.convert(TARGET, &[large(LARGE, false)])
    }),
    victim("PVALIDATE", |world| {
        world.put_list(TARGET, &[small(FIRST, false), small(FRESH, true)]);
        core(world, call::PVALIDATE, TARGET, 0, 0)
    }),
    victim("CREATE_VCPU", |world| {
        world.put_vmsa(page(7));
        core(world, call::CREATE_VCPU, page(7), TARGET, 1)
    }),
    victim("CREATE_VCPU for a processor that sleeps", |world| {
        world.put_vmsa(page(7));
        core(world, call::CREATE_VCPU, page(7), TARGET, 3)
    }),
    victim("CREATE_VCPU of the page", |world| {
        world.put_vmsa(FIRST);
        core(world, call::CREATE_VCPU, FIRST, page(7), 1)
    }),
    victim("CREATE_VCPU that replaces", |world| {
        world.put_vmsa(page(7));
        core(world, call::CREATE_VCPU, page(7), TARGET, 2)
    }),
    victim(
        "CREATE_VCPU that replaces, with the same calling area",
        |world| {
            world.put_vmsa(FIRST);
            core(world, call::CREATE_VCPU, FIRST, page(10), 2)
        },
    ),
    victim("REMAP_CA", |world| {
        core(world, call::REMAP_CA, TARGET, 0, 0)
    }),
    victim("DELETE_VCPU", |world| {
        core(world, call::DELETE_VCPU, page(9), 0, 0)
    }),
];
