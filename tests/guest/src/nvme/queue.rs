// SPDX-License-Identifier: MIT OR Apache-2.0
//! A submission and a completion queue of one number, used by one processor.

use core::sync::atomic::{Ordering, fence};

use zerocopy::{FromZeros, IntoBytes};

use super::NvmeError;
use super::command::{COMMAND_BYTES, COMPLETION_BYTES, Command, Completion, PHASE_OFFSET};
use super::memory::SharedMemory;
use super::registers::{DOORBELLS, Registers};

/// Entries of every queue; the submission queue fills one page.
pub const ENTRIES: u16 = 64;

/// The pair. Where it is, is private; its entries are shared memory.
#[derive(Debug)]
pub struct QueuePair<R, M> {
    registers: R,
    number: u16,
    /// Doorbells of submission and completion queue.
    doorbells: [u64; 2],
    submission: M,
    completion: M,
    tail: u16,
    head: u16,
    phase: u16,
    in_flight: u16,
}

impl<R: Registers, M: SharedMemory> QueuePair<R, M> {
    /// A pair over two zeroed pages, before anything was submitted.
    pub fn new(registers: R, number: u16, stride: u64, submission: M, completion: M) -> Self {
        let first = DOORBELLS + 2 * u64::from(number) * stride;
        Self {
            registers,
            number,
            doorbells: [first, first + stride],
            submission,
            completion,
            tail: 0,
            head: 0,
            phase: 1,
            in_flight: 0,
        }
    }

    /// Addresses of submission and completion queue.
    pub fn addresses(&self) -> [u64; 2] {
        [self.submission.address(), self.completion.address()]
    }

    /// Submits a command, which its completion will name `identifier`.
    ///
    /// # Errors
    /// [`NvmeError::QueueFull`], or what is wrong with memory or host.
    pub fn submit(&mut self, identifier: u16, mut command: Command) -> Result<(), NvmeError> {
        // One entry stays free: a full queue would look empty.
        if self.in_flight + 1 >= ENTRIES {
            return Err(NvmeError::QueueFull);
        }
        command.identifier = identifier;
        let offset = usize::from(self.tail) * COMMAND_BYTES;
        self.submission.write(offset, command.as_bytes())?;
        self.tail = (self.tail + 1) % ENTRIES;
        // The controller reads the entry once the doorbell says so.
        fence(Ordering::SeqCst);
        self.registers
            .write_32(self.doorbells[0], u32::from(self.tail))?;
        self.in_flight += 1;
        Ok(())
    }

    /// The next completion, if there is one.
    ///
    /// # Errors
    /// [`NvmeError::UnknownCommand`] when nothing is in flight or it names another queue.
    pub fn poll(&mut self) -> Result<Option<Completion>, NvmeError> {
        let offset = usize::from(self.head) * COMPLETION_BYTES;
        let mut phase = [0; 2];
        self.completion.read(offset + PHASE_OFFSET, &mut phase)?;
        if u16::from_le_bytes(phase) & 1 != self.phase {
            return Ok(None);
        }
        // The phase turns last; what was written before it is read behind it.
        fence(Ordering::Acquire);
        let mut completion = Completion::new_zeroed();
        self.completion.read(offset, completion.as_mut_bytes())?;
        self.head = (self.head + 1) % ENTRIES;
        if self.head == 0 {
            self.phase ^= 1;
        }
        self.registers
            .write_32(self.doorbells[1], u32::from(self.head))?;
        if self.in_flight == 0 || completion.queue != self.number {
            return Err(NvmeError::UnknownCommand(completion.identifier));
        }
        self.in_flight -= 1;
        Ok(Some(completion))
    }

    /// The pair's memory, once the controller has stopped.
    pub fn into_memory(self) -> [M; 2] {
        [self.submission, self.completion]
    }
}
