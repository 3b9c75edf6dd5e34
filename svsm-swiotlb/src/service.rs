// SPDX-License-Identifier: MIT OR Apache-2.0
//! The service and its entry: registers in, registers out.

use protocol::identity::{Features, Identity, PROTOCOL_VERSION, SharedAddressing};
use protocol::response::encode_answer;
use protocol::statistics::Statistics;
use protocol::{DEFAULT_PROTOCOL_NUMBER, Refusal, Request, ResultRegisters};
use snp::svsm::{CallId, CallRegisters, ResultCode};

use crate::page_state::PageStates;
use crate::platform::{GuestMemory, HostPages};
use crate::pool::{Pool, Window, WindowError};
use crate::session::Session;
use crate::statistics::Counters;

/// What an integrator chooses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Configuration {
    /// Protocol number under which the service answers; see [`DEFAULT_PROTOCOL_NUMBER`].
    pub protocol_number: u32,
    /// How the guest addresses shared memory.
    pub addressing: SharedAddressing,
}

impl Configuration {
    /// The default number, C-bit at this position.
    pub const fn with_encryption_bit(position: u8) -> Self {
        Self {
            protocol_number: DEFAULT_PROTOCOL_NUMBER,
            addressing: SharedAddressing::EncryptionBitClear(position),
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
    pub(crate) pool: Pool<'a>,
    pub(crate) pages: PageStates<'a>,
    pub(crate) session: Session,
    pub(crate) counters: Counters,
    configuration: Configuration,
}

impl<'a, P: HostPages + GuestMemory> Service<'a, P> {
    /// A service over a window and the state words of guest RAM.
    ///
    /// # Errors
    /// [`WindowError::OverlapsRam`] if a page of the window has a state word: it could then be validated (invariant W1).
    pub fn new(
        platform: &'a P,
        configuration: Configuration,
        pool: Pool<'a>,
        pages: PageStates<'a>,
    ) -> Result<Self, WindowError> {
        if pages
            .ranges()
            .overlaps(pool.window().base(), pool.window().bytes())
        {
            return Err(WindowError::OverlapsRam);
        }
        Ok(Self {
            platform,
            pool,
            pages,
            session: Session::new(),
            counters: Counters::new(),
            configuration,
        })
    }

    /// The window; an integrator's core protocol refuses what [`Window::touches`] it.
    pub const fn window(&self) -> &Window {
        self.pool.window()
    }

    /// The state words of guest RAM, which an integrator's core protocol uses too (invariant P5).
    pub const fn page_states(&self) -> &PageStates<'a> {
        &self.pages
    }

    /// The counters as STATISTICS writes them, for a console.
    pub fn statistics(&self) -> Statistics {
        self.counters
            .snapshot(self.session.epoch_number(), &self.pool)
    }

    /// The pool's accounts, for a console.
    pub const fn pool(&self) -> &Pool<'a> {
        &self.pool
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

    /// Serves one call: the registers of the calling processor in, the registers it resumes with out.
    ///
    /// The integrator has checked CALL_PENDING and writes the result into the VMSA. Registers that the protocol does not
    /// use are not part of this.
    pub fn dispatch(&self, call: &CallRegisters) -> CallRegisters {
        let answer = self.answer(call);
        self.counters.answer(&answer);
        encode_answer(call, answer)
    }

    fn answer(&self, registers: &CallRegisters) -> Result<ResultRegisters, Refusal> {
        let id = CallId::from_rax(registers.rax);
        if id.protocol != self.configuration.protocol_number {
            return Err(ResultCode::UNSUPPORTED_PROTOCOL.into());
        }
        self.counters.call(id.call);
        match Request::decode(registers)? {
            Request::Identify => Ok(self.identity().encode()),
            Request::Describe { window, item } => Ok(self.describe(window, item)?),
            Request::Attach { version } => Ok(self.attach(version)?.encode()),
            Request::ListGranted { list, epoch } => {
                self.list_granted(list, epoch)?;
                Ok(ResultRegisters::default())
            }
            Request::Grow {
                window,
                contiguous,
                epoch,
                least,
                most,
            } => {
                self.check_window(window)?;
                let epoch = self.session.check(epoch)?;
                Ok(self.grow(epoch, contiguous, least, most)?.encode())
            }
            Request::Release {
                base,
                bytes,
                epoch,
                generation,
            } => Ok(self.release(base, bytes, epoch, generation)?.encode()),
            Request::Statistics { buffer, bytes } => {
                Ok(self.write_statistics(buffer, bytes)?.encode())
            }
            Request::SetLimits { window, epoch, cap } => {
                self.check_window(window)?;
                Ok(self.set_limits(epoch, cap)?.encode())
            }
        }
    }

    /// The answer to IDENTIFY.
    pub const fn identity(&self) -> Identity {
        Identity::of_this_version(self.configuration.addressing, Features::new())
    }

    /// There is one window, number 0.
    pub(crate) const fn check_window(&self, window: u8) -> Result<(), ResultCode> {
        if window == 0 {
            Ok(())
        } else {
            Err(ResultCode::INVALID_PARAMETER)
        }
    }
}

#[cfg(test)]
mod tests;
