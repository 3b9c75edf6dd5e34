// SPDX-License-Identifier: MIT OR Apache-2.0
//! The ACPI tables of the guest. They are ours and measured: byte code (AML) from the host would run in
//! the guest's kernel.
//!
//! They describe what every QEMU q35 machine has after its firmware ran: the PCI host bridge with its
//! windows and configuration space, power management at port 0x600, one interrupt controller. The list
//! of processors is a page of its own that the paravisor writes.

use acpi_tables::aml::{
    AddressSpace, AddressSpaceCacheable, Device, EISAName, IO, Name, Package, ResourceTemplate,
    Scope,
};
use acpi_tables::facs::FACS;
use acpi_tables::fadt::{FADTBuilder, Flags};
use acpi_tables::gas::{AccessSize, AddressSpace as Space, GAS};
use acpi_tables::mcfg::MCFG;
use acpi_tables::rsdp::Rsdp;
use acpi_tables::sdt::Sdt;
use acpi_tables::xsdt::XSDT;
use acpi_tables::{Aml, AmlSink};
use paravisor::layout;
use paravisor::linux::madt::{OEM_ID, OEM_TABLE_ID};

/// Configuration space of the PCI machine (ECAM), as SeaBIOS places it on q35.
const ECAM: u64 = 0xb000_0000;
/// Last PCI bus. A kernel that finds configuration space for more buses looks for devices on all of
/// them through ports, which for 256 buses are 16,000 exits.
const LAST_BUS: u8 = 15;
/// Interrupt of ACPI events.
const SCI: u16 = 9;
/// Ports of power management: events, control, timer, general-purpose events.
const PM1A_EVENT: u32 = 0x600;
const PM1A_CONTROL: u32 = 0x604;
const PM_TIMER: u32 = 0x608;
const GPE0: u32 = 0x620;
/// Port and value that reset the machine.
const RESET_PORT: u64 = 0xcf9;
const RESET_VALUE: u8 = 0x0f;
/// There are devices at their old places, but no keyboard controller worth looking at.
const LEGACY_DEVICES: u16 = 1;

/// Bytes of the tables, without the pages behind them.
pub const TABLES_BYTES: usize = 0x2000;
const _: () = assert!(layout::ACPI_TABLES + TABLES_BYTES as u64 == layout::ACPI_MADT);

/// The tables, to be placed at [`layout::ACPI_TABLES`]: root pointer, XSDT, FADT, FACS, MCFG, DSDT.
pub fn acpi_tables() -> [u8; TABLES_BYTES] {
    let mut area = Area {
        bytes: [0; TABLES_BYTES],
        used: 64,
    };
    let facs = area.add(&FACS::new());
    let dsdt = area.add(&dsdt());
    let fadt = area.add(&fadt(facs, dsdt));
    let mut mcfg = MCFG::new(OEM_ID, OEM_TABLE_ID, 1);
    mcfg.add_ecam(ECAM, 0, 0, LAST_BUS);
    let mcfg = area.add(&mcfg);
    let mut root = XSDT::new(OEM_ID, OEM_TABLE_ID, 1);
    for table in [fadt, layout::ACPI_MADT, mcfg] {
        root.add_entry(table);
    }
    let root = area.add(&root);
    // The root pointer comes first, where the zero page points.
    area.used = 0;
    area.add(&Rsdp::new(OEM_ID, root));
    area.bytes
}

/// Where the tables go, one behind the other.
struct Area {
    bytes: [u8; TABLES_BYTES],
    used: usize,
}

impl Area {
    /// Places a table at the next multiple of 64 bytes and returns its address. The tables are made of
    /// constants; one that did not fit would fail every test.
    fn add(&mut self, table: &dyn Aml) -> u64 {
        let mut bytes: Vec<u8> = Vec::new();
        table.to_aml_bytes(&mut bytes);
        let start = self.used.next_multiple_of(64);
        self.used = start + bytes.len();
        self.bytes[start..self.used].copy_from_slice(&bytes);
        layout::ACPI_TABLES + start as u64
    }
}

/// The low half of an address below 4 GiB.
fn low(address: u64) -> u32 {
    u32::try_from(address).unwrap_or(0)
}

