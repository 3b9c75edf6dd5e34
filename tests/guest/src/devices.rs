// SPDX-License-Identifier: MIT OR Apache-2.0
//! Finds the devices on the PCI bus.

use test_guest::command_line::Devices;
use test_guest::pci_configuration::PortConfiguration;
use test_guest::stop::Stop;
use test_guest::virtio_pci::VirtioPci;
use virtio_drivers::transport::DeviceType;
use virtio_drivers::transport::pci::bus::{Command, DeviceFunction, DeviceFunctionInfo, PciRoot};
use virtio_drivers::transport::pci::virtio_device_type;

use crate::machine::block::BlockDisk;
use crate::machine::ending::fail;
use crate::machine::ghcb::RegisteredGhcb;
use crate::machine::memory::Buffers;

/// PCI bus the devices are on.
const BUS: u8 = 0;
/// Class, subclass and interface of an NVMe controller.
const NVME: (u8, u8, u8) = (1, 8, 2);
/// The BAR of its registers.
const NVME_BAR: u8 = 0;

/// The functions on the bus.
fn functions(ghcb: RegisteredGhcb) -> impl Iterator<Item = (DeviceFunction, DeviceFunctionInfo)> {
    let access = PortConfiguration::new(ghcb.channel());
    PciRoot::new(access).enumerate_bus(BUS)
}

/// Stops every device that a kernel before this one has set up: a virtio device is reset, and no function does DMA any
/// more.
pub fn quiet(ghcb: RegisteredGhcb) {
    let mut root = PciRoot::new(PortConfiguration::new(ghcb.channel()));
    for (function, information) in functions(ghcb) {
        if let Some(kind) = virtio_device_type(&information) {
            // Dropping the transport resets the device, and waits until that is done.
            drop(virtio(ghcb, function, kind, Stop::Restart));
        }
        let (_, command) = root.get_status_command(function);
        root.set_command(function, command - Command::BUS_MASTER);
    }
}

/// Opens a virtio device.
fn virtio(
    ghcb: RegisteredGhcb,
    function: DeviceFunction,
    kind: DeviceType,
    stop: Stop,
) -> VirtioPci<RegisteredGhcb> {
    let access = PortConfiguration::new(ghcb.channel());
    let mut root = PciRoot::new(access);
    VirtioPci::new(ghcb.channel(), &mut root, &access, function, kind)
        .unwrap_or_else(|error| fail(stop, format_args!("{function}: {error:?}")))
}

/// The first two block devices on the bus.
pub fn open_disks(ghcb: RegisteredGhcb, buffers: Buffers) -> [BlockDisk; 2] {
    let mut disks = [None, None];
    let mut slots = disks.iter_mut();
    for (function, information) in functions(ghcb) {
        if virtio_device_type(&information) != Some(DeviceType::Block) {
            continue;
        }
        let Some(slot) = slots.next() else { break };
        let transport = virtio(ghcb, function, DeviceType::Block, Stop::Disk);
        let disk = BlockDisk::new(transport, buffers)
            .unwrap_or_else(|error| fail(Stop::Disk, format_args!("{function}: {error:?}")));
        *slot = Some(disk);
    }
    match disks {
        [Some(first), Some(second)] => [first, second],
        _ => fail(
            Stop::Disk,
            format_args!("two virtio-blk-pci devices are needed on bus {BUS}"),
        ),
    }
}

/// The devices beside the disks.
#[derive(Debug, Clone, Copy)]
pub struct Others {
    net: Option<DeviceFunction>,
    nvme: Option<DeviceFunction>,
}

impl Others {
    /// The first of each kind on the bus. One that `required` names and that is missing ends the
    /// guest.
    pub fn find(ghcb: RegisteredGhcb, required: Devices) -> Self {
        let mut found = Self {
            net: None,
            nvme: None,
        };
        for (function, information) in functions(ghcb) {
            let class = (information.class, information.subclass, information.prog_if);
            if virtio_device_type(&information) == Some(DeviceType::Network) {
                found.net.get_or_insert(function);
            } else if class == NVME {
                found.nvme.get_or_insert(function);
            }
        }
        for (name, asked, there) in [
            ("net", required.net, found.net),
            ("nvme", required.nvme, found.nvme),
        ] {
            if asked && there.is_none() {
                fail(
                    Stop::Device,
                    format_args!("device '{name}' is asked for and not on bus {BUS}"),
                );
            }
        }
        found
    }

    /// There is none.
    pub const fn is_empty(&self) -> bool {
        self.net.is_none() && self.nvme.is_none()
    }

    /// The network device.
    pub fn open_net(&self, ghcb: RegisteredGhcb) -> Option<VirtioPci<RegisteredGhcb>> {
        let function = self.net?;
        Some(virtio(ghcb, function, DeviceType::Network, Stop::Network))
    }

    /// Lets the NVMe controller do DMA; the address of its registers.
    pub fn open_nvme(&self, ghcb: RegisteredGhcb) -> Option<u64> {
        let function = self.nvme?;
        let mut root = PciRoot::new(PortConfiguration::new(ghcb.channel()));
        let bar = root.bar_info(function, NVME_BAR).ok().flatten();
        let place = bar.and_then(|bar| bar.memory_address_size());
        let Some((address @ 1.., _)) = place else {
            fail(
                Stop::Nvme,
                format_args!("{function}: BAR {NVME_BAR} has no address"),
            );
        };
        // The driver polls: no interrupt may be raised that nobody handles.
        root.set_command(
            function,
            Command::MEMORY_SPACE | Command::BUS_MASTER | Command::INTERRUPT_DISABLE,
        );
        Some(address)
    }
}
