// SPDX-License-Identifier: MIT OR Apache-2.0
//! SET_LIMITS.

use protocol::response::LimitsSet;
use snp::svsm::ResultCode;

use crate::Service;
use crate::platform::{GuestMemory, HostPages};

impl<P: HostPages + GuestMemory> Service<'_, P> {
    /// Sets the cap. Below what is granted it takes nothing away, it stops further growth.
    pub(crate) fn set_limits(&self, epoch: u32, cap: u64) -> Result<LimitsSet, ResultCode> {
        self.session.check(epoch)?;
        let previous_cap = self
            .pool
            .accounts()
            .set_cap(cap)
            .ok_or(ResultCode::INVALID_PARAMETER)?;
        Ok(LimitsSet { previous_cap })
    }
}
