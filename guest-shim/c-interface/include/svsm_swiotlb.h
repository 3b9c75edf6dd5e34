/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * I/O memory for a confidential guest: bounce buffers from a pool whose pages belong to a service at VMPL0.
 *
 * Generated from the Rust sources of guest-shim/c-interface by `make header`. Do not edit.
 *
 * The kernel lends the library a few functions (struct svsm_swiotlb_platform, or where SVSM_SWIOTLB_LINKED_PLATFORM is
 * defined and the library was built so, functions svsm_swiotlb_platform_* that it defines), storage for the pool and a private area
 * for its records, and attaches once at boot. After that map and unmap are what a driver's DMA operations call:
 * struct svsm_swiotlb_mapping.address is what the device gets.
 *
 * Contexts    Every function but attach and adopt_orphans may be called on any CPU, with interrupts on or off, in interrupt handlers, from
 *             several CPUs at the same time; nothing sleeps or allocates. None may be called in an NMI handler, which
 *             may have interrupted the holder of a lock or a call in progress. attach runs once, on one CPU, and
 *             adopt_orphans, if at all, right after it. reserve,
 *             cancel_reservation, maintain, give_back, set_cap, attach_beside, adopt_orphans, release_orphans and detach may take several calls' time.
 * Addresses   Guest physical, without the C-bit. Lengths and sizes are in bytes.
 * Results     0, or a negative number out of enum svsm_swiotlb_error. Out-parameters are written on success only.
 * Enumerators Passed as int; a number that is none is refused. So are null and misaligned pointers.
 * Safety      What a caller promises. A broken promise is undefined behaviour, as it is with memcpy. A wrong handle,
 *             address, length or direction is no broken promise: it comes back as an error and changes nothing.
 * Registers   Integer registers only; the stack holds no red zone. Interrupts are off while a lock is held, never during
 *             a call to the service or a copy.
 */

#ifndef SVSM_SWIOTLB_H
#define SVSM_SWIOTLB_H


#ifdef __KERNEL__
#include <linux/types.h>
#else
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#endif

// Version of this header. A caller compiled against it runs with this and every later library; an earlier one refuses
// it with INVALID_ARGUMENT.
#define SVSM_SWIOTLB_VERSION 3

// Storage that a pool needs at most, for static arrays. `svsm_swiotlb_pool_bytes` is what this library really needs.
#define SVSM_SWIOTLB_POOL_BYTES 4096

// Alignment of that storage in bytes.
#define SVSM_SWIOTLB_POOL_ALIGNMENT 128

// What functions of this library return: 0, or a negative number that names the cause. After an error nothing has
// changed, save that the pool may have grown, and no out-parameter was written.
enum svsm_swiotlb_error {
    // A null or misaligned pointer, a number that is no enumerator, a structure or storage of a wrong size, or an object
    // that is not in use: the caller's mistake.
    SVSM_SWIOTLB_ERROR_INVALID_ARGUMENT = -1,
    // An empty buffer or one that wraps round, an alignment that is no power of two, DEVICE_WRITTEN where the device
    // reads, or a reservation of another shape: the caller's mistake.
    SVSM_SWIOTLB_ERROR_INVALID_REQUEST = -2,
    // map: the cap on granted memory is reached.
    SVSM_SWIOTLB_ERROR_CAP_REACHED = -3,
    // map: the host refused to share more memory.
    SVSM_SWIOTLB_ERROR_HOST_REFUSED = -4,
    // map: enough memory, but no contiguous run in reach of the device.
    SVSM_SWIOTLB_ERROR_NO_CONTIGUOUS_RUN = -5,
    // map: the metadata handed in at attach does not cover more; reserve: too many reservations.
    SVSM_SWIOTLB_ERROR_RECORDS_EXHAUSTED = -6,
    // map: longer than the window; no release will ever help.
    SVSM_SWIOTLB_ERROR_TOO_LARGE = -7,
    // The service was busy with the same chunks in every attempt.
    SVSM_SWIOTLB_ERROR_BUSY = -8,
    // map: the service does not know this attachment (any more).
    SVSM_SWIOTLB_ERROR_NOT_ATTACHED = -9,
    // map: no address of the window meets the constraints.
    SVSM_SWIOTLB_ERROR_OUT_OF_REACH = -10,
    // map: the call did not reach the service, or its answer broke the protocol.
    SVSM_SWIOTLB_ERROR_SERVICE_FAULT = -11,
    // unmap, sync, free: not an address of the window, or nothing was ever handed out there.
    SVSM_SWIOTLB_ERROR_UNKNOWN_ADDRESS = -12,
    // unmap, sync, free: what was handed out there has been given back already.
    SVSM_SWIOTLB_ERROR_ALREADY_UNMAPPED = -13,
    // unmap, sync: the handle is older than what the address stands for now.
    SVSM_SWIOTLB_ERROR_STALE_HANDLE = -14,
    // unmap, free: mapped with another length.
    SVSM_SWIOTLB_ERROR_WRONG_LENGTH = -15,
    // unmap, free: mapped with another direction, or a mapping where a shared buffer is meant (or the reverse).
    SVSM_SWIOTLB_ERROR_WRONG_DIRECTION = -16,
    // unmap, sync: an offset, a length or a written length beyond the mapping.
    SVSM_SWIOTLB_ERROR_OUT_OF_RANGE = -17,
    // unmap, free, sync: another context is unmapping it at this moment; unmap: or syncing it. cancel_reservation:
    // mappings use it, or it is another pool's.
    SVSM_SWIOTLB_ERROR_IN_USE = -18,
    // attach: the paravisor does not know the protocol number.
    SVSM_SWIOTLB_ERROR_NO_SERVICE = -19,
    // attach: the number stands for something else, or for versions this library does not speak.
    SVSM_SWIOTLB_ERROR_ANOTHER_PROTOCOL = -20,
    // attach: another chunk size than 2 MiB, or a window that is too large.
    SVSM_SWIOTLB_ERROR_UNUSABLE_WINDOW = -21,
    // attach: the kernel has not mapped the window.
    SVSM_SWIOTLB_ERROR_NOT_MAPPED = -22,
    // attach: the metadata area is too small for one chunk.
    SVSM_SWIOTLB_ERROR_NO_RECORDS = -23,
    // attach: the service refused; the last result code that `call` saw says why.
    SVSM_SWIOTLB_ERROR_SERVICE_REFUSED = -24,
    // attach: the call did not reach the service.
    SVSM_SWIOTLB_ERROR_NOT_RUN = -25,
    // attach: the answer broke the protocol.
    SVSM_SWIOTLB_ERROR_MALFORMED = -26,
    // sync: 61 others are copying parts of the mapping at this moment, more than can be counted. Nothing was copied.
    SVSM_SWIOTLB_ERROR_TOO_MANY_SYNCS = -27,
};

