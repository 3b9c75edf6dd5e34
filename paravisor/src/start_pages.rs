// SPDX-License-Identifier: MIT OR Apache-2.0
//! Fills the hand-over area, or the pages that firmware names: everything the guest finds when it starts.

use snp::address::GuestPhysicalAddress;
use snp::cpuid::CpuidPage;
use snp::secrets::SecretsPage;
use svsm_swiotlb::platform::GuestMemory;
use zerocopy::{FromBytes, IntoBytes};

use crate::apic_ids::ApicIds;
use crate::boot_block::{BootBlock, RAM_ACCEPTED};
use crate::boot_plan::BootPlan;
use crate::guest_pages::{prepare_cpuid, prepare_secrets};
use crate::handover::{FLAG_RAM_ACCEPTED, Handover, MAX_MAP_ENTRIES, MapEntry};
use crate::layout::{
    HANDOVER_MAP, HANDOVER_PAGE, PAGE_BYTES, PageBytes, START_PAGE_TABLES, START_TABLE_PAGES,
};
use crate::linux;
use crate::start_tables::start_table;
use crate::termination::Reason;

/// What the pages are made from.
#[derive(Debug)]
pub struct StartPages<'a> {
    /// Boot block.
    pub boot_block: &'a BootBlock,
    /// Plan.
    pub plan: &'a BootPlan<'a>,
    /// Our secrets page.
    pub secrets: &'a PageBytes,
    /// Our CPUID page.
    pub cpuid: &'a PageBytes,
    /// The C-bit as a mask.
    pub c_bit: u64,
    /// Processors whose vCPUs the guest may use.
    pub processors: ApicIds<'a>,
}

impl StartPages<'_> {
    /// Writes all pages; the area is validated and zeroed, and the guest does not run yet.
    ///
    /// # Errors
    /// The reason with which the boot has to end.
    pub fn write<M: GuestMemory>(&self, memory: &M) -> Result<(), Reason> {
        let write = |gpa: u64, bytes: &[u8]| {
            memory
                .write(GuestPhysicalAddress::new(gpa), bytes)
                .map_err(|_| Reason::NotValidated)
        };
        // Entries of a memory map may lie over the end of a page.
        let put = |gpa: u64, bytes: &[u8]| {
            let room = usize::try_from(PAGE_BYTES - gpa % PAGE_BYTES).unwrap_or(0);
            let (first, second) = bytes.split_at(room.min(bytes.len()));
            write(gpa, first)?;
            if second.is_empty() {
                return Ok(());
            }
            write(gpa.next_multiple_of(PAGE_BYTES), second)
        };
        let mut secrets =
            SecretsPage::read_from_bytes(self.secrets).map_err(|_| Reason::SecretsPage)?;
        prepare_secrets(&mut secrets, self.boot_block.calling_area)?;
        put(self.boot_block.secrets_page, secrets.as_bytes())?;
        // The guest's keys; ours are gone since the entry code. No lower VMPL can read our stack: a
        // precaution only, and copies that the compiler made on the way stay behind.
        secrets.as_mut_bytes().fill(0);
        core::hint::black_box(&secrets);

        let mut cpuid = CpuidPage::read_from_bytes(self.cpuid).map_err(|_| Reason::CpuidPage)?;
        prepare_cpuid(&mut cpuid)?;
        put(self.boot_block.cpuid_page, cpuid.as_bytes())?;
        if self.boot_block.is_firmware() {
            return Ok(());
        }
        if self.boot_block.is_linux() {
            linux::write(self.plan, self.processors, put)?;
        } else {
            let page = self.handover(put)?;
            put(HANDOVER_PAGE, page.as_bytes())?;
        }
        for number in 0..START_TABLE_PAGES {
            let table = start_table(number, self.c_bit);
            put(START_PAGE_TABLES + number * PAGE_BYTES, table.as_bytes())?;
        }
        Ok(())
    }

    /// The hand-over page itself. The memory map is in place.
    fn handover(&self, put: impl Fn(u64, &[u8]) -> Result<(), Reason>) -> Result<Handover, Reason> {
        let mut page = Handover::new();
        if self.boot_block.ram_mode == RAM_ACCEPTED {
            page.flags = FLAG_RAM_ACCEPTED;
        }
        page.secrets_gpa = self.boot_block.secrets_page;
        page.cpuid_gpa = self.boot_block.cpuid_page;
        page.calling_area_gpa = self.boot_block.calling_area;
        page.cmdline = self.boot_block.cmdline;
        page.map_gpa = HANDOVER_MAP;
        page.map_count = self.plan.describe(|number, entry| {
            if number >= MAX_MAP_ENTRIES as u64 {
                return Err(Reason::HandoverMap);
            }
            let offset = number * size_of::<MapEntry>() as u64;
            put(HANDOVER_MAP + offset, entry.as_bytes())
        })?;
        let payload = self.plan.payload.as_slice();
        page.payload_start = payload.first().map_or(0, |range| range.start);
        page.payload_end = payload.last().map_or(0, |range| range.end);
        Ok(page)
    }
}

