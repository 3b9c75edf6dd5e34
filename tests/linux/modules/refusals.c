// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * What is refused, what is misuse, and what a refusal leaves behind: nothing.
 */
#include <linux/device.h>
#include <linux/mm.h>
#include <linux/pfn.h>
#include <linux/scatterlist.h>
#include <linux/sizes.h>
#include <linux/slab.h>

#include "map_test.h"

/* Mappings that there are. */
static u64 mappings(void)
{
	return statistic("maps") - statistic("unmaps");
}

static void mmio(struct pci_dev *pdev)
{
	u64 before = statistic("failures_mmio");
	dma_addr_t at;

	if (!check(pci_resource_flags(pdev, 5) & IORESOURCE_MEM, "the device has no memory of its own"))
		return;
	at = dma_map_resource(&pdev->dev, pci_resource_start(pdev, 5), 64, DMA_TO_DEVICE, 0);
	check(dma_mapping_error(&pdev->dev, at), "it is mapped");
	counted("failures_mmio", before, 1);
}

/* The window itself is such memory, and so is what begins in RAM and ends behind it. */
static void outside_direct_map(struct pci_dev *pdev)
{
	u64 before = statistic("failures_outside_direct_map");
	void *buffer = kmalloc(64, GFP_KERNEL);
	dma_addr_t window, at;

	window = dma_map_single(&pdev->dev, buffer, 64, DMA_TO_DEVICE);
	if (!check(!dma_mapping_error(&pdev->dev, window), "it is not mapped"))
		goto free;
	at = map_address(&pdev->dev, window, 64);
	check(dma_mapping_error(&pdev->dev, at), "a part of the window is mapped");
	at = map_address(&pdev->dev, virt_to_phys(buffer), SZ_2G);
	check(dma_mapping_error(&pdev->dev, at), "more than RAM is mapped");
	counted("failures_outside_direct_map", before, 2);
	dma_unmap_single(&pdev->dev, window, 64, DMA_TO_DEVICE);
free:
	kfree(buffer);
}

/* There is no struct page behind the memory. */
static void page_structures(struct pci_dev *pdev)
{
	struct vm_area_struct *area = kzalloc(sizeof(*area), GFP_KERNEL);
	struct sg_table table;
	struct page *page;
	dma_addr_t at;
	void *pointer;
	int error;

	pointer = dma_alloc_coherent(&pdev->dev, SZ_4K, &at, GFP_KERNEL);
	if (!check(pointer && area, "no memory"))
		goto free;
	error = dma_get_sgtable(&pdev->dev, &table, pointer, at, SZ_4K);
	check(error == -ENXIO, "get_sgtable says %d", error);
	error = dma_mmap_coherent(&pdev->dev, area, pointer, at, SZ_4K);
	check(error == -ENXIO, "mmap says %d", error);
free:
	if (pointer)
		dma_free_coherent(&pdev->dev, SZ_4K, pointer, at);
	kfree(area);
	page = dma_alloc_pages(&pdev->dev, SZ_4K, &at, DMA_BIDIRECTIONAL, GFP_KERNEL);
	if (!check(!page, "pages are handed out"))
		dma_free_pages(&pdev->dev, SZ_4K, page, at, DMA_BIDIRECTIONAL);
}

/* One entry of many cannot be mapped: all others are undone. */
static void scatter_gather_undone(struct pci_dev *pdev)
{
	struct scatterlist list[16];
	void *page = (void *)__get_free_page(GFP_KERNEL);
	u64 used = statistic("used_bytes"), before = mappings();
	struct sg_table table = { .sgl = list, .nents = ARRAY_SIZE(list), .orig_nents = ARRAY_SIZE(list) };
	int i, mapped;

	if (!check(page, "no memory"))
		return;
	memset(page, 0x11, PAGE_SIZE);
	sg_init_table(list, ARRAY_SIZE(list));
	for (i = 0; i < ARRAY_SIZE(list); i++)
		sg_set_buf(&list[i], page, PAGE_SIZE);
	list[11].length = SZ_2G;
	mapped = dma_map_sg(&pdev->dev, list, ARRAY_SIZE(list), DMA_FROM_DEVICE);
	check(!mapped, "%d entries are mapped", mapped);
	check(dma_map_sgtable(&pdev->dev, &table, DMA_FROM_DEVICE, 0) < 0, "the table is mapped");
	check(statistic("used_bytes") == used, "%llu bytes stay in use", statistic("used_bytes") - used);
	check(mappings() == before, "%llu mappings stay", mappings() - before);
	check(!memchr_inv(page, 0x11, PAGE_SIZE), "the buffer is changed");
	free_page((unsigned long)page);
}

