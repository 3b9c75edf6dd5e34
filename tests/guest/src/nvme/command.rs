// SPDX-License-Identifier: MIT OR Apache-2.0
//! Submission and completion queue entries (NVM Express base specification 2.0, 3.3.3).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Opcodes of admin and I/O commands.
pub mod opcode {
    /// Admin: create an I/O submission queue.
    pub const CREATE_SUBMISSION_QUEUE: u8 = 0x01;
    /// Admin: create an I/O completion queue.
    pub const CREATE_COMPLETION_QUEUE: u8 = 0x05;
    /// Admin: identify.
    pub const IDENTIFY: u8 = 0x06;
    /// NVM: read.
    pub const READ: u8 = 0x02;
}

/// A submission queue entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Command {
    /// What to do.
    pub opcode: u8,
    /// Fused operation and PRP or SGL: 0 for a single command with PRPs.
    pub flags: u8,
    /// Names the command in its completion.
    pub identifier: u16,
    /// The namespace.
    pub namespace: u32,
    /// 0.
    pub reserved: u64,
    /// No metadata.
    pub metadata: u64,
    /// First and second PRP entry.
    pub prp: [u64; 2],
    /// Command dwords 10 to 15.
    pub arguments: [u32; 6],
}

/// Bytes of a [`Command`].
pub const COMMAND_BYTES: usize = 64;
const _: () = assert!(size_of::<Command>() == COMMAND_BYTES);

impl Command {
    const fn new(opcode: u8, namespace: u32, prp: [u64; 2], arguments: [u32; 6]) -> Self {
        Self {
            opcode,
            flags: 0,
            identifier: 0,
            namespace,
            reserved: 0,
            metadata: 0,
            prp,
            arguments,
        }
    }

    /// Identifies the controller (`namespace` 0) or a namespace, into one page.
    #[must_use]
    pub const fn identify(namespace: u32, page: u64) -> Self {
        let structure = if namespace == 0 { 1 } else { 0 };
        let arguments = [structure, 0, 0, 0, 0, 0];
        Self::new(opcode::IDENTIFY, namespace, [page, 0], arguments)
    }

    /// Creates a completion queue that raises no interrupt.
    #[must_use]
    pub const fn create_completion_queue(queue: u16, entries: u16, page: u64) -> Self {
        let arguments = [queue_and_size(queue, entries), CONTIGUOUS, 0, 0, 0, 0];
        Self::new(opcode::CREATE_COMPLETION_QUEUE, 0, [page, 0], arguments)
    }

    /// Creates the submission queue that belongs to the completion queue of the same number.
    #[must_use]
    pub const fn create_submission_queue(queue: u16, entries: u16, page: u64) -> Self {
        let attributes = (queue as u32) << 16 | CONTIGUOUS;
        let arguments = [queue_and_size(queue, entries), attributes, 0, 0, 0, 0];
        Self::new(opcode::CREATE_SUBMISSION_QUEUE, 0, [page, 0], arguments)
    }

    /// Reads `blocks` blocks, at least 1, from `first` on.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the two halves of a number"
    )]
    pub const fn read(namespace: u32, first: u64, blocks: u16, prp: [u64; 2]) -> Self {
        let (low, high) = (first as u32, (first >> 32) as u32);
        let arguments = [low, high, blocks as u32 - 1, 0, 0, 0];
        Self::new(opcode::READ, namespace, prp, arguments)
    }
}

/// The queue is physically contiguous.
const CONTIGUOUS: u32 = 1;

/// Command dword 10 of the queue commands; the size counts from 0.
const fn queue_and_size(queue: u16, entries: u16) -> u32 {
    (entries as u32 - 1) << 16 | queue as u32
}

/// A completion queue entry, as it was copied out.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Completion {
    /// Command specific.
    pub result: u32,
    /// Reserved.
    pub reserved: u32,
    /// How far the controller has read the submission queue.
    pub submission_head: u16,
    /// The submission queue.
    pub queue: u16,
    /// The command.
    pub identifier: u16,
    /// Phase tag in bit 0, status above.
    pub status_and_phase: u16,
}

/// Bytes of a [`Completion`].
pub const COMPLETION_BYTES: usize = 16;
/// Offset of [`Completion::status_and_phase`].
pub const PHASE_OFFSET: usize = 14;
const _: () = assert!(size_of::<Completion>() == COMPLETION_BYTES);

impl Completion {
    /// Status code and status code type; 0 is success.
    #[must_use]
    pub const fn status(&self) -> u16 {
        // Bits above are "more", "do not retry" and a retry delay.
        self.status_and_phase >> 1 & 0x7ff
    }
}

#[cfg(test)]
mod tests {
    use super::{Command, Completion};
    use zerocopy::IntoBytes;

    #[test]
    fn golden_commands() {
        let read = Command::read(1, 0x1_0000_0002, 8, [0x1000, 0x2000]);
        let bytes = read.as_bytes();
        assert_eq!(bytes[..8], [2, 0, 0, 0, 1, 0, 0, 0]);
        assert_eq!(bytes[24..26], [0, 0x10]);
        assert_eq!(bytes[32..34], [0, 0x20]);
        assert_eq!(bytes[40..52], [2, 0, 0, 0, 1, 0, 0, 0, 7, 0, 0, 0]);
        let queue = Command::create_submission_queue(3, 64, 0x5000);
        assert_eq!(queue.arguments, [63 << 16 | 3, 3 << 16 | 1, 0, 0, 0, 0]);
        let queue = Command::create_completion_queue(3, 64, 0x5000);
        assert_eq!(queue.arguments[1], 1, "contiguous, no interrupts");
        assert_eq!(Command::identify(0, 0x1000).arguments[0], 1);
        assert_eq!(Command::identify(1, 0x1000).arguments[0], 0);
    }

    #[test]
    fn the_status_has_no_phase_and_no_retry_bits() {
        let completion = Completion {
            status_and_phase: 0xe000 | 0x281 << 1 | 1,
            ..Completion::default()
        };
        assert_eq!(completion.status(), 0x281);
    }
}