// Who writes the buffer while the device owns it: DMA_TO_DEVICE and so on in Linux, with other numbers, so that a
// structure full of zeroes is no mapping.
enum svsm_swiotlb_direction {
    // The device only reads.
    SVSM_SWIOTLB_DIRECTION_TO_DEVICE = 1,
    // The device only writes.
    SVSM_SWIOTLB_DIRECTION_FROM_DEVICE = 2,
    // Both.
    SVSM_SWIOTLB_DIRECTION_BIDIRECTIONAL = 3,
};

// What a mapping that the device only writes holds before it does.
enum svsm_swiotlb_copy_in {
    // The buffer's old contents, so that bytes the device leaves alone come back unchanged, as drivers written for Linux
    // expect. This discloses the old contents to the host. The only choice where the device reads.
    //
    // No byte of another mapping, or of what the pool held before, ever reaches the buffer: at map all of the mapping's
    // bytes in the pool are the buffer's, and afterwards only the device, and the driver's syncs, change them.
    SVSM_SWIOTLB_COPY_IN_KEEP = 0,
    // Whatever the pool held before, another mapping's bytes perhaps. Nothing is copied in. `svsm_swiotlb_unmap` copies
    // nothing out; `svsm_swiotlb_unmap_written` copies the first `written` bytes, and `svsm_swiotlb_sync_for_cpu` the bytes
    // it is given. Both copy whatever lies there: a caller names no byte that the device has not written, by the
    // caller's own knowledge and not by a length that the device reports without a check, or another mapping's old bytes
    // reach the buffer. Where that is not known, KEEP is the choice.
    SVSM_SWIOTLB_COPY_IN_DEVICE_WRITTEN = 1,
};

// How close the pool is to failing.
enum svsm_swiotlb_pressure_level {
    // Less than 3/4 of what the pool can have is in use.
    SVSM_SWIOTLB_PRESSURE_LEVEL_LOW = 0,
    // At least 3/4.
    SVSM_SWIOTLB_PRESSURE_LEVEL_ELEVATED = 1,
    // At least 7/8: large mappings may fail soon.
    SVSM_SWIOTLB_PRESSURE_LEVEL_HIGH = 2,
    // The last request failed for want of memory.
    SVSM_SWIOTLB_PRESSURE_LEVEL_EXHAUSTED = 3,
};

// An attachment to the service and the memory it has granted. Lives in storage of the caller's and is only used through
// the pointer that attach returned; a copy of it is no pool.
struct svsm_swiotlb_pool;

// The four registers of a call to the service (AMD 58019, section 4.2).
struct svsm_swiotlb_call_registers {
    // Protocol number in bits 63:32 and call number in bits 31:0; the result code afterwards.
    uint64_t rax;
    // First argument, first result.
    uint64_t rcx;
    // Second argument, second result.
    uint64_t rdx;
    // Third argument, third result.
    uint64_t r8;
};

#if !defined(SVSM_SWIOTLB_LINKED_PLATFORM)
// What the kernel lends the library. Copied by attach; `context` is passed to every function and may be null.
//
// Each function may be called on any CPU, on several at the same time, from every context that calls the library.
// None may call the library for the same pool, unwind or longjmp out.
struct svsm_swiotlb_platform {
    // Whatever the functions need.
    void *context;
    // Issues the call in `registers` by the guest call sequence (AMD 58019, section 5: calling area, GHCB, VMGEXIT; both
    // belong to the kernel) with interrupts off, and writes the registers back. Returns 0, or anything else if the
    // service has not seen the call. Never called under the library's lock.
    int (*call)(void *context,
                struct svsm_swiotlb_call_registers *registers);
    // Number of this CPU, counted from 0. Only a hint: a wrong one costs speed, never correctness. May be null: 0.
    size_t (*cpu)(void *context);
    // Turns interrupts off on this CPU and returns what they were. Afterwards nothing that calls the library runs on
    // this CPU until `interrupts_restore`.
    size_t (*interrupts_save)(void *context);
    // Puts interrupts back to what `interrupts_save` returned.
    void (*interrupts_restore)(void *context,
                               size_t saved);
    // Where the kernel has mapped `bytes` bytes of guest physical memory at `address` (without the C-bit); null if it
    // has not. Called once, at attach, for the whole window. The mapping is writable, write-back, shared (C-bit clear),
    // stays as long as the pool is used, and no C object lies in it.
    void *(*translate)(void *context,
                       uint64_t address,
                       uint64_t bytes);
    // Copies `bytes` bytes into the pool; the device may write to them at the same time. May be null.
    void (*copy_to_pool)(void *context,
                         void *pool,
                         const void *buffer,
                         size_t bytes);
    // Copies `bytes` bytes out of the pool and reads each of them once. May be null.
    void (*copy_from_pool)(void *context,
                           void *buffer,
                           const void *pool,
                           size_t bytes);
};
#endif

