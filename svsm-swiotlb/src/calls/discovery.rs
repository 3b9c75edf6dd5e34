// SPDX-License-Identifier: MIT OR Apache-2.0
//! DESCRIBE. IDENTIFY needs no more than [`Service::identity`].

use protocol::request::DescribeItem;
use protocol::response::{Geometry, Usage, WindowAttributes, WorkLimits};
use protocol::{CHUNK_BYTES, ResultRegisters};
use snp::svsm::ResultCode;

use crate::platform::{GuestMemory, HostPages};
use crate::pool::{BATCH_CHUNKS, chunk_bytes};
use crate::{Service, WORK_UNITS};

/// The chunk size as a power of two.
const LOG2_CHUNK: u8 = 21;
const _: () = assert!(1 << LOG2_CHUNK == CHUNK_BYTES);
impl<P: HostPages + GuestMemory> Service<'_, P> {
    /// One property of a window (clause P-5.1).
    pub(crate) fn describe(
        &self,
        window: u8,
        item: DescribeItem,
    ) -> Result<ResultRegisters, ResultCode> {
        let pool = self.pool_of(window)?;
        let accounts = pool.accounts();
        Ok(match item {
            DescribeItem::Geometry => Geometry {
                base: pool.window().base(),
                bytes: pool.window().bytes(),
                attributes: WindowAttributes::new().with_log2_chunk(LOG2_CHUNK),
            }
            .encode(),
            DescribeItem::Usage => Usage {
                cap: accounts.cap_bytes(),
                granted: accounts.granted_bytes(),
                quarantined: accounts.quarantined_bytes(),
            }
            .encode(),
            DescribeItem::WorkLimits => WorkLimits {
                units: count(WORK_UNITS.max(pool.call_chunks())),
                psc_entries: count(BATCH_CHUNKS),
                grow_bytes: chunk_bytes(pool.call_chunks()),
            }
            .encode(),
        })
    }
}

fn count(units: usize) -> u64 {
    u64::try_from(units).unwrap_or(u64::MAX)
}
