// SPDX-License-Identifier: MIT OR Apache-2.0
//! What other processors of the guest do meanwhile.

use reference_model::guest;
use snp::address::PageSize;
use snp::psc::PscOperation;
use snp::svsm::{ResultCode, core_protocol as call};
use zerocopy::IntoBytes;

use super::prepared::{Doing, FIRST, OTHER_LIST, SECOND, TARGET, core, window};
use crate::conversions::{self, large, trace};
use crate::core_world::{FRESH, LARGE, MIB, OWN, SUCCESS, World, page, small};
use crate::platform::{Act, gpa};

/// An attack.
pub struct Attack {
    pub name: &'static str,
    /// The page whose state it changes by a call, or that a call of it reads or writes.
    pub needs: Option<u64>,
    pub doing: Doing,
}

const fn on(page: u64, name: &'static str, doing: Doing) -> Attack {
    Attack {
        name,
        needs: Some(page),
        doing,
    }
}

const fn free(name: &'static str, doing: Doing) -> Attack {
    Attack {
        name,
        needs: None,
        doing,
    }
}

fn pvalidate(world: &World<'_>, target: u64, validate: bool) -> ResultCode {
    world.put_list(OTHER_LIST, &[small(target, validate)]);
    core(world, call::PVALIDATE, OTHER_LIST, 0, 0)
}

/// The guest asks the host by its own GHCB.
fn by_itself(world: &World<'_>, act: Act, target: u64) -> ResultCode {
    world.touch(target);
    world.platform.perform(act);
    SUCCESS
}

pub const ATTACKS: [Attack; 36] = [
    on(TARGET, "a VMSA of the list", |world| {
        world.put_vmsa(TARGET);
        core(world, call::CREATE_VCPU, TARGET, page(2), 2)
    }),
    on(TARGET, "a VMSA of the list, on a free processor", |world| {
        world.put_vmsa(TARGET);
        core(world, call::CREATE_VCPU, TARGET, page(2), 3)
    }),
    on(
        TARGET,
        "a calling area of the list, by CREATE_VCPU",
        |world| {
            world.put_vmsa(page(2));
            core(world, call::CREATE_VCPU, page(2), TARGET, 3)
        },
    ),
    on(TARGET, "a calling area of the list, by REMAP_CA", |world| {
        core(world, call::REMAP_CA, TARGET, 0, 0)
    }),
    on(TARGET, "PVALIDATE(0) of the list", |world| {
        pvalidate(world, TARGET, false)
    }),
    on(TARGET, "CONVERT of the list", |world| {
        world.convert(OTHER_LIST, &[conversions::small(TARGET, true)])
    }),
    on(TARGET, "the list as a list of PVALIDATE", |world| {
        core(world, call::PVALIDATE, TARGET, 0, 0)
    }),
    on(TARGET, "the list as a list of CONVERT", |world| {
        world.pool(&conversions::convert(1, TARGET)).0
    }),
    on(TARGET, "the list as a buffer of STATISTICS", |world| {
        world.pool(&guest::statistics(TARGET, 64)).0
    }),
    on(TARGET, "the list as a buffer of TRACE", |world| {
        world.pool(&trace(TARGET, 2, 0)).0
    }),
    on(FIRST, "a VMSA of a listed page", |world| {
        world.put_vmsa(FIRST);
        core(world, call::CREATE_VCPU, FIRST, page(2), 3)
    }),
    on(FIRST, "a calling area of a listed page", |world| {
        core(world, call::REMAP_CA, FIRST, 0, 0)
    }),
    on(FIRST, "PVALIDATE(0) of a listed page", |world| {
        pvalidate(world, FIRST, false)
    }),
    on(FIRST, "CONVERT of a listed page", |world| {
        world.convert(OTHER_LIST, &[conversions::small(FIRST, true)])
    }),
    on(FIRST, "CONVERT of a listed page, back", |world| {
        world.convert(OTHER_LIST, &[conversions::small(FIRST, false)])
    }),
    on(FIRST, "a listed page as a buffer", |world| {
        world.pool(&guest::statistics(FIRST, 8)).0
    }),
    on(FRESH, "PVALIDATE(1) of a listed page", |world| {
        pvalidate(world, FRESH, true)
    }),
    on(FRESH, "CONVERT to private of a listed page", |world| {
        world.convert(OTHER_LIST, &[conversions::small(FRESH, false)])
    }),
    on(LARGE, "CONVERT to shared of 2 MiB", |world| {
        world.convert(OTHER_LIST, &[large(LARGE, true)])
    }),
    on(LARGE, "CONVERT to private of 2 MiB", |world| {
        world.convert(OTHER_LIST, &[large(LARGE, false)])
    }),
    on(LARGE + 0x3000, "CONVERT of a part of 2 MiB", |world| {
        world.convert(OTHER_LIST, &[conversions::small(LARGE + 0x3000, true)])
    }),
    on(LARGE + 0x3000, "PVALIDATE(1) of a part of 2 MiB", |world| {
        pvalidate(world, LARGE + 0x3000, true)
    }),
    free("a vCPU replaced", |world| {
        world.put_vmsa(page(2));
        core(world, call::CREATE_VCPU, page(2), page(10), 2)
    }),
    free("a vCPU deleted", |world| {
        core(world, call::DELETE_VCPU, page(9), 0, 0)
    }),
    free("the list rewritten", |world| {
        world.put(TARGET, &[0xFF; 64]);
        SUCCESS
    }),
    free("the list's pages swapped to forbidden ones", |world| {
        let forbidden = [OWN, window(world), page(9), TARGET];
        let entries = forbidden.map(|page| conversions::small(page, true));
        world.put(TARGET + 8, entries.as_bytes());
        SUCCESS
    }),
    free("a page-state change of its own of the list", |world| {
        by_itself(world, Act::Rescind(TARGET), TARGET)
    }),
    free("one of a listed page", |world| {
        by_itself(world, Act::Rescind(FIRST), FIRST)
    }),
    free("one of a listed page, there and back", |world| {
        by_itself(world, Act::Renew(SECOND), SECOND)
    }),
    free("one of a page to be validated", |world| {
        by_itself(world, Act::Rescind(FRESH), FRESH)
    }),
    free("one in the window", |world| {
        let machine = world.platform.machine();
        for chunk in 0..4 {
            let base = gpa(window(world) + chunk * 2 * MIB);
            machine.host_changes(base, PageSize::Size2M, PscOperation::Private);
        }
        SUCCESS
    }),
    free("a GROW", |world| world.pool(&guest::grow(1, 1, 4, false)).0),
    free("a RELEASE", |world| {
        world.pool(&guest::release(window(world), 1, 1, 1)).0
    }),
    free("an ADOPT of what is being released", |world| {
        world.pool(&guest::adopt(2, 1)).0
    }),
    free("an ATTACH", |world| world.pool(&guest::attach()).0),
    free("a DETACH", |world| world.pool(&guest::detach(1)).0),
];
