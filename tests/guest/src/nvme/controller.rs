// SPDX-License-Identifier: MIT OR Apache-2.0
//! Starts a controller, asks what it is, and creates queue pairs.

use super::command::Command;
use super::memory::{SharedAllocator, SharedMemory};
use super::queue::{ENTRIES, QueuePair};
use super::registers::{
    ACQ, AQA, ASQ, CAP, CC, CC_ENABLE, CC_ENTRY_SIZES, CSTS, CSTS_FATAL, CSTS_READY, Capabilities,
    INTMS, Registers,
};
use super::{NvmeError, PAGE_BYTES};

/// Reads of the status register before the driver gives up; each is an exit of 20 us and more.
const PATIENCE: u32 = 500_000;
/// The only namespace that is used.
pub const NAMESPACE: u32 = 1;

/// What the controller says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// Blocks of the namespace.
    pub blocks: u64,
    /// Bytes of a block, a power of two from 512 to 4096.
    pub block_bytes: u64,
    /// Longest transfer in bytes; `u64::MAX` when there is no limit.
    pub largest_transfer: u64,
}

/// A running controller. It is to be stopped before its memory may be used for anything else.
#[derive(Debug)]
pub struct Controller<R, A: SharedAllocator> {
    registers: R,
    allocator: A,
    stride: u64,
    admin: QueuePair<R, A::Memory>,
    commands: u16,
}

impl<R: Registers + Clone, A: SharedAllocator> Controller<R, A> {
    /// Resets the controller, whoever used it before, and starts it with an admin queue.
    ///
    /// # Errors
    /// [`NvmeError`].
    pub fn start(registers: R, allocator: A) -> Result<Self, NvmeError> {
        let raw = registers.read_64(CAP)?;
        let capabilities = Capabilities(raw);
        if !capabilities.is_usable() || capabilities.most_entries() < u32::from(ENTRIES) {
            return Err(NvmeError::Capabilities(raw));
        }
        disable(&registers)?;
        let stride = capabilities.doorbell_stride();
        let admin = new_pair(&registers, &allocator, 0, stride)?;
        let [submission, completion] = admin.addresses();
        let size = u32::from(ENTRIES) - 1;
        registers.write_32(AQA, size << 16 | size)?;
        registers.write_64(ASQ, submission)?;
        registers.write_64(ACQ, completion)?;
        registers.write_32(CC, CC_ENTRY_SIZES | CC_ENABLE)?;
        wait(&registers, CSTS_READY)?;
        // The driver polls: no interrupt may be raised that nobody handles.
        registers.write_32(INTMS, u32::MAX)?;
        Ok(Self {
            registers,
            allocator,
            stride,
            admin,
            commands: 0,
        })
    }

    /// Identifies controller and namespace.
    ///
    /// # Errors
    /// [`NvmeError`].
    pub fn identify(&mut self) -> Result<Identity, NvmeError> {
        let page = self.allocator.allocate(PAGE_BYTES);
        let page = page.ok_or(NvmeError::Memory)?;
        let identity = self.identify_into(&page);
        self.allocator.free(page);
        identity
    }

    fn identify_into(&mut self, page: &A::Memory) -> Result<Identity, NvmeError> {
        let field = |offset: usize, bytes: usize| {
            let mut value = [0; 8];
            let part = value.get_mut(..bytes).ok_or(NvmeError::Memory)?;
            page.read(offset, part)?;
            Ok::<_, NvmeError>(u64::from_le_bytes(value))
        };
        self.execute(Command::identify(0, page.address()))?;
        let (limit, namespaces) = (field(77, 1)?, field(516, 4)?);
        if namespaces < u64::from(NAMESPACE) {
            return Err(NvmeError::Identification);
        }
        // 0 is no limit; a power of two in pages, beyond what a shift can say no limit either.
        let largest_transfer = match u32::try_from(limit) {
            Ok(shift @ 1..=40) => (PAGE_BYTES as u64) << shift,
            _ => u64::MAX,
        };
        self.execute(Command::identify(NAMESPACE, page.address()))?;
        let (blocks, format) = (field(0, 8)?, field(26, 1)? & 0xf);
        let format = 128 + 4 * usize::try_from(format).unwrap_or(0);
        let (metadata, shift) = (field(format, 2)?, field(format + 2, 1)?);
        let block_bytes = match shift {
            9..=12 if metadata == 0 => 1 << shift,
            _ => return Err(NvmeError::Identification),
        };
        if blocks == 0 || blocks.checked_mul(block_bytes).is_none() {
            return Err(NvmeError::Identification);
        }
        Ok(Identity {
            blocks,
            block_bytes,
            largest_transfer,
        })
    }

