// SPDX-License-Identifier: MIT OR Apache-2.0
//! One failing platform call at every place of a fixed sequence: the answer is a documented code, nothing is lost.

mod service_machine;

use service_machine::{LIST, ServiceMachine};
use svsm_swiotlb::page_state::PageState;

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
