// SPDX-License-Identifier: MIT OR Apache-2.0
//! The model machine, with a host that acts between any two platform calls, and hardware and host that go wrong at any
//! of them. It watches the order of what VMPL0 does.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use snp::address::{GuestPhysicalAddress, PageSize};
use snp::operands::{InstructionCode, PvalidateResult, RmpAdjustTarget};
use snp::psc::{PscDescriptor, PscOperation};
use snp_model::machine::Machine;
use snp_model::psc::HostManner;
use svsm_swiotlb::platform::{Fault, GuestMemory, HostPages, Issue, PageInstructions, PscExit};

use crate::order::Order;
use crate::wrong::{Does, WRONG_REPLIES, Wrong, breaks_the_rules};

/// What the host does between two platform calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Takes a page back.
    Rescind(u64),
    /// Takes a page back and gives it again, unvalidated.
    Renew(u64),
    /// Backs the first page with the memory of the second.
    Remap(u64, u64),
    /// Splits the large entry that covers a page.
    Smash(u64),
}

/// What an instruction answers that the rules of the hardware do not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Surprise {
    /// PVALIDATE(1) finds the page valid.
    ValidAlready,
    /// PVALIDATE(0) finds the page invalid.
    InvalidAlready,
    /// PVALIDATE fails with a size mismatch.
    SizeMismatch,
}

#[derive(Debug)]
struct Plot {
    /// Names of the platform calls so far.
    calls: Vec<&'static str>,
    act: Option<(u64, Act)>,
    surprise: Option<Surprise>,
    wrong: Vec<(u64, Wrong)>,
    refuse_start: bool,
    /// The calls that went wrong, until somebody asks.
    hits: Vec<(&'static str, Wrong)>,
    manner: HostManner,
    /// A reply broke the rules since somebody asked.
    broken_reply: bool,
    order: Order,
    /// Pages at which a platform call faulted.
    faulted: BTreeSet<u64>,
}

/// The machine.
#[derive(Debug)]
pub struct HostileMachine {
    machine: Machine,
    plot: Mutex<Plot>,
}

pub const fn gpa(bits: u64) -> GuestPhysicalAddress {
    GuestPhysicalAddress::new(bits)
}

impl HostileMachine {
    /// A machine with the watch over its pages.
    pub fn new(machine: Machine, order: Order) -> Self {
        Self {
            machine,
            plot: Mutex::new(Plot {
                calls: Vec::new(),
                act: None,
                surprise: None,
                wrong: Vec::new(),
                refuse_start: false,
                hits: Vec::new(),
                manner: HostManner::Honest,
                broken_reply: false,
                order,
                faulted: BTreeSet::new(),
            }),
        }
    }

    pub const fn machine(&self) -> &Machine {
        &self.machine
    }

    fn plot(&self) -> MutexGuard<'_, Plot> {
        self.plot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Platform calls so far.
    pub fn calls(&self) -> u64 {
        self.plot().calls.len() as u64
    }

    /// Their names.
    pub fn names(&self) -> Vec<&'static str> {
        self.plot().calls.clone()
    }

    /// The host acts before the nth platform call from the start.
    pub fn act_before(&self, nth: u64, act: Act) {
        self.plot().act = Some((nth, act));
    }

    /// The next instruction it fits answers so.
    pub fn surprise(&self, surprise: Surprise) {
        self.plot().surprise = Some(surprise);
    }

    /// The nth platform call from the start goes wrong.
    pub fn go_wrong(&self, nth: u64, wrong: Wrong) {
        self.plot().wrong.push((nth, wrong));
    }

    /// The host starts no processor.
    pub fn refuse_start(&self) {
        self.plot().refuse_start = true;
    }

    /// The calls that have gone wrong since this was asked last.
    pub fn hits(&self) -> Vec<(&'static str, Wrong)> {
        core::mem::take(&mut self.plot().hits)
    }

    /// How the host behaves from now on.
    pub fn set_manner(&self, manner: HostManner) {
        self.machine.set_manner(manner);
        self.plot().manner = manner;
    }

