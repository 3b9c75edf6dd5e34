// SPDX-License-Identifier: MIT OR Apache-2.0
//! Writes a launch plan in the form in which the emulated host takes it (`snp_host::launch`).

use snp_host::launch::{self, PageToLaunch, kind};
use snp_host::memory_plan::LAUNCH_BYTES;
use snp_host::switches::Switches;

use paravisor::layout::PAGE_BYTES;

use crate::Failure;
use crate::launch_plan::{LaunchPage, LaunchPlan, PageKind};

/// The launch image of `plan` for a guest of `memory_bytes`.
///
/// # Errors
/// Bad input when an address is odd or the image is too large for the machine.
pub fn launch_blob(
    plan: &LaunchPlan,
    memory_bytes: u64,
    switches: Switches,
) -> Result<Vec<u8>, Failure> {
    let too_large = || {
        Failure::bad_input(format!(
            "the IGVM file launches {} pages, more than the emulated machine takes; use a smaller payload",
            plan.pages.len()
        ))
    };
    let required = plan.required.iter().map(|range| {
        let pages =
            u32::try_from((range.end - range.start) / PAGE_BYTES).map_err(|_| too_large())?;
        Ok(PageToLaunch {
            gpa: range.start,
            kind: kind::REQUIRED,
            bytes: &[],
            pages,
        })
    });
    let pages = plan.pages.iter().map(|page| Ok(to_launch(page)));
    // Required memory first: a launch page inside such a range has the last word.
    let records: Vec<_> = required.chain(pages).collect::<Result<_, Failure>>()?;
    let mut blob = Vec::new();
    launch::write(switches, memory_bytes, &records, |piece| {
        blob.extend_from_slice(piece);
    })
    .map_err(|index| match records.get(index) {
        Some(record) => Failure::bad_input(format!(
            "the IGVM file has a page at {:#x}, which is no page address; build it again",
            record.gpa
        )),
        None => too_large(),
    })?;
    if blob.len() as u64 > LAUNCH_BYTES {
        return Err(too_large());
    }
    Ok(blob)
}

fn to_launch(page: &LaunchPage) -> PageToLaunch<'_> {
    let bytes = page.contents.as_slice();
    let zero = page.kind == PageKind::Normal && bytes.iter().all(|byte| *byte == 0);
    PageToLaunch {
        gpa: page.gpa,
        kind: match page.kind {
            PageKind::Normal if zero => kind::ZERO,
            PageKind::Normal => kind::NORMAL,
            PageKind::Unmeasured => kind::UNMEASURED,
            PageKind::Secrets => kind::SECRETS,
            PageKind::Cpuid => kind::CPUID,
            PageKind::Vmsa => kind::VMSA,
        },
        bytes: if zero { &[] } else { bytes },
        pages: 0,
    }
}
