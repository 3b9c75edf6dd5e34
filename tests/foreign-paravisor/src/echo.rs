// SPDX-License-Identifier: MIT OR Apache-2.0
//! A protocol of this paravisor's own, in the place of its vTPM or attestation: it returns what it is given.

use core::sync::atomic::{AtomicU64, Ordering};

use snp::svsm::{CallId, CallRegisters, ResultCode};

/// Its number.
pub const NUMBER: u32 = 0x4000_0E00;

/// The service of it.
#[derive(Debug, Default)]
pub struct Echo {
    calls: AtomicU64,
}

impl Echo {
    /// Call 0 returns RCX, RDX and R8 as they came, call 1 in RCX how often that was done.
    pub fn call(&self, registers: &mut CallRegisters) {
        let code = match CallId::from_rax(registers.rax).call {
            0 => {
                self.calls.fetch_add(1, Ordering::Relaxed);
                ResultCode::SUCCESS
            }
            1 => {
                registers.rcx = self.calls.load(Ordering::Relaxed);
                ResultCode::SUCCESS
            }
            _ => ResultCode::UNSUPPORTED_CALL,
        };
        registers.rax = code.to_rax();
    }
}
