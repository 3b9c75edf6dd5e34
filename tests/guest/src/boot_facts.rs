// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the guest was started with: hand-over page, secrets copy and CPUID copy, checked once.
//!
//! All three lie in private memory that VMPL0 wrote, so they are trusted; the checks find a
//! paravisor and a guest that do not fit together (SVSM specification, section 2).

use paravisor::handover::{
    FLAG_RAM_ACCEPTED, Handover, KIND_RESERVED, KIND_USABLE, MAGIC, MapEntry, VERSION,
};
use snp::address::PAGE_SIZE;
use snp::cpuid::{CpuidPage, LEAF_ENCRYPTION, SVSM_PRESENT};
use snp::secrets::SecretsPage;

use crate::arena::Range;

/// Core-protocol version the guest needs.
const CORE_VERSION: u32 = 1;

/// What does not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BootError {
    /// Magic, version or an unknown flag of the hand-over page.
    HandoverFormat,
    /// A map entry is misaligned, empty, unsorted, overlapping or of an unknown kind.
    MemoryMap,
    /// The payload's range is not what the guest was linked for.
    Payload,
    /// The secrets copy names no SVSM, another VMPL or an old core protocol.
    Secrets,
    /// Secrets copy and hand-over page name different calling areas.
    CallingArea,
    /// A key of a more privileged VMPL was left in the secrets copy.
    KeyLeak,
    /// No C-bit position, an impossible one, or the SVSM is not announced.
    Cpuid,
}

/// The checked facts.
#[derive(Debug, Clone)]
pub struct BootFacts<'a> {
    /// The C-bit in a page-table entry.
    pub c_bit_mask: u64,
    /// RAM is validated already.
    pub ram_accepted: bool,
    /// The boot vCPU's calling area.
    pub calling_area: u64,
    /// Memory of the paravisor.
    pub paravisor: Range,
    /// The guest's own image.
    pub payload: Range,
    /// The memory map.
    map: &'a [MapEntry],
}

impl<'a> BootFacts<'a> {
    /// Checks the three pages and the memory map; `linked` is the range the guest's image occupies.
    ///
    /// # Errors
    /// The first thing that does not fit.
    pub fn check(
        handover: &Handover,
        map: &'a [MapEntry],
        secrets: &SecretsPage,
        cpuid: &CpuidPage,
        linked: Range,
    ) -> Result<Self, BootError> {
        if handover.magic != MAGIC
            || handover.version != VERSION
            || handover.flags & !FLAG_RAM_ACCEPTED != 0
        {
            return Err(BootError::HandoverFormat);
        }
        check_map(map)?;
        let payload = Range::new(handover.payload_start, handover.payload_end);
        if payload.start > linked.start || payload.end < linked.end {
            return Err(BootError::Payload);
        }
        check_secrets(handover, secrets)?;
        Ok(Self {
            c_bit_mask: c_bit_mask(cpuid).ok_or(BootError::Cpuid)?,
            ram_accepted: handover.flags & FLAG_RAM_ACCEPTED != 0,
            calling_area: handover.calling_area_gpa,
            paravisor: Range::of_bytes(secrets.svsm_base, secrets.svsm_size)
                .ok_or(BootError::Secrets)?,
            payload,
            map,
        })
    }

    /// RAM the guest may use, its own image included.
    pub fn usable(&self) -> impl Iterator<Item = Range> + '_ {
        self.map
            .iter()
            .filter(|entry| entry.kind == KIND_USABLE)
            .filter_map(|entry| Range::of_bytes(entry.base, entry.bytes))
    }

    /// The longest part of usable RAM below `limit` that does not touch the payload.
    #[must_use]
    pub fn largest_free(&self, limit: u64) -> Range {
        let mut largest = Range::new(0, 0);
        for range in self.usable() {
            let below = Range::new(range.start, range.end.min(self.payload.start));
            let above = Range::new(range.start.max(self.payload.end), range.end);
            for part in [below, above] {
                // Page 0 stays out: a null pointer shall not be memory.
                let part = Range::new(part.start.max(PAGE_SIZE), part.end.min(limit));
                if part.bytes() > largest.bytes() {
                    largest = part;
                }
            }
        }
        largest
    }
}

/// Sorted, apart, whole pages, known kinds.
fn check_map(map: &[MapEntry]) -> Result<(), BootError> {
    if map.is_empty() {
        return Err(BootError::MemoryMap);
    }
    let mut free_from = 0;
    for entry in map {
        let range = Range::of_bytes(entry.base, entry.bytes).ok_or(BootError::MemoryMap)?;
        if range.start < free_from
            || range.bytes() == 0
            || !range.start.is_multiple_of(PAGE_SIZE)
            || !range.end.is_multiple_of(PAGE_SIZE)
            || ![KIND_USABLE, KIND_RESERVED].contains(&entry.kind)
        {
            return Err(BootError::MemoryMap);
        }
        free_from = range.end;
    }
    Ok(())
}

fn check_secrets(handover: &Handover, secrets: &SecretsPage) -> Result<(), BootError> {
    let vmpl = paravisor::layout::GUEST_VMPL;
    if secrets.svsm_size == 0
        || secrets.svsm_guest_vmpl != vmpl
        || secrets.svsm_max_version < CORE_VERSION
    {
        return Err(BootError::Secrets);
    }
    let area = handover.calling_area_gpa;
    if secrets.svsm_calling_area != area || area == 0 || !area.is_multiple_of(PAGE_SIZE) {
        return Err(BootError::CallingArea);
    }
    let lower_keys = secrets.vmpck.iter().take(usize::from(vmpl));
    if lower_keys.flatten().any(|byte| *byte != 0) {
        return Err(BootError::KeyLeak);
    }
    Ok(())
}

