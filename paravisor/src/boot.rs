// SPDX-License-Identifier: MIT OR Apache-2.0
//! From the first Rust instruction to the first entry into the guest.
//!
//! Order matters: inputs are checked before anything is done with them, the host is asked before pages
//! are validated, pages are zeroed before the guest may see them, and the guest's VMSA comes last.
//!
//! What the run loops of all processors work on is written once, before the guest runs, and lives as
//! long as the VM.

#![forbid(unsafe_code)]

use core::convert::Infallible;
use core::iter::once;
use core::sync::atomic::AtomicU64;

use paravisor::acceptance::{Acceptance, OwnMemory};
use paravisor::apic_ids::ApicIds;
use paravisor::boot_block::{BootBlock, RAM_ACCEPTED};
use paravisor::boot_plan::{BootPlan, HANDOVER_AREA};
use paravisor::core_protocol::{CoreProtocol, VersionRange};
use paravisor::dispatcher::Dispatcher;
use paravisor::general_parameters::GeneralParameters;
use paravisor::guest_vmsa::{guest_features, start_vmsa};
use paravisor::host_features;
use paravisor::launch_area::LaunchArea;
use paravisor::memory_map::MemoryMap;
use paravisor::page_account::{record, tracked_ram};
use paravisor::page_owner::PageOwner;
use paravisor::range_list::PhysRange;
use paravisor::start_pages::StartPages;
use paravisor::storage_needs::StorageNeeds;
use paravisor::termination::Reason;
use paravisor::vcpu_table::VcpuTable;
use protocol::identity::PROTOCOL_VERSION;
use snp::address::{GuestPhysicalAddress, Vmpl};
use snp::cpuid::CpuidPage;
use snp::ghcb::PROTOCOL_VERSION as GHCB_VERSION;
use snp::msr::SevFeatures;
use spin::Once;
use svsm_swiotlb::page_state::{PageStates, RamRanges};
use svsm_swiotlb::pool::{ChunkRecords, Pool, Pools, Window};
use svsm_swiotlb::{Configuration, Service};
use zerocopy::FromBytes;

use crate::machine::doorbell::Doorbell;
use crate::machine::ghcb::{ApOperation, Ghcb};
use crate::machine::host_page::HostPage;
use crate::machine::processor::Processor;
use crate::machine::vmsa_page::VmsaPage;
use crate::machine::{
    Machine, coherency, console, launched, msr_exit, page_tables, processor, tlb,
};
use crate::serve::Server;

static INPUTS: Once<Inputs> = Once::new();
static SERVICE: Once<Service<'static, Machine>> = Once::new();
static PROTOCOLS: Once<[VersionRange; 1]> = Once::new();
static DISPATCHER: Once<Dispatcher<'static, Machine>> = Once::new();

/// The inputs, checked one by one.
struct Inputs {
    block: BootBlock,
    plan: BootPlan<'static>,
    general: GeneralParameters,
    apic_ids: ApicIds<'static>,
    c_bit: u64,
}

/// Boots and runs the guest; returns only with a reason to end the VM.
pub fn boot(c_bit: u64) -> Result<Infallible, Reason> {
    let inputs = inputs(c_bit)?;
    let ghcb = bring_up(inputs)?;
    let window = inputs.plan.placement.window();
    log::info!(
        "svsm-swiotlb {}, window {:#x}..{:#x}, {} MiB of RAM",
        env!("CARGO_PKG_VERSION"),
        window.start,
        window.end,
        tracked_bytes(&inputs.plan) >> 20,
    );
    if let Some(low) = inputs.plan.placement.low_window() {
        log::info!("low window {:#x}..{:#x}", low.start, low.end);
    }
    run(inputs, ghcb)
}

