// SPDX-License-Identifier: MIT OR Apache-2.0
//! A virtio block device as a [`Disk`]: many requests in flight, each on its own slot.

use test_guest::request_plan::{MAX_DEPTH, Request, SECTOR_BYTES};
use test_guest::transfer::{Disk, Token};
use test_guest::virtio_pci::VirtioPci;
use virtio_drivers::Error;
use virtio_drivers::device::blk::{BlkReq, BlkResp, VirtIOBlk};

use super::calling::Hal;
use super::ghcb::RegisteredGhcb;
use super::memory::Buffers;

/// Which way the data go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// From the disk into the slot's buffer.
    Read,
    /// From the slot's buffer to the disk.
    Write,
}

/// What the driver keeps a pointer to while a request is in flight.
#[derive(Debug, Default)]
struct InFlight {
    header: BlkReq,
    status: BlkResp,
    bytes: usize,
}

/// A disk whose requests all go one way at a time. It must not move while requests are in flight,
/// so passes borrow it.
pub struct BlockDisk {
    driver: VirtIOBlk<Hal, VirtioPci<RegisteredGhcb>>,
    buffers: Buffers,
    way: Way,
    slots: [InFlight; MAX_DEPTH],
}

// SAFETY: Its pointers lead to pool memory and buffers, which all vCPUs have mapped alike; its exits
// go through the GHCB of the vCPU that makes them.
unsafe impl Send for BlockDisk {}

impl BlockDisk {
    /// Starts the device.
    ///
    /// # Errors
    /// The driver's error.
    pub fn new(transport: VirtioPci<RegisteredGhcb>, buffers: Buffers) -> Result<Self, Error> {
        Ok(Self {
            driver: VirtIOBlk::new(transport)?,
            buffers,
            way: Way::Read,
            slots: core::array::from_fn(|_| InFlight::default()),
        })
    }

    /// Bytes of the disk.
    pub fn bytes(&self) -> u64 {
        self.driver.capacity().saturating_mul(SECTOR_BYTES)
    }

    /// The disk, set to go one way. Nothing is in flight between passes.
    pub fn going(&mut self, way: Way) -> &mut Self {
        self.way = way;
        self
    }

    /// Makes what was written durable.
    ///
    /// # Errors
    /// The driver's error.
    pub fn flush(&mut self) -> Result<(), Error> {
        self.driver.flush()
    }
}

impl Disk for BlockDisk {
    type Error = Error;

    fn start(&mut self, slot: usize, request: Request) -> Result<Token, Error> {
        let bytes = usize::try_from(request.bytes).map_err(|_| Error::InvalidParam)?;
        let sector =
            usize::try_from(request.offset / SECTOR_BYTES).map_err(|_| Error::InvalidParam)?;
        let state = self.slots.get_mut(slot).ok_or(Error::InvalidParam)?;
        state.bytes = bytes;
        let (header, status) = (&mut state.header, &mut state.status);
        // SAFETY: A pass starts a request on a free slot only, and neither it nor this disk touches
        // the slot's buffer, header or status before `complete`.
        unsafe {
            let data = self.buffers.slot(slot, bytes);
            match self.way {
                Way::Read => self.driver.read_blocks_nb(sector, header, data, status),
                Way::Write => self.driver.write_blocks_nb(sector, header, data, status),
            }
        }
    }

    fn finished(&mut self) -> Result<Option<Token>, Error> {
        Ok(self.driver.peek_used())
    }

    fn complete(&mut self, slot: usize, token: Token) -> Result<(), Error> {
        let state = self.slots.get_mut(slot).ok_or(Error::InvalidParam)?;
        let (header, status) = (&state.header, &mut state.status);
        // SAFETY: The same slot and length as in `start`: a pass completes a token with the slot it
        // was started on.
        unsafe {
            let data = self.buffers.slot(slot, state.bytes);
            match self.way {
                Way::Read => self
                    .driver
                    .complete_read_blocks(token, header, data, status),
                Way::Write => self
                    .driver
                    .complete_write_blocks(token, header, data, status),
            }
        }
    }
}
