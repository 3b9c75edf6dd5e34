// SPDX-License-Identifier: MIT OR Apache-2.0
//! Executes IGVM directives as a VMM does: page data, parameters, required memory, the boot VMSA.
//!
//! Source: IGVM specification (`igvm_defs`), and QEMU's loader where that leaves room.

use std::collections::BTreeMap;
use std::ops::Range;

use igvm::IgvmDirectiveHeader;
use igvm_defs::{
    IGVM_VHS_MEMORY_MAP_ENTRY, IGVM_VHS_PARAMETER, IgvmPageDataType, MemoryMapEntryType,
    PAGE_SIZE_4K,
};
use zerocopy::IntoBytes;

use crate::Failure;
use crate::madt::madt;

/// How a launch page reaches the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PageKind {
    /// Measured contents.
    Normal,
    /// Contents of the VMM's choice, not measured.
    Unmeasured,
    /// Filled by the secure processor.
    Secrets,
    /// CPUID leaves, filled by the host and checked by the secure processor.
    Cpuid,
    /// State of the boot vCPU.
    Vmsa,
}

/// A page that is assigned and validated when the guest starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaunchPage {
    /// Guest physical address.
    pub gpa: u64,
    /// How it gets there.
    pub kind: PageKind,
    /// Its contents.
    pub contents: Box<[u8; 4096]>,
}

/// Everything the machine starts with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LaunchPlan {
    /// Launch pages in file order.
    pub pages: Vec<LaunchPage>,
    /// Memory that is assigned to the guest but not validated.
    pub required: Vec<Range<u64>>,
    /// Where the boot VMSA lies.
    pub vmsa_gpa: u64,
}

/// What the VMM fills into parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameters {
    /// The memory map.
    pub memory_map: Vec<MapEntry>,
    /// Number of vCPUs.
    pub cpus: u32,
    /// RAM outside the launch starts hypervisor-owned (`memory_is_shared`).
    pub memory_is_shared: bool,
}

/// An entry of the memory map, in pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MapEntry {
    /// Number of its first page.
    pub first: u64,
    /// How many there are.
    pub pages: u64,
    /// `MemoryMapEntryType`.
    pub kind: u16,
}

impl MapEntry {
    /// A range of RAM.
    #[must_use]
    pub const fn ram(range: &Range<u64>) -> Self {
        Self {
            first: range.start / PAGE_SIZE_4K,
            pages: (range.end - range.start) / PAGE_SIZE_4K,
            kind: MemoryMapEntryType::MEMORY.0,
        }
    }
}

impl LaunchPlan {
    /// Executes those of `directives` that apply to the platform `mask`.
    ///
    /// # Errors
    /// Bad input when a directive is unknown, contradicts another or does not fit.
    pub fn execute(
        directives: &[IgvmDirectiveHeader],
        mask: u32,
        parameters: &Parameters,
    ) -> Result<Self, Failure> {
        let mut plan = Self::default();
        let mut areas: BTreeMap<u32, Vec<u8>> = BTreeMap::new();
        let applies = |directive: &&IgvmDirectiveHeader| {
            directive
                .compatibility_mask()
                .is_none_or(|own| own & mask != 0)
        };
        for directive in directives.iter().filter(applies) {
            plan.step(directive, &mut areas, parameters)?;
        }
        if plan.vmsa_gpa == 0 {
            return Err(damaged("has no boot VMSA"));
        }
        Ok(plan)
    }

