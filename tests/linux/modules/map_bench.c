// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * What map and unmap cost in instructions: through the pool, on a PCI device
 * that no other driver has claimed, and through the kernel's own swiotlb, on
 * a device of this module's that has no DMA operations.
 *
 * The time stamp counter is read. Where QEMU counts instructions (-icount) it
 * advances by the same number for each, which is measured first; elsewhere
 * the module says so and refuses to load.
 *
 * What a copy takes is no matter of the allocator, and the two copy by
 * different instructions, which QEMU counts very differently. So each copy is
 * measured where it is made, as the difference between an unmap that copies
 * and one that is told to skip it, and subtracted. What swiotlb does around
 * its copy counts as the copy then, which is to its advantage.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/dma-map-ops.h>
#include <linux/dma-mapping.h>
#include <linux/gfp.h>
#include <linux/kernel.h>
#include <linux/math64.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/pci.h>
#include <linux/platform_device.h>
#include <linux/sizes.h>
#include <linux/vmalloc.h>
#include <asm/msr.h>
#include <asm/tsc.h>

#include "claimed_device.h"

/*
 * Measurements of each kind: swiotlb takes its slots in turn, and what that
 * costs depends on their place among 128. The mean is of every place as often.
 */
#define ROUNDS 256
/* Largest size, and the end of the list: one of each size at a time. */
#define LARGEST SZ_256K
#define MIX 0

static const size_t sizes[] = { 64, 1500, SZ_4K, SZ_64K, LARGEST, MIX };
#define KINDS (ARRAY_SIZE(sizes) - 1)

/* What the copy is computed from. */
enum { TO_DEVICE, FROM_DEVICE_SKIP, FROM_DEVICE };

/* A pair of map and unmap, and how many copies are in it. */
static const struct way {
	const char *name;
	enum dma_data_direction direction;
	unsigned long unmap_attrs;
	unsigned int copies;
} ways[] = {
	[TO_DEVICE] = { "to-device", DMA_TO_DEVICE, 0, 1 },
	/* As a driver that syncs what was received. */
	[FROM_DEVICE_SKIP] = { "from-device-skip", DMA_FROM_DEVICE, DMA_ATTR_SKIP_CPU_SYNC, 1 },
	[FROM_DEVICE] = { "from-device", DMA_FROM_DEVICE, 0, 2 },
};

static const char *const fills[] = { "empty", "90", "f90" };

/* Instructions of a pair, copies and all; 0: it failed. */
struct figure {
	u64 best, mean, worst;
};

static struct figure figures[2][ARRAY_SIZE(fills)][ARRAY_SIZE(ways)][ARRAY_SIZE(sizes)];
static const char *const names[] = { "pool", "swiotlb" };

static void *buffer;
/* Ticks of an instruction, and of reading the counter twice. */
static u64 ticks_each, ticks_empty;

/* ---- counting ---- */

static __always_inline u64 ticks_since(u64 start)
{
	return rdtsc() - start;
}

/* Two instructions a turn. */
static noinline u64 loop_ticks(unsigned long turns)
{
	u64 start = rdtsc();

	asm volatile("1: dec %0\n\tjnz 1b" : "+r"(turns) : : "cc");
	return ticks_since(start);
}

static u64 least_loop_ticks(unsigned long turns)
{
	u64 least = U64_MAX;
	unsigned long flags;
	int i;

	for (i = 0; i < 8; i++) {
		local_irq_save(flags);
		least = min(least, loop_ticks(turns));
		local_irq_restore(flags);
	}
	return least;
}

static noinline u64 no_ticks(void)
{
	u64 start = rdtsc();

	return ticks_since(start);
}

/*
 * A counter of instructions takes exactly twice as long for twice as many,
 * whatever it begins with, and the same each time.
 */
static bool calibrate(void)
{
	const unsigned long turns = 10000;
	u64 one = least_loop_ticks(turns);
	u64 two = least_loop_ticks(2 * turns);
	u64 three = least_loop_ticks(3 * turns);

	ticks_each = div64_u64(two - one, 2 * turns);
	ticks_empty = no_ticks();
	pr_info("calibration turns=%lu ticks=%llu,%llu,%llu each=%llu empty=%llu\n", turns, one, two, three,
		ticks_each, ticks_empty);
	return ticks_each && two - one == ticks_each * 2 * turns && three - two == two - one;
}

