// SPDX-License-Identifier: MIT OR Apache-2.0
//! From the first instruction to a running pool, then the guest's work, then the end.

use core::mem::MaybeUninit;

use guest_shim::{Config, Pool, metadata_bytes};
use paravisor::handover::{Handover, MAX_MAP_ENTRIES, MapEntry};
use paravisor::layout::{HANDOVER_BASE, HANDOVER_END, HANDOVER_MAP};
use protocol::Request;
use protocol::request::DescribeItem;
use protocol::response::{Geometry, decode_answer};
use snp::address::{LARGE_PAGE_SIZE, PAGE_SIZE};
use snp::cpuid::CpuidPage;
use snp::secrets::SecretsPage;
use snp::svsm::{CallId, CallRegisters, core_protocol};
use test_guest::acceptance::accept;
use test_guest::arena::{Arena, Range};
use test_guest::boot_facts::BootFacts;
use test_guest::command_line::{CommandLine, Mode};
use test_guest::page_table::{Access, MapError, PageTables};
use test_guest::record::Record;
use test_guest::schedule::MAX_CPUS;
use test_guest::self_test::{Facts, lost_cases};
use test_guest::stop::Stop;

use crate::devices::Others;
use crate::machine::caller::Caller;
use crate::machine::calling::{Acceptance, FIRST_POOL, Kernel, POOL, Svsm};
use crate::machine::conversion;
use crate::machine::cpu;
use crate::machine::ending::{fail, terminate};
use crate::machine::exceptions;
use crate::machine::ghcb::{RegisteredGhcb, console_line};
use crate::machine::memory::{self, Buffers, ExchangePage, exchange_page};
use crate::machine::pass_watch::emit;
use crate::machine::restart::restart;
use crate::machine::{attacked, host_replies, overtaken, processor, team, watch};
use crate::{disk_job, many_job, probe, restart_job, service_report, windows_job};

/// The start page tables map this much.
const START_MAPPED: u64 = 4 << 30;
/// Page tables beyond one page directory for each GiB: upper levels and the edges of what is not usable RAM.
const SPARE_TABLES: u64 = 64;
/// Page tables for the edges of a range of usable RAM.
const EDGE_TABLES: u64 = 2;

/// The first window, and the second one where it is used.
type Windows = (Range, Option<Range>);

/// Memory of the guest, before the window's size is known and after.
struct Plan {
    /// Page tables, the shim's metadata, pages of the self-test: needed before there is a GHCB.
    early: Range,
    /// The disk buffers.
    buffers: Range,
    /// What further devices and vCPUs need.
    more: Range,
    /// Converted there and back.
    converted: Range,
    /// What the vCPUs of an earlier kernel use that go on with their calls.
    left_alone: Range,
}