// What the kernel chooses at attach. Filled by `svsm_swiotlb_config_init`, then changed as needed. Sizes in bytes,
// rounded up to whole chunks of 2 MiB.
struct svsm_swiotlb_config {
    // Bytes of the structure as the caller knows it. Later versions append fields; what a caller leaves out has its
    // default, and what it knows beyond this version must be 0.
    uint32_t size;
    // `SVSM_SWIOTLB_VERSION`.
    uint32_t version;
    // Number of the protocol; the integrator of the paravisor chooses it. Default 0x40000001.
    uint32_t protocol;
    // Number of per-CPU caches, at least 1: as many as `cpu` returns different numbers. Default 1.
    uint32_t cpus;
    // Granted at attach, so that the first mappings find memory. Default 2 MiB.
    uint64_t initial_bytes;
    // Never given back by `svsm_swiotlb_maintain`. Default 2 MiB.
    uint64_t minimum_bytes;
    // The most one growth asks for beyond what the mapping at hand needs: bounds the time of one call. Default 32 MiB.
    uint64_t growth_limit_bytes;
    // Cap on what the service grants, at most its hard cap. Default 0: as it is.
    uint64_t cap_bytes;
    // `svsm_swiotlb_maintain` grows the pool, by one call, while less than this is free. Default 0.
    uint64_t low_watermark_bytes;
    // `svsm_swiotlb_maintain` gives back what is free beyond this. Default 0: the load of the recent past alone decides.
    uint64_t high_watermark_bytes;
    // 1: attach does not ask the core protocol whether the paravisor offers ours (QUERY_PROTOCOL), for a kernel whose
    // `call` carries this protocol only. The UUID that IDENTIFY answers is the proof then, as it is in any case.
    // Default 0: it asks.
    uint32_t skip_query_protocol;
    // 0.
    uint32_t reserved;
};

// A range of guest physical addresses, without the C-bit.
struct svsm_swiotlb_window {
    // First address.
    uint64_t base;
    // Size in bytes.
    uint64_t bytes;
};

// What a give-back achieved.
struct svsm_swiotlb_given_back {
    // Bytes the pool no longer holds.
    uint64_t released_bytes;
    // Bytes of those that the host says it took back; on hosts without separate shared memory a hint at best.
    uint64_t acknowledged_bytes;
    // Why not more, if the service stopped it: an `enum svsm_swiotlb_error`, else 0.
    int32_t stopped_by;
    // 0.
    uint32_t reserved;
};

// Where a mapping may lie; all of it holds together. A structure full of zeroes, or a null pointer, means anywhere.
struct svsm_swiotlb_constraints {
    // These low bits of the device address equal those of the buffer's address: 0, or a power of two minus 1 (Linux
    // `min_align_mask`; 4095 for NVMe).
    uint64_t min_align_mask;
    // Power of two, or 0 for 1. The pool bytes set aside begin and end at a multiple of it (Linux `alloc_align_mask`
    // plus 1). Without a `min_align_mask` the device address itself is a multiple.
    uint64_t alignment;
    // Highest address the device can reach, or 0 for any: the mapping's last byte is at most there.
    uint64_t highest_address;
    // Power of two, or 0 for none: the mapping does not cross a multiple of it (Linux `dma_get_seg_boundary` plus 1).
    // Read only if the configuration at attach was of version 3 or later.
    uint64_t boundary;
};

// A buffer that a device can reach: a plain value to keep in a queue. Using one after its unmap is an error that is
// always detected.
struct svsm_swiotlb_mapping {
    // The address to give to the device: a guest physical address in the window, without the C-bit.
    uint64_t address;
    // Length in bytes.
    uint64_t length;
    // Distinguishes this mapping from earlier and later ones at the same address.
    uint64_t generation;
    // `enum svsm_swiotlb_direction`.
    int32_t direction;
    // 0.
    uint32_t reserved;
};

// Extents for a number of mappings at a time. Filled by `svsm_swiotlb_reserve` and used in place: a copy is no
// reservation. What it holds is private to the library.
struct svsm_swiotlb_reservation {
    // Private to the library.
    uint64_t opaque[10];
};

// What became of an earlier kernel's chunks.
struct svsm_swiotlb_adoption {
    // Bytes that are the pool's now.
    uint64_t adopted_bytes;
    // Bytes of an earlier kernel that the metadata does not cover; given back.
    uint64_t uncovered_bytes;
};

// What the service said at attach.
struct svsm_swiotlb_attachment {
    // Bytes an earlier kernel still holds; its devices may still write to them.
    uint64_t orphaned_bytes;
    // Cap on granted bytes.
    uint64_t cap_bytes;
    // Number of this attachment.
    uint32_t epoch;
    // Features the service offers beyond version 1's base (docs/PROTOCOL.md, clause P-2.4).
    uint32_t features;
    // 0: shared memory is mapped with the C-bit clear. 1: at its address plus 1 << `position`.
    uint32_t addressing;
    // Position of the C-bit, or of the bit that is added.
    uint32_t position;
    // 1 if nobody had attached before, else 0.
    uint32_t fresh;
    // 0.
    uint32_t reserved;
};

