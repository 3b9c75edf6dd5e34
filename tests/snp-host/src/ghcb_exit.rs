// SPDX-License-Identifier: MIT OR Apache-2.0
//! VMGEXIT with a GHCB page (GHCB specification, section 4): the events a guest of this machine
//! needs. The page is shared memory: each field is read once, and only the reply is written.

use snp::address::{GuestPhysicalAddress, PAGE_SIZE};
use snp::ghcb::{
    ApCreation, PROTOCOL_VERSION, SHARED_BUFFER_SIZE, doorbell, exit_code, malformed, offset,
};
use snp::psc::{PscEntry, PscHeader};
use snp_model::psc::{self, HostManner};
use snp_model::run_vmpl::Refusal;
use zerocopy::IntoBytes;

use crate::counters::{Event, Vmgexit};
use crate::cpuid_policy;
use crate::exits::low;
use crate::hardware::Hardware;
use crate::machine::{Flow, Machine};
use crate::msr_protocol::FEATURES;
use crate::page_conversion::ConversionRun;
use crate::svsm_calls::Form;
use crate::vcpu::{Cpu, WokenBy};
use crate::vcpu_creation::DESTROY;

/// SW_EXITINFO1 of a reply.
const MALFORMED: u64 = 2;
const RAISE_EXCEPTION: u64 = 1;

/// A request: the fields of the GHCB, read once.
#[derive(Clone, Copy, Debug)]
pub struct GhcbRequest {
    /// Address of the page, in the guest and in the shared view.
    pub page: u64,
    /// SW_EXITINFO1.
    pub info_1: u64,
    /// SW_EXITINFO2.
    pub info_2: u64,
    /// SW_SCRATCH.
    pub scratch: u64,
    /// RAX.
    pub rax: u64,
    /// RCX.
    pub rcx: u64,
    /// RDX.
    pub rdx: u64,
    valid: u128,
}

impl GhcbRequest {
    /// Whether all of `fields` are marked valid.
    pub(crate) fn has(&self, fields: &[usize]) -> bool {
        fields
            .iter()
            .all(|field| self.valid & (1 << offset::valid_bit(*field)) != 0)
    }

    /// Host address of `length` bytes at SW_SCRATCH, which must lie in the shared buffer.
    #[must_use]
    pub fn buffer(&self, length: u64) -> Option<u64> {
        let start = self.page + offset::SHARED_BUFFER as u64;
        let end = self.scratch.checked_add(length)?;
        let inside = self.has(&[offset::SW_SCRATCH])
            && self.scratch >= start
            && end <= start + SHARED_BUFFER_SIZE as u64;
        inside.then_some(self.scratch)
    }
}

/// What goes back to the guest.
#[derive(Clone, Copy, Debug, Default)]
pub struct GhcbReply {
    /// SW_EXITINFO1.
    pub info_1: u64,
    /// SW_EXITINFO2.
    pub info_2: u64,
    /// Registers by offset in the GHCB.
    pub registers: [Option<(usize, u64)>; 4],
}

impl GhcbReply {
    /// The request is malformed.
    #[must_use]
    pub fn malformed(reason: u64) -> Self {
        Self {
            info_1: MALFORMED,
            info_2: reason,
            ..Self::default()
        }
    }

    /// The guest shall raise this event.
    #[must_use]
    pub fn exception(event: u64) -> Self {
        Self {
            info_1: RAISE_EXCEPTION,
            info_2: event,
            ..Self::default()
        }
    }

    /// Success with the value of RAX.
    #[must_use]
    pub fn rax(value: u64) -> Self {
        Self {
            registers: [Some((offset::RAX, value)), None, None, None],
            ..Self::default()
        }
    }
}

