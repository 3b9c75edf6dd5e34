// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * What devices may ask of a mapping's place, and coherent memory.
 */
#include <linux/kernel.h>
#include <linux/log2.h>
#include <linux/mm.h>
#include <linux/sizes.h>
#include <linux/slab.h>
#include <linux/string.h>

#include "map_test.h"

/* Several at a time, so that not all lie at the beginning of something. */
static void map_several(struct device *dev, void *buffer, size_t size,
			void (*judge)(const void *buffer, dma_addr_t at, size_t size))
{
	dma_addr_t list[24];
	int i, count = 0;

	for (i = 0; i < ARRAY_SIZE(list); i++) {
		list[i] = dma_map_single(dev, buffer, size, DMA_TO_DEVICE);
		if (!check(!dma_mapping_error(dev, list[i]), "%zu bytes are not mapped", size))
			break;
		judge(buffer, list[i], size);
		count++;
	}
	for (i = 0; i < count; i++)
		dma_unmap_single(dev, list[i], size, DMA_TO_DEVICE);
}

static void within_64k(const void *buffer, dma_addr_t at, size_t size)
{
	check(!((at ^ (at + size - 1)) & ~(dma_addr_t)(SZ_64K - 1)), "%zu bytes at %pad cross 64 KiB", size,
	      &at);
}

static void segment_boundary(struct pci_dev *pdev)
{
	unsigned long before = dma_get_seg_boundary(&pdev->dev);
	void *buffer = kmalloc(SZ_64K, GFP_KERNEL);

	if (!check(buffer, "no memory"))
		return;
	dma_set_seg_boundary(&pdev->dev, SZ_64K - 1);
	map_several(&pdev->dev, buffer, 1500, within_64k);
	map_several(&pdev->dev, buffer, 40000, within_64k);
	map_several(&pdev->dev, buffer, SZ_64K, within_64k);
	dma_set_seg_boundary(&pdev->dev, before);
	kfree(buffer);
}

static void same_offset(const void *buffer, dma_addr_t at, size_t size)
{
	check(!((at ^ (unsigned long)buffer) & (SZ_4K - 1)), "offset %#lx is not kept in %pad",
	      offset_in_page(buffer), &at);
}

static void offset_kept(struct pci_dev *pdev)
{
	unsigned int before = dma_get_min_align_mask(&pdev->dev);
	void *buffer = (void *)__get_free_pages(GFP_KERNEL, 3);

	if (!check(buffer, "no memory"))
		return;
	dma_set_min_align_mask(&pdev->dev, SZ_4K - 1);
	map_several(&pdev->dev, buffer + 0x234, 64, same_offset);
	map_several(&pdev->dev, buffer + 0xfff, 1500, same_offset);
	map_several(&pdev->dev, buffer + 0x010, 20000, same_offset);
	dma_set_min_align_mask(&pdev->dev, before);
	free_pages((unsigned long)buffer, 3);
}

static void coherent(struct pci_dev *pdev)
{
	static const size_t sizes[] = { 64, SZ_4K, 5000, SZ_64K, SZ_1M, SZ_2M, SZ_4M };
	dma_addr_t at;
	void *pointer;
	int i, round;

	for (i = 0; i < ARRAY_SIZE(sizes); i++) {
		size_t size = sizes[i], align = min_t(size_t, roundup_pow_of_two(PAGE_ALIGN(size)), SZ_2M);

		/* The second time it has been dirty. */
		for (round = 0; round < 2; round++) {
			pointer = dma_alloc_coherent(&pdev->dev, size, &at, GFP_KERNEL);
			if (!check(pointer, "no %zu bytes", size))
				return;
			check(!memchr_inv(pointer, 0, size), "%zu bytes are not zeroed", size);
			check(IS_ALIGNED(at, align), "%zu bytes lie at %pad", size, &at);
			memset(pointer, 0xff, size);
			dma_free_coherent(&pdev->dev, size, pointer, at);
		}
	}
}

#define PIECES 256

/* A driver that never sets the coherent mask has one of 32 bits; this one is narrower still. */
static void coherent_mask(struct pci_dev *pdev)
{
	u64 before = pdev->dev.coherent_dma_mask, mask;
	struct piece {
		void *pointer;
		dma_addr_t at;
	} *list = kcalloc(PIECES, sizeof(*list), GFP_KERNEL);
	int i, count = 0;
	dma_addr_t at;
	void *first;

	first = dma_alloc_coherent(&pdev->dev, SZ_64K, &at, GFP_KERNEL);
	if (!check(list && first, "no memory"))
		goto free;
	/* To the end of this chunk. */
	mask = at | (SZ_2M - 1);
	pdev->dev.coherent_dma_mask = mask;
	for (i = 0; i < PIECES; i++) {
		list[i].pointer = dma_alloc_attrs(&pdev->dev, SZ_64K, &list[i].at, GFP_KERNEL,
						  DMA_ATTR_NO_WARN);
		if (!list[i].pointer)
			break;
		count++;
		check(list[i].at + SZ_64K - 1 <= mask, "%pad is beyond the mask %#llx", &list[i].at, mask);
	}
	check(count, "nothing is found below the mask %#llx", mask);
	while (count--)
		dma_free_coherent(&pdev->dev, SZ_64K, list[count].pointer, list[count].at);
	pdev->dev.coherent_dma_mask = before;
free:
	if (first)
		dma_free_coherent(&pdev->dev, SZ_64K, first, at);
	kfree(list);
}

