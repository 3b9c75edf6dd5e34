// SPDX-License-Identifier: MIT OR Apache-2.0
//! The records this host writes to the debug console (port 0xE9): one line each, ASCII, a kind and
//! `key=value` pairs. The runner reads them with the names given here.

use core::fmt::{self, Write};

use crate::counters::Counters;
use crate::hardware::Devices;

/// Port of QEMU's `-debugcon`.
pub const RECORD_PORT: u16 = 0xE9;
/// Port of QEMU's `isa-debug-exit`; the process ends with status `code * 2 + 1`.
pub const EXIT_PORT: u16 = 0xF4;
/// A guest writes 32 bits here to mark a point in time; harmless on a real machine.
pub const MARKER_PORT: u16 = 0x05A0;
/// A guest writes 32 bits here to name a page that the host may attack in its next call
/// ([`crate::attack`]); harmless on a real machine.
pub const ATTACK_PORT: u16 = 0x05A4;
/// A guest writes 32 bits here to name the next call as one in which the host answers page-state changes in its manner: so
/// many of them ([`crate::psc_manner`]); harmless on a real machine.
pub const PSC_PORT: u16 = 0x05A8;
/// A guest writes 32 bits here to have this host note what each shared page holds, to be compared at the end
/// ([`crate::shared_watch`]); harmless on a real machine.
pub const WATCH_PORT: u16 = 0x05AC;
/// Snapshot id of the final counters.
pub const FINAL_SNAPSHOT: u32 = u32::MAX;
/// Reason set with which the guest under test ends the machine; reason 0 is success.
pub const GUEST_REASON_SET: u8 = 0xB;

/// First words of the records.
pub mod kind {
    /// `version= mem= switches=`
    pub const BOOT: &str = "boot";
    /// `id= tsc=`; counters follow.
    pub const SNAPSHOT: &str = "snapshot";
    /// `name= value=`, inside a snapshot only.
    pub const COUNT: &str = "count";
    /// `id=`; ends a snapshot.
    pub const END: &str = "end";
    /// `tsc= vmpl= op=shared|private gpa= bytes= total_shared=`
    pub const PAGE_STATE: &str = "psc";
    /// `id= tsc=`; a snapshot follows.
    pub const MARK: &str = "mark";
    /// `what= gpa= vmpl= rip=`; the machine stops.
    pub const VIOLATION: &str = "violation";
    /// `what= …`; the guest cannot go on, the machine stops.
    pub const DIED: &str = "died";
    /// `vmpl= set= reason=`
    pub const TERMINATE: &str = "terminate";
    /// `vmpl=`; the guest turned the machine off.
    pub const POWER_OFF: &str = "poweroff";
    /// `vmpl= port=`; the guest reset the machine.
    pub const RESET: &str = "reset";
    /// `moment=0|1 writable= executable= both= code_start= code_end= stack= keys=`; what VMPL 0's page tables allow, in
    /// bytes, and how often its keys were found ([`crate::inspection`]).
    pub const INSPECTED: &str = "inspected";
    /// `gpa= offset= found= expected=`
    pub const PATTERN: &str = "pattern";
    /// `gpa= bytes= protocol=0|1`; pages that no longer hold what they held at the guest's word; GHCB or doorbell
    /// (`protocol=1`) or not.
    pub const CHANGED: &str = "changed";
    /// For a reader only: exits (`cpu= vmpl= exit= info1= info2= rip= rax= rcx=`), and the registers and stack
    /// behind a `violation` or `died` record.
    pub const TRACE: &str = "trace";
    /// `code=`; the last line.
    pub const EXIT: &str = "exit";
}

/// Why the machine stopped: the code of the `exit` record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum ExitCode {
    /// The guest reported success and no pattern was damaged.
    Success = 0,
    /// The guest reported failure.
    GuestFailed = 1,
    /// The paravisor, or a guest for reasons of its own, terminated.
    Terminated = 2,
    /// An access that a correct guest does not make.
    Violation = 3,
    /// Triple fault, an exception that cannot be delivered, an exit nobody handles.
    Died = 4,
    /// A page that was not shared was changed through the shared view.
    PatternDamaged = 5,
    /// The launch image is malformed or does not fit.
    BadLaunch = 6,
    /// A fault of this host.
    HostFault = 7,
}

/// Writes text to the debug console.
#[derive(Debug)]
pub struct RecordWriter<'a, D>(pub &'a D);

impl<D: Devices> Write for RecordWriter<'_, D> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            self.0.port_write(RECORD_PORT, 1, u32::from(byte));
        }
        Ok(())
    }
}

/// Writes one record.
pub fn write(devices: &impl Devices, kind: &str, fields: fmt::Arguments<'_>) {
    // The console never fails.
    let _ = writeln!(RecordWriter(devices), "{kind} {fields}");
}

/// Writes all counters between a `snapshot` and an `end` record.
pub fn write_snapshot(devices: &impl Devices, id: u32, timestamp: u64, counters: &Counters) {
    write(
        devices,
        kind::SNAPSHOT,
        format_args!("id={id} tsc={timestamp}"),
    );
    let _ = counters.for_each(|name, value| {
        write(
            devices,
            kind::COUNT,
            format_args!("name={name} value={value}"),
        );
        Ok(())
    });
    write(devices, kind::END, format_args!("id={id}"));
}

#[cfg(test)]
mod tests {
    use snp::address::Vmpl;

    use super::*;
    use crate::counters::Exit;
    use crate::test_hardware::TestHardware;

    #[test]
    fn a_snapshot_is_framed() {
        let hardware = TestHardware::default();
        let mut counters = Counters::default();
        counters.exit(Vmpl::Vmpl2, Exit::Msr);
        write_snapshot(&hardware, 7, 99, &counters);
        let expected = "snapshot id=7 tsc=99\ncount name=exit.2.msr value=1\nend id=7\n";
        assert_eq!(hardware.text(RECORD_PORT), expected);
    }
}