impl<H: Hardware> Machine<'_, H> {
    /// Serves the request in the GHCB at `page`.
    ///
    /// # Errors
    /// Why the machine stops.
    pub fn ghcb_exit(&mut self, cpu: &mut Cpu, page: GuestPhysicalAddress) -> Flow {
        let is_shared = self
            .plan
            .page_index(page.bits())
            .and_then(|index| self.rmp.entry(index))
            .is_some_and(|entry| !entry.assigned);
        if !is_shared {
            return Err(self.violation(cpu, "ghcb-not-shared", page.bits()));
        }
        let word = |field: usize| self.hardware.read_u64(page.bits() + field as u64);
        let request = GhcbRequest {
            page: page.bits(),
            info_1: word(offset::SW_EXIT_INFO_1),
            info_2: word(offset::SW_EXIT_INFO_2),
            scratch: word(offset::SW_SCRATCH),
            rax: word(offset::RAX),
            rcx: word(offset::RCX),
            rdx: word(offset::RDX),
            valid: u128::from(word(offset::VALID_BITMAP))
                | (u128::from(word(offset::VALID_BITMAP + 8)) << 64),
        };
        let code = word(offset::SW_EXIT_CODE);
        // The last word of the page: reserved, version, usage.
        let trailer = word(offset::PROTOCOL_VERSION - 2);
        let (version, usage) = ((trailer >> 16) & 0xFFFF, trailer >> 32);
        let needed = [
            offset::SW_EXIT_CODE,
            offset::SW_EXIT_INFO_1,
            offset::SW_EXIT_INFO_2,
        ];
        let refused = if cpu.vcpu().registered_ghcb != Some(page) {
            Some(malformed::NOT_REGISTERED)
            // OVMF leaves the version 0; KVM does not look at it.
        } else if usage != 0 || version > u64::from(PROTOCOL_VERSION) {
            Some(malformed::INVALID_USAGE)
        } else if !request.has(&needed) {
            Some(malformed::MISSING_INPUT)
        } else {
            None
        };
        if let Some(reason) = refused {
            self.counters.vmgexit(cpu.current, Vmgexit::Refused);
            self.reply(page, GhcbReply::malformed(reason));
            return Ok(());
        }
        let cause = match code {
            exit_code::CPUID => Vmgexit::Cpuid,
            exit_code::HLT => Vmgexit::Halt,
            exit_code::AP_RESET_HOLD => Vmgexit::ResetHold,
            exit_code::APIC_ID_LIST => Vmgexit::ApicIdList,
            exit_code::WBINVD | exit_code::MONITOR | exit_code::MWAIT => Vmgexit::NoEffect,
            exit_code::IOIO => Vmgexit::Ioio,
            exit_code::MSR => Vmgexit::Msr,
            exit_code::MMIO_READ => Vmgexit::MmioRead,
            exit_code::MMIO_WRITE => Vmgexit::MmioWrite,
            exit_code::NMI_COMPLETE => Vmgexit::NmiComplete,
            exit_code::PAGE_STATE_CHANGE => Vmgexit::Psc,
            exit_code::AP_CREATION => Vmgexit::ApCreate,
            exit_code::HV_DOORBELL => Vmgexit::HvDoorbell,
            exit_code::RUN_VMPL => Vmgexit::RunVmpl,
            exit_code::HYPERVISOR_FEATURES => Vmgexit::Features,
            exit_code::TERMINATE => Vmgexit::Terminate,
            _ => Vmgexit::Refused,
        };
        self.counters.vmgexit(cpu.current, cause);
        let reply = match cause {
            Vmgexit::Cpuid => self.ghcb_cpuid(cpu, &request),
            Vmgexit::Halt => {
                self.halt(cpu, WokenBy::Interrupt);
                GhcbReply::default()
            }
            Vmgexit::ResetHold => {
                // No interrupt and no NMI ends it, and no SIPI comes, which SW_EXITINFO2 = 1 would say.
                self.halt(cpu, WokenBy::Registration);
                GhcbReply::default()
            }
            Vmgexit::ApicIdList => self.apic_id_list(&request),
            Vmgexit::NoEffect => GhcbReply::default(),
            Vmgexit::Ioio => self.port_access(cpu, &request)?,
            Vmgexit::Msr => self.ghcb_msr_access(cpu, &request),
            Vmgexit::MmioRead | Vmgexit::MmioWrite => {
                self.device_access(cpu, &request, cause == Vmgexit::MmioWrite)
            }
            Vmgexit::NmiComplete => {
                self.nmi_complete(cpu);
                GhcbReply::default()
            }
            Vmgexit::Psc => self.page_state_change(cpu, &request),
            Vmgexit::ApCreate => {
                let creation = ApCreation::from_bits(request.info_1);
                // KVM wants RAX for everything but DESTROY (arch/x86/kvm/svm/sev.c, sev_es_validate_vmgexit); OVMF
                // sets it for nothing else.
                let complete = request.has(&[offset::RAX]) || creation.operation() == DESTROY;
                let created =
                    complete && self.create_vcpu(cpu, creation, request.info_2, request.rax);
                if created {
                    GhcbReply::default()
                } else {
                    GhcbReply::malformed(malformed::INVALID_INPUT)
                }
            }
            Vmgexit::HvDoorbell => {
                let reply = set_doorbell(cpu, &request);
                if let Some(page) = cpu.vcpu().doorbell {
                    self.note_protocol_page(page.bits());
                }
                reply
            }
            Vmgexit::Features => GhcbReply {
                info_2: FEATURES.into_bits(),
                ..GhcbReply::default()
            },
            Vmgexit::Terminate => {
                return Err(self.terminate(cpu, request.info_1, request.info_2));
            }
            Vmgexit::RunVmpl => {
                // Written first: the page belongs to the VMPL that leaves.
                self.reply(page, GhcbReply::default());
                let target = u8::try_from(request.info_1).map_err(|_| Refusal::NoVmsa);
                if target
                    .and_then(|target| self.switch_vmpl(cpu, target, Form::Ghcb))
                    .is_err()
                {
                    self.reply(page, GhcbReply::malformed(malformed::INVALID_INPUT));
                }
                return Ok(());
            }
            _ => GhcbReply::malformed(malformed::INVALID_EVENT),
        };
        self.reply(page, reply);
        Ok(())
    }

    /// Writes the reply and marks exactly its fields valid.
    fn reply(&self, page: GuestPhysicalAddress, reply: GhcbReply) {
        let write =
            |field: usize, value| self.hardware.write_u64(page.bits() + field as u64, value);
        let mut valid: u128 = 0;
        let infos = [
            (offset::SW_EXIT_INFO_1, reply.info_1),
            (offset::SW_EXIT_INFO_2, reply.info_2),
        ];
        for (field, value) in infos
            .into_iter()
            .chain(reply.registers.into_iter().flatten())
        {
            write(field, value);
            valid |= 1 << offset::valid_bit(field);
        }
        #[expect(clippy::cast_possible_truncation, reason = "the bitmap's two halves")]
        let halves = (valid as u64, (valid >> 64) as u64);
        write(offset::VALID_BITMAP, halves.0);
        write(offset::VALID_BITMAP + 8, halves.1);
    }

    fn ghcb_cpuid(&self, cpu: &Cpu, request: &GhcbRequest) -> GhcbReply {
        if !request.has(&[offset::RAX, offset::RCX]) {
            return GhcbReply::malformed(malformed::MISSING_INPUT);
        }
        let (leaf, subleaf) = (low(request.rax), low(request.rcx));
        let answer = cpuid_policy::answer(&self.hardware, self.place(cpu), leaf, subleaf);
        let [eax, ebx, ecx, edx] = answer.map(u64::from);
        let registers = [
            Some((offset::RAX, eax)),
            Some((offset::RBX, ebx)),
            Some((offset::RCX, ecx)),
            Some((offset::RDX, edx)),
        ];
        GhcbReply {
            registers,
            ..GhcbReply::default()
        }
    }

    /// Page-state change: the descriptor lies in the GHCB's buffer. Its header goes back, and how
    /// far each entry is done.
    fn page_state_change(&mut self, cpu: &Cpu, request: &GhcbRequest) -> GhcbReply {
        let header_bytes = size_of::<PscHeader>() as u64;
        let Some(buffer) = request.buffer(header_bytes) else {
            return GhcbReply::malformed(malformed::INVALID_SCRATCH);
        };
        let mut header = PscHeader::default();
        self.hardware.read(buffer, header.as_mut_bytes());
        // Each entry is read once, and not beyond the buffer.
        let buffer_end = request.page + PAGE_SIZE - 16;
        let mut entries = [PscEntry::new(); snp::psc::MAX_ENTRIES];
        let room = usize::try_from((buffer_end - buffer - header_bytes) / 8).unwrap_or(0);
        if usize::from(header.end_entry) >= room.min(entries.len()) {
            return GhcbReply {
                info_2: snp::psc::error::INVALID_HEADER,
                ..GhcbReply::default()
            };
        }
        let used = entries
            .get_mut(..=usize::from(header.end_entry))
            .unwrap_or_default();
        self.hardware
            .read(buffer + header_bytes, used.as_mut_bytes());
        let mut run = ConversionRun::default();
        let manner = self.manner.next(cpu.current);
        if manner != HostManner::Honest {
            self.counters.event(Event::FalsePageState);
        }
        let reply = psc::process(header, manner, used, |page, size, operation| {
            self.change_page_state(cpu, &mut run, page, size, operation)
        });
        self.report_conversions(cpu, &mut run);
        self.hardware.write(buffer, reply.header.as_bytes());
        self.hardware.write(buffer + header_bytes, used.as_bytes());
        GhcbReply {
            info_2: reply.exit_info_2,
            ..GhcbReply::default()
        }
    }
}

/// #HV doorbell: registered; [`crate::doorbell_event`] rings it where the launch asks for that.
fn set_doorbell(cpu: &mut Cpu, request: &GhcbRequest) -> GhcbReply {
    let vcpu = cpu.vcpu_mut();
    let page = GuestPhysicalAddress::new(request.info_2);
    let info_2 = match request.info_1 {
        doorbell::GET_PREFERRED => u64::MAX,
        doorbell::SET if page.is_aligned(PAGE_SIZE) => {
            vcpu.doorbell = Some(page);
            0
        }
        doorbell::QUERY => vcpu.doorbell.map_or(u64::MAX, GuestPhysicalAddress::bits),
        doorbell::CLEAR => {
            vcpu.doorbell = None;
            0
        }
        _ => return GhcbReply::malformed(malformed::INVALID_INPUT),
    };
    GhcbReply {
        info_2,
        ..GhcbReply::default()
    }
}
