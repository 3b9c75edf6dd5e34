// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * Bytes get where they belong: sizes, directions, partial and simultaneous
 * syncs, skipped copies, growth with interrupts off.
 */
#include <linux/cpu.h>
#include <linux/cpumask.h>
#include <linux/mm.h>
#include <linux/scatterlist.h>
#include <linux/sizes.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/workqueue.h>

#include "map_test.h"

/* The bytes of a buffer that lie beside a mapping are the driver's. */
static void odd_sizes(struct pci_dev *pdev)
{
	static const size_t sizes[] = { 1, 3, 63, 64, 65, 511, 1500, 4095, 4097, 9000 };
	u8 *buffer = (u8 *)__get_free_pages(GFP_KERNEL, 2);
	unsigned int i;
	dma_addr_t at;
	u8 *seen;

	if (!check(buffer, "no memory"))
		return;
	for (i = 0; i < ARRAY_SIZE(sizes); i++) {
		size_t size = sizes[i];

		memset(buffer, 0x11, SZ_16K);
		memset(buffer + 33, 0x22, size);
		at = dma_map_single(&pdev->dev, buffer + 33, size, DMA_BIDIRECTIONAL);
		if (!check(!dma_mapping_error(&pdev->dev, at), "%zu bytes are not mapped", size))
			break;
		seen = view(at, size);
		if (seen) {
			check(!memchr_inv(seen, 0x22, size), "%zu bytes do not reach the device", size);
			memset(seen, 0x33, size);
		}
		dma_unmap_single(&pdev->dev, at, size, DMA_BIDIRECTIONAL);
		check(!memchr_inv(buffer + 33, 0x33, size), "%zu bytes do not come back", size);
		check(!memchr_inv(buffer, 0x11, 33) &&
		      !memchr_inv(buffer + 33 + size, 0x11, SZ_16K - 33 - size),
		      "bytes beside a mapping of %zu are changed", size);
		view_end(seen);
	}
	free_pages((unsigned long)buffer, 2);
}

static void partial_syncs(struct pci_dev *pdev)
{
	size_t bytes = SZ_16K, part = 1000, from = 5000;
	u8 *buffer = kmalloc(bytes, GFP_KERNEL), *seen;
	dma_addr_t at;

	if (!check(buffer, "no memory"))
		return;
	memset(buffer, 0x11, bytes);
	at = dma_map_single(&pdev->dev, buffer, bytes, DMA_BIDIRECTIONAL);
	if (!check(!dma_mapping_error(&pdev->dev, at), "it is not mapped"))
		goto free;
	check(dma_need_sync(&pdev->dev, at), "its driver is told that it needs no syncs");
	seen = view(at, bytes);
	if (seen) {
		memset(buffer, 0x22, bytes);
		dma_sync_single_range_for_device(&pdev->dev, at, from, part, DMA_BIDIRECTIONAL);
		check(!memchr_inv(seen + from, 0x22, part), "the part does not reach the device");
		check(!memchr_inv(seen, 0x11, from) &&
		      !memchr_inv(seen + from + part, 0x11, bytes - from - part),
		      "bytes beside the part reach the device");
		memset(seen, 0x33, bytes);
		dma_sync_single_range_for_cpu(&pdev->dev, at, from, part, DMA_BIDIRECTIONAL);
		check(!memchr_inv(buffer + from, 0x33, part), "the part does not come back");
		check(!memchr_inv(buffer, 0x22, from) &&
		      !memchr_inv(buffer + from + part, 0x22, bytes - from - part),
		      "bytes beside the part come back");
	}
	view_end(seen);
	dma_unmap_single(&pdev->dev, at, bytes, DMA_BIDIRECTIONAL);
	check(!memchr_inv(buffer, 0x33, bytes), "not all comes back in the end");
free:
	kfree(buffer);
}

#define SYNCS 4000

struct syncer {
	struct work_struct work;
	struct device *dev;
	dma_addr_t at;
	size_t bytes;
	atomic_t *waiting;
};

static void sync_often(struct work_struct *work)
{
	struct syncer *syncer = container_of(work, struct syncer, work);
	unsigned int i;

	/* All begin together. */
	atomic_dec(syncer->waiting);
	while (atomic_read(syncer->waiting))
		cpu_relax();
	for (i = 0; i < SYNCS; i++) {
		dma_sync_single_for_device(syncer->dev, syncer->at, syncer->bytes, DMA_BIDIRECTIONAL);
		dma_sync_single_for_cpu(syncer->dev, syncer->at, syncer->bytes, DMA_BIDIRECTIONAL);
	}
}

