// SPDX-License-Identifier: MIT OR Apache-2.0
//! The service as docs/PROTOCOL.md describes it, written a second time: sequential, with collections, as plainly as the
//! text, and sharing no code with the service but the names of result codes.
//!
//! ```text
//!   guest registers -> Service -> platform calls -> Recorder -> LightHost or snp_model's Machine
//!                         |                            |
//!                      answer                      transcript
//!                         +-------> Model::step <------+      a Violation, or the model's next state
//! ```
//!
//! The protocol leaves choices to the service (where a grant lies) and to the host (how it replies). The model does not
//! predict them, it reads them from the transcript of the call's platform calls and judges: was this choice allowed, and
//! is the answer the one that follows from it? Everything else is predicted exactly: answer, chunk states, page states
//! and all counters.
//!
//! * [`transcript`]: the platform calls of a call, recorded; faults and other processors' doings in between
//! * [`asked`]: chapters 4 and 5, the arguments by themselves
//! * [`host`]: chapter 9, what a host's replies mean
//! * [`state`], `calls`, `events`: chapters 3, 5 and 12
//! * [`world`]: a service and a model side by side, and the invariants of both
//! * [`guest`]: registers of calls
//! * [`light_host`]: a platform without hardware rules, for millions of calls
//! * [`drive`]: sequences of calls and hostile hosts from bytes, for fuzzing

#![forbid(unsafe_code)]

pub mod asked;
mod calls;
pub mod drive;
mod events;
pub mod guest;
pub mod host;
pub mod light_host;
pub mod state;
pub mod transcript;
mod watched;
pub mod world;

pub use state::{Chunk, Model, SecondWindow, Shape, Tried};
pub use transcript::{Event, Executed, Recorder};
pub use world::{World, with_world};

/// What the service did against the specification, with the clause.
pub type Violation = String;

/// A [`Violation`] unless the condition holds.
macro_rules! require {
    ($condition:expr, $($text:tt)+) => {
        if !$condition {
            return Err(format!($($text)+));
        }
    };
}
pub(crate) use require;
