// SPDX-License-Identifier: MIT OR Apache-2.0
//! Both windows of one attachment: each mapping lies where its device reaches it, and ends there.

use core::ptr::NonNull;

use guest_shim::{Constraints, CopyIn, Direction, UnmapError, Windows};
use protocol::Request;
use protocol::request::DescribeItem;
use protocol::response::{Usage, decode_answer};
use snp::svsm::ResultCode;

use crate::machine::calling::{FIRST_POOL, Kernel, POOL, Svsm};
use crate::machine::ghcb::console_line;
use crate::machine::memory::Buffers;

/// Bytes of a mapping: no slot holds them.
const BYTES: usize = 20_000;
/// The last address of 32 bits.
const LAST_32_BIT: u64 = 0xffff_ffff;

type Outcome<T> = Result<T, &'static str>;

/// Maps and unmaps in both windows; nothing is left mapped, and both pools keep what they hold.
pub fn run(svsm: &Svsm, protocol: u32, buffers: Buffers) -> Outcome<()> {
    let first = FIRST_POOL.get().ok_or("there is no first pool")?;
    let second = POOL.get().ok_or("there is no second pool")?;
    let windows = Windows::new(first, Some(second));
    let low_end = second.window().base() + second.window().bytes();
    if low_end > LAST_32_BIT + 1 {
        return Err("the second window is not below 4 GiB");
    }
    // On a machine with no RAM above 4 GiB a device with 32 bits reaches both.
    let narrow = if first.window().base() > LAST_32_BIT {
        LAST_32_BIT
    } else {
        low_end - 1
    };
    // SAFETY: No request is in flight yet, and the result goes with this function.
    let buffer = unsafe { buffers.slot(0, BYTES) };
    let reached = round_trip(windows, buffer, narrow)?;
    if !second.contains(reached) || reached + BYTES as u64 - 1 > narrow {
        return Err("a narrow device's mapping is not in the second window");
    }
    let anywhere = round_trip(windows, buffer, u64::MAX)?;
    if !first.contains(anywhere) {
        return Err("a mapping without constraints is not in the first window");
    }
    for address in [low_end, first.window().base() - 1] {
        let unmapped = windows.unmap_address(address, 1, Direction::ToDevice);
        if unmapped != Err(UnmapError::UnknownAddress) {
            return Err("an address between the windows is a mapping");
        }
    }
    let usage = |window| usage(svsm, protocol, window);
    let granted = [first, second].map(|pool| pool.statistics().granted_bytes);
    let [of_first, of_second] = [usage(0)?, usage(1)?];
    if [of_first, of_second] != granted || granted.contains(&0) {
        return Err("service and pools disagree about what is granted");
    }
    if usage(2).is_ok() {
        return Err("there is a third window");
    }
    console_line(format_args!(
        "guest: windows {:#x} and {:#x}, mapped at {anywhere:#x} and, below {narrow:#x}, at {reached:#x}",
        first.window().base(),
        second.window().base(),
    ));
    Ok(())
}

/// Maps the buffer for a device that reaches so far, and looks whether its bytes come back. Returns where it was.
fn round_trip(
    windows: Windows<'_, 'static, Kernel>,
    buffer: &mut [u8],
    highest_address: u64,
) -> Outcome<u64> {
    let constraints = Constraints {
        highest_address,
        ..Constraints::NONE
    };
    let byte = |index: usize| (index % 251).to_le_bytes()[0] ^ highest_address.to_le_bytes()[4];
    for (index, place) in buffer.iter_mut().enumerate() {
        *place = byte(index);
    }
    // SAFETY: The buffer is a slot's, so it stays; nobody touches it while the shim does.
    let mapped = unsafe {
        windows.map(
            NonNull::from(&mut *buffer),
            Direction::Bidirectional,
            CopyIn::Keep,
            &constraints,
        )
    };
    let mapping = mapped.map_err(|_| "a mapping failed")?;
    buffer.fill(0);
    let length = BYTES as u64;
    windows
        .sync_address_for_cpu(mapping.address(), length)
        .map_err(|_| "a sync failed")?;
    windows
        .unmap_address(mapping.address(), length, Direction::Bidirectional)
        .map_err(|_| "an unmap failed")?;
    let mut bytes = buffer.iter().enumerate();
    if bytes.all(|(index, found)| *found == byte(index)) {
        Ok(mapping.address())
    } else {
        Err("a mapping came back with other bytes")
    }
}

/// Bytes granted of a window, as the service says.
fn usage(svsm: &Svsm, protocol: u32, window: u8) -> Outcome<u64> {
    let request = Request::Describe {
        window,
        item: DescribeItem::Usage,
    };
    let answer = svsm
        .call(request.encode(protocol))
        .ok_or("DESCRIBE was not run")?;
    match decode_answer(&answer) {
        Ok(results) => Ok(Usage::decode(results).granted),
        Err(refusal) if refusal.code == ResultCode::INVALID_PARAMETER => Err("no such window"),
        Err(_) => Err("DESCRIBE was refused"),
    }
}
