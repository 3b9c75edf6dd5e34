// SPDX-License-Identifier: MIT OR Apache-2.0
//! Addresses and numbers that the cases are made of.

use snp::address::{LARGE_PAGE_SIZE, PAGE_SIZE};

use crate::arena::Range;

/// What is true on this machine at this moment.
#[derive(Debug, Clone, Copy)]
pub struct Facts {
    /// Number of the pool protocol.
    pub protocol: u32,
    /// The pool window.
    pub window: Range,
    /// The paravisor's memory.
    pub paravisor: Range,
    /// A private page of the guest that holds the lists.
    pub list: u64,
    /// A private page of the guest with known contents.
    pub private: u64,
    /// A 2 MiB aligned range of the guest's private RAM.
    pub private_large: u64,
    /// A page of the guest's RAM that is not validated.
    pub unvalidated: u64,
    /// A page of the guest's RAM that is shared with the host.
    pub shared: u64,
    /// The first of [`super::lost_cases::PAGES`] pages that the map calls valid and the host took.
    pub lost: u64,
    /// The calling area in use.
    pub calling_area: u64,
    /// The current epoch; 0 before ATTACH.
    pub epoch: u32,
    /// A granted chunk of this epoch; 0 before ATTACH.
    pub granted: u64,
    /// Its generation.
    pub generation: u32,
    /// Bytes granted by this epoch.
    pub granted_bytes: u64,
    /// The cap on granted bytes.
    pub cap: u64,
}

impl Facts {
    /// An address between RAM and devices that no machine of ours populates: the I/O APIC's page.
    pub const DEVICE: u64 = 0xfec0_0000;
    /// The page KVM launches VMPL0's VMSA in.
    pub const LAUNCH_VMSA: u64 = paravisor::layout::LAUNCH_VMSA;
    /// An address above the 52 bits that a page-table entry holds.
    pub const BEYOND: u64 = 1 << 52;

    /// A window page that is not granted: the last one.
    #[must_use]
    pub const fn free_chunk(&self) -> u64 {
        self.window.end - LARGE_PAGE_SIZE
    }

    /// A page of the service's storage, which lies right below the window.
    #[must_use]
    pub const fn storage_page(&self) -> u64 {
        self.window.start - PAGE_SIZE
    }

    /// A page of the paravisor that holds neither code nor data of general interest.
    #[must_use]
    pub const fn paravisor_page(&self) -> u64 {
        self.paravisor.end - PAGE_SIZE
    }
}

/// Facts of a made-up machine, for tests of the tables.
#[cfg(test)]
pub(crate) fn example() -> Facts {
    Facts {
        protocol: 0x4000_0001,
        window: Range::new(0x3000_0000, 0x4000_0000),
        paravisor: Range::new(0x40_0000, 0x80_0000),
        list: 0x200_0000,
        private: 0x200_1000,
        private_large: 0x220_0000,
        unvalidated: 0x200_2000,
        shared: 0x200_3000,
        lost: 0x201_0000,
        calling_area: 0x80_3000,
        epoch: 3,
        granted: 0x3000_0000,
        generation: 7,
        granted_bytes: 0x20_0000,
        cap: 0x1000_0000,
    }
}
