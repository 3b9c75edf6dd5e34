// SPDX-License-Identifier: MIT OR Apache-2.0
//! Controller registers (NVM Express base specification 2.0, 3.1.3), by GHCB exits.

use crate::ghcb_channel::{ExitError, GhcbChannel, GhcbPage};

/// Controller capabilities, 64 bit.
pub const CAP: u64 = 0x00;
/// Interrupt mask set.
pub const INTMS: u64 = 0x0c;
/// Controller configuration.
pub const CC: u64 = 0x14;
/// Controller status.
pub const CSTS: u64 = 0x1c;
/// Admin queue attributes.
pub const AQA: u64 = 0x24;
/// Admin submission queue base, 64 bit.
pub const ASQ: u64 = 0x28;
/// Admin completion queue base, 64 bit.
pub const ACQ: u64 = 0x30;
/// The first doorbell.
pub const DOORBELLS: u64 = 0x1000;

/// CC: enabled.
pub const CC_ENABLE: u32 = 1;
/// CC: I/O submission entries of 2^6 bytes, completion entries of 2^4.
pub const CC_ENTRY_SIZES: u32 = 6 << 16 | 4 << 20;
/// CSTS: ready.
pub const CSTS_READY: u32 = 1;
/// CSTS: fatal status.
pub const CSTS_FATAL: u32 = 2;

/// Fields of [`CAP`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities(pub u64);

impl Capabilities {
    /// Most entries of an I/O queue.
    #[must_use]
    pub const fn most_entries(self) -> u32 {
        (self.0 & 0xffff) as u32 + 1
    }

    /// Bytes from one doorbell to the next.
    #[must_use]
    pub const fn doorbell_stride(self) -> u64 {
        4 << (self.0 >> 32 & 0xf)
    }

    /// The NVM command set and pages of 4 KiB.
    #[must_use]
    pub const fn is_usable(self) -> bool {
        self.0 >> 37 & 1 == 1 && self.0 >> 48 & 0xf == 0
    }
}

/// Access to the registers of one controller, by offset.
pub trait Registers {
    /// Reads 32 bits.
    ///
    /// # Errors
    /// The host refuses.
    fn read_32(&self, offset: u64) -> Result<u32, ExitError>;
    /// Reads 64 bits.
    ///
    /// # Errors
    /// The host refuses.
    fn read_64(&self, offset: u64) -> Result<u64, ExitError>;
    /// Writes 32 bits.
    ///
    /// # Errors
    /// The host refuses.
    fn write_32(&self, offset: u64, value: u32) -> Result<(), ExitError>;
    /// Writes 64 bits.
    ///
    /// # Errors
    /// The host refuses.
    fn write_64(&self, offset: u64, value: u64) -> Result<(), ExitError>;
}

/// Registers in a BAR.
#[derive(Debug, Clone, Copy)]
pub struct BarRegisters<P> {
    channel: GhcbChannel<P>,
    base: u64,
}

impl<P: GhcbPage> BarRegisters<P> {
    /// The registers at physical address `base`.
    pub const fn new(channel: GhcbChannel<P>, base: u64) -> Self {
        Self { channel, base }
    }
}

impl<P: GhcbPage> Registers for BarRegisters<P> {
    fn read_32(&self, offset: u64) -> Result<u32, ExitError> {
        let mut bytes = [0; 4];
        self.channel.mmio_read(self.base + offset, &mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    fn read_64(&self, offset: u64) -> Result<u64, ExitError> {
        let mut bytes = [0; 8];
        self.channel.mmio_read(self.base + offset, &mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn write_32(&self, offset: u64, value: u32) -> Result<(), ExitError> {
        self.channel
            .mmio_write(self.base + offset, &value.to_le_bytes())
    }

    fn write_64(&self, offset: u64, value: u64) -> Result<(), ExitError> {
        self.channel
            .mmio_write(self.base + offset, &value.to_le_bytes())
    }
}
