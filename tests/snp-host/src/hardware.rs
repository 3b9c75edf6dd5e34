// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the hypervisor's logic needs of the machine it runs on, as narrow traits.
//!
//! The bare-metal binary implements them with volatile accesses and a few instructions; the unit
//! tests implement them with sparse memory. The logic itself has no `unsafe`.

use crate::vcpu::Vcpu;

/// Where a fingerprint starts.
const FINGERPRINT_SEED: u64 = 0x9E37_79B9_7F4A_7C15;

/// The fingerprint of what came before and `word`.
const fn fingerprint_step(sum: u64, word: u64) -> u64 {
    (sum.rotate_left(29) ^ word).wrapping_mul(0xBF58_476D_1CE4_E5B9)
}

/// Host physical memory. Accesses are copies; both sides of a race see whole words at most.
pub trait PhysicalMemory {
    /// Copies `bytes.len()` bytes from `address`.
    fn read(&self, address: u64, bytes: &mut [u8]);

    /// Copies `bytes` to `address`.
    fn write(&self, address: u64, bytes: &[u8]);

    /// Fills `length` bytes (a multiple of 64) at `address` with `word`.
    fn fill(&self, address: u64, length: u64, word: u64);

    /// The first 8-byte word in `length` bytes (a multiple of 64) at `address` that is not `word`: (offset, found).
    fn first_difference(&self, address: u64, length: u64, word: u64) -> Option<(u64, u64)>;

    /// A word that differs, but for rare coincidence, when `length` bytes (a multiple of 64) at `address` differ.
    fn fingerprint(&self, address: u64, length: u64) -> u64 {
        (address..address + length)
            .step_by(8)
            .fold(FINGERPRINT_SEED, |sum, at| {
                fingerprint_step(sum, self.read_u64(at))
            })
    }

    /// Reads the 8-byte word at the aligned `address`.
    fn read_u64(&self, address: u64) -> u64 {
        let mut bytes = [0; 8];
        self.read(address, &mut bytes);
        u64::from_le_bytes(bytes)
    }

    /// Writes the 8-byte word at the aligned `address`.
    fn write_u64(&self, address: u64, word: u64) {
        self.write(address, &word.to_le_bytes());
    }
}

/// Ports and device memory of the machine.
pub trait Devices {
    /// Reads `bytes` (1, 2 or 4) from `port`.
    fn port_read(&self, port: u16, bytes: u8) -> u32;

    /// Writes the low `bytes` (1, 2 or 4) of `value` to `port`.
    fn port_write(&self, port: u16, bytes: u8, value: u32);

    /// Reads `bytes` (1, 2, 4 or 8) of device memory in one access.
    fn device_read(&self, address: u64, bytes: u8) -> u64;

    /// Writes `bytes` (1, 2, 4 or 8) of device memory in one access.
    fn device_write(&self, address: u64, bytes: u8, value: u64);
}

/// The processor: identification, time and the world switch.
pub trait Processor {
    /// Time stamp counter.
    fn timestamp(&self) -> u64;

    /// CPUID: EAX, EBX, ECX, EDX.
    fn cpuid(&self, leaf: u32, subleaf: u32) -> [u32; 4];

    /// Runs the guest until its next exit.
    fn enter(&self, vcpu: &mut Vcpu);

    /// Writes back the segments and system registers that VMRUN leaves in the processor (VMSAVE).
    fn store_hidden(&self, vcpu: &mut Vcpu);

    /// Takes everything of `vcpu` out of the processor before another VMPL runs: hidden state, x87
    /// and SSE registers, XCR0.
    fn save_context(&self, vcpu: &mut Vcpu);

    /// The opposite of [`save_context`](Self::save_context).
    fn load_context(&self, vcpu: &mut Vcpu);
}

/// The other processors, which share the machine and its nested tables. All calls are made by the
/// one processor that holds the machine.
pub trait Processors {
    /// Makes every processor but `own` that runs a guest leave it; how many there were. On return
    /// none of them uses a translation from before the call.
    fn kick_guests(&self, own: u32) -> u32;

    /// Makes processor `cpu` leave its guest or end its wait, and look at the machine again.
    fn wake(&self, cpu: u32);

    /// Makes processor `own`, which runs this, leave the guest that it enters next before that executes an instruction, but
    /// behind the event that is injected.
    fn leave_at_once(&self, own: u32);
}

/// A machine on which the hypervisor runs.
pub trait Hardware: PhysicalMemory + Devices + Processor + Processors {}

impl<T: PhysicalMemory + Devices + Processor + Processors> Hardware for T {}