/// Entered once, by the first instructions.
pub extern "C" fn start(handover: u64, boot_tsc: u64) -> ! {
    cpu::install_boot();
    exceptions::install();
    let start_tables = processor::page_tables();
    let (facts, line) = boot_facts(handover).unwrap_or_else(|| terminate(Stop::Handover));
    let CommandLine {
        mode,
        protocol,
        devices,
    } = line;
    // SAFETY: The calling area lies in the hand-over area, which is private and nobody's object.
    let svsm = unsafe { Svsm::new(facts.calling_area) };
    let svsm = svsm.unwrap_or_else(|| terminate(Stop::Handover));
    if mode.overtaken && !finds_core(&svsm) {
        terminate(Stop::Attach);
    }
    let window = find_window(&svsm, protocol, 0).unwrap_or_else(|| terminate(Stop::Attach));
    let second = mode
        .windows
        .then(|| find_window(&svsm, protocol, 1).unwrap_or_else(|| terminate(Stop::Windows)));
    let windows = (window, second);
    let plan = plan_memory(&facts, windows, mode).unwrap_or_else(|| terminate(Stop::Memory));
    accept_ram(&svsm, &facts, plan.early).unwrap_or_else(|stop| terminate(stop));
    let mut arena = Arena::new(plan.early);
    switch_page_tables(&facts, windows, &mut arena).unwrap_or_else(|_| terminate(Stop::Memory));
    let (mut test, private) = self_test_facts(&facts, protocol, window, &mut arena)
        .unwrap_or_else(|| terminate(Stop::Memory));

    let early = mode
        .self_test
        .then(|| probe::before_attach(&svsm, &test, private));
    let ghcb = attach(svsm, protocol, windows, mode, &mut arena, plan.left_alone);
    let attachment = greet(boot_tsc, &facts);
    (test.epoch, test.cap) = (attachment.epoch, attachment.cap_bytes);
    test.granted_bytes = granted_bytes();
    if let Some(early) = early {
        match probe::after_attach(&svsm, test, private, early) {
            Ok(true) => {}
            Ok(false) => fail(
                Stop::SelfTest,
                format_args!("a case of the self-test failed"),
            ),
            Err(step) => fail(Stop::SelfTest, format_args!("{step}")),
        }
        if let Err(stop) = accept_ram(&svsm, &facts, plan.converted) {
            fail(stop, format_args!("the pages to convert were not accepted"));
        }
        if let Err(step) = conversion::run(&svsm, ghcb, plan.converted) {
            fail(Stop::SelfTest, format_args!("{step}"));
        }
    }
    if mode.watch {
        if let Err(stop) = accept_ram(&svsm, &facts, plan.converted) {
            fail(stop, format_args!("the pages to convert were not accepted"));
        }
        let cpus = team::start(svsm, &mut arena);
        watch::run(cpus, plan.converted);
    }
    if mode.disk {
        if let Err(stop) = accept_ram(&svsm, &facts, plan.buffers) {
            fail(stop, format_args!("the buffers were not accepted"));
        }
        let mut own = Arena::new(plan.buffers);
        // SAFETY: The range is usable RAM, accepted, mapped by our tables, and in nobody's hands.
        let memory = unsafe { memory::leak_bytes(&mut own, Buffers::BYTES) };
        let Some(buffers) = memory.and_then(Buffers::new) else {
            fail(Stop::Memory, format_args!("no memory for the buffers"))
        };
        if mode.windows
            && let Err(step) = windows_job::run(&svsm, protocol, buffers)
        {
            fail(Stop::Windows, format_args!("{step}"));
        }
        let cpus = team::start(svsm, &mut arena);
        let others = Others::find(ghcb, devices);
        if cpus == 1 && others.is_empty() {
            disk_job::run(ghcb, buffers);
        } else {
            if let Err(stop) = accept_ram(&svsm, &facts, plan.more) {
                fail(stop, format_args!("the buffers were not accepted"));
            }
            let mut more = Arena::new(plan.more);
            // SAFETY: As above.
            let memory = |bytes| unsafe { memory::leak_bytes(&mut more, bytes) };
            many_job::run(ghcb, cpus, buffers, others, memory);
        }
    }
    if mode.restart {
        if let Err(stop) = accept_ram(&svsm, &facts, plan.buffers) {
            fail(stop, format_args!("the buffers were not accepted"));
        }
        let mut own = Arena::new(plan.buffers);
        // SAFETY: The range is usable RAM, accepted, mapped by our tables, and in nobody's hands.
        let memory = unsafe { memory::leak_bytes(&mut own, Buffers::BYTES) };
        let Some(buffers) = memory.and_then(Buffers::new) else {
            fail(Stop::Memory, format_args!("no memory for the buffers"))
        };
        if attachment.epoch < restart_job::LAST {
            restart_job::load(ghcb, buffers, &svsm, protocol);
            // SAFETY: No other vCPU was started, no further device opened.
            unsafe { restart(handover, start_tables) }
        }
        restart_job::finish(ghcb, buffers, &svsm, protocol);
    }
    if mode.overtaken && attachment.epoch == 1 {
        overtaken::begin(svsm, plan.left_alone, start_tables);
        if !moves_area(&svsm, &mut arena) {
            fail(Stop::Restart, format_args!("REMAP_CA is refused"));
        }
        // SAFETY: The other vCPUs use nothing of .data and .bss, nor memory that this kernel has anything in. No further device
        // was opened.
        unsafe { restart(handover, start_tables) }
    }
    if mode.attacked.is_some() || mode.host_replies {
        if let Err(stop) = accept_ram(&svsm, &facts, plan.buffers) {
            fail(
                stop,
                format_args!("the pages of the calls were not accepted"),
            );
        }
        let caller = Caller {
            svsm: &svsm,
            ghcb,
            protocol,
            epoch: attachment.epoch,
        };
        let arena = &mut Arena::new(plan.buffers);
        let kept = match mode.attacked {
            Some(attacked) => attacked::run(caller, arena, attacked),
            None => host_replies::run(caller, arena),
        };
        match kept {
            Ok(true) => {}
            Ok(false) => fail(
                Stop::SelfTest,
                format_args!("a call under a hostile host broke a promise"),
            ),
            Err(step) => fail(Stop::SelfTest, format_args!("{step}")),
        }
    }
    if mode.limits {
        disk_job::give_back();
        disk_job::report_counters();
    }
    service_report::report(&svsm, protocol);
    emit(Record::Done { ok: true });
    terminate(Stop::Success)
}

