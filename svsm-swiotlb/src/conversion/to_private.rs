// SPDX-License-Identifier: MIT OR Apache-2.0
//! Shared to private: the host first, then validate, zero, grant.

use protocol::convert::Outcome;
use snp::address::{GuestPhysicalAddress, PageSize};
use snp::psc::PscOperation;
use snp::svsm::ResultCode;

use super::batch::{Batch, Item};
use super::convert::{Conversion, End, Tampered, Turned};
use super::host::{Asked, ask};
use crate::page_state::{HoldError, PageState};
use crate::platform::{HostPages, PageInstructions};

impl<'a, P: HostPages + PageInstructions> Conversion<'_, 'a, P> {
    /// Every 4 KiB page is a work unit, whatever the size of the entry: all of them are zeroed. Pages that are not
    /// validated are accepted like shared ones: the host may be asked for them again, and PVALIDATE is the proof.
    pub(super) fn admit_to_private(
        &mut self,
        page: GuestPhysicalAddress,
        size: PageSize,
        batch: &mut Batch<'a>,
    ) -> Result<(), Turned> {
        self.spend(size.pages())?;
        let held = match self.states.hold_run(page, size.bytes(), PageState::Shared) {
            Err(HoldError::WrongState(PageState::Invalid)) => {
                self.states.hold_run(page, size.bytes(), PageState::Invalid)
            }
            held => held,
        };
        let held = held.map_err(|error| Turned::Refused(ResultCode::from(error)))?;
        batch.push(Item::new(page, size, held));
        Ok(())
    }

    pub(super) fn make_private(&self, batch: &mut Batch<'a>) -> End {
        let asked = ask(self.platform, self.counters, batch, PscOperation::Private);
        let Asked::Done(done) = asked else {
            batch.lose_live();
            return End::Misbehaved;
        };
        let mut end = End::Converted;
        for (number, item) in batch.live_mut().enumerate() {
            if number >= done {
                item.keep();
                end = End::Declined;
            } else if self.give(item, Outcome::Converted) == Err(Tampered) {
                end = End::Tampered;
                break;
            }
        }
        batch.lose_live();
        end
    }
}