/// The C-bit by the CPUID copy, where it can be in a page-table entry; `None` as well when the copy
/// does not announce the SVSM.
fn c_bit_mask(cpuid: &CpuidPage) -> Option<u64> {
    let announced = cpuid.find(LEAF_ENCRYPTION, 0)?.eax & SVSM_PRESENT != 0;
    let position = cpuid.c_bit_position()?;
    (announced && (32..=51).contains(&position)).then(|| 1 << position)
}

#[cfg(test)]
mod tests {
    use super::*;
    use snp::cpuid::CpuidEntry;
    use zerocopy::FromZeros;

    const LINKED: Range = Range::new(0x0100_0000, 0x0110_0000);

    type Map = [MapEntry; 3];

    fn pages() -> (Handover, Map, SecretsPage, CpuidPage) {
        let mut handover = Handover::new();
        handover.calling_area_gpa = 0x0080_3000;
        (handover.payload_start, handover.payload_end) = (LINKED.start, LINKED.end);
        let mut map = Map::default();
        let kinds = [KIND_USABLE, KIND_RESERVED, KIND_USABLE];
        for (index, kind) in kinds.into_iter().enumerate() {
            let (base, bytes) = [
                (0, 0x8_0000),
                (0x40_0000, 0x50_0000),
                (0x90_0000, 0x200_0000),
            ][index];
            map[index] = MapEntry {
                base,
                bytes,
                kind,
                reserved: 0,
            };
        }
        let mut secrets = SecretsPage::new_zeroed();
        secrets.svsm_base = 0x40_0000;
        secrets.svsm_size = 0x40_0000;
        secrets.svsm_calling_area = 0x0080_3000;
        secrets.svsm_max_version = 1;
        secrets.svsm_guest_vmpl = 2;
        let mut cpuid = CpuidPage::new_zeroed();
        cpuid.count = 1;
        cpuid.entries[0] = CpuidEntry {
            eax_in: LEAF_ENCRYPTION,
            eax: SVSM_PRESENT,
            ebx: 51,
            ..CpuidEntry::default()
        };
        (handover, map, secrets, cpuid)
    }

    fn check(
        change: impl Fn(&mut Handover, &mut SecretsPage, &mut CpuidPage),
    ) -> Option<BootError> {
        let (mut handover, map, mut secrets, mut cpuid) = pages();
        change(&mut handover, &mut secrets, &mut cpuid);
        BootFacts::check(&handover, &map, &secrets, &cpuid, LINKED).err()
    }

    fn check_map(change: impl Fn(&mut Map)) -> Option<BootError> {
        let (handover, mut map, secrets, cpuid) = pages();
        change(&mut map);
        BootFacts::check(&handover, &map, &secrets, &cpuid, LINKED).err()
    }

    #[test]
    fn good_pages_give_the_facts() {
        let (handover, map, secrets, cpuid) = pages();
        let facts = BootFacts::check(&handover, &map, &secrets, &cpuid, LINKED);
        let facts = facts.expect("good pages");
        assert_eq!(facts.c_bit_mask, 1 << 51);
        assert!(!facts.ram_accepted);
        assert_eq!(facts.usable().count(), 2);
        // The largest hole is behind the payload; a limit can move it.
        assert_eq!(
            facts.largest_free(u64::MAX),
            Range::new(LINKED.end, 0x290_0000)
        );
        assert_eq!(
            facts.largest_free(LINKED.end),
            Range::new(0x90_0000, LINKED.start)
        );
    }

    #[test]
    fn each_misfit_has_its_name() {
        assert_eq!(check(|_, _, _| ()), None);
        assert_eq!(
            check(|h, _, _| h.magic[0] = 0),
            Some(BootError::HandoverFormat)
        );
        assert_eq!(
            check(|h, _, _| h.flags = 2),
            Some(BootError::HandoverFormat)
        );
        let wrong_map = Some(BootError::MemoryMap);
        assert_eq!(check_map(|map| map[1].base = 0x1000), wrong_map);
        assert_eq!(check_map(|map| map[1].bytes = 0), wrong_map);
        assert_eq!(check_map(|map| map[2].kind = 3), wrong_map);
        assert_eq!(check_map(|map| map[2].bytes = u64::MAX - 0xfff), wrong_map);
        let (handover, _, secrets, cpuid) = pages();
        let none = BootFacts::check(&handover, &[], &secrets, &cpuid, LINKED);
        assert_eq!(none.err(), wrong_map);
        assert_eq!(
            check(|h, _, _| h.payload_end -= 1),
            Some(BootError::Payload)
        );
        assert_eq!(check(|_, s, _| s.svsm_size = 0), Some(BootError::Secrets));
        assert_eq!(
            check(|_, s, _| s.svsm_guest_vmpl = 1),
            Some(BootError::Secrets)
        );
        assert_eq!(
            check(|_, s, _| s.svsm_calling_area += 8),
            Some(BootError::CallingArea)
        );
        assert_eq!(
            check(|_, s, _| s.vmpck[1][31] = 1),
            Some(BootError::KeyLeak)
        );
        assert_eq!(check(|_, s, _| s.vmpck[2][0] = 1), None);
        assert_eq!(
            check(|_, _, c| c.entries[0].ebx = 20),
            Some(BootError::Cpuid)
        );
        assert_eq!(
            check(|_, _, c| c.entries[0].eax = 0),
            Some(BootError::Cpuid)
        );
        assert_eq!(check(|_, _, c| c.count = 0), Some(BootError::Cpuid));
    }
}