    /// Creates the I/O queue pair `number`, at least 1: one for each user.
    ///
    /// # Errors
    /// [`NvmeError`].
    pub fn create_queue_pair(&mut self, number: u16) -> Result<QueuePair<R, A::Memory>, NvmeError> {
        let pair = new_pair(&self.registers, &self.allocator, number, self.stride)?;
        let [submission, completion] = pair.addresses();
        self.execute(Command::create_completion_queue(
            number, ENTRIES, completion,
        ))?;
        self.execute(Command::create_submission_queue(
            number, ENTRIES, submission,
        ))?;
        Ok(pair)
    }

    /// Memory for a driver that is built on this one.
    ///
    /// # Errors
    /// [`NvmeError::Memory`].
    pub fn allocate(&self, bytes: usize) -> Result<A::Memory, NvmeError> {
        self.allocator.allocate(bytes).ok_or(NvmeError::Memory)
    }

    /// Stops the controller and frees its memory: that of `pairs` and of `more` as well.
    ///
    /// # Errors
    /// [`NvmeError`]; the memory stays in use then, since the controller may still write to it.
    pub fn stop(
        self,
        pairs: impl IntoIterator<Item = QueuePair<R, A::Memory>>,
        more: impl IntoIterator<Item = A::Memory>,
    ) -> Result<(), NvmeError> {
        disable(&self.registers)?;
        let pairs = core::iter::once(self.admin).chain(pairs);
        pairs
            .flat_map(QueuePair::into_memory)
            .chain(more)
            .for_each(|memory| self.allocator.free(memory));
        Ok(())
    }

    /// Executes an admin command and waits for it.
    fn execute(&mut self, command: Command) -> Result<(), NvmeError> {
        self.commands = self.commands.wrapping_add(1);
        self.admin.submit(self.commands, command)?;
        for _ in 0..PATIENCE {
            if let Some(completion) = self.admin.poll()? {
                if completion.identifier != self.commands {
                    return Err(NvmeError::UnknownCommand(completion.identifier));
                }
                return match completion.status() {
                    0 => Ok(()),
                    status => Err(NvmeError::Status(status)),
                };
            }
            if self.registers.read_32(CSTS)? & CSTS_FATAL != 0 {
                return Err(NvmeError::Fatal);
            }
        }
        Err(NvmeError::Timeout)
    }
}

fn new_pair<R: Registers + Clone, A: SharedAllocator>(
    registers: &R,
    allocator: &A,
    number: u16,
    stride: u64,
) -> Result<QueuePair<R, A::Memory>, NvmeError> {
    let page = || allocator.allocate(PAGE_BYTES).ok_or(NvmeError::Memory);
    let (submission, completion) = (page()?, page()?);
    let registers = registers.clone();
    Ok(QueuePair::new(
        registers, number, stride, submission, completion,
    ))
}

fn disable(registers: &impl Registers) -> Result<(), NvmeError> {
    registers.write_32(CC, 0)?;
    wait(registers, 0)
}

/// Waits until the ready bit is `ready`.
fn wait(registers: &impl Registers, ready: u32) -> Result<(), NvmeError> {
    for _ in 0..PATIENCE {
        let status = registers.read_32(CSTS)?;
        // A controller that is being reset may still show the error it is reset for.
        if ready != 0 && status & CSTS_FATAL != 0 {
            return Err(NvmeError::Fatal);
        }
        if status & CSTS_READY == ready {
            return Ok(());
        }
    }
    Err(NvmeError::NotReady)
}
