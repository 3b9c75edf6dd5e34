// SPDX-License-Identifier: MIT OR Apache-2.0
//! PCI configuration space through the ports 0xCF8 and 0xCFC, by GHCB exits.

use virtio_drivers::transport::pci::bus::{ConfigurationAccess, DeviceFunction};

use crate::ghcb_channel::{GhcbChannel, GhcbPage};
use crate::port;

/// Enable bit of the address register.
const ENABLE: u32 = 1 << 31;
/// What a read of an absent function returns.
const ABSENT: u32 = u32::MAX;

/// Configuration mechanism 1. One processor uses it, so address and data need no lock.
#[derive(Debug, Clone, Copy)]
pub struct PortConfiguration<P> {
    channel: GhcbChannel<P>,
}

impl<P: GhcbPage + Copy> PortConfiguration<P> {
    /// Configuration accesses over `channel`.
    pub const fn new(channel: GhcbChannel<P>) -> Self {
        Self { channel }
    }

    /// Selects a register; a host that refuses makes the function look absent.
    fn select(&self, function: DeviceFunction, register: u8) -> bool {
        let address = ENABLE
            | u32::from(function.bus) << 16
            | u32::from(function.device & 31) << 11
            | u32::from(function.function & 7) << 8
            | u32::from(register & !3);
        self.channel
            .port_write(port::PCI_ADDRESS, 4, address)
            .is_ok()
    }
}

impl<P: GhcbPage + Copy> ConfigurationAccess for PortConfiguration<P> {
    fn read_word(&self, device_function: DeviceFunction, register_offset: u8) -> u32 {
        if !self.select(device_function, register_offset) {
            return ABSENT;
        }
        self.channel.port_read(port::PCI_DATA, 4).unwrap_or(ABSENT)
    }

    fn write_word(&mut self, device_function: DeviceFunction, register_offset: u8, data: u32) {
        // A lost write shows in the check that follows: the BAR's size or the device's status.
        if self.select(device_function, register_offset) {
            let _ = self.channel.port_write(port::PCI_DATA, 4, data);
        }
    }

    unsafe fn unsafe_clone(&self) -> Self {
        *self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ghcb_channel::fake::{FakePage, answer};

    #[test]
    fn a_register_is_selected_and_then_read() {
        let mut selected = 0;
        let page = FakePage::new(move |ghcb| {
            match ghcb.sw_exit_info_1 >> 16 {
                0xcf8 => selected = ghcb.rax,
                0xcfc => assert_eq!(selected, 0x8000_1a10),
                other => panic!("port {other:#x}"),
            }
            answer(ghcb, 0x1042_1af4);
        });
        let configuration = PortConfiguration::new(GhcbChannel::new(&page));
        let function = DeviceFunction {
            bus: 0,
            device: 3,
            function: 2,
        };
        assert_eq!(configuration.read_word(function, 0x10), 0x1042_1af4);
    }

    #[test]
    fn a_refusing_host_shows_no_device() {
        let page = FakePage::new(|ghcb| ghcb.sw_exit_info_1 = 2);
        let configuration = PortConfiguration::new(GhcbChannel::new(&page));
        let function = DeviceFunction {
            bus: 0,
            device: 0,
            function: 0,
        };
        assert_eq!(configuration.read_word(function, 0), ABSENT);
    }
}
