// SPDX-License-Identifier: MIT OR Apache-2.0
//! The instructions and registers of an SNP guest: all inline assembly of the libraries.
//!
//! * [`rmp`]: PVALIDATE and RMPADJUST, with a fix-up for the fault each can take;
//! * [`copy`]: a copy to or from shared memory;
//! * [`exit`]: VMGEXIT, the GHCB MSR, SEV_STATUS, and an SVSM call by the MSR protocol.

pub mod copy;
pub mod exit;
pub mod rmp;

pub use copy::copy_bytes;
pub use exit::{PendingCall, read_ghcb_msr, read_sev_status, svsm_call, vmgexit, write_ghcb_msr};
pub use rmp::{Faulted, pvalidate, rmpadjust};
