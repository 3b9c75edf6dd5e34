// SPDX-License-Identifier: MIT OR Apache-2.0
//! Arguments of each call; [`Request::decode`] is the border of the service (clauses P-4.1 to P-4.9).
//!
//! Decoding refuses everything that is wrong whatever the service's state: unknown bits, misalignment, zero and wrapping
//! ranges. What depends on the state (the epoch, who holds a chunk, which page is guest memory) stays to be checked, and
//! the fields say so.

use bitfield_struct::bitfield;
use snp::address::{GuestPhysicalAddress, PAGE_SIZE};
use snp::svsm::{CallId, CallRegisters, ResultCode, calling_area};

use crate::holder::{both_halves, high_half, low_half};
use crate::memory_form::{BLOCK_BYTES, MARK};
use crate::trace::RECORD_BYTES;
use crate::{CHUNK_BYTES, Call, MAX_WINDOWS};

/// What DESCRIBE is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u64)]
pub enum DescribeItem {
    /// Base, bytes, attributes.
    Geometry = 0,
    /// Cap, granted and quarantined bytes.
    Usage = 1,
    /// What one call does at most.
    WorkLimits = 2,
}

impl TryFrom<u64> for DescribeItem {
    /// The number that names no item.
    type Error = u64;

    fn try_from(number: u64) -> Result<Self, u64> {
        match number {
            0 => Ok(Self::Geometry),
            1 => Ok(Self::Usage),
            2 => Ok(Self::WorkLimits),
            _ => Err(number),
        }
    }
}

/// A call with its arguments. An `epoch` or `generation` here is a claim: any number, to be compared by the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Request {
    /// See [`Call::Identify`].
    Identify,
    /// See [`Call::Describe`].
    Describe {
        /// Which window.
        window: u8,
        /// Which of its properties.
        item: DescribeItem,
    },
    /// See [`Call::Attach`].
    Attach {
        /// Version the guest will speak.
        version: u64,
    },
    /// See [`Call::ListGranted`].
    ListGranted {
        /// Where the list is; 8-byte aligned.
        list: GuestPhysicalAddress,
        /// The caller's epoch.
        epoch: u32,
    },
    /// See [`Call::Adopt`].
    Adopt {
        /// The caller's epoch.
        epoch: u32,
        /// Whose chunks it takes: an earlier epoch's, not 0.
        from: u32,
    },
    /// See [`Call::ReleaseOrphans`].
    ReleaseOrphans {
        /// The caller's epoch.
        epoch: u32,
        /// Whose chunks it gives back: an earlier epoch's, not 0.
        from: u32,
    },
    /// See [`Call::Detach`].
    Detach {
        /// The caller's epoch.
        epoch: u32,
    },
    /// See [`Call::Grow`].
    Grow {
        /// Which window.
        window: u8,
        /// Refuse rather than grant fewer than `least` bytes.
        contiguous: bool,
        /// The caller's epoch.
        epoch: u32,
        /// Least bytes wished for: a multiple of the chunk size, not 0.
        least: u64,
        /// Most bytes wished for: a multiple of the chunk size, at least `least`.
        most: u64,
    },
    /// See [`Call::Release`].
    Release {
        /// First byte of the range; chunk aligned.
        base: GuestPhysicalAddress,
        /// Bytes: a multiple of the chunk size, not 0, and the range's end stays within the physical address space.
        bytes: u64,
        /// The caller's epoch.
        epoch: u32,
        /// Generation of the grant.
        generation: u32,
    },
    /// See [`Call::Convert`].
    Convert {
        /// Where the list is; 8-byte aligned.
        list: GuestPhysicalAddress,
        /// The caller's epoch.
        epoch: u32,
    },
    /// See [`Call::Statistics`].
    Statistics {
        /// Where the counters go; 8-byte aligned.
        buffer: GuestPhysicalAddress,
        /// Room there: a multiple of 8, not 0, and the buffer ends in the page it begins in.
        bytes: u64,
    },
    /// See [`Call::Trace`].
    Trace {
        /// Where the records go; 8-byte aligned.
        buffer: GuestPhysicalAddress,
        /// Room there: a multiple of a record, not 0, and the buffer ends in the page it begins in.
        bytes: u64,
        /// Sequence number to begin at.
        from: u64,
    },
    /// See [`Call::SetLimits`].
    SetLimits {
        /// Which window.
        window: u8,
        /// The caller's epoch.
        epoch: u32,
        /// The new cap: a multiple of the chunk size; 0 stops all growth.
        cap: u64,
    },
    /// See [`Call::MemoryForm`].
    MemoryForm {
        /// Where the block is; 8-byte aligned, behind the header of its page, and it ends in that page.
        block: GuestPhysicalAddress,
    },
}

