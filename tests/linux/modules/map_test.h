/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * What the files of map_test share.
 *
 * A check notes the first thing that is wrong and goes on, so that each test
 * undoes what it did.
 */
#ifndef MAP_TEST_H
#define MAP_TEST_H

#include <linux/device.h>
#include <linux/dma-map-ops.h>
#include <linux/dma-mapping.h>
#include <linux/pci.h>
#include <linux/types.h>

struct map_test {
	const char *name;
	void (*run)(struct pci_dev *pdev);
	/*
	 * Left out with CONFIG_DMA_API_DEBUG, which reports it: as misuse, for its own
	 * lock (in an NMI), or because it takes a refused resource for a mapped one.
	 */
	bool reported;
};

/* Ends each file's list. */
#define MAP_TEST_END { }

extern const struct map_test data_tests[], constraint_tests[], nmi_tests[], refusal_tests[], disk_tests[];

/* hold.c: uses up the granted memory but for this many KiB, until let_go(). Returns 0 or -ENOMEM. */
int hold(struct pci_dev *pdev, unsigned int kibibytes);
/* The same of one page of the low window. */
int hold_low(struct pci_dev *pdev);
void let_go(struct pci_dev *pdev);

/* support.c */

/* Notes what is wrong, if it is the test's first; returns whether the condition holds. */
__printf(2, 3) bool check(bool holds, const char *format, ...);
/* What check() noted since the last call of this, or null. */
const char *first_failure(void);
/* A number of the module's statistics; U64_MAX where there is none. */
u64 statistic(const char *name);
/* Checks that it rose by so much. */
void counted(const char *name, u64 before, u64 expected);
/* The window as a device sees it; view_end() gives it back. */
void *view(dma_addr_t address, size_t bytes);
void view_end(void *pointer);
/* Maps to the device by physical address, where the kernel has that; else by a page structure that is not there. */
dma_addr_t map_address(struct device *dev, phys_addr_t address, size_t size);
/* Bytes that tell place and seed; a multiple of 8 of them. */
void fill(void *buffer, size_t bytes, u64 seed);
bool filled(const void *buffer, size_t bytes, u64 seed);
/* Physically contiguous memory of up to 128 MiB, in blocks of 4 MiB from there on. */
void *contiguous_get(size_t bytes);
void contiguous_put(void *buffer, size_t bytes);

#endif
