// SPDX-License-Identifier: MIT OR Apache-2.0
//! Finding the service, checking that it is the one we speak to, and becoming the holder of its grants.

use core::fmt;
use core::mem::MaybeUninit;

use protocol::identity::{Features, Identity, SharedAddressing};
use snp::svsm::ResultCode;

use crate::allocator::{Central, Metadata, Shared};
use crate::client::{CallError, Client};
use crate::geometry::{CHUNK_BYTES, Window};
use crate::growth::Growth;
use crate::lock::InterruptLock;
use crate::platform::Platform;
use crate::pool::{Pool, State};
use crate::shared_memory::WindowView;
use crate::statistics::Counters;

/// The window that every service has.
const FIRST_WINDOW: u8 = 0;

/// What the kernel chooses at attach; sizes in bytes, rounded up to whole chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Number of the protocol.
    pub protocol: u32,
    /// CPUs that use the pool, at least 1: each gets a cache of its own in the metadata.
    pub cpus: usize,
    /// Granted at attach, so that the first mappings find memory.
    pub initial_bytes: u64,
    /// Never given back by [`Pool::maintain`].
    pub minimum_bytes: u64,
    /// The most one growth asks for beyond what the mapping at hand needs: bounds the time of one call.
    pub growth_limit_bytes: u64,
    /// Cap on what the service grants, at most its hard cap; `None` leaves the cap that an earlier kernel set, or the hard
    /// cap.
    pub cap_bytes: Option<u64>,
    /// [`Pool::maintain`] grows the pool until this much of it is free: memory ahead of need, outside the paths that cannot
    /// wait. 0: the pool grows when a mapping needs it.
    pub low_watermark_bytes: u64,
    /// [`Pool::maintain`] gives back whatever is free beyond this, even what the load of the recent past needed. Not below
    /// the low watermark; [`u64::MAX`]: the recent past alone decides.
    pub high_watermark_bytes: u64,
    /// Asks the core protocol first whether the paravisor offers ours, as it does by default. A kernel whose way to call
    /// carries this protocol only says `false`; the UUID that IDENTIFY answers is the proof then, as it is in any case.
    pub query_protocol: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            protocol: protocol::DEFAULT_PROTOCOL_NUMBER,
            cpus: 1,
            initial_bytes: CHUNK_BYTES,
            minimum_bytes: CHUNK_BYTES,
            growth_limit_bytes: 32 << 20,
            cap_bytes: None,
            low_watermark_bytes: 0,
            high_watermark_bytes: u64::MAX,
            query_protocol: true,
        }
    }
}

/// What the service said at attach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// Number of this attachment.
    pub epoch: u32,
    /// Nobody had attached before.
    pub fresh: bool,
    /// Bytes an earlier kernel still holds; its devices may still write to them.
    pub orphaned_bytes: u64,
    /// How shared memory is mapped.
    pub addressing: SharedAddressing,
    /// What the service offers beyond version 1's base.
    pub features: Features,
    /// Cap on granted bytes.
    pub cap_bytes: u64,
}

/// Why there is no pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttachError {
    /// The paravisor does not know the protocol number.
    NoService,
    /// The number stands for something else, or for versions this shim does not speak.
    AnotherProtocol,
    /// A window this shim cannot use: another chunk size, or larger than [`MAX_WINDOW_BYTES`](crate::MAX_WINDOW_BYTES).
    UnusableWindow,
    /// The kernel has not mapped the window.
    NotMapped,
    /// The record storage does not cover one chunk.
    NoRecords,
    /// The service refused.
    Refused(ResultCode),
    /// The call did not reach the service.
    NotRun,
    /// The answer broke the protocol.
    Malformed,
}

impl fmt::Display for AttachError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoService => f.write_str("no service at this protocol number"),
            Self::AnotherProtocol => f.write_str("another protocol, or another version of ours"),
            Self::UnusableWindow => f.write_str("a window this shim cannot use"),
            Self::NotMapped => f.write_str("the window is not mapped"),
            Self::NoRecords => f.write_str("the record storage does not cover one chunk"),
            Self::Refused(code) => write!(f, "the service answered {code}"),
            Self::NotRun => f.write_str("the call did not reach the service"),
            Self::Malformed => f.write_str("the service's answer broke the protocol"),
        }
    }
}

impl core::error::Error for AttachError {}

