// SPDX-License-Identifier: MIT OR Apache-2.0
//! A made-up device: configuration space in an array, registers behind the GHCB.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::vec::Vec;

use snp::ghcb::{Ghcb, exit_code};

use super::*;
use crate::ghcb_channel::fake::{FakePage, answer};

/// BAR of the structures, and its address and size.
const BAR: u8 = 4;
const BAR_ADDRESS: u32 = 0xfe00_0000;
const BAR_BYTES: u32 = 0x4000;
/// Offsets of the structures in the BAR.
const COMMON: u64 = 0;
const DEVICE: u64 = 0x2000;
const NOTIFY: u64 = 0x3000;
const NOTIFY_MULTIPLIER: u32 = 4;
const FUNCTION: DeviceFunction = DeviceFunction {
    bus: 0,
    device: 3,
    function: 0,
};

/// Configuration space: words by register.
#[derive(Clone)]
struct Configuration(Rc<RefCell<BTreeMap<u8, u32>>>);

impl Configuration {
    fn new() -> Self {
        let mut words = BTreeMap::from([(0x04, 0x0010_0000), (0x34, 0x40)]);
        words.insert(0x10 + 4 * BAR, BAR_ADDRESS);
        let capabilities = [
            (0x40, 0x54, VIRTIO_PCI_CAP_COMMON_CFG, COMMON, 0x1000),
            (0x54, 0x68, VIRTIO_PCI_CAP_DEVICE_CFG, DEVICE, 0x1000),
            (0x68, 0, VIRTIO_PCI_CAP_NOTIFY_CFG, NOTIFY, 0x1000),
        ];
        for (at, next, kind, offset, length) in capabilities {
            words.insert(at, u32::from_le_bytes([PCI_CAP_ID_VNDR, next, 20, kind]));
            words.insert(at + 4, BAR.into());
            words.insert(at + 8, u32::try_from(offset).expect("small"));
            words.insert(at + 12, length);
            words.insert(at + 16, NOTIFY_MULTIPLIER);
        }
        Self(Rc::new(RefCell::new(words)))
    }

    fn set(&self, register: u8, word: u32) {
        self.0.borrow_mut().insert(register, word);
    }
}

impl ConfigurationAccess for Configuration {
    fn read_word(&self, function: DeviceFunction, register: u8) -> u32 {
        assert_eq!(function, FUNCTION);
        self.0.borrow().get(&register).copied().unwrap_or(0)
    }

    fn write_word(&mut self, _function: DeviceFunction, register: u8, data: u32) {
        // All ones into a BAR asks for its size.
        let sizing = register == 0x10 + 4 * BAR && data == u32::MAX;
        self.set(register, if sizing { !(BAR_BYTES - 1) } else { data });
    }

    unsafe fn unsafe_clone(&self) -> Self {
        self.clone()
    }
}

/// Writes to the registers, in order: offset in the BAR and bytes.
type Writes = Rc<RefCell<Vec<(u64, Vec<u8>)>>>;

/// A GHCB whose host has the device's registers and offers `features`.
fn registers(features: u64) -> (FakePage, Writes) {
    let writes = Writes::default();
    let log = Rc::clone(&writes);
    let (mut select, mut queue) = (0, 0);
    let page = FakePage::new(move |ghcb: &mut Ghcb| {
        let offset = ghcb.sw_exit_info_1 - u64::from(BAR_ADDRESS);
        let length = usize::try_from(ghcb.sw_exit_info_2).expect("small");
        if ghcb.sw_exit_code == exit_code::MMIO_WRITE {
            let bytes = ghcb.shared_buffer[..length].to_vec();
            if offset == COMMON + common::DEVICE_FEATURE_SELECT {
                select = bytes[0];
            } else if offset == COMMON + common::QUEUE_SELECT {
                queue = u64::from(bytes[0]);
            }
            log.borrow_mut().push((offset, bytes));
        } else {
            let value = match offset - COMMON {
                common::DEVICE_FEATURE => features >> (32 * select) & 0xffff_ffff,
                common::QUEUE_NOTIFY_OFF => 3 + queue,
                DEVICE.. => offset - DEVICE + 1,
                _ => 0,
            };
            ghcb.shared_buffer[..length].copy_from_slice(&value.to_le_bytes()[..length]);
        }
        answer(ghcb, 0);
    });
    (page, writes)
}

fn open<'a>(
    page: &'a FakePage,
    configuration: &Configuration,
) -> Result<VirtioPci<&'a FakePage>, TransportError> {
    let mut root = PciRoot::new(configuration.clone());
    let channel = GhcbChannel::new(page);
    VirtioPci::new(
        channel,
        &mut root,
        configuration,
        FUNCTION,
        DeviceType::Block,
    )
}

