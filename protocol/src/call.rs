// SPDX-License-Identifier: MIT OR Apache-2.0
//! The calls of the protocol and their numbers (clause P-4.1).

/// A call this version of the text defines; some are defined but not offered (clause P-4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
pub enum Call {
    /// Says which protocol answers here, and how shared memory is addressed.
    Identify = 0,
    /// Geometry, usage and limits of a window.
    Describe = 1,
    /// Begins a new epoch: the caller becomes the holder of all later grants.
    Attach = 2,
    /// Writes the granted runs into a guest page.
    ListGranted = 3,
    /// Takes over chunks of an older epoch.
    Adopt = 4,
    /// Gives back chunks of an older epoch.
    ReleaseOrphans = 5,
    /// Ends the epoch.
    Detach = 6,
    /// Asks the host to share a run of chunks and grants it.
    Grow = 7,
    /// Gives a run of chunks back to the host.
    Release = 8,
    /// Converts guest-owned pages.
    Convert = 9,
    /// Writes the counters into a guest page.
    Statistics = 10,
    /// Writes trace records into a guest page.
    Trace = 11,
    /// Sets the cap on granted bytes.
    SetLimits = 12,
    /// Hands guest memory over as a further window.
    Donate = 13,
    /// Serialises the service's state for a successor.
    ExportState = 14,
    /// Takes over a serialised state.
    ImportState = 15,
    /// Makes another call, whose registers lie in the caller's calling area.
    MemoryForm = 16,
}

impl Call {
    /// Every call, in the order of the numbers.
    pub const ALL: [Self; 17] = [
        Self::Identify,
        Self::Describe,
        Self::Attach,
        Self::ListGranted,
        Self::Adopt,
        Self::ReleaseOrphans,
        Self::Detach,
        Self::Grow,
        Self::Release,
        Self::Convert,
        Self::Statistics,
        Self::Trace,
        Self::SetLimits,
        Self::Donate,
        Self::ExportState,
        Self::ImportState,
        Self::MemoryForm,
    ];

    /// The number in RAX\[31:0\].
    pub const fn number(self) -> u32 {
        self as u32
    }

    /// Index for arrays with one element per call.
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The name that records and reports print.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Identify => "identify",
            Self::Describe => "describe",
            Self::Attach => "attach",
            Self::ListGranted => "list-granted",
            Self::Adopt => "adopt",
            Self::ReleaseOrphans => "release-orphans",
            Self::Detach => "detach",
            Self::Grow => "grow",
            Self::Release => "release",
            Self::Convert => "convert",
            Self::Statistics => "statistics",
            Self::Trace => "trace",
            Self::SetLimits => "set-limits",
            Self::Donate => "donate",
            Self::ExportState => "export-state",
            Self::ImportState => "import-state",
            Self::MemoryForm => "memory-form",
        }
    }
}

impl TryFrom<u32> for Call {
    /// The number that names no call.
    type Error = u32;

    fn try_from(number: u32) -> Result<Self, u32> {
        let index = usize::try_from(number).map_err(|_| number)?;
        Self::ALL.get(index).copied().ok_or(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p_4_1_numbers_name_calls_and_nothing_else() {
        for (index, call) in Call::ALL.into_iter().enumerate() {
            assert_eq!(call.index(), index);
            assert_eq!(Call::try_from(call.number()), Ok(call));
        }
        assert_eq!(Call::try_from(17), Err(17));
        assert_eq!(Call::try_from(u32::MAX), Err(u32::MAX));
    }
}
