// SPDX-License-Identifier: MIT OR Apache-2.0
//! When a host may switch a vCPU to another VMPL (GHCB specification, 4.1.15).

use snp::vmsa::EFER_SVME;

use crate::rmp::RmpEntry;

/// Why a switch is refused; the number is the error the host reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Refusal {
    /// No VMSA was registered for that VMPL.
    NoVmsa = 1,
    /// VMRUN would fail: EFER.SVME is clear, which is how VMPL 0 keeps a vCPU from running.
    NotRunnable = 2,
    /// The registered page is no VMSA any more.
    NotVmsaPage = 3,
    /// Another processor runs it.
    InUse = 4,
}

/// Whether the host may run the VMSA in the page with this entry.
///
/// # Errors
/// The reason why not.
pub fn check(vmsa: Option<&RmpEntry>, efer: u64) -> Result<(), Refusal> {
    let entry = vmsa.ok_or(Refusal::NoVmsa)?;
    if !(entry.assigned && entry.validated && entry.vmsa) {
        return Err(Refusal::NotVmsaPage);
    }
    if entry.in_use {
        return Err(Refusal::InUse);
    }
    if efer & EFER_SVME == 0 {
        return Err(Refusal::NotRunnable);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vmsa_runs_only_while_it_is_one() {
        let mut entry = RmpEntry::default();
        (entry.assigned, entry.validated, entry.vmsa) = (true, true, true);
        assert_eq!(check(Some(&entry), EFER_SVME), Ok(()));
        assert_eq!(check(Some(&entry), 0), Err(Refusal::NotRunnable));
        assert_eq!(check(None, EFER_SVME), Err(Refusal::NoVmsa));
        entry.in_use = true;
        assert_eq!(check(Some(&entry), EFER_SVME), Err(Refusal::InUse));
        (entry.in_use, entry.validated) = (false, false);
        assert_eq!(check(Some(&entry), EFER_SVME), Err(Refusal::NotVmsaPage));
        (entry.validated, entry.vmsa) = (true, false);
        assert_eq!(check(Some(&entry), EFER_SVME), Err(Refusal::NotVmsaPage));
    }
}
