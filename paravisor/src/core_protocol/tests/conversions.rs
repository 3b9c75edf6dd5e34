// SPDX-License-Identifier: MIT OR Apache-2.0
//! Pages that the service's CONVERT has in its hands, or has shared.

use snp::address::GuestPhysicalAddress;
use snp::svsm::ResultCode;
use svsm_swiotlb::page_state::PageState;

use super::{PAGE, small, world};

#[test]
fn p_5_9_13_a_page_that_convert_shared_is_no_business_of_pvalidate() {
    world(|world| {
        let page = GuestPhysicalAddress::new(PAGE);
        let set = |state| world.states.set_at_boot(page, 0x1000, state).unwrap();
        for (state, code) in [
            (PageState::Shared, ResultCode::INVALID_ADDRESS),
            (PageState::Busy, ResultCode::BUSY),
        ] {
            set(state);
            for validate in [true, false] {
                assert_eq!(world.pvalidate(0, &[small(PAGE, validate)]), (code, 0));
                assert_eq!(world.state(PAGE), Some(state));
                assert_eq!(world.machine.steps(), []);
            }
        }
    });
}