/// Serves the processor that runs this, one that CREATE_VCPU has started; returns only with a reason to
/// end the VM.
pub fn serve_further() -> Result<Infallible, Reason> {
    // Both are there: it is the dispatcher that serves CREATE_VCPU.
    let inputs = INPUTS.get().ok_or(Reason::Panic)?;
    let dispatcher = DISPATCHER.get().ok_or(Reason::Panic)?;
    let processor = processor::current();
    let vcpu = dispatcher.core.vcpus.place(processor.number());
    let vcpu = vcpu.ok_or(Reason::Panic)?;
    talk_to_host(inputs, processor)?;
    log::info!("processor {} is served", processor.number());
    Err(Server {
        dispatcher,
        doorbell: Doorbell::new(processor.doorbell),
        vcpu,
        boot_vmsa: None,
    }
    .run())
}

/// What the boot was given, checked, in its place.
// Never inlined, for the same reason as `service`.
#[inline(never)]
fn inputs(c_bit: u64) -> Result<&'static Inputs, Reason> {
    let inputs = Inputs::read(c_bit)?;
    Ok(INPUTS.call_once(|| inputs))
}

impl Inputs {
    fn read(c_bit: u64) -> Result<Self, Reason> {
        let (block, _) = BootBlock::read_from_prefix(launched::boot_block())
            .map_err(|_| Reason::BootBlockVersion)?;
        block.check()?;
        if msr_exit::sev_status() != block.expected_sev_status() {
            return Err(Reason::SevStatus);
        }
        let general = GeneralParameters::parse(launched::general_parameters())?;
        let apic_ids = ApicIds::parse(launched::processors(), general.vcpu_count)?;
        let map = MemoryMap::parse(launched::memory_map(), c_bit)?;
        let needs = StorageNeeds::of(&block, map.ram(), general.vcpu_count);
        let plan = BootPlan::new(&block, map, needs)?;
        Ok(Self {
            block,
            plan,
            general,
            apic_ids,
            c_bit,
        })
    }

    /// Processors whose vCPUs the guest may use. Without a flush that reaches other processors it is the boot processor: a page
    /// could not be taken from the others. The boot vCPU's APIC identifier is taken for good, so with
    /// one usable vCPU CREATE_VCPU never succeeds.
    fn usable_processors(&self) -> ApicIds<'static> {
        if tlb::reaches_all_processors() {
            self.apic_ids
        } else {
            self.apic_ids.first(1)
        }
    }

    /// Of GHCB and doorbell those that are shared with the host.
    fn host_pages<'a, T>(&self, pages: &'a [T; 2]) -> &'a [T] {
        let [ghcb, _] = pages;
        if self.block.restricted_injection() {
            pages
        } else {
            core::slice::from_ref(ghcb)
        }
    }

    fn features(&self) -> SevFeatures {
        SevFeatures::from_bits(self.block.sev_features)
    }

    fn c_bit_position(&self) -> u8 {
        self.c_bit.trailing_zeros().to_le_bytes()[0]
    }
}

/// Negotiates with the host, loads our page tables and brings up GHCB, console and doorbell.
fn bring_up(inputs: &Inputs) -> Result<Ghcb<'static>, Reason> {
    let info = msr_exit::sev_info()?;
    if !(info.min_version..=info.max_version).contains(&GHCB_VERSION) {
        return Err(Reason::GhcbProtocol);
    }
    if info.c_bit != inputs.c_bit_position() {
        return Err(Reason::CbitMismatch);
    }
    let restricted_injection = inputs.block.restricted_injection();
    host_features::check(msr_exit::features()?, restricted_injection)?;

    // Rescinding needs private mappings, which only the entry code's tables have.
    let boot = processor::current();
    let pages = [boot.ghcb, boot.doorbell];
    let shared = inputs.host_pages(&pages);
    shared.iter().try_for_each(|page| page.share())?;
    page_tables::load(
        &inputs.plan,
        inputs.host_pages(&ranges(pages)),
        inputs.c_bit,
    )?;
    let ghcb = talk_to_host(inputs, boot)?;
    if let Ok(cpuid) = CpuidPage::ref_from_bytes(launched::cpuid()) {
        tlb::detect(cpuid);
        coherency::detect(cpuid);
    }
    Ok(ghcb)
}

