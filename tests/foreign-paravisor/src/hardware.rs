// SPDX-License-Identifier: MIT OR Apache-2.0
//! What this paravisor had before the service came.

use snp::address::{GuestPhysicalAddress, PageSize};
use snp::operands::{InstructionCode, PvalidateResult, RmpAdjustTarget};

/// The processor that runs this, and its instructions.
///
/// All methods act for the calling processor: each has a GHCB of its own, shared, mapped C=0 and registered. From the
/// first word written to the last one read nothing else on that processor uses it: a #HV handler takes note of its event
/// and returns, without GHCB and without its MSR.
pub trait Hardware {
    /// Writes a word of the GHCB's shared buffer.
    fn write_buffer(&self, offset: usize, word: u64);

    /// Reads a word of the GHCB's shared buffer, once.
    fn read_buffer(&self, offset: usize) -> u64;

    /// One VMGEXIT with SW_SCRATCH at the shared buffer; SW_EXITINFO1 and SW_EXITINFO2 of the reply, each read once.
    fn exit_with_buffer(&self, exit_code: u64) -> (u64, u64);

    /// Copies private memory of the guest; `false` when the access faults, which the guest or the host can bring about.
    fn copy_from_guest(&self, from: GuestPhysicalAddress, bytes: &mut [u8]) -> bool;

    /// The reverse.
    fn copy_to_guest(&self, to: GuestPhysicalAddress, bytes: &[u8]) -> bool;

    /// PVALIDATE; `None` when it faults.
    fn pvalidate(
        &self,
        page: GuestPhysicalAddress,
        size: PageSize,
        validate: bool,
    ) -> Option<PvalidateResult>;

    /// RMPADJUST; `None` when it faults.
    fn rmpadjust(
        &self,
        page: GuestPhysicalAddress,
        size: PageSize,
        target: RmpAdjustTarget,
    ) -> Option<InstructionCode>;

    /// Reads the first and the last line of each 4 KiB page of a page that has just been validated, unless CPUID Fn8000_001F EBX
    /// bit 31 is set; `false` when it faults.
    fn evict(&self, page: GuestPhysicalAddress, size: PageSize) -> bool;

    /// Zeroes a page; `false` when it faults.
    fn zero(&self, page: GuestPhysicalAddress, size: PageSize) -> bool;

    /// Returns when no lower VMPL on any processor can use an older translation: INVLPGB and TLBSYNC, or a flush that
    /// every processor does before it enters the guest again, waited for.
    fn flush_guest(&self);

    /// Whether any page of a range is mapped with C=1.
    fn maps_private(&self, base: GuestPhysicalAddress, bytes: u64) -> bool;
}