#[cfg(test)]
mod tests {
    use super::{
        CpuidPage, FLAG_RAM_ACCEPTED, FromBytes, HANDOVER_MAP, HANDOVER_PAGE, Handover, IntoBytes,
        MapEntry, PAGE_BYTES, PageBytes, START_PAGE_TABLES, START_TABLE_PAGES, SecretsPage,
        StartPages,
    };
    use crate::apic_ids::tests::apic_ids;
    use crate::boot_block::{BootBlock, RAM_FIRMWARE};
    use crate::boot_plan::tests::{boot_block, plan as usual_plan};
    use crate::handover::KIND_RESERVED;
    use crate::layout::{BOOT_CALLING_AREA, CPUID_COPY, HANDOVER_BASE, SECRETS_COPY};
    use crate::placement::OWN_REGION;
    use crate::test_machine::TestMachine;
    use snp::cpuid::{CpuidEntry, LEAF_ENCRYPTION};
    use zerocopy::FromZeros;

    #[test]
    fn the_guest_finds_its_pages() {
        let (mut block, machine) = (boot_block(), TestMachine::default());
        block.cmdline[..4].copy_from_slice(b"mode");
        let plan = usual_plan(1);
        let mut secrets = SecretsPage::new_zeroed();
        secrets.version = 3;
        let secrets: PageBytes = secrets.as_bytes().try_into().unwrap();
        let mut cpuid = CpuidPage::new_zeroed();
        cpuid.count = 1;
        cpuid.entries[0] = CpuidEntry {
            eax_in: LEAF_ENCRYPTION,
            ..CpuidEntry::default()
        };
        let cpuid: PageBytes = cpuid.as_bytes().try_into().unwrap();
        for page in 0..32 {
            machine.launch(HANDOVER_BASE + page * PAGE_BYTES);
        }
        let write = |block| {
            let (plan, c_bit, processors) = (&plan, 1 << 51, apic_ids(&[0]));
            StartPages {
                boot_block: block,
                plan,
                secrets: &secrets,
                cpuid: &cpuid,
                c_bit,
                processors,
            }
            .write(&machine)
            .unwrap();
            machine.page(HANDOVER_PAGE, |page| {
                Handover::read_from_prefix(&page.bytes).unwrap().0
            })
        };
        let page = write(&block);
        assert_eq!(
            (page.secrets_gpa, page.cpuid_gpa),
            (SECRETS_COPY, CPUID_COPY)
        );
        assert_eq!(page.calling_area_gpa, BOOT_CALLING_AREA);
        assert_eq!(page.command_line(), b"mode");
        assert_eq!(page.flags, FLAG_RAM_ACCEPTED);
        assert_eq!((page.map_gpa, page.map_count), (HANDOVER_MAP, 7));
        machine.page(HANDOVER_MAP, |page| {
            let third = MapEntry::read_from_prefix(&page.bytes[2 * 24..]).unwrap().0;
            let want = (OWN_REGION.start, OWN_REGION.bytes(), KIND_RESERVED);
            assert_eq!((third.base, third.bytes, third.kind), want);
        });
        machine.page(SECRETS_COPY, |page| {
            assert_eq!(page.bytes[0x15c], 2, "guest VMPL");
        });
        machine.page(CPUID_COPY, |page| {
            assert_eq!(page.bytes[43] & 0x10, 0x10, "SVSM present");
        });
        let last = START_PAGE_TABLES + (START_TABLE_PAGES - 1) * PAGE_BYTES;
        machine.page(last, |page| {
            assert_eq!(page.bytes[4088..], 0x0008_0000_ffe0_00e3_u64.to_le_bytes());
        });
        let left_alone = BootBlock {
            ram_mode: RAM_FIRMWARE,
            ..block
        };
        assert_eq!(write(&left_alone).flags, 0);
    }
}