fn fadt(facs: u64, dsdt: u64) -> impl Aml {
    let port = |bits, size, address: u32| GAS::new(Space::SystemIo, bits, 0, size, address.into());
    let mut table = FADTBuilder::new(OEM_ID, OEM_TABLE_ID, 1)
        .firmware_ctrl_32(low(facs))
        .dsdt_32(low(dsdt))
        .gpe_info(GPE0, 0, 16, 0, 0)
        .flag(Flags::Wbinvd)
        .flag(Flags::ProcC1)
        // There are no such buttons among the fixed events.
        .flag(Flags::PwrButton)
        .flag(Flags::SlpButton)
        .flag(Flags::FixRtc)
        .flag(Flags::ResetRegSup);
    // A command port of 0 says that the machine is in ACPI mode already.
    table.smi_cmd = 0.into();
    table.sci_int = SCI.into();
    table.pm1a_evt_blk = PM1A_EVENT.into();
    table.pm1_evt_len = 4;
    table.pm1a_cnt_blk = PM1A_CONTROL.into();
    table.pm1_cnt_len = 2;
    table.pm_tmr_blk = PM_TIMER.into();
    table.pm_tmr_len = 4;
    table.x_pm1a_evt_blk = port(32, AccessSize::WordAccess, PM1A_EVENT);
    table.x_pm1a_cnt_blk = port(16, AccessSize::WordAccess, PM1A_CONTROL);
    table.x_pm_tmr_blk = port(32, AccessSize::DwordAccess, PM_TIMER);
    table.x_gpe0_blk = port(128, AccessSize::ByteAccess, GPE0);
    // Neither C2 nor C3.
    table.p_lvl2_lat = 0xfff.into();
    table.p_lvl3_lat = 0xfff.into();
    table.iapc_boot_arch = LEGACY_DEVICES.into();
    table.reset_reg = GAS::new(Space::SystemIo, 8, 0, AccessSize::ByteAccess, RESET_PORT);
    table.reset_value = RESET_VALUE;
    table.finalize()
}

/// The byte code: the host bridge and how to switch the machine off.
fn dsdt() -> Sdt {
    let memory32 = |min, max| {
        AddressSpace::<u32>::new_memory(AddressSpaceCacheable::NotCacheable, true, min, max, None)
    };
    let memory64 = |min, max| {
        AddressSpace::<u64>::new_memory(AddressSpaceCacheable::Cacheable, true, min, max, None)
    };
    let (buses, configuration) = (
        AddressSpace::<u16>::new_bus_number(0, LAST_BUS.into()),
        IO::new(0xcf8, 0xcf8, 1, 8),
    );
    let ports =
        [(0, 0xcf7), (0xd00, 0xffff)].map(|(min, max)| AddressSpace::<u16>::new_io(min, max, None));
    // Around the configuration space, below the interrupt controllers.
    let low = [(0x8000_0000, 0xafff_ffff), (0xc000_0000, 0xfebf_ffff)]
        .map(|(min, max)| memory32(min, max));
    // Behind all RAM, and where firmware puts large regions of a machine with 52 address bits.
    let high = [
        (0x40_0000_0000, 0x7f_ffff_ffff),
        (0x3800_0000_0000, 0x387f_ffff_ffff),
    ]
    .map(|(min, max)| memory64(min, max));
    let resources = ResourceTemplate::new(vec![
        &buses,
        &configuration,
        &ports[0],
        &ports[1],
        &low[0],
        &low[1],
        &high[0],
        &high[1],
    ]);
    let (express, plain) = (EISAName::new("PNP0A08"), EISAName::new("PNP0A03"));
    let kind = Name::new("_HID".into(), &express);
    let compatible = Name::new("_CID".into(), &plain);
    let number = Name::new("_UID".into(), &0_u8);
    let segment = Name::new("_SEG".into(), &0_u8);
    let first_bus = Name::new("_BBN".into(), &0_u8);
    let current = Name::new("_CRS".into(), &resources);
    let bridge = Device::new(
        "PCI0".into(),
        vec![&kind, &compatible, &number, &segment, &first_bus, &current],
    );
    let system = Scope::new("\\_SB_".into(), vec![&bridge]);
    let off = Package::new(vec![&0_u8, &0_u8, &0_u8, &0_u8]);
    let off = Name::new("_S5_".into(), &off);

    let mut table = Sdt::new(*b"DSDT", 36, 2, OEM_ID, OEM_TABLE_ID, 1);
    let mut code: Vec<u8> = Vec::new();
    system.to_aml_bytes(&mut code);
    off.to_aml_bytes(&mut code);
    table.vec(&code);
    table
}

