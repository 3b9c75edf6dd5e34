// SPDX-License-Identifier: MIT OR Apache-2.0
//! What firmware is told of the machine: QEMU's firmware configuration device (`docs/specs/fw_cfg`),
//! corrected.
//!
//! The device describes the machine that this host runs on: all of its RAM, and this host as the kernel
//! to boot. A VMM of an SNP guest describes the guest, so four things are answered here: the memory
//! map is one entry of RAM from address 0 on, there is no kernel, the processors are the guest's CPUs, and the
//! device has no DMA, by which a guest would reach this host's memory.

use core::mem::size_of;

use zerocopy::{Immutable, IntoBytes};

use crate::hardware::Devices;

/// Port of the item's number.
pub const SELECTOR: u16 = 0x510;
/// Port of the item's bytes, one after the other.
pub const DATA: u16 = 0x511;

/// Items: features, processors (how many there are and can be), kernel (sizes of kernel, initrd, command line and boot sector), list
/// of files.
const FEATURES: u16 = 0x01;
const PROCESSORS: [u16; 2] = [0x05, 0x0F];
const KERNEL: [u16; 4] = [0x08, 0x0B, 0x14, 0x17];
const FILES: u16 = 0x19;
/// First byte of [`FEATURES`]: DMA.
const FEATURE_DMA: u32 = 1 << 1;
/// Count of files, then for each: size, item, reserved, name; numbers are big endian.
const COUNT_BYTES: u32 = 4;
const FILE_BYTES: u32 = 64;
const NAME_OFFSET: u32 = 8;
const MEMORY_MAP: &[u8] = b"etc/e820\0";
/// More files than a machine has.
const MOST_FILES: u32 = 256;

/// The memory map: one entry (ACPI specification, 15).
#[derive(Clone, Copy, Debug, IntoBytes, Immutable)]
#[repr(C, packed)]
struct MapEntry {
    base: u64,
    bytes: u64,
    kind: u32,
}
const KIND_RAM: u32 = 1;

/// Where the device's list has the memory map.
#[derive(Clone, Copy, Debug)]
struct MapFile {
    item: u16,
    /// Offset of its size in the list.
    size_at: u32,
}

/// The item that is being read, and what is answered here.
#[derive(Clone, Copy, Debug, Default)]
pub struct FirmwareConfiguration {
    ram: u64,
    cpus: u32,
    map: Option<MapFile>,
    item: u16,
    offset: u32,
}

impl FirmwareConfiguration {
    /// Sets the size of the RAM that firmware is told of, and the guest's CPUs. Without RAM there is no firmware, and a guest
    /// sees the device as it is, but for CPUs and DMA.
    pub fn launch(&mut self, devices: &impl Devices, ram: u64, cpus: u32) {
        (self.ram, self.cpus) = (ram, cpus);
        self.map = if ram == 0 { None } else { find_map(devices) };
    }

    /// The guest selects an item.
    pub fn select(&mut self, value: u32) {
        let [low, high, ..] = value.to_le_bytes();
        (self.item, self.offset) = (u16::from_le_bytes([low, high]), 0);
    }

    /// The guest reads the next byte of the item, where the device has `byte`.
    pub fn read(&mut self, byte: u32) -> u32 {
        let offset = self.offset;
        self.offset = offset.saturating_add(1);
        let of = |bytes: &[u8], at: u32| {
            let byte = usize::try_from(at).ok().and_then(|at| bytes.get(at));
            byte.copied().map(u32::from)
        };
        match (self.item, self.map) {
            (FEATURES, _) if offset == 0 => byte & !FEATURE_DMA,
            (item, _) if PROCESSORS.contains(&item) => {
                of(&self.cpus.to_le_bytes(), offset).unwrap_or(0)
            }
            (item, _) if self.ram != 0 && KERNEL.contains(&item) => 0,
            (item, Some(map)) if item == map.item => {
                let entry = MapEntry {
                    base: 0,
                    bytes: self.ram,
                    kind: KIND_RAM,
                };
                of(entry.as_bytes(), offset).unwrap_or(0)
            }
            (FILES, Some(map)) => {
                let [.., a, b, c, d] = size_of::<MapEntry>().to_be_bytes();
                let at = offset.checked_sub(map.size_at);
                at.and_then(|at| of(&[a, b, c, d], at)).unwrap_or(byte)
            }
            _ => byte,
        }
    }
}