// Shared memory without an original: queues, descriptor tables, data that needs no second copy. The host and its devices
// may change every byte at any time, so each byte is read once, through a volatile pointer, before it is checked.
struct svsm_swiotlb_shared_buffer {
    // The address to give to the device.
    uint64_t address;
    // Length in bytes.
    uint64_t length;
    // What tells this buffer from others at the same address, before and after.
    uint64_t generation;
    // Where the kernel reaches it: inside the mapping that `translate` returned.
    void *pointer;
};

// Counters since attach, and the present fill. Sizes in bytes. Later versions append.
struct svsm_swiotlb_statistics {
    // Mappings made.
    uint64_t maps;
    // Mappings ended.
    uint64_t unmaps;
    // Partial syncs.
    uint64_t syncs;
    // Mappings and shared buffers refused.
    uint64_t failures;
    // Shared buffers handed out and not freed yet.
    uint64_t shared_buffers;
    // Copied into the pool at map.
    uint64_t bytes_in;
    // Copied out of the pool at unmap.
    uint64_t bytes_out;
    // Held now.
    uint64_t granted_bytes;
    // The most ever held.
    uint64_t peak_granted_bytes;
    // Slots of live mappings, shared buffers and reservations now.
    uint64_t used_bytes;
    // The most that ever were.
    uint64_t peak_used_bytes;
    // Given up so far.
    uint64_t released_bytes;
    // Taken back by the host so far, by its own account.
    uint64_t acknowledged_bytes;
    // Lost to answers that leave their owner open; never used again.
    uint64_t lost_bytes;
    // Growths that gave memory.
    uint64_t growths;
    // Growths that were refused.
    uint64_t refused_growths;
    // Metadata in use.
    uint64_t metadata_bytes;
    // Calls of the protocol issued, by number (docs/PROTOCOL.md, clause P-4.1).
    uint64_t calls[16];
    // `failures` by cause: at index n those for which a function returned -n, an `enum svsm_swiotlb_error`.
    uint64_t failures_by_error[32];
};

// How close the pool is to failing, and why it cannot have more.
struct svsm_swiotlb_pressure {
    // `enum svsm_swiotlb_pressure_level`.
    int32_t level;
    // What limits the pool at present, an `enum svsm_swiotlb_error`: the last failure, a refusal that still stands, or
    // the cap. 0 if nothing does.
    int32_t cause;
    // In use, in whole slots.
    uint64_t used_bytes;
    // What the pool can have: the cap, or what it holds while the service refuses more.
    uint64_t reachable_bytes;
};

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// Bytes of storage that a pool needs, at most `SVSM_SWIOTLB_POOL_BYTES`.
size_t svsm_swiotlb_pool_bytes(void);

// Alignment of that storage in bytes, at most `SVSM_SWIOTLB_POOL_ALIGNMENT`.
size_t svsm_swiotlb_pool_alignment(void);

// Bytes of metadata for a window of `window_bytes` used by `cpus` CPUs: 1 % of it, or what the caches of the CPUs and one
// record for each 2 KiB need where that is more (small windows, many CPUs). When the records for mappings below 2 KiB
// run out, such mappings take 2 KiB each.
size_t svsm_swiotlb_metadata_bytes(uint64_t window_bytes,
                                   size_t cpus);

// The same, with records for `small_mappings` mappings below 2 KiB at the same time. To fill W bytes with slots of 64
// bytes takes W / 64 of them.
size_t svsm_swiotlb_metadata_bytes_with_small(uint64_t window_bytes,
                                              size_t cpus,
                                              size_t small_mappings);

#if !defined(SVSM_SWIOTLB_LINKED_PLATFORM)
// Finds the service, checks its identity, learns the window and attaches; `*pool` is what the other functions take.
//
// Called once, at boot, on one CPU. Everything that can be checked is checked before the call ATTACH, which ends the
// attachment of an earlier kernel. A first growth that is refused is no error here: `svsm_swiotlb_pressure` tells, and
// later mappings ask again.
//
// `storage` becomes the pool: `svsm_swiotlb_pool_bytes()` bytes, aligned to `svsm_swiotlb_pool_alignment()`.
// `metadata` holds all records, which only this library writes: guest-private memory, of any alignment and content. An
// area smaller than `svsm_swiotlb_metadata_bytes` says is used for as much of the window as it covers. `platform` and
// `config` are only read here.
//
// A kernel that stops using a pool unmaps everything, calls `svsm_swiotlb_give_back` and `svsm_swiotlb_detach`, and may then
// use storage and metadata for something else.
//
// Errors: INVALID_ARGUMENT, and those that `enum svsm_swiotlb_error` names for attach.
//
// # Safety
// `platform` and `config` are null or initialised, and the platform's functions keep their contracts; `storage` and
// `metadata` are null or writable with the given sizes, guest-private, and for as long as the pool is used nobody else
// touches them; `pool` is null or writable.
int svsm_swiotlb_attach(const struct svsm_swiotlb_platform *platform,
                        const struct svsm_swiotlb_config *config,
                        void *storage,
                        size_t storage_bytes,
                        void *metadata,
                        size_t metadata_bytes,
                        struct svsm_swiotlb_pool **pool);
#endif

