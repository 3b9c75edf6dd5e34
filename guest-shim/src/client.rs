// SPDX-License-Identifier: MIT OR Apache-2.0
//! Typed calls to the service, with bounded patience.
//!
//! The service is trusted, but a reply is still decoded and checked: a mistake on either side shows up as a named error
//! and not as memory that two parties use.

use core::array;
use core::hint::spin_loop;
use core::sync::atomic::{AtomicU64, Ordering};

use protocol::identity::Identity;
use protocol::request::DescribeItem;
use protocol::response::{
    Adopted, Attached, Detached, Geometry, Granted, LimitsSet, Malformed, OrphansReleased,
    Released, ResultRegisters, Usage, WorkLimits, decode_answer,
};
use protocol::result as code;
use protocol::statistics::CALL_COUNTERS;
use protocol::{Refusal, Request};
use snp::address::GuestPhysicalAddress;
use snp::svsm::{CallId, CallRegisters, ResultCode, core_protocol};

use crate::error::MapError;
use crate::platform::{CallFailed, Platform};

/// Attempts of one call before BUSY is passed on. A chunk is in transition for one exit to the host, so a few suffice;
/// the number only bounds what a service that never stops being busy can cost.
const ATTEMPTS: u32 = 16;

/// Number of calls that are counted: all that the shim makes.
pub(crate) const CALLS: usize = CALL_COUNTERS;

/// Why a call gave no result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CallError {
    /// The service has not seen it.
    NotRun,
    /// The service said no.
    Refused(ResultCode),
    /// The answer means nothing.
    Malformed,
}

impl From<CallFailed> for CallError {
    fn from(_: CallFailed) -> Self {
        Self::NotRun
    }
}

impl From<Refusal> for CallError {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal.code)
    }
}

impl From<Malformed> for CallError {
    fn from(_: Malformed) -> Self {
        Self::Malformed
    }
}

impl From<CallError> for MapError {
    /// The named cause behind a GROW that gave nothing.
    fn from(error: CallError) -> Self {
        match error {
            CallError::Refused(code::CAP_REACHED) => Self::CapReached,
            CallError::Refused(code::HOST_REFUSED | code::HOST_MISBEHAVED) => Self::HostRefused,
            CallError::Refused(code::NO_CONTIGUOUS_RUN | code::TOO_LARGE) => Self::NoContiguousRun,
            CallError::Refused(code::RECORDS_EXHAUSTED) => Self::RecordsExhausted,
            CallError::Refused(ResultCode::BUSY) => Self::Busy,
            CallError::Refused(code::NOT_ATTACHED | code::STALE_EPOCH) => Self::NotAttached,
            CallError::NotRun | CallError::Malformed | CallError::Refused(_) => Self::ServiceFault,
        }
    }
}

/// How much to grow by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wish {
    /// Least bytes that help.
    pub least: u64,
    /// Most bytes wanted.
    pub most: u64,
    /// The least must come in one run.
    pub contiguous: bool,
}

/// The calls of one attachment about one window.
#[derive(Debug)]
pub(crate) struct Client {
    protocol: u32,
    epoch: u32,
    window: u8,
    /// Calls issued, by number. Every repetition counts: each one is an exit.
    issued: [AtomicU64; CALLS],
}

impl Client {
    /// A client that has not attached yet.
    pub fn new(protocol: u32, window: u8) -> Self {
        Self {
            protocol,
            epoch: 0,
            window,
            issued: array::from_fn(|_| AtomicU64::new(0)),
        }
    }

    /// The calls of the same attachment about another window.
    pub fn beside(&self, window: u8) -> Self {
        Self {
            epoch: self.epoch,
            ..Self::new(self.protocol, window)
        }
    }

    /// Calls issued so far, indexed by [`protocol::Call::index`].
    pub fn issued(&self) -> [u64; CALLS] {
        array::from_fn(|index| {
            self.issued
                .get(index)
                .map_or(0, |count| count.load(Ordering::Relaxed))
        })
    }

    /// Whether the core protocol says that ours is offered in our version.
    pub fn is_offered<P: Platform>(&self, platform: &P) -> Result<bool, CallError> {
        let id = CallId {
            protocol: core_protocol::NUMBER,
            call: core_protocol::QUERY_PROTOCOL,
        };
        let version = u64::from(protocol::PROTOCOL_VERSION);
        let mut registers = CallRegisters {
            rax: id.to_rax(),
            rcx: u64::from(self.protocol) << 32 | version,
            ..CallRegisters::default()
        };
        platform.call(&mut registers)?;
        let results = decode_answer(&registers)?;
        // Zero says "not this one"; the range of versions is what IDENTIFY reports again.
        Ok(results.rcx != 0)
    }

    /// IDENTIFY.
    pub fn identify<P: Platform>(&self, platform: &P) -> Result<Identity, CallError> {
        Ok(Identity::decode(self.call(platform, &Request::Identify)?)?)
    }

    /// DESCRIBE, geometry.
    pub fn geometry<P: Platform>(&self, platform: &P) -> Result<Geometry, CallError> {
        Ok(Geometry::decode(
            self.describe(platform, DescribeItem::Geometry)?,
        )?)
    }

