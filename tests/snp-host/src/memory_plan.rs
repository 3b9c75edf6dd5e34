// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which host physical address holds what.
//!
//! Every guest page exists twice: as the *shared* view, at the host address equal to its guest
//! address, which is where QEMU's devices read and write, and as the *private* view elsewhere. A
//! forgotten conversion therefore never shows the other view's bytes.
//!
//! ```text
//! 0            HOST_BASE    LAUNCH_BASE        2 GiB   4 GiB
//! | shared view | this host | launch image | ... |     | shared view of high RAM | private view | RMP, views, nested tables |
//! ```
//!
//! QEMU's q35 machine puts RAM at [0, 2 GiB) and from 4 GiB on when it has at least 2.75 GiB.

use snp::address::{GuestPhysicalAddress, LARGE_PAGE_SIZE, PAGE_SIZE};
use snp_model::layout::{Layout, Range};

/// Where this host is linked; guest RAM below 4 GiB ends here at the latest.
pub const HOST_BASE: u64 = 0x7800_0000;
/// Where QEMU places the launch image (`launch`), or the address of one that is too large for this place.
pub const LAUNCH_BASE: u64 = 0x7A00_0000;
/// Room for it here; the firmware's tables lie above.
pub const LAUNCH_BYTES: u64 = 64 << 20;
/// Start of the RAM that does not fit below [`HOST_BASE`].
pub const HIGH_BASE: u64 = 4 << 30;
/// Device memory below 4 GiB: what the q35 machine leaves free of RAM.
pub const DEVICE_BASE: u64 = 2 << 30;
/// Position of the C-bit in a guest page-table entry and in a guest physical address.
pub const C_BIT: u32 = 51;

/// Smallest machine on which QEMU splits its RAM at 2 GiB.
const SMALLEST_MACHINE: u64 = 3 << 30;
/// Smallest and largest guest; the nested tables cover 512 GiB.
const GUEST_BYTES: core::ops::RangeInclusive<u64> = (16 << 20)..=(256 << 30);
/// Last-level nested tables: one set for the shared view, one for each VMPL.
const TABLE_SETS: u64 = 5;

/// Largest firmware image.
const FIRMWARE_BYTES: u64 = 16 << 20;

/// What memory a guest has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GuestMemory {
    /// RAM, a multiple of 2 MiB between 16 MiB and 256 GiB.
    pub ram: u64,
    /// Private memory that ends at 4 GiB, for firmware's image: a multiple of 2 MiB up to 16 MiB, or 0.
    pub firmware: u64,
    /// RAM from address 0 on that firmware is told of, a multiple of 2 MiB; 0 without firmware.
    pub firmware_ram: u64,
}

impl GuestMemory {
    /// Memory of a guest without firmware.
    #[must_use]
    pub const fn new(ram: u64) -> Self {
        Self {
            ram,
            firmware: 0,
            firmware_ram: 0,
        }
    }
}

/// Host addresses of one guest of a given size.
#[derive(Clone, Copy, Debug)]
pub struct MemoryPlan {
    layout: Layout,
    low_bytes: u64,
    high_bytes: u64,
    firmware_bytes: u64,
}

impl MemoryPlan {
    /// Plans a guest; `None` when it is too small, too large, or its memory is no multiple of 2 MiB.
    #[must_use]
    pub fn new(memory: GuestMemory) -> Option<Self> {
        let GuestMemory {
            ram,
            firmware,
            firmware_ram,
        } = memory;
        let low_bytes = ram.min(HOST_BASE);
        if !GUEST_BYTES.contains(&ram) || firmware > FIRMWARE_BYTES || firmware_ram > low_bytes {
            return None;
        }
        let high_bytes = ram - low_bytes;
        let mut ranges = [Range::default(); 3];
        let mut used = 0;
        for (base, bytes) in [
            (0, low_bytes),
            (HIGH_BASE - firmware, firmware),
            (HIGH_BASE, high_bytes),
        ] {
            if bytes != 0 {
                *ranges.get_mut(used)? = Range { base, bytes };
                used += 1;
            }
        }
        let layout = Layout::new(ranges.get(..used)?)?;
        Some(Self {
            layout,
            low_bytes,
            high_bytes,
            firmware_bytes: firmware,
        })
    }

