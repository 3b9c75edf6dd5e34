// SPDX-License-Identifier: MIT OR Apache-2.0
//! The virtio PCI transport whose registers are reached by GHCB exits instead of loads and stores
//! (Virtual I/O Device specification 1.2, 4.1).
//!
//! A load from a BAR would raise #VC and need an instruction decoder in the handler. Here every
//! access is an explicit exit with address and length.

use core::ops::BitAnd;

use virtio_drivers::transport::pci::bus::{
    Command, ConfigurationAccess, DeviceFunction, PCI_CAP_ID_VNDR, PciRoot,
};
use virtio_drivers::transport::pci::{
    VIRTIO_PCI_CAP_COMMON_CFG, VIRTIO_PCI_CAP_DEVICE_CFG, VIRTIO_PCI_CAP_NOTIFY_CFG,
};
use virtio_drivers::transport::{DeviceStatus, DeviceType, InterruptStatus, Transport};
use virtio_drivers::{Error, PhysAddr};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::ghcb_channel::{GhcbChannel, GhcbPage};

/// VIRTIO_F_ACCESS_PLATFORM: the device uses addresses as the platform prescribes; for a guest with
/// encrypted memory that means buffers in shared memory. A device that offers it may refuse to work
/// without it, and virtio-drivers does not know it, so this transport adds it.
const ACCESS_PLATFORM: u64 = 1 << 33;

/// Most queues of a device: a network device has two.
const MOST_QUEUES: usize = 2;

/// Offsets in the common configuration structure (4.1.4.3).
mod common {
    pub(super) const DEVICE_FEATURE_SELECT: u64 = 0x00;
    pub(super) const DEVICE_FEATURE: u64 = 0x04;
    pub(super) const DRIVER_FEATURE_SELECT: u64 = 0x08;
    pub(super) const DRIVER_FEATURE: u64 = 0x0c;
    pub(super) const DEVICE_STATUS: u64 = 0x14;
    pub(super) const CONFIG_GENERATION: u64 = 0x15;
    pub(super) const QUEUE_SELECT: u64 = 0x16;
    pub(super) const QUEUE_SIZE: u64 = 0x18;
    pub(super) const QUEUE_ENABLE: u64 = 0x1c;
    pub(super) const QUEUE_NOTIFY_OFF: u64 = 0x1e;
    pub(super) const QUEUE_DESC: u64 = 0x20;
    pub(super) const QUEUE_DRIVER: u64 = 0x28;
    pub(super) const QUEUE_DEVICE: u64 = 0x30;
    /// Bytes of the structure.
    pub(super) const BYTES: u64 = 0x38;
}

/// Offsets in a virtio capability (4.1.4).
mod capability {
    pub(super) const BAR: u8 = 4;
    pub(super) const OFFSET: u8 = 8;
    pub(super) const LENGTH: u8 = 12;
    pub(super) const NOTIFY_MULTIPLIER: u8 = 16;
}

/// Why a device cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransportError {
    /// A capability that a modern device must have is missing: the number of its type.
    MissingCapability(u8),
    /// The BAR has no address: firmware has to assign one before the guest starts.
    BarNotAssigned(u8),
    /// The BAR is an I/O range, or its description makes no sense.
    BarKind(u8),
    /// A structure reaches beyond its BAR or is too short.
    Structure(u8),
}

/// A structure in a BAR: physical address and bytes.
#[derive(Debug, Clone, Copy)]
struct Region {
    address: u64,
    bytes: u64,
}

/// A modern virtio device behind PCI.
#[derive(Debug)]
pub struct VirtioPci<P: GhcbPage> {
    channel: GhcbChannel<P>,
    device_type: DeviceType,
    common: Region,
    notify: Region,
    notify_multiplier: u64,
    /// Doorbells of the queues, looked up when a queue is set up: a notification is then one exit.
    doorbells: [Option<u64>; MOST_QUEUES],
    configuration: Region,
    offered: u64,
}

