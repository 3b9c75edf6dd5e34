/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* bb_abi.h - C ABI between the bench driver and a bounce-buffer allocator .so
 *
 * One .so = one allocator.  It exports exactly one symbol:
 *      const struct bb_ops *bb_get_ops(void);
 * All calls except thread_init/map/unmap/sync are made single-threaded.
 * map/unmap/sync are called concurrently from up to cfg.nthreads threads.
 * map must never block/sleep ("atomic context").  background() is the only
 * place where deferred work (worker threads, RCU call-backs, growth) may run;
 * the driver calls it between operations to model scheduling of that work.
 */
#ifndef BB_ABI_H
#define BB_ABI_H
#include <stddef.h>
#include <stdint.h>

#define BB_ABI_VERSION 2
#define BB_FAIL        UINT64_MAX

enum bb_dir { BB_TO_DEVICE = 1, BB_FROM_DEVICE = 2, BB_BIDIR = 0 };

/* cfg.flags */
#define BB_F_NOCOPY   (1u << 0) /* do all bookkeeping, but skip every payload copy */
#define BB_F_GROW     (1u << 1) /* the pool may grow beyond pool_size               */
#define BB_F_CVM      (1u << 2) /* memory is private by default: conversions needed */

struct bb_cfg {
	uint32_t abi;            /* BB_ABI_VERSION                                    */
	uint32_t flags;
	void    *pool;           /* shared (already converted) pool, 2 MiB aligned    */
	size_t   pool_size;
	uint64_t pool_bus;       /* bus address of pool[0]                            */
	uint32_t ncpus;          /* CPUs of the modelled guest (areas, caches, ...)   */
	uint32_t min_align_mask; /* device: low bits of the address to be preserved   */
	uint64_t guest_ram;      /* modelled guest RAM size (for size heuristics)     */
	/* the copy routine every allocator has to use (same for all) */
	void   (*copy)(void *dst, const void *src, size_t n);
	/* page-state change: the driver counts them (and may delay).  atomic=1 if
	 * called from map/unmap.  0 = ok */
	int    (*convert)(void *va, size_t pages4k, int to_shared, int atomic);
	/* guest page allocator (2^order pages, naturally aligned); atomic=1 must be
	 * the caller's truth. Returns private memory. */
	void  *(*get_pages)(unsigned order, int atomic);
	void   (*put_pages)(void *va, unsigned order);
	/* index of the CPU the caller runs on (stands for a gs-relative load); for .so
	 * files that cannot have initial-exec TLS of their own */
	uint32_t (*this_cpu)(void);
};

struct bb_stats {
	uint64_t pool_bytes;     /* capacity now                                      */
	uint64_t used_bytes;     /* bytes of pool unavailable to others (incl. padding)*/
	uint64_t meta_bytes;     /* static + current dynamic metadata                 */
	uint64_t transient_maps; /* maps served by an emergency path                  */
	uint64_t grown_pools;    /* growth steps                                      */
	uint64_t pending_free;   /* bytes waiting for deferred free                   */
	uint64_t map_allocs;     /* heap allocations done inside map()                */
};

struct bb_ops {
	uint32_t abi;
	const char *name;
	int      (*init)(const struct bb_cfg *cfg);
	void     (*fini)(void);
	void     (*thread_init)(int cpu);          /* "running on cpu N" from now on   */
	/* returns bus address of the bounce buffer or BB_FAIL.  orig: private buffer.
	 * alloc_align_mask as in swiotlb_tbl_map_single().  Always copies
	 * orig -> bounce (as Linux 7.2 does), for every direction. */
	uint64_t (*map)(void *orig, size_t len, int dir, uint32_t alloc_align_mask);
	/* only the bus address, len and dir are given, as in the DMA API; copies back
	 * bounce -> orig unless dir is BB_TO_DEVICE. */
	void     (*unmap)(uint64_t bus, size_t len, int dir);
	/* partial sync, bus may point into the middle of a mapping */
	void     (*sync)(uint64_t bus, size_t len, int dir);
	void    *(*bus_to_va)(uint64_t bus);       /* for verification only            */
	int      (*background)(void);              /* run deferred work; #items done   */
	void     (*stats)(struct bb_stats *st);
};

const struct bb_ops *bb_get_ops(void);
#endif