#if defined(SVSM_SWIOTLB_LINKED_PLATFORM)
// Finds the service, checks its identity, learns the window and attaches; `*pool` is what the other functions take.
//
// Called once, at boot, on one CPU. Everything that can be checked is checked before the call ATTACH, which ends the
// attachment of an earlier kernel. A first growth that is refused is no error here: `svsm_swiotlb_pressure` tells, and
// later mappings ask again.
//
// `storage` becomes the pool: `svsm_swiotlb_pool_bytes()` bytes, aligned to `svsm_swiotlb_pool_alignment()`.
// `metadata` holds all records, which only this library writes: guest-private memory, of any alignment and content. An
// area smaller than `svsm_swiotlb_metadata_bytes` says is used for as much of the window as it covers. `config` is only
// read here.
//
// A kernel that stops using a pool unmaps everything, calls `svsm_swiotlb_give_back` and `svsm_swiotlb_detach`, and may then
// use storage and metadata for something else.
//
// Errors: INVALID_ARGUMENT, and those that `enum svsm_swiotlb_error` names for attach.
//
// # Safety
// `config` is null or initialised, and the functions `svsm_swiotlb_platform_*` keep their contracts; `storage` and
// `metadata` are null or writable with the given sizes, guest-private, and for as long as the pool is used nobody else
// touches them; `pool` is null or writable.
int svsm_swiotlb_attach(const struct svsm_swiotlb_config *config,
                        void *storage,
                        size_t storage_bytes,
                        void *metadata,
                        size_t metadata_bytes,
                        struct svsm_swiotlb_pool **pool);
#endif

// Another window of the service, by its index: `*window` has 0 bytes where there is none. A paravisor may place a second window,
// index 1, below 4 GiB for devices that do not reach the first.
//
// Errors: INVALID_ARGUMENT, UNUSABLE_WINDOW, SERVICE_REFUSED, NOT_RUN, MALFORMED.
//
// # Safety
// `first` is null or a pool; `window` is null or writable.
int svsm_swiotlb_window_beside(const struct svsm_swiotlb_pool *first,
                               uint32_t index,
                               struct svsm_swiotlb_window *window);

// Attaches a pool of another window to the attachment of `first`; `*pool` is what the other functions take.
//
// The platform is that of `first`, and `translate` is asked for this window too. Storage, metadata and `config` are as for
// `svsm_swiotlb_attach`, about this window; `protocol` and `skip_query_protocol` are not looked at. A kernel chooses the pool
// for each device by what the device reaches (`svsm_swiotlb_window`), and for an address by `svsm_swiotlb_contains`. There is one
// attachment: `svsm_swiotlb_detach` of either pool ends both, and `svsm_swiotlb_release_orphans` is about all windows.
//
// Errors: INVALID_ARGUMENT, and those that `enum svsm_swiotlb_error` names for attach; SERVICE_REFUSED where there is no such
// window.
//
// # Safety
// `first` is null or a pool; for the rest as for `svsm_swiotlb_attach`.
int svsm_swiotlb_attach_beside(const struct svsm_swiotlb_pool *first,
                               uint32_t index,
                               const struct svsm_swiotlb_config *config,
                               void *storage,
                               size_t storage_bytes,
                               void *metadata,
                               size_t metadata_bytes,
                               struct svsm_swiotlb_pool **pool);

// Fills a configuration with the defaults.
//
// `config_bytes` is `sizeof *config`. INVALID_ARGUMENT for a null pointer or a size that no version has.
//
// # Safety
// `config` is null or points to `config_bytes` writable bytes.
int svsm_swiotlb_config_init(struct svsm_swiotlb_config *config,
                             size_t config_bytes);

// A short English text for a number that a function returned, for logs. Never null; other numbers get a text too.
const char *svsm_swiotlb_error_text(int error);

#if !defined(SVSM_SWIOTLB_LINKED_PLATFORM)
// Finds the service, checks its identity and learns its window, for a kernel that sizes its metadata at run time
// (`svsm_swiotlb_metadata_bytes`). Attaches nothing and changes nothing.
//
// Errors: INVALID_ARGUMENT, NO_SERVICE, ANOTHER_PROTOCOL, UNUSABLE_WINDOW, SERVICE_REFUSED, NOT_RUN, MALFORMED.
//
// # Safety
// `platform` and `config` are null or initialised, and the platform's functions keep their contracts; `window` is null or
// writable.
int svsm_swiotlb_find(const struct svsm_swiotlb_platform *platform,
                      const struct svsm_swiotlb_config *config,
                      struct svsm_swiotlb_window *window);
#endif

#if defined(SVSM_SWIOTLB_LINKED_PLATFORM)
// Finds the service, checks its identity and learns its window, for a kernel that sizes its metadata at run time
// (`svsm_swiotlb_metadata_bytes`). Attaches nothing and changes nothing.
//
// Errors: INVALID_ARGUMENT, NO_SERVICE, ANOTHER_PROTOCOL, UNUSABLE_WINDOW, SERVICE_REFUSED, NOT_RUN, MALFORMED.
//
// # Safety
// `config` is null or initialised, and the functions `svsm_swiotlb_platform_*` keep their contracts; `window` is null or
// writable.
int svsm_swiotlb_find(const struct svsm_swiotlb_config *config,
                      struct svsm_swiotlb_window *window);
#endif

#if defined(SVSM_SWIOTLB_LINKED_PLATFORM)
// Issues the call in `registers` by the guest call sequence (AMD 58019, section 5: calling area, GHCB, VMGEXIT; both
// belong to the kernel) with interrupts off, and writes the registers back. Returns 0, or anything else if the
// service has not seen the call. Never called under the library's lock.
//
// Defined by the kernel, like the four functions below. Each of them may be called on any CPU, on several at the same
// time, from every context that calls the library. None may call the library, unwind or longjmp out.
extern int svsm_swiotlb_platform_call(struct svsm_swiotlb_call_registers *registers);
#endif

#if defined(SVSM_SWIOTLB_LINKED_PLATFORM)
// Number of this CPU, counted from 0. Only a hint: a wrong one costs speed, never correctness.
extern size_t svsm_swiotlb_platform_cpu(void);
#endif

