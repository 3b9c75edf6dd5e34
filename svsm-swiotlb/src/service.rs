// SPDX-License-Identifier: MIT OR Apache-2.0
//! The service and its entry: registers in, registers out.

use core::sync::atomic::{AtomicBool, Ordering};

use protocol::identity::{Features, Identity, PROTOCOL_VERSION, SharedAddressing};
use protocol::response::encode_answer;
use protocol::statistics::Statistics;
use protocol::trace::TraceKind;
use protocol::{Call, DEFAULT_PROTOCOL_NUMBER, Refusal, Request, ResultRegisters, result};
use snp::address::GuestPhysicalAddress;
use snp::svsm::{CallId, CallRegisters, ResultCode};

use crate::guest_page::GuestPage;
use crate::page_state::PageStates;
use crate::platform::{GuestMemory, HostPages, PageInstructions};
use crate::pool::{BATCH_CHUNKS, MAX_WINDOW_CHUNKS, Pool, Pools, Window, WindowError};
use crate::session::Session;
use crate::state::{STATE_BYTES, STATE_VERSION, ServiceState, StateError};
use crate::statistics::Counters;
use crate::trace::{Event, Trace};

/// What an integrator chooses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Configuration {
    /// Protocol number under which the service answers; see [`DEFAULT_PROTOCOL_NUMBER`].
    pub protocol_number: u32,
    /// How the guest addresses shared memory.
    pub addressing: SharedAddressing,
    /// The platform's flush keeps the promise of [`PageInstructions::flush`] on this machine. Without it CONVERT is not
    /// offered (clause P-5.9.5).
    pub flush_reaches_all: bool,
    /// Most chunks that one GROW or RELEASE moves: one batch, [`BATCH_CHUNKS`], unless an integrator prefers few long calls
    /// to many short ones. More means several batches in one call.
    pub call_chunks: usize,
}

impl Configuration {
    /// The default number, C-bit at this position, no CONVERT.
    pub const fn with_encryption_bit(position: u8) -> Self {
        Self {
            protocol_number: DEFAULT_PROTOCOL_NUMBER,
            addressing: SharedAddressing::EncryptionBitClear(position),
            flush_reaches_all: false,
            call_chunks: BATCH_CHUNKS,
        }
    }

    /// The same without the bound on a call: one GROW takes as much as the guest asks for and the window has.
    #[must_use]
    pub const fn without_unit_limit(self) -> Self {
        Self {
            call_chunks: MAX_WINDOW_CHUNKS,
            ..self
        }
    }
}

/// The shared-pool service.
///
/// All methods take `&self` and may run on any number of processors at once. Nothing in here allocates, panics, waits for
/// another processor, or holds a lock.
#[derive(Debug)]
pub struct Service<'a, P> {
    pub(crate) platform: &'a P,
    pub(crate) pools: Pools<'a>,
    pub(crate) pages: PageStates<'a>,
    pub(crate) session: Session,
    pub(crate) counters: Counters,
    stopped: AtomicBool,
    configuration: Configuration,
}

impl<'a, P: HostPages + GuestMemory> Service<'a, P> {
    /// A service over a window, or two ([`Pools::two`]), and the state words of guest RAM.
    ///
    /// # Errors
    /// [`WindowError::OverlapsRam`] if a page of a window has a state word: it could then be validated (invariant W1).
    pub fn new(
        platform: &'a P,
        configuration: Configuration,
        pools: impl Into<Pools<'a>>,
        pages: PageStates<'a>,
    ) -> Result<Self, WindowError> {
        let pools = pools.into();
        let ram = pages.ranges();
        let in_ram = |pool: &Pool<'_>| ram.overlaps(pool.window().base(), pool.window().bytes());
        if in_ram(pools.first()) || pools.second().is_some_and(in_ram) {
            return Err(WindowError::OverlapsRam);
        }
        Ok(Self {
            platform,
            pools: pools.with_call_chunks(configuration.call_chunks),
            pages,
            session: Session::new(),
            counters: Counters::new(),
            stopped: AtomicBool::new(false),
            configuration,
        })
    }

    /// A service over a predecessor's records and page states that goes on from its scalars.
    ///
    /// What the predecessor had in transition when it stopped is quarantined, chunks and pages.
    ///
    /// # Errors
    /// See [`StateError`]; nothing is served on a state that contradicts itself.
    pub fn resume(
        platform: &'a P,
        configuration: Configuration,
        pools: impl Into<Pools<'a>>,
        pages: PageStates<'a>,
        state: &ServiceState,
    ) -> Result<Self, StateError> {
        let pools = pools.into();
        state.check(&pools)?;
        let statistics = &state.statistics;
        for (pool, of_window) in pools.iter().zip(statistics.windows()) {
            pool.accounts()
                .resume(of_window.cap_bytes, of_window.peak_granted_bytes)
                .ok_or(StateError::Inconsistent)?;
        }
        pages.quarantine_busy();
        let service =
            Self::new(platform, configuration, pools, pages).map_err(StateError::Window)?;
        Ok(Self {
            session: Session::resumed(state.epoch, state.attached != 0, state.generation),
            counters: Counters::resumed(statistics, state.next_event),
            ..service
        })
    }

