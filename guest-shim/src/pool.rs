// SPDX-License-Identifier: MIT OR Apache-2.0
//! The pool object: what the DMA operations, the supply of chunks and maintenance share.

use core::fmt;
use core::ptr::NonNull;

use crate::allocator::{Central, Placement, Room, Shared, Taken};
use crate::attach::{Attachment, Config};
use crate::client::Client;
use crate::error::MapError;
use crate::geometry::{CHUNK_BYTES, Window, to_index};
use crate::growth::Growth;
use crate::lock::InterruptLock;
use crate::platform::Platform;
use crate::shared_memory::WindowView;
use crate::statistics::Counters;

/// What the lock protects.
#[derive(Debug)]
pub(crate) struct State<'a> {
    pub central: Central<'a>,
    pub growth: Growth,
    pub counters: Counters,
}

impl State<'_> {
    /// Takes room back.
    pub fn put(&mut self, shared: &Shared<'_>, taken: &Taken) {
        match *taken {
            Taken::Slot(_, slot) => self.central.put_slot(slot),
            Taken::Extent(extent) => self.central.put_extent(extent),
        }
        shared.note_return();
        self.note_blocks(shared);
        if let Taken::Slot(class, _) = taken {
            shared.note_supply(Some(*class));
        }
    }

    /// Records for small slots may have come back.
    pub fn note_blocks(&self, shared: &Shared<'_>) {
        if !self.central.is_out_of_blocks() {
            shared.note_supply(None);
        }
    }

    /// Takes what a request needs, if there is room for it.
    pub fn take(&mut self, placement: &Placement) -> Option<Taken> {
        let taken = match placement.room {
            Room::Slot(_) => match self.central.take_slot(placement) {
                Some((class, slot)) => Taken::Slot(class, slot),
                // Slots of whole pages lie at multiples of a page; without need there may still be room elsewhere.
                None => Taken::Extent(self.central.take_any_units(placement)?),
            },
            Room::Extent { .. } => Taken::Extent(self.central.take_extent(placement, 0)?),
        };
        self.counters.served();
        Some(taken)
    }
}

/// An attachment to the service and the memory it has granted.
///
/// All operations take `&self` and may be called from any context but an NMI handler, see the crate documentation.
pub struct Pool<'a, P: Platform> {
    pub(crate) platform: P,
    pub(crate) client: Client,
    pub(crate) window: Window,
    pub(crate) view: WindowView,
    pub(crate) config: Config,
    pub(crate) attachment: Attachment,
    pub(crate) shared: Shared<'a>,
    pub(crate) state: InterruptLock<State<'a>>,
}

impl<'a, P: Platform> Pool<'a, P> {
    /// The range of addresses that the pool can ever use.
    pub const fn window(&self) -> Window {
        self.window
    }

    /// What the kernel lent the pool at attach.
    pub const fn platform(&self) -> &P {
        &self.platform
    }

    /// What the service said at attach.
    pub const fn attachment(&self) -> Attachment {
        self.attachment
    }

    /// Sets the cap on granted bytes, a multiple of [`CHUNK_BYTES`], and returns the previous one. A cap below what is
    /// granted stops growth and takes nothing away.
    ///
    /// # Errors
    /// [`MapError::InvalidRequest`] for a cap that is no multiple, [`MapError::TooLarge`] above the window or the
    /// service's hard cap, or what kept the call from being answered.
    pub fn set_cap(&self, bytes: u64) -> Result<u64, MapError> {
        if !bytes.is_multiple_of(CHUNK_BYTES) {
            return Err(MapError::InvalidRequest);
        }
        let set = self
            .client
            .set_cap(&self.platform, bytes)
            .map_err(|error| match error {
                crate::client::CallError::Refused(
                    snp::svsm::ResultCode::INVALID_PARAMETER | protocol::result::TOO_LARGE,
                ) => MapError::TooLarge,
                other => other.into(),
            })?;
        self.with_state(|state| {
            state.counters.cap = bytes;
            state.growth.allow_attempt();
        });
        Ok(set.previous_cap)
    }

    #[inline]
    pub(crate) fn with_state<R>(&self, body: impl FnOnce(&mut State<'a>) -> R) -> R {
        self.state.with(&self.platform, body)
    }

    /// Remembers why a request failed.
    #[cold]
    pub(crate) fn note_failure(&self, cause: MapError) -> MapError {
        self.with_state(|state| state.counters.failed(cause));
        cause
    }

    /// The pointer to pool memory the allocator has handed out. An address outside the window, which no caller passes,
    /// gives the window's first byte.
    #[inline]
    pub(crate) fn pointer(&self, address: u64) -> NonNull<u8> {
        let offset = to_index(self.window.offset_of(address).unwrap_or(0));
        // SAFETY: `offset_of` returns offsets inside the window only.
        unsafe { self.view.at(offset) }
    }
}

impl<P: Platform> fmt::Debug for Pool<'_, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("window", &self.window)
            .field("attachment", &self.attachment)
            .finish_non_exhaustive()
    }
}
