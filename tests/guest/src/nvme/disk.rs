// SPDX-License-Identifier: MIT OR Apache-2.0
//! A namespace as a [`Disk`]: many reads in flight, each on its own slot.

use zerocopy::IntoBytes;

use super::command::Command;
use super::controller::{Controller, Identity, NAMESPACE};
use super::memory::{DataBuffers, SharedAllocator, SharedMemory};
use super::prp::Pages;
use super::queue::QueuePair;
use super::registers::Registers;
use super::{NvmeError, PAGE_BYTES};
use crate::request_plan::{MAX_DEPTH, MAX_REQUEST_BYTES, Request};
use crate::transfer::{Disk, Token};

/// The number of the queue pair.
const QUEUE: u16 = 1;

/// A slot of the ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Slot {
    Idle,
    InFlight,
    Finished(u16),
}

/// The namespace, its queue pair, and one PRP list for each slot.
#[derive(Debug)]
pub struct NvmeDisk<R, A: SharedAllocator, B> {
    controller: Controller<R, A>,
    queue: QueuePair<R, A::Memory>,
    lists: [A::Memory; MAX_DEPTH],
    slots: [Slot; MAX_DEPTH],
    buffers: B,
    identity: Identity,
}

impl<R: Registers + Clone, A: SharedAllocator, B: DataBuffers> NvmeDisk<R, A, B> {
    /// Starts the controller and opens its first namespace.
    ///
    /// # Errors
    /// [`NvmeError`].
    pub fn open(registers: R, allocator: A, buffers: B) -> Result<Self, NvmeError> {
        let mut controller = Controller::start(registers, allocator)?;
        let identity = controller.identify()?;
        if identity.largest_transfer < PAGE_BYTES as u64 {
            return Err(NvmeError::Identification);
        }
        let queue = controller.create_queue_pair(QUEUE)?;
        let mut lists = [const { None }; MAX_DEPTH];
        for list in &mut lists {
            *list = Some(controller.allocate(PAGE_BYTES)?);
        }
        // Each of them was just filled.
        let lists = lists.map(|list| list.expect("a list for each slot"));
        Ok(Self {
            controller,
            queue,
            lists,
            slots: [Slot::Idle; MAX_DEPTH],
            buffers,
            identity,
        })
    }

    /// Bytes of the namespace.
    pub const fn bytes(&self) -> u64 {
        self.identity.blocks * self.identity.block_bytes
    }

    /// Stops the controller and frees everything; the buffers come back.
    ///
    /// # Errors
    /// [`NvmeError`].
    pub fn close(self) -> Result<B, NvmeError> {
        self.controller.stop([self.queue], self.lists)?;
        Ok(self.buffers)
    }

    fn command(&mut self, slot: usize, request: Request) -> Result<Command, NvmeError> {
        let block = self.identity.block_bytes;
        let blocks = u16::try_from(request.bytes / block);
        let blocks = blocks.map_err(|_| NvmeError::Transfer)?;
        let whole = request.offset.is_multiple_of(block) && request.bytes.is_multiple_of(block);
        let list = self.lists.get_mut(slot).ok_or(NvmeError::Transfer)?;
        if !whole || blocks == 0 || request.bytes > self.identity.largest_transfer {
            return Err(NvmeError::Transfer);
        }
        let address = self.buffers.map(slot, request.bytes);
        let pages = Pages::of(address.ok_or(NvmeError::Mapping)?, request.bytes)?;
        let prp = match pages {
            Pages::Inline(prp) => prp,
            Pages::List { first, .. } => {
                let mut entries = [0_u64; PAGE_BYTES / 8];
                let mut used = 0;
                for (slot, entry) in entries.iter_mut().zip(pages.entries()) {
                    *slot = entry;
                    used += 8;
                }
                let bytes = entries.as_bytes();
                list.write(0, bytes.get(..used).unwrap_or(bytes))?;
                [first, list.address()]
            }
        };
        let first = request.offset / block;
        Ok(Command::read(NAMESPACE, first, blocks, prp))
    }
}

impl<R: Registers + Clone, A: SharedAllocator, B: DataBuffers> Disk for NvmeDisk<R, A, B> {
    type Error = NvmeError;

    fn largest_request(&self) -> u64 {
        self.identity.largest_transfer.min(MAX_REQUEST_BYTES)
    }

    fn start(&mut self, slot: usize, request: Request) -> Result<Token, NvmeError> {
        let command = self.command(slot, request)?;
        let token = Token::try_from(slot).map_err(|_| NvmeError::Transfer)?;
        self.queue.submit(token, command)?;
        if let Some(state) = self.slots.get_mut(slot) {
            *state = Slot::InFlight;
        }
        Ok(token)
    }

    fn finished(&mut self) -> Result<Option<Token>, NvmeError> {
        let Some(completion) = self.queue.poll()? else {
            return Ok(None);
        };
        let token = completion.identifier;
        match self.slots.get_mut(usize::from(token)) {
            Some(slot @ Slot::InFlight) => *slot = Slot::Finished(completion.status()),
            _ => return Err(NvmeError::UnknownCommand(token)),
        }
        Ok(Some(token))
    }

    fn complete(&mut self, slot: usize, token: Token) -> Result<(), NvmeError> {
        let state = self.slots.get_mut(slot);
        let Some((state, Slot::Finished(status))) = state.map(|state| {
            let now = *state;
            (state, now)
        }) else {
            return Err(NvmeError::UnknownCommand(token));
        };
        *state = Slot::Idle;
        if !self.buffers.unmap(slot, status == 0) {
            return Err(NvmeError::Mapping);
        }
        match status {
            0 => Ok(()),
            status => Err(NvmeError::Status(status)),
        }
    }
}
