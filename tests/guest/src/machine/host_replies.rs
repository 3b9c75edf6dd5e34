// SPDX-License-Identifier: MIT OR Apache-2.0
//! Calls whose page-state changes the host answers in its manner (`snp_host::psc_manner`): GROW, RELEASE and CONVERT, each once
//! with the first request answered so, and once with all of them.
//!
//! Which manner that is the guest does not know; the records say what it saw, and whoever chose the manner compares. What
//! holds for all of them is checked here: the answer is a documented one, accounts and outcomes fit it, no memory is lost
//! without being quarantined, and the next call of the kind, which is left alone, does all that it should.

use protocol::convert::{ConvertEntry, Outcome};
use protocol::request::DescribeItem;
use protocol::response::{Usage, decode_answer};
use protocol::{CHUNK_BYTES, Request, result};
use snp::address::{GuestPhysicalAddress, PAGE_SIZE, PageSize};
use snp::svsm::{CallRegisters, ListHeader, ResultCode};
use test_guest::arena::{Arena, Range};
use test_guest::port;
use test_guest::record::Record;
use zerocopy::IntoBytes;

use super::caller::{Caller, SECRET, each, is_zero, page_at};
use super::memory::exchange_page;
use super::pass_watch::emit;

/// Requests of a call that are answered in the manner, by round.
const ROUNDS: [u32; 2] = [1, u32::MAX];
/// Bytes of a grant: two entries of a page-state change.
const GRANT: u64 = 2 * CHUNK_BYTES;
/// Pages of a conversion.
const PAGES: u64 = 3;
/// The same, as the length of a list.
const ENTRIES: usize = 3;
const _: () = assert!(ENTRIES as u64 == PAGES);

/// A list that a call has worked on.
struct Converted {
    code: ResultCode,
    outcomes: [Outcome; ENTRIES],
}

impl Converted {
    fn all(&self, outcome: Outcome) -> bool {
        self.outcomes.iter().all(|one| *one == outcome)
    }

    /// One hexadecimal digit for each entry, the first one above.
    fn digits(&self) -> u32 {
        let digits = self.outcomes.iter();
        digits.fold(0, |sum, one| sum << 4 | u32::from(*one as u8))
    }
}

type Step<T> = Result<T, &'static str>;

/// Makes all calls, over accepted memory of `arena`. False when something did not hold.
///
/// # Errors
/// What the job could not do.
pub fn run(caller: Caller<'_>, arena: &mut Arena) -> Step<bool> {
    Calls(caller).run(arena)
}

struct Calls<'a>(Caller<'a>);

