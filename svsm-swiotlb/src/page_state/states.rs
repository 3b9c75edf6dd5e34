// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a page of guest RAM can be.

/// State of a 4 KiB page, as the byte in storage holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum PageState {
    /// RAM that nobody validated yet. Zero, so that fresh storage says so of every page.
    Invalid = 0,
    /// Validated, private, the guest's to use.
    Valid = 1,
    /// Taken: somebody reads, writes or converts the page right now.
    Busy = 2,
    /// Shared with the host at the guest's request.
    Shared = 3,
    /// A VMSA made by CREATE_VCPU: no lower VMPL may write it.
    Vmsa = 4,
    /// A calling area. The guest's to use, but not to rescind or convert.
    CallingArea = 5,
    /// The paravisor's own; never the guest's.
    Paravisor = 6,
    /// In a state nobody knows; never used again (invariant P3).
    Quarantined = 7,
}

impl PageState {
    const ALL: [Self; 8] = [
        Self::Invalid,
        Self::Valid,
        Self::Busy,
        Self::Shared,
        Self::Vmsa,
        Self::CallingArea,
        Self::Paravisor,
        Self::Quarantined,
    ];

    /// The byte in storage.
    pub const fn to_byte(self) -> u8 {
        self as u8
    }

    /// The state a byte stands for. A byte that stands for none means that storage was damaged: such a page is as good
    /// as quarantined.
    pub fn from_byte(byte: u8) -> Self {
        Self::ALL
            .get(usize::from(byte))
            .copied()
            .unwrap_or(Self::Quarantined)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_and_states_correspond() {
        for state in PageState::ALL {
            assert_eq!(PageState::from_byte(state.to_byte()), state);
        }
        assert_eq!(PageState::from_byte(0), PageState::Invalid);
    }

    #[test]
    fn p3_an_unknown_byte_is_quarantined() {
        assert_eq!(PageState::from_byte(8), PageState::Quarantined);
        assert_eq!(PageState::from_byte(0xFF), PageState::Quarantined);
    }
}
