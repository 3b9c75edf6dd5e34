// SPDX-License-Identifier: MIT OR Apache-2.0
//! One failing platform call at every place of a fixed sequence: the answer is a documented code, nothing is lost.
//! And a host that does not fail but returns before it is done with a 2 MiB entry: legal, and followed as long as it keeps
//! the pace (clause P-9.2).

mod service_machine;

use protocol::{CHUNK_BYTES, result};
use service_machine::{LIST, ServiceMachine, WINDOW};
use snp::address::{GuestPhysicalAddress, PageSize};
use snp::psc::PscOperation;
use snp_model::psc::HostManner;
use svsm_swiotlb::page_state::PageState;

/// Chunks of the window of the slow host, and their pages.
const CHUNKS: usize = 4;
const PAGES: u64 = CHUNKS as u64 * 512;

/// Grows twice, lists, releases, grows again; stops asking for what an earlier step did not get.
fn sequence(machine: &ServiceMachine) {
    let epoch = machine.attach().epoch.number();
    let first = machine.grow(epoch, 2, 3, false);
    let second = machine.grow(epoch, 2, 2, true);
    let _ = machine.list(epoch, 4);
    for granted in [first, second].into_iter().flatten() {
        let chunk = ServiceMachine::chunk_of(granted.base.bits());
        let released = machine.release(epoch, chunk, 1, granted.generation.number());
        assert!(released.is_ok(), "a refusing host does not stop a release");
        machine.check();
    }
    let _ = machine.grow(epoch, 1, 8, false);
    machine.check();
    machine.check_window_never_validated();
}

#[test]
fn p3_p5_every_platform_call_may_fail_once() {
    let quiet = ServiceMachine::new(8);
    sequence(&quiet);
    assert_eq!(quiet.service.statistics().host_anomalies, [0; 8]);

    let mut faulted_pages = 0;
    let mut refusals = 0;
    // More than the sequence makes: the last rounds run undisturbed.
    for nth in 1..=40 {
        let machine = ServiceMachine::new(8);
        machine.machine.fail_platform_call(nth);
        sequence(&machine);
        let statistics = machine.service.statistics();
        assert_eq!(
            statistics.quarantined_bytes, 0,
            "a failing host is not a lying one"
        );
        let page = machine.service.page_states().state(LIST);
        let quarantined = page == Some(PageState::Quarantined);
        assert_eq!(quarantined, statistics.guest_page_faults == 1, "call {nth}");
        faulted_pages += statistics.guest_page_faults;
        refusals += statistics.host_anomalies[0];
    }
    assert!(
        faulted_pages >= 3,
        "reads and writes of the list failed: {faulted_pages}"
    );
    assert!(refusals >= 5, "exits failed: {refusals}");
}

/// A window that belongs to the guest as far as the host is concerned: every page has to change.
fn assigned_window(manner: HostManner) -> ServiceMachine {
    let machine = ServiceMachine::new(CHUNKS);
    for chunk in 0..CHUNKS as u64 {
        let page = GuestPhysicalAddress::new(WINDOW + chunk * CHUNK_BYTES);
        let (size, operation) = (PageSize::Size2M, PscOperation::Private);
        assert!(machine.machine.host_changes(page, size, operation));
    }
    machine.machine.set_manner(manner);
    machine
}

#[test]
fn p4_progress_inside_an_entry_is_kept_over_the_exits() {
    // 32 pages a time are the slowest pace; 200 straddle the ends of the entries.
    for (pages, exits) in [(32, 64), (200, 11), (511, 5)] {
        let machine = assigned_window(HostManner::StopInside(pages));
        let epoch = machine.attach().epoch.number();
        let granted = machine.grow(epoch, CHUNKS, CHUNKS, true).unwrap();
        assert_eq!(granted.bytes, CHUNKS as u64 * CHUNK_BYTES);
        let counters = machine.machine.counters();
        assert_eq!((counters.psc_exits, counters.pages_shared), (exits, PAGES));
        let returned = machine.release(epoch, 0, CHUNKS, granted.generation.number());
        assert!(returned.is_ok());
        assert_eq!(machine.service.statistics().host_anomalies, [0; 8]);
        machine.check();
        machine.check_window_never_validated();
    }
}

#[test]
fn c1_a_slower_host_declines() {
    let machine = assigned_window(HostManner::StopInside(31));
    let epoch = machine.attach().epoch.number();
    assert_eq!(
        machine.grow(epoch, 1, CHUNKS, false).unwrap_err(),
        result::HOST_REFUSED
    );
    assert_eq!(machine.machine.counters().psc_exits, 16);
    machine.check();
}
