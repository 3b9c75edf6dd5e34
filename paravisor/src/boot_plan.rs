// SPDX-License-Identifier: MIT OR Apache-2.0
//! What boot has to do with which pages, computed before anything is done.

use crate::boot_block::{BootBlock, KIND_GUEST_PAYLOAD, MAX_LAUNCH_RANGES};
use crate::handover::{Handover, KIND_RESERVED, KIND_USABLE, MapEntry};
use crate::layout::{HANDOVER_BASE, HANDOVER_END, LINUX_PAGES, LINUX_PAGES_END};
use crate::memory_map::MemoryMap;
use crate::placement::{LEGACY_RANGE, OWN_REGION, Placement, place};
use crate::processor_memory::{ProcessorMemory, ProcessorNeeds};
use crate::range_list::{ListFull, PhysRange, RangeList};
use crate::termination::Reason;

/// The hand-over area.
pub const HANDOVER_AREA: PhysRange = PhysRange {
    start: HANDOVER_BASE,
    end: HANDOVER_END,
};

/// Zero page, command line, tables and start data of a Linux payload.
pub const LINUX_AREA: PhysRange = PhysRange {
    start: LINUX_PAGES,
    end: LINUX_PAGES_END,
};

/// The fate of every page of RAM.
#[derive(Debug, Clone, Copy)]
pub struct BootPlan {
    /// Window and storage.
    pub placement: Placement,
    /// The part of the storage that is the processors'.
    pub processors: ProcessorMemory,
    /// All RAM, firmware's image included, but the window: the pages that have a state byte and that VMPL0 maps.
    pub tracked: RangeList,
    /// RAM of the guest that was not launched: validated, zeroed and granted by us, or left
    /// unvalidated for the guest (`ram=firmware`).
    pub guest_ram: RangeList,
    /// Launched pages of the guest: valid already, so they are only granted.
    pub payload: RangeList,
    /// Launch pages of the paravisor: valid for ever.
    pub own_launch: RangeList,
}

impl BootPlan {
    /// Makes the plan. `boot_block` has been checked; `service_bytes` is what the service needs for
    /// this memory map, and `processors` are as many as the machine has.
    ///
    /// # Errors
    /// The reason with which the boot has to end.
    pub fn new(
        boot_block: &BootBlock,
        map: &MemoryMap,
        service_bytes: u64,
        processors: u32,
    ) -> Result<Self, Reason> {
        let mut launch_ranges = [PhysRange::default(); MAX_LAUNCH_RANGES];
        let mut own_launch = RangeList::new();
        let mut payload = RangeList::new();
        let full = |_: ListFull| Reason::LaunchRanges;
        for (slot, range) in launch_ranges.iter_mut().zip(boot_block.ranges()) {
            *slot = PhysRange::new(range.gpa, range.bytes).ok_or(Reason::LaunchRanges)?;
            let owner = match range.kind {
                KIND_GUEST_PAYLOAD => &mut payload,
                _ => &mut own_launch,
            };
            owner.push(*slot).map_err(full)?;
        }
        let used = launch_ranges
            .get(..boot_block.ranges().len())
            .unwrap_or(&[]);
        let firmware = boot_block.firmware();
        let in_ram = used.get(..boot_block.ranges_in_ram().len()).unwrap_or(&[]);
        let needs = ProcessorNeeds::new(processors, boot_block.restricted_injection());
        let storage_bytes = needs.storage_bytes(service_bytes);
        let placement = place(map.ram(), in_ram, boot_block.window_bytes, storage_bytes)?;
        let entry = PhysRange::new(boot_block.payload_entry, 1).ok_or(Reason::PayloadEntry)?;
        if !payload.contains(&entry) {
            return Err(Reason::PayloadEntry);
        }
        if boot_block.is_linux() && !payload.contains(&LINUX_AREA) {
            return Err(Reason::LinuxPages);
        }

        let full = |_: ListFull| Reason::MapTooLong;
        let mut ram = RangeList::new();
        let below = |entry: &&PhysRange| entry.start < firmware.start;
        let above = map.ram().iter().skip_while(below);
        let below = map.ram().iter().take_while(below);
        for entry in below.chain([&firmware]).chain(above) {
            if entry.overlaps(&firmware) && *entry != firmware {
                return Err(Reason::MapOverlap);
            }
            ram.push(*entry).map_err(full)?;
        }
        let tracked = ram.without(&placement.window).map_err(full)?;
        let mut guest_ram = tracked.without(&placement.storage).map_err(full)?;
        for hole in used.iter().chain([&OWN_REGION]) {
            guest_ram = guest_ram.without(hole).map_err(full)?;
        }
        Ok(Self {
            placement,
            processors: ProcessorMemory::new(needs, placement.storage),
            tracked,
            guest_ram,
            payload,
            own_launch,
        })
    }