#if defined(SVSM_SWIOTLB_LINKED_PLATFORM)
// Turns interrupts off on this CPU and returns what they were. Afterwards nothing that calls the library runs on
// this CPU until `svsm_swiotlb_platform_interrupts_restore`.
extern size_t svsm_swiotlb_platform_interrupts_save(void);
#endif

#if defined(SVSM_SWIOTLB_LINKED_PLATFORM)
// Puts interrupts back to what `svsm_swiotlb_platform_interrupts_save` returned.
extern void svsm_swiotlb_platform_interrupts_restore(size_t saved);
#endif

#if defined(SVSM_SWIOTLB_LINKED_PLATFORM)
// Where the kernel has mapped `bytes` bytes of guest physical memory at `address` (without the C-bit); null if it
// has not. Called once, at attach, for the whole window. The mapping is writable, write-back, shared (C-bit clear),
// stays as long as the pool is used, and no C object lies in it.
extern void *svsm_swiotlb_platform_translate(uint64_t address,
                                             uint64_t bytes);
#endif

// Gives back empty chunks that the load of the recent past did not need, as far as they exceed the configuration's
// `minimum_bytes`. Nothing depends on this being called; a kernel calls it now and then, from a context that may take a
// few calls' time.
//
// `given_back` may be null. A service that stops it is no error, see `stopped_by`.
//
// # Safety
// `pool` is null or a pool; `given_back` is null or writable.
int svsm_swiotlb_maintain(struct svsm_swiotlb_pool *pool,
                          struct svsm_swiotlb_given_back *given_back);

// Gives back every empty chunk, for a kernel that stops using the pool. What is still mapped stays granted and usable,
// and the pool grows again when it is used again.
//
// `given_back` may be null. A service that stops it is no error, see `stopped_by`.
//
// # Safety
// As for `svsm_swiotlb_maintain`.
int svsm_swiotlb_give_back(struct svsm_swiotlb_pool *pool,
                           struct svsm_swiotlb_given_back *given_back);

// Sets the cap on granted bytes, a multiple of 2 MiB. A cap below what is granted stops growth and takes nothing away.
// `previous` may be null; it receives the cap that held before.
//
// Errors: INVALID_ARGUMENT; INVALID_REQUEST for a cap that is no multiple; TOO_LARGE above the window or the service's
// hard cap; else what kept the call from being answered (BUSY, NOT_ATTACHED, SERVICE_FAULT).
//
// # Safety
// `pool` is null or a pool; `previous` is null or writable.
int svsm_swiotlb_set_cap(struct svsm_swiotlb_pool *pool,
                         uint64_t bytes,
                         uint64_t *previous);

// Makes `length` bytes at `buffer` reachable for a device, as `dma_map_single` does. Copies exactly these bytes into the
// pool where the direction or `copy_in` asks for it. Calls the service only to grow, and never sleeps.
//
// `direction` is an `enum svsm_swiotlb_direction`, `copy_in` an `enum svsm_swiotlb_copy_in`; `constraints` may be null.
// `*mapping` is for the driver to keep; `mapping->address` is what the device gets. The copy is done when the function
// returns; a doorbell written after that needs no other barrier than the device itself asks for.
//
// Errors: INVALID_ARGUMENT, INVALID_REQUEST, and those that `enum svsm_swiotlb_error` names for map; nothing is mapped
// then, though the pool may have grown.
//
// # Safety
// `pool` is null or a pool; `constraints` is null or initialised; `mapping` is null or writable. Until the mapping is
// unmapped the buffer stays valid: for reads, and for writes too unless the direction is TO_DEVICE. Nothing else writes
// to it while this function, a sync or an unmap of the mapping runs; syncs of the mapping that run at the same time and
// copy to the buffer name bytes that do not overlap. No part of the buffer lies in the window.
int svsm_swiotlb_map(struct svsm_swiotlb_pool *pool,
                     void *buffer,
                     size_t length,
                     int direction,
                     int copy_in,
                     const struct svsm_swiotlb_constraints *constraints,
                     struct svsm_swiotlb_mapping *mapping);

// The same for callers that keep only the address, which `svsm_swiotlb_unmap_address` ends: returns the address to give
// to the device, or an error, which is negative. Addresses have at most 52 bits.
//
// Errors: as `svsm_swiotlb_map`.
//
// # Safety
// As for `svsm_swiotlb_map`.
int64_t svsm_swiotlb_map_address(struct svsm_swiotlb_pool *pool,
                                 void *buffer,
                                 size_t length,
                                 int direction,
                                 int copy_in,
                                 const struct svsm_swiotlb_constraints *constraints);

// The same out of a reservation. Cannot fail while the reservation has an idle extent and the request has its shape;
// without an idle extent it falls back to `svsm_swiotlb_map`.
//
// Errors: INVALID_ARGUMENT; INVALID_REQUEST for another shape or another pool's reservation; else as `svsm_swiotlb_map`.
//
// # Safety
// As for `svsm_swiotlb_map`. `reservation` is null, or was filled by `svsm_swiotlb_reserve` and is not being cancelled.
int svsm_swiotlb_map_reserved(struct svsm_swiotlb_pool *pool,
                              const struct svsm_swiotlb_reservation *reservation,
                              void *buffer,
                              size_t length,
                              int direction,
                              int copy_in,
                              const struct svsm_swiotlb_constraints *constraints,
                              struct svsm_swiotlb_mapping *mapping);

