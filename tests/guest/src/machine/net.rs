// SPDX-License-Identifier: MIT OR Apache-2.0
//! A virtio network device for the TCP stack: frames in private memory, bounced by the driver.

use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, Ordering};

use smoltcp::iface::SocketStorage;
use smoltcp::phy::{self, DeviceCapabilities, Medium};
use smoltcp::time::Instant;
use test_guest::stop::Stop;
use test_guest::virtio_pci::VirtioPci;
use virtio_drivers::device::net::VirtIONetRaw;
use virtio_drivers::{BufferDirection, Error, Hal as _, PhysAddr};

use super::calling::{FRAME_BYTES, Hal};
use super::ending::fail;
use super::ghcb::RegisteredGhcb;
use super::spin_lock::SpinLock;

/// Entries of each of the two queues.
const QUEUE: usize = 128;
/// Frames that wait for the device to fill them: as much as TCP's window, since the vCPU may be busy
/// with another device while they are filled.
const RECEIVING: usize = 96;
/// Frames on their way out, at most.
const SENDING: usize = 16;
/// Frames of the device.
pub const FRAMES: usize = RECEIVING + SENDING;
/// Bytes of all frames.
pub const MEMORY_BYTES: u64 = (FRAMES * FRAME_BYTES) as u64;
/// Longest Ethernet frame.
const ETHERNET_BYTES: usize = 1514;

/// The TCP stack's one socket.
static mut SOCKET: [SocketStorage<'static>; 1] = [SocketStorage::EMPTY];
/// It was handed out.
static SOCKET_TAKEN: AtomicBool = AtomicBool::new(false);

/// The socket's storage, the first time.
pub fn socket_storage() -> Option<&'static mut [SocketStorage<'static>]> {
    if SOCKET_TAKEN.swap(true, Ordering::AcqRel) {
        return None;
    }
    let storage = &raw mut SOCKET;
    // SAFETY: Only the first caller comes here, and nothing else names the static.
    Some(unsafe { &mut *storage })
}

/// What the device may reach at present: address and buffer of each shared one.
static SHARED: SpinLock<[Option<Shared>; 2 * FRAMES]> = SpinLock::new([None; 2 * FRAMES]);

#[derive(Debug, Clone, Copy)]
struct Shared {
    address: PhysAddr,
    buffer: u64,
    bytes: usize,
    direction: BufferDirection,
}

/// The memory interface of the block driver, which also remembers what is shared: the driver drops
/// its queues without ending that, when the device still had frames to fill.
#[derive(Debug)]
struct NetHal;

// SAFETY: Everything is passed on to an implementation that keeps the contract.
unsafe impl virtio_drivers::Hal for NetHal {
    fn dma_alloc(pages: usize, direction: BufferDirection) -> (PhysAddr, NonNull<u8>) {
        Hal::dma_alloc(pages, direction)
    }

    unsafe fn dma_dealloc(address: PhysAddr, pointer: NonNull<u8>, pages: usize) -> i32 {
        // SAFETY: Passed on.
        unsafe { Hal::dma_dealloc(address, pointer, pages) }
    }

    unsafe fn mmio_phys_to_virt(address: PhysAddr, size: usize) -> NonNull<u8> {
        // SAFETY: Passed on.
        unsafe { Hal::mmio_phys_to_virt(address, size) }
    }

    unsafe fn share(buffer: NonNull<[u8]>, direction: BufferDirection) -> PhysAddr {
        // SAFETY: Passed on.
        let address = unsafe { Hal::share(buffer, direction) };
        let entry = Shared {
            address,
            buffer: buffer.as_ptr().cast::<u8>() as u64,
            bytes: buffer.len(),
            direction,
        };
        let mut shared = SHARED.lock();
        match shared.iter_mut().find(|slot| slot.is_none()) {
            Some(slot) => *slot = Some(entry),
            None => fail(Stop::Network, format_args!("more frames than there are")),
        }
        address
    }

