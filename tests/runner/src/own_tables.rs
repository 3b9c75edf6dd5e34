// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whether VMPL 0 keeps code and data apart, and has got rid of its keys.

use paravisor::layout::{IMAGE_END, IMAGE_LOAD};

use crate::checks::Check;
use crate::host_record::Inspection;
use crate::run::Outcome;

/// Most bytes of a stack; a guard page is on either side.
const STACK_BYTES: u64 = 64 << 10;
/// The moments at which the host looks (`snp_host::inspection::Moment`): with the entry code's tables, with the others, and on
/// another vCPU, if the guest has one.
const MOMENTS: [u64; 3] = [0, 1, 2];

/// No page is writable and executable; what is executable is one piece of the image behind its parameter pages.
#[must_use]
pub fn check(outcome: &Outcome) -> Check {
    let found = &outcome.transcript.inspections;
    let moments: Vec<_> = found.iter().map(|one| one.moment).collect();
    let fault = found.iter().find_map(fault);
    let looked = all_looked_at(&moments, outcome.transcript.cpus);
    Check {
        name: "VMPL0's page tables are W^X, its stacks have guard pages, and its keys are gone",
        ok: looked && fault.is_none(),
        detail: match (fault, found.last()) {
            (Some(fault), _) => fault,
            (None, Some(last)) if looked => {
                format!("{} KiB of code", last.executable >> 10)
            }
            _ => format!("the host looked {} times", moments.len()),
        },
    }
}

/// Whether these are all moments of a guest with so many vCPUs. Not every guest says how many it has.
fn all_looked_at(moments: &[u64], vcpus: Option<u64>) -> bool {
    let [first @ .., _] = MOMENTS;
    moments == MOMENTS || moments == first && vcpus.is_none_or(|vcpus| vcpus == 1)
}

fn fault(one: &Inspection) -> Option<String> {
    let (start, end) = one.code;
    let fault = if one.both != 0 {
        format!("{} bytes are writable and executable", one.both)
    } else if one.executable == 0 || end.checked_sub(start) != Some(one.executable) {
        "the executable pages are not one piece".into()
    } else if start < IMAGE_LOAD || end > IMAGE_END {
        format!("{start:#x}..{end:#x} is executable, which is more than code")
    } else if one.stack > STACK_BYTES {
        format!("{} KiB around the stack are mapped", one.stack >> 10)
    } else if one.keys != 0 {
        format!("{} copies of a key of VMPL0 or VMPL1", one.keys)
    } else {
        return None;
    };
    Some(format!("moment {}: {fault}", one.moment))
}

#[cfg(test)]
mod tests {
    use super::{IMAGE_LOAD, Inspection, all_looked_at, fault};

    const GOOD: Inspection = Inspection {
        moment: 1,
        writable: 1 << 20,
        executable: 0x1000,
        both: 0,
        code: (IMAGE_LOAD, IMAGE_LOAD + 0x1000),
        stack: 64 << 10,
        keys: 0,
    };

    type Change = fn(&mut Inspection);

    #[test]
    fn each_fault_is_named() {
        assert_eq!(fault(&GOOD), None);
        let faults: [(&str, Change); 6] = [
            ("writable and executable", |one| one.both = 4096),
            ("not one piece", |one| one.executable = 0),
            ("not one piece", |one| one.code.1 += 4096),
            ("more than code", |one| {
                one.code = (IMAGE_LOAD - 4096, IMAGE_LOAD);
            }),
            ("around the stack", |one| one.stack += 4096),
            ("1 copies of a key", |one| one.keys = 1),
        ];
        for (words, change) in faults {
            let mut one = GOOD;
            change(&mut one);
            let fault = fault(&one).expect(words);
            assert!(fault.contains(words), "{fault}");
        }
    }

    #[test]
    fn another_vcpu_is_looked_at_if_there_is_one() {
        assert!(all_looked_at(&[0, 1], Some(1)) && all_looked_at(&[0, 1], None));
        assert!(all_looked_at(&[0, 1, 2], Some(2)) && all_looked_at(&[0, 1, 2], None));
        for moments in [&[0, 1][..], &[0], &[0, 2], &[0, 1, 2, 2]] {
            assert!(!all_looked_at(moments, Some(2)), "{moments:?}");
        }
    }
}