/* The kernel's sync operations return nothing, so one that fails loses data. */
static void simultaneous_syncs(struct pci_dev *pdev)
{
	struct syncer *syncers = kcalloc(nr_cpu_ids, sizeof(*syncers), GFP_KERNEL);
	u64 failures = statistic("failures_sync"), syncs = statistic("syncs");
	u8 *buffer = kmalloc(SZ_4K, GFP_KERNEL);
	unsigned int cpu, count = 0;
	atomic_t waiting;
	dma_addr_t at;

	if (!check(syncers && buffer, "no memory"))
		goto free;
	fill(buffer, SZ_4K, 1);
	at = dma_map_single(&pdev->dev, buffer, SZ_4K, DMA_BIDIRECTIONAL);
	if (!check(!dma_mapping_error(&pdev->dev, at), "it is not mapped"))
		goto free;
	cpus_read_lock();
	atomic_set(&waiting, num_online_cpus());
	for_each_online_cpu(cpu) {
		syncers[cpu] = (struct syncer) {
			.dev = &pdev->dev, .at = at, .bytes = SZ_4K, .waiting = &waiting,
		};
		INIT_WORK(&syncers[cpu].work, sync_often);
		schedule_work_on(cpu, &syncers[cpu].work);
		count++;
	}
	for_each_online_cpu(cpu)
		flush_work(&syncers[cpu].work);
	cpus_read_unlock();
	dma_unmap_single(&pdev->dev, at, SZ_4K, DMA_BIDIRECTIONAL);
	filled(buffer, SZ_4K, 1);
	check(statistic("failures_sync") == failures, "%llu syncs failed",
	      statistic("failures_sync") - failures);
	check(statistic("syncs") == syncs + 2ULL * SYNCS * count, "%llu syncs of %u CPUs were made",
	      statistic("syncs") - syncs, count);
free:
	kfree(buffer);
	kfree(syncers);
}

/* What the device does not write comes back as it was, never as another mapping's bytes. */
static void skipped_copies(struct pci_dev *pdev)
{
	size_t bytes = SZ_8K, written = 100;
	u8 *buffer = kmalloc(bytes, GFP_KERNEL), *seen;
	unsigned long attrs;
	dma_addr_t at;

	if (!check(buffer, "no memory"))
		return;
	/* The bytes of another mapping, at the place that the next one gets. */
	memset(buffer, 0xee, bytes);
	at = dma_map_single(&pdev->dev, buffer, bytes, DMA_TO_DEVICE);
	if (check(!dma_mapping_error(&pdev->dev, at), "it is not mapped"))
		dma_unmap_single(&pdev->dev, at, bytes, DMA_TO_DEVICE);
	for (attrs = 0; attrs <= DMA_ATTR_SKIP_CPU_SYNC; attrs += DMA_ATTR_SKIP_CPU_SYNC) {
		memset(buffer, 0x11, bytes);
		at = dma_map_single_attrs(&pdev->dev, buffer, bytes, DMA_FROM_DEVICE, DMA_ATTR_SKIP_CPU_SYNC);
		if (!check(!dma_mapping_error(&pdev->dev, at), "it is not mapped"))
			break;
		seen = view(at, bytes);
		if (seen)
			memset(seen, 0x33, written);
		view_end(seen);
		dma_unmap_single_attrs(&pdev->dev, at, bytes, DMA_FROM_DEVICE, attrs);
		check(!memchr_inv(buffer, attrs ? 0x11 : 0x33, written), "what the device wrote %s",
		      attrs ? "comes back unasked" : "does not come back");
		check(!memchr_inv(buffer + written, 0x11, bytes - written),
		      "what the device did not write is changed");
	}
	kfree(buffer);
}

