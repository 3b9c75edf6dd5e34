// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * Keeps memory of the pool in use until the module is unloaded, so that what
 * others need is not there.
 */
#include <linux/kernel.h>
#include <linux/mm.h>
#include <linux/sizes.h>

#include "map_test.h"

static dma_addr_t held[64];
static unsigned int count;
static void *buffer;

int hold(struct pci_dev *pdev, unsigned int mebibytes)
{
	buffer = contiguous_get(SZ_1M);
	while (buffer && count < min_t(unsigned int, mebibytes, ARRAY_SIZE(held))) {
		held[count] = dma_map_single(&pdev->dev, buffer, SZ_1M, DMA_TO_DEVICE);
		if (dma_mapping_error(&pdev->dev, held[count])) {
			let_go(pdev);
			return -ENOMEM;
		}
		count++;
	}
	return buffer ? 0 : -ENOMEM;
}

void let_go(struct pci_dev *pdev)
{
	while (count)
		dma_unmap_single(&pdev->dev, held[--count], SZ_1M, DMA_TO_DEVICE);
	contiguous_put(buffer, SZ_1M);
	buffer = NULL;
}