static u64 instructions(u64 ticks)
{
	return div64_u64(ticks - min(ticks, ticks_empty), ticks_each);
}

/* ---- one figure ---- */

/* Maps and unmaps those of `count` sizes; ticks, or 0 if one failed. */
static u64 pair(struct device *dev, const struct way *way, const size_t *list, unsigned int count)
{
	dma_addr_t at[KINDS];
	u64 start, ticks = 0;
	unsigned long flags;
	unsigned int i, mapped;

	local_irq_save(flags);
	start = rdtsc();
	for (mapped = 0; mapped < count; mapped++) {
		at[mapped] = dma_map_single_attrs(dev, buffer, list[mapped], way->direction,
						  DMA_ATTR_NO_WARN);
		if (dma_mapping_error(dev, at[mapped]))
			break;
	}
	for (i = 0; i < mapped; i++)
		dma_unmap_single_attrs(dev, at[i], list[i], way->direction, way->unmap_attrs);
	ticks = ticks_since(start);
	local_irq_restore(flags);
	return mapped == count ? ticks : 0;
}

static struct figure measure(struct device *dev, const struct way *way, size_t size)
{
	const size_t *list = size == MIX ? sizes : &size;
	unsigned int count = size == MIX ? KINDS : 1, i;
	struct figure figure = { .best = U64_MAX };

	for (i = 0; i < ROUNDS; i++) {
		u64 ticks = pair(dev, way, list, count);
		u64 each = div64_u64(instructions(ticks), count);

		if (!ticks)
			return (struct figure) { };
		figure.best = min(figure.best, each);
		figure.worst = max(figure.worst, each);
		figure.mean += each;
	}
	figure.mean = div64_u64(figure.mean, ROUNDS);
	return figure;
}

/* ---- filling ---- */

static void unmap_some(struct device *dev, dma_addr_t *list, size_t from, size_t to)
{
	for (; from < to; from++) {
		if (list[from] != DMA_MAPPING_ERROR)
			dma_unmap_single(dev, list[from], SZ_4K, DMA_TO_DEVICE);
		list[from] = DMA_MAPPING_ERROR;
	}
}

/* Maps pages until nothing is left. */
static size_t map_all(struct device *dev, dma_addr_t *list, size_t most)
{
	size_t count;

	for (count = 0; count < most; count++) {
		list[count] = dma_map_single_attrs(dev, buffer, SZ_4K, DMA_TO_DEVICE, DMA_ATTR_NO_WARN);
		if (dma_mapping_error(dev, list[count]))
			break;
	}
	return count;
}

/* Most pages of 4 KiB that either of them can hold here: 256 MiB. */
#define MOST_PAGES (SZ_256M / SZ_4K)

static int measure_device(struct device *dev, bool swiotlb)
{
	dma_addr_t *list = vmalloc(MOST_PAGES * sizeof(*list));
	size_t count, at;
	int fill, way, size;

	if (!list)
		return -ENOMEM;
	/* What is done once is done: growth, first use of a class of sizes. */
	for (size = 0; size < ARRAY_SIZE(sizes); size++)
		measure(dev, &ways[0], sizes[size]);
	for (fill = 0; fill < ARRAY_SIZE(fills); fill++) {
		count = fill ? map_all(dev, list, MOST_PAGES) : 0;
		if (count == MOST_PAGES)
			pr_warn("%s is not full with %zu pages\n", names[swiotlb], count);
		if (fill == 1) {
			/* All at the end is free. */
			unmap_some(dev, list, count - count / 10, count);
		} else {
			/* Holes of 64 KiB. */
			for (at = 0; at + 16 <= count; at += 160)
				unmap_some(dev, list, at, at + 16);
		}
		if (count)
			pr_info("%s filled pages=%zu fill=%s\n", names[swiotlb], count, fills[fill]);
		for (way = 0; way < ARRAY_SIZE(ways); way++) {
			for (size = 0; size < ARRAY_SIZE(sizes); size++)
				figures[swiotlb][fill][way][size] = measure(dev, &ways[way], sizes[size]);
		}
		unmap_some(dev, list, 0, count);
	}
	vfree(list);
	return 0;
}