/// Bytes of RAM that are tracked.
fn tracked_bytes(plan: &BootPlan<'_>) -> u64 {
    plan.tracked().map(|range| range.bytes()).sum()
}

/// Where pages are.
fn ranges(pages: [&HostPage; 2]) -> [PhysRange; 2] {
    pages.map(HostPage::range)
}

/// Brings up GHCB, console and doorbell of the processor that runs this, whose pages are shared.
fn talk_to_host(inputs: &Inputs, processor: &'static Processor) -> Result<Ghcb<'static>, Reason> {
    let ghcb = Ghcb::bring_up(processor.ghcb)?;
    console::install();
    processor.doorbell.clear();
    if inputs.block.restricted_injection() {
        ghcb.set_doorbell(processor.doorbell.gpa())?;
    }
    Ok(ghcb)
}

/// Takes memory into use, prepares the guest and runs it.
fn run(inputs: &'static Inputs, ghcb: Ghcb<'static>) -> Result<Infallible, Reason> {
    let plan = &inputs.plan;
    plan.check_payload(&inputs.block).inspect_err(|reason| {
        let needs = inputs.block.payload_needs();
        log::error!("{}: {:#x}..{:#x}", reason.text(), needs.start, needs.end);
    })?;
    let owner = PageOwner::new(plan, &Machine);
    let acceptance = Acceptance {
        owner: &owner,
        memory_is_shared: inputs.general.memory_is_shared,
    };
    let storage = acceptance.keep(plan.private_storage())?;
    let (storage, memory) = storage.split(plan.processors.tables().start)?;
    let vcpus = processors(inputs, &acceptance, memory)?;
    let (storage, ram_list) = storage.split(plan.ram_list.start)?;
    let service = service(inputs, storage, ram_list)?;
    let accepted = inputs.block.ram_mode == RAM_ACCEPTED;
    record(&inputs.block, plan, service.page_states())?;

    if !inputs.block.is_firmware() {
        acceptance.give(once(HANDOVER_AREA))?;
    }
    for range in plan.payload.as_slice() {
        acceptance.grant(*range)?;
    }
    if accepted {
        acceptance.give(plan.guest_ram())?;
    }
    log::info!(
        "guest memory is {}",
        if accepted {
            "accepted"
        } else {
            "left to the guest"
        }
    );
    StartPages {
        boot_block: &inputs.block,
        plan,
        secrets: launched::secrets(),
        cpuid: launched::cpuid(),
        c_bit: inputs.c_bit,
        processors: inputs.usable_processors(),
    }
    .write(&Machine)?;

    let processor = processor::current();
    let own = inputs.features();
    let features = guest_features(own).into_bits();
    let start = start_vmsa(&inputs.block, own, inputs.c_bit);
    let vmsa = VmsaPage::create(processor::boot_vmsa_page(), &start)?;
    let area = GuestPhysicalAddress::new(inputs.block.calling_area);
    let boot = inputs.apic_ids.boot();
    let vcpu = vcpus
        .reserve(boot.number)
        .ok_or(Reason::VpCount)?
        .fill(vmsa.page(), area);
    let operation = ApOperation::CreateOnInit;
    ghcb.create_vcpu(operation, boot.apic_id, Vmpl::Vmpl2, vmsa.page(), features)?;

    let version = u32::from(PROTOCOL_VERSION);
    let protocols = PROTOCOLS.call_once(|| {
        [VersionRange {
            protocol: service.protocol_number(),
            min: version,
            max: version,
        }]
    });
    let dispatcher = DISPATCHER.call_once(|| Dispatcher {
        core: CoreProtocol {
            owner,
            states: service.page_states(),
            vcpus,
            guest_features: features,
            processors: inputs.usable_processors(),
            launch_area: LaunchArea(area),
            protocols,
        },
        service,
    });
    log::info!("the guest starts at {:#x}", inputs.block.payload_entry);
    Err(Server {
        dispatcher,
        doorbell: Doorbell::new(processor.doorbell),
        vcpu,
        boot_vmsa: Some(vmsa),
    }
    .run())
}

/// Makes what the other processors need, and gives the table of vCPUs.
// Never inlined, for the same reason as `service`.
#[inline(never)]
fn processors(
    inputs: &Inputs,
    acceptance: &Acceptance<'_, Machine>,
    memory: OwnMemory,
) -> Result<VcpuTable<'static>, Reason> {
    let plan = &inputs.plan;
    acceptance.share(plan.processors.host_pages())?;
    let carved = processor::carve(&plan.processors, memory)?;
    let boot = processor::current();
    let pages = ranges([boot.ghcb, boot.doorbell]);
    let pages = inputs.host_pages(&pages);
    page_tables::load_all(carved.tables, plan, pages, inputs.c_bit)?;
    let needs = plan.processors.needs();
    log::info!(
        "{} vCPUs: {} KiB for all but the first, {} bytes each and page tables",
        inputs.general.vcpu_count,
        needs.bytes() >> 10,
        needs.bytes_each(),
    );
    Ok(carved.vcpus)
}