/// RCX of GROW and SET_LIMITS.
#[bitfield(u64)]
struct WindowRcx {
    window: u8,
    contiguous: bool,
    #[bits(23)]
    reserved: u32,
    epoch: u32,
}

impl Request {
    /// Checks and takes apart the registers of a call. The protocol number in RAX\[63:32\] is the dispatcher's business
    /// and is not looked at.
    ///
    /// # Errors
    /// UNSUPPORTED_CALL for a number that this version does not offer, INVALID_PARAMETER for arguments that no state of
    /// the service could make right.
    pub fn decode(registers: &CallRegisters) -> Result<Self, ResultCode> {
        let number = CallId::from_rax(registers.rax).call;
        let call = Call::try_from(number).map_err(|_| ResultCode::UNSUPPORTED_CALL)?;
        let CallRegisters {
            rax: _,
            rcx,
            rdx,
            r8,
            r9: _,
        } = *registers;
        match call {
            Call::Identify => {
                all_zero(&[rcx, rdx, r8])?;
                Ok(Self::Identify)
            }
            Call::Describe => {
                all_zero(&[r8])?;
                let item =
                    DescribeItem::try_from(rdx).map_err(|_| ResultCode::INVALID_PARAMETER)?;
                Ok(Self::Describe {
                    window: window_index(rcx)?,
                    item,
                })
            }
            Call::Attach => {
                all_zero(&[rdx, r8])?;
                Ok(Self::Attach { version: rcx })
            }
            Call::ListGranted => {
                all_zero(&[u64::from(high_half(rdx)), r8])?;
                let list = aligned_address(rcx, 8)?;
                Ok(Self::ListGranted {
                    list,
                    epoch: low_half(rdx),
                })
            }
            Call::Adopt => {
                let (epoch, from) = older_epoch(rcx, rdx, r8)?;
                Ok(Self::Adopt { epoch, from })
            }
            Call::ReleaseOrphans => {
                let (epoch, from) = older_epoch(rcx, rdx, r8)?;
                Ok(Self::ReleaseOrphans { epoch, from })
            }
            Call::Detach => {
                all_zero(&[u64::from(low_half(rcx)), rdx, r8])?;
                Ok(Self::Detach {
                    epoch: high_half(rcx),
                })
            }
            Call::Grow => {
                let wish = WindowRcx::from_bits(rcx);
                all_zero(&[u64::from(wish.reserved())])?;
                let least = chunk_multiple(rdx)?;
                let most = chunk_multiple(r8)?;
                require(0 < least && least <= most)?;
                Ok(Self::Grow {
                    window: window_index(wish.window().into())?,
                    contiguous: wish.contiguous(),
                    epoch: wish.epoch(),
                    least,
                    most,
                })
            }
            Call::Release => {
                let base = aligned_address(rcx, CHUNK_BYTES)?;
                let bytes = chunk_multiple(rdx)?;
                require(bytes > 0 && base.checked_add(bytes).is_some())?;
                Ok(Self::Release {
                    base,
                    bytes,
                    epoch: high_half(r8),
                    generation: low_half(r8),
                })
            }
            Call::Convert => {
                all_zero(&[u64::from(high_half(rdx)), r8])?;
                let list = aligned_address(rcx, 8)?;
                Ok(Self::Convert {
                    list,
                    epoch: low_half(rdx),
                })
            }
            Call::Statistics => {
                all_zero(&[r8])?;
                let buffer = buffer(rcx, rdx, 8)?;
                Ok(Self::Statistics { buffer, bytes: rdx })
            }
            Call::Trace => Ok(Self::Trace {
                buffer: buffer(rcx, rdx, RECORD_BYTES)?,
                bytes: rdx,
                from: r8,
            }),
            Call::SetLimits => {
                let subject = WindowRcx::from_bits(rcx);
                all_zero(&[subject.reserved().into(), subject.contiguous().into(), r8])?;
                Ok(Self::SetLimits {
                    window: window_index(subject.window().into())?,
                    epoch: subject.epoch(),
                    cap: chunk_multiple(rdx)?,
                })
            }
            Call::MemoryForm => {
                require(rdx == MARK && r8 == MARK)?;
                let block = buffer(rcx, BLOCK_BYTES, BLOCK_BYTES)?;
                require(block.page_offset() >= calling_area::BUFFER)?;
                Ok(Self::MemoryForm { block })
            }
            Call::Donate | Call::ExportState | Call::ImportState => {
                Err(ResultCode::UNSUPPORTED_CALL)
            }
        }
    }

