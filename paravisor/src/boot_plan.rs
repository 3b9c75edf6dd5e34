// SPDX-License-Identifier: MIT OR Apache-2.0
//! What boot has to do with which pages, computed before anything is done.

use crate::boot_block::{BootBlock, KIND_GUEST_PAYLOAD, MAX_LAUNCH_RANGES};
use crate::handover::{KIND_RESERVED, KIND_USABLE, MapEntry};
use crate::layout::{HANDOVER_BASE, HANDOVER_END, LINUX_PAGES, LINUX_PAGES_END};
use crate::memory_map::MemoryMap;
use crate::placement::{LEGACY_RANGE, OWN_REGION, Placement, place};
use crate::processor_memory::ProcessorMemory;
use crate::range_list::{ListFull, PhysRange, RangeList, compiled_once, joined};
use crate::storage_needs::StorageNeeds;
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
pub struct BootPlan<'a> {
    map: MemoryMap<'a>,
    /// The firmware's image, which no map calls RAM; empty without firmware.
    firmware: PhysRange,
    /// Windows and storage.
    pub placement: Placement,
    /// The part of the storage that holds the list of the tracked ranges.
    pub ram_list: PhysRange,
    /// The part of the storage that is the processors'.
    pub processors: ProcessorMemory,
    /// What is not the guest's of the tracked RAM, or launched; the rest are empty ranges.
    taken: [PhysRange; MAX_LAUNCH_RANGES + 2],
    /// Launched pages of the guest: valid already, so they are only granted.
    pub payload: RangeList,
    /// Launch pages of the paravisor: valid for ever.
    pub own_launch: RangeList,
}

impl<'a> BootPlan<'a> {
    /// Makes the plan. `boot_block` has been checked; `needs` is what this machine needs.
    ///
    /// # Errors
    /// The reason with which the boot has to end.
    pub fn new(
        boot_block: &BootBlock,
        map: MemoryMap<'a>,
        needs: StorageNeeds,
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
        let firmware = boot_block.firmware();
        if map.ram().any(|entry| entry.overlaps(&firmware)) {
            return Err(Reason::MapOverlap);
        }
        let in_ram = boot_block.ranges_in_ram().len();
        let in_ram = launch_ranges.get(..in_ram).unwrap_or(&[]);
        let placement = place(map.ram(), in_ram, boot_block.window_wish(), needs.bytes())?;
        let entry = PhysRange::new(boot_block.payload_entry, 1).ok_or(Reason::PayloadEntry)?;
        if !payload.contains(&entry) {
            return Err(Reason::PayloadEntry);
        }
        if boot_block.is_linux() && !payload.contains(&LINUX_AREA) {
            return Err(Reason::LinuxPages);
        }

        let mut taken = [OWN_REGION; MAX_LAUNCH_RANGES + 2];
        let others = (launch_ranges.into_iter()).chain([placement.storage]);
        for (slot, range) in taken.iter_mut().zip(others) {
            *slot = range;
        }
        let (ram_list, processors) = needs.place(placement.storage);
        Ok(Self {
            map,
            firmware,
            placement,
            ram_list,
            processors,
            taken,
            payload,
            own_launch,
        })
    }