    fn step(
        &mut self,
        directive: &IgvmDirectiveHeader,
        areas: &mut BTreeMap<u32, Vec<u8>>,
        parameters: &Parameters,
    ) -> Result<(), Failure> {
        match directive {
            IgvmDirectiveHeader::PageData {
                gpa,
                flags,
                data_type,
                data,
                ..
            } => {
                let kind = match *data_type {
                    IgvmPageDataType::SECRETS => PageKind::Secrets,
                    IgvmPageDataType::CPUID_DATA | IgvmPageDataType::CPUID_XF => PageKind::Cpuid,
                    _ if flags.shared() => return Err(damaged("has shared page data")),
                    _ if flags.unmeasured() => PageKind::Unmeasured,
                    _ => PageKind::Normal,
                };
                self.page(*gpa, kind, data)
            }
            IgvmDirectiveHeader::ParameterArea {
                number_of_bytes,
                parameter_area_index,
                initial_data,
            } => {
                let bytes = usize::try_from(*number_of_bytes)
                    .ok()
                    .filter(|bytes| *bytes <= 1 << 24)
                    .ok_or_else(|| damaged("has a parameter area above 16 MiB"))?;
                let mut area = initial_data.clone();
                area.resize(bytes, 0);
                areas.insert(*parameter_area_index, area);
                Ok(())
            }
            IgvmDirectiveHeader::VpCount(at) => fill(areas, *at, &parameters.cpus.to_le_bytes()),
            IgvmDirectiveHeader::EnvironmentInfo(at) => {
                let environment = u32::from(parameters.memory_is_shared);
                fill(areas, *at, &environment.to_le_bytes())
            }
            IgvmDirectiveHeader::MemoryMap(at) => fill_map(areas, *at, &parameters.memory_map),
            IgvmDirectiveHeader::Madt(at) => fill(areas, *at, &madt(parameters.cpus)),
            IgvmDirectiveHeader::ParameterInsert(insert) => {
                let area = areas
                    .remove(&insert.parameter_area_index)
                    .ok_or_else(|| damaged("inserts an unknown parameter area"))?;
                for (gpa, piece) in (insert.gpa..).step_by(4096).zip(area.chunks(4096)) {
                    self.page(gpa, PageKind::Unmeasured, piece)?;
                }
                Ok(())
            }
            IgvmDirectiveHeader::RequiredMemory {
                gpa,
                number_of_bytes,
                ..
            } => {
                let end = gpa
                    .checked_add(u64::from(*number_of_bytes))
                    .ok_or_else(|| damaged("requires memory that wraps"))?;
                self.required.push(*gpa..end);
                Ok(())
            }
            IgvmDirectiveHeader::SnpVpContext { gpa, vmsa, .. } => {
                if self.vmsa_gpa != 0 {
                    return Err(damaged("has more than one VMSA"));
                }
                self.vmsa_gpa = *gpa;
                self.page(*gpa, PageKind::Vmsa, vmsa.as_bytes())
            }
            // The machine has one NUMA node, no device tree and no kernel command line, and it does
            // not check an ID block: the parameters stay zero, as on a VMM without them.
            IgvmDirectiveHeader::Srat(_)
            | IgvmDirectiveHeader::Slit(_)
            | IgvmDirectiveHeader::Pptt(_)
            | IgvmDirectiveHeader::MmioRanges(_)
            | IgvmDirectiveHeader::CommandLine(_)
            | IgvmDirectiveHeader::DeviceTree(_)
            | IgvmDirectiveHeader::ErrorRange { .. }
            | IgvmDirectiveHeader::SnpIdBlock { .. } => Ok(()),
            _ => Err(damaged("has a directive that does not belong to SEV-SNP")),
        }
    }

    fn page(&mut self, gpa: u64, kind: PageKind, data: &[u8]) -> Result<(), Failure> {
        let mut contents = Box::new([0; 4096]);
        contents
            .get_mut(..data.len())
            .ok_or_else(|| damaged("has page data longer than a page"))?
            .copy_from_slice(data);
        self.pages.push(LaunchPage {
            gpa,
            kind,
            contents,
        });
        Ok(())
    }
}

fn damaged(what: &str) -> Failure {
    Failure::bad_input(format!("the IGVM file {what}; build it again"))
}

fn fill(
    areas: &mut BTreeMap<u32, Vec<u8>>,
    at: IGVM_VHS_PARAMETER,
    value: &[u8],
) -> Result<(), Failure> {
    let start = at.byte_offset as usize;
    areas
        .get_mut(&at.parameter_area_index)
        .and_then(|area| area.get_mut(start..start.checked_add(value.len())?))
        .ok_or_else(|| damaged("has a parameter that does not fit its area"))?
        .copy_from_slice(value);
    Ok(())
}

/// `IGVM_VHS_MEMORY_MAP_ENTRY` per entry, then the entry of zero pages that ends the list. A map that fills its area has
/// none: an honest one is far from it.
fn fill_map(
    areas: &mut BTreeMap<u32, Vec<u8>>,
    at: IGVM_VHS_PARAMETER,
    map: &[MapEntry],
) -> Result<(), Failure> {
    let entry = |entry: &MapEntry| IGVM_VHS_MEMORY_MAP_ENTRY {
        starting_gpa_page_number: entry.first,
        number_of_pages: entry.pages,
        entry_type: MemoryMapEntryType(entry.kind),
        flags: 0,
        reserved: 0,
    };
    let bytes = |entry: IGVM_VHS_MEMORY_MAP_ENTRY| entry.as_bytes().to_vec();
    let mut value: Vec<u8> = map.iter().map(entry).flat_map(bytes).collect();
    let area = areas.get(&at.parameter_area_index).map_or(0, Vec::len);
    let room = area.saturating_sub(at.byte_offset as usize);
    let terminator = size_of::<IGVM_VHS_MEMORY_MAP_ENTRY>();
    if value.len() > room {
        return Err(Failure::bad_input(format!(
            "the memory map has {} entries, and this image takes {}; pass a map with fewer (--map-entries, --memory-map)",
            map.len(),
            room / terminator
        )));
    }
    value.resize((value.len() + terminator).min(room), 0);
    fill(areas, at, &value)
}