    /// What is validated of the storage: all but the pages that are shared with the host, its last ones.
    #[must_use]
    pub fn private_storage(&self) -> PhysRange {
        PhysRange {
            start: self.placement.storage.start,
            end: self.processors.host_pages().start,
        }
    }

    /// Whether PVALIDATE(1) may ever be executed on `range`: it is RAM, no window page (W1), no page that
    /// the processors share with the host and no launch page of ours. The launch pages of the payload are the guest's like other RAM; the secure
    /// processor has validated them, so the page-state map begins with them Valid (P1).
    #[must_use]
    pub fn may_validate(&self, range: &PhysRange) -> bool {
        self.tracked.contains(range)
            && !self.placement.window.overlaps(range)
            && !self.processors.host_pages().overlaps(range)
            && !self.own_launch.overlaps(range)
    }

    /// Whether the payload finds the memory that it needs to start: all of it in one RAM entry and
    /// none of it ours.
    ///
    /// # Errors
    /// [`Reason::PayloadNoRoom`].
    pub fn check_payload(&self, boot_block: &BootBlock, map: &MemoryMap) -> Result<(), Reason> {
        self.placement
            .check_payload(map.ram(), &boot_block.payload_needs())
    }

    /// Writes the guest's memory map and the bounds of the payload.
    ///
    /// # Errors
    /// [`Reason::HandoverMap`] when the page has too few entries.
    pub fn describe(&self, ram: &[PhysRange], page: &mut Handover) -> Result<(), Reason> {
        let Placement { window, storage } = self.placement;
        let mut count = 0;
        let mut add = |range: PhysRange, kind| {
            if range.is_empty() {
                return Ok(());
            }
            let slot = page.map.get_mut(count).ok_or(Reason::HandoverMap)?;
            *slot = MapEntry {
                base: range.start,
                bytes: range.bytes(),
                kind,
                reserved: 0,
            };
            count += 1;
            Ok(())
        };
        // In the order of their addresses.
        for entry in ram {
            let mut start = entry.start;
            let legacy = PhysRange {
                start: LEGACY_RANGE.start.max(entry.start),
                end: LEGACY_RANGE.end.min(entry.end),
            };
            for hole in [legacy, OWN_REGION, storage, window] {
                if hole.start < hole.end && entry.contains(&hole) {
                    add(
                        PhysRange {
                            start,
                            end: hole.start,
                        },
                        KIND_USABLE,
                    )?;
                    add(hole, KIND_RESERVED)?;
                    start = hole.end;
                }
            }
            add(
                PhysRange {
                    start,
                    end: entry.end,
                },
                KIND_USABLE,
            )?;
        }
        page.map_count = u32::try_from(count).map_err(|_| Reason::HandoverMap)?;
        let payload = self.payload.as_slice();
        page.payload_start = payload.first().map_or(0, |range| range.start);
        page.payload_end = payload.last().map_or(0, |range| range.end);
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::{BootPlan, Handover, KIND_RESERVED, KIND_USABLE, PhysRange, Reason};
    use crate::boot_block::{
        BootBlock, KIND_GUEST_PAYLOAD, KIND_PARAVISOR, LaunchRange, MAGIC, PAYLOAD_FIRMWARE,
        PAYLOAD_LINUX, RAM_FIRMWARE, VERSION,
    };
    use crate::layout::{
        BOOT_BLOCK, BOOT_CALLING_AREA, CPUID_COPY, FIRMWARE_END, IMAGE_LOAD, LINUX_PAGES,
        LINUX_PAGES_END, PAYLOAD_BASE, RESET_VECTOR, SECRETS_COPY,
    };
    use crate::memory_map::{MemoryMap, tests::page};
    use zerocopy::FromZeros;

    /// A boot block for an image of 256 KiB, a payload of 1 MiB and a window of 64 MiB.
    pub(crate) fn boot_block() -> BootBlock {
        let mut block = BootBlock::new_zeroed();
        block.magic = MAGIC;
        block.version = VERSION;
        block.protocol_number = 0x4000_0001;
        block.sev_features = 0b10_1001;
        block.flags = 1;
        block.window_bytes = 64 << 20;
        block.hard_cap = 64 << 20;
        block.payload_entry = PAYLOAD_BASE;
        block.secrets_page = SECRETS_COPY;
        block.cpuid_page = CPUID_COPY;
        block.calling_area = BOOT_CALLING_AREA;
        block.launch_range_count = 3;
        let range = |gpa, bytes, kind| LaunchRange {
            gpa,
            bytes,
            kind,
            flags: 0,
        };
        block.launch_ranges[0] = range(BOOT_BLOCK, 0x6000, KIND_PARAVISOR);
        block.launch_ranges[1] = range(IMAGE_LOAD, 0x4_0000, KIND_PARAVISOR);
        block.launch_ranges[2] = range(PAYLOAD_BASE, 1 << 20, KIND_GUEST_PAYLOAD);
        block
    }

    /// The same with a Linux kernel that needs 64 MiB.
    pub(crate) fn linux_boot_block() -> BootBlock {
        let mut block = boot_block();
        block.payload_kind = PAYLOAD_LINUX;
        block.boot_params = LINUX_PAGES;
        block.payload_entry = PAYLOAD_BASE + 0x200;
        block.payload_needs_until = PAYLOAD_BASE + (64 << 20);
        block.launch_range_count = 4;
        block.launch_ranges[3] = block.launch_ranges[2];
        block.launch_ranges[2] = LaunchRange {
            gpa: LINUX_PAGES,
            bytes: LINUX_PAGES_END - LINUX_PAGES,
            kind: KIND_GUEST_PAYLOAD,
            flags: 0,
        };
        block
    }

    /// The same with firmware of 4 MiB that has 128 KiB of RAM launched.
    pub(crate) fn firmware_boot_block() -> BootBlock {
        let mut block = boot_block();
        block.payload_kind = PAYLOAD_FIRMWARE;
        block.ram_mode = RAM_FIRMWARE;
        block.payload_entry = RESET_VECTOR;
        block.secrets_page = 0x101_d000;
        block.cpuid_page = 0x101_e000;
        block.calling_area = 0x101_f000;
        block.launch_ranges[2].bytes = 0x2_0000;
        block.launch_range_count = 4;
        block.launch_ranges[3] = LaunchRange {
            gpa: FIRMWARE_END - (4 << 20),
            bytes: 4 << 20,
            kind: KIND_GUEST_PAYLOAD,
            flags: 0,
        };
        block
    }

    /// 512 MiB of low RAM and 2 GiB above 4 GiB.
    pub(crate) fn map() -> MemoryMap {
        let entries = [(0, 0xa0, 0), (0x100, 0x1_ff00, 0), (1 << 20, 0x8_0000, 0)];
        MemoryMap::parse(&page(&entries), 1 << 51).unwrap()
    }

    const fn range(start: u64, end: u64) -> PhysRange {
        PhysRange { start, end }
    }

    #[test]
    fn every_page_has_one_fate() {
        let block = boot_block();
        block.check().unwrap();
        let plan = BootPlan::new(&block, &map(), 1 << 20, 1).unwrap();
        let window = range(0x1_7c00_0000, 0x1_8000_0000);
        assert_eq!(plan.placement.window, window);
        assert_eq!(plan.placement.storage, range(0x1_7be0_0000, 0x1_7c00_0000));
        let want = [
            range(0, 0xa_0000),
            range(0x10_0000, 0x40_0000),
            range(0x90_0000, 0x100_0000),
            range(0x110_0000, 0x2000_0000),
            range(0x1_0000_0000, 0x1_7be0_0000),
        ];
        assert_eq!(plan.guest_ram.as_slice(), want);
        assert_eq!(plan.payload.as_slice(), [range(0x100_0000, 0x110_0000)]);
        assert!(!plan.tracked.overlaps(&window));
    }

    #[test]
    fn window_own_and_unknown_pages_may_not_be_validated() {
        let plan = BootPlan::new(&boot_block(), &map(), 1 << 20, 1).unwrap();
        let may = |start, end| plan.may_validate(&range(start, end));
        assert!(may(0x20_0000, 0x40_0000));
        assert!(may(0x80_0000, 0x90_0000));
        assert!(!may(0x1_7c00_0000, 0x1_7c00_1000), "window");
        assert!(!may(0x1_7bff_f000, 0x1_7c00_1000), "into the window");
        assert!(!may(0x40_0000, 0x40_1000), "boot block");
        assert!(!may(0x3f_f000, 0x40_1000), "into the boot block");
        assert!(!may(IMAGE_LOAD, IMAGE_LOAD + 0x1000), "image");
        assert!(may(0x100_0000, 0x120_0000), "payload");
        assert!(!may(0x8000_0000, 0x8000_1000), "no RAM");
        assert!(!may(0x1f_ff00_0000, 0x1f_ff00_1000), "beyond RAM");
    }

    #[test]
    fn firmware_is_tracked_although_no_map_calls_it_ram() {
        let block = firmware_boot_block();
        let plan = BootPlan::new(&block, &map(), 1 << 20, 1).unwrap();
        let image = range(0xffc0_0000, 0x1_0000_0000);
        assert!(plan.tracked.contains(&image) && plan.payload.contains(&image));
        assert!(!plan.guest_ram.overlaps(&image));
        assert!(
            plan.guest_ram
                .overlaps(&range(0x1_0000_0000, 0x1_0000_1000))
        );
        // A map that calls part of it RAM would give one page two meanings.
        let entries = [(0x100, 0x1_ff00, 0), (0xf_ffff, 1, 0)];
        let over = MemoryMap::parse(&page(&entries), 1 << 51).unwrap();
        let refused = BootPlan::new(&block, &over, 1 << 20, 1);
        assert_eq!(refused.unwrap_err(), Reason::MapOverlap);
    }

    #[test]
    fn an_entry_point_outside_the_payload_is_refused() {
        let mut block = boot_block();
        block.payload_entry = IMAGE_LOAD;
        assert_eq!(
            BootPlan::new(&block, &map(), 1, 1).unwrap_err(),
            Reason::PayloadEntry
        );
    }

    #[test]
    fn video_memory_and_bios_are_accepted_but_not_usable() {
        let pages = page(&[(0, 0xc0, 0), (0xf8, 0x1_ff08, 0)]);
        let map = MemoryMap::parse(&pages, 1 << 51).unwrap();
        let plan = BootPlan::new(&boot_block(), &map, 1 << 20, 1).unwrap();
        assert_eq!(plan.guest_ram.as_slice()[0], range(0, 0xc_0000));
        let mut page = Handover::new();
        plan.describe(map.ram(), &mut page).unwrap();
        let entries = page.entries().iter();
        let first: Vec<_> = entries
            .map(|e| (e.base, e.base + e.bytes, e.kind))
            .collect();
        let want = [
            (0, 0xa_0000, KIND_USABLE),
            (0xa_0000, 0xc_0000, KIND_RESERVED),
            (0xf_8000, 0x10_0000, KIND_RESERVED),
            (0x10_0000, 0x40_0000, KIND_USABLE),
        ];
        assert_eq!(first[..4], want);
    }

    #[test]
    fn a_kernel_needs_its_pages_and_its_memory() {
        let (mut block, map) = (linux_boot_block(), map());
        block.check().unwrap();
        let plan = BootPlan::new(&block, &map, 1, 1).unwrap();
        assert_eq!(plan.check_payload(&block, &map), Ok(()));
        block.payload_needs_until = 0x2000_1000;
        let refused = plan.check_payload(&block, &map);
        assert_eq!(refused, Err(Reason::PayloadNoRoom));
        block.launch_ranges[2].bytes -= 0x1000;
        let refused = BootPlan::new(&block, &map, 1, 1).unwrap_err();
        assert_eq!(refused, Reason::LinuxPages);
    }

    #[test]
    fn the_guest_map_is_sorted_and_hides_what_is_ours() {
        let map = map();
        let plan = BootPlan::new(&boot_block(), &map, 1 << 20, 1).unwrap();
        let mut page = Handover::new();
        plan.describe(map.ram(), &mut page).unwrap();
        let entries: Vec<_> = page
            .entries()
            .iter()
            .map(|e| (e.base, e.base + e.bytes, e.kind))
            .collect();
        let want = [
            (0, 0xa_0000, KIND_USABLE),
            (0x10_0000, 0x40_0000, KIND_USABLE),
            (0x40_0000, 0x90_0000, KIND_RESERVED),
            (0x90_0000, 0x2000_0000, KIND_USABLE),
            (0x1_0000_0000, 0x1_7be0_0000, KIND_USABLE),
            (0x1_7be0_0000, 0x1_7c00_0000, KIND_RESERVED),
            (0x1_7c00_0000, 0x1_8000_0000, KIND_RESERVED),
        ];
        assert_eq!(entries, want);
        assert_eq!(
            (page.payload_start, page.payload_end),
            (0x100_0000, 0x110_0000)
        );
    }
}