/// Reads and checks what the paravisor handed over.
fn boot_facts(address: u64) -> Option<(BootFacts<'static>, CommandLine)> {
    let page = |address: u64| {
        let inside = (HANDOVER_BASE..HANDOVER_END).contains(&address);
        (inside && address.is_multiple_of(PAGE_SIZE)).then_some(address)
    };
    // SAFETY: Three pages of the hand-over area, which the start page tables map; the paravisor
    // wrote them before the guest ran.
    let (handover, secrets, cpuid) = unsafe {
        let handover: Handover = memory::copy_from(page(address)?);
        let secrets: SecretsPage = memory::copy_from(page(handover.secrets_gpa)?);
        let cpuid: CpuidPage = memory::copy_from(page(handover.cpuid_gpa)?);
        (handover, secrets, cpuid)
    };
    let count = usize::try_from(handover.map_count).ok()?;
    if handover.map_gpa != HANDOVER_MAP || count > MAX_MAP_ENTRIES {
        return None;
    }
    // SAFETY: The pages of the map belong to it alone, and nobody writes to them once the guest runs.
    let map: &'static [MapEntry] = unsafe { memory::array(HANDOVER_MAP, count) };
    let facts = BootFacts::check(&handover, map, &secrets, &cpuid, memory::image().0).ok()?;
    page(facts.calling_area)?;
    Some((facts, CommandLine::parse(handover.command_line())?))
}

/// The first call of a kernel that another one has started is one of the core protocol (P-14.2).
fn finds_core(svsm: &Svsm) -> bool {
    let version = u64::from(core_protocol::VERSION);
    svsm.call(core_call(core_protocol::QUERY_PROTOCOL, version))
        .is_some_and(|answer| answer.rax == 0 && answer.rcx != 0)
}

/// Moves this vCPU's calling area into memory of this kernel, and leaves there what a kernel after it may find: anything.
fn moves_area(svsm: &Svsm, arena: &mut Arena) -> bool {
    let Some(page) = arena.take(PAGE_SIZE, PAGE_SIZE) else {
        return false;
    };
    let remap = core_call(core_protocol::REMAP_CA, page.start);
    let moved = svsm.call(remap).is_some_and(|answer| answer.rax == 0);
    // SAFETY: The page comes from the arena and is used for nothing else; no call is made through it.
    let area = unsafe { ExchangePage::new(page.start) };
    area.write(&[0xff; 64]);
    moved
}

fn core_call(call: u32, rcx: u64) -> CallRegisters {
    let protocol = core_protocol::NUMBER;
    CallRegisters::new(CallId { protocol, call }.to_rax(), [rcx, 0, 0])
}

/// Asks the service where a window is. The shim checks the service's identity when it attaches;
/// the page tables have to be there before.
fn find_window(svsm: &Svsm, protocol: u32, window: u8) -> Option<Range> {
    let request = Request::Describe {
        window,
        item: DescribeItem::Geometry,
    };
    let answer = svsm.call(request.encode(protocol))?;
    let geometry = Geometry::decode(decode_answer(&answer).ok()?).ok()?;
    Range::of_bytes(geometry.base.bits(), geometry.bytes)
}