    unsafe fn unshare(address: PhysAddr, buffer: NonNull<[u8]>, direction: BufferDirection) {
        let mut shared = SHARED.lock();
        for slot in shared.iter_mut() {
            if slot.is_some_and(|entry| entry.address == address) {
                *slot = None;
            }
        }
        // SAFETY: Passed on.
        unsafe { Hal::unshare(address, buffer, direction) };
    }
}

/// The device and its frames. It must not be used by two vCPUs at once.
pub struct NetDevice {
    driver: VirtIONetRaw<NetHal, VirtioPci<RegisteredGhcb>, QUEUE>,
    memory: u64,
    /// Frame by token, of those that wait to be filled and of those on their way out.
    receiving: [Option<usize>; QUEUE],
    sending: [Option<(usize, usize)>; QUEUE],
    /// Frames that are free for sending, one bit each.
    free: u32,
}

// SAFETY: Its pointers lead to pool memory and frames, which all vCPUs have mapped alike; its exits
// go through the GHCB of the vCPU that makes them.
unsafe impl Send for NetDevice {}

impl NetDevice {
    /// Starts the device; `memory` holds [`MEMORY_BYTES`].
    ///
    /// # Errors
    /// The driver's error.
    pub fn new(
        transport: VirtioPci<RegisteredGhcb>,
        memory: &'static mut [u8],
    ) -> Result<Self, Error> {
        if (memory.len() as u64) < MEMORY_BYTES {
            return Err(Error::InvalidParam);
        }
        let mut device = Self {
            driver: VirtIONetRaw::new(transport)?,
            memory: memory.as_mut_ptr() as u64,
            receiving: [None; QUEUE],
            sending: [None; QUEUE],
            free: (1 << SENDING) - 1,
        };
        for frame in 0..RECEIVING {
            device.offer(frame)?;
        }
        Ok(device)
    }

    /// The device's Ethernet address.
    pub fn mac(&self) -> [u8; 6] {
        self.driver.mac_address()
    }

    /// Resets the device, and then ends the sharing of the frames that it had.
    pub fn close(self) {
        drop(self);
        let left = core::mem::replace(&mut *SHARED.lock(), [None; 2 * FRAMES]);
        for entry in left.into_iter().flatten() {
            let start = NonNull::new(entry.buffer as *mut u8);
            let Some(start) = start else { continue };
            let buffer = NonNull::slice_from_raw_parts(start, entry.bytes);
            // SAFETY: The address was shared for this buffer, whose memory is leaked, and the device
            // was reset.
            unsafe { Hal::unshare(entry.address, buffer, entry.direction) };
        }
    }