impl<P: GhcbPage> VirtioPci<P> {
    /// Finds the device's structures and lets it do DMA.
    ///
    /// # Errors
    /// [`TransportError`].
    pub fn new<C: ConfigurationAccess>(
        channel: GhcbChannel<P>,
        root: &mut PciRoot<C>,
        access: &C,
        function: DeviceFunction,
        device_type: DeviceType,
    ) -> Result<Self, TransportError> {
        let mut found = [None; 5];
        for entry in root.capabilities(function) {
            let [bytes, kind] = entry.private_header.to_le_bytes();
            let slot = found.get_mut(usize::from(kind));
            if let Some(slot @ None) = slot
                && entry.id == PCI_CAP_ID_VNDR
                && bytes >= 16
            {
                *slot = Some(entry.offset);
            }
        }
        let mut region = |kind: u8, least: u64| {
            let offset = found.get(usize::from(kind)).copied().flatten();
            let offset = offset.ok_or(TransportError::MissingCapability(kind))?;
            let region = find_region(root, access, function, offset)?;
            if region.bytes < least {
                Err(TransportError::Structure(kind))
            } else {
                Ok((region, offset))
            }
        };
        let (common, _) = region(VIRTIO_PCI_CAP_COMMON_CFG, common::BYTES)?;
        let (notify, notify_capability) = region(VIRTIO_PCI_CAP_NOTIFY_CFG, 2)?;
        let (configuration, _) = region(VIRTIO_PCI_CAP_DEVICE_CFG, 8)?;
        let multiplier =
            access.read_word(function, notify_capability + capability::NOTIFY_MULTIPLIER);
        // The driver polls: no interrupt may be raised that nobody handles.
        root.set_command(
            function,
            Command::MEMORY_SPACE | Command::BUS_MASTER | Command::INTERRUPT_DISABLE,
        );
        Ok(Self {
            channel,
            device_type,
            common,
            notify,
            notify_multiplier: u64::from(multiplier),
            doorbells: [None; MOST_QUEUES],
            configuration,
            offered: 0,
        })
    }

    /// Reads a register. The driver cannot go on without its device, and the trait has no errors:
    /// a host that refuses the access ends the guest.
    fn read<const N: usize>(&self, offset: u64) -> [u8; N] {
        let mut bytes = [0; N];
        let address = self.common.address + offset;
        self.channel
            .mmio_read(address, &mut bytes)
            .expect("host refused a read of device memory");
        bytes
    }

    fn write(&self, offset: u64, bytes: &[u8]) {
        self.write_address(self.common.address + offset, bytes);
    }

    fn write_address(&self, address: u64, bytes: &[u8]) {
        self.channel
            .mmio_write(address, bytes)
            .expect("host refused a write of device memory");
    }

    /// Address of `bytes` bytes at `offset` in the device's own configuration.
    fn configuration_address(&self, offset: usize, bytes: usize) -> Result<u64, Error> {
        let end = offset
            .checked_add(bytes)
            .ok_or(Error::ConfigSpaceTooSmall)?;
        if end as u64 > self.configuration.bytes {
            return Err(Error::ConfigSpaceTooSmall);
        }
        Ok(self.configuration.address + offset as u64)
    }
}

/// The structure a capability names, checked against its BAR.
fn find_region<C: ConfigurationAccess>(
    root: &mut PciRoot<C>,
    access: &C,
    function: DeviceFunction,
    capability_offset: u8,
) -> Result<Region, TransportError> {
    let word = |field: u8| access.read_word(function, capability_offset.wrapping_add(field));
    let bar = word(capability::BAR).to_le_bytes()[0];
    if bar >= 6 {
        return Err(TransportError::BarKind(bar));
    }
    let (address, bytes) = root
        .bar_info(function, bar)
        .ok()
        .flatten()
        .and_then(|info| info.memory_address_size())
        .ok_or(TransportError::BarKind(bar))?;
    if address == 0 {
        return Err(TransportError::BarNotAssigned(bar));
    }
    let (offset, length) = (
        u64::from(word(capability::OFFSET)),
        u64::from(word(capability::LENGTH)),
    );
    if offset + length > bytes || address.checked_add(bytes).is_none() {
        return Err(TransportError::Structure(bar));
    }
    Ok(Region {
        address: address + offset,
        bytes: length,
    })
}

/// Bytes of the accesses that a field of `bytes` bytes takes.
const fn access_bytes(bytes: usize) -> usize {
    match bytes {
        2 | 4 | 8 => bytes,
        _ => 1,
    }
}

impl<P: GhcbPage> Transport for VirtioPci<P> {
    fn device_type(&self) -> DeviceType {
        self.device_type
    }

    fn read_device_features(&mut self) -> u64 {
        self.offered = 0;
        for half in 0..2_u32 {
            self.write(common::DEVICE_FEATURE_SELECT, &half.to_le_bytes());
            let bits = u32::from_le_bytes(self.read(common::DEVICE_FEATURE));
            self.offered |= u64::from(bits) << (32 * half);
        }
        self.offered
    }

