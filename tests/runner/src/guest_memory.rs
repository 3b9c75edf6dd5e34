// SPDX-License-Identifier: MIT OR Apache-2.0
//! Guest memory of a run: checked against the emulated machine, this computer and the image.

use std::ops::Range;

use igvm_builder::format_size;
use paravisor::boot_block::BootBlock;
use paravisor::layout::{
    IMAGE_BASE, LARGE_PAGE_BYTES, LINUX_PAGES, LINUX_PAGES_END, PAGE_BYTES, PAYLOAD_BASE,
};
use paravisor::placement::place;
use paravisor::range_list::PhysRange;
use paravisor::storage_needs::StorageNeeds;
use snp_host::memory_plan::{GuestMemory, MemoryPlan};

use crate::Failure;

/// Guest memory of `bytes`, and what the firmware of `block`, if it has one, needs beside it. Firmware is
/// told of the RAM below the paravisor, because it takes all RAM below 4 GiB for one piece.
#[must_use]
pub fn memory(bytes: u64, block: Option<&BootBlock>) -> GuestMemory {
    match block {
        Some(block) if block.is_firmware() => GuestMemory {
            ram: bytes,
            firmware: block.firmware().bytes().next_multiple_of(LARGE_PAGE_BYTES),
            firmware_ram: IMAGE_BASE,
        },
        _ => GuestMemory::new(bytes),
    }
}

/// What QEMU needs besides the machine's memory: itself and its translated code.
const QEMU_BYTES: u64 = 512 << 20;

/// Plans guest memory.
///
/// # Errors
/// Bad input when the emulated machine cannot have it or this computer cannot hold it (guest memory
/// exists twice, as a private and a shared view).
pub fn plan(memory: GuestMemory) -> Result<MemoryPlan, Failure> {
    let bytes = memory.ram;
    let plan = MemoryPlan::new(memory).ok_or_else(|| {
        Failure::bad_input(format!(
            "{} of guest memory is impossible; pass a multiple of 2MiB from {} to 256GiB",
            format_size(bytes),
            format_size(memory.firmware_ram.max(16 << 20))
        ))
    })?;
    let needed = plan.touched_bytes() + QEMU_BYTES;
    match available_memory() {
        Some(available) if needed > available => Err(Failure::bad_input(format!(
            "{} of guest memory needs {}MiB of this computer, {}MiB are free; pass a smaller --memory (make: MEM=)",
            format_size(bytes),
            needed >> 20,
            available >> 20
        ))),
        _ => Ok(plan),
    }
}

/// RAM as the guest is told, sorted. Like QEMU's own map it does not leave out video memory and BIOS:
/// a kernel looks for tables there, so the image accepts it, and keeps it from use.
#[must_use]
pub fn ram(plan: &MemoryPlan) -> Vec<Range<u64>> {
    let ranges = plan.layout().ranges().iter();
    ranges
        .filter(|range| !plan.is_firmware(range.base))
        .map(|range| range.base..range.base + range.bytes)
        .collect()
}

/// Finds the places of the paravisor's windows in `ram`, by its own rules, and checks that what the guest
/// needs to start fits beside them.
///
/// # Errors
/// Bad input with the reason with which the paravisor would end the boot.
pub fn windows(
    block: &BootBlock,
    ram: &[Range<u64>],
    vcpus: u32,
) -> Result<Vec<Range<u64>>, Failure> {
    let storage = storage(ram, block, vcpus);
    let ram = ranges(ram);
    let launch: Vec<_> = block
        .ranges_in_ram()
        .iter()
        .map(|one| PhysRange {
            start: one.gpa,
            end: one.gpa + one.bytes,
        })
        .collect();
    let memory: u64 = ram.clone().map(|one| one.bytes()).sum();
    let needs = block.payload_needs();
    let placed = place(ram.clone(), &launch, block.window_wish(), storage).and_then(|placement| {
        placement.check_payload(ram, &needs)?;
        let windows = [Some(placement.window()), placement.low_window()];
        let there = windows.into_iter().flatten();
        Ok(there.map(|one| one.start..one.end).collect())
    });
    placed.map_err(|reason| {
        Failure::bad_input(format!(
            "a window of {} and the guest do not fit into {}MiB of guest memory ({}); pass a larger --memory (make: MEM=) or a smaller window (make: WINDOW=, LOW_WINDOW=)",
            format_size(block.window_bytes + block.low_window_bytes),
            memory.next_multiple_of(1 << 20) >> 20,
            reason.text()
        ))
    })
}

/// Bytes of the storage of service and `vcpus`, which ends where the window begins.
#[must_use]
pub fn storage(ram: &[Range<u64>], block: &BootBlock, vcpus: u32) -> u64 {
    let needs = StorageNeeds::of(block, ranges(ram), vcpus);
    needs.bytes().next_multiple_of(LARGE_PAGE_BYTES)
}

fn ranges(ram: &[Range<u64>]) -> impl Iterator<Item = PhysRange> + Clone {
    ram.iter().map(|one| PhysRange {
        start: one.start,
        end: one.end,
    })
}