    /// A frame's memory.
    ///
    /// # Safety
    /// The device does not have the frame, and no other result for it is used.
    unsafe fn frame(&self, frame: usize, bytes: usize) -> &'static mut [u8] {
        assert!(frame < FRAMES && bytes <= FRAME_BYTES, "frame out of range");
        let start = self.memory + (frame * FRAME_BYTES) as u64;
        // SAFETY: The frame lies in the memory, which is ours for ever; the caller vouches that
        // nobody else uses it now.
        unsafe { core::slice::from_raw_parts_mut(start as *mut u8, bytes) }
    }

    /// Hands a frame to the device to be filled.
    fn offer(&mut self, frame: usize) -> Result<(), Error> {
        // SAFETY: The frame is not with the device, and nobody touches it until it is complete.
        let token = unsafe {
            let bytes = self.frame(frame, FRAME_BYTES);
            self.driver.receive_begin(bytes)?
        };
        let slot = self.receiving.get_mut(usize::from(token));
        *slot.ok_or(Error::WrongToken)? = Some(frame);
        Ok(())
    }

    /// Takes the next filled frame, if there is one, and offers its memory again.
    fn take(&mut self) -> Result<Option<Received>, Error> {
        let Some(token) = self.driver.poll_receive() else {
            return Ok(None);
        };
        let slot = self.receiving.get_mut(usize::from(token));
        let frame = slot.and_then(Option::take).ok_or(Error::WrongToken)?;
        let mut received = Received {
            bytes: [0; ETHERNET_BYTES],
            length: 0,
        };
        // SAFETY: The frame that the token stands for, with the length it was offered with.
        unsafe {
            let bytes = self.frame(frame, FRAME_BYTES);
            let (header, length) = self.driver.receive_complete(token, bytes)?;
            // The length is the device's: no more than a frame is believed.
            let packet = bytes.get(header..header.saturating_add(length));
            let packet = packet.ok_or(Error::IoError)?;
            let room = received.bytes.get_mut(..packet.len());
            room.ok_or(Error::IoError)?.copy_from_slice(packet);
            received.length = packet.len();
        }
        self.offer(frame)?;
        Ok(Some(received))
    }

    /// Takes back the frames that were sent.
    fn reclaim(&mut self) -> Result<(), Error> {
        while let Some(token) = self.driver.poll_transmit() {
            let slot = self.sending.get_mut(usize::from(token));
            let (frame, bytes) = slot.and_then(Option::take).ok_or(Error::WrongToken)?;
            // SAFETY: The frame that the token stands for, with the length it was sent with.
            unsafe {
                let bytes = self.frame(RECEIVING + frame, bytes);
                self.driver.transmit_complete(token, bytes)?;
            }
            self.free |= 1 << frame;
        }
        Ok(())
    }

    /// Sends a frame of `length` bytes that `fill` writes. There is a free one.
    fn send<R>(&mut self, length: usize, fill: impl FnOnce(&mut [u8]) -> R) -> Result<R, Error> {
        let frame = self.free.trailing_zeros() as usize;
        if frame >= SENDING || length > ETHERNET_BYTES {
            return Err(Error::QueueFull);
        }
        // SAFETY: The frame is free, so the device does not have it.
        let bytes = unsafe { self.frame(RECEIVING + frame, FRAME_BYTES) };
        let header = self.driver.fill_buffer_header(bytes)?;
        let whole = header + length;
        let packet = bytes.get_mut(header..whole).ok_or(Error::InvalidParam)?;
        let result = fill(packet);
        let whole_frame = bytes.get(..whole).ok_or(Error::InvalidParam)?;
        // SAFETY: Nobody touches the frame until its bit is set again.
        let token = unsafe { self.driver.transmit_begin(whole_frame)? };
        let slot = self.sending.get_mut(usize::from(token));
        *slot.ok_or(Error::WrongToken)? = Some((frame, whole));
        self.free &= !(1 << frame);
        Ok(result)
    }
}

/// The device's errors end the guest: the stack's interface has none.
fn expect<T>(outcome: Result<T, Error>) -> T {
    outcome.unwrap_or_else(|error| fail(Stop::Network, format_args!("the device: {error:?}")))
}

/// A received packet, in private memory.
pub struct Received {
    bytes: [u8; ETHERNET_BYTES],
    length: usize,
}

impl phy::RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(self.bytes.get(..self.length).unwrap_or(&[]))
    }
}

/// Leave to send one packet.
pub struct Outgoing<'a>(&'a mut NetDevice);

impl phy::TxToken for Outgoing<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, f: F) -> R {
        expect(self.0.send(length, f))
    }
}

impl phy::Device for NetDevice {
    type RxToken<'a> = Received;
    type TxToken<'a> = Outgoing<'a>;

    fn receive(&mut self, now: Instant) -> Option<(Received, Outgoing<'_>)> {
        // An answer must be possible.
        self.transmit(now)?;
        let received = expect(self.take())?;
        Some((received, Outgoing(self)))
    }

    fn transmit(&mut self, _now: Instant) -> Option<Outgoing<'_>> {
        expect(self.reclaim());
        (self.free != 0).then_some(Outgoing(self))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = ETHERNET_BYTES;
        capabilities
    }
}
