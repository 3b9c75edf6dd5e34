// SPDX-License-Identifier: MIT OR Apache-2.0
//! I/O ports the guest uses.

/// Data register of the first serial port.
pub const SERIAL_DATA: u16 = 0x3f8;
/// PCI configuration address (PCI local bus specification, 3.2.2.3.2).
pub const PCI_ADDRESS: u16 = 0xcf8;
/// PCI configuration data.
pub const PCI_DATA: u16 = 0xcfc;
/// A 32-bit write of a number here makes the test host take a snapshot of its counters under that
/// number. Nothing answers there on a real machine.
pub const MARKER: u16 = 0x05a0;

/// A 32-bit write here names a page (its number in bits 23:0, that of a series of calls above) that a hostile test host may
/// attack in the next call. Nothing answers there on a real machine.
pub const ATTACK: u16 = 0x05a4;

/// A 32-bit write here says how many page-state changes of the next call a hostile test host answers in its manner.
/// Nothing answers there on a real machine.
pub const PSC: u16 = 0x05a8;

/// Marker before the second full read: the steady state begins.
pub const MARK_STEADY_BEGIN: u32 = 1;
/// Marker after the second full read.
pub const MARK_STEADY_END: u32 = 2;
/// Marker before the first conversion of the guest's own pages. Each way there and back has three: before, between and after
/// (the order is in machine/conversion.rs and tests/runner/src/own_conversions.rs).
pub const MARK_CONVERT_FIRST: u32 = 16;
/// Marker after the chunks were given back.
pub const MARK_GIVEN_BACK: u32 = 3;
