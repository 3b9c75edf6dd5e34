// SPDX-License-Identifier: MIT OR Apache-2.0
//! Fills the hand-over area: everything the guest finds when it starts.

use snp::address::GuestPhysicalAddress;
use snp::cpuid::CpuidPage;
use snp::secrets::SecretsPage;
use svsm_swiotlb::platform::GuestMemory;
use zerocopy::{FromBytes, IntoBytes};

use crate::boot_block::{BootBlock, RAM_ACCEPTED};
use crate::boot_plan::BootPlan;
use crate::guest_pages::{prepare_cpuid, prepare_secrets};
use crate::handover::{FLAG_RAM_ACCEPTED, Handover};
use crate::layout::{
    BOOT_CALLING_AREA, CPUID_COPY, HANDOVER_PAGE, PAGE_BYTES, PageBytes, SECRETS_COPY,
    START_PAGE_TABLES, START_TABLE_PAGES,
};
use crate::memory_map::MemoryMap;
use crate::start_tables::start_table;
use crate::termination::Reason;

/// What the pages are made from.
#[derive(Debug)]
pub struct StartPages<'a> {
    /// Boot block.
    pub boot_block: &'a BootBlock,
    /// Plan.
    pub plan: &'a BootPlan,
    /// Memory map.
    pub map: &'a MemoryMap,
    /// Our secrets page.
    pub secrets: &'a PageBytes,
    /// Our CPUID page.
    pub cpuid: &'a PageBytes,
    /// The C-bit as a mask.
    pub c_bit: u64,
}

impl StartPages<'_> {
    /// Writes all pages; the area is validated and zeroed, and the guest does not run yet.
    ///
    /// # Errors
    /// The reason with which the boot has to end.
    pub fn write<M: GuestMemory>(&self, memory: &M) -> Result<(), Reason> {
        let put = |gpa: u64, bytes: &[u8]| {
            memory
                .write(GuestPhysicalAddress::new(gpa), bytes)
                .map_err(|_| Reason::NotValidated)
        };
        let mut secrets =
            SecretsPage::read_from_bytes(self.secrets).map_err(|_| Reason::SecretsPage)?;
        prepare_secrets(&mut secrets)?;
        put(SECRETS_COPY, secrets.as_bytes())?;
        // The keys must not stay behind on the stack.
        secrets.as_mut_bytes().fill(0);
        core::hint::black_box(&secrets);

        let mut cpuid = CpuidPage::read_from_bytes(self.cpuid).map_err(|_| Reason::CpuidPage)?;
        prepare_cpuid(&mut cpuid)?;
        put(CPUID_COPY, cpuid.as_bytes())?;
        put(HANDOVER_PAGE, self.handover()?.as_bytes())?;
        for number in 0..START_TABLE_PAGES {
            let table = start_table(number, self.c_bit);
            put(START_PAGE_TABLES + number * PAGE_BYTES, table.as_bytes())?;
        }
        Ok(())
    }

    /// The hand-over page itself.
    fn handover(&self) -> Result<Handover, Reason> {
        let mut page = Handover::new();
        if self.boot_block.ram_mode == RAM_ACCEPTED {
            page.flags = FLAG_RAM_ACCEPTED;
        }
        page.secrets_gpa = SECRETS_COPY;
        page.cpuid_gpa = CPUID_COPY;
        page.calling_area_gpa = BOOT_CALLING_AREA;
        page.cmdline = self.boot_block.cmdline;
        self.plan.describe(self.map.ram(), &mut page)?;
        Ok(page)
    }
}