    /// RAM as the memory map says, by address.
    pub fn ram(&self) -> impl Iterator<Item = PhysRange> + Clone + use<'a> {
        self.map.ram()
    }

    /// All RAM, firmware's image included, but the windows: the pages that have a state byte and that VMPL0 maps.
    pub fn tracked(&self) -> impl Iterator<Item = PhysRange> + Clone + use<'_, 'a> {
        let windows = &self.placement.windows;
        with_firmware(self.ram(), self.firmware).flat_map(|range| range.without(windows))
    }

    /// RAM of the guest that was not launched: validated, zeroed and granted by us, or left
    /// unvalidated for the guest (`ram=firmware`).
    pub fn guest_ram(&self) -> impl Iterator<Item = PhysRange> + Clone + use<'_, 'a> {
        compiled_once(self.tracked().flat_map(|range| range.without(&self.taken)))
    }

    /// Whether all of `range` is tracked.
    #[must_use]
    pub fn is_tracked(&self, range: &PhysRange) -> bool {
        (self.map.is_ram(range) || self.firmware.contains(range))
            && !(self.placement.windows.iter()).any(|window| window.overlaps(range))
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
        self.is_tracked(range)
            && !self.processors.host_pages().overlaps(range)
            && !self.own_launch.overlaps(range)
    }

    /// Whether the payload finds the memory that it needs to start: all of it in one range of RAM and
    /// none of it ours.
    ///
    /// # Errors
    /// [`Reason::PayloadNoRoom`].
    pub fn check_payload(&self, boot_block: &BootBlock) -> Result<(), Reason> {
        self.placement
            .check_payload(self.ram(), &boot_block.payload_needs())
    }

    /// Passes every entry of the guest's memory map to `put` with its number, by address, and returns how many
    /// there are.
    ///
    /// # Errors
    /// What `put` returns.
    pub fn describe(
        &self,
        mut put: impl FnMut(u64, MapEntry) -> Result<(), Reason>,
    ) -> Result<u64, Reason> {
        let Placement {
            windows: [window, low],
            storage,
        } = self.placement;
        let mut count = 0;
        let mut add = |range: PhysRange, kind| {
            if range.is_empty() {
                return Ok(());
            }
            let entry = MapEntry {
                base: range.start,
                bytes: range.bytes(),
                kind,
                reserved: 0,
            };
            put(count, entry)?;
            count += 1;
            Ok(())
        };
        // In the order of their addresses.
        for entry in self.ram() {
            let mut start = entry.start;
            let legacy = PhysRange {
                start: LEGACY_RANGE.start.max(entry.start),
                end: LEGACY_RANGE.end.min(entry.end),
            };
            let holes = [legacy, OWN_REGION, storage, window, low];
            let next = |start| {
                let ahead = |hole: &&PhysRange| {
                    hole.start >= start && hole.start < hole.end && entry.contains(hole)
                };
                let holes = holes.iter().filter(ahead);
                holes.min_by_key(|hole| hole.start)
            };
            while let Some(hole) = next(start) {
                add(
                    PhysRange {
                        start,
                        end: hole.start,
                    },
                    KIND_USABLE,
                )?;
                add(*hole, KIND_RESERVED)?;
                start = hole.end;
            }
            add(
                PhysRange {
                    start,
                    end: entry.end,
                },
                KIND_USABLE,
            )?;
        }
        Ok(count)
    }
}