impl Calls<'_> {
    fn run(&self, arena: &mut Arena) -> Step<bool> {
        let mut all_ok = true;
        for requests in ROUNDS {
            all_ok &= self.grow("reply-grow", "granted", false, requests)?;
            all_ok &= self.grow(
                "reply-grow-contiguous",
                "granted-contiguous",
                true,
                requests,
            )?;
            all_ok &= self.release(requests)?;
            for to_shared in [true, false] {
                let range = arena.take(PAGES * PAGE_SIZE, PAGE_SIZE);
                all_ok &=
                    self.conversion(range.ok_or("too little memory")?, to_shared, requests)?;
            }
        }
        Ok(all_ok)
    }

    fn grow(
        &self,
        name: &'static str,
        figure: &'static str,
        contiguous: bool,
        requests: u32,
    ) -> Step<bool> {
        let before = self.usage()?;
        self.name(requests)?;
        let answer = self.ask_to_grow(contiguous, GRANT)?;
        let (code, after) = (ResultCode::from_rax(answer.rax), self.usage()?);
        let granted = if code == ResultCode::SUCCESS {
            answer.rdx
        } else {
            0
        };
        let quarantined = after.quarantined - before.quarantined;
        let mut ok = after.granted == before.granted + granted;
        ok &= match code {
            ResultCode::SUCCESS => {
                quarantined == 0 && (granted == GRANT || granted > 0 && !contiguous)
            }
            result::HOST_REFUSED => quarantined == 0,
            result::HOST_MISBEHAVED => quarantined == GRANT,
            _ => false,
        };
        if granted != 0 {
            ok &= self.is_released(&answer, granted, granted)?;
        }
        ok &= self.is_honest(before.granted)?;
        show(name, code.0, ok);
        show(figure, chunks(granted), ok);
        Ok(ok)
    }

    fn release(&self, requests: u32) -> Step<bool> {
        let before = self.usage()?;
        let grant = self.ask_to_grow(true, GRANT)?;
        if ResultCode::from_rax(grant.rax) != ResultCode::SUCCESS {
            return Err("nothing was granted to release");
        }
        self.name(requests)?;
        let answer = self.ask_to_release(&grant, GRANT)?;
        let (code, after) = (ResultCode::from_rax(answer.rax), self.usage()?);
        let quarantined = after.quarantined - before.quarantined;
        // The host's refusal is not the caller's (P-5.8.4).
        let mut ok = code == ResultCode::SUCCESS && answer.rcx == GRANT;
        ok &= after.granted == before.granted && answer.rdx <= GRANT;
        ok &= quarantined == 0 || (quarantined == GRANT && answer.rdx == 0);
        ok &= self.is_honest(before.granted)?;
        show("reply-release", code.0, ok);
        show("acknowledged", chunks(answer.rdx), ok);
        Ok(ok)
    }

    fn conversion(&self, pages: Range, to_shared: bool, requests: u32) -> Step<bool> {
        for page in each(pages) {
            page_at(page).write(&SECRET.to_le_bytes());
        }
        if !to_shared && !self.convert(each(pages), true)?.all(Outcome::Converted) {
            return Err("a page could not be prepared");
        }
        self.name(requests)?;
        let got = self.convert(each(pages), to_shared)?;
        let some = |outcomes: &[Outcome]| got.outcomes.iter().any(|one| outcomes.contains(one));
        let mut ok = match got.code {
            ResultCode::SUCCESS => got.all(Outcome::Converted),
            result::HOST_REFUSED => {
                some(&[Outcome::Unchanged, Outcome::Zeroed, Outcome::Unvalidated])
                    && !some(&[Outcome::Quarantined])
            }
            result::HOST_MISBEHAVED => got.all(Outcome::Quarantined),
            _ => false,
        };
        for (page, outcome) in each(pages).zip(got.outcomes) {
            ok &= self.is_settled(page, outcome, to_shared)?;
        }
        let [name, figure] = match to_shared {
            true => ["reply-to-shared", "outcomes-to-shared"],
            false => ["reply-to-private", "outcomes-to-private"],
        };
        show(name, got.code.0, ok);
        show(figure, got.digits(), ok);
        Ok(ok)
    }

    /// Whether a page is what its outcome says: by its contents where it is the guest's, and by what the service answers who
    /// converts it to private, this time with an honest host.
    fn is_settled(&self, page: u64, outcome: Outcome, to_shared: bool) -> Step<bool> {
        let is_private = match outcome {
            Outcome::Converted => !to_shared,
            Outcome::Zeroed => true,
            // To private: still shared. To shared it is no outcome.
            Outcome::Unchanged if to_shared => return Ok(false),
            Outcome::Unchanged | Outcome::Unvalidated | Outcome::Quarantined => false,
        };
        let was_zero = !is_private || is_zero(page);
        let back = self.convert([page].into_iter(), false)?;
        let can_be_converted = !is_private && outcome != Outcome::Quarantined;
        Ok(was_zero
            && match can_be_converted {
                true => back.code == ResultCode::SUCCESS && is_zero(page),
                false => back.code == ResultCode::INVALID_ADDRESS,
            }
            // And there and back again.
            && (outcome == Outcome::Quarantined
                || [true, false].into_iter().try_fold(true, |ok, to_shared| {
                    let again = self.convert([page].into_iter(), to_shared)?;
                    Ok(ok && again.code == ResultCode::SUCCESS)
                })?))
    }

    /// Whether a chunk is granted and taken back as ever, and `granted` bytes are left.
    fn is_honest(&self, granted: u64) -> Step<bool> {
        let answer = self.ask_to_grow(false, CHUNK_BYTES)?;
        Ok(ResultCode::from_rax(answer.rax) == ResultCode::SUCCESS
            && answer.rdx == CHUNK_BYTES
            && self.is_released(&answer, CHUNK_BYTES, CHUNK_BYTES)?
            && self.usage()?.granted == granted)
    }

    fn is_released(&self, grant: &CallRegisters, bytes: u64, acknowledged: u64) -> Step<bool> {
        let answer = self.ask_to_release(grant, bytes)?;
        Ok(ResultCode::from_rax(answer.rax) == ResultCode::SUCCESS
            && (answer.rcx, answer.rdx) == (bytes, acknowledged))
    }

    fn ask_to_grow(&self, contiguous: bool, most: u64) -> Step<CallRegisters> {
        self.ask(Request::Grow {
            window: 0,
            contiguous,
            epoch: self.0.epoch,
            least: if contiguous { most } else { CHUNK_BYTES },
            most,
        })
    }

    fn ask_to_release(&self, grant: &CallRegisters, bytes: u64) -> Step<CallRegisters> {
        self.ask(Request::Release {
            base: GuestPhysicalAddress::new(grant.rcx),
            bytes,
            epoch: self.0.epoch,
            generation: u32::try_from(grant.r8).map_err(|_| "a generation of more than 32 bits")?,
        })
    }

    fn usage(&self) -> Step<Usage> {
        let answer = self.ask(Request::Describe {
            window: 0,
            item: DescribeItem::Usage,
        })?;
        let registers = decode_answer(&answer).map_err(|_| "no usage")?;
        Ok(Usage::decode(registers))
    }

    /// CONVERT of up to [`ENTRIES`] pages.
    fn convert(&self, pages: impl Iterator<Item = u64>, to_shared: bool) -> Step<Converted> {
        const HEAD: usize = size_of::<ListHeader>();
        let mut bytes = [0; HEAD + 8 * ENTRIES];
        let mut entries = 0;
        for (slot, page) in bytes[HEAD..].chunks_exact_mut(8).zip(pages) {
            let page = GuestPhysicalAddress::new(page);
            let entry = ConvertEntry::request(page, PageSize::Size4K, to_shared);
            slot.copy_from_slice(&entry.into_bits().to_le_bytes());
            entries += 1;
        }
        let header = ListHeader {
            entries,
            next: 0,
            reserved: 0,
        };
        bytes[..HEAD].copy_from_slice(header.as_bytes());
        exchange_page().write(&bytes);
        let answer = self.ask(Request::Convert {
            list: GuestPhysicalAddress::new(exchange_page().address()),
            epoch: self.0.epoch,
        })?;
        exchange_page().read(&mut bytes);
        let mut outcomes = [Outcome::Converted; ENTRIES];
        for (outcome, slot) in outcomes.iter_mut().zip(bytes[HEAD..].chunks_exact(8)) {
            let entry = slot.try_into().map(u64::from_le_bytes).unwrap_or_default();
            let read = ConvertEntry::from_bits(entry).outcome();
            *outcome = read.map_err(|_| "an outcome that is not defined")?;
        }
        Ok(Converted {
            code: ResultCode::from_rax(answer.rax),
            outcomes,
        })
    }

    /// Names the next call to the host.
    fn name(&self, requests: u32) -> Step<()> {
        let written = self.0.ghcb.channel().port_write(port::PSC, 4, requests);
        written.map_err(|_| "the host took no number")
    }

    fn ask(&self, request: Request) -> Step<CallRegisters> {
        let answer = self.0.svsm.call(request.encode(self.0.protocol));
        answer.ok_or("a call was not seen")
    }
}

fn show(name: &'static str, got: u32, ok: bool) {
    emit(Record::SelfTest {
        name,
        expected: ResultCode::SUCCESS.0,
        got,
        ok,
    });
}

fn chunks(bytes: u64) -> u32 {
    u32::try_from(bytes / CHUNK_BYTES).unwrap_or(u32::MAX)
}