    /// Whether the host says that it did what it did not.
    pub fn lies(&self) -> bool {
        self.plot().manner == HostManner::Lie
    }

    /// Whether a reply broke the rules since this was asked last.
    pub fn broken_reply(&self) -> bool {
        core::mem::take(&mut self.plot().broken_reply)
    }

    /// What was done in a wrong order so far.
    pub fn broken_order(&self) -> Vec<String> {
        self.plot().order.broken().to_vec()
    }

    /// Pages at which a platform call faulted: nobody knows what they are.
    pub fn faulted(&self) -> Vec<u64> {
        self.plot().faulted.iter().copied().collect()
    }

    /// A page is in quarantine: no platform call may name it any more.
    pub fn forbid(&self, page: u64) {
        self.plot().order.lost(page);
    }

    pub fn perform(&self, act: Act) {
        let machine = &self.machine;
        let change = |page, operation| {
            machine.host_changes(gpa(page), PageSize::Size4K, operation);
        };
        match act {
            Act::Rescind(page) => change(page, PscOperation::Shared),
            Act::Renew(page) => {
                change(page, PscOperation::Shared);
                change(page, PscOperation::Private);
            }
            Act::Remap(page, source) => {
                machine.host_remaps(gpa(page), gpa(source));
            }
            Act::Smash(page) => machine.host_splits(gpa(page)),
        }
    }

    /// Notes a platform call by its name; how it shall go wrong, if it shall.
    pub fn enter(&self, name: &'static str) -> Option<Wrong> {
        let mut plot = self.plot();
        plot.calls.push(name);
        let now = plot.calls.len() as u64;
        let act = plot.act.filter(|(nth, _)| *nth == now);
        let due = plot.wrong.iter().find(|(nth, _)| *nth == now);
        let wrong = due.map(|(_, wrong)| *wrong);
        plot.hits.extend(wrong.map(|wrong| (name, wrong)));
        let refuses = plot.refuse_start && name == "start_processor";
        drop(plot);
        if let Some((_, act)) = act {
            self.perform(act);
        }
        if refuses {
            return Some(Wrong::Refused);
        }
        wrong
    }

    /// What a platform call on a page came to.
    fn ended<T>(&self, page: GuestPhysicalAddress, result: Result<T, Fault>) -> Result<T, Fault> {
        if result.is_err() {
            self.plot().faulted.insert(page.page_base().bits());
        }
        result
    }

    fn touches(&self, page: GuestPhysicalAddress, size: PageSize) {
        self.plot().order.touches(page.page_base(), size);
    }

    fn surprised_by(&self, validate: bool) -> Option<PvalidateResult> {
        let mut plot = self.plot();
        let fits = match plot.surprise? {
            Surprise::ValidAlready => validate,
            Surprise::InvalidAlready => !validate,
            Surprise::SizeMismatch => true,
        };
        let surprise = fits.then(|| plot.surprise.take()).flatten()?;
        Some(match surprise {
            Surprise::SizeMismatch => refused(InstructionCode::FAIL_SIZEMISMATCH),
            _ => UNCHANGED,
        })
    }
}

const UNCHANGED: PvalidateResult = PvalidateResult {
    code: InstructionCode::SUCCESS,
    unchanged: true,
};

const fn refused(code: InstructionCode) -> PvalidateResult {
    PvalidateResult {
        code,
        unchanged: false,
    }
}

impl HostPages for HostileMachine {
    fn page_state_change(&self, descriptor: &mut PscDescriptor, issue: Issue) -> PscExit {
        let wrong = self.enter("page_state_change");
        let submitted = descriptor.header;
        let last = usize::from(submitted.end_entry);
        if issue == Issue::First {
            let mut plot = self.plot();
            for entry in descriptor.entries.iter().take(last + 1) {
                plot.order.touches(entry.page(), entry.size());
                if entry.operation() == PscOperation::Shared as u8 {
                    plot.order.shared(entry.page(), entry.size());
                }
            }
        }
        let exit = if let Some(Wrong::Reply(number)) = wrong {
            let wrong = &WRONG_REPLIES[number];
            // The machine keeps the buffer, so it does what is done.
            let left = submitted.end_entry + 1 - submitted.cur_entry;
            self.machine.set_manner(match wrong.does {
                Does::Nothing => HostManner::NoProgress,
                Does::Half => HostManner::StopAfter(left / 2),
                Does::Everything => HostManner::Honest,
            });
            self.machine.page_state_change(descriptor, issue);
            self.machine.set_manner(self.plot().manner);
            let (header, exit) = (wrong.reply)(submitted, descriptor.header.cur_entry);
            descriptor.header = header;
            exit
        } else {
            self.machine.page_state_change(descriptor, issue)
        };
        let broken = breaks_the_rules(submitted, descriptor.header, exit);
        self.plot().broken_reply |= broken;
        exit
    }
}

