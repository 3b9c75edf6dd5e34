// SPDX-License-Identifier: MIT OR Apache-2.0
//! Discovery: what a guest learns before it attaches.

use protocol::request::DescribeItem;
use protocol::response::{Geometry, Usage, WorkLimits};
use protocol::{Request, identity::Identity};
use snp::svsm::{CallRegisters, ResultCode};

use super::code;
use crate::test_platform::{CHUNK, Guest, WINDOW_BASE, service};

#[test]
fn p_1_2_p_1_3_another_number_is_another_protocol() {
    let (_, service) = service(4);
    let call = CallRegisters {
        rax: 0x4000_0002_0000_0000,
        rcx: 1,
        rdx: 2,
        r8: 3,
        r9: 0,
    };
    let answer = service.dispatch(&call, None);
    assert_eq!(
        answer,
        CallRegisters {
            rax: 0x8000_0001,
            ..call
        }
    );
    assert_eq!(service.query_protocol(1), 0x0000_0001_0000_0001);
    assert_eq!(service.query_protocol(0), 0);
    assert_eq!(service.query_protocol(2), 0);
}

#[test]
fn p_2_1_identify_needs_no_attachment() {
    let (_, service) = service(4);
    let identity = Identity::decode(service.call(Request::Identify).unwrap()).unwrap();
    assert!(identity.speaks_this_version());
    assert_eq!(
        identity.features.into_bits(),
        0b100_1110,
        "trace, orphans, detach, memory form"
    );
}

#[test]
fn p_5_1_1_describe_reports_geometry_usage_and_limits() {
    let (_, service) = service(4);
    let describe = |item| service.call(Request::Describe { window: 0, item }).unwrap();
    let geometry = Geometry::decode(describe(DescribeItem::Geometry)).unwrap();
    assert_eq!(
        (geometry.base.bits(), geometry.bytes),
        (WINDOW_BASE, 4 * CHUNK)
    );
    let usage = Usage::decode(describe(DescribeItem::Usage));
    assert_eq!(
        usage,
        Usage {
            cap: 4 * CHUNK,
            granted: 0,
            quarantined: 0
        }
    );
    let limits = WorkLimits::decode(describe(DescribeItem::WorkLimits));
    let expected = WorkLimits {
        units: 4096,
        psc_entries: 253,
        grow_bytes: 253 * CHUNK,
    };
    assert_eq!(limits, expected);
    let second = Request::Describe {
        window: 1,
        item: DescribeItem::Geometry,
    };
    assert_eq!(code(service.call(second)), ResultCode::INVALID_PARAMETER);
}
