// SPDX-License-Identifier: MIT OR Apache-2.0
//! The ACPI table that lists processors and interrupt controllers (ACPI 6.5, 5.2.12).
//!
//! It is made at boot, because the processors are the VMM's choice; no byte of it comes from the host
//! but their checked identifiers.

use crate::apic_ids::{ApicIds, ProcessorId};
use crate::layout::{MADT_BYTES, PageBytes};
use crate::termination::Reason;

/// Where a table says how long it is, and the byte that makes it add up to 0.
const LENGTH: u64 = 4;
const CHECKSUM: u64 = 9;
/// Address of the local APICs.
const LOCAL_APIC: u32 = 0xfee0_0000;
/// Address of the I/O APIC.
const IO_APIC: u32 = 0xfec0_0000;
/// `PCAT_COMPAT`: the machine also has the two old interrupt controllers.
const HAS_8259: u32 = 1;
/// The processor is there.
const ENABLED: u32 = 1;
/// Interrupt flags: active high, level triggered.
const LEVEL_HIGH: u16 = 0b11_01;
/// Interrupt flags: as the bus has it.
const AS_THE_BUS: u16 = 0;
/// Interrupt of ACPI events.
const ACPI_INTERRUPT: u8 = 9;

/// Names of the maker and the table, at offset 10 of every table of ours.
pub const OEM_ID: [u8; 6] = *b"SVSMSW";
/// Name of the table model.
pub const OEM_TABLE_ID: [u8; 8] = *b"PARAVISR";

/// A table that grows page by page.
struct Table<P> {
    /// Where it begins.
    base: u64,
    /// Writes bytes that are in one page.
    put: P,
    /// What is written of the page in which it ends so far.
    page: PageBytes,
    length: usize,
    sum: u8,
}

impl<P: Fn(u64, &[u8]) -> Result<(), Reason>> Table<P> {
    fn push(&mut self, bytes: &[u8]) -> Result<(), Reason> {
        for byte in bytes {
            let at = self.length % self.page.len();
            if let Some(slot) = self.page.get_mut(at) {
                *slot = *byte;
            }
            self.sum = self.sum.wrapping_add(*byte);
            self.length += 1;
            if self.length.is_multiple_of(self.page.len()) {
                self.put_page(self.length - self.page.len())?;
            }
        }
        Ok(())
    }

    /// Writes the page and begins the next one.
    fn put_page(&mut self, offset: usize) -> Result<(), Reason> {
        if offset >= MADT_BYTES {
            return Err(Reason::HandoverMap);
        }
        (self.put)(self.base + offset as u64, &self.page)?;
        self.page.fill(0);
        Ok(())
    }

    /// Writes the rest, length and checksum.
    fn finish(mut self) -> Result<(), Reason> {
        let used = self.length % self.page.len();
        if used != 0 {
            self.put_page(self.length - used)?;
        }
        let length = u32::try_from(self.length).map_err(|_| Reason::HandoverMap)?;
        let length = length.to_le_bytes();
        (self.put)(self.base + LENGTH, &length)?;
        let sum = length
            .iter()
            .fold(self.sum, |sum, byte| sum.wrapping_add(*byte));
        (self.put)(self.base + CHECKSUM, &[sum.wrapping_neg()])
    }
}