    /// The scalars for a successor. Meaningful together with the records and page states, and only while no call runs.
    pub fn state(&self) -> ServiceState {
        let (epoch, attached) = self.session.newest_epoch();
        ServiceState {
            version: STATE_VERSION,
            bytes: STATE_BYTES,
            epoch,
            attached: attached.into(),
            generation: self.session.newest_generation(),
            stopped: self.has_stopped().into(),
            window_base: self.window().base().bits(),
            next_event: self.counters.trace().next(),
            statistics: self.statistics(),
            second_base: (self.pools.second()).map_or(0, |pool| pool.window().base().bits()),
        }
    }

    /// Window 0.
    pub const fn window(&self) -> &Window {
        self.pool().window()
    }

    /// Whether any byte of `[address, address + bytes)` lies in a window, which an integrator's core protocol refuses; see
    /// [`Window::touches`].
    pub fn touches_window(&self, address: GuestPhysicalAddress, bytes: u64) -> bool {
        self.pools.touches(address, bytes)
    }

    /// The state words of guest RAM, which an integrator's core protocol uses too (invariant P5).
    pub const fn page_states(&self) -> &PageStates<'a> {
        &self.pages
    }

    /// The counters as STATISTICS writes them, for a console.
    pub fn statistics(&self) -> Statistics {
        self.counters
            .snapshot(self.session.epoch_number(), &self.pools)
    }

    /// The newest events, for a console.
    pub const fn trace(&self) -> &Trace {
        self.counters.trace()
    }

    /// The pool of window 0, for a console.
    pub const fn pool(&self) -> &Pool<'a> {
        self.pools.first()
    }

    /// The pools of all windows, for a console.
    pub const fn pools(&self) -> &Pools<'a> {
        &self.pools
    }

    /// The number the service answers to.
    pub const fn protocol_number(&self) -> u32 {
        self.configuration.protocol_number
    }

    /// What the core protocol's QUERY_PROTOCOL returns in RCX for our number and this version: highest version in
    /// \[63:32\], lowest in \[31:0\], or 0 (AMD 58019, section 6).
    pub const fn query_protocol(&self, version: u32) -> u64 {
        if version == PROTOCOL_VERSION as u32 {
            ((PROTOCOL_VERSION as u64) << 32) | PROTOCOL_VERSION as u64
        } else {
            0
        }
    }

    /// The answer to IDENTIFY.
    pub const fn identity(&self) -> Identity {
        let features = Features::new()
            .with_convert(self.configuration.flush_reaches_all)
            .with_trace(true)
            .with_orphans(true)
            .with_detach(true)
            .with_memory_form(true);
        Identity::of_this_version(self.configuration.addressing, features)
    }

    /// Whether a page was found valid that by every account was not: the host maps one page twice, or somebody validated
    /// behind our back (invariant P1). No call is served any more. An integrator that finds this ends the VM.
    pub fn has_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    /// See [`Service::has_stopped`].
    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
    }

    /// The pool of the window that a call names.
    ///
    /// # Errors
    /// INVALID_PARAMETER if there is no such window (P-3.2).
    pub(crate) fn pool_of(&self, window: u8) -> Result<&Pool<'a>, ResultCode> {
        self.pools.get(window).ok_or(ResultCode::INVALID_PARAMETER)
    }
}

impl<P: GuestMemory> Service<'_, P> {
    /// Runs `work` on the structure at `start`, which the caller with this calling area named.
    ///
    /// # Errors
    /// As [`GuestPage::with`].
    pub(crate) fn with_guest_page<R>(
        &self,
        start: GuestPhysicalAddress,
        calling_area: Option<GuestPhysicalAddress>,
        work: impl FnOnce(&GuestPage<'_, P>) -> Result<R, ResultCode>,
    ) -> Result<R, ResultCode> {
        let (states, counters) = (&self.pages, &self.counters);
        GuestPage::with(self.platform, states, counters, start, calling_area, work)
    }
}

