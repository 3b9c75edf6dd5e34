// SPDX-License-Identifier: MIT OR Apache-2.0
//! Launching: the pages of the image become private and validated, everything else starts as the
//! switches say, and the boot CPU gets its VMSA (SNP firmware ABI, SNP_LAUNCH_UPDATE).

use core::fmt;

use snp::address::{LARGE_PAGE_SIZE, PAGE_SIZE, PageSize, Vmpl};
use snp::cpuid::CpuidPage;
use snp::secrets::{KEY_BYTES, SecretsPage, VERSION};
use snp::vmsa::{EFER_SVME, LAUNCH_VMSA, Vmsa};
use zerocopy::{FromBytes, IntoBytes};

use crate::attack::PageAttack;
use crate::cpuid_policy;
use crate::false_reply::FalseReply;
use crate::hardware::Hardware;
use crate::injection::Injection;
use crate::launch::{LaunchImage, LaunchPage, Record, kind};
use crate::machine::Machine;
use crate::record::{self, ExitCode};
use crate::served_features;
use crate::shared_view;
use crate::surplus_launch::SurplusLaunch;
use crate::vcpu::Cpu;

const LARGE_PAGES: usize = 512;
/// The test machine's communication keys: the byte number, so that a key that leaks is recognized.
const KEY_STEP: u8 = 7;

