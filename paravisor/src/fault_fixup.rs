// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which faults of the image are survived.
//!
//! A guest or host can take the validation of any page away. Touching such a page raises #VC with
//! error code 0x404. In the few routines that touch pages on a guest's behalf (copying, zeroing, evicting,
//! PVALIDATE, RMPADJUST) that is an answer; anywhere else it is the loss of our own memory and ends
//! the VM. The routines list their instructions in the section `.fixup_table`.
//!
//! Only RIP decides, not the address that faulted. A routine that copies between a guest's page and
//! ours therefore touches our side once more when it was resumed.

/// Vector of #VC.
pub const VECTOR_VC: u64 = 29;
/// Vector of #HV.
pub const VECTOR_HV: u64 = 28;
/// #VC error code: the page is not validated (APM volume 2, 15.36.10).
pub const NOT_VALIDATED: u64 = 0x404;

/// An entry of the section `.fixup_table`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct FixupEntry {
    /// Address of the instruction that may fault.
    pub instruction: u64,
    /// Where execution goes on when it did.
    pub landing: u64,
}

/// Where to go on after a fault; `None` if it must end the VM.
#[must_use]
pub fn landing(table: &[FixupEntry], vector: u64, error_code: u64, rip: u64) -> Option<u64> {
    if vector != VECTOR_VC || error_code != NOT_VALIDATED {
        return None;
    }
    table
        .iter()
        .find(|entry| entry.instruction == rip)
        .map(|entry| entry.landing)
}

#[cfg(test)]
mod tests {
    use super::{FixupEntry, NOT_VALIDATED, VECTOR_VC, landing};

    #[test]
    fn only_an_unvalidated_page_at_a_listed_instruction_is_survived() {
        let table = [
            FixupEntry {
                instruction: 0x1000,
                landing: 0x1010,
            },
            FixupEntry {
                instruction: 0x2000,
                landing: 0x2010,
            },
        ];
        assert_eq!(
            landing(&table, VECTOR_VC, NOT_VALIDATED, 0x2000),
            Some(0x2010)
        );
        assert_eq!(landing(&table, VECTOR_VC, NOT_VALIDATED, 0x2001), None);
        assert_eq!(landing(&table, VECTOR_VC, 0x72, 0x2000), None);
        assert_eq!(landing(&table, 14, NOT_VALIDATED, 0x2000), None);
    }
}
