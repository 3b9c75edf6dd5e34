// SPDX-License-Identifier: MIT OR Apache-2.0
//! The page with the VMM's general parameters: number of vCPUs and environment (`igvm_defs`).
//!
//! It is not measured, so it is host input, like the other parameter pages. Nothing may follow what is
//! read of such a page: then no byte of a launched page is the host's to choose unseen.

use zerocopy::FromBytes;

use crate::apic_ids::MAX_VCPUS;
use crate::layout::{
    ENVIRONMENT_MEMORY_IS_SHARED, ENVIRONMENT_OFFSET, GENERAL_BYTES, PageBytes, VP_COUNT_OFFSET,
};
use crate::termination::Reason;

/// The parameters, checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GeneralParameters {
    /// vCPUs of the machine, 1 to [`MAX_VCPUS`].
    pub vcpu_count: u32,
    /// RAM outside the launch pages starts host-owned.
    pub memory_is_shared: bool,
}

impl GeneralParameters {
    /// Parses and checks the parameter page.
    ///
    /// # Errors
    /// [`Reason::VpCount`], [`Reason::EnvironmentInfo`] or [`Reason::ParameterTail`].
    pub fn parse(page: &PageBytes) -> Result<Self, Reason> {
        let vcpu_count = read_u32(page, VP_COUNT_OFFSET);
        if !(1..=MAX_VCPUS).contains(&vcpu_count) {
            return Err(Reason::VpCount);
        }
        let environment = read_u32(page, ENVIRONMENT_OFFSET);
        if environment & !ENVIRONMENT_MEMORY_IS_SHARED != 0 {
            return Err(Reason::EnvironmentInfo);
        }
        check_zero(page.get(GENERAL_BYTES..).unwrap_or(page))?;
        Ok(Self {
            vcpu_count,
            memory_is_shared: environment != 0,
        })
    }
}

/// Checks the bytes behind the parameters of a page.
///
/// # Errors
/// [`Reason::ParameterTail`] when one is not zero.
pub fn check_zero(tail: &[u8]) -> Result<(), Reason> {
    if tail.iter().all(|byte| *byte == 0) {
        Ok(())
    } else {
        Err(Reason::ParameterTail)
    }
}

/// A parameter; the offset is a constant inside the page.
fn read_u32(page: &PageBytes, offset: usize) -> u32 {
    page.get(offset..)
        .and_then(|bytes| u32::read_from_prefix(bytes).ok())
        .map_or(0, |(value, _)| value)
}

#[cfg(test)]
mod tests {
    use super::{GeneralParameters, MAX_VCPUS, Reason};

    fn parse(bytes: &[u8], tail: usize, byte: u8) -> Result<GeneralParameters, Reason> {
        let mut page = [0; 4096];
        page[..bytes.len()].copy_from_slice(bytes);
        page[tail] |= byte;
        GeneralParameters::parse(&page)
    }

    #[test]
    fn count_and_environment_are_read_and_nothing_may_follow() {
        let read = |vcpu_count, memory_is_shared| {
            Ok(GeneralParameters {
                vcpu_count,
                memory_is_shared,
            })
        };
        assert_eq!(parse(&[1, 2, 0, 0, 1], 0, 0), read(0x201, true));
        assert_eq!(parse(&[8], 0, 0), read(8, false));
        assert_eq!(parse(&[], 0, 0), Err(Reason::VpCount));
        let most = MAX_VCPUS.to_le_bytes();
        assert_eq!(parse(&most, 0, 0), read(MAX_VCPUS, false));
        let more = (MAX_VCPUS + 1).to_le_bytes();
        assert_eq!(parse(&more, 0, 0), Err(Reason::VpCount));
        assert_eq!(parse(&[1, 0, 0, 0, 2], 0, 0), Err(Reason::EnvironmentInfo));
        for tail in [8, 100, 4095] {
            let longer = parse(&[1, 0, 0, 0, 1], tail, 0x80);
            assert_eq!(longer, Err(Reason::ParameterTail), "{tail}");
        }
    }
}