    /// DESCRIBE, usage.
    pub fn usage<P: Platform>(&self, platform: &P) -> Result<Usage, CallError> {
        Ok(Usage::decode(self.describe(platform, DescribeItem::Usage)?))
    }

    /// DESCRIBE, work limits.
    pub fn work_limits<P: Platform>(&self, platform: &P) -> Result<WorkLimits, CallError> {
        Ok(WorkLimits::decode(
            self.describe(platform, DescribeItem::WorkLimits)?,
        ))
    }

    /// ATTACH; later calls name the epoch it returns.
    pub fn attach<P: Platform>(&mut self, platform: &P) -> Result<Attached, CallError> {
        let version = u64::from(protocol::PROTOCOL_VERSION);
        let attached = Attached::decode(self.call(platform, &Request::Attach { version })?)?;
        self.epoch = attached.epoch.number();
        Ok(attached)
    }

    /// LIST_GRANTED into a list at this address. INCOMPLETE is passed on: the list has a cursor.
    pub fn list_granted<P: Platform>(&self, platform: &P, list: u64) -> Result<(), CallError> {
        let request = Request::ListGranted {
            list: GuestPhysicalAddress::new(list),
            epoch: self.epoch,
        };
        self.call(platform, &request).map(|_| ())
    }

    /// ADOPT, one call.
    pub fn adopt<P: Platform>(&self, platform: &P, from: u32) -> Result<Adopted, CallError> {
        let epoch = self.epoch;
        let results = self.call(platform, &Request::Adopt { epoch, from })?;
        let adopted = Adopted::decode(results);
        // Work that is left over and none that was done would be repeated for ever.
        let stuck = adopted.bytes == 0 && adopted.left > 0;
        if stuck {
            Err(CallError::Malformed)
        } else {
            Ok(adopted)
        }
    }

    /// RELEASE_ORPHANS, one batch.
    pub fn release_orphans<P: Platform>(
        &self,
        platform: &P,
        from: u32,
    ) -> Result<OrphansReleased, CallError> {
        let epoch = self.epoch;
        let results = self.call(platform, &Request::ReleaseOrphans { epoch, from })?;
        let released = OrphansReleased::decode(results)?;
        let stuck = released.bytes == 0 && released.left > 0;
        if stuck {
            Err(CallError::Malformed)
        } else {
            Ok(released)
        }
    }

    /// DETACH.
    pub fn detach<P: Platform>(&self, platform: &P) -> Result<Detached, CallError> {
        let epoch = self.epoch;
        let results = self.call(platform, &Request::Detach { epoch })?;
        Ok(Detached::decode(results))
    }

    /// GROW.
    pub fn grow<P: Platform>(&self, platform: &P, wish: &Wish) -> Result<Granted, CallError> {
        let request = Request::Grow {
            window: self.window,
            contiguous: wish.contiguous,
            epoch: self.epoch,
            least: wish.least,
            most: wish.most,
        };
        Ok(Granted::decode(self.call(platform, &request)?)?)
    }

    /// RELEASE of a range of one grant.
    pub fn release<P: Platform>(
        &self,
        platform: &P,
        base: u64,
        bytes: u64,
        grant: u32,
    ) -> Result<Released, CallError> {
        let request = Request::Release {
            base: GuestPhysicalAddress::new(base),
            bytes,
            epoch: self.epoch,
            generation: grant,
        };
        Ok(Released::decode(self.call(platform, &request)?)?)
    }

    /// CONVERT of one batch of the list at `list`.
    pub fn convert<P: Platform>(&self, platform: &P, list: u64) -> Result<(), CallError> {
        let request = Request::Convert {
            list: GuestPhysicalAddress::new(list),
            epoch: self.epoch,
        };
        self.call(platform, &request).map(|_| ())
    }

    /// SET_LIMITS.
    pub fn set_cap<P: Platform>(&self, platform: &P, cap: u64) -> Result<LimitsSet, CallError> {
        let request = Request::SetLimits {
            window: self.window,
            epoch: self.epoch,
            cap,
        };
        Ok(LimitsSet::decode(self.call(platform, &request)?))
    }

    fn describe<P: Platform>(
        &self,
        platform: &P,
        item: DescribeItem,
    ) -> Result<ResultRegisters, CallError> {
        self.call(
            platform,
            &Request::Describe {
                window: self.window,
                item,
            },
        )
    }

    /// Issues a call, again while the service is busy. BUSY changes nothing, so the same registers are right again.
    fn call<P: Platform>(
        &self,
        platform: &P,
        request: &Request,
    ) -> Result<ResultRegisters, CallError> {
        let question = request.encode(self.protocol);
        let mut answer = Err(CallError::Refused(ResultCode::BUSY));
        for _ in 0..ATTEMPTS {
            let mut registers = question;
            if let Some(count) = self.issued.get(request.call().index()) {
                count.fetch_add(1, Ordering::Relaxed);
            }
            platform.call(&mut registers)?;
            answer = decode_answer(&registers).map_err(CallError::from);
            match answer {
                // INCOMPLETE is for the caller: its cursor lies in the list.
                Err(CallError::Refused(ResultCode::BUSY)) => spin_loop(),
                _ => break,
            }
        }
        answer
    }
}
