// SPDX-License-Identifier: MIT OR Apache-2.0
//! A kernel that starts anew while its other vCPUs are inside calls, and does not stop them: GROW, RELEASE and CONVERT, again and
//! again, of the epoch that ends meanwhile.
//!
//! What they use lies where no kernel has anything of its own: code and constants of the image, and a block of memory for each vCPU
//! that every kernel leaves alone. They run on the page tables from before the first start.

use core::arch::asm;
use core::ptr::NonNull;

use guest_shim::transport::MsrTransport;
use protocol::convert::ConvertEntry;
use protocol::response::{Granted, decode_answer};
use protocol::{CHUNK_BYTES, Epoch, Request, result};
use snp::address::{GuestPhysicalAddress, LARGE_PAGE_SIZE, PAGE_SIZE, PageSize};
use snp::svsm::{CallRegisters, ListHeader, ResultCode};
use test_guest::ap_state::{ApStart, Table, ap_vmsa};
use test_guest::arena::{Arena, Range};
use test_guest::schedule::MAX_CPUS;
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes};

use super::calling::Svsm;
use super::memory::ExchangePage;
use super::{exceptions, processor, team};

/// Pages of a block: calling area, list, the page that is converted, the account, VMSA (and one that a VMSA may have to leave
/// out), stack.
const STACK_PAGES: u64 = 8;
const BLOCK_BYTES: u64 = (6 + STACK_PAGES) * PAGE_SIZE;
/// Memory that is left alone.
pub const MEMORY_BYTES: u64 = BLOCK_BYTES * MAX_CPUS as u64;
/// Rounds of each vCPU before the kernel starts anew.
const ROUNDS: u64 = 4;
/// Looks at an account before its vCPU counts as stuck.
const PATIENCE: u64 = 20_000_000_000;

/// What a vCPU has seen.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub struct Account {
    /// Rounds so far.
    pub rounds: u64,
    /// Chunks granted, and given back.
    pub grown: u64,
    /// See `grown`.
    pub released: u64,
    /// Pages converted.
    pub converted: u64,
    /// 1: the epoch has ended, and nothing more will come.
    pub stopped: u64,
    /// The last code that is none of those expected, or 0.
    pub unexpected: u64,
}

/// Where the parts of a block are.
#[derive(Debug, Clone, Copy)]
struct Block(u64);

impl Block {
    fn of(memory: Range, cpu: usize) -> Self {
        Self(memory.start + cpu as u64 * BLOCK_BYTES)
    }

    const fn page(self, number: u64) -> u64 {
        self.0 + number * PAGE_SIZE
    }

    const fn area(self) -> u64 {
        self.page(0)
    }

    const fn list(self) -> u64 {
        self.page(1)
    }

    const fn target(self) -> u64 {
        self.page(2)
    }

    const fn vmsa(self) -> u64 {
        let first = self.page(4);
        // Hosts refuse to run a VMSA at a multiple of 2 MiB (erratum).
        if first.is_multiple_of(LARGE_PAGE_SIZE) {
            self.page(5)
        } else {
            first
        }
    }

    const fn end(self) -> u64 {
        self.0 + BLOCK_BYTES
    }

    fn read(self) -> Account {
        let mut account = Account::new_zeroed();
        page(self.page(3)).read(account.as_mut_bytes());
        account
    }

    fn write(self, account: &Account) {
        page(self.page(3)).write(account.as_bytes());
    }
}

fn page(address: u64) -> ExchangePage {
    // SAFETY: A page of the memory that every kernel leaves alone: no object lies in it.
    unsafe { ExchangePage::new(address) }
}

/// Starts the further vCPUs and returns when each is well inside its calls; how many there are. `start_tables` is the CR3 from before
/// the first start. To be called once in the life of the machine.
pub fn begin(svsm: Svsm, memory: Range, start_tables: u64) -> usize {
    let mut cpus = 1;
    while cpus < MAX_CPUS {
        let block = Block::of(memory, cpus);
        block.write(&Account::new_zeroed());
        let (gdt, _) = exceptions::tables();
        let entry: extern "C" fn(u64) -> ! = work;
        let state = ap_vmsa(&ApStart {
            entry: entry as usize as u64,
            stack_end: block.end(),
            number: block.0,
            cr3: start_tables,
            gdt,
            // No handler is there any more when the next kernel starts.
            idt: Table { base: 0, limit: 0 },
            gs_base: 0,
            sev_features: team::features(),
        });
        page(block.vmsa()).write(state.as_bytes());
        if !team::create(svsm, cpus, block.vmsa(), block.area()) {
            break;
        }
        team::launch(cpus, block.vmsa());
        cpus += 1;
    }
    accounts(memory, cpus, |account| account.rounds >= ROUNDS);
    cpus
}