fn open_error(configuration: &Configuration) -> Option<TransportError> {
    open(&registers(0).0, configuration).err()
}

#[test]
fn access_platform_is_accepted_where_it_is_offered_and_nowhere_else() {
    for (offered, expected) in [(1 << 33 | 1 << 32 | 1 << 9, 3), (1 << 32 | 1 << 9, 1)] {
        let (page, writes) = registers(offered);
        let mut device = open(&page, &Configuration::new()).expect("a good device");
        assert_eq!(device.read_device_features(), offered);
        writes.borrow_mut().clear();
        device.write_driver_features(1 << 32 | 1 << 9);
        let halves: Vec<_> = writes
            .borrow()
            .iter()
            .filter(|(offset, _)| *offset == common::DRIVER_FEATURE)
            .map(|(_, bytes)| u32::from_le_bytes(bytes[..].try_into().expect("4 bytes")))
            .collect();
        assert_eq!(halves, [1 << 9, expected]);
    }
}

#[test]
fn a_notification_is_one_write_at_the_queues_doorbell() {
    let (page, writes) = registers(0);
    let mut device = open(&page, &Configuration::new()).expect("a good device");
    device.queue_set(0, 16, 0x4000_0000, 0x4000_1000, 0x4000_2000);
    assert!(
        writes
            .borrow()
            .contains(&(common::QUEUE_DRIVER, 0x4000_1000_u64.to_le_bytes().to_vec()))
    );
    writes.borrow_mut().clear();
    device.notify(0);
    let doorbell = NOTIFY + 3 * u64::from(NOTIFY_MULTIPLIER);
    assert_eq!(*writes.borrow(), [(doorbell, [0, 0].to_vec())]);
    // Each queue has its own, whichever was set up last.
    device.queue_set(1, 16, 0x4000_3000, 0x4000_4000, 0x4000_5000);
    writes.borrow_mut().clear();
    device.notify(0);
    device.notify(1);
    let next = doorbell + u64::from(NOTIFY_MULTIPLIER);
    assert_eq!(
        *writes.borrow(),
        [(doorbell, [0, 0].to_vec()), (next, [1, 0].to_vec())]
    );
}

#[test]
fn a_device_may_do_dma_but_raises_no_interrupt() {
    let configuration = Configuration::new();
    let (page, writes) = registers(0);
    let device = open(&page, &configuration).expect("a good device");
    assert_eq!(configuration.read_word(FUNCTION, 0x04) & 0xffff, 0x0406);
    writes.borrow_mut().clear();
    drop(device);
    assert_eq!(*writes.borrow(), [(common::DEVICE_STATUS, [0].to_vec())]);
}

#[test]
fn an_ethernet_address_is_read_in_pieces() {
    let (page, _) = registers(0);
    let device = open(&page, &Configuration::new()).expect("a good device");
    let mac: [u8; 6] = device.read_config_space(0).expect("inside");
    assert_eq!(mac, [1, 2, 3, 4, 5, 6]);
    let half: u16 = device.read_config_space(6).expect("inside");
    assert_eq!(half, 7, "one access");
    assert!(device.read_config_space::<[u8; 6]>(0xffc).is_err());
}

#[test]
fn a_device_that_cannot_be_used_is_named() {
    let configuration = Configuration::new();
    configuration.set(0x10 + 4 * BAR, 0);
    assert_eq!(
        open_error(&configuration),
        Some(TransportError::BarNotAssigned(BAR))
    );

    let configuration = Configuration::new();
    configuration.set(0x10 + 4 * BAR, 0xc001);
    assert_eq!(
        open_error(&configuration),
        Some(TransportError::BarKind(BAR))
    );

    let configuration = Configuration::new();
    configuration.set(0x44, 6);
    assert_eq!(open_error(&configuration), Some(TransportError::BarKind(6)));

    // The device configuration reaches beyond the BAR.
    let configuration = Configuration::new();
    configuration.set(0x5c, BAR_BYTES - 4);
    assert_eq!(
        open_error(&configuration),
        Some(TransportError::Structure(BAR))
    );

    // The common configuration is too short.
    let configuration = Configuration::new();
    configuration.set(0x4c, 0x20);
    let short = TransportError::Structure(VIRTIO_PCI_CAP_COMMON_CFG);
    assert_eq!(open_error(&configuration), Some(short));

    let configuration = Configuration::new();
    configuration.set(0x68, 0);
    let missing = TransportError::MissingCapability(VIRTIO_PCI_CAP_NOTIFY_CFG);
    assert_eq!(open_error(&configuration), Some(missing));
}