impl From<CallError> for AttachError {
    fn from(error: CallError) -> Self {
        match error {
            CallError::NotRun => Self::NotRun,
            CallError::Malformed => Self::Malformed,
            CallError::Refused(code) => Self::Refused(code),
        }
    }
}

impl<'a, P: Platform> Pool<'a, P> {
    /// Finds the service, checks its identity, learns the window and attaches.
    ///
    /// `metadata` is private memory that the pool keeps its books in; its contents do not matter. It covers the window
    /// from its start; what it does not cover is never used. [`metadata_bytes`](crate::metadata_bytes) says how much
    /// covers all of it.
    /// Everything that can be checked is checked before ATTACH, which ends the attachment of an earlier kernel.
    /// A cap beyond the hard cap is [`AttachError::Refused`] with INVALID_PARAMETER; the attachment is ended again then.
    /// A first growth that is refused is no error here: [`Pool::pressure`] tells, and later mappings ask again.
    ///
    /// # Errors
    /// See [`AttachError`].
    pub fn attach(
        platform: P,
        metadata: &'a mut [u8],
        config: Config,
    ) -> Result<Self, AttachError> {
        let mut place = MaybeUninit::uninit();
        Self::attach_in(&mut place, platform, metadata, config)?;
        // SAFETY: Attached, so the pool is there.
        Ok(unsafe { place.assume_init() })
    }

    /// The same where the pool will stay, for kernels whose stack has no room for one. After an error nothing is there.
    ///
    /// # Errors
    /// See [`AttachError`].
    pub fn attach_in<'p>(
        place: &'p mut MaybeUninit<Self>,
        platform: P,
        metadata: &'a mut [u8],
        config: Config,
    ) -> Result<&'p mut Self, AttachError> {
        let found = find(&platform, metadata, &config)?;
        let pool = place.write(found.pool(platform, config));
        pool.grow_initially();
        Ok(pool)
    }

    /// Another window of the service: `None` where it has none of this index. An integrator may place a second one, index 1.
    ///
    /// # Errors
    /// [`AttachError`]: a window that cannot be used, or what kept the call from being answered.
    pub fn window_beside(&self, window: u8) -> Result<Option<Window>, AttachError> {
        match window_of(&self.client.beside(window), &self.platform) {
            Err(AttachError::Refused(ResultCode::INVALID_PARAMETER)) => Ok(None),
            found => found.map(Some),
        }
    }

    /// A pool of another window of the same attachment ([`Pool::window_beside`]), where it will stay.
    ///
    /// The protocol number is that of this pool, whatever `config` says, and the service is not looked for again. The rest of
    /// `config`, the cap included, is about the other window. The attachment is one: [`Pool::detach`] of either pool ends both.
    /// [`Windows`](crate::Windows) chooses between them. After an error nothing is there, and this pool is as it was.
    ///
    /// # Errors
    /// See [`AttachError`]; [`AttachError::Refused`] with INVALID_PARAMETER where there is no such window, or a cap beyond its hard
    /// cap.
    pub fn attach_beside<'p>(
        &self,
        place: &'p mut MaybeUninit<Self>,
        window: u8,
        platform: P,
        metadata: &'a mut [u8],
        config: Config,
    ) -> Result<&'p mut Self, AttachError> {
        let client = self.client.beside(window);
        let room = room_of(&client, &platform, metadata, config.cpus)?;
        if room.window.overlaps(&self.window) {
            return Err(AttachError::UnusableWindow);
        }
        if let Some(cap) = config.cap_bytes {
            client.set_cap(&platform, whole_chunks(cap))?;
        }
        let attachment = Attachment {
            cap_bytes: client.usage(&platform)?.cap,
            ..self.attachment
        };
        let found = Found {
            client,
            room,
            attachment,
        };
        let pool = place.write(found.pool(platform, config));
        pool.grow_initially();
        Ok(pool)
    }
}

/// A window and what a pool of it needs.
struct RoomFor<'a> {
    window: Window,
    view: WindowView,
    metadata: Metadata<'a>,
    /// The most that one call grants.
    service_limit: u64,
}

/// Checks the window that `client` is about, and takes it and the metadata.
fn room_of<'a, P: Platform>(
    client: &Client,
    platform: &P,
    metadata: &'a mut [u8],
    cpus: usize,
) -> Result<RoomFor<'a>, AttachError> {
    let window = window_of(client, platform)?;
    let limits = client.work_limits(platform)?;
    if limits.grow_bytes < CHUNK_BYTES {
        return Err(AttachError::Malformed);
    }
    let base = platform
        .translate(window.base(), window.bytes())
        .ok_or(AttachError::NotMapped)?;
    let metadata =
        Metadata::carve(metadata, window.chunks(), cpus).ok_or(AttachError::NoRecords)?;
    Ok(RoomFor {
        window,
        // SAFETY: `base` is the platform's translation of all of the window.
        view: unsafe { WindowView::new(base) },
        metadata,
        service_limit: limits.grow_bytes - limits.grow_bytes % CHUNK_BYTES,
    })
}

