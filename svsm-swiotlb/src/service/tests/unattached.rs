// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a guest can ask before it attaches, and what cannot change under it afterwards.

use protocol::identity::{Features, Identity};
use protocol::request::DescribeItem;
use protocol::{Call, Request, ResultRegisters};
use snp::psc::error;
use snp::svsm::ResultCode;

use super::{LIST, address, code};
use crate::test_platform::{CHUNK, Guest, Manner, TestPlatform, service};
use crate::{Configuration, Service};

fn described(service: &Service<'_, TestPlatform>, item: DescribeItem) -> ResultRegisters {
    service.call(Request::Describe { window: 0, item }).unwrap()
}

#[test]
fn p_5_0_1_p_5_1_1_p_5_10_1_what_needs_no_attachment_changes_nothing() {
    let (platform, service) = service(4);
    let buffer = address(LIST);
    for _ in 0..2 {
        service.call(Request::Identify).unwrap();
        described(&service, DescribeItem::Usage);
        let written = service.call(Request::Statistics { buffer, bytes: 504 });
        assert_eq!(written.unwrap().rcx, 504);
    }
    let statistics = service.statistics();
    assert_eq!((statistics.epoch, statistics.granted_bytes), (0, 0));
    assert_eq!(platform.exit_count(), 0);
    assert_eq!(
        code(service.raw(Call::Describe, 0, 3, 0)),
        ResultCode::INVALID_PARAMETER
    );
}

#[test]
fn p_5_1_2_geometry_and_work_limits_stay_what_they_are() {
    let (platform, service) = service(4);
    let fixed =
        || [DescribeItem::Geometry, DescribeItem::WorkLimits].map(|item| described(&service, item));
    let before = fixed();
    let usage = described(&service, DescribeItem::Usage);
    let epoch = service.guest_attach();
    service.guest_grow(epoch, 1, 2).unwrap();
    service.guest_attach();
    platform.script(&[Manner::Refuse(0, error::GENERIC)]);
    let _ = service.guest_grow(epoch + 1, 1, 1);
    let _ = service.call(Request::SetLimits {
        window: 0,
        epoch: epoch + 1,
        cap: CHUNK,
    });
    assert_eq!(fixed(), before);
    assert_ne!(described(&service, DescribeItem::Usage), usage);
}

#[test]
fn p_2_4_feature_bits_have_their_places_and_unknown_ones_are_ignored() {
    let places = [
        Features::new().with_convert(true),
        Features::new().with_trace(true),
        Features::new().with_orphans(true),
        Features::new().with_detach(true),
        Features::new().with_donate(true),
        Features::new().with_hand_over(true),
    ];
    for (place, features) in places.into_iter().enumerate() {
        assert_eq!(features.into_bits(), 1 << place);
    }
    let addressing = Configuration::with_encryption_bit(51).addressing;
    let mut answer = Identity::of_this_version(addressing, Features::new()).encode();
    answer.r8 |= 1 << 63;
    assert!(Identity::decode(answer).unwrap().speaks_this_version());
}

#[test]
fn p_5_2_3_when_the_epochs_are_used_up_the_current_one_stays() {
    let (_, service) = service(2);
    service.session.skip_to_the_last_epoch();
    let last = protocol::Epoch::MAX.number();
    let attach = service.call(Request::Attach { version: 1 });
    assert_eq!(code(attach), ResultCode::INVALID_REQUEST);
    assert_eq!(service.guest_grow(last, 1, 1).unwrap().rdx, CHUNK);
}
