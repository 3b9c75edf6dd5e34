// SPDX-License-Identifier: MIT OR Apache-2.0
//! A host that takes, renews or remaps a page before every platform call, and instructions that surprise.

use paravisor::termination::Reason;
use reference_model::guest;
use snp::svsm::{ResultCode, core_protocol as call};
use svsm_swiotlb::page_state::PageState;

use crate::conversions::{self, trace};
use crate::core_world::{FRESH, SUCCESS, World, documented, page, small, world};
use crate::platform::{Act, Surprise};

/// A call of either protocol. The reason is that with which the VM ends.
type Call = fn(&World<'_>) -> Result<ResultCode, Reason>;

const LIST: u64 = page(0);
const OTHER_LIST: u64 = page(1);
const BUFFER: u64 = page(2);

/// Everything that VMPL0 does with pages.
const DAY: [Call; 16] = [
    |world| world.pvalidate(LIST, &[small(page(4), false), small(page(5), false)]),
    |world| world.pvalidate(LIST, &[small(page(4), true), small(page(6), true)]),
    |world| {
        world.platform.perform(Act::Renew(FRESH));
        world.pvalidate(LIST, &[small(FRESH, true)])
    },
    |world| {
        world.put_vmsa(page(7));
        world.core(call::CREATE_VCPU, page(7), page(8), 1)
    },
    |world| world.core(call::REMAP_CA, page(9), 0, 0),
    |world| {
        world.put_vmsa(page(10));
        world.core(call::CREATE_VCPU, page(10), page(8), 1)
    },
    |world| world.core(call::DELETE_VCPU, page(7), 0, 0),
    |world| world.core(call::DELETE_VCPU, page(10), 0, 0),
    |world| world.pvalidate(LIST, &[small(page(7), false), small(page(8), false)]),
    |world| Ok(world.pool(&guest::attach()).0),
    |world| {
        let list = [page(4), page(10)].map(|page| conversions::small(page, true));
        Ok(world.convert(OTHER_LIST, &list))
    },
    |world| {
        let list = [page(4), page(10)].map(|page| conversions::small(page, false));
        Ok(world.convert(OTHER_LIST, &list))
    },
    |world| Ok(world.convert(OTHER_LIST, &[conversions::small(FRESH + 0x1000, false)])),
    |world| Ok(world.pool(&guest::statistics(BUFFER, 520)).0),
    |world| Ok(world.pool(&trace(BUFFER, 2, 0)).0),
    // From page 9, the calling area by now.
    |world| Ok(world.by_memory_form(&trace(BUFFER, 2, 0))),
];

#[test]
fn b_c_the_host_takes_renews_or_remaps_a_page_before_every_platform_call() {
    let (calls, codes) = world(|world| {
        let codes = DAY.map(|call| call(world).unwrap());
        world.check();
        (world.platform.calls(), codes)
    });
    assert_eq!(codes[10..], [SUCCESS; 6], "without a host that acts");
    let mut points = 0;
    let targets = [0, 1, 2, 4, 7, 8, 9, 10].map(page);
    for nth in 1..=calls {
        for target in targets.into_iter().chain([FRESH, FRESH + 0x1000]) {
            for act in [
                Act::Rescind(target),
                Act::Renew(target),
                Act::Remap(target, page(12)),
            ] {
                world(|world| {
                    world.touch(target);
                    world.touch(page(12));
                    world.platform.act_before(nth, act);
                    hostile_day(world);
                });
                points += 1;
            }
        }
    }
    println!("{points} points at which a host acts");
}

/// The day, in which the VM may end: then with the reason that names the attack.
fn hostile_day(world: &World<'_>) {
    for call in DAY {
        match call(world) {
            Ok(code) => assert!(documented(code), "{code}"),
            Err(reason) => {
                assert_eq!(reason, Reason::ValidateTwice);
                return;
            }
        }
        world.check();
    }
    // A host that takes pages shows nobody a page that is valid twice.
    assert!(!world.service.has_stopped());
}

#[test]
fn p1_every_instruction_that_surprises() {
    for (surprise, fatal) in [
        (Surprise::ValidAlready, Some(Reason::ValidateTwice)),
        (Surprise::InvalidAlready, None),
        (Surprise::SizeMismatch, None),
    ] {
        world(|world| {
            let list = page(0);
            world.touch(page(4)); // a lie about the page, not a change of it
            if surprise == Surprise::ValidAlready {
                world.pvalidate(list, &[small(page(4), false)]).unwrap();
            }
            world.platform.surprise(surprise);
            let validate = surprise == Surprise::ValidAlready;
            let result = world.pvalidate(list, &[small(page(4), validate)]);
            assert_eq!(result.err(), fatal, "{surprise:?}");
            assert_ne!(result, Ok(SUCCESS), "{surprise:?}");
            let quarantined = world.state(page(4)) == Some(PageState::Quarantined);
            assert!(quarantined, "{surprise:?}: {:?}", world.state(page(4)));
        });
    }
}