/// Writes the table for these processors to the pages at `base`. `put` writes bytes that are in one page.
///
/// # Errors
/// [`Reason::HandoverMap`] when they do not fit, or what `put` returns.
pub fn madt(
    processors: ApicIds<'_>,
    base: u64,
    put: impl Fn(u64, &[u8]) -> Result<(), Reason>,
) -> Result<(), Reason> {
    let mut table = Table {
        base,
        put,
        page: [0; 4096],
        length: 0,
        sum: 0,
    };
    // Length and checksum follow.
    table.push(b"APIC\0\0\0\0")?;
    table.push(&[5, 0])?;
    table.push(&OEM_ID)?;
    table.push(&OEM_TABLE_ID)?;
    table.push(&1_u32.to_le_bytes())?;
    table.push(b"SVSM")?;
    table.push(&1_u32.to_le_bytes())?;
    table.push(&LOCAL_APIC.to_le_bytes())?;
    table.push(&HAS_8259.to_le_bytes())?;
    for ProcessorId { number, apic_id } in processors.iter() {
        match (u8::try_from(number), u8::try_from(apic_id)) {
            (Ok(number), Ok(apic_id)) if apic_id < 0xff => {
                table.push(&[0, 8, number, apic_id])?;
                table.push(&ENABLED.to_le_bytes())?;
            }
            // A long entry, for identifiers that only an x2APIC has.
            _ => {
                table.push(&[9, 16, 0, 0])?;
                table.push(&apic_id.to_le_bytes())?;
                table.push(&ENABLED.to_le_bytes())?;
                table.push(&number.to_le_bytes())?;
            }
        }
    }
    table.push(&[1, 12, 0, 0])?;
    table.push(&IO_APIC.to_le_bytes())?;
    table.push(&0_u32.to_le_bytes())?;
    // The timer is wired to input 2.
    for (source, input, flags) in [
        (0, 2_u32, AS_THE_BUS),
        (ACPI_INTERRUPT, u32::from(ACPI_INTERRUPT), LEVEL_HIGH),
    ] {
        table.push(&[2, 10, 0, source])?;
        table.push(&input.to_le_bytes())?;
        table.push(&flags.to_le_bytes())?;
    }
    // NMI of every processor: LINT1.
    table.push(&[4, 6, 0xff, 0, 0, 1])?;
    table.finish()
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::{MADT_BYTES, Reason};
    use crate::apic_ids::MAX_VCPUS;
    use crate::apic_ids::tests::apic_ids;

    /// The bytes of the table's pages; what nothing is written to keeps the pattern.
    fn madt(ids: &[u32]) -> Vec<u8> {
        let bytes = RefCell::new(vec![0xaa; MADT_BYTES]);
        super::madt(apic_ids(ids), 0x4000, |gpa, part| {
            let at = usize::try_from(gpa - 0x4000).unwrap();
            assert_eq!(at / 4096, (at + part.len() - 1) / 4096, "in one page");
            bytes.borrow_mut()[at..at + part.len()].copy_from_slice(part);
            Ok(())
        })
        .unwrap();
        bytes.into_inner()
    }

    #[test]
    fn the_table_lists_every_processor_and_adds_up() {
        for cpus in [1_u8, 2, 8, 64, 127] {
            let ids: Vec<u32> = (0..u32::from(cpus)).map(|number| 2 * number).collect();
            let pages = madt(&ids);
            let length = usize::from(u16::from_le_bytes([pages[4], pages[5]]));
            assert_eq!(length, 44 + 8 * usize::from(cpus) + 12 + 20 + 6);
            let sum = pages[..length]
                .iter()
                .fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
            assert_eq!(sum, 0, "checksum");
            assert!(pages[length..4096].iter().all(|byte| *byte == 0));
            assert_eq!(&pages[..4], b"APIC");
            let mut entries = &pages[44..length];
            let mut kinds = Vec::new();
            while let [kind, bytes, rest @ ..] = entries {
                if *kind == 0 {
                    let id = u8::try_from(kinds.len()).unwrap();
                    assert_eq!(rest[..3], [id, 2 * id, 1]);
                }
                kinds.push(*kind);
                entries = &entries[usize::from(*bytes)..];
            }
            let mut want = vec![0; usize::from(cpus)];
            want.extend([1, 2, 2, 4]);
            assert_eq!(kinds, want);
        }
    }

    #[test]
    fn a_long_table_goes_on_in_the_next_page() {
        for (ids, short) in [(0..512, 255), (0..MAX_VCPUS, 255), (255..767, 0)] {
            let ids: Vec<u32> = ids.collect();
            let mut pages = madt(&ids);
            let length = usize::from(u16::from_le_bytes([pages[4], pages[5]]));
            assert_eq!(length, 44 + 8 * short + 16 * (ids.len() - short) + 38);
            // As a reader of such tables has it: the lines are in the same form as the VMM's.
            let end = length.next_multiple_of(4096);
            assert!(pages[length..end].iter().all(|byte| *byte == 0));
            pages[end..].fill(0);
            let count = u32::try_from(ids.len()).unwrap();
            let read = crate::apic_ids::ApicIds::parse(&pages, count).unwrap();
            assert!(read.iter().map(|one| one.apic_id).eq(ids));
        }
    }

    #[test]
    fn a_table_that_has_no_room_is_refused() {
        // Long entries only: the other entries find no place behind the last of them.
        let ids: Vec<u32> = (255..255 + MAX_VCPUS).collect();
        let refused = super::madt(apic_ids(&ids), 0, |_, _| Ok(()));
        assert_eq!(refused, Err(Reason::HandoverMap));
    }

    #[test]
    fn long_identifiers_get_long_entries() {
        let page = madt(&[0, 0xff, 300]);
        assert_eq!(page[44..52], [0, 8, 0, 0, 1, 0, 0, 0]);
        assert_eq!(page[52..60], [9, 16, 0, 0, 0xff, 0, 0, 0]);
        assert_eq!(page[60..68], [1, 0, 0, 0, 1, 0, 0, 0]);
        assert_eq!(page[68..76], [9, 16, 0, 0, 0x2c, 1, 0, 0]);
        assert_eq!(page[76..84], [1, 0, 0, 0, 2, 0, 0, 0]);
    }
}