impl<P: HostPages + GuestMemory + PageInstructions> Service<'_, P> {
    /// Serves one call: the registers of the calling processor in, the registers it resumes with out.
    ///
    /// `calling_area` is the caller's own as the integrator knows it, not as the caller says: the one in which it has found
    /// CALL_PENDING. `None` if that cannot be told; MEMORY_FORM is refused then, and so is a list in any calling area. The integrator does not hold the area's
    /// state word any more, and writes all registers of the result into the VMSA. After each call it asks
    /// [`Service::has_stopped`].
    pub fn dispatch(
        &self,
        call: &CallRegisters,
        calling_area: Option<GuestPhysicalAddress>,
    ) -> CallRegisters {
        if self.is_memory_form(call) {
            self.memory_form(call, calling_area)
        } else {
            self.serve(call, calling_area, TraceKind::Refused)
        }
    }

    /// Serves a call from wherever its registers came; a refusal is noted as this kind of event.
    pub(crate) fn serve(
        &self,
        call: &CallRegisters,
        calling_area: Option<GuestPhysicalAddress>,
        refused: TraceKind,
    ) -> CallRegisters {
        let answer = if self.has_stopped() {
            Err(result::HOST_MISBEHAVED.into())
        } else {
            self.answer(call, calling_area)
        };
        self.conclude(call, answer, refused)
    }

    /// Counts and notes what a call was answered.
    pub(crate) fn conclude(
        &self,
        call: &CallRegisters,
        answer: Result<ResultRegisters, Refusal>,
        refused: TraceKind,
    ) -> CallRegisters {
        self.counters.answer(&answer);
        if let Err(refusal) = &answer {
            self.note_refusal(call, refusal.code, refused);
        }
        encode_answer(call, answer)
    }

    /// Refusals are events, but for INCOMPLETE, which is none, and calls of another protocol, which are not ours to note.
    fn note_refusal(&self, call: &CallRegisters, code: ResultCode, kind: TraceKind) {
        if matches!(
            code,
            ResultCode::INCOMPLETE | ResultCode::UNSUPPORTED_PROTOCOL
        ) {
            return;
        }
        let number = CallId::from_rax(call.rax).call;
        self.counters.trace().note(&Event {
            kind,
            code: u16::try_from(number).unwrap_or(u16::MAX),
            detail: code.0,
            address: call.rcx,
            bytes: call.rdx,
        });
    }

    fn answer(
        &self,
        registers: &CallRegisters,
        calling_area: Option<GuestPhysicalAddress>,
    ) -> Result<ResultRegisters, Refusal> {
        let id = CallId::from_rax(registers.rax);
        if id.protocol != self.configuration.protocol_number {
            return Err(ResultCode::UNSUPPORTED_PROTOCOL.into());
        }
        self.counters.call(id.call);
        let not_offered =
            id.call == Call::Convert.number() && !self.configuration.flush_reaches_all;
        // In a block: the form does not nest. What is in registers never comes here.
        if not_offered || id.call == Call::MemoryForm.number() {
            return Err(ResultCode::UNSUPPORTED_CALL.into());
        }
        match Request::decode(registers)? {
            Request::Identify => Ok(self.identity().encode()),
            Request::Describe { window, item } => Ok(self.describe(window, item)?),
            Request::Attach { version } => Ok(self.attach(version)?.encode()),
            Request::ListGranted { list, epoch } => {
                self.list_granted(list, epoch, calling_area)?;
                Ok(ResultRegisters::default())
            }
            Request::Adopt { epoch, from } => Ok(self.adopt(epoch, from)?.encode()),
            Request::ReleaseOrphans { epoch, from } => {
                Ok(self.release_orphans(epoch, from)?.encode())
            }
            Request::Detach { epoch } => Ok(self.detach(epoch)?.encode()),
            Request::Grow {
                window,
                contiguous,
                epoch,
                least,
                most,
            } => {
                let pool = self.pool_of(window)?;
                let epoch = self.session.check(epoch)?;
                Ok(self.grow(pool, epoch, contiguous, least, most)?.encode())
            }
            Request::Release {
                base,
                bytes,
                epoch,
                generation,
            } => Ok(self.release(base, bytes, epoch, generation)?.encode()),
            Request::Convert { list, epoch } => {
                self.convert(list, epoch, calling_area)?;
                Ok(ResultRegisters::default())
            }
            Request::Statistics { buffer, bytes } => {
                Ok(self.write_statistics(buffer, bytes, calling_area)?.encode())
            }
            Request::Trace {
                buffer,
                bytes,
                from,
            } => Ok(self
                .write_trace(buffer, bytes, from, calling_area)?
                .encode()),
            Request::SetLimits { window, epoch, cap } => {
                let pool = self.pool_of(window)?;
                Ok(self.set_limits(pool, epoch, cap)?.encode())
            }
            Request::MemoryForm { .. } => Err(ResultCode::UNSUPPORTED_CALL.into()),
        }
    }
}

#[cfg(test)]
mod tests;
