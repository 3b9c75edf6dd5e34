/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * What the files of the module share.
 *
 * Everything that is not the kernel's own (allocator, records, protocol) is
 * behind svsm_swiotlb.h, the C interface of the Rust library.
 */
#ifndef SVSM_SWIOTLB_MODULE_H
#define SVSM_SWIOTLB_MODULE_H

#include <linux/atomic.h>
#include <linux/device.h>
#include <linux/types.h>

#include "svsm_swiotlb.h"

/* main.c */

/* The attachment; set before the first device gets the operations. */
extern struct svsm_swiotlb_pool *svsm_pool;
/* First and last address of the window. */
extern u64 svsm_window_first, svsm_window_last;

/*
 * A second window of the attachment, for devices that do not reach the first.
 * Without one its pool is null, it has no bytes, and no address lies in it.
 */
struct svsm_low_window {
	struct svsm_swiotlb_pool *pool;
	u64 first, bytes;
};

extern struct svsm_low_window svsm_low;

/* Last address of the window that ends lower: a device that reaches less is not the pool's. */
extern u64 svsm_least_reach;

static inline bool svsm_in_low_window(u64 address)
{
	return address - svsm_low.first < svsm_low.bytes;
}

/* Whose an address is. What lies in neither window is the first pool's, which names the mistake. */
static inline struct svsm_swiotlb_pool *svsm_pool_at(u64 address)
{
	return unlikely(svsm_in_low_window(address)) ? svsm_low.pool : svsm_pool;
}

/* Largest mapping that drivers are told of, in bytes. */
extern unsigned long svsm_max_mapping;

/* call.c */

/* How a call was made, or why it was not. */
struct svsm_call_counters {
	atomic64_t memory_form;
	atomic64_t msr;
	atomic64_t not_run;
	atomic64_t in_nmi;
	atomic64_t grow_interrupts_off;
};

extern struct svsm_call_counters svsm_call_counters;

int svsm_call_init(const char *path);
void svsm_call_exit(void);
const char *svsm_call_path(void);

/* window.c */

void svsm_low_window_unmap(void);
void svsm_windows_unmap(void);

/* operations.c */

/* Requests that never reach the library, by cause. */
struct svsm_refusals {
	atomic64_t nmi;
	atomic64_t mmio;
	atomic64_t peer_to_peer;
	atomic64_t outside_direct_map;
	atomic64_t bad_unmap;
	atomic64_t bad_sync;
};

extern struct svsm_refusals svsm_refusals;
extern const struct dma_map_ops svsm_dma_ops, svsm_first_dma_ops;

/* devices.c */

int svsm_devices_parameters(const char *devices, const char *rebind);
int svsm_devices_init(void);
void svsm_devices_exit(void);
void svsm_devices_quiet(void);
bool svsm_device_leave(struct device *dev, u64 mask);
unsigned int svsm_devices_driven(void);

/* statistics.c */

void svsm_statistics_init(void);
void svsm_statistics_exit(void);

/* maintenance.c */

void svsm_maintenance_init(unsigned int period_ms);
void svsm_maintenance_stop(void);
int svsm_give_back(void);

#endif
