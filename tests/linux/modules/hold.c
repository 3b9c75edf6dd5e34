// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * Keeps memory of the pool in use until the module is unloaded, so that what
 * others need is not there.
 */
#include <linux/gfp.h>
#include <linux/kernel.h>
#include <linux/sizes.h>

#include "map_test.h"

/* Smallest pieces that are not shared out further, so that no hole is left for lack of a larger one. */
static dma_addr_t held[SZ_16M / SZ_4K];
static unsigned int count;
static void *page;

int hold(struct pci_dev *pdev, unsigned int kibibytes)
{
	page = (void *)__get_free_page(GFP_KERNEL);
	while (page && count < ARRAY_SIZE(held) &&
	       statistic("granted_bytes") - statistic("used_bytes") > (u64)kibibytes * SZ_1K) {
		held[count] = dma_map_single(&pdev->dev, page, SZ_4K, DMA_TO_DEVICE);
		if (dma_mapping_error(&pdev->dev, held[count])) {
			let_go(pdev);
			return -ENOMEM;
		}
		count++;
	}
	return page ? 0 : -ENOMEM;
}

/* One page, and so a chunk, of the low window. */
int hold_low(struct pci_dev *pdev)
{
	u64 first = statistic("low_window_start"), bytes = statistic("low_window_bytes");

	page = (void *)__get_free_page(GFP_KERNEL);
	if (!page || !bytes || dma_set_mask_and_coherent(&pdev->dev, first + bytes - 1))
		goto none;
	held[0] = dma_map_single(&pdev->dev, page, SZ_4K, DMA_TO_DEVICE);
	if (dma_mapping_error(&pdev->dev, held[0]))
		goto none;
	count = 1;
	if (held[0] >= first && held[0] < first + bytes)
		return 0;
none:
	let_go(pdev);
	return -ENOMEM;
}

void let_go(struct pci_dev *pdev)
{
	while (count)
		dma_unmap_single(&pdev->dev, held[--count], SZ_4K, DMA_TO_DEVICE);
	free_page((unsigned long)page);
	page = NULL;
}