// Takes over every chunk that earlier kernels hold: the pool has grown without asking the host. Chunks of the other window become
// the attachment's as well; a pool of it takes them in by the same call, and without one they stay held and unused. Called right after
// attach, after all devices were quieted, while no other function of the library is called for this pool.
//
// `page` is a page of private, validated memory for the length of the call, `page_address` its guest physical address.
// `adoption` may be null.
//
// Errors: INVALID_ARGUMENT; else what kept a call from being answered. What was taken over until then is the pool's.
//
// # Safety
// `pool` is null or a pool that nobody else uses during the call; `page` is null or a page nobody else uses; `adoption` is
// null or writable.
int svsm_swiotlb_adopt_orphans(struct svsm_swiotlb_pool *pool,
                               void *page,
                               uint64_t page_address,
                               struct svsm_swiotlb_adoption *adoption);

// Gives back every chunk that earlier kernels hold, of all windows. Called after all devices were quieted. A pool of the other window that
// was refused memory before, asks again after its next `svsm_swiotlb_maintain`.
//
// `page` and `page_address` as for `svsm_swiotlb_adopt_orphans`; `given_back` may be null.
//
// Errors: INVALID_ARGUMENT; else what kept a call from being answered.
//
// # Safety
// `pool` is null or a pool; `page` is null or a page nobody else uses; `given_back` is null or writable.
int svsm_swiotlb_release_orphans(struct svsm_swiotlb_pool *pool,
                                 void *page,
                                 uint64_t page_address,
                                 struct svsm_swiotlb_given_back *given_back);

// Ends the attachment, which is that of the pool of the other window, too. What is granted still becomes an orphan; `orphaned_bytes`, which may be null, says how much. A kernel
// unmaps everything and calls `svsm_swiotlb_give_back` before, and afterwards only ends mappings that are left.
//
// Errors: INVALID_ARGUMENT; else what kept the call from being answered.
//
// # Safety
// `pool` is null or a pool; `orphaned_bytes` is null or writable.
int svsm_swiotlb_detach(struct svsm_swiotlb_pool *pool,
                        uint64_t *orphaned_bytes);

// The range of addresses that the pool can ever use.
//
// # Safety
// `pool` is null or a pool; `window` is null or writable.
int svsm_swiotlb_window(const struct svsm_swiotlb_pool *pool,
                        struct svsm_swiotlb_window *window);

// Whether a device address lies in the pool's window: one compare. False for a null pool.
//
// # Safety
// `pool` is null or a pool.
bool svsm_swiotlb_contains(const struct svsm_swiotlb_pool *pool,
                           uint64_t address);

// What the service said at attach.
//
// # Safety
// `pool` is null or a pool; `attachment` is null or writable.
int svsm_swiotlb_attachment(const struct svsm_swiotlb_pool *pool,
                            struct svsm_swiotlb_attachment *attachment);

// Sets memory aside for `count` mappings at a time, each of at most `max_length` bytes, growing the pool as needed. While
// the reservation exists, `svsm_swiotlb_map_reserved` cannot fail for a request of its shape as long as fewer than `count`
// such mappings are in use; unmapping puts an extent back. `align` is a power of two: the largest alignment, and one more
// than the largest `min_align_mask`, that later requests may have.
//
// `reservation` must not hold one that is still in use. May take several calls' time.
//
// Errors: INVALID_ARGUMENT, INVALID_REQUEST, and those that `enum svsm_swiotlb_error` names for map; nothing is reserved
// then, though the pool may have grown.
//
// # Safety
// `pool` is null or a pool; `reservation` is null or writable, and stays in place until it is cancelled.
int svsm_swiotlb_reserve(struct svsm_swiotlb_pool *pool,
                         size_t count,
                         size_t max_length,
                         uint64_t align,
                         struct svsm_swiotlb_reservation *reservation);

// Ends a reservation. Its storage may be used for something else afterwards.
//
// Errors: INVALID_ARGUMENT for storage without one; IN_USE while mappings use its extents, or if it is another pool's.
// The reservation is unchanged then.
//
// # Safety
// `pool` is null or a pool; `reservation` is null or initialised. Nothing maps from it or cancels it at the same time.
int svsm_swiotlb_cancel_reservation(struct svsm_swiotlb_pool *pool,
                                    struct svsm_swiotlb_reservation *reservation);

// Hands out `length` bytes of zeroed shared memory at a multiple of `align`, a power of two; as `dma_alloc_coherent`.
//
// Errors: INVALID_ARGUMENT, INVALID_REQUEST, and those that `enum svsm_swiotlb_error` names for map.
//
// # Safety
// `pool` is null or a pool; `buffer` is null or writable.
int svsm_swiotlb_alloc_shared(struct svsm_swiotlb_pool *pool,
                              size_t length,
                              uint64_t align,
                              struct svsm_swiotlb_shared_buffer *buffer);

// The same where a device reaches it; `constraints` may be null. `alignment` is what the address is a multiple of, and so
// is one more than `min_align_mask`.
//
// Errors: as `svsm_swiotlb_alloc_shared`.
//
// # Safety
// `pool` is null or a pool; `constraints` is null or initialised; `buffer` is null or writable.
int svsm_swiotlb_alloc_shared_within(struct svsm_swiotlb_pool *pool,
                                     size_t length,
                                     const struct svsm_swiotlb_constraints *constraints,
                                     struct svsm_swiotlb_shared_buffer *buffer);

// Ends the use of shared memory. The caller has made sure that no device uses it any more.
//
// Errors: INVALID_ARGUMENT, and those that `enum svsm_swiotlb_error` names for free; nothing has changed then.
//
// # Safety
// `pool` is null or a pool; `buffer` is null or initialised. Nobody uses the memory any more.
int svsm_swiotlb_free_shared(struct svsm_swiotlb_pool *pool,
                             const struct svsm_swiotlb_shared_buffer *buffer);