/* A false unmap is counted and changes nothing: the true one still works. */
static void false_unmaps(struct pci_dev *pdev)
{
	u64 before = statistic("failures_unmap"), used = statistic("used_bytes"), in_use;
	u8 *buffer = kmalloc(SZ_4K, GFP_KERNEL), *seen;
	dma_addr_t at;

	if (!check(buffer, "no memory"))
		return;
	memset(buffer, 0x11, SZ_4K);
	at = dma_map_single(&pdev->dev, buffer, SZ_4K, DMA_FROM_DEVICE);
	if (!check(!dma_mapping_error(&pdev->dev, at), "it is not mapped"))
		goto free;
	seen = view(at, SZ_4K);
	if (seen)
		memset(seen, 0x33, SZ_4K);
	view_end(seen);
	in_use = statistic("used_bytes");

	dma_unmap_single(&pdev->dev, at, SZ_2K, DMA_FROM_DEVICE);
	counted("failures_unmap", before, 1);
	dma_unmap_single(&pdev->dev, at, SZ_4K, DMA_TO_DEVICE);
	counted("failures_unmap", before, 2);
	dma_unmap_single(&pdev->dev, at + SZ_1K, SZ_4K, DMA_FROM_DEVICE);
	counted("failures_unmap", before, 3);
	dma_unmap_single(&pdev->dev, virt_to_phys(buffer), SZ_4K, DMA_FROM_DEVICE);
	counted("failures_unmap", before, 4);
	check(statistic("used_bytes") == in_use, "a false unmap changes what is in use");
	check(!memchr_inv(buffer, 0x11, SZ_4K), "a false unmap copies");

	dma_unmap_single(&pdev->dev, at, SZ_4K, DMA_FROM_DEVICE);
	counted("failures_unmap", before, 4);
	check(!memchr_inv(buffer, 0x33, SZ_4K), "the true unmap does not copy");
	memset(buffer, 0x44, SZ_4K);
	dma_unmap_single(&pdev->dev, at, SZ_4K, DMA_FROM_DEVICE);
	counted("failures_unmap", before, 5);
	check(!memchr_inv(buffer, 0x44, SZ_4K), "the second unmap copies");
	check(statistic("used_bytes") == used, "%llu bytes stay in use", statistic("used_bytes") - used);
free:
	kfree(buffer);
}

static void false_syncs(struct pci_dev *pdev)
{
	u64 before = statistic("failures_sync");
	void *buffer = kmalloc(SZ_4K, GFP_KERNEL);
	dma_addr_t at;

	at = dma_map_single(&pdev->dev, buffer, SZ_4K, DMA_BIDIRECTIONAL);
	if (!check(!dma_mapping_error(&pdev->dev, at), "it is not mapped"))
		goto free;
	dma_sync_single_for_cpu(&pdev->dev, at + SZ_2K, SZ_4K, DMA_BIDIRECTIONAL);
	counted("failures_sync", before, 1);
	dma_sync_single_for_device(&pdev->dev, virt_to_phys(buffer), SZ_4K, DMA_BIDIRECTIONAL);
	counted("failures_sync", before, 2);
	dma_unmap_single(&pdev->dev, at, SZ_4K, DMA_BIDIRECTIONAL);
	dma_sync_single_for_cpu(&pdev->dev, at, SZ_4K, DMA_BIDIRECTIONAL);
	counted("failures_sync", before, 3);
free:
	kfree(buffer);
}

/* Where one page is mapped. */
static dma_addr_t place(struct device *dev, void *buffer)
{
	dma_addr_t at = dma_map_single(dev, buffer, SZ_4K, DMA_TO_DEVICE);

	if (!check(!dma_mapping_error(dev, at), "it is not mapped"))
		return 0;
	dma_unmap_single(dev, at, SZ_4K, DMA_TO_DEVICE);
	return at;
}

/* As if its driver came anew. */
static void attach_again(struct pci_dev *pdev)
{
	device_release_driver(&pdev->dev);
	check(device_attach(&pdev->dev) == 1, "the driver does not come back");
	check(get_dma_ops(&pdev->dev), "the pool does not drive it again");
}

/*
 * A device that does not reach the window is the kernel's, if its driver says
 * so before it has mapped anything; later it is told that this cannot be.
 */
static void narrow_mask(struct pci_dev *pdev)
{
	void *buffer = kmalloc(SZ_4K, GFP_KERNEL);
	/* Ends before the windows: which chunk is the lowest with room changes as others are given back. */
	u64 low = statistic("low_window_start"), devices = statistic("devices"), maps;
	u64 mask = (low ?: statistic("window_start")) - 1;
	dma_addr_t at;

	check(dma_set_mask(&pdev->dev, mask), "the mask %#llx is accepted with buffers beyond it", mask);
	check(place(&pdev->dev, buffer) > mask, "it has left the pool with buffers there");

	attach_again(pdev);
	maps = statistic("maps");
	check(!dma_set_mask_and_coherent(&pdev->dev, mask), "the mask %#llx is refused", mask);
	check(!get_dma_ops(&pdev->dev), "it keeps the pool's operations");
	check(statistic("devices") == devices - 1, "%llu devices of %llu are left", statistic("devices"),
	      devices);
	at = place(&pdev->dev, buffer);
	check(at + SZ_4K - 1 <= mask, "%pad is beyond the mask %#llx", &at, mask);
	check(statistic("maps") == maps, "the pool mapped");

	attach_again(pdev);
	check(!dma_set_mask_and_coherent(&pdev->dev, DMA_BIT_MASK(64)), "a 64-bit mask is refused");
	check(statistic("devices") == devices, "%llu devices instead of %llu", statistic("devices"), devices);
	check(place(&pdev->dev, buffer) > mask, "it is not the pool's again");
	kfree(buffer);
}

const struct map_test refusal_tests[] = {
	{ "mmio", mmio, .reported = true },
	{ "outside-direct-map", outside_direct_map },
	{ "page-structures", page_structures },
	{ "scatter-gather-undone", scatter_gather_undone },
	{ "false-unmaps", false_unmaps, .reported = true },
	{ "false-syncs", false_syncs, .reported = true },
	{ "narrow-mask", narrow_mask },
	MAP_TEST_END
};
