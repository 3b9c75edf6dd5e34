// SPDX-License-Identifier: MIT OR Apache-2.0
//! What VMPL 0's page tables allow, and where its keys lie: this host, which emulates the processor, sees both, and records
//! them for the runner to judge.
//!
//! It looks at VMPL 0's first request, when the tables are those of its entry code, before a lower VMPL first
//! runs, and before one first runs on another CPU than the boot CPU, where VMPL 0 has another stack.

use snp::address::{PAGE_SIZE, Vmpl};
use snp::operands::RmpPermissions;
use snp_model::access::AccessKind;

use crate::guest_memory::{ADDRESS, LARGE, PRESENT, Translation};
use crate::hardware::Hardware;
use crate::launch_guest::key_byte;
use crate::machine::Machine;
use crate::record::kind;
use crate::vcpu::Vcpu;

const WRITE: u64 = 1 << 1;
const NO_EXECUTE: u64 = 1 << 63;
/// Entries of a table.
const ENTRIES: u64 = 512;
/// Most pages of a stack.
const STACK_PAGES: u64 = 1024;
/// Keys that no VMPL below 1 may have: those of VMPL 0 and 1.
const KEYS: usize = 2;
/// [`PAGE_SIZE`] as the length of an array.
const PAGE_LENGTH: usize = 4096;
const _: () = assert!(PAGE_LENGTH as u64 == PAGE_SIZE);
/// Bytes of a key that are looked for.
const KEY_START: usize = 8;

/// When this host looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// At VMPL 0's first request.
    FirstRequest,
    /// Before a lower VMPL first runs.
    FirstSwitch,
    /// Before a lower VMPL first runs on another CPU.
    FurtherProcessor,
}

/// How many of them there are.
pub(crate) const MOMENTS: usize = 3;

/// What is mapped, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Rights {
    writable: u64,
    executable: u64,
    /// Writable and executable.
    both: u64,
    /// First byte of all that is executable.
    code_start: u64,
    /// One past its last byte.
    code_end: u64,
}

impl Rights {
    /// Counts a page of `bytes` at `linear`, which the entries on the way allow to be written and executed or not.
    fn add(&mut self, linear: u64, bytes: u64, [write, execute]: [bool; 2]) {
        if write {
            self.writable += bytes;
        }
        if execute {
            if self.executable == 0 {
                self.code_start = linear;
            }
            self.executable += bytes;
            self.code_end = linear + bytes;
        }
        if write && execute {
            self.both += bytes;
        }
    }
}

impl<H: Hardware> Machine<'_, H> {
    /// Looks at VMPL 0, whose state is `vcpu`, unless it has done so at this moment.
    pub(crate) fn inspect(&mut self, vcpu: &Vcpu, moment: Moment) {
        let done = self.inspected.get_mut(moment as usize);
        if vcpu.is_unpaged() || done.is_none_or(|done| core::mem::replace(done, true)) {
            return;
        }
        let mut rights = Rights::default();
        self.walk(
            vcpu,
            vcpu.vmcb.save.cr3 & ADDRESS,
            3,
            0,
            [true; 2],
            &mut rights,
        );
        let Rights {
            writable,
            executable,
            both,
            code_start,
            code_end,
        } = rights;
        let stack = self.mapped_around(vcpu, vcpu.vmcb.save.rsp);
        let keys = self.keys();
        self.record(
            kind::INSPECTED,
            format_args!(
                "moment={} writable={writable} executable={executable} both={both} code_start={code_start:#x} code_end={code_end:#x} stack={stack} keys={keys}",
                moment as u32
            ),
        );
    }

    /// Adds up what the table at `table` maps, whose entries cover addresses from `linear` on.
    fn walk(
        &self,
        vcpu: &Vcpu,
        table: u64,
        level: u32,
        linear: u64,
        allowed: [bool; 2],
        rights: &mut Rights,
    ) {
        let at = Translation {
            gpa: table,
            c_bit: true,
        };
        let Ok(host) = self.reach(vcpu, at, AccessKind::TableWalk) else {
            return;
        };
        let bytes = 1 << (12 + 9 * level);
        for number in 0..ENTRIES {
            let entry = self.hardware.read_u64(host + 8 * number);
            if entry & PRESENT == 0 {
                continue;
            }
            let linear = linear + number * bytes;
            let [write, execute] = allowed;
            let allowed = [
                write && entry & WRITE != 0,
                execute && entry & NO_EXECUTE == 0,
            ];
            match level.checked_sub(1) {
                Some(below) if entry & LARGE == 0 => {
                    self.walk(vcpu, entry & ADDRESS, below, linear, allowed, rights);
                }
                _ => rights.add(linear, bytes, allowed),
            }
        }
    }

    /// Bytes of the run of mapped pages around `linear`.
    fn mapped_around(&self, vcpu: &Vcpu, linear: u64) -> u64 {
        let page = linear & !(PAGE_SIZE - 1);
        let run = |next: &dyn Fn(u64) -> Option<u64>| {
            (0..STACK_PAGES)
                .map_while(|number| next(number * PAGE_SIZE))
                .take_while(|at| self.translate(vcpu, *at).is_ok())
                .count() as u64
        };
        let below = run(&|offset| page.checked_sub(PAGE_SIZE + offset));
        let above = run(&|offset| page.checked_add(offset));
        (below + above) * PAGE_SIZE
    }

    /// How often a key of VMPL 0 or 1 begins in a page that is VMPL 0's alone.
    fn keys(&self) -> usize {
        let nobody = RmpPermissions::from_bits(0);
        let own = (0..self.rmp.pages()).filter(|index| {
            self.rmp.entry(*index).is_some_and(|entry| {
                let lower = [Vmpl::Vmpl1, Vmpl::Vmpl2, Vmpl::Vmpl3];
                entry.validated && lower.iter().all(|vmpl| entry.permissions(*vmpl) == nobody)
            })
        });
        let keys: [[u8; KEY_START]; KEYS] =
            core::array::from_fn(|key| core::array::from_fn(|byte| key_byte(key, byte)));
        let mut found = 0;
        let mut bytes = [0; PAGE_LENGTH];
        for index in own {
            self.hardware
                .read(self.nested.private_page(index), &mut bytes);
            // Whoever copies a page of 4-byte fields aligns it so.
            found += (0..bytes.len())
                .step_by(4)
                .filter_map(|at| bytes.get(at..at + KEY_START))
                .filter(|start| keys.iter().any(|key| key == start))
                .count();
        }
        found
    }
}