impl<H: Hardware> Machine<'_, H> {
    /// Launches `image` on `cpu`.
    ///
    /// # Errors
    /// [`ExitCode::BadLaunch`] after a record that says why.
    pub fn launch(&mut self, cpu: &mut Cpu, image: &LaunchImage<'_>) -> Result<(), ExitCode> {
        self.cpus = image.cpus();
        let ram = image.memory().firmware_ram;
        self.configuration.launch(&self.hardware, ram, self.cpus);
        self.fill_patterns();
        let mut started = false;
        for page in image.pages() {
            let launched = if page.record.kind == kind::VMSA {
                if let Some(feature) = missing_feature(page.bytes) {
                    let what = format_args!("feature-{feature}");
                    return Err(self.bad_launch(what, page.record.gpa));
                }
                started = self.load_boot_vmsa(cpu, page.bytes);
                started
            } else {
                self.launch_page(cpu, &page)
            };
            if !launched {
                return Err(self.bad_launch("page", page.record.gpa));
            }
        }
        if !started {
            return Err(self.bad_launch("no-vmsa", LAUNCH_VMSA));
        }
        if self.switches.ram_starts_private() {
            self.assign_all();
        }
        for first in (0..self.rmp.pages()).step_by(LARGE_PAGES) {
            self.nested.sync(&self.hardware, &self.rmp, first, true);
        }
        self.hardware.load_context(cpu.vcpu_mut());
        cpu.is_resident = true;
        self.record(
            record::kind::TRACE,
            format_args!("launched tsc={}", self.hardware.timestamp()),
        );
        Ok(())
    }

    fn bad_launch(&self, what: impl fmt::Display, gpa: u64) -> ExitCode {
        self.record(
            record::kind::DIED,
            format_args!("what=launch-{what} gpa={gpa:#x}"),
        );
        ExitCode::BadLaunch
    }

    fn fill_patterns(&self) {
        if self.shared_view.is_patterned() {
            for range in self.plan.layout().ranges() {
                for gpa in (range.base..range.base + range.bytes).step_by(1 << 12) {
                    shared_view::write_pattern(&self.hardware, &self.plan, gpa);
                }
            }
        }
    }

    fn launch_page(&mut self, cpu: &Cpu, page: &LaunchPage<'_>) -> bool {
        if let Some(armed) = self.arm(cpu, page.record) {
            return armed;
        }
        let Some(index) = self.plan.page_index(page.record.gpa) else {
            return false;
        };
        let host = self.plan.private_page(index);
        match page.record.kind {
            kind::REQUIRED => return self.require_memory(index, page.record.data),
            kind::ZERO => self.hardware.fill(host, PAGE_SIZE, 0),
            kind::SECRETS => {
                let Ok(mut secrets) = SecretsPage::read_from_bytes(page.bytes) else {
                    return false;
                };
                fill_secrets(&mut secrets);
                self.attacks.secrets = Some(index);
                self.hardware.write(host, secrets.as_bytes());
            }
            kind::CPUID => {
                let Ok(mut cpuid) = CpuidPage::read_from_bytes(page.bytes) else {
                    return false;
                };
                cpuid_policy::fill_page(&self.hardware, self.place(cpu), &mut cpuid);
                self.hardware.write(host, cpuid.as_bytes());
            }
            _ => self.hardware.write(host, page.bytes),
        }
        self.rmp.set_launch_page(index)
    }

    /// Arms the attack of a record; `None` when it is a page, false when the attack is unknown.
    fn arm(&mut self, cpu: &Cpu, record: Record) -> Option<bool> {
        let attacks = &mut self.attacks;
        match record.kind {
            kind::ATTACK_ON_PAGE => {
                attacks.page = PageAttack::decode(record.gpa, record.data);
                Some(attacks.page.is_some())
            }
            kind::ATTACK_BY_REPLY => {
                attacks.reply = FalseReply::decode(record.data);
                Some(attacks.reply.is_some())
            }
            kind::ATTACK_BY_VECTOR => {
                attacks.vector = Injection::decode(record.data);
                Some(attacks.vector.is_some())
            }
            kind::ATTACK_BY_LAUNCH => {
                attacks.surplus = SurplusLaunch::decode(record.data, cpu.at(Vmpl::Vmpl0));
                Some(attacks.surplus.is_some())
            }
            _ => None,
        }
    }

    /// Private, not validated: the image validates it without asking for a page-state change.
    fn require_memory(&mut self, first: usize, pages: u32) -> bool {
        let end = first.saturating_add(pages as usize);
        if end > self.rmp.pages() {
            return false;
        }
        (first..end).all(|index| self.assign(index, PageSize::Size4K))
    }

    fn assign(&mut self, index: usize, size: PageSize) -> bool {
        let gpa = self.plan.shared_page(index);
        if self.shared_view.is_patterned() {
            self.hardware.fill(
                self.plan.private_page(index),
                size.bytes(),
                shared_view::scramble(gpa),
            );
        }
        self.rmp.rmpupdate(index, size, true)
    }

    /// Gives the guest all RAM that the image does not occupy, in large pages where it can.
    fn assign_all(&mut self) {
        for first in (0..self.rmp.pages()).step_by(LARGE_PAGES) {
            let is_free = |index| self.rmp.entry(index).is_some_and(|entry| !entry.assigned);
            let whole = (first..first + LARGE_PAGES).all(is_free);
            if whole && !self.switches.small_pages_only() {
                self.assign(first, PageSize::Size2M);
                continue;
            }
            for index in first..first + LARGE_PAGES {
                if self.rmp.entry(index).is_some_and(|entry| !entry.assigned) {
                    self.assign(index, PageSize::Size4K);
                }
            }
        }
    }

    /// The rules that KVM and QEMU have for a boot VMSA: VMPL 0, SNP active, EFER.SVME set.
    fn load_boot_vmsa(&self, cpu: &mut Cpu, bytes: &[u8]) -> bool {
        let Ok(vmsa) = Vmsa::read_from_bytes(bytes) else {
            return false;
        };
        if vmsa.vmpl != 0 || vmsa.sev_features & 1 == 0 || vmsa.efer & EFER_SVME == 0 {
            return false;
        }
        let vcpu = cpu.vcpu_mut();
        vcpu.load(&vmsa);
        vcpu.is_boot = true;
        true
    }
}

const _: () = assert!(LARGE_PAGES as u64 * PAGE_SIZE == LARGE_PAGE_SIZE);

/// Name of a feature that a VMSA asks for and the machine does not have.
fn missing_feature(vmsa: &[u8]) -> Option<&'static str> {
    let vmsa = Vmsa::read_from_bytes(vmsa).ok()?;
    served_features::missing(vmsa.sev_features)
}

fn fill_secrets(secrets: &mut SecretsPage) {
    if secrets.version == 0 {
        secrets.version = VERSION;
        for (number, key) in secrets.vmpck.iter_mut().enumerate() {
            for (place, byte) in key.iter_mut().enumerate() {
                *byte = key_byte(number, place);
            }
        }
    }
}

/// A byte of the key of this VMPL.
pub(crate) fn key_byte(vmpl: usize, place: usize) -> u8 {
    let [low, ..] = (vmpl * KEY_BYTES + place).to_le_bytes();
    low.wrapping_mul(KEY_STEP).wrapping_add(3)
}
