// SPDX-License-Identifier: MIT OR Apache-2.0
//! Exits through the GHCB (GHCB specification, section 4).

use paravisor::termination::Reason;
use snp::address::{GuestPhysicalAddress, Vmpl};
use snp::ghcb::{
    ApCreation, ExitStatus, IoExitInformation, PROTOCOL_VERSION, doorbell, exit_code, offset,
};
use snp::instructions::{vmgexit, write_ghcb_msr};
use snp::psc::{PscDescriptor, PscHeader};
use svsm_swiotlb::platform::{HostPages, Issue, PscExit};

use super::host_page::HostPage;
use super::{Machine, msr_exit, processor};

/// Serial port that carries the console.
const COM1: u16 = 0x3f8;
/// Offset of the descriptor's entries in the shared buffer, behind its header.
const PSC_ENTRIES: usize = offset::SHARED_BUFFER + size_of::<PscHeader>();

/// What an AP creation does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum ApOperation {
    /// The context is installed for the next INIT, nothing runs yet.
    CreateOnInit = 0,
    /// The context is installed and runs.
    CreateNow = 1,
}

/// The GHCB of the vCPU that runs this code.
#[derive(Debug, Clone, Copy)]
pub struct Ghcb<'a> {
    page: &'a HostPage,
}

/// What goes into an exit; SW_SCRATCH and RAX only where the event has them.
#[derive(Debug, Default)]
struct Exit {
    code: u64,
    info_1: u64,
    info_2: u64,
    scratch: Option<u64>,
    rax: Option<u64>,
}

impl<'a> Ghcb<'a> {
    /// Wraps a page that is shared, mapped and registered.
    pub const fn new(page: &'a HostPage) -> Self {
        Self { page }
    }

    /// Negotiates with the host and registers `page`, which is shared and mapped C=0 already.
    ///
    /// # Errors
    /// [`Reason::GhcbRegister`].
    pub fn bring_up(page: &'a HostPage) -> Result<Self, Reason> {
        page.clear();
        msr_exit::register_ghcb(page.gpa())?;
        Ok(Self::new(page))
    }

    /// Writes one byte to the serial port. A host that refuses loses console output, nothing else.
    pub fn write_console(&self, byte: u8) {
        let port = IoExitInformation::new()
            .with_port(COM1)
            .with_operand_bytes(1);
        self.exit(&Exit {
            code: exit_code::IOIO,
            info_1: port.into_bits(),
            rax: Some(u64::from(byte)),
            ..Exit::default()
        });
    }

    /// Installs `vmsa` as the context of the vCPU `apic_id` at `vmpl`; `features` are those of the
    /// VMSA.
    ///
    /// # Errors
    /// [`Reason::VmsaCreate`].
    pub fn create_vcpu(
        &self,
        operation: ApOperation,
        apic_id: u32,
        vmpl: Vmpl,
        vmsa: GuestPhysicalAddress,
        features: u64,
    ) -> Result<(), Reason> {
        let info = ApCreation::new()
            .with_operation(operation as u16)
            .with_apic_id(apic_id)
            // Never refused; but the plain setter has a panic in it, and this is on the way of CREATE_VCPU.
            .with_vmpl_checked(vmpl.number())
            .map_err(|()| Reason::VmsaCreate)?;
        let (info_1, info_2) = self.exit(&Exit {
            code: exit_code::AP_CREATION,
            info_1: info.into_bits(),
            info_2: vmsa.bits(),
            rax: Some(features),
            ..Exit::default()
        });
        done(info_1, info_2).map_err(|()| Reason::VmsaCreate)
    }

    /// Registers the #HV doorbell page.
    ///
    /// # Errors
    /// [`Reason::DoorbellRegister`].
    pub fn set_doorbell(&self, page: GuestPhysicalAddress) -> Result<(), Reason> {
        let (info_1, info_2) = self.exit(&Exit {
            code: exit_code::HV_DOORBELL,
            info_1: doorbell::SET,
            info_2: page.bits(),
            ..Exit::default()
        });
        done(info_1, info_2).map_err(|()| Reason::DoorbellRegister)
    }

    /// One page-state change; see [`HostPages`].
    fn page_state_change(&self, descriptor: &mut PscDescriptor, issue: Issue) -> PscExit {
        let PscHeader {
            cur_entry,
            end_entry,
            reserved,
        } = descriptor.header;
        let packed = u64::from(cur_entry) | u64::from(end_entry) << 16 | u64::from(reserved) << 32;
        self.page.write(offset::SHARED_BUFFER, packed);
        // Nothing but a page-state change uses the buffer, so an unfinished list is still in it.
        if issue == Issue::First {
            let entries = descriptor.entries.iter().take(usize::from(end_entry) + 1);
            for (index, entry) in entries.enumerate() {
                self.page.write(PSC_ENTRIES + 8 * index, entry.into_bits());
            }
        }
        let (sw_exit_info_1, sw_exit_info_2) = self.exit(&Exit {
            code: exit_code::PAGE_STATE_CHANGE,
            scratch: Some(self.page.gpa().bits() + offset::SHARED_BUFFER as u64),
            ..Exit::default()
        });
        let [c0, c1, e0, e1, reserved @ ..] =
            self.page.read::<u64>(offset::SHARED_BUFFER).to_le_bytes();
        descriptor.header = PscHeader {
            cur_entry: u16::from_le_bytes([c0, c1]),
            end_entry: u16::from_le_bytes([e0, e1]),
            reserved: u32::from_le_bytes(reserved),
        };
        PscExit {
            sw_exit_info_1,
            sw_exit_info_2,
        }
    }

    /// One VMGEXIT; both information words of the answer, each read once.
    fn exit(&self, exit: &Exit) -> (u64, u64) {
        let mut valid = [0_u64; 2];
        let mut put = |field: usize, value: u64| {
            self.page.write(field, value);
            let bit = offset::valid_bit(field);
            if let Some(word) = valid.get_mut(bit / 64) {
                *word |= 1 << (bit % 64);
            }
        };
        put(offset::SW_EXIT_CODE, exit.code);
        put(offset::SW_EXIT_INFO_1, exit.info_1);
        put(offset::SW_EXIT_INFO_2, exit.info_2);
        if let Some(scratch) = exit.scratch {
            put(offset::SW_SCRATCH, scratch);
        }
        if let Some(rax) = exit.rax {
            put(offset::RAX, rax);
        }
        self.page.write(offset::VALID_BITMAP, valid[0]);
        self.page.write(offset::VALID_BITMAP + 8, valid[1]);
        self.page.write(offset::PROTOCOL_VERSION, PROTOCOL_VERSION);
        self.page.write(offset::USAGE, 0_u32);
        // SAFETY: The page is shared with the host and holds a complete request; interrupts are off
        // and the #HV handler uses neither the GHCB nor its MSR.
        unsafe {
            write_ghcb_msr(self.page.gpa().bits());
            vmgexit();
        }
        (
            self.page.read(offset::SW_EXIT_INFO_1),
            self.page.read(offset::SW_EXIT_INFO_2),
        )
    }
}

/// Whether the host says that it did what it was asked.
fn done(info_1: u64, info_2: u64) -> Result<(), ()> {
    match ExitStatus::new(info_1, info_2) {
        ExitStatus::Done => Ok(()),
        _ => Err(()),
    }
}

impl HostPages for Machine {
    fn page_state_change(&self, descriptor: &mut PscDescriptor, issue: Issue) -> PscExit {
        Ghcb::new(processor::current().ghcb).page_state_change(descriptor, issue)
    }
}
