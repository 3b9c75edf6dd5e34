// SPDX-License-Identifier: MIT OR Apache-2.0
//! Physical region pages: where the data of a command are (NVM Express base specification 2.0,
//! 4.1.1).

use super::{NvmeError, PAGE_BYTES};

const PAGE: u64 = PAGE_BYTES as u64;
/// Entries of one list page.
const LIST_ENTRIES: u64 = PAGE / 8;

/// The PRP entries of one transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pages {
    /// Two entries say it all; the second is 0 where one does.
    Inline([u64; 2]),
    /// The first entry, and how many pages from `next` on a list has to name.
    List {
        /// First entry.
        first: u64,
        /// First page of the list.
        next: u64,
        /// Pages of the list.
        count: u64,
    },
}

impl Pages {
    /// The pages of `bytes` contiguous bytes at `address`.
    ///
    /// # Errors
    /// [`NvmeError::Transfer`] for no bytes, an address that is no multiple of 4, or more pages than
    /// one list holds.
    pub fn of(address: u64, bytes: u64) -> Result<Self, NvmeError> {
        let end = address
            .checked_add(bytes)
            .filter(|_| bytes > 0 && address.is_multiple_of(4))
            .ok_or(NvmeError::Transfer)?;
        let next = (address & !(PAGE - 1)) + PAGE;
        let count = end.saturating_sub(next).div_ceil(PAGE);
        match count {
            0 => Ok(Self::Inline([address, 0])),
            1 => Ok(Self::Inline([address, next])),
            // The last entry of a full page would name another list.
            2..=LIST_ENTRIES => Ok(Self::List {
                first: address,
                next,
                count,
            }),
            _ => Err(NvmeError::Transfer),
        }
    }

    /// The entries of the list, for those that need one.
    pub fn entries(&self) -> impl Iterator<Item = u64> + use<> {
        let (next, count) = match *self {
            Self::Inline(_) => (0, 0),
            Self::List { next, count, .. } => (next, count),
        };
        (0..count).map(move |page| next + page * PAGE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    #[test]
    fn short_transfers_need_no_list() {
        assert_eq!(Pages::of(0x1000, 4096), Ok(Pages::Inline([0x1000, 0])));
        assert_eq!(Pages::of(0x1ffc, 4), Ok(Pages::Inline([0x1ffc, 0])));
        assert_eq!(Pages::of(0x1ffc, 8), Ok(Pages::Inline([0x1ffc, 0x2000])));
        assert_eq!(Pages::of(0x1800, 4096), Ok(Pages::Inline([0x1800, 0x2000])));
    }

    #[test]
    fn a_list_names_every_page_behind_the_first() {
        let pages = Pages::of(0x1800, 3 * 4096).expect("fits");
        let entries: Vec<_> = pages.entries().collect();
        assert_eq!(entries, [0x2000, 0x3000, 0x4000]);
        let most = Pages::of(0x1000, 513 * 4096).expect("one full list");
        assert_eq!(most.entries().count(), 512);
    }

    #[test]
    fn what_no_list_can_say_is_refused() {
        for (address, bytes) in [
            (0x1000, 514 * 4096),
            (0x1800, 513 * 4096),
            (0x1002, 512),
            (0x1000, 0),
            (u64::MAX - 3, 512),
        ] {
            assert_eq!(Pages::of(address, bytes), Err(NvmeError::Transfer));
        }
    }
}
