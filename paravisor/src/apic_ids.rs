// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which APIC identifiers the processors have: the VMM's ACPI table of processors (MADT; ACPI 6.5,
//! 5.2.12), an IGVM parameter.
//!
//! The VMM chooses the identifiers and may leave gaps. The table is its word and nothing more: it is
//! not measured, and an identifier says only whom the host is asked to start. What the paravisor
//! relies on is checked here: one entry for each vCPU, and none twice, so that no processor gets two
//! contexts. Everything else has a number, which is a place in this list.

use crate::general_parameters::check_zero;
use crate::layout::MADT_BYTES;
use crate::termination::Reason;

/// Where the table says how long it is, and what lies before its entries.
const LENGTH: usize = 4;
const HEADER_BYTES: usize = 44;
/// Entry of a processor with an 8-bit identifier, and its length.
const LOCAL_APIC: (u8, usize) = (0, 8);
/// Entry of a processor with a 32-bit identifier, and its length.
const LOCAL_X2APIC: (u8, usize) = (9, 16);
/// The processor is there. Others may be plugged in later: none of ours.
const ENABLED: u32 = 1;
/// Most vCPUs: as many as the parameter area has room for, however they are listed.
pub const MAX_VCPUS: u32 = 2045;
const _: () = assert!(MAX_VCPUS as usize == (MADT_BYTES - HEADER_BYTES) / LOCAL_X2APIC.1);
/// Identifiers that address all processors.
const BROADCAST: u32 = u32::MAX;
const BROADCAST_8_BITS: u32 = 0xff;

/// A processor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProcessorId {
    /// Its number, which chooses contexts, stacks and table slots: below the number of vCPUs.
    pub number: u32,
    /// Its APIC identifier, by which host and guest know it.
    pub apic_id: u32,
}

/// The APIC identifiers of all processors, by number: the VMM's table, checked, which nobody can change.
/// The boot processor is number 0: firmware lists it first (ACPI 6.5, 5.2.12.1).
#[derive(Debug, Clone, Copy)]
pub struct ApicIds<'a> {
    /// Entries of the table.
    entries: &'a [u8],
    count: u32,
}

impl<'a> ApicIds<'a> {
    /// The identifiers in the VMM's table, of which there have to be `vcpu_count`.
    ///
    /// # Errors
    /// [`Reason::MadtForm`], [`Reason::MadtProcessors`], or [`Reason::ParameterTail`].
    pub fn parse(table: &'a [u8], vcpu_count: u32) -> Result<Self, Reason> {
        let (entries, tail) = entries(table)?;
        let mut list = Self { entries, count: 0 };
        for apic_id in Identifiers(entries) {
            let apic_id = apic_id?;
            // Ends the search for a second one, too: it goes through the table for each processor.
            if list.count == vcpu_count || apic_id == BROADCAST || list.find(apic_id).is_some() {
                return Err(Reason::MadtProcessors);
            }
            list.count += 1;
        }
        check_zero(tail)?;
        if list.count == vcpu_count {
            Ok(list)
        } else {
            Err(Reason::MadtProcessors)
        }
    }

    /// The first `count` of them.
    #[must_use]
    pub fn first(self, count: u32) -> Self {
        let count = self.count.min(count);
        Self { count, ..self }
    }

    /// By number.
    pub fn iter(&self) -> impl Iterator<Item = ProcessorId> + 'a {
        let apic_ids = Identifiers(self.entries).flatten();
        (0..self.count)
            .zip(apic_ids)
            .map(|(number, apic_id)| ProcessorId { number, apic_id })
    }

    /// How many there are.
    #[must_use]
    pub const fn count(&self) -> u32 {
        self.count
    }

    /// The processor with this APIC identifier.
    #[must_use]
    pub fn find(&self, apic_id: u32) -> Option<ProcessorId> {
        self.iter().find(|processor| processor.apic_id == apic_id)
    }

    /// The boot processor.
    #[must_use]
    pub fn boot(&self) -> ProcessorId {
        self.iter().next().unwrap_or(ProcessorId {
            number: 0,
            apic_id: 0,
        })
    }
}

/// The identifiers in the entries of a table. The first fault ends it.
struct Identifiers<'a>(&'a [u8]);

impl Iterator for Identifiers<'_> {
    type Item = Result<u32, Reason>;

    fn next(&mut self) -> Option<Self::Item> {
        // Each round takes at least two bytes off the table.
        while !self.0.is_empty() {
            let found = self
                .entry()
                .and_then(|(kind, entry)| processor(kind, entry));
            match found {
                Ok(None) => {}
                Ok(Some(apic_id)) => return Some(Ok(apic_id)),
                Err(reason) => {
                    self.0 = &[];
                    return Some(Err(reason));
                }
            }
        }
        None
    }
}