impl GuestMemory for HostileMachine {
    fn read(&self, from: GuestPhysicalAddress, bytes: &mut [u8]) -> Result<(), Fault> {
        self.touches(from, PageSize::Size4K);
        if self.enter("read").is_some() {
            let half = bytes.len() / 2;
            bytes[..half].fill(0xFF);
            return self.ended(from, Err(Fault));
        }
        self.ended(from, self.machine.read(from, bytes))
    }

    fn write(&self, to: GuestPhysicalAddress, bytes: &[u8]) -> Result<(), Fault> {
        self.touches(to, PageSize::Size4K);
        if self.enter("write").is_some() {
            let _ = self.machine.write(to, &bytes[..bytes.len() / 2]);
            return self.ended(to, Err(Fault));
        }
        self.ended(to, self.machine.write(to, bytes))
    }
}

impl PageInstructions for HostileMachine {
    fn pvalidate(
        &self,
        page: GuestPhysicalAddress,
        size: PageSize,
        validate: bool,
    ) -> Result<PvalidateResult, Fault> {
        self.touches(page, size);
        let wrong = self.enter("pvalidate");
        if validate {
            self.plot().order.validates(page, size);
        } else {
            self.plot().order.rescinds(page, size);
        }
        match wrong {
            Some(Wrong::Code(code)) => return Ok(refused(code)),
            Some(Wrong::Unchanged) => return Ok(UNCHANGED),
            Some(_) => return self.ended(page, Err(Fault)),
            None => {}
        }
        if let Some(result) = self.surprised_by(validate) {
            return Ok(result);
        }
        let result = self.machine.pvalidate(page, size, validate);
        let result = self.ended(page, result)?;
        if result.code == InstructionCode::SUCCESS && !result.unchanged {
            self.plot().order.validated(page, size, validate);
        }
        Ok(result)
    }

    fn rmpadjust(
        &self,
        page: GuestPhysicalAddress,
        size: PageSize,
        target: RmpAdjustTarget,
    ) -> Result<InstructionCode, Fault> {
        self.touches(page, size);
        match self.enter("rmpadjust") {
            Some(Wrong::Code(code)) => return Ok(code),
            Some(_) => return self.ended(page, Err(Fault)),
            None => {}
        }
        let code = self.ended(page, self.machine.rmpadjust(page, size, target))?;
        if code == InstructionCode::SUCCESS {
            let grants = target.permissions() != 0;
            let mut plot = self.plot();
            plot.order.adjusted(page, size, target.vmpl(), grants);
        }
        Ok(code)
    }

    fn evict(&self, page: GuestPhysicalAddress, size: PageSize) -> Result<(), Fault> {
        self.touches(page, size);
        if self.enter("evict").is_some() {
            return self.ended(page, Err(Fault));
        }
        self.ended(page, self.machine.evict(page, size))?;
        self.plot().order.evicted(page, size);
        Ok(())
    }

    fn zero(&self, page: GuestPhysicalAddress, size: PageSize) -> Result<(), Fault> {
        self.touches(page, size);
        if self.enter("zero").is_some() {
            let _ = self.machine.write(page, &[0; 2048]);
            return self.ended(page, Err(Fault));
        }
        self.ended(page, self.machine.zero(page, size))?;
        self.plot().order.zeroed(page, size);
        Ok(())
    }

    fn flush(&self) {
        self.enter("flush");
        self.machine.flush();
        self.plot().order.flushed();
    }
}
