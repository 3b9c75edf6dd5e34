// SPDX-License-Identifier: MIT OR Apache-2.0
//! Kernels that restart at peak load: the first two crash with requests in flight, the second one adopts what the first
//! held, the third one gives back what the second held, and works on as if nothing had happened.
//!
//! A kernel knows nothing of the one before it. What to do follows from what ATTACH says.

use guest_shim::virtio::GlobalPool;
use guest_shim::{ListPage, Pool};
use protocol::list::{ENTRY_BYTES, GrantedRun, HEADER_BYTES, ListHeader, MAX_ENTRIES};
use protocol::request::DescribeItem;
use protocol::response::{Usage, decode_answer};
use protocol::{Request, result};
use snp::address::{GuestPhysicalAddress, PAGE_SIZE};
use snp::svsm::ResultCode;
use test_guest::arena::Range;
use test_guest::record::{Phase, Record};
use test_guest::request_plan::{MAX_DEPTH, MAX_REQUEST_BYTES, Request as DiskRequest};
use test_guest::stop::Stop;
use test_guest::transfer::Disk;
use zerocopy::{FromZeros, IntoBytes};

use crate::devices;
use crate::disk_job::{disk_bytes, give_back, pass, report_counters};
use crate::machine::block::Way;
use crate::machine::calling::{GuestPool, Kernel, Svsm};
use crate::machine::ending::fail;
use crate::machine::ghcb::RegisteredGhcb;
use crate::machine::memory::{Buffers, ExchangePage, PAGE_BYTES, exchange_page};
use crate::machine::overtaken;
use crate::machine::pass_watch::emit;

/// The epoch of the kernel that adopts; later ones release.
const ADOPTING: u32 = 2;
/// The epoch of the kernel that works to the end.
pub const LAST: u32 = 3;
/// Shared buffers that a kernel holds when it crashes, beside its requests, and their size.
const HELD_BUFFERS: usize = 16;
const HELD_BYTES: usize = 1 << 20;

/// What a kernel leaves free below the hard cap, for those after it.
const HEADROOM_BYTES: u64 = 8 << 20;

/// The exchange page, as the shim wants it.
struct Page(ExchangePage);

impl ListPage for Page {
    fn address(&self) -> u64 {
        self.0.address()
    }

    fn read(&self, offset: usize, bytes: &mut [u8]) {
        let mut page = [0; PAGE_BYTES];
        self.0.read(&mut page);
        if let Some(part) = page.get(offset..).and_then(|page| page.get(..bytes.len())) {
            bytes.copy_from_slice(part);
        }
    }

    fn write(&self, offset: usize, bytes: &[u8]) {
        // The shim writes headers only.
        assert_eq!(offset, 0, "a list is written from its beginning");
        self.0.write(bytes);
    }
}

/// Deals with what an earlier kernel left behind, before the pool is used for anything but the GHCB.
pub fn settle(pool: &mut Pool<'static, Kernel>, ghcb: RegisteredGhcb, svsm: &Svsm, protocol: u32) {
    let attachment = pool.attachment();
    let listed = orphans_listed(svsm, protocol, attachment.epoch);
    // Devices of the kernel before may still write to its chunks (P-5.2.4).
    devices::quiet(ghcb);
    let page = Page(exchange_page());
    let (mut adopted, mut released) = (0, 0);
    let outcome = if attachment.epoch == ADOPTING {
        pool.adopt_orphans(&page)
            .map(|adoption| adopted = adoption.adopted_bytes)
    } else {
        pool.release_orphans(&page)
            .map(|given| released = given.released_bytes)
    };
    if let Err(cause) = outcome {
        fail(Stop::Restart, format_args!("orphans: {cause:?}"));
    }
    // A full pool must leave the next kernel a chunk: without one it has no GHCB, and cannot quiet its devices.
    let cap = pool.window().bytes().saturating_sub(HEADROOM_BYTES);
    if let Err(cause) = pool.set_cap(cap) {
        fail(Stop::Restart, format_args!("cap: {cause:?}"));
    }
    let service = granted(svsm, protocol);
    let held = pool.statistics().granted_bytes;
    emit(Record::Restart {
        epoch: u64::from(attachment.epoch),
        orphaned: attachment.orphaned_bytes,
        listed,
        adopted,
        released,
        service,
        held,
    });
    let found = attachment.orphaned_bytes;
    if listed != found || adopted + released != found || service != held {
        fail(
            Stop::Restart,
            format_args!(
                "{found} orphaned, {listed} listed, {adopted} adopted, {released} released; {service} granted, {held} held"
            ),
        );
    }
}