    fn write_driver_features(&mut self, driver_features: u64) {
        let features = driver_features | self.offered.bitand(ACCESS_PLATFORM);
        for half in 0..2_u32 {
            let bits = (features >> (32 * half)).to_le_bytes();
            self.write(common::DRIVER_FEATURE_SELECT, &half.to_le_bytes());
            self.write(common::DRIVER_FEATURE, bits.get(..4).unwrap_or(&[0; 4]));
        }
    }

    fn max_queue_size(&mut self, queue: u16) -> u32 {
        self.write(common::QUEUE_SELECT, &queue.to_le_bytes());
        u32::from(u16::from_le_bytes(self.read(common::QUEUE_SIZE)))
    }

    fn notify(&mut self, queue: u16) {
        if let Some(Some(doorbell)) = self.doorbells.get(usize::from(queue)).copied() {
            self.write_address(doorbell, &queue.to_le_bytes());
        }
    }

    fn get_status(&self) -> DeviceStatus {
        let [status] = self.read(common::DEVICE_STATUS);
        DeviceStatus::from_bits_truncate(u32::from(status))
    }

    fn set_status(&mut self, status: DeviceStatus) {
        let [byte, ..] = status.bits().to_le_bytes();
        self.write(common::DEVICE_STATUS, &[byte]);
    }

    fn set_guest_page_size(&mut self, _guest_page_size: u32) {
        // Legacy devices only.
    }

    fn requires_legacy_layout(&self) -> bool {
        false
    }

    fn queue_set(
        &mut self,
        queue: u16,
        size: u32,
        descriptors: PhysAddr,
        driver_area: PhysAddr,
        device_area: PhysAddr,
    ) {
        let [low, high, ..] = size.to_le_bytes();
        self.write(common::QUEUE_SELECT, &queue.to_le_bytes());
        self.write(common::QUEUE_SIZE, &[low, high]);
        self.write(common::QUEUE_DESC, &descriptors.to_le_bytes());
        self.write(common::QUEUE_DRIVER, &driver_area.to_le_bytes());
        self.write(common::QUEUE_DEVICE, &device_area.to_le_bytes());
        let notify_off = u16::from_le_bytes(self.read(common::QUEUE_NOTIFY_OFF));
        let offset = u64::from(notify_off) * self.notify_multiplier;
        assert!(
            offset + 2 <= self.notify.bytes,
            "doorbell outside its structure"
        );
        let doorbell = self.doorbells.get_mut(usize::from(queue));
        *doorbell.expect("no driver here has so many queues") = Some(self.notify.address + offset);
        self.write(common::QUEUE_ENABLE, &1_u16.to_le_bytes());
    }

    fn queue_unset(&mut self, _queue: u16) {
        // Only a reset of the device ends a queue (4.1.4.3.2); dropping the transport resets it.
    }

    fn queue_used(&mut self, queue: u16) -> bool {
        self.write(common::QUEUE_SELECT, &queue.to_le_bytes());
        u16::from_le_bytes(self.read(common::QUEUE_ENABLE)) != 0
    }

    fn ack_interrupt(&mut self) -> InterruptStatus {
        // Interrupts are off in the device.
        InterruptStatus::empty()
    }

    fn read_config_generation(&self) -> u32 {
        let [generation] = self.read(common::CONFIG_GENERATION);
        u32::from(generation)
    }

    fn read_config_space<T: FromBytes + IntoBytes>(&self, offset: usize) -> Result<T, Error> {
        let address = self.configuration_address(offset, size_of::<T>())?;
        let mut value = T::new_zeroed();
        // A field of a size that no access has, such as an Ethernet address, is read in bytes
        // (4.1.3.1); the caller compares generations.
        let piece = access_bytes(size_of::<T>());
        for (at, part) in (address..)
            .step_by(piece)
            .zip(value.as_mut_bytes().chunks_mut(piece))
        {
            self.channel
                .mmio_read(at, part)
                .map_err(|_| Error::IoError)?;
        }
        Ok(value)
    }

    fn write_config_space<T: IntoBytes + Immutable>(
        &mut self,
        offset: usize,
        value: T,
    ) -> Result<(), Error> {
        let address = self.configuration_address(offset, size_of::<T>())?;
        self.channel
            .mmio_write(address, value.as_bytes())
            .map_err(|_| Error::IoError)
    }
}

impl<P: GhcbPage> Drop for VirtioPci<P> {
    /// Resets the device: after that it does no DMA, and its buffers may be given back.
    fn drop(&mut self) {
        self.set_status(DeviceStatus::empty());
        while self.get_status() != DeviceStatus::empty() {
            core::hint::spin_loop();
        }
    }
}

#[cfg(test)]
mod tests;