/// Divides the largest free stretch that the start page tables reach. Small machines have no room for the devices' buffers
/// of every vCPU, so only the mode that uses those gets them.
fn plan_memory(facts: &BootFacts<'_>, windows: Windows, mode: Mode) -> Option<Plan> {
    let (window, second) = windows;
    let top = facts
        .usable()
        .map(|range| range.end)
        .fold(window.end, u64::max);
    let edges = facts.usable().count() as u64 * EDGE_TABLES;
    let tables = (top.div_ceil(1 << 30) + SPARE_TABLES + edges) * PAGE_SIZE;
    let metadata = pool_metadata(window) + second.map_or(0, pool_metadata);
    // Two large pages for the self-test: one used, one lost to its alignment.
    let early = tables + metadata + team::MEMORY_BYTES + 3 * LARGE_PAGE_SIZE;
    let more = if mode.disk { many_job::MEMORY_BYTES } else { 0 };
    let free = facts.largest_free(START_MAPPED);
    let left_alone = match mode.overtaken {
        true => overtaken::take_memory(free)?,
        false => Range::new(free.end, free.end),
    };
    let free = Range::new(free.start, left_alone.start);
    let mut arena = Arena::new(free);
    Some(Plan {
        early: arena.take(early.next_multiple_of(LARGE_PAGE_SIZE), LARGE_PAGE_SIZE)?,
        buffers: arena.take(Buffers::BYTES, LARGE_PAGE_SIZE)?,
        more: arena.take(more.next_multiple_of(LARGE_PAGE_SIZE), LARGE_PAGE_SIZE)?,
        converted: conversion::take_memory(&mut arena, free)?,
        left_alone,
    })
}

/// Makes a range of RAM usable, unless the paravisor did.
fn accept_ram(svsm: &Svsm, facts: &BootFacts<'_>, range: Range) -> Result<(), Stop> {
    if facts.ram_accepted {
        return Ok(());
    }
    let mut platform = Acceptance {
        svsm,
        list: exchange_page(),
    };
    accept(&mut platform, range).map_err(|_| Stop::Acceptance)
}

/// Builds the guest's address space and switches to it.
fn switch_page_tables(
    facts: &BootFacts<'_>,
    (window, second): Windows,
    arena: &mut Arena,
) -> Result<(), MapError> {
    // SAFETY: The arena's range is accepted RAM below 4 GiB, which the start page tables map.
    let memory = unsafe { memory::Tables::new(arena) };
    let mut tables = PageTables::new(memory, facts.c_bit_mask)?;
    let (image, parts) = memory::image();
    for (range, access) in parts {
        tables.map(range, access)?;
    }
    tables.map(Range::new(HANDOVER_BASE, HANDOVER_END), Access::DATA)?;
    for range in facts.usable() {
        // Page 0 stays unmapped, the image has its own access.
        let range = Range::new(range.start.max(PAGE_SIZE), range.end);
        tables.map(
            Range::new(range.start, range.end.min(image.start)),
            Access::DATA,
        )?;
        tables.map(
            Range::new(range.start.max(image.end), range.end),
            Access::DATA,
        )?;
    }
    tables.map(window, Access::SHARED)?;
    if let Some(second) = second {
        tables.map(second, Access::SHARED)?;
    }
    // SAFETY: Image, stack and data stay where they are, with the access their segments ask for.
    unsafe { processor::load_page_tables(tables.cr3()) };
    Ok(())
}

/// Addresses for the self-test, and the private page that has to stay intact.
fn self_test_facts(
    facts: &BootFacts<'_>,
    protocol: u32,
    window: Range,
    arena: &mut Arena,
) -> Option<(Facts, ExchangePage)> {
    let mut page = || arena.take(PAGE_SIZE, PAGE_SIZE).map(|range| range.start);
    let (private, unvalidated, shared) = (page()?, page()?, page()?);
    let lost = arena.take(lost_cases::PAGES * PAGE_SIZE, PAGE_SIZE)?.start;
    let private_large = arena.take(LARGE_PAGE_SIZE, LARGE_PAGE_SIZE)?.start;
    let test = Facts {
        protocol,
        window,
        paravisor: facts.paravisor,
        list: exchange_page().address(),
        private,
        private_large,
        unvalidated,
        shared,
        lost,
        calling_area: facts.calling_area,
        epoch: 0,
        granted: 0,
        generation: 0,
        granted_bytes: 0,
        cap: 0,
    };
    // SAFETY: The page comes from the arena and is used for nothing else.
    Some((test, unsafe { ExchangePage::new(private) }))
}

