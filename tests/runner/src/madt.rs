// SPDX-License-Identifier: MIT OR Apache-2.0
//! The ACPI MADT that some paravisors want as a parameter (ACPI 6.5, 5.2.12): one local APIC per vCPU.

/// Bytes of the ACPI table header and the two MADT fields behind it.
const HEADER: usize = 44;
/// Bytes of a processor local APIC structure.
const LOCAL_APIC: usize = 8;
/// Offset of the checksum byte, which makes the table sum to zero.
const CHECKSUM: usize = 9;

/// The table for `cpus` vCPUs with APIC IDs from 0; at most 255, as APIC IDs are bytes here.
pub fn madt(cpus: u32) -> Vec<u8> {
    let cpus = u8::try_from(cpus).unwrap_or(u8::MAX);
    let bytes = HEADER + usize::from(cpus) * LOCAL_APIC;
    let mut table = Vec::with_capacity(bytes);
    table.extend_from_slice(b"APIC");
    table.extend_from_slice(&u32::try_from(bytes).unwrap_or(0).to_le_bytes());
    table.extend_from_slice(&[5, 0]); // revision, checksum
    table.extend_from_slice(b"SWIOTLSNP-HOST"); // OEM ID (6 bytes), OEM table ID (8)
    table.extend_from_slice(&1_u32.to_le_bytes()); // OEM revision
    table.extend_from_slice(b"SWIO");
    table.extend_from_slice(&1_u32.to_le_bytes()); // creator revision
    table.extend_from_slice(&0xfee0_0000_u32.to_le_bytes()); // local APIC address
    table.extend_from_slice(&1_u32.to_le_bytes()); // PC-AT compatible: 8259s present
    for apic_id in 0..cpus {
        table.extend_from_slice(&[0, 8, apic_id, apic_id, 1, 0, 0, 0]);
    }
    let sum = table.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
    table[CHECKSUM] = sum.wrapping_neg();
    table
}

#[cfg(test)]
mod tests {
    use super::madt;

    #[test]
    fn length_and_checksum_are_right() {
        for cpus in [1, 2, 200] {
            let table = madt(cpus);
            assert_eq!(&table[..4], b"APIC");
            assert_eq!(table.len(), 44 + 8 * cpus as usize);
            let length = u32::from_le_bytes([table[4], table[5], table[6], table[7]]);
            assert_eq!(length as usize, table.len());
            assert_eq!(
                table.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte)),
                0
            );
        }
    }
}