/// Looks the memory map up in the device's list of files.
fn find_map(devices: &impl Devices) -> Option<MapFile> {
    let byte = || devices.port_read(DATA, 1).to_le_bytes()[0];
    devices.port_write(SELECTOR, 2, u32::from(FILES));
    let count = u32::from_be_bytes([byte(), byte(), byte(), byte()]);
    for number in 0..count.min(MOST_FILES) {
        let head = [
            byte(),
            byte(),
            byte(),
            byte(),
            byte(),
            byte(),
            byte(),
            byte(),
        ];
        let [.., high, low, _, _] = head;
        let mut is_map = true;
        for position in 0..FILE_BYTES - NAME_OFFSET {
            let expected = usize::try_from(position)
                .ok()
                .and_then(|position| MEMORY_MAP.get(position));
            let found = byte();
            is_map &= expected.is_none_or(|expected| *expected == found);
        }
        if is_map {
            return Some(MapFile {
                item: u16::from_be_bytes([high, low]),
                size_at: COUNT_BYTES + number * FILE_BYTES,
            });
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use core::cell::Cell;
    use std::vec::Vec;

    use super::*;

    /// A device with two files.
    struct Device {
        item: Cell<u32>,
        offset: Cell<usize>,
    }

    impl Device {
        fn item(&self) -> Vec<u8> {
            let file = |size: u32, item: u16, name: &str| {
                let mut file = Vec::from(size.to_be_bytes());
                file.extend(item.to_be_bytes());
                file.extend([0; 2]);
                file.extend(name.as_bytes());
                file.resize(64, 0);
                file
            };
            match self.item.get() {
                1 => Vec::from([3, 0, 0, 0]),
                5 | 15 => Vec::from([3, 0]),
                8 => Vec::from([9; 4]),
                0x19 => [
                    Vec::from(2_u32.to_be_bytes()),
                    file(7, 0x20, "etc/e820x"),
                    file(60, 0x21, "etc/e820"),
                ]
                .concat(),
                0x21 => Vec::from([0xEE; 60]),
                _ => Vec::new(),
            }
        }
    }

    impl Devices for Device {
        fn port_read(&self, _port: u16, _bytes: u8) -> u32 {
            let at = self.offset.replace(self.offset.get() + 1);
            self.item().get(at).copied().map_or(0, u32::from)
        }

        fn port_write(&self, _port: u16, _bytes: u8, value: u32) {
            self.item.set(value);
            self.offset.set(0);
        }

        fn device_read(&self, _address: u64, _bytes: u8) -> u64 {
            0
        }

        fn device_write(&self, _address: u64, _bytes: u8, _value: u64) {}
    }

    /// What a guest with `ram` bytes for firmware reads of `item`.
    fn read(ram: u64, item: u32, count: usize) -> Vec<u8> {
        let device = Device {
            item: Cell::new(0),
            offset: Cell::new(0),
        };
        let mut configuration = FirmwareConfiguration::default();
        configuration.launch(&device, ram, 2);
        device.port_write(SELECTOR, 2, item);
        configuration.select(item);
        let mut byte = || {
            let byte = device.port_read(DATA, 1);
            configuration.read(byte).to_le_bytes()[0]
        };
        (0..count).map(|_| byte()).collect()
    }

    #[test]
    fn firmware_sees_one_run_of_ram_no_kernel_and_no_dma() {
        let map = read(0x2F00_0000, 0x21, 22);
        assert_eq!(map[..8], [0; 8]);
        assert_eq!(map[8..16], 0x2F00_0000_u64.to_le_bytes());
        assert_eq!(map[16..], [1, 0, 0, 0, 0, 0], "RAM, and nothing behind it");
        let files = read(0x2F00_0000, 0x19, 4 + 128);
        assert_eq!(files[4 + 64..4 + 68], [0, 0, 0, 20]);
        assert_eq!(files[4..8], [0, 0, 0, 7], "a longer name is another file");
        assert_eq!(read(0x2F00_0000, 8, 4), [0; 4]);
        assert_eq!(read(0x2F00_0000, 1, 4), [1, 0, 0, 0]);
    }

    #[test]
    fn without_firmware_the_device_has_its_memory_and_kernel_but_no_dma() {
        assert_eq!(read(0, 0x21, 3), [0xEE; 3]);
        assert_eq!(read(0, 8, 4), [9; 4]);
        assert_eq!(read(0, 1, 4), [1, 0, 0, 0]);
    }

    #[test]
    fn the_processors_are_the_guests_cpus() {
        for ram in [0, 0x2F00_0000] {
            for item in [5, 15] {
                assert_eq!(read(ram, item, 2), [2, 0]);
            }
        }
    }
}
