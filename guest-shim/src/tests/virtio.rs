// SPDX-License-Identifier: MIT OR Apache-2.0
//! The `Hal` over a pool: what drivers of `virtio_drivers` rely on.

use core::ptr::NonNull;
use std::boxed::Box;
use std::panic::catch_unwind;
use std::string::ToString;
use std::sync::OnceLock;

use virtio_drivers::{BufferDirection, Hal};

use super::buffer::{Buffer, pattern};
use super::machine::{Machine, map};
use crate::virtio::{GlobalPool, Stop, VirtioHal};
use crate::{Config, Direction, Pool, Reservation};

/// A kernel with one pool of 4 MiB, and a reservation for buffers up to 4096 bytes.
struct Kernel;

static MACHINE: OnceLock<Machine> = OnceLock::new();
static POOL: OnceLock<Pool<'static, &'static Machine>> = OnceLock::new();
static RESERVATION: OnceLock<Reservation> = OnceLock::new();

fn machine() -> &'static Machine {
    MACHINE.get_or_init(|| Machine::new(2))
}

// SAFETY: One pool for ever; no device registers.
unsafe impl GlobalPool for Kernel {
    type Platform = &'static Machine;

    fn pool() -> &'static Pool<'static, &'static Machine> {
        POOL.get_or_init(|| machine().pool(Config::default()))
    }

    fn reservation(length: usize) -> Option<&'static Reservation> {
        (length <= 4096)
            .then(|| RESERVATION.get_or_init(|| Self::pool().reserve(4, 4096, 1).unwrap()))
    }

    fn mmio(address: u64, _bytes: usize) -> Option<NonNull<u8>> {
        (address == 0x1000).then(NonNull::dangling)
    }

    fn stop(reason: Stop) -> ! {
        std::panic::panic_any(reason)
    }
}

type KernelHal = VirtioHal<Kernel>;

fn stopped(action: impl FnOnce() + std::panic::UnwindSafe) -> Stop {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let outcome = catch_unwind(action);
    std::panic::set_hook(hook);
    *outcome.unwrap_err().downcast::<Stop>().unwrap()
}

/// One test, because the pool is global.
#[test]
fn the_hal_shares_unshares_and_stops_where_it_cannot() {
    for (direction, seen_after) in [
        (BufferDirection::DriverToDevice, 1),
        (BufferDirection::DeviceToDriver, 2),
        (BufferDirection::Both, 2),
    ] {
        for length in [16, 512, 4096, 131_072] {
            let buffer = Buffer::filled(length, 1);
            // SAFETY: The buffer lives for ever and nobody else uses it.
            let address = unsafe { KernelHal::share(buffer.raw(), direction) };
            assert_eq!(machine().device_read(address, length), pattern(length, 1));
            machine().device_write(address, &pattern(length, 2));
            // SAFETY: As shared.
            unsafe { KernelHal::unshare(address, buffer.raw(), direction) };
            assert_eq!(
                buffer.read(),
                pattern(length, seen_after),
                "{direction:?} {length}"
            );
        }
    }

    let (address, pointer) = KernelHal::dma_alloc(3, BufferDirection::Both);
    assert_eq!((address % 4096, pointer.addr().get() % 4096), (0, 0));
    assert!(
        machine()
            .device_read(address, 3 * 4096)
            .iter()
            .all(|&byte| byte == 0)
    );
    // SAFETY: As allocated; the second time is the mistake that is tested.
    unsafe {
        assert_eq!(KernelHal::dma_dealloc(address, pointer, 2), -1);
        assert_eq!(KernelHal::dma_dealloc(address, pointer, 3), 0);
        assert_eq!(KernelHal::dma_dealloc(address, pointer, 3), -1);
    }
    assert_eq!(KernelHal::dma_alloc(5000, BufferDirection::Both).0, 0);

    assert_eq!(mmio(0x1000), NonNull::dangling());
    assert_eq!(stopped(|| _ = mmio(0x2000)), Stop::Mmio);

    let ballast: std::vec::Vec<_> =
        core::iter::from_fn(|| map(Kernel::pool(), &Buffer::new(2048), Direction::ToDevice).ok())
            .collect();
    let small = Buffer::filled(4096, 3);
    // SAFETY: As above.
    let address = unsafe { KernelHal::share(small.raw(), BufferDirection::DriverToDevice) };
    assert_eq!(
        machine().device_read(address, 4096),
        pattern(4096, 3),
        "reserved"
    );
    // SAFETY: As above.
    let stop =
        stopped(|| _ = unsafe { KernelHal::share(Buffer::new(8192).raw(), BufferDirection::Both) });
    let Stop::Share(no_room) = stop else {
        panic!("{stop:?}")
    };
    assert_eq!(
        (no_room.cause, no_room.length),
        (crate::MapError::CapReached, 8192)
    );
    assert!(no_room.longest < 8192 && no_room.shared > ballast.len() as u64);
    assert!(no_room.used_bytes <= no_room.granted_bytes);
    assert_eq!(no_room.granted_bytes, 4 << 20);
    let line = no_room.to_string();
    assert!(line.starts_with("8192 bytes cannot be shared: "), "{line}");
    assert!(matches!(
        // SAFETY: Stops before it touches anything.
        stopped(|| unsafe {
            KernelHal::unshare(4096, Buffer::new(8).raw(), BufferDirection::Both);
        }),
        Stop::Unshare(crate::UnmapError::UnknownAddress)
    ));
    ballast
        .into_iter()
        .for_each(|mapping| Kernel::pool().unmap(mapping).unwrap());
    // What is said to fit does, and more does not.
    let attempt = |length| map(Kernel::pool(), &Buffer::new(length), Direction::ToDevice);
    assert!(attempt(4 << 20).is_err(), "the caches are empty now");
    let longest = usize::try_from(Kernel::pool().longest_run_bytes()).unwrap();
    assert!(longest > 1 << 20, "{longest}");
    assert!(attempt(longest + 4096).is_err());
    Kernel::pool().unmap(attempt(longest).unwrap()).unwrap();
}

fn mmio(address: u64) -> NonNull<u8> {
    // SAFETY: What comes back is compared and not used.
    unsafe { KernelHal::mmio_phys_to_virt(address, 8) }
}
