// SPDX-License-Identifier: MIT OR Apache-2.0
//! What belongs to one processor: its GHCB, its doorbell, and the VMSA of its vCPU at the guest's
//! level.

use core::cell::UnsafeCell;

use paravisor::guest_vmsa::usable_page;
use paravisor::layout::PageBytes;
use snp::address::GuestPhysicalAddress;

use super::host_page::HostPage;

/// Pages of one processor.
#[derive(Debug)]
pub struct Processor {
    /// The GHCB.
    pub ghcb: HostPage,
    /// The #HV doorbell.
    pub doorbell: HostPage,
    vmsa: VmsaPages,
}

/// Two pages, since a VMSA must not be 2 MiB aligned.
#[derive(Debug)]
#[repr(C, align(4096))]
struct VmsaPages(UnsafeCell<[PageBytes; 2]>);

// SAFETY: The pages are only accessed by volatile accesses to their address; the processor itself
// writes to them while the guest runs.
unsafe impl Sync for VmsaPages {}

impl Processor {
    const fn new() -> Self {
        Self {
            ghcb: HostPage::new(),
            doorbell: HostPage::new(),
            vmsa: VmsaPages(UnsafeCell::new([[0; size_of::<PageBytes>()]; 2])),
        }
    }

    /// The page for the guest's VMSA.
    pub fn vmsa_page(&self) -> GuestPhysicalAddress {
        GuestPhysicalAddress::new(usable_page(self.vmsa.0.get().expose_provenance() as u64))
    }
}

/// The boot processor. Further ones get a `Processor` each and find it through GS.
static BOOT: Processor = Processor::new();

/// The processor that runs this code.
pub fn current() -> &'static Processor {
    &BOOT
}