    /// Whether `gpa` is in firmware's image. What devices reach there is no RAM.
    #[must_use]
    pub const fn is_firmware(&self, gpa: u64) -> bool {
        gpa >= HIGH_BASE - self.firmware_bytes && gpa < HIGH_BASE
    }

    /// The guest's memory: RAM, which the VMM reports in the memory map, and firmware's image, which it does
    /// not; and how pages are numbered.
    #[must_use]
    pub const fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Number of the RAM page at `gpa` (without C-bit); `None` outside RAM.
    #[must_use]
    pub fn page_index(&self, gpa: u64) -> Option<usize> {
        self.layout.index_of(GuestPhysicalAddress::new(gpa))
    }

    /// Guest address, and so host address of the shared view, of page `index`.
    #[must_use]
    pub fn shared_page(&self, index: usize) -> u64 {
        self.layout
            .gpa_of(index)
            .map_or(0, GuestPhysicalAddress::bits)
    }

    /// Host address of the private view of page `index`.
    ///
    /// The private view of a large page is large-page aligned: the view's base and the RAM below
    /// 4 GiB are multiples of 2 MiB.
    #[must_use]
    pub const fn private_page(&self, index: usize) -> u64 {
        HIGH_BASE + self.high_bytes + index as u64 * PAGE_SIZE
    }

    /// First host address behind the private view: free for the host's own tables.
    #[must_use]
    pub const fn tables_base(&self) -> u64 {
        HIGH_BASE + self.high_bytes + self.low_bytes + self.firmware_bytes + self.high_bytes
    }

    /// Bytes of the host's tables: per page 8 for the RMP, 1 for the view's state, 8 for what it held and one
    /// nested leaf in each set; directories and roots stay below 8 bytes per 4 pages plus 1 MiB.
    #[must_use]
    pub const fn tables_bytes(&self) -> u64 {
        let pages = (self.low_bytes + self.firmware_bytes + self.high_bytes) / PAGE_SIZE;
        (pages * (8 + 1 + 8 + TABLE_SETS * 8 + 2) + (1 << 20)).next_multiple_of(LARGE_PAGE_SIZE)
    }

    /// End of QEMU's RAM above 4 GiB, but for a large launch image.
    #[must_use]
    pub const fn machine_end(&self) -> u64 {
        self.machine_bytes(0) - DEVICE_BASE + HIGH_BASE
    }

    /// Where a launch image of so many bytes lies: behind the tables if it is a large one.
    #[must_use]
    pub const fn launch_base(&self, image_bytes: u64) -> u64 {
        if image_bytes <= LAUNCH_BYTES {
            LAUNCH_BASE
        } else {
            self.tables_base() + self.tables_bytes()
        }
    }

    /// `-m` in bytes for QEMU: RAM below 4 GiB is 2 GiB, the rest holds views and tables, and a large launch image.
    #[must_use]
    pub const fn machine_bytes(&self, image_bytes: u64) -> u64 {
        let image_bytes = if image_bytes <= LAUNCH_BYTES {
            0
        } else {
            image_bytes.next_multiple_of(LARGE_PAGE_SIZE)
        };
        let own = (self.tables_base() - HIGH_BASE) + self.tables_bytes();
        let bytes = DEVICE_BASE + own + image_bytes;
        if bytes < SMALLEST_MACHINE {
            SMALLEST_MACHINE
        } else {
            bytes
        }
    }

