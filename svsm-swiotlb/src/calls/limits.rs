// SPDX-License-Identifier: MIT OR Apache-2.0
//! SET_LIMITS.

use protocol::response::LimitsSet;
use protocol::result;
use snp::svsm::ResultCode;

use crate::Service;
use crate::platform::{GuestMemory, HostPages};
use crate::pool::{CapRefusal, Pool};

impl<P: HostPages + GuestMemory> Service<'_, P> {
    /// Sets the cap of this pool. Below what is granted it takes nothing away, it stops further growth. An ATTACH that has answered while this
    /// call was under way leaves it without effect.
    pub(crate) fn set_limits(
        &self,
        pool: &Pool<'_>,
        epoch: u32,
        cap: u64,
    ) -> Result<LimitsSet, ResultCode> {
        let epoch = self.session.check(epoch)?;
        match pool.accounts().set_cap(epoch, cap) {
            Ok(previous_cap) => Ok(LimitsSet { previous_cap }),
            Err(CapRefusal::AboveHardCap) => Err(ResultCode::INVALID_PARAMETER),
            Err(CapRefusal::Stale) => Err(result::STALE_EPOCH),
        }
    }
}
