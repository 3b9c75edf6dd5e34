// SPDX-License-Identifier: MIT OR Apache-2.0
//! Page-state changes as the host carries them out: RMPUPDATE, nested tables, both views.

use snp::address::{GuestPhysicalAddress, PageSize};
use snp::psc::PscOperation;
use snp_model::psc::HostError;

use crate::counters::Event;
use crate::hardware::Hardware;
use crate::machine::Machine;
use crate::record::kind;
use crate::shared_view;
use crate::vcpu::Cpu;

/// Adjacent changes of one exit, reported in one record.
#[derive(Debug, Default)]
pub struct ConversionRun {
    pending: Option<(bool, u64, u64)>,
}

impl<H: Hardware> Machine<'_, H> {
    /// Applies one entry of a page-state change and adds it to `run`.
    ///
    /// # Errors
    /// [`HostError`] when the page is no guest RAM.
    pub fn change_page_state(
        &mut self,
        cpu: &Cpu,
        run: &mut ConversionRun,
        page: GuestPhysicalAddress,
        size: PageSize,
        operation: PscOperation,
    ) -> Result<(), HostError> {
        let index = self.plan.page_index(page.bits()).ok_or(HostError)?;
        let shared = match operation {
            PscOperation::Private => false,
            PscOperation::Shared => true,
            PscOperation::Smash => {
                self.smash(index);
                return Ok(());
            }
            // A hint; the entries stay small.
            PscOperation::Unsmash => return Ok(()),
        };
        self.convert(index, size, shared)?;
        self.counters.event(match (shared, size) {
            (true, PageSize::Size4K) => Event::ConvertShared4K,
            (true, PageSize::Size2M) => Event::ConvertShared2M,
            (false, PageSize::Size4K) => Event::ConvertPrivate4K,
            (false, PageSize::Size2M) => Event::ConvertPrivate2M,
        });
        match &mut run.pending {
            Some((pending, start, bytes))
                if *pending == shared && *start + *bytes == page.bits() =>
            {
                *bytes += size.bytes();
            }
            _ => {
                self.report_conversions(cpu, run);
                run.pending = Some((shared, page.bits(), size.bytes()));
            }
        }
        Ok(())
    }

    /// Writes the record of what `run` has collected.
    pub fn report_conversions(&self, cpu: &Cpu, run: &mut ConversionRun) {
        let Some((shared, gpa, bytes)) = run.pending.take() else {
            return;
        };
        let operation = if shared { "shared" } else { "private" };
        self.record(
            kind::PAGE_STATE,
            format_args!(
                "tsc={} vmpl={} op={operation} gpa={gpa:#x} bytes={bytes} total_shared={}",
                self.hardware.timestamp(),
                cpu.current.number(),
                self.shared_view.shared_bytes(),
            ),
        );
    }

    /// Gives pages to the guest or takes them away.
    ///
    /// Taking them away shows the pattern in the shared view, never private bytes. Giving them
    /// scrambles the private view: on hardware its content is undefined.
    ///
    /// # Errors
    /// [`HostError`] when `size` does not fit the index.
    pub fn convert(&mut self, index: usize, size: PageSize, shared: bool) -> Result<(), HostError> {
        let pages = usize::try_from(size.pages()).map_err(|_| HostError)?;
        if size == PageSize::Size2M && !index.is_multiple_of(pages) {
            return Err(HostError);
        }
        for page in index..index + pages {
            let newly_assigned =
                !shared && self.rmp.entry(page).is_some_and(|entry| !entry.assigned);
            if newly_assigned && self.shared_view.is_patterned() {
                let gpa = self.plan.shared_page(page);
                self.hardware.fill(
                    self.nested.private_page(page),
                    PageSize::Size4K.bytes(),
                    shared_view::scramble(gpa),
                );
            }
            self.set_shared(page, shared);
        }
        // Either view loses what it showed: the private one, or the pattern.
        self.translations.is_downgraded = true;
        let was_large = self.rmp.entry(index).is_some_and(|entry| entry.large);
        let small = self.switches.small_pages_only() || self.nested.frames.splits_block(index);
        if size == PageSize::Size2M && (shared || !small) {
            self.rmp.rmpupdate(index, size, !shared);
        } else {
            for page in index..index + pages {
                self.rmp.rmpupdate(page, PageSize::Size4K, !shared);
            }
        }
        let still_large = self.rmp.entry(index).is_some_and(|entry| entry.large);
        if was_large && size == PageSize::Size4K && !still_large {
            self.counters.event(Event::Psmash);
        }
        self.nested.sync(
            &self.hardware,
            &self.rmp,
            index,
            size == PageSize::Size2M || was_large,
        );
        Ok(())
    }

    fn set_shared(&mut self, index: usize, shared: bool) {
        if shared && !self.shared_view.is_shared(index) {
            self.check_pattern(index);
        }
        if !shared && self.shared_view.is_shared(index) {
            self.compare_shared_page(index);
        }
        if self.shared_view.mark(index, shared) && !shared && self.shared_view.is_patterned() {
            let gpa = self.plan.shared_page(index);
            shared_view::write_pattern(&self.hardware, &self.plan, gpa);
        }
    }

    /// Splits the large RMP entry around page `index`, as the host does when a guest uses a part.
    pub fn smash(&mut self, index: usize) {
        if self.rmp.entry(index).is_some_and(|entry| entry.large) {
            self.rmp.psmash(index);
            self.nested.sync(&self.hardware, &self.rmp, index, true);
            self.counters.event(Event::Psmash);
        }
    }
}