impl<'a> Identifiers<'a> {
    /// Takes the next entry; gives its kind and all its bytes.
    fn entry(&mut self) -> Result<(u8, &'a [u8]), Reason> {
        let [kind, length, ..] = *self.0 else {
            return Err(Reason::MadtForm);
        };
        let length = usize::from(length);
        // The walk would never get past an entry of length 0 or 1.
        let (entry, rest) = (self.0.split_at_checked(length))
            .filter(|_| length >= 2)
            .ok_or(Reason::MadtForm)?;
        self.0 = rest;
        Ok((kind, entry))
    }
}

/// What lies behind the header of a table with signature, length and checksum as they should be, and
/// behind the table.
fn entries(table: &[u8]) -> Result<(&[u8], &[u8]), Reason> {
    let field = table.get(LENGTH..).and_then(<[u8]>::first_chunk);
    let length = u32::from_le_bytes(*field.ok_or(Reason::MadtForm)?);
    // A longer table was cut off by its parameter area.
    let (table, tail) = usize::try_from(length)
        .ok()
        .and_then(|length| table.split_at_checked(length))
        .ok_or(Reason::MadtForm)?;
    let sum = table.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
    if !table.starts_with(b"APIC") || sum != 0 {
        return Err(Reason::MadtForm);
    }
    let entries = table.get(HEADER_BYTES..).ok_or(Reason::MadtForm)?;
    Ok((entries, tail))
}

