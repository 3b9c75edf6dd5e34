// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * What the tests need: a first failure, the module's statistics, the device's
 * view of the window, patterns and large contiguous memory.
 */
#include <linux/fs.h>
#include <linux/gfp.h>
#include <linux/io.h>
#include <linux/kernel.h>
#include <linux/mm.h>
#include <linux/pfn.h>
#include <linux/seq_file.h>
#include <linux/sizes.h>
#include <linux/slab.h>
#include <linux/sort.h>
#include <linux/string.h>
#include <linux/uio.h>

#include "map_test.h"

#define STATISTICS "/sys/kernel/debug/svsm_swiotlb/statistics"
/* Largest block of the page allocator. */
#define BLOCK_BYTES (PAGE_SIZE << MAX_PAGE_ORDER)

static char failure[200];

bool check(bool holds, const char *format, ...)
{
	va_list arguments;

	if (holds || failure[0])
		return holds;
	va_start(arguments, format);
	vscnprintf(failure, sizeof(failure), format, arguments);
	va_end(arguments);
	return false;
}

const char *first_failure(void)
{
	static char told[sizeof(failure)];

	strscpy(told, failure, sizeof(told));
	failure[0] = '\0';
	return told[0] ? told : NULL;
}

u64 statistic(const char *name)
{
	static char text[8192];
	struct kvec vector = { .iov_base = text, .iov_len = sizeof(text) - 1 };
	struct iov_iter iter;
	struct kiocb request;
	struct file *file;
	ssize_t bytes;
	char *line, *rest;
	u64 value;

	file = filp_open(STATISTICS, O_RDONLY, 0);
	if (IS_ERR(file)) {
		check(false, "%s cannot be opened", STATISTICS);
		return U64_MAX;
	}
	init_sync_kiocb(&request, file);
	iov_iter_kvec(&iter, ITER_DEST, &vector, 1, vector.iov_len);
	bytes = seq_read_iter(&request, &iter);
	filp_close(file, NULL);
	text[max_t(ssize_t, bytes, 0)] = '\0';

	rest = text;
	while ((line = strsep(&rest, "\n"))) {
		size_t length = strlen(name);

		if (!strncmp(line, name, length) && line[length] == ' ' &&
		    !kstrtou64(line + length + 1, 10, &value))
			return value;
	}
	check(false, "no %s in %s", name, STATISTICS);
	return U64_MAX;
}

void counted(const char *name, u64 before, u64 expected)
{
	u64 now = statistic(name);

	check(now == before + expected, "%s rose by %llu, not by %llu", name, now - before, expected);
}

void *view(dma_addr_t address, size_t bytes)
{
	void *pointer = memremap(address, bytes, MEMREMAP_WB | MEMREMAP_DEC);

	check(pointer, "%zu bytes at %pad cannot be seen", bytes, &address);
	return pointer;
}

void view_end(void *pointer)
{
	if (pointer)
		memunmap(pointer);
}

dma_addr_t map_address(struct device *dev, phys_addr_t address, size_t size)
{
#ifdef DMA_ATTR_MMIO
	return dma_map_phys(dev, address, size, DMA_TO_DEVICE, 0);
#else
	return dma_map_page(dev, pfn_to_page(PHYS_PFN(address)), offset_in_page(address), size,
			    DMA_TO_DEVICE);
#endif
}

static u64 pattern(u64 seed, size_t word)
{
	return (seed << 40 | (word + 1)) * 0x9e3779b97f4a7c15;
}

/* From one word that has the pattern to the next: a large buffer has one in most of its cache lines, each time another. */
static size_t step(size_t bytes)
{
	return bytes > SZ_1M ? 9 : 1;
}

void fill(void *buffer, size_t bytes, u64 seed)
{
	u64 *words = buffer;
	size_t i;

	for (i = 0; words && i < bytes / sizeof(u64); i += step(bytes))
		words[i] = pattern(seed, i);
}

bool filled(const void *buffer, size_t bytes, u64 seed)
{
	const u64 *words = buffer;
	size_t i;

	for (i = 0; words && i < bytes / sizeof(u64); i += step(bytes)) {
		if (!check(words[i] == pattern(seed, i), "byte %zu of %zu is wrong", i * sizeof(u64), bytes))
			return false;
	}
	return words;
}

static int by_address(const void *a, const void *b)
{
	unsigned long left = *(unsigned long *)a, right = *(unsigned long *)b;

	return left < right ? -1 : left > right;
}

static void free_blocks(const unsigned long *blocks, size_t count)
{
	size_t i;

	for (i = 0; i < count; i++)
		free_pages(blocks[i], MAX_PAGE_ORDER);
}

/*
 * Takes most of what there is of the largest blocks, looks for neighbours and
 * gives the others back.
 */
void *contiguous_get(size_t bytes)
{
	size_t wanted = DIV_ROUND_UP(bytes, BLOCK_BYTES), count = 0, run = 1, i;
	unsigned long *blocks;
	void *found = NULL;

	if (bytes <= BLOCK_BYTES) {
		found = (void *)__get_free_pages(GFP_KERNEL, get_order(bytes));
		check(found, "no %zu bytes in one piece", bytes);
		return found;
	}
	blocks = kcalloc(4 * wanted, sizeof(*blocks), GFP_KERNEL);
	for (; blocks && count < 4 * wanted; count++) {
		blocks[count] = __get_free_pages(GFP_KERNEL | __GFP_NORETRY | __GFP_NOWARN, MAX_PAGE_ORDER);
		if (!blocks[count])
			break;
	}
	sort(blocks, count, sizeof(*blocks), by_address, NULL);
	for (i = 1; i < count && run < wanted; i++)
		run = blocks[i] == blocks[i - 1] + BLOCK_BYTES ? run + 1 : 1;
	if (run == wanted) {
		found = (void *)blocks[i - run];
		free_blocks(blocks, i - run);
		free_blocks(blocks + i, count - i);
	} else {
		free_blocks(blocks, count);
	}
	kfree(blocks);
	check(found, "no %zu bytes in one piece", bytes);
	return found;
}

void contiguous_put(void *buffer, size_t bytes)
{
	unsigned long at = (unsigned long)buffer;
	size_t done;

	if (!buffer)
		return;
	if (bytes <= BLOCK_BYTES) {
		free_pages(at, get_order(bytes));
		return;
	}
	for (done = 0; done < bytes; done += BLOCK_BYTES)
		free_pages(at + done, MAX_PAGE_ORDER);
}