/// The cap rounded up; the largest there is where that is no number.
fn whole_chunks(cap: u64) -> u64 {
    cap.checked_next_multiple_of(CHUNK_BYTES)
        .unwrap_or(!(CHUNK_BYTES - 1))
}

/// What attach has learned and taken.
struct Found<'a> {
    client: Client,
    room: RoomFor<'a>,
    attachment: Attachment,
}

/// Everything up to the grant of the first chunk: checks the service, takes the window and the metadata, attaches.
fn find<'a, P: Platform>(
    platform: &P,
    metadata: &'a mut [u8],
    config: &Config,
) -> Result<Found<'a>, AttachError> {
    let mut client = Client::new(config.protocol, FIRST_WINDOW);
    let identity = identify(&client, platform, config.query_protocol)?;
    let room = room_of(&client, platform, metadata, config.cpus)?;
    let attached = client.attach(platform)?;
    if let Some(cap) = config.cap_bytes
        && let Err(error) = client.set_cap(platform, whole_chunks(cap))
    {
        // Nobody uses this attachment. If it cannot be ended, the next one ends it.
        let _ = client.detach(platform);
        return Err(error.into());
    }
    let usage = client.usage(platform)?;
    Ok(Found {
        client,
        room,
        attachment: Attachment {
            epoch: attached.epoch.number(),
            fresh: attached.fresh,
            orphaned_bytes: attached.orphaned_bytes,
            addressing: identity.addressing,
            features: identity.features,
            cap_bytes: usage.cap,
        },
    })
}

fn window_of<P: Platform>(client: &Client, platform: &P) -> Result<Window, AttachError> {
    let geometry = client.geometry(platform)?;
    if 1_u64.checked_shl(geometry.attributes.log2_chunk().into()) != Some(CHUNK_BYTES) {
        return Err(AttachError::UnusableWindow);
    }
    Window::new(geometry.base.bits(), geometry.bytes).ok_or(AttachError::UnusableWindow)
}

/// The window of the service that a later [`Pool::attach`] with this configuration finds: a kernel learns from it how much
/// metadata it needs. Nothing is attached.
///
/// # Errors
/// [`AttachError`]: no service, another one, or a window that cannot be used.
pub fn find_window<P: Platform>(platform: &P, config: &Config) -> Result<Window, AttachError> {
    let client = Client::new(config.protocol, FIRST_WINDOW);
    identify(&client, platform, config.query_protocol)?;
    window_of(&client, platform)
}

impl<'a> Found<'a> {
    /// The pool over it, which holds nothing yet.
    #[inline]
    fn pool<P: Platform>(self, platform: P, config: Config) -> Pool<'a, P> {
        let RoomFor {
            window,
            view,
            metadata,
            service_limit,
        } = self.room;
        let growth_limit = config
            .growth_limit_bytes
            .min(window.bytes())
            .max(CHUNK_BYTES)
            .next_multiple_of(CHUNK_BYTES);
        Pool {
            platform,
            client: self.client,
            window,
            view,
            config,
            attachment: self.attachment,
            shared: Shared::new(&metadata),
            state: InterruptLock::new(State {
                central: Central::new(metadata),
                growth: Growth::new(growth_limit, service_limit),
                counters: Counters::new(self.attachment.cap_bytes),
            }),
        }
    }
}

/// A number is never trusted alone: another paravisor may use it for something else.
fn identify<P: Platform>(
    client: &Client,
    platform: &P,
    query_protocol: bool,
) -> Result<Identity, AttachError> {
    if query_protocol && !client.is_offered(platform)? {
        return Err(AttachError::NoService);
    }
    let identity = match client.identify(platform) {
        // What the core protocol would have said.
        Err(CallError::Refused(ResultCode::UNSUPPORTED_PROTOCOL)) => {
            return Err(AttachError::NoService);
        }
        answer => answer?,
    };
    if identity.speaks_this_version() {
        Ok(identity)
    } else {
        Err(AttachError::AnotherProtocol)
    }
}