/// The identifier in the entry of a processor that is there.
fn processor(kind: u8, entry: &[u8]) -> Result<Option<u32>, Reason> {
    let word = |offset: usize| {
        let bytes = entry.get(offset..).and_then(<[u8]>::first_chunk);
        bytes
            .map(|bytes| u32::from_le_bytes(*bytes))
            .ok_or(Reason::MadtForm)
    };
    let (apic_id, flags) = match (kind, entry.len()) {
        LOCAL_APIC => {
            let apic_id = entry.get(3).map_or(BROADCAST, |id| u32::from(*id));
            let is_broadcast = apic_id == BROADCAST_8_BITS;
            (if is_broadcast { BROADCAST } else { apic_id }, word(4)?)
        }
        LOCAL_X2APIC => (word(4)?, word(8)?),
        (kind, _) if kind == LOCAL_APIC.0 || kind == LOCAL_X2APIC.0 => {
            return Err(Reason::MadtForm);
        }
        _ => return Ok(None),
    };
    Ok((flags & ENABLED != 0).then_some(apic_id))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::{ApicIds, MADT_BYTES, MAX_VCPUS, ProcessorId, Reason};

    /// What the parameter area holds.
    type Area = [u8; MADT_BYTES];

    /// A table with these bytes as its entries.
    fn table(entries: &[u8]) -> Area {
        let mut page = [0; MADT_BYTES];
        let length = 44 + entries.len();
        page[..4].copy_from_slice(b"APIC");
        page[4..8].copy_from_slice(&u32::try_from(length).unwrap().to_le_bytes());
        page[44..length].copy_from_slice(entries);
        sum(&mut page);
        page
    }

    fn sum(page: &mut Area) {
        page[9] = 0;
        let length = usize::from(u16::from_le_bytes([page[4], page[5]])).min(MADT_BYTES);
        let sum = page[..length].iter().fold(0_u8, |a, b| a.wrapping_add(*b));
        page[9] = sum.wrapping_neg();
    }

    /// Entries of processors with these identifiers; those above 254 are long ones.
    fn processors(ids: &[u32]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for id in ids {
            match u8::try_from(*id) {
                Ok(id) if id != 255 => bytes.extend([0, 8, 0, id, 1, 0, 0, 0]),
                _ => {
                    bytes.extend([9, 16, 0, 0]);
                    bytes.extend(id.to_le_bytes());
                    bytes.extend([1, 0, 0, 0, 0, 0, 0, 0]);
                }
            }
        }
        bytes
    }

    /// The list of these identifiers.
    pub(crate) fn apic_ids(ids: &[u32]) -> ApicIds<'static> {
        let count = u32::try_from(ids.len()).unwrap();
        let table = Box::leak(Box::new(table(&processors(ids))));
        ApicIds::parse(table, count).unwrap()
    }

    fn listed(list: ApicIds<'_>) -> Vec<u32> {
        list.iter().map(|processor| processor.apic_id).collect()
    }

    #[test]
    fn identifiers_may_have_gaps_and_be_long() {
        let list = apic_ids(&[4, 0, 300]);
        assert_eq!((listed(list), list.count()), (vec![4, 0, 300], 3));
        let id = |number, apic_id| ProcessorId { number, apic_id };
        assert_eq!(list.boot(), id(0, 4));
        assert_eq!(list.find(300), Some(id(2, 300)));
        assert_eq!(list.find(1), None, "a number is no identifier");
        let one = list.first(1);
        assert_eq!((one.count(), one.find(0)), (1, None));
        assert_eq!(list.first(9).count(), 3);
    }

    #[test]
    fn other_entries_and_absent_processors_are_passed_over() {
        let mut entries = vec![1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        entries.extend(processors(&[2]));
        entries.extend([0, 8, 1, 2, 0, 0, 0, 0]); // not there, whatever its identifier
        entries.extend([0xff, 2]);
        let table = table(&entries);
        let list = ApicIds::parse(&table, 1).unwrap();
        assert_eq!(listed(list), [2]);
    }

    #[test]
    fn hostile_tables_end_the_boot() {
        let good = table(&processors(&[0, 2]));
        let form = Some(Reason::MadtForm);
        let refusal = |page: &Area| ApicIds::parse(page, 2).err();
        assert_eq!(refusal(&good), None);
        assert_eq!(refusal(&[0; MADT_BYTES]), form, "no table at all");
        assert_eq!(refusal(&[0xff; MADT_BYTES]), form);
        let changed = |change: fn(&mut Area)| {
            let mut page = good;
            change(&mut page);
            sum(&mut page);
            refusal(&page)
        };
        assert_eq!(changed(|page| page[0] = b'X'), form, "signature");
        for length in [0_u32, 8, 43, 0x8001, u32::MAX] {
            let mut page = good;
            page[4..8].copy_from_slice(&length.to_le_bytes());
            sum(&mut page);
            assert_eq!(refusal(&page), form, "length {length}");
        }
        let mut page = good;
        page[48] ^= 1;
        assert_eq!(refusal(&page), form, "checksum");
        for length in [0, 1, 7, 9, 255] {
            let mut page = good;
            page[53] = length;
            sum(&mut page);
            assert_eq!(refusal(&page), form, "an entry of {length} bytes");
        }
        assert_eq!(changed(|page| page[52] = 9), form, "a short long entry");
        // Half an entry at the end.
        assert_eq!(
            refusal(&table(&[&processors(&[0, 2])[..], &[7]].concat())),
            form
        );
        // Something behind the table, at the nearest and the farthest.
        for byte in [60, 4096, MADT_BYTES - 1] {
            let mut page = good;
            page[byte] = 1;
            assert_eq!(refusal(&page), Some(Reason::ParameterTail), "byte {byte}");
        }
        // A length of 0 does not hold the boot up, whatever kind of entry has it.
        assert_eq!(refusal(&table(&[3, 0, 3, 0])), form);
    }

    #[test]
    fn every_vcpu_is_listed_once() {
        let parse = |ids: &[u32], count| {
            ApicIds::parse(&table(&processors(ids)), count).map(|list| list.count())
        };
        let wrong = Some(Reason::MadtProcessors);
        assert_eq!(parse(&[0], 2).err(), wrong, "one is missing");
        assert_eq!(parse(&[0, 2, 4], 2).err(), wrong, "one too many");
        assert_eq!(parse(&[], 1).err(), wrong);
        assert_eq!(parse(&[2, 2], 2).err(), wrong, "twice");
        assert_eq!(parse(&[u32::MAX], 1).err(), wrong, "everybody");
        let long_form = [9, 16, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0];
        let mixed = table(&[&processors(&[2])[..], &long_form].concat());
        assert_eq!(
            ApicIds::parse(&mixed, 2).err(),
            wrong,
            "twice, in two forms"
        );
        let broadcast = table(&[0, 8, 0, 0xff, 1, 0, 0, 0]);
        assert_eq!(ApicIds::parse(&broadcast, 1).err(), wrong);
    }

    #[test]
    fn as_many_processors_as_the_area_has_room_for_in_either_form() {
        let few = u32::from(u8::MAX);
        for (first, count) in [(0, 512), (few, 512), (few, MAX_VCPUS)] {
            let ids: Vec<u32> = (first..first + count).collect();
            let list = apic_ids(&ids);
            assert_eq!((list.count(), listed(list)), (count, ids.clone()));
            let last = *ids.last().unwrap();
            let number = count - 1;
            let found = ProcessorId {
                number,
                apic_id: last,
            };
            assert_eq!(list.find(last), Some(found));
            assert_eq!(list.find(last + 1), None);
            // The last one once more, or one that is not counted.
            let mut twice = ids.clone();
            *twice.last_mut().unwrap() = first;
            let wrong = Some(Reason::MadtProcessors);
            let parse = |ids: &[u32], count| ApicIds::parse(&table(&processors(ids)), count).err();
            assert_eq!(parse(&twice, count), wrong);
            assert_eq!(parse(&ids, count - 1), wrong);
            assert_eq!(parse(&ids, count + 1), wrong);
        }
    }
}