#[cfg(test)]
mod tests {
    use super::{TABLES_BYTES, acpi_tables, layout};

    fn sum(bytes: &[u8]) -> u8 {
        bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
    }

    fn u32_at(bytes: &[u8], offset: usize) -> usize {
        u32::from_le_bytes(bytes[offset..offset + 4].try_into().expect("4 bytes")) as usize
    }

    /// The table at an address, its checksum verified.
    fn table(area: &[u8], gpa: u64) -> &[u8] {
        let start = usize::try_from(gpa - layout::ACPI_TABLES).expect("below 8 KiB");
        let length = u32_at(area, start + 4);
        let table = &area[start..start + length];
        assert!(table.starts_with(b"FACS") || sum(table) == 0, "{table:x?}");
        table
    }

    /// Length of an AML package and the bytes that encode it (ACPI 6.5, 20.2.4).
    fn package_length(code: &[u8]) -> (usize, usize) {
        let more = usize::from(code[0] >> 6);
        if more == 0 {
            return (usize::from(code[0] & 0x3f), 1);
        }
        let high = (1..=more)
            .rev()
            .fold(0, |high, at| high << 8 | usize::from(code[at]));
        (high << 4 | usize::from(code[0] & 0xf), 1 + more)
    }

    #[test]
    fn every_table_is_found_and_adds_up() {
        let area = acpi_tables();
        assert_eq!(&area[..8], b"RSD PTR ");
        assert_eq!((sum(&area[..20]), sum(&area[..36])), (0, 0));
        let u64_at = |bytes: &[u8], at: usize| {
            u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"))
        };
        let root = table(&area, u64_at(&area, 24));
        assert_eq!((&root[..4], root.len()), (&b"XSDT"[..], 36 + 3 * 8));
        let entries: Vec<u64> = (0..3).map(|entry| u64_at(root, 36 + 8 * entry)).collect();
        assert_eq!(entries[1], layout::ACPI_MADT);
        let fadt = table(&area, entries[0]);
        assert_eq!(&fadt[..4], b"FACP");
        let facs = u32_at(fadt, 36) as u64;
        assert!(table(&area, facs).starts_with(b"FACS") && facs.is_multiple_of(64));
        assert_eq!(fadt[46], 9, "SCI");
        assert_eq!(u32_at(fadt, 48), 0, "SMI command port");
        let ports = [56, 64, 76, 80].map(|at| u32_at(fadt, at));
        assert_eq!(ports, [0x600, 0x604, 0x608, 0x620]);
        assert_eq!(
            (fadt[88], fadt[89], fadt[91], fadt[92]),
            (4, 2, 4, 16),
            "lengths"
        );
        let mcfg = table(&area, entries[2]);
        assert_eq!((&mcfg[..4], u64_at(mcfg, 44)), (&b"MCFG"[..], 0xb000_0000));

        let dsdt = table(&area, u32_at(fadt, 40) as u64);
        assert!(dsdt.starts_with(b"DSDT"));
        // Scope, then the name of the sleep state: their lengths fill the table.
        let code = &dsdt[36..];
        assert_eq!(code[0], 0x10);
        let (scope, encoding) = package_length(&code[1..]);
        assert_eq!(&code[1 + encoding..][..5], b"\\_SB_");
        let off = &code[1 + scope..];
        assert_eq!(&off[..5], b"\x08_S5_");
        assert_eq!(off[5], 0x12);
        assert_eq!(package_length(&off[6..]).0, off.len() - 6);
        let device = &code[1 + encoding + 5..];
        assert_eq!(&device[..2], b"\x5b\x82");
        let (length, _) = package_length(&device[2..]);
        assert_eq!(
            2 + length,
            1 + scope - (1 + encoding + 5),
            "the bridge fills the scope"
        );
    }

    #[test]
    fn the_windows_leave_the_configuration_space_alone() {
        let area = acpi_tables();
        let has = |bytes: &[u8]| area.windows(bytes.len()).any(|window| window == bytes);
        let pair = |min: u32, max: u32| [min.to_le_bytes(), max.to_le_bytes()].concat();
        assert!(has(&pair(0x8000_0000, 0xafff_ffff)));
        assert!(has(&pair(0xc000_0000, 0xfebf_ffff)));
        assert!(!has(&pair(0x8000_0000, 0xfebf_ffff)));
        assert_eq!(area.len(), TABLES_BYTES);
    }
}