static void told_limits(struct pci_dev *pdev)
{
	size_t largest = dma_max_mapping_size(&pdev->dev);
	void *buffer = kmalloc(64, GFP_KERNEL);
	dma_addr_t at;

	check(largest >= SZ_2M, "mappings of at most %zu bytes", largest);
	at = dma_map_single(&pdev->dev, buffer, 64, DMA_TO_DEVICE);
	if (check(!dma_mapping_error(&pdev->dev, at), "it is not mapped")) {
		check(at <= dma_get_required_mask(&pdev->dev), "%pad is beyond the mask asked for", &at);
		dma_unmap_single(&pdev->dev, at, 64, DMA_TO_DEVICE);
	}
	kfree(buffer);
}

static bool in_low_window(dma_addr_t at, size_t size)
{
	u64 start = statistic("low_window_start");

	return at >= start && at + size <= start + statistic("low_window_bytes");
}

/*
 * A device that reaches the low window and not all of the first: its mappings
 * and its coherent memory lie there, and those it had elsewhere end as before.
 * On a machine with one window there is nothing to see.
 */
static void low_window(struct pci_dev *pdev)
{
	u64 bytes = statistic("low_window_bytes"), mask, devices = statistic("devices");
	dma_addr_t before, at, again, coherent_at;
	u8 *buffer, *seen;
	void *pointer;

	if (!bytes)
		return;
	mask = statistic("low_window_start") + bytes - 1;
	if (statistic("window_start") > DMA_BIT_MASK(32))
		mask = DMA_BIT_MASK(32);
	buffer = kmalloc(20000, GFP_KERNEL);
	if (!check(buffer, "no memory"))
		return;
	fill(buffer, 20000, 7);
	before = dma_map_single(&pdev->dev, buffer, 20000, DMA_TO_DEVICE);
	if (!check(!dma_mapping_error(&pdev->dev, before), "it is not mapped"))
		goto free;
	check(!in_low_window(before, 20000), "a wide device's mapping is at %pad", &before);

	check(!dma_set_mask_and_coherent(&pdev->dev, mask), "the mask %#llx is refused", mask);
	check(statistic("devices") == devices, "the device has left");
	check(dma_max_mapping_size(&pdev->dev) <= bytes / 2, "it is told of %zu bytes",
	      dma_max_mapping_size(&pdev->dev));
	at = dma_map_single(&pdev->dev, buffer, 20000, DMA_BIDIRECTIONAL);
	if (check(!dma_mapping_error(&pdev->dev, at), "it is not mapped below %#llx", mask)) {
		check(in_low_window(at, 20000), "%pad is not in the low window", &at);
		seen = view(at, 20000);
		if (seen) {
			check(filled(seen, 20000, 7), "the device reads something else");
			fill(seen, 20000, 8);
		}
		view_end(seen);
		again = map_address(&pdev->dev, at, 64);
		check(dma_mapping_error(&pdev->dev, again), "a part of the low window is mapped");
		dma_sync_single_for_cpu(&pdev->dev, at, 20000, DMA_BIDIRECTIONAL);
		check(filled(buffer, 20000, 8), "a sync brings something else");
		fill(buffer, 20000, 9);
		dma_sync_single_for_device(&pdev->dev, at, 20000, DMA_BIDIRECTIONAL);
		dma_unmap_single(&pdev->dev, at, 20000, DMA_BIDIRECTIONAL);
		check(filled(buffer, 20000, 9), "an unmap brings something else");
	}
	pointer = dma_alloc_coherent(&pdev->dev, SZ_64K, &coherent_at, GFP_KERNEL);
	if (check(pointer, "no coherent memory below %#llx", mask)) {
		check(in_low_window(coherent_at, SZ_64K), "coherent memory is at %pad", &coherent_at);
		dma_free_coherent(&pdev->dev, SZ_64K, pointer, coherent_at);
	}
	check(!statistic("low_used_bytes"), "%llu bytes are left there", statistic("low_used_bytes"));
	check(statistic("low_maps") && statistic("low_maps") == statistic("low_unmaps"), "%llu maps, %llu unmaps",
	      statistic("low_maps"), statistic("low_unmaps"));

	dma_unmap_single(&pdev->dev, before, 20000, DMA_TO_DEVICE);
	check(!dma_set_mask_and_coherent(&pdev->dev, DMA_BIT_MASK(64)), "a 64-bit mask is refused");
free:
	kfree(buffer);
}

const struct map_test constraint_tests[] = {
	{ "segment-boundary", segment_boundary },
	{ "offset-kept", offset_kept },
	{ "coherent", coherent },
	{ "coherent-mask", coherent_mask },
	{ "told-limits", told_limits },
	{ "low-window", low_window },
	MAP_TEST_END
};