    /// What of it is ever touched: both views, the tables and the launch image. The rest of a small machine is there only
    /// for QEMU's map.
    #[must_use]
    pub const fn touched_bytes(&self) -> u64 {
        let view = self.low_bytes + self.firmware_bytes + self.high_bytes;
        2 * view + self.tables_bytes() + LAUNCH_BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(ram: u64) -> Option<MemoryPlan> {
        MemoryPlan::new(GuestMemory::new(ram))
    }

    #[test]
    fn firmware_lies_between_the_two_parts_of_ram() {
        let memory = GuestMemory {
            ram: 3 << 30,
            firmware: 4 << 20,
            firmware_ram: 1 << 30,
        };
        let plan = MemoryPlan::new(memory).unwrap();
        let low_pages = usize::try_from(HOST_BASE / PAGE_SIZE).unwrap();
        assert_eq!(plan.page_index(HIGH_BASE - (4 << 20)), Some(low_pages));
        assert_eq!(plan.page_index(HIGH_BASE), Some(low_pages + 1024));
        assert_eq!(plan.private_page(plan.layout().pages()), plan.tables_base());
        assert!(plan.is_firmware(HIGH_BASE - 1) && !plan.is_firmware(HIGH_BASE));
        assert!(!plan.is_firmware(HIGH_BASE - (4 << 20) - 1));
        for (firmware, firmware_ram) in [(18 << 20, 0), (1 << 20, 0), (4 << 20, HOST_BASE + 1)] {
            let wrong = GuestMemory {
                firmware,
                firmware_ram,
                ..memory
            };
            assert!(MemoryPlan::new(wrong).is_none());
        }
    }

    #[test]
    fn pages_above_four_gib_follow_the_low_ones() {
        let plan = planned(3 << 30).unwrap();
        let low_pages = usize::try_from(HOST_BASE / PAGE_SIZE).unwrap();
        assert_eq!(plan.page_index(HOST_BASE - PAGE_SIZE), Some(low_pages - 1));
        assert_eq!(plan.page_index(HOST_BASE), None);
        assert_eq!(plan.page_index(HIGH_BASE), Some(low_pages));
        assert_eq!(plan.shared_page(low_pages), HIGH_BASE);
        assert_eq!(plan.page_index(HIGH_BASE + (3 << 30) - HOST_BASE), None);
    }

    #[test]
    fn views_and_tables_do_not_overlap_and_fit() {
        for bytes in [
            512 << 20,
            1 << 30,
            HOST_BASE,
            HOST_BASE + LARGE_PAGE_SIZE,
            8 << 30,
        ] {
            let plan = planned(bytes).unwrap();
            let shared_end = plan
                .layout()
                .ranges()
                .last()
                .map_or(0, |range| range.base + range.bytes);
            assert!(plan.private_page(0) >= shared_end.max(HIGH_BASE));
            assert_eq!(plan.private_page(0) % LARGE_PAGE_SIZE, 0);
            assert_eq!(plan.private_page(plan.layout().pages()), plan.tables_base());
            assert_eq!(plan.launch_base(LAUNCH_BYTES), LAUNCH_BASE);
            for image in [0, LAUNCH_BYTES, LAUNCH_BYTES + 1, 600 << 20] {
                let end = HIGH_BASE + plan.machine_bytes(image) - DEVICE_BASE;
                assert!(plan.tables_base() + plan.tables_bytes() <= end);
                assert!(plan.launch_base(image) + image <= end);
                assert!(plan.machine_bytes(image) >= SMALLEST_MACHINE);
            }
            assert!(plan.touched_bytes() > 2 * plan.layout().pages() as u64 * PAGE_SIZE);
            assert!(plan.touched_bytes() < plan.machine_bytes(0) + HOST_BASE);
        }
    }

    #[test]
    fn odd_sizes_are_refused() {
        assert!(planned((1 << 30) + PAGE_SIZE).is_none());
        assert!(planned(0).is_none());
        assert!(planned(1 << 40).is_none());
    }
}
