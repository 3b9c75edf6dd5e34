// SPDX-License-Identifier: MIT OR Apache-2.0
//! Every platform call of every scenario goes wrong once, in every way in which it can.
//!
//! * `scenarios`: what a guest does
//! * `service`: the service's calls, judged by the reference model, the reverse map and the lists that they leave
//! * `manners`: the pool's calls under every kind of host
//! * `core_protocol`: the core protocol's calls; each answer is the documented one
//! * `host_acts`: a host that acts before each platform call, and instructions that surprise

mod core_protocol;
mod host_acts;
mod manners;
mod scenarios;
mod service;