// The same for callers that keep only address and length.
//
// Errors: INVALID_ARGUMENT, and those that `enum svsm_swiotlb_error` names for free; nothing has changed then. One misuse
// is not detected: the address has been handed out again, as a shared buffer of equal length.
//
// # Safety
// `pool` is null or a pool. Nobody uses the memory any more.
int svsm_swiotlb_free_shared_address(struct svsm_swiotlb_pool *pool,
                                     uint64_t address,
                                     uint64_t length);

// The counters and the present fill. Issues no call.
//
// `statistics_bytes` is `sizeof *statistics`: as much is written, and what this library does not know is 0 there.
//
// # Safety
// `pool` is null or a pool; `statistics` is null or points to `statistics_bytes` writable bytes.
int svsm_swiotlb_statistics(const struct svsm_swiotlb_pool *pool,
                            struct svsm_swiotlb_statistics *statistics,
                            size_t statistics_bytes);

// How close the pool is to failing, and why. Issues no call.
//
// # Safety
// `pool` is null or a pool; `pressure` is null or writable.
int svsm_swiotlb_pressure(const struct svsm_swiotlb_pool *pool,
                          struct svsm_swiotlb_pressure *pressure);

// Shows the device what the driver has written to `length` bytes at `offset`, as `dma_sync_single_range_for_device`
// does. Copies where the device reads.
//
// Any number of syncs of a mapping up to 61 may run at the same time, in interrupt handlers in the middle of others too:
// none waits for another, and none is refused for another's sake. Only an unmap at the same time, a driver's mistake, is.
//
// Errors: INVALID_ARGUMENT; OUT_OF_RANGE for bytes beyond the mapping; else those that `enum svsm_swiotlb_error` names
// for sync. Nothing has changed then.
//
// # Safety
// `pool` is null or a pool; `mapping` is null or initialised.
int svsm_swiotlb_sync_for_device(struct svsm_swiotlb_pool *pool,
                                 const struct svsm_swiotlb_mapping *mapping,
                                 uint64_t offset,
                                 uint64_t length);

// Shows the driver what the device has written to `length` bytes at `offset`, as `dma_sync_single_range_for_cpu` does.
// Copies where the device writes: exactly these bytes, whatever lies there. In a mapping made with KEEP what the device has
// not written is the buffer's own; in one made with DEVICE_WRITTEN it may be another mapping's, so these are bytes that
// the device has written.
//
// Errors: as `svsm_swiotlb_sync_for_device`.
//
// # Safety
// As for `svsm_swiotlb_sync_for_device`.
int svsm_swiotlb_sync_for_cpu(struct svsm_swiotlb_pool *pool,
                              const struct svsm_swiotlb_mapping *mapping,
                              uint64_t offset,
                              uint64_t length);

// `svsm_swiotlb_sync_for_device` by device address, which may lie anywhere inside a mapping; all `length` bytes from it
// must.
//
// Errors: as `svsm_swiotlb_sync_for_device`, but for a mapping that has ended and whose address is in use again.
//
// # Safety
// `pool` is null or a pool.
int svsm_swiotlb_sync_address_for_device(struct svsm_swiotlb_pool *pool,
                                         uint64_t address,
                                         uint64_t length);

// `svsm_swiotlb_sync_for_cpu` by device address.
//
// Errors: as `svsm_swiotlb_sync_address_for_device`.
//
// # Safety
// `pool` is null or a pool.
int svsm_swiotlb_sync_address_for_cpu(struct svsm_swiotlb_pool *pool,
                                      uint64_t address,
                                      uint64_t length);

// Ends a mapping, as `dma_unmap_single` does. Where the device writes, all of it is copied to the buffer; a mapping made
// with DEVICE_WRITTEN copies nothing, because which bytes the device has written is not known.
//
// The caller has seen the device's completion with acquire ordering; the copies come after it.
//
// Errors: INVALID_ARGUMENT, and those that `enum svsm_swiotlb_error` names for unmap; nothing has changed then. Every
// misuse of a handle is detected.
//
// # Safety
// `pool` is null or a pool; `mapping` is null or initialised.
int svsm_swiotlb_unmap(struct svsm_swiotlb_pool *pool,
                       const struct svsm_swiotlb_mapping *mapping);

// Ends a mapping of which the device has written the first `written` bytes; only those are copied to the buffer. In a
// mapping made with DEVICE_WRITTEN no byte beyond them was ever the buffer's, and none reaches it; so `written` is never
// more than what the device has written for certain.
//
// Errors: OUT_OF_RANGE if `written` exceeds the mapping, else as `svsm_swiotlb_unmap`.
//
// # Safety
// As for `svsm_swiotlb_unmap`.
int svsm_swiotlb_unmap_written(struct svsm_swiotlb_pool *pool,
                               const struct svsm_swiotlb_mapping *mapping,
                               uint64_t written);

// Ends the mapping that begins at a device address, for callers that keep nothing else. `length` and `direction` are
// those of the map.
//
// Errors: as `svsm_swiotlb_unmap`. One misuse is not detected: the address has been handed out again with equal length
// and direction.
//
// # Safety
// `pool` is null or a pool.
int svsm_swiotlb_unmap_address(struct svsm_swiotlb_pool *pool,
                               uint64_t address,
                               uint64_t length,
                               int direction);

// `svsm_swiotlb_unmap_written` by device address.
//
// Errors: as `svsm_swiotlb_unmap_address`, and OUT_OF_RANGE if `written` exceeds the mapping.
//
// # Safety
// `pool` is null or a pool.
int svsm_swiotlb_unmap_address_written(struct svsm_swiotlb_pool *pool,
                                       uint64_t address,
                                       uint64_t length,
                                       int direction,
                                       uint64_t written);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* SVSM_SWIOTLB_H */
