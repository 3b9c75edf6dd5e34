// SPDX-License-Identifier: MIT OR Apache-2.0
//! DESCRIBE. IDENTIFY needs no more than [`Service::identity`].

use protocol::request::DescribeItem;
use protocol::response::{Geometry, Usage, WindowAttributes, WorkLimits};
use protocol::{CHUNK_BYTES, ResultRegisters};
use snp::svsm::ResultCode;

use crate::platform::{GuestMemory, HostPages};
use crate::pool::BATCH_CHUNKS;
use crate::{Service, WORK_UNITS};

/// The chunk size as a power of two.
const LOG2_CHUNK: u8 = 21;
const _: () = assert!(1 << LOG2_CHUNK == CHUNK_BYTES);
/// A batch in bytes: what one GROW grants at most.
pub(super) const BATCH_BYTES: u64 = BATCH_CHUNKS as u64 * CHUNK_BYTES;

impl<P: HostPages + GuestMemory> Service<'_, P> {
    /// One property of a window (clause P-5.1).
    pub(crate) fn describe(
        &self,
        window: u8,
        item: DescribeItem,
    ) -> Result<ResultRegisters, ResultCode> {
        self.check_window(window)?;
        let accounts = self.pool.accounts();
        Ok(match item {
            DescribeItem::Geometry => Geometry {
                base: self.window().base(),
                bytes: self.window().bytes(),
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
                units: WORK_UNITS as u64,
                psc_entries: BATCH_CHUNKS as u64,
                grow_bytes: BATCH_BYTES,
            }
            .encode(),
        })
    }
}
