// SPDX-License-Identifier: MIT OR Apache-2.0
//! Attacks on what runs at VMPL0: by the host (rows A to N of the hostile-host catalogue and the hooks of an emulated
//! machine), by the guest's other processors at every platform call, and by a platform call that goes wrong.
//!
//! Service and core protocol run unmodified on the model machine. What they answer is compared with the documented code;
//! after each call the page words are compared with the reverse map, and the host's view is searched for private bytes.
//!
//! * `hostile_machine`, `wrong`: the model machine with a host that acts at any time, and all the ways in which a platform
//!   call can go wrong
//! * `order`: what that machine knows of the order in which pages change hands
//! * `platform`, `core_world`: service and core protocol over it
//! * `judged`, `conversions`: the service alone over it, beside the reference model
//! * `faults`, `guest_attacks`, `host_personas`: the attacks

mod conversions;
mod core_world;
mod faults;
mod guest_attacks;
mod host_personas;
mod hostile_machine;
mod judged;
mod order;
mod platform;
mod wrong;
