// SPDX-License-Identifier: MIT OR Apache-2.0
//! The ACPI table that lists processors and interrupt controllers (ACPI 6.5, 5.2.12).
//!
//! It is made at boot, because the processors are the VMM's choice; no byte of it comes from the host
//! but their checked identifiers.

use crate::layout::PageBytes;
use crate::termination::Reason;

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

/// A table that grows in a page.
struct Table {
    page: PageBytes,
    length: usize,
}

impl Table {
    fn push(&mut self, bytes: &[u8]) -> Result<(), Reason> {
        let end = self.length + bytes.len();
        self.page
            .get_mut(self.length..end)
            .ok_or(Reason::HandoverMap)?
            .copy_from_slice(bytes);
        self.length = end;
        Ok(())
    }

    /// Sets length and checksum.
    fn finish(mut self) -> Result<PageBytes, Reason> {
        let length = u32::try_from(self.length).map_err(|_| Reason::HandoverMap)?;
        if let Some(field) = self.page.get_mut(4..8) {
            field.copy_from_slice(&length.to_le_bytes());
        }
        let sum = self
            .page
            .iter()
            .fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
        if let Some(field) = self.page.get_mut(9) {
            *field = sum.wrapping_neg();
        }
        Ok(self.page)
    }
}

/// The page with the table for the processors with these APIC identifiers, by number.
///
/// # Errors
/// [`Reason::HandoverMap`] when they do not fit.
pub fn madt(apic_ids: &[u32]) -> Result<PageBytes, Reason> {
    let mut table = Table {
        page: [0; 4096],
        length: 0,
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
    for (number, apic_id) in (0_u32..).zip(apic_ids) {
        match (u8::try_from(number), u8::try_from(*apic_id)) {
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
    use super::madt;

    #[test]
    fn the_table_lists_every_processor_and_adds_up() {
        for cpus in [1_u8, 2, 8, 64] {
            let ids: Vec<u32> = (0..u32::from(cpus)).map(|number| 2 * number).collect();
            let page = madt(&ids).unwrap();
            let length = usize::from(u16::from_le_bytes([page[4], page[5]]));
            assert_eq!(length, 44 + 8 * usize::from(cpus) + 12 + 20 + 6);
            let sum = page[..length]
                .iter()
                .fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
            assert_eq!(sum, 0, "checksum");
            assert!(page[length..].iter().all(|byte| *byte == 0));
            assert_eq!(&page[..4], b"APIC");
            let mut entries = &page[44..length];
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
        let every: Vec<u32> = (0..600).collect();
        assert!(madt(&every).is_err(), "more than a page");
    }

    #[test]
    fn long_identifiers_get_long_entries() {
        let page = madt(&[0, 0xff, 300]).unwrap();
        assert_eq!(page[44..52], [0, 8, 0, 0, 1, 0, 0, 0]);
        assert_eq!(page[52..60], [9, 16, 0, 0, 0xff, 0, 0, 0]);
        assert_eq!(page[60..68], [1, 0, 0, 0, 1, 0, 0, 0]);
        assert_eq!(page[68..76], [9, 16, 0, 0, 0x2c, 1, 0, 0]);
        assert_eq!(page[76..84], [1, 0, 0, 0, 2, 0, 0, 0]);
    }
}
