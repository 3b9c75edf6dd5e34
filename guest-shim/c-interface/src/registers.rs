// SPDX-License-Identifier: MIT OR Apache-2.0
//! The registers of a call, as a kernel's function gets them.

use core::ffi::c_int;
use core::ptr;

use guest_shim::CallFailed;

/// The four registers of a call to the service (AMD 58019, section 4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct CallRegisters {
    /// Protocol number in bits 63:32 and call number in bits 31:0; the result code afterwards.
    pub rax: u64,
    /// First argument, first result.
    pub rcx: u64,
    /// Second argument, second result.
    pub rdx: u64,
    /// Third argument, third result.
    pub r8: u64,
}

/// Has a kernel's function issue a call, and takes over what it wrote.
///
/// # Errors
/// [`CallFailed`] when the function says that the service has not seen the call.
pub(crate) fn answered(
    registers: &mut snp::svsm::CallRegisters,
    call: impl FnOnce(*mut CallRegisters) -> c_int,
) -> Result<(), CallFailed> {
    let mut copy = CallRegisters {
        rax: registers.rax,
        rcx: registers.rcx,
        rdx: registers.rdx,
        r8: registers.r8,
    };
    if call(ptr::from_mut(&mut copy)) != 0 {
        return Err(CallFailed);
    }
    registers.rax = copy.rax;
    registers.rcx = copy.rcx;
    registers.rdx = copy.rdx;
    registers.r8 = copy.r8;
    Ok(())
}