#[inline(never)]
fn window_of(range: PhysRange) -> Result<Window, Reason> {
    let base = GuestPhysicalAddress::new(range.start);
    Window::new(base, range.bytes()).map_err(|_| Reason::StorageInvalid)
}

/// A pool whose records are a part of the storage.
#[inline(never)]
fn pool_of(
    window: Window,
    records: &'static [AtomicU64],
    hard_cap: u64,
) -> Result<Pool<'static>, Reason> {
    Pool::new(window, ChunkRecords::new(records), hard_cap).map_err(|_| Reason::StorageInvalid)
}

/// The service over its storage, in its place.
// Never inlined: it is built on the stack before it is moved, and what the boot does later needs that room.
#[inline(never)]
fn service(
    inputs: &'static Inputs,
    storage: OwnMemory,
    ram_list: OwnMemory,
) -> Result<&'static Service<'static, Machine>, Reason> {
    let invalid = Reason::StorageInvalid;
    let placement = inputs.plan.placement;
    let window = window_of(placement.window())?;
    let low = placement.low_window().map(window_of).transpose()?;
    let ram = launched::array(ram_list, tracked_ram(&inputs.plan).map(Ok))?;
    let ram = RamRanges::new(ram).map_err(|_| invalid)?;
    let pages = usize::try_from(ram.pages()).map_err(|_| invalid)?;
    let low_chunks = low.map_or(0, |low| low.chunks());
    let chunks = window.chunks().saturating_add(low_chunks);
    let (records, states) = launched::split_storage(storage, chunks, pages)?;
    let (records, low_records) = (records.split_at_checked(window.chunks())).ok_or(invalid)?;
    let pool = pool_of(window, records, inputs.block.hard_cap)?;
    let pools = match low {
        Some(low) => {
            let low = pool_of(low, low_records, low.bytes())?;
            Pools::two(pool, low).map_err(|_| invalid)?
        }
        None => pool.into(),
    };
    let states = PageStates::new(ram, states).map_err(|_| invalid)?;
    let mut configuration = Configuration::with_encryption_bit(inputs.c_bit_position());
    configuration.protocol_number = inputs.block.protocol_number;
    // By INVLPGB, or because the guest has one vCPU, which is flushed before it runs again.
    configuration.flush_reaches_all = true;
    if inputs.block.unit_limit_lifted() {
        configuration = configuration.without_unit_limit();
    }
    let service = Service::new(&Machine, configuration, pools, states).map_err(|_| invalid)?;
    Ok(SERVICE.call_once(|| service))
}