/* ---- the report ---- */

/* Instructions of one copy. */
static u64 copy_of(int whose, int fill, int size)
{
	u64 with = figures[whose][fill][FROM_DEVICE][size].mean;
	u64 without = figures[whose][fill][FROM_DEVICE_SKIP][size].mean;

	return with - min(with, without);
}

/* Without the copies. */
static u64 own(int whose, int fill, int way, int size, u64 whole)
{
	return whole - min(whole, ways[way].copies * copy_of(whose, fill, size));
}

static void print_figure(int fill, int way, int size)
{
	const struct figure *pool = &figures[0][fill][way][size], *swiotlb = &figures[1][fill][way][size];
	u64 ours = own(0, fill, way, size, pool->mean), theirs = own(1, fill, way, size, swiotlb->mean);
	u64 thousandths = theirs ? div64_u64(1000 * ours, theirs) : 0;
	char what[16];

	snprintf(what, sizeof(what), "%zu", sizes[size]);
	pr_info("size=%s way=%s fill=%s pool=%llu swiotlb=%llu ratio=%llu.%03llu pool_best=%llu swiotlb_best=%llu pool_worst=%llu swiotlb_worst=%llu pool_copy=%llu swiotlb_copy=%llu%s%s\n",
		sizes[size] == MIX ? "mix" : what, ways[way].name, fills[fill], ours, theirs,
		thousandths / 1000, thousandths % 1000, own(0, fill, way, size, pool->best),
		own(1, fill, way, size, swiotlb->best), own(0, fill, way, size, pool->worst),
		own(1, fill, way, size, swiotlb->worst), copy_of(0, fill, size), copy_of(1, fill, size),
		pool->mean ? "" : " pool_failed", swiotlb->mean ? "" : " swiotlb_failed");
}

static void report(void)
{
	int fill, way, size;

	for (fill = 0; fill < ARRAY_SIZE(fills); fill++) {
		for (way = 0; way < ARRAY_SIZE(ways); way++) {
			for (size = 0; size < ARRAY_SIZE(sizes); size++)
				print_figure(fill, way, size);
		}
	}
	pr_info("done\n");
}

/* ---- devices ---- */

/* The SMBus controller, of which nothing is asked. */
CLAIM_DEVICE({ PCI_VDEVICE(INTEL, 0x2930) });

static int measure_both(void)
{
	struct platform_device *pdev;
	int error;

	if (!claimed || !get_dma_ops(&claimed->dev)) {
		pr_err("failed %s\n", claimed ? "the pool does not drive the device" : "there is no device");
		return -ENODEV;
	}
	pdev = platform_device_register_simple(KBUILD_MODNAME, PLATFORM_DEVID_NONE, NULL, 0);
	if (IS_ERR(pdev))
		return PTR_ERR(pdev);
	error = dma_set_mask_and_coherent(&pdev->dev, DMA_BIT_MASK(64)) ?:
		dma_set_mask_and_coherent(&claimed->dev, DMA_BIT_MASK(64)) ?:
		measure_device(&claimed->dev, false) ?:
		measure_device(&pdev->dev, true);
	platform_device_unregister(pdev);
	return error;
}

static int __init map_bench_init(void)
{
	int error;

	if (!calibrate()) {
		pr_err("failed the time stamp counter does not count instructions; start QEMU with -icount\n");
		return -EINVAL;
	}
	buffer = (void *)__get_free_pages(GFP_KERNEL, get_order(LARGEST));
	error = buffer ? pci_register_driver(&driver) : -ENOMEM;
	if (!error) {
		error = measure_both();
		pci_unregister_driver(&driver);
	}
	free_pages((unsigned long)buffer, get_order(LARGEST));
	if (!error)
		report();
	return error;
}

static void __exit map_bench_exit(void)
{
}

module_init(map_bench_init);
module_exit(map_bench_exit);
MODULE_LICENSE("Dual MIT/GPL");
MODULE_DESCRIPTION("Instructions of map and unmap: svsm_swiotlb beside the kernel's swiotlb");
MODULE_AUTHOR("The svsm-swiotlb authors");
