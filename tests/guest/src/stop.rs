// SPDX-License-Identifier: MIT OR Apache-2.0
//! How a run ends: the reason codes of the guest's termination request.
//!
//! The reason set is [`paravisor::termination::GUEST_REASON_SET`]. The host prints the code, so a
//! run that dies before it has a console still says where.

/// Why the guest ends the VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Stop {
    /// Everything asked for was done and every check held.
    Success = 0,
    /// The hand-over page, secrets copy or CPUID copy is not what the paravisor promises.
    Handover = 1,
    /// RAM could not be accepted.
    Acceptance = 2,
    /// Not enough private memory for buffers and page tables.
    Memory = 3,
    /// The service was not found, or the shim could not attach.
    Attach = 4,
    /// The GHCB could not be set up.
    Ghcb = 5,
    /// A self-test case failed.
    SelfTest = 6,
    /// No disk, a disk without addresses, or a driver error.
    Disk = 7,
    /// The digests of two passes differ.
    Digest = 8,
    /// The steady state made an SVSM call.
    SteadyState = 9,
    /// Chunks could not be given back.
    GiveBack = 10,
    /// An unexpected exception; the console line names it.
    Exception = 11,
    /// A broken assumption in the guest's code.
    Panic = 12,
    /// A further vCPU was refused or did not come up.
    Vcpu = 13,
    /// A device that the command line asks for is missing.
    Device = 14,
    /// No network device that works, or the file did not come.
    Network = 15,
    /// The NVMe controller failed.
    Nvme = 16,
    /// A mapping of the burst failed, or came back with other bytes.
    Burst = 17,
    /// A vCPU went on using a page through an old translation.
    Stale = 18,
    /// A restarted kernel did not find, adopt or release what the one before it held.
    Restart = 19,
    /// The service's counters or events could not be read.
    Trace = 20,
    /// The second window is not there, or a mapping is in the wrong one.
    Windows = 21,
}

impl Stop {
    /// The code of the termination request.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }
}
