// SPDX-License-Identifier: MIT OR Apache-2.0
//! One wrong call.

use snp::address::PAGE_SIZE;
use snp::svsm::{CallId, CallRegisters, PvalidateListEntry, PvalidateListHeader, ResultCode};
use zerocopy::IntoBytes;

use super::Facts;

/// Bytes of a page as an index.
const PAGE_BYTES: usize = 4096;
const _: () = assert!(PAGE_BYTES as u64 == PAGE_SIZE);

/// A wrong call and what it must answer.
#[derive(Clone, Copy)]
pub struct Case {
    /// Name in the records.
    pub name: &'static str,
    /// The code that the documents promise.
    pub expected: ResultCode,
    /// RCX on return, where it is not what was passed: a limit, or an empty version range.
    pub rcx: Option<u64>,
    /// The cap is lowered to what is granted for this case.
    pub cap_at_granted: bool,
    /// Writes the list, if the call has one, and gives the registers.
    pub build: fn(&Facts, &mut ListPage) -> CallRegisters,
}

impl Case {
    /// A call that is refused with `expected`, everything else being preserved.
    pub(super) const fn refused(
        name: &'static str,
        expected: ResultCode,
        build: fn(&Facts, &mut ListPage) -> CallRegisters,
    ) -> Self {
        Self {
            name,
            expected,
            rcx: None,
            cap_at_granted: false,
            build,
        }
    }

    /// The same case with the cap at what is granted.
    pub(super) const fn with_cap_at_granted(mut self) -> Self {
        self.cap_at_granted = true;
        self
    }

    /// The same case with this RCX on return.
    pub(super) const fn returning(mut self, rcx: u64) -> Self {
        self.rcx = Some(rcx);
        self
    }
}

impl core::fmt::Debug for Case {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{} -> {}", self.name, self.expected)
    }
}

/// Registers of a call.
pub(super) const fn registers(protocol: u32, call: u32, arguments: [u64; 3]) -> CallRegisters {
    CallRegisters::new(CallId { protocol, call }.to_rax(), arguments)
}

/// The page that lists are written in, as it is before the call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListPage {
    bytes: [u8; PAGE_BYTES],
}

impl ListPage {
    /// Byte every unused part of the page holds, so that a stray write shows.
    const FILL: u8 = 0xa5;

    /// A page without a list.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            bytes: [Self::FILL; PAGE_BYTES],
        }
    }

    /// A page with these contents.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; PAGE_BYTES]) -> Self {
        Self { bytes }
    }

    /// The contents.
    #[must_use]
    pub const fn bytes(&self) -> &[u8; PAGE_BYTES] {
        &self.bytes
    }

    /// Writes `bytes` at `offset`; what does not fit is left out.
    pub(super) fn put(&mut self, offset: usize, bytes: &[u8]) {
        for (slot, byte) in self.bytes.iter_mut().skip(offset).zip(bytes) {
            *slot = *byte;
        }
    }

    /// Writes a PVALIDATE list of one entry at the start of the page.
    pub(super) fn pvalidate(&mut self, entry: PvalidateListEntry) {
        self.pvalidate_header(
            0,
            PvalidateListHeader {
                entries: 1,
                next: 0,
                reserved: 0,
            },
        );
        self.put(size_of::<PvalidateListHeader>(), entry.as_bytes());
    }

    /// Writes the header of a PVALIDATE list.
    pub(super) fn pvalidate_header(&mut self, offset: usize, header: PvalidateListHeader) {
        self.put(offset, header.as_bytes());
    }
}

impl Default for ListPage {
    fn default() -> Self {
        Self::new()
    }
}
