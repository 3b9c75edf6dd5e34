// SPDX-License-Identifier: MIT OR Apache-2.0
//! Ports and device memory.

use core::ptr;

use snp_host::hardware::Devices;
use x86_64::instructions::port::Port;

use super::BareMetal;
use super::raw_memory::map_device;

impl Devices for BareMetal {
    fn port_read(&self, port: u16, bytes: u8) -> u32 {
        // SAFETY: port accesses go to QEMU's devices; the caller filters those that could reach
        // this host's memory.
        unsafe {
            match bytes {
                1 => u32::from(Port::<u8>::new(port).read()),
                2 => u32::from(Port::<u16>::new(port).read()),
                _ => Port::<u32>::new(port).read(),
            }
        }
    }

    fn port_write(&self, port: u16, bytes: u8, value: u32) {
        let [low, second, ..] = value.to_le_bytes();
        // SAFETY: as for `port_read`.
        unsafe {
            match bytes {
                1 => Port::<u8>::new(port).write(low),
                2 => Port::<u16>::new(port).write(u16::from_le_bytes([low, second])),
                _ => Port::<u32>::new(port).write(value),
            }
        }
    }

    fn device_read(&self, address: u64, bytes: u8) -> u64 {
        let address = map_device(address);
        // SAFETY: the caller has checked that the aligned address is device memory, where this
        // host has nothing; it is mapped.
        unsafe {
            match bytes {
                1 => u64::from(ptr::with_exposed_provenance::<u8>(address).read_volatile()),
                2 => u64::from(ptr::with_exposed_provenance::<u16>(address).read_volatile()),
                4 => u64::from(ptr::with_exposed_provenance::<u32>(address).read_volatile()),
                _ => ptr::with_exposed_provenance::<u64>(address).read_volatile(),
            }
        }
    }

    fn device_write(&self, address: u64, bytes: u8, value: u64) {
        let address = map_device(address);
        let [b0, b1, b2, b3, ..] = value.to_le_bytes();
        // SAFETY: as for `device_read`.
        unsafe {
            match bytes {
                1 => ptr::with_exposed_provenance_mut::<u8>(address).write_volatile(b0),
                2 => ptr::with_exposed_provenance_mut::<u16>(address)
                    .write_volatile(u16::from_le_bytes([b0, b1])),
                4 => ptr::with_exposed_provenance_mut::<u32>(address)
                    .write_volatile(u32::from_le_bytes([b0, b1, b2, b3])),
                _ => ptr::with_exposed_provenance_mut::<u64>(address).write_volatile(value),
            }
        }
    }
}