/// Waits until all accounts are as wished, or one does not move any more; what they are.
fn accounts(
    memory: Range,
    cpus: usize,
    wished: fn(&Account) -> bool,
) -> [Option<Account>; MAX_CPUS] {
    let from = processor::time_stamp();
    let mut found = [None; MAX_CPUS];
    for (cpu, found) in found.iter_mut().enumerate().take(cpus).skip(1) {
        let block = Block::of(memory, cpu);
        loop {
            let account = block.read();
            if wished(&account) || processor::time_stamp().wrapping_sub(from) > PATIENCE {
                *found = Some(account);
                break;
            }
            core::hint::spin_loop();
        }
    }
    found
}

/// Of the kernel that was started: waits until the vCPUs have found out; what they saw, with `stopped` 0 where one has not.
pub fn end(memory: Range) -> impl Iterator<Item = Account> {
    let cpus = (1..MAX_CPUS).take_while(move |cpu| Block::of(memory, *cpu).read().rounds != 0);
    let all = accounts(memory, cpus.count() + 1, |account| account.stopped != 0);
    all.into_iter().flatten()
}

/// The first function of a further vCPU, which gets the address of its block. It uses no static.
extern "C" fn work(block: u64) -> ! {
    let block = Block(block);
    let mut account = Account::new_zeroed();
    let mut page_is_shared = false;
    while account.stopped == 0 {
        round(block, &mut account, &mut page_is_shared);
        account.rounds += 1;
        block.write(&account);
    }
    loop {
        // SAFETY: HLT leaves for the host; interrupts are off for ever.
        unsafe { asm!("hlt", options(nomem, nostack)) };
    }
}

/// A chunk there and back, and a page.
fn round(block: Block, account: &mut Account, page_is_shared: &mut bool) {
    let epoch = Epoch::FIRST.number();
    let grow = Request::Grow {
        window: 0,
        contiguous: false,
        epoch,
        least: CHUNK_BYTES,
        most: CHUNK_BYTES,
    };
    if let Some(Ok(granted)) =
        call(block, grow, account).map(|answer| decode_answer(&answer).map(Granted::decode))
    {
        let Ok(granted) = granted else {
            account.unexpected = u64::MAX;
            return;
        };
        account.grown += 1;
        let release = Request::Release {
            base: granted.base,
            bytes: granted.bytes,
            epoch,
            generation: granted.generation.number(),
        };
        if call(block, release, account).is_some_and(|answer| decode_answer(&answer).is_ok()) {
            account.released += 1;
        }
    }
    let entry = ConvertEntry::request(
        GuestPhysicalAddress::new(block.target()),
        PageSize::Size4K,
        !*page_is_shared,
    );
    let header = ListHeader {
        entries: 1,
        ..ListHeader::new_zeroed()
    };
    let mut list = [0; 16];
    list[..8].copy_from_slice(header.as_bytes());
    list[8..].copy_from_slice(entry.as_bytes());
    page(block.list()).write(&list);
    let convert = Request::Convert {
        list: GuestPhysicalAddress::new(block.list()),
        epoch,
    };
    if call(block, convert, account).is_some_and(|answer| decode_answer(&answer).is_ok()) {
        *page_is_shared = !*page_is_shared;
        account.converted += 1;
    }
}

/// Makes a call of the service under its default number; notes when the epoch has ended, and a code that should not be.
fn call(block: Block, request: Request, account: &mut Account) -> Option<CallRegisters> {
    let mut registers = request.encode(protocol::DEFAULT_PROTOCOL_NUMBER);
    let area = NonNull::new(block.area() as *mut u8)?;
    // SAFETY: This vCPU's calling area, mapped by the start tables; CPL 0, interrupts off for ever. The calls name pages of the
    // block, in which no object lives.
    if unsafe { MsrTransport::new(area).call(&mut registers) }.is_err() {
        account.unexpected = u64::MAX - 1;
        account.stopped = 1;
        return None;
    }
    match ResultCode::from_rax(registers.rax) {
        ResultCode::SUCCESS | ResultCode::BUSY | ResultCode::INCOMPLETE | result::CAP_REACHED => {}
        result::NO_CONTIGUOUS_RUN => {}
        result::STALE_EPOCH => account.stopped = 1,
        code => account.unexpected = u64::from(code.0),
    }
    Some(registers)
}

/// The memory that is left alone: the end of what is free.
pub fn take_memory(free: Range) -> Option<Range> {
    let start = free.end.checked_sub(MEMORY_BYTES)? & !(PAGE_SIZE - 1);
    (start >= free.start)
        .then(|| Arena::new(Range::new(start, free.end)).take(MEMORY_BYTES, PAGE_SIZE))?
}
