// SPDX-License-Identifier: MIT OR Apache-2.0
//! Private to shared: revoke, flush, rescind, then the host.

use protocol::convert::Outcome;
use snp::address::{GuestPhysicalAddress, PageSize};
use snp::psc::PscOperation;
use snp::svsm::ResultCode;

use super::batch::{Batch, Item};
use super::convert::{Conversion, End, Tampered, Turned};
use super::host::{Asked, ask};
use crate::ownership::{self, OwnError};
use crate::page_state::PageState;
use crate::platform::{HostPages, PageInstructions};

/// Work units of an entry that needs one instruction of each kind.
const WHOLE: u64 = 1;

impl<'a, P: HostPages + PageInstructions> Conversion<'_, 'a, P> {
    /// Takes the words of an entry and revokes all permissions. How many work units it is shows here: a large page that
    /// the RMP holds in small entries is done page by page.
    pub(super) fn admit_to_shared(
        &mut self,
        page: GuestPhysicalAddress,
        size: PageSize,
        batch: &mut Batch<'a>,
    ) -> Result<(), Turned> {
        self.spend(WHOLE)?;
        let held = self
            .states
            .hold_run(page, size.bytes(), PageState::Valid)
            .map_err(|error| Turned::Refused(ResultCode::from(error)))?;
        let mut revoked = ownership::revoke(self.platform, page, size);
        let mut split = false;
        if size == PageSize::Size2M && revoked.is_err_and(OwnError::is_size_mismatch) {
            if let Err(later) = self.spend(size.pages().saturating_sub(WHOLE)) {
                held.keep();
                return Err(later);
            }
            split = true;
            revoked = ownership::small_pages(page, size)
                .try_for_each(|small| ownership::revoke(self.platform, small, PageSize::Size4K))
                .map_err(|_| OwnError::Lost);
        }
        let mut item = Item::new(page, size, held);
        item.split = split;
        if revoked.is_err() {
            // The host took the page away, at the guest's request perhaps; or the page is not what its word says.
            item.lose();
        }
        batch.push(item);
        Ok(())
    }

    pub(super) fn share(&mut self, batch: &mut Batch<'a>) -> End {
        // Lost entries count as well: some of their pages may be revoked, and the guest is told that they are gone.
        self.platform.flush();
        for item in batch.live_mut() {
            if self.rescind(item).is_err() {
                item.lose();
            }
        }
        let asked = ask(self.platform, self.counters, batch, PscOperation::Shared);
        let Asked::Done(done) = asked else {
            batch.lose_live();
            return End::Misbehaved;
        };
        for item in batch.live_mut().take(done) {
            item.settle(PageState::Shared, Outcome::Converted);
        }
        if batch.live().next().is_some() {
            self.take_back(batch)
        } else {
            End::Converted
        }
    }

    fn rescind(&mut self, item: &Item<'a>) -> Result<(), OwnError> {
        if !item.split {
            let rescinded = ownership::rescind(self.platform, item.page, item.size);
            let smashed = item.size == PageSize::Size2M
                && rescinded.is_err_and(OwnError::is_size_mismatch)
                // A host that splits many large pages between the two instructions must not stretch the call.
                && self.spend(item.size.pages().saturating_sub(WHOLE)).is_ok();
            if !smashed {
                return rescinded;
            }
        }
        ownership::small_pages(item.page, item.size)
            .try_for_each(|small| ownership::rescind(self.platform, small, PageSize::Size4K))
    }

    /// The host declined the entries that are still live. They become private again as far as the host and the work
    /// units allow, and are not validated beyond that. The contents are gone either way: the host could have replaced the
    /// pages while they were not valid, so they are zeroed before the guest sees them.
    fn take_back(&mut self, batch: &mut Batch<'a>) -> End {
        let asked = ask(self.platform, self.counters, batch, PscOperation::Private);
        let Asked::Done(done) = asked else {
            batch.lose_live();
            return End::Misbehaved;
        };
        let mut end = End::Declined;
        for (number, item) in batch.live_mut().enumerate() {
            if number >= done || self.spend(item.size.pages()).is_err() {
                item.settle(PageState::Invalid, Outcome::Unvalidated);
            } else if self.give(item, Outcome::Zeroed) == Err(Tampered) {
                end = End::Tampered;
                break;
            }
        }
        batch.lose_live();
        end
    }
}