/// RAM with the firmware's image, which lies apart from it, at its place.
pub(crate) fn with_firmware(
    ram: impl Iterator<Item = PhysRange> + Clone,
    firmware: PhysRange,
) -> impl Iterator<Item = PhysRange> + Clone {
    let below = (ram.clone()).filter(move |range| range.start < firmware.start);
    let above = ram.filter(move |range| range.start >= firmware.start);
    joined(below.chain([firmware]).chain(above))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::{BootPlan, KIND_RESERVED, KIND_USABLE, PhysRange, Reason, StorageNeeds};
    use crate::boot_block::{
        BootBlock, FLAG_WINDOW_LOW, KIND_GUEST_PAYLOAD, KIND_PARAVISOR, LaunchRange, MAGIC,
        PAYLOAD_FIRMWARE, PAYLOAD_LINUX, RAM_FIRMWARE, VERSION,
    };
    use crate::layout::{
        BOOT_BLOCK, BOOT_CALLING_AREA, CPUID_COPY, FIRMWARE_END, IMAGE_LOAD, LINUX_PAGES,
        LINUX_PAGES_END, PAYLOAD_BASE, RESET_VECTOR, SECRETS_COPY,
    };
    use crate::memory_map::{MemoryMap, tests::map_of};
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
    pub(crate) fn map() -> MemoryMap<'static> {
        map_of(&[(0, 0xa0, 0), (0x100, 0x1_ff00, 0), (1 << 20, 0x8_0000, 0)])
    }

    /// The plan for a block, a map and so many processors.
    pub(crate) fn plan_for<'a>(
        block: &BootBlock,
        map: MemoryMap<'a>,
        processors: u32,
    ) -> Result<BootPlan<'a>, Reason> {
        BootPlan::new(block, map, StorageNeeds::of(block, map.ram(), processors))
    }

    /// The plan of a usual machine.
    pub(crate) fn plan(processors: u32) -> BootPlan<'static> {
        plan_for(&boot_block(), map(), processors).unwrap()
    }

    /// Start, end and kind of each entry of the guest's map.
    fn described(plan: &BootPlan<'_>) -> Vec<(u64, u64, u32)> {
        let mut list = Vec::new();
        let count = plan.describe(|number, entry| {
            assert_eq!(number, list.len() as u64);
            list.push((entry.base, entry.base + entry.bytes, entry.kind));
            Ok(())
        });
        assert_eq!(count, Ok(list.len() as u64));
        list
    }

    const fn range(start: u64, end: u64) -> PhysRange {
        PhysRange { start, end }
    }

    #[test]
    fn every_page_has_one_fate() {
        let block = boot_block();
        block.check().unwrap();
        let plan = plan_for(&block, map(), 1).unwrap();
        let window = range(0x1_7c00_0000, 0x1_8000_0000);
        assert_eq!(plan.placement.window(), window);
        assert_eq!(plan.placement.storage, range(0x1_7be0_0000, 0x1_7c00_0000));
        let want = [
            range(0, 0xa_0000),
            range(0x10_0000, 0x40_0000),
            range(0x90_0000, 0x100_0000),
            range(0x110_0000, 0x2000_0000),
            range(0x1_0000_0000, 0x1_7be0_0000),
        ];
        assert_eq!(plan.guest_ram().collect::<Vec<_>>(), want);
        assert_eq!(plan.payload.as_slice(), [range(0x100_0000, 0x110_0000)]);
        assert!(!plan.tracked().any(|range| range.overlaps(&window)));
    }

    #[test]
    fn a_low_window_is_below_4_gib_although_there_is_more_room_above() {
        let mut block = boot_block();
        block.flags |= FLAG_WINDOW_LOW;
        block.check().unwrap();
        let plan = plan_for(&block, map(), 1).unwrap();
        assert_eq!(plan.placement.window(), range(0x1c00_0000, 0x2000_0000));
        assert!(
            plan.guest_ram()
                .any(|ram| ram == range(1 << 32, 0x1_8000_0000))
        );
    }

    #[test]
    fn w1_both_windows_are_hidden_and_may_not_be_validated() {
        let mut block = boot_block();
        block.low_window_bytes = 32 << 20;
        block.check().unwrap();
        let plan = plan_for(&block, map(), 1).unwrap();
        let low = range(0x1e00_0000, 0x2000_0000);
        assert_eq!(plan.placement.low_window(), Some(low));
        for window in plan.placement.windows {
            assert!(!plan.tracked().any(|ram| ram.overlaps(&window)));
            let first = range(window.start, window.start + 0x1000);
            assert!(!plan.is_tracked(&first) && !plan.may_validate(&first));
            let across = range(window.start - 0x1000, window.start + 0x1000);
            assert!(!plan.may_validate(&across));
        }
        let want = [
            (0x90_0000, 0x1e00_0000, KIND_USABLE),
            (0x1e00_0000, 0x2000_0000, KIND_RESERVED),
            (0x1_0000_0000, 0x1_7be0_0000, KIND_USABLE),
            (0x1_7be0_0000, 0x1_7c00_0000, KIND_RESERVED),
            (0x1_7c00_0000, 0x1_8000_0000, KIND_RESERVED),
        ];
        assert_eq!(described(&plan)[3..], want);

        // The other order: the low window lies under storage and window.
        let below = map_of(&[(0, 0xa0, 0), (0x100, 0x1_ff00, 0)]);
        let plan = plan_for(&block, below, 1).unwrap();
        let want = [
            (0x90_0000, 0x19e0_0000, KIND_USABLE),
            (0x19e0_0000, 0x1be0_0000, KIND_RESERVED),
            (0x1be0_0000, 0x1c00_0000, KIND_RESERVED),
            (0x1c00_0000, 0x2000_0000, KIND_RESERVED),
        ];
        assert_eq!(described(&plan)[3..], want);
    }

    #[test]
    fn window_own_and_unknown_pages_may_not_be_validated() {
        let plan = plan(1);
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
        let plan = plan_for(&block, map(), 1).unwrap();
        let image = range(0xffc0_0000, 0x1_0000_0000);
        assert!(plan.is_tracked(&image) && plan.payload.contains(&image));
        assert!(!plan.guest_ram().any(|ram| ram.overlaps(&image)));
        assert!(
            plan.guest_ram()
                .any(|ram| ram.overlaps(&range(0x1_0000_0000, 0x1_0000_1000)))
        );
        // A map that calls part of it RAM would give one page two meanings.
        let entries = [(0x100, 0x1_ff00, 0), (0xf_ffff, 1, 0)];
        let over = map_of(&entries);
        let refused = plan_for(&block, over, 1);
        assert_eq!(refused.unwrap_err(), Reason::MapOverlap);
    }

    #[test]
    fn a_tebibyte_and_a_window_of_64_gib_are_planned_to_the_byte() {
        const GIB: u64 = 1 << 30;
        let mut block = boot_block();
        (block.window_bytes, block.hard_cap) = (64 * GIB, 64 * GIB);
        block.check().unwrap();
        // 2 GiB below 4 GiB, 1022 GiB above.
        let end = (4 + 1022) * GIB;
        let map = map_of(&[(0, 0xa0, 0), (0x100, 0x7_ff00, 0), (1 << 20, 1022 << 18, 0)]);
        for processors in [1, 512] {
            let plan = plan_for(&block, map, processors).unwrap();
            let (window, storage) = (plan.placement.window(), plan.placement.storage);
            assert_eq!(window, range(end - 64 * GIB, end));
            // A byte for each page of what is not the window, a word for each of its chunks.
            let states = (1024 - 64) * GIB / 4096;
            let records = 8 * (64 * GIB / (2 << 20));
            assert!(plan.ram_list.start - storage.start >= states + records);
            assert!(plan.ram_list.start - storage.start < states + records + (17 << 20));
            assert!(storage.end == window.start && storage.bytes() < 350 << 20);
            let host_pages = u64::from(processors - 1) * 2 * 4096;
            assert_eq!(plan.processors.host_pages().bytes(), host_pages);
            let tracked: u64 = plan.tracked().map(|range| range.bytes()).sum();
            assert_eq!(tracked, 960 * GIB - 0x6_0000);
            let mut ranges: Vec<_> = crate::page_account::tracked_ram(&plan).collect();
            let pages = svsm_swiotlb::page_state::RamRanges::new(&mut ranges)
                .unwrap()
                .pages();
            assert_eq!(pages, tracked / 4096);
            let last = range(storage.start - 4096, storage.start);
            assert!(plan.may_validate(&last) && !plan.may_validate(&window));
        }
    }

    #[test]
    fn an_entry_point_outside_the_payload_is_refused() {
        let mut block = boot_block();
        block.payload_entry = IMAGE_LOAD;
        assert_eq!(
            plan_for(&block, map(), 1).unwrap_err(),
            Reason::PayloadEntry
        );
    }

    #[test]
    fn video_memory_and_bios_are_accepted_but_not_usable() {
        let map = map_of(&[(0, 0xc0, 0), (0xf8, 0x1_ff08, 0)]);
        let plan = plan_for(&boot_block(), map, 1).unwrap();
        assert_eq!(plan.guest_ram().next(), Some(range(0, 0xc_0000)));
        let first = described(&plan);
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
        let plan = plan_for(&block, map, 1).unwrap();
        assert_eq!(plan.check_payload(&block), Ok(()));
        block.payload_needs_until = 0x2000_1000;
        let refused = plan.check_payload(&block);
        assert_eq!(refused, Err(Reason::PayloadNoRoom));
        block.launch_ranges[2].bytes -= 0x1000;
        let refused = plan_for(&block, map, 1).unwrap_err();
        assert_eq!(refused, Reason::LinuxPages);
    }

    #[test]
    fn the_guest_map_is_sorted_and_hides_what_is_ours() {
        let entries = described(&plan(1));
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
    }
}
