// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the service needs from the machine it runs on, and nothing more.
//!
//! Three narrow traits; the paravisor image, the model machine of the tests and a foreign paravisor implement them. All
//! methods take `&self` and may run on several processors at once; an implementation keeps what is per processor (the
//! GHCB, a mapping window) apart by itself. None is called while the service holds a lock, because it holds none.

use snp::address::{GuestPhysicalAddress, PageSize};
use snp::operands::{InstructionCode, PvalidateResult, RmpAdjustTarget};
use snp::psc::PscDescriptor;

/// An access to a guest page ended in an exception: #VC with error code 0x404, because the page is not validated, or #PF
/// or #NPF reflected by the platform. A guest can bring this about, so it is an answer and no panic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault;

/// SW_EXITINFO1 and SW_EXITINFO2 after a page-state change, read once. The host wrote them; nothing is checked yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PscExit {
    /// SW_EXITINFO1.
    pub sw_exit_info_1: u64,
    /// SW_EXITINFO2.
    pub sw_exit_info_2: u64,
}

/// Whether the host sees a descriptor for the first time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Issue {
    /// A new descriptor.
    First,
    /// The descriptor of this processor's last page-state change, which the host left unfinished.
    Again,
}

/// Page-state changes on the host's side (GHCB specification 4.1.6, NAE event 0x8000_0010).
pub trait HostPages {
    /// Exactly one VMGEXIT: copies `descriptor` into the GHCB's shared buffer, exits, and copies the header, and only
    /// the header, back once.
    ///
    /// [`Issue::Again`] copies the header alone: the entries in the buffer are the host's by then. It keeps in them
    /// how many pages of a large entry are done, and would begin that entry anew if they were written again.
    ///
    /// The entries are never read back: the host could have altered them, and the caller decides by its own. The
    /// implementation checks nothing of the reply and does not loop.
    fn page_state_change(&self, descriptor: &mut PscDescriptor, issue: Issue) -> PscExit;
}

/// Copies to and from private pages of the guest.
///
/// The service calls this only for pages of the range list it was given, only while it holds the page's state word
/// (invariant P5), and never across the end of a 4 KiB page. The copy must survive a fault.
pub trait GuestMemory {
    /// Copies from guest memory, each byte once.
    ///
    /// # Errors
    /// [`Fault`] when the page cannot be read; `bytes` may then be partly overwritten.
    fn read(&self, from: GuestPhysicalAddress, bytes: &mut [u8]) -> Result<(), Fault>;

    /// Copies into guest memory.
    ///
    /// # Errors
    /// [`Fault`] when the page cannot be written; part of it may then have been.
    fn write(&self, to: GuestPhysicalAddress, bytes: &[u8]) -> Result<(), Fault>;
}

/// The instructions that change a page's state on the guest's side (APM volume 3), and what belongs to them.
///
/// The pool itself needs none of these, since no window page is ever validated; the core protocol and CONVERT do. The
/// order in which they are legal is the caller's business.
pub trait PageInstructions {
    /// PVALIDATE of a page through a private mapping.
    ///
    /// # Errors
    /// [`Fault`] when the instruction ends in #VC 0x404.
    fn pvalidate(
        &self,
        page: GuestPhysicalAddress,
        size: PageSize,
        validate: bool,
    ) -> Result<PvalidateResult, Fault>;

    /// RMPADJUST of a page through a private mapping.
    ///
    /// # Errors
    /// [`Fault`] when the instruction ends in #VC 0x404: the page is not validated.
    fn rmpadjust(
        &self,
        page: GuestPhysicalAddress,
        size: PageSize,
        target: RmpAdjustTarget,
    ) -> Result<InstructionCode, Fault>;

    /// Reads the first and the last cache line of each 4 KiB page of a page that has just been validated, through a private
    /// mapping, unless the processor says that this is not needed (CPUID Fn8000_001F EBX bit 31, COHERENCY_SFW_NO).
    ///
    /// Elsewhere, caches may still hold lines of the page from before it was the guest's (CVE-2025-38560); these two reads
    /// with the guest's key evict all of them.
    ///
    /// # Errors
    /// [`Fault`] when the page cannot be read.
    fn evict(&self, page: GuestPhysicalAddress, size: PageSize) -> Result<(), Fault>;

    /// Overwrites a page with zeros through a private mapping.
    ///
    /// # Errors
    /// [`Fault`] when the page cannot be written; part of it may then have been.
    fn zero(&self, page: GuestPhysicalAddress, size: PageSize) -> Result<(), Fault>;

    /// Returns only when no lower VMPL on any processor can use a translation that is older than this call.
    fn flush(&self);
}