/// Bytes of the shim's private metadata.
fn pool_metadata(window: Range) -> u64 {
    metadata_bytes(window.bytes(), MAX_CPUS) as u64
}

/// Attaches the shim and puts the GHCB into the first chunk it is granted.
fn attach(
    svsm: Svsm,
    protocol: u32,
    (window, second): Windows,
    mode: Mode,
    arena: &mut Arena,
    left_alone: Range,
) -> RegisteredGhcb {
    // SAFETY: Accepted RAM that our page tables map private for ever.
    let metadata = unsafe { memory::leak_bytes(arena, pool_metadata(window)) };
    let Some(metadata) = metadata else {
        terminate(Stop::Memory)
    };
    // SAFETY: Our page tables map the window shared, write-back, whole, and nowhere else.
    let kernel = unsafe { Kernel::new(svsm, window) };
    let config = Config {
        protocol,
        cpus: MAX_CPUS,
        // The kernel before this one has left room below the hard cap for a first chunk.
        cap_bytes: mode.restart.then(|| window.end - window.start),
        initial_bytes: if mode.limits {
            window.end - window.start
        } else {
            Config::default().initial_bytes
        },
        ..Config::default()
    };
    let Ok(mut pool) = Pool::attach(kernel, metadata, config) else {
        terminate(Stop::Attach)
    };
    let page = usize::try_from(PAGE_SIZE)
        .ok()
        .and_then(|bytes| pool.alloc_shared(bytes, PAGE_SIZE).ok());
    let Some(page) = page else {
        terminate(Stop::Attach)
    };
    let ghcb = RegisteredGhcb::register(&page).unwrap_or_else(|| terminate(Stop::Ghcb));
    if mode.restart {
        restart_job::settle(&mut pool, ghcb, &svsm, protocol);
    }
    if mode.overtaken
        && pool.attachment().epoch != 1
        && !restart_job::settle_overtaken(&pool, &svsm, protocol, left_alone)
    {
        fail(
            Stop::Restart,
            format_args!("the kernel before left a wrong account"),
        );
    }
    match second {
        Some(second) => {
            let first = FIRST_POOL.call_once(|| pool);
            let other = attach_second(first, svsm, second, config, arena);
            POOL.call_once(|| other);
        }
        None => {
            POOL.call_once(|| pool);
        }
    }
    ghcb
}

/// A pool of the second window beside that of the first.
fn attach_second(
    first: &Pool<'static, Kernel>,
    svsm: Svsm,
    window: Range,
    config: Config,
    arena: &mut Arena,
) -> Pool<'static, Kernel> {
    // SAFETY: Accepted RAM that our page tables map private for ever.
    let metadata = unsafe { memory::leak_bytes(arena, pool_metadata(window)) };
    let Some(metadata) = metadata else {
        terminate(Stop::Memory)
    };
    // SAFETY: Our page tables map this window as the other one.
    let kernel = unsafe { Kernel::new(svsm, window) };
    let mut place = MaybeUninit::uninit();
    if first
        .attach_beside(&mut place, 1, kernel, metadata, config)
        .is_err()
    {
        terminate(Stop::Windows)
    }
    // SAFETY: Attached, so the pool is there.
    unsafe { place.assume_init() }
}

/// The first lines on the console.
fn greet(boot_tsc: u64, facts: &BootFacts<'_>) -> guest_shim::Attachment {
    let Some(pool) = POOL.get() else {
        terminate(Stop::Attach)
    };
    let (window, attachment) = (pool.window(), pool.attachment());
    console_line(format_args!(
        "guest: VMPL2, RAM {}, window {:#x} + {} MiB, epoch {}",
        if facts.ram_accepted {
            "accepted by the paravisor"
        } else {
            "accepted by the guest"
        },
        window.base(),
        window.bytes() >> 20,
        attachment.epoch
    ));
    emit(Record::Attach {
        tsc: processor::time_stamp(),
        boot_tsc,
        window: window.bytes(),
        granted: granted_bytes(),
    });
    attachment
}

fn granted_bytes() -> u64 {
    POOL.get().map_or(0, |pool| pool.statistics().granted_bytes)
}
