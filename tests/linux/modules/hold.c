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

void let_go(struct pci_dev *pdev)
{
	while (count)
		dma_unmap_single(&pdev->dev, held[--count], SZ_4K, DMA_TO_DEVICE);
	free_page((unsigned long)page);
	page = NULL;
}