static void scatter_gather(struct pci_dev *pdev)
{
	struct scatterlist list[12], *entry;
	void *pages[ARRAY_SIZE(list)] = { }, *seen;
	int i, mapped;

	sg_init_table(list, ARRAY_SIZE(list));
	for (i = 0; i < ARRAY_SIZE(list); i++) {
		pages[i] = (void *)__get_free_page(GFP_KERNEL);
		if (!check(pages[i], "no memory"))
			goto free;
		fill(pages[i], PAGE_SIZE, i);
		/* Parts that begin and end in the middle. */
		sg_set_buf(&list[i], pages[i] + 8 * i, PAGE_SIZE - 16 * i);
	}
	mapped = dma_map_sg(&pdev->dev, list, ARRAY_SIZE(list), DMA_BIDIRECTIONAL);
	if (!check(mapped == ARRAY_SIZE(list), "%d entries are mapped", mapped))
		goto free;
	for_each_sg(list, entry, mapped, i) {
		check(sg_dma_len(entry) == PAGE_SIZE - 16 * i, "entry %d has %u bytes", i, sg_dma_len(entry));
		seen = view(sg_dma_address(entry), sg_dma_len(entry));
		if (seen) {
			check(!memcmp(seen, pages[i] + 8 * i, sg_dma_len(entry)),
			      "entry %d does not reach the device", i);
			fill(seen, sg_dma_len(entry), 100 + i);
		}
		view_end(seen);
	}
	dma_sync_sg_for_cpu(&pdev->dev, list, mapped / 2, DMA_BIDIRECTIONAL);
	for (i = 0; i < mapped / 2; i++)
		filled(pages[i] + 8 * i, PAGE_SIZE - 16 * i, 100 + i);
	dma_unmap_sg(&pdev->dev, list, ARRAY_SIZE(list), DMA_BIDIRECTIONAL);
	for (i = 0; i < mapped; i++)
		filled(pages[i] + 8 * i, PAGE_SIZE - 16 * i, 100 + i);
free:
	for (i = 0; i < ARRAY_SIZE(list); i++)
		free_page((unsigned long)pages[i]);
}

/* The buffer is mapped often enough to need more than is granted. */
static void growth_without_interrupts(struct pci_dev *pdev)
{
	u64 before = statistic("calls_grow_interrupts_off"), growths = statistic("growths");
	u64 room = statistic("granted_bytes") - statistic("used_bytes");
	size_t bytes = SZ_1M, count = room / bytes + 4, i, mapped = 0;
	dma_addr_t *list = kcalloc(count, sizeof(*list), GFP_KERNEL);
	void *buffer = contiguous_get(bytes);
	unsigned long flags;

	if (!check(list && buffer, "no memory"))
		goto free;
	local_irq_save(flags);
	for (i = 0; i < count; i++) {
		list[i] = dma_map_single(&pdev->dev, buffer, bytes, DMA_TO_DEVICE);
		if (dma_mapping_error(&pdev->dev, list[i]))
			break;
		mapped++;
	}
	local_irq_restore(flags);
	check(mapped == count, "%zu of %zu are mapped", mapped, count);
	for (i = 0; i < mapped; i++)
		dma_unmap_single(&pdev->dev, list[i], bytes, DMA_TO_DEVICE);
	check(statistic("growths") > growths, "the pool did not grow");
	check(statistic("calls_grow_interrupts_off") > before, "no call was made with interrupts off");
free:
	contiguous_put(buffer, bytes);
	kfree(list);
}

static void in_one_piece(struct pci_dev *pdev, size_t bytes)
{
	void *buffer = contiguous_get(bytes), *seen;
	dma_addr_t at;

	if (!buffer)
		return;
	fill(buffer, bytes, 1);
	at = dma_map_single(&pdev->dev, buffer, bytes, DMA_TO_DEVICE);
	if (!check(!dma_mapping_error(&pdev->dev, at), "it is not mapped to the device"))
		goto free;
	seen = view(at, bytes);
	filled(seen, bytes, 1);
	view_end(seen);
	dma_unmap_single(&pdev->dev, at, bytes, DMA_TO_DEVICE);

	at = dma_map_single(&pdev->dev, buffer, bytes, DMA_FROM_DEVICE);
	if (!check(!dma_mapping_error(&pdev->dev, at), "it is not mapped from the device"))
		goto free;
	seen = view(at, bytes);
	fill(seen, bytes, 2);
	view_end(seen);
	dma_unmap_single(&pdev->dev, at, bytes, DMA_FROM_DEVICE);
	filled(buffer, bytes, 2);
free:
	contiguous_put(buffer, bytes);
}

static void large_2m(struct pci_dev *pdev)
{
	in_one_piece(pdev, SZ_2M);
}

static void large_16m(struct pci_dev *pdev)
{
	in_one_piece(pdev, SZ_16M);
}

static void large_128m(struct pci_dev *pdev)
{
	in_one_piece(pdev, SZ_128M);
}

const struct map_test data_tests[] = {
	{ "odd-sizes", odd_sizes },
	{ "partial-syncs", partial_syncs },
	{ "simultaneous-syncs", simultaneous_syncs },
	{ "skipped-copies", skipped_copies },
	{ "scatter-gather", scatter_gather },
	{ "growth-without-interrupts", growth_without_interrupts },
	{ "large-2m", large_2m },
	{ "large-16m", large_16m },
	{ "large-128m", large_128m },
	MAP_TEST_END
};