/// Deals with what an earlier kernel left behind whose other vCPUs are in the middle of calls: waits until they have found out, then
/// gives everything back. False when an account is wrong.
pub fn settle_overtaken(
    pool: &Pool<'static, Kernel>,
    svsm: &Svsm,
    protocol: u32,
    memory: Range,
) -> bool {
    let mut all_ok = true;
    let mut test = |name, got: ResultCode, expected: ResultCode, ok| {
        all_ok &= ok;
        emit(Record::SelfTest {
            name,
            expected: expected.0,
            got: got.0,
            ok,
        });
    };
    let mut vcpus = 0;
    for account in overtaken::end(memory) {
        vcpus += 1;
        let got = match account.unexpected {
            0 if account.stopped == 1 => result::STALE_EPOCH,
            0 => ResultCode::BUSY,
            code => ResultCode(u32::try_from(code).unwrap_or(u32::MAX)),
        };
        let worked = account.grown > 0 && account.released > 0 && account.converted > 0;
        let ok = worked && got == result::STALE_EPOCH;
        test("overtaken-vcpu", got, result::STALE_EPOCH, ok);
    }
    let listed = orphans_listed(svsm, protocol, pool.attachment().epoch);
    let released = pool.release_orphans(&Page(exchange_page()));
    let released = released.map_or(0, |given| given.released_bytes);
    let (service, held) = (granted(svsm, protocol), pool.statistics().granted_bytes);
    let ok = vcpus > 0 && listed > 0 && listed == released && service == held;
    test(
        "overtaken-orphans",
        ResultCode::SUCCESS,
        ResultCode::SUCCESS,
        ok,
    );
    all_ok
}

/// Fills the pool, starts as many requests as there is room for, and says what is granted at that moment. The caller
/// crashes.
pub fn load(ghcb: RegisteredGhcb, buffers: Buffers, svsm: &Svsm, protocol: u32) {
    let [mut disk, _] = devices::open_disks(ghcb, buffers);
    for number in 0..HELD_BUFFERS {
        // Dropped, it stays handed out.
        if let Err(cause) = GuestPool::pool().alloc_shared(HELD_BYTES, PAGE_SIZE) {
            fail(Stop::Restart, format_args!("buffer {number}: {cause:?}"));
        }
    }
    let disk = disk.going(Way::Read);
    let mut in_flight = 0;
    for slot in 0..MAX_DEPTH {
        let request = DiskRequest {
            offset: slot as u64 * MAX_REQUEST_BYTES,
            bytes: MAX_REQUEST_BYTES,
        };
        if let Err(error) = disk.start(slot, request) {
            fail(Stop::Disk, format_args!("request {slot}: {error:?}"));
        }
        in_flight += 1;
    }
    let epoch = u64::from(GuestPool::pool().attachment().epoch);
    emit(Record::Crash {
        epoch,
        granted: granted(svsm, protocol),
        in_flight,
    });
}

/// What the last kernel does: a whole pass over the first disk, everything given back, every byte accounted for.
pub fn finish(ghcb: RegisteredGhcb, buffers: Buffers, svsm: &Svsm, protocol: u32) {
    let [mut first, second] = devices::open_disks(ghcb, buffers);
    let total = disk_bytes(&first, &second);
    pass(&mut first, buffers, Phase::Read1, total);
    drop((first, second));
    give_back();
    report_counters();
    let service = granted(svsm, protocol);
    let held = GuestPool::pool().statistics().granted_bytes;
    if service != held {
        fail(
            Stop::Restart,
            format_args!("{service} bytes granted, {held} held at the end"),
        );
    }
}

/// Bytes that the service has granted.
fn granted(svsm: &Svsm, protocol: u32) -> u64 {
    let request = Request::Describe {
        window: 0,
        item: DescribeItem::Usage,
    };
    let answer = svsm.call(request.encode(protocol));
    match answer.as_ref().map(decode_answer) {
        Some(Ok(results)) => Usage::decode(results).granted,
        _ => fail(Stop::Restart, format_args!("DESCRIBE: {answer:?}")),
    }
}

/// Bytes of older epochs in the lists of LIST_GRANTED.
fn orphans_listed(svsm: &Svsm, protocol: u32, epoch: u32) -> u64 {
    let page = Page(exchange_page());
    let list = GuestPhysicalAddress::new(page.address());
    let mut header = ListHeader {
        capacity: MAX_ENTRIES,
        ..ListHeader::default()
    };
    let mut bytes = 0;
    loop {
        page.write(0, header.as_bytes());
        let request = Request::ListGranted { list, epoch };
        let answer = svsm.call(request.encode(protocol));
        let code = match answer.as_ref().map(decode_answer) {
            Some(Ok(_)) => ResultCode::SUCCESS,
            Some(Err(refusal)) if refusal.code == ResultCode::INCOMPLETE => refusal.code,
            Some(Err(refusal)) => fail(
                Stop::Restart,
                format_args!("LIST_GRANTED: {}", result::name(refusal.code)),
            ),
            None => fail(Stop::Restart, format_args!("LIST_GRANTED was not served")),
        };
        page.read(0, header.as_mut_bytes());
        for entry in 0..u64::from(header.written.min(MAX_ENTRIES)) {
            let mut run = GrantedRun::new_zeroed();
            let offset = HEADER_BYTES + entry * ENTRY_BYTES;
            page.read(usize::try_from(offset).unwrap_or(0), run.as_mut_bytes());
            if run.epoch != epoch {
                bytes += run.bytes;
            }
        }
        if code == ResultCode::SUCCESS {
            return bytes;
        }
    }
}
