// SPDX-License-Identifier: MIT OR Apache-2.0
//! Writes a launch plan in the form in which the emulated host takes it (`snp_host::launch`).

use snp_host::launch::{self, PageToLaunch, kind};
use snp_host::memory_plan::GuestMemory;
use snp_host::switches::Switches;

use paravisor::layout::PAGE_BYTES;

use crate::Failure;
use crate::attack_options::Armed;
use crate::launch_plan::{LaunchPage, LaunchPlan, PageKind};

/// The launch image of `plan` for a guest with `memory` and `cpus` vCPUs, on a host with `armed` attacks.
///
/// # Errors
/// Bad input when an address is odd or the image is too large for the machine.
pub fn launch_blob(
    plan: &LaunchPlan,
    memory: GuestMemory,
    cpus: u32,
    switches: Switches,
    armed: &[Armed],
) -> Result<Vec<u8>, Failure> {
    let too_large = || {
        Failure::bad_input(format!(
            "the IGVM file launches {} pages, and the emulated machine takes {}; use a smaller payload",
            plan.pages.len(),
            launch::MAX_RECORDS
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
    let armed = armed.iter().map(|one| {
        Ok(PageToLaunch {
            gpa: one.gpa,
            kind: one.kind,
            bytes: &[],
            pages: one.word,
        })
    });
    let records: Vec<_> = required
        .chain(pages)
        .chain(armed)
        .collect::<Result<_, Failure>>()?;
    let mut blob = Vec::new();
    launch::write(switches, memory, cpus, &records, |piece| {
        blob.extend_from_slice(piece);
    })
    .map_err(|index| match records.get(index) {
        Some(record) => Failure::bad_input(format!(
            "the IGVM file has a page at {:#x}, which is no page address; build it again",
            record.gpa
        )),
        None => too_large(),
    })?;
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

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use snp_host::launch::{LaunchImage, kind};
    use snp_host::switches::Switches;
    use zerocopy::IntoBytes;

    use super::{Armed, GuestMemory, launch_blob};
    use crate::launch_plan::{LaunchPage, LaunchPlan, PageKind};

    const MEMORY: GuestMemory = GuestMemory::new(64 << 20);

    fn page(gpa: u64, kind: PageKind, byte: u8) -> LaunchPage {
        LaunchPage {
            gpa,
            kind,
            contents: Box::new([byte; 4096]),
        }
    }

    #[test]
    fn the_host_reads_what_the_plan_says() {
        let plan = LaunchPlan {
            pages: vec![
                page(0x40_0000, PageKind::Normal, 7),
                page(0x40_1000, PageKind::Normal, 0),
                page(0x40_2000, PageKind::Unmeasured, 0),
                page(0x40_3000, PageKind::Cpuid, 3),
                page(0x40_4000, PageKind::Secrets, 0),
                page(0xffff_ffff_f000, PageKind::Vmsa, 9),
            ],
            required: Vec::from([Range {
                start: 0x50_0000,
                end: 0x50_3000,
            }]),
            vmsa_gpa: 0xffff_ffff_f000,
        };
        let switches = Switches::new().with_trace(true);
        let armed = Armed {
            kind: kind::ATTACK_ON_PAGE,
            gpa: 0x40_5000,
            word: 0x1001,
        };
        let mut blob = launch_blob(&plan, MEMORY, 2, switches, &[armed]).expect("a small plan");
        blob.resize(blob.len().next_multiple_of(8), 0);
        // The host finds the image at a page boundary; a vector of bytes may lie anywhere.
        let mut aligned = vec![0_u64; blob.len() / 8];
        aligned.as_mut_bytes().copy_from_slice(&blob);
        let image = LaunchImage::parse(aligned.as_bytes()).expect("a whole image");
        assert_eq!(image.switches(), switches);
        assert_eq!((image.memory(), image.cpus()), (MEMORY, 2));
        let found: Vec<_> = image
            .pages()
            .map(|page| {
                (
                    page.record.gpa,
                    page.record.kind,
                    page.bytes.first().copied(),
                )
            })
            .collect();
        let want = [
            (0x50_0000, kind::REQUIRED, None),
            (0x40_0000, kind::NORMAL, Some(7)),
            (0x40_1000, kind::ZERO, None),
            (0x40_2000, kind::UNMEASURED, Some(0)),
            (0x40_3000, kind::CPUID, Some(3)),
            (0x40_4000, kind::SECRETS, Some(0)),
            (0xffff_ffff_f000, kind::VMSA, Some(9)),
            (0x40_5000, kind::ATTACK_ON_PAGE, None),
        ];
        assert_eq!(found, want);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let plan = |pages| LaunchPlan {
            pages,
            ..LaunchPlan::default()
        };
        let refused = |plan: &LaunchPlan| {
            let error = launch_blob(plan, MEMORY, 1, Switches::new(), &[]);
            error.expect_err("it does not fit").to_string()
        };
        let odd = plan(vec![page(0x40_0800, PageKind::Normal, 1)]);
        assert!(refused(&odd).contains("0x400800"));
        let many = plan(vec![page(0x40_0000, PageKind::Normal, 0); 262_145]);
        assert!(refused(&many).contains("262145 pages, and the emulated machine takes 262144;"));
    }
}