/// `ram` in `entries` pieces: between the pages of a kernel and the payload only every second page is RAM.
///
/// # Errors
/// Bad input when there is no room for so many, or for so few.
pub fn in_pieces(ram: &[Range<u64>], entries: usize) -> Result<Vec<Range<u64>>, Failure> {
    let more = entries.checked_sub(ram.len());
    let end = |pieces: usize| LINUX_PAGES_END + 2 * PAGE_BYTES * pieces as u64;
    let pieces = more.filter(|pieces| end(*pieces) <= PAYLOAD_BASE);
    let around = ram
        .iter()
        .find(|one| one.start <= LINUX_PAGES && one.end > PAYLOAD_BASE);
    let (Some(pieces), Some(around)) = (pieces, around) else {
        let most = ram.len() as u64 + (PAYLOAD_BASE - LINUX_PAGES_END) / (2 * PAGE_BYTES);
        return Err(Failure::bad_input(format!(
            "guest memory cannot be given in {entries} entries; pass --map-entries from {} to {most}, with more than 16MiB of memory",
            ram.len()
        )));
    };
    let mut list = Vec::with_capacity(entries);
    for one in ram {
        if one != around {
            list.push(one.clone());
            continue;
        }
        list.push(one.start..end(0));
        list.extend((1..=pieces).map(|piece| end(piece) - PAGE_BYTES..end(piece)));
        // The last piece is the first page of the rest.
        if let Some(last) = list.last_mut() {
            last.end = one.end;
        }
    }
    Ok(list)
}

/// What Linux says programs can still use, in bytes.
fn available_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes << 10)
}

#[cfg(test)]
mod tests {
    use paravisor::boot_block::{BootBlock, LaunchRange, PAYLOAD_FIRMWARE};
    use zerocopy::FromZeros;

    use super::{GuestMemory, IMAGE_BASE, Range, in_pieces, memory, plan, ram, windows};

    const MIB: u64 = 1 << 20;

    #[test]
    fn firmware_is_told_of_the_ram_below_the_paravisor() {
        let mut block = BootBlock::new_zeroed();
        assert_eq!(memory(MIB, None), GuestMemory::new(MIB));
        assert_eq!(memory(MIB, Some(&block)), GuestMemory::new(MIB));
        block.payload_kind = PAYLOAD_FIRMWARE;
        block.launch_range_count = 1;
        block.launch_ranges[0] = LaunchRange {
            gpa: 4093 * MIB,
            bytes: 3 * MIB,
            kind: 1,
            flags: 0,
        };
        let memory = memory(1024 * MIB, Some(&block));
        assert_eq!(
            (memory.firmware, memory.firmware_ram),
            (4 * MIB, IMAGE_BASE)
        );
        let plan = plan(memory).expect("a usual size");
        assert_eq!(
            ram(&plan).as_slice(),
            std::slice::from_ref(&(0..1024 * MIB))
        );
    }

    #[test]
    fn guest_ram_continues_at_four_gib() {
        let small = plan(GuestMemory::new(512 * MIB)).expect("a usual size");
        assert_eq!(
            ram(&small).as_slice(),
            std::slice::from_ref(&(0..512 * MIB))
        );
        let large = plan(GuestMemory::new(2048 * MIB)).expect("a usual size");
        let high = 4096 * MIB..(4096 + 128) * MIB;
        assert_eq!(ram(&large), [0..1920 * MIB, high]);
    }

    #[test]
    fn memory_in_pieces_has_so_many_entries_and_no_other_ram() {
        let whole = [0..1920 * MIB, 4096 * MIB..4224 * MIB];
        for entries in [2, 3, 512, 681] {
            let pieces = in_pieces(&whole, entries).expect("room");
            assert_eq!(pieces.len(), entries);
            assert_eq!((pieces[0].start, pieces[entries - 1].end), (0, 4224 * MIB));
            assert!(pieces.windows(2).all(|pair| pair[0].end < pair[1].start));
            let inside = |one: &Range<u64>| {
                whole
                    .iter()
                    .any(|ram| ram.start <= one.start && one.end <= ram.end)
            };
            assert!(pieces.iter().all(inside));
        }
        for (ram, entries) in [(&whole[..], 1), (&whole, 2000), (&whole[1..], 3)] {
            let message = in_pieces(ram, entries).unwrap_err().to_string();
            assert!(message.contains("pass --map-entries from"), "{message}");
        }
    }

    #[test]
    fn impossible_sizes_are_refused_in_one_line() {
        for bytes in [0, 512 * MIB + 4096, 1 << 20, 128 << 30] {
            let message = plan(GuestMemory::new(bytes)).unwrap_err().to_string();
            assert!(message.contains("; pass a "), "{message}");
            assert!(!message.contains('\n'));
        }
    }

    #[test]
    fn a_window_larger_than_the_memory_is_refused() {
        let mut block = BootBlock::new_zeroed();
        block.launch_ranges[0] = LaunchRange {
            gpa: 0x100_0000,
            bytes: 0x10_0000,
            kind: 1,
            flags: 0,
        };
        block.launch_range_count = 1;
        let ram = ram(&plan(GuestMemory::new(128 * MIB)).expect("a usual size"));
        for (mib, fits) in [
            (64, true),
            (108, true),
            (110, false),
            (128, false),
            (256, false),
        ] {
            block.window_bytes = mib * MIB;
            let top = 128 * MIB;
            let placed = windows(&block, &ram, 1).ok();
            let only = || top - mib * MIB..top;
            assert_eq!(placed, fits.then(|| vec![only()]), "{mib} MiB");
        }
        block.window_bytes = 64 * MIB;
        block.payload_entry = 0x100_0200;
        for (until, fits) in [(62, true), (63, false)] {
            block.payload_needs_until = until * MIB;
            assert_eq!(windows(&block, &ram, 1).is_ok(), fits, "{until} MiB");
        }
        // 2 MiB of storage lie between them.
        for (mib, fits) in [(20, true), (46, false)] {
            block.low_window_bytes = mib * MIB;
            block.payload_needs_until = 0;
            let placed = windows(&block, &ram, 1).ok();
            let two = vec![64 * MIB..128 * MIB, (62 - mib) * MIB..62 * MIB];
            assert_eq!(placed, fits.then_some(two), "{mib} MiB");
        }
    }
}