    /// The registers that ask for this call of the protocol with this number.
    pub fn encode(&self, protocol: u32) -> CallRegisters {
        let (rcx, rdx, r8) = match *self {
            Self::Identify => (0, 0, 0),
            Self::Describe { window, item } => (u64::from(window), item as u64, 0),
            Self::Attach { version } => (version, 0, 0),
            Self::ListGranted { list, epoch } | Self::Convert { list, epoch } => {
                (list.bits(), u64::from(epoch), 0)
            }
            Self::Adopt { epoch, from } | Self::ReleaseOrphans { epoch, from } => {
                (both_halves(epoch, from), 0, 0)
            }
            Self::Detach { epoch } => (both_halves(epoch, 0), 0, 0),
            Self::Grow {
                window,
                contiguous,
                epoch,
                least,
                most,
            } => {
                let wish = WindowRcx::new()
                    .with_window(window)
                    .with_contiguous(contiguous)
                    .with_epoch(epoch);
                (wish.into_bits(), least, most)
            }
            Self::Release {
                base,
                bytes,
                epoch,
                generation,
            } => (base.bits(), bytes, both_halves(epoch, generation)),
            Self::Statistics { buffer, bytes } => (buffer.bits(), bytes, 0),
            Self::Trace {
                buffer,
                bytes,
                from,
            } => (buffer.bits(), bytes, from),
            Self::SetLimits { window, epoch, cap } => (
                WindowRcx::new()
                    .with_window(window)
                    .with_epoch(epoch)
                    .into_bits(),
                cap,
                0,
            ),
            Self::MemoryForm { block } => (block.bits(), MARK, MARK),
        };
        let id = CallId {
            protocol,
            call: self.call().number(),
        };
        CallRegisters::new(id.to_rax(), [rcx, rdx, r8])
    }

    /// Which call this is.
    pub const fn call(&self) -> Call {
        match self {
            Self::Identify => Call::Identify,
            Self::Describe { .. } => Call::Describe,
            Self::Attach { .. } => Call::Attach,
            Self::ListGranted { .. } => Call::ListGranted,
            Self::Adopt { .. } => Call::Adopt,
            Self::ReleaseOrphans { .. } => Call::ReleaseOrphans,
            Self::Detach { .. } => Call::Detach,
            Self::Grow { .. } => Call::Grow,
            Self::Release { .. } => Call::Release,
            Self::Convert { .. } => Call::Convert,
            Self::Statistics { .. } => Call::Statistics,
            Self::Trace { .. } => Call::Trace,
            Self::SetLimits { .. } => Call::SetLimits,
            Self::MemoryForm { .. } => Call::MemoryForm,
        }
    }
}

fn require(condition: bool) -> Result<(), ResultCode> {
    if condition {
        Ok(())
    } else {
        Err(ResultCode::INVALID_PARAMETER)
    }
}

/// Unknown bits are refused, never ignored: a later version may give them a meaning the caller relies on.
fn all_zero(fields: &[u64]) -> Result<(), ResultCode> {
    require(fields.iter().all(|field| *field == 0))
}

fn window_index(bits: u64) -> Result<u8, ResultCode> {
    let index = u8::try_from(bits).map_err(|_| ResultCode::INVALID_PARAMETER)?;
    require(index < MAX_WINDOWS)?;
    Ok(index)
}

fn aligned_address(bits: u64, align: u64) -> Result<GuestPhysicalAddress, ResultCode> {
    let address = GuestPhysicalAddress::new(bits);
    require(address.is_aligned(align))?;
    Ok(address)
}

/// RCX of ADOPT and RELEASE_ORPHANS: the caller's epoch, and an older one.
fn older_epoch(rcx: u64, rdx: u64, r8: u64) -> Result<(u32, u32), ResultCode> {
    all_zero(&[rdx, r8])?;
    let (epoch, from) = (high_half(rcx), low_half(rcx));
    require(0 < from && from < epoch)?;
    Ok((epoch, from))
}

/// A buffer of whole units that ends in the page it begins in.
fn buffer(address: u64, bytes: u64, unit: u64) -> Result<GuestPhysicalAddress, ResultCode> {
    let buffer = aligned_address(address, 8)?;
    let room = PAGE_SIZE.saturating_sub(buffer.page_offset());
    require(bytes > 0 && bytes.is_multiple_of(unit) && bytes <= room)?;
    Ok(buffer)
}

fn chunk_multiple(bytes: u64) -> Result<u64, ResultCode> {
    require(bytes.is_multiple_of(CHUNK_BYTES))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests;
