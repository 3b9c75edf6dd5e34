// SPDX-License-Identifier: MIT OR Apache-2.0
//! How the guest ends: a termination request, which works before there is a GHCB.

use core::panic::PanicInfo;

use paravisor::termination::GUEST_REASON_SET;
use snp::ghcb_msr::Request;
use test_guest::stop::Stop;

use super::ghcb::console_line;
use super::processor::request;

/// Ends the VM.
pub fn terminate(stop: Stop) -> ! {
    loop {
        // A host that lets us run on is asked again: nothing else is left to do.
        let _ = request(Request::Terminate {
            reason_set: GUEST_REASON_SET,
            reason: stop.code(),
        });
    }
}

/// Says why, then ends the VM.
pub fn fail(stop: Stop, reason: core::fmt::Arguments<'_>) -> ! {
    console_line(format_args!("guest: {stop:?}: {reason}"));
    console_line(format_args!(
        "{}",
        test_guest::record::Record::Done { ok: false }
    ));
    terminate(stop)
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    console_line(format_args!("guest: {info}"));
    terminate(Stop::Panic)
}
