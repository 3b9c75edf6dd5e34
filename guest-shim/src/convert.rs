// SPDX-License-Identifier: MIT OR Apache-2.0
//! Pages of the kernel's own that have to be shared, and come back: by the service, in batches.

use core::fmt;

use protocol::convert::{ConvertEntry, MAX_ENTRIES, Outcome};
use snp::address::{GuestPhysicalAddress, PageSize};
use snp::svsm::{ListHeader, ResultCode};

use crate::client::CallError;
use crate::platform::Platform;
use crate::pool::Pool;

const CAPACITY: usize = MAX_ENTRIES as usize;

/// Pages to convert, and where to. It fills a page, which the service reads and writes during a call, so the kernel keeps
/// it in private memory.
#[repr(C, align(4096))]
pub struct ConvertList {
    header: ListHeader,
    entries: [ConvertEntry; CAPACITY],
}

impl ConvertList {
    /// An empty list.
    pub const fn new() -> Self {
        Self {
            header: ListHeader {
                entries: 0,
                next: 0,
                reserved: 0,
            },
            entries: [ConvertEntry::new(); CAPACITY],
        }
    }

    /// Makes the list empty.
    pub const fn clear(&mut self) {
        (self.header.entries, self.header.next) = (0, 0);
    }

    /// Adds the page at `address`, a multiple of its size; false when the list is full.
    pub fn push(&mut self, address: u64, size: PageSize, to_shared: bool) -> bool {
        let Some(slot) = self.entries.get_mut(usize::from(self.header.entries)) else {
            return false;
        };
        *slot = ConvertEntry::request(GuestPhysicalAddress::new(address), size, to_shared);
        self.header.entries += 1;
        true
    }

    /// Number of entries.
    pub const fn len(&self) -> usize {
        self.header.entries as usize
    }

    /// Whether there is no entry.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Entries whose turn has been, from the first on. [`ConvertList::outcome`] tells what became of them; those behind
    /// are unchanged.
    pub const fn done(&self) -> usize {
        self.header.next as usize
    }

    /// What became of an entry; `None` for one whose turn has not been, and for a code that this version does not know.
    pub fn outcome(&self, index: usize) -> Option<Outcome> {
        let entry = self.entries.get(..self.done())?.get(index)?;
        entry.outcome().ok()
    }
}

impl Default for ConvertList {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for ConvertList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConvertList")
            .field("len", &self.len())
            .field("done", &self.done())
            .finish_non_exhaustive()
    }
}

/// Why a list was not converted to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConvertError {
    /// The service does not offer it.
    NotOffered,
    /// The service did not see the call.
    NotRun,
    /// The service's answer. With HOST_REFUSED, HOST_MISBEHAVED and PAGE_LOST the entries before [`ConvertList::done`]
    /// tell; with any other code the entry at `done` is the cause, and unchanged.
    Refused(ResultCode),
    /// The answer broke the protocol.
    Malformed,
}

impl fmt::Display for ConvertError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotOffered => f.write_str("the service does not convert pages"),
            Self::NotRun => f.write_str("the call did not reach the service"),
            Self::Refused(code) => write!(f, "the service answered {code}"),
            Self::Malformed => f.write_str("the service's answer broke the protocol"),
        }
    }
}

impl core::error::Error for ConvertError {}

impl From<CallError> for ConvertError {
    fn from(error: CallError) -> Self {
        match error {
            CallError::NotRun => Self::NotRun,
            CallError::Malformed => Self::Malformed,
            CallError::Refused(code) => Self::Refused(code),
        }
    }
}

impl<P: Platform> Pool<'_, P> {
    /// Converts the pages of `list`, which lies at guest physical address `address`, from where it stands to its end.
    ///
    /// Each batch is one call and one request to the host, whoever the caller is: it neither sleeps nor allocates. The
    /// contents of every converted page are lost; one that became private is zero. The kernel's page tables are the
    /// kernel's business: after a conversion it reaches a page with the other C-bit, and flushes what it had cached.
    ///
    /// # Errors
    /// [`ConvertError`]. After an answer that concerns one batch the same list goes on behind it when it is passed again.
    ///
    /// # Safety
    /// `address` is the list's, whose page is private and mapped with the C-bit. Nothing uses the pages of the list: no
    /// Rust object lies in them, and no device and no other CPU accesses them until this returns.
    pub unsafe fn convert(&self, list: &mut ConvertList, address: u64) -> Result<(), ConvertError> {
        if !self.attachment().features.convert() {
            return Err(ConvertError::NotOffered);
        }
        let entries = list.header.entries;
        let raw = core::ptr::from_mut(list);
        // The service finds the list by its address.
        let _ = raw.expose_provenance();
        // SAFETY: `raw` comes from a reference that is not used meanwhile.
        let next = || unsafe { (&raw const (*raw).header.next).read_volatile() };
        for _ in 0..entries.max(1) {
            let before = next();
            match self.client.convert(&self.platform, address) {
                Err(CallError::Refused(ResultCode::INCOMPLETE)) => {
                    if next() <= before || next() >= entries {
                        return Err(ConvertError::Malformed);
                    }
                }
                answer => return Ok(answer?),
            }
        }
        Err(ConvertError::Malformed)
    }
}
