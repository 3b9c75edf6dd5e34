// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * Large requests of a real driver: one bio of physically contiguous memory,
 * which reaches the DMA operations in one piece if the driver was told that it
 * may. The disk's MiB each begin with their number and end with its complement.
 */
#include <linux/bio.h>
#include <linux/blkdev.h>
#include <linux/err.h>
#include <linux/mm.h>
#include <linux/sizes.h>

#include "map_test.h"

#define DISK "/dev/vda"
/* A virtio-blk request has a header, the data, a status and the list of these. */
#define PARTS 4

static void read_disk(size_t bytes)
{
	struct file *disk = bdev_file_open_by_path(DISK, BLK_OPEN_READ, NULL, NULL);
	u64 maps, *words, last = SZ_1M / sizeof(u64) - 1;
	struct bio_vec vector;
	struct bio bio;
	void *buffer;
	size_t i;
	int error;

	if (!check(!IS_ERR(disk), "%s cannot be opened", DISK))
		return;
	buffer = contiguous_get(bytes);
	if (!buffer)
		goto close;
	memset(buffer, 0x11, bytes);
	maps = statistic("maps");
	bio_init(&bio, file_bdev(disk), &vector, 1, REQ_OP_READ);
	__bio_add_page(&bio, virt_to_page(buffer), bytes, 0);
	error = submit_bio_wait(&bio);
	bio_uninit(&bio);
	maps = statistic("maps") - maps;
	check(!error, "a read of %zu bytes: error %d", bytes, error);
	check(maps == PARTS, "%llu maps for a request of %zu bytes", maps, bytes);
	for (i = 0; i < bytes / SZ_1M; i++) {
		words = buffer + i * SZ_1M;
		if (!check(words[0] == i && words[last] == ~(u64)i, "MiB %zu of %zu bytes is wrong", i,
			   bytes))
			break;
	}
	contiguous_put(buffer, bytes);
close:
	bdev_fput(disk);
}

static void disk_2m(struct pci_dev *unused)
{
	read_disk(SZ_2M);
}

static void disk_16m(struct pci_dev *unused)
{
	read_disk(SZ_16M);
}

static void disk_128m(struct pci_dev *unused)
{
	read_disk(SZ_128M);
}

const struct map_test disk_tests[] = {
	{ "disk-2m", disk_2m },
	{ "disk-16m", disk_16m },
	{ "disk-128m", disk_128m },
	MAP_TEST_END
};
