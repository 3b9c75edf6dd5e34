// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * The DMA operations: each is one call of the library, in the kernel's types.
 *
 * A request that cannot be served fails here. Nothing falls back to another
 * pool, so what a device can reach is the windows and nothing else.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/dma-mapping.h>
#include <linux/hardirq.h>
#include <linux/io.h>
#include <linux/log2.h>
#include <linux/memremap.h>
#include <linux/mm.h>
#include <linux/scatterlist.h>
#include <linux/sizes.h>

#include "compatibility.h"
#include "module.h"

struct svsm_refusals svsm_refusals;

/* The library numbers two of the three as the kernel does. */
static int direction_of(enum dma_data_direction dir)
{
	static_assert((int)DMA_TO_DEVICE == SVSM_SWIOTLB_DIRECTION_TO_DEVICE);
	static_assert((int)DMA_FROM_DEVICE == SVSM_SWIOTLB_DIRECTION_FROM_DEVICE);
	return dir == DMA_BIDIRECTIONAL ? SVSM_SWIOTLB_DIRECTION_BIDIRECTIONAL : (int)dir;
}

static u64 reach_of(struct device *dev, u64 mask)
{
	return min_not_zero(mask, dev->bus_dma_limit);
}

static u64 crossed_by_window(u64 boundary)
{
	return (svsm_window_first ^ svsm_window_last) & ~boundary;
}

/* A window as a device sees it that does not reach all of the first, or has other wishes. */
struct window {
	struct svsm_swiotlb_pool *pool;
	u64 first, last;
};

/* The first window for whoever reaches all of it, for others the low one if there is one. */
static struct window window_for(u64 reach)
{
	if (reach < svsm_window_last && svsm_low.pool)
		return (struct window){ svsm_low.pool, svsm_low.first, svsm_low.first + svsm_low.bytes - 1 };
	return (struct window){ svsm_pool, svsm_window_first, svsm_window_last };
}

/*
 * Whether a mapping of a device may lie anywhere: the device reaches all of the
 * window and has no other wish. That is the fast way.
 */
static bool may_lie_anywhere(struct device *dev)
{
	return reach_of(dev, *dev->dma_mask) >= svsm_window_last &&
	       !crossed_by_window(dma_get_seg_boundary(dev)) && !dma_get_min_align_mask(dev);
}

/* The address, or an error of the library's. */
static noinline s64 map_constrained(struct device *dev, phys_addr_t phys, size_t size, int direction)
{
	u64 reach = reach_of(dev, *dev->dma_mask);
	u64 boundary = dma_get_seg_boundary(dev);
	const struct window window = window_for(reach);
	const struct svsm_swiotlb_constraints constraints = {
		.min_align_mask = dma_get_min_align_mask(dev),
		.highest_address = reach < window.last ? reach : 0,
		.boundary = (window.first ^ window.last) & ~boundary ? boundary + 1 : 0,
	};

	return svsm_swiotlb_map_address(window.pool, phys_to_virt(phys), size, direction,
					SVSM_SWIOTLB_COPY_IN_KEEP, &constraints);
}

/*
 * Whether a buffer has bytes to copy: memory beyond all RAM has none, and those
 * of the windows are no driver's. Looking a page up instead (pfn_valid()) costs
 * as much as a tenth of a mapping; the kernel's own way does not look either.
 */
static bool in_direct_map(phys_addr_t first, size_t size)
{
	phys_addr_t last = first + size - 1;

	return last >= first && phys_to_virt(last) < high_memory &&
	       (last < svsm_window_first || first > svsm_window_last) && !svsm_in_low_window(first) &&
	       !svsm_in_low_window(last);
}

static void refuse(struct device *dev, atomic64_t *count, size_t size, unsigned long attrs,
		   const char *cause)
{
	atomic64_inc(count);
	if (!(attrs & DMA_ATTR_NO_WARN))
		dev_warn_ratelimited(dev, "svsm_swiotlb: no mapping of %zu bytes: %s\n", size, cause);
}

/* The rest of a map that failed. */
static noinline dma_addr_t map_failed(struct device *dev, size_t size, unsigned long attrs, int error)
{
	if (!(attrs & DMA_ATTR_NO_WARN))
		dev_warn_ratelimited(dev, "svsm_swiotlb: no mapping of %zu bytes: %s\n", size,
				     svsm_swiotlb_error_text(error));
	return DMA_MAPPING_ERROR;
}

static dma_addr_t pool_map(struct device *dev, phys_addr_t phys, size_t size,
			   enum dma_data_direction dir, unsigned long attrs)
{
	s64 address;

	if (unlikely(in_nmi())) {
		refuse(dev, &svsm_refusals.nmi, size, attrs, "in an NMI");
		return DMA_MAPPING_ERROR;
	}
	if (unlikely(!in_direct_map(phys, size))) {
		refuse(dev, &svsm_refusals.outside_direct_map, size, attrs,
		       "the buffer is not in the kernel's direct map");
		return DMA_MAPPING_ERROR;
	}
	/*
	 * Always copied in, DMA_ATTR_SKIP_CPU_SYNC or not: bytes that the device
	 * does not write come back as they were, and never as another mapping's.
	 */
	if (likely(may_lie_anywhere(dev)))
		address = svsm_swiotlb_map_address(svsm_pool, phys_to_virt(phys), size, direction_of(dir),
						   SVSM_SWIOTLB_COPY_IN_KEEP, NULL);
	else
		address = map_constrained(dev, phys, size, direction_of(dir));
	if (unlikely(address < 0))
		return map_failed(dev, size, attrs, address);
	return address;
}

/* Also the kernel's operation, under either of its names. */
static void pool_unmap(struct device *dev, dma_addr_t address, size_t size,
		       enum dma_data_direction dir, unsigned long attrs)
{
	struct svsm_swiotlb_pool *pool = svsm_pool_at(address);
	int error;

	if (attrs & DMA_ATTR_SKIP_CPU_SYNC)
		error = svsm_swiotlb_unmap_address_written(pool, address, size, direction_of(dir), 0);
	else
		error = svsm_swiotlb_unmap_address(pool, address, size, direction_of(dir));
	if (unlikely(error)) {
		atomic64_inc(&svsm_refusals.bad_unmap);
		dev_err_ratelimited(dev, "svsm_swiotlb: unmap of %pad, %zu bytes: %s\n", &address, size,
				    svsm_swiotlb_error_text(error));
	}
}

#ifdef SVSM_HAVE_MAP_PHYS
static dma_addr_t op_map_phys(struct device *dev, phys_addr_t phys, size_t size,
			      enum dma_data_direction dir, unsigned long attrs)
{
	if (unlikely(attrs & DMA_ATTR_MMIO)) {
		refuse(dev, &svsm_refusals.mmio, size, attrs, "it is MMIO, which cannot be bounced");
		return DMA_MAPPING_ERROR;
	}
	return pool_map(dev, phys, size, dir, attrs);
}
#else
static dma_addr_t op_map_page(struct device *dev, struct page *page, unsigned long offset, size_t size,
			      enum dma_data_direction dir, unsigned long attrs)
{
	return pool_map(dev, page_to_phys(page) + offset, size, dir, attrs);
}

static dma_addr_t op_map_resource(struct device *dev, phys_addr_t phys, size_t size,
				  enum dma_data_direction dir, unsigned long attrs)
{
	refuse(dev, &svsm_refusals.mmio, size, attrs, "it is MMIO, which cannot be bounced");
	return DMA_MAPPING_ERROR;
}
#endif

static void op_unmap_sg(struct device *dev, struct scatterlist *sgl, int nents,
			enum dma_data_direction dir, unsigned long attrs)
{
	struct scatterlist *sg;
	int i;

	for_each_sg(sgl, sg, nents, i)
		pool_unmap(dev, sg_dma_address(sg), sg_dma_len(sg), dir, attrs);
}

static int op_map_sg(struct device *dev, struct scatterlist *sgl, int nents,
		     enum dma_data_direction dir, unsigned long attrs)
{
	struct scatterlist *sg;
	int error = -ENOMEM;
	int i;

	for_each_sg(sgl, sg, nents, i) {
		if (unlikely(is_pci_p2pdma_page(sg_page(sg)))) {
			refuse(dev, &svsm_refusals.peer_to_peer, sg->length, attrs,
			       "it is another device's memory, which cannot be bounced");
			error = -EREMOTEIO;
			goto undo;
		}
		sg_dma_address(sg) = pool_map(dev, sg_phys(sg), sg->length, dir, attrs);
		if (unlikely(sg_dma_address(sg) == DMA_MAPPING_ERROR))
			goto undo;
		sg_dma_len(sg) = sg->length;
	}
	return nents;

undo:
	/* The device has written nothing. */
	op_unmap_sg(dev, sgl, i, dir, attrs | DMA_ATTR_SKIP_CPU_SYNC);
	return error;
}

/* The kernel's sync operations return nothing, so a sync that fails is counted and said. */
static void check_sync(struct device *dev, dma_addr_t address, size_t size, int error)
{
	if (likely(!error))
		return;
	atomic64_inc(&svsm_refusals.bad_sync);
	dev_err_ratelimited(dev, "svsm_swiotlb: sync of %pad, %zu bytes: %s\n", &address, size,
			    svsm_swiotlb_error_text(error));
}

static void op_sync_single_for_cpu(struct device *dev, dma_addr_t address, size_t size,
				   enum dma_data_direction dir)
{
	check_sync(dev, address, size,
		   svsm_swiotlb_sync_address_for_cpu(svsm_pool_at(address), address, size));
}

static void op_sync_single_for_device(struct device *dev, dma_addr_t address, size_t size,
				      enum dma_data_direction dir)
{
	check_sync(dev, address, size,
		   svsm_swiotlb_sync_address_for_device(svsm_pool_at(address), address, size));
}

static void op_sync_sg_for_cpu(struct device *dev, struct scatterlist *sgl, int nents,
			       enum dma_data_direction dir)
{
	struct scatterlist *sg;
	int i;

	for_each_sg(sgl, sg, nents, i)
		op_sync_single_for_cpu(dev, sg_dma_address(sg), sg_dma_len(sg), dir);
}

static void op_sync_sg_for_device(struct device *dev, struct scatterlist *sgl, int nents,
				  enum dma_data_direction dir)
{
	struct scatterlist *sg;
	int i;

	for_each_sg(sgl, sg, nents, i)
		op_sync_single_for_device(dev, sg_dma_address(sg), sg_dma_len(sg), dir);
}

static void *no_memory(struct device *dev, size_t size, gfp_t gfp, unsigned long attrs, const char *cause)
{
	if (!(attrs & DMA_ATTR_NO_WARN) && !(gfp & __GFP_NOWARN))
		dev_warn_ratelimited(dev, "svsm_swiotlb: no coherent memory of %zu bytes: %s\n", size, cause);
	return NULL;
}

/*
 * Coherent memory. Aligned to the next power of two of its size, as the DMA
 * API promises, up to 2 MiB, the pool's chunk.
 */
static void *op_alloc(struct device *dev, size_t size, dma_addr_t *handle, gfp_t gfp, unsigned long attrs)
{
	u64 reach = reach_of(dev, dev->coherent_dma_mask);
	const struct window window = window_for(reach);
	struct svsm_swiotlb_constraints constraints = {
		.alignment = min_t(u64, roundup_pow_of_two(PAGE_ALIGN(size)), SZ_2M),
		.highest_address = reach < window.last ? reach : 0,
	};
	struct svsm_swiotlb_shared_buffer buffer;
	int error;

	size = PAGE_ALIGN(size);
	if (unlikely(in_nmi())) {
		atomic64_inc(&svsm_refusals.nmi);
		return no_memory(dev, size, gfp, attrs, "in an NMI");
	}
	error = svsm_swiotlb_alloc_shared_within(window.pool, size, &constraints, &buffer);
	if (error)
		return no_memory(dev, size, gfp, attrs, svsm_swiotlb_error_text(error));
	*handle = buffer.address;
	return buffer.pointer;
}

static void op_free(struct device *dev, size_t size, void *pointer, dma_addr_t handle, unsigned long attrs)
{
	int error = svsm_swiotlb_free_shared_address(svsm_pool_at(handle), handle, PAGE_ALIGN(size));

	if (error) {
		atomic64_inc(&svsm_refusals.bad_unmap);
		dev_err_ratelimited(dev, "svsm_swiotlb: free of %pad, %zu bytes: %s\n", &handle, size,
				    svsm_swiotlb_error_text(error));
	}
}

/*
 * Not there, and so refused by the kernel with its usual error: alloc_pages_op,
 * mmap and get_sgtable, since the window has no struct page.
 */
#define COMMON_OPERATIONS						\
	.free = op_free,						\
	.unmap_sg = op_unmap_sg,					\
	.sync_single_for_cpu = op_sync_single_for_cpu,			\
	.sync_single_for_device = op_sync_single_for_device,		\
	.sync_sg_for_cpu = op_sync_sg_for_cpu,				\
	.sync_sg_for_device = op_sync_sg_for_device,			\
	.get_required_mask = op_get_required_mask,			\
	.max_mapping_size = op_max_mapping_size

#ifdef SVSM_HAVE_MAP_PHYS
#define MAP_OPERATIONS(prefix)						\
	.map_phys = prefix##_map_phys,					\
	.unmap_phys = pool_unmap
#else
#define MAP_OPERATIONS(prefix)						\
	.map_page = prefix##_map_page,					\
	.unmap_page = pool_unmap,					\
	.map_resource = op_map_resource
#endif

static u64 op_get_required_mask(struct device *dev)
{
	return DMA_BIT_MASK(fls64(svsm_window_last));
}

/*
 * At most half of a low window: block drivers never split a request that does
 * not fit, they repeat it.
 */
static size_t op_max_mapping_size(struct device *dev)
{
	if (window_for(reach_of(dev, dma_get_mask(dev))).pool == svsm_pool)
		return svsm_max_mapping;
	return min_t(u64, svsm_max_mapping, svsm_low.bytes / 2);
}

static int op_dma_supported(struct device *dev, u64 mask)
{
	if (reach_of(dev, mask) >= svsm_least_reach)
		return 1;
	dev_err(dev, "svsm_swiotlb: DMA mask %#llx refused: it does not reach the window, and the device has buffers there\n",
		mask);
	return 0;
}

/* Operations of a device that has used them. */
const struct dma_map_ops svsm_dma_ops = {
	COMMON_OPERATIONS,
	.alloc = op_alloc,
	MAP_OPERATIONS(op),
	.map_sg = op_map_sg,
	.dma_supported = op_dma_supported,
};

/*
 * A device begins with operations that look at its mask: one that does not
 * reach all of a window is let go to the kernel's own way, which is only
 * possible as long as it has no buffers here. From its first buffer on it has
 * the operations above. In an NMI, which may have interrupted all of this, it
 * stays as it is; the operation behind refuses.
 */
static bool begin(struct device *dev, u64 mask)
{
	if (unlikely(in_nmi()))
		return true;
	if (reach_of(dev, mask) < svsm_least_reach && svsm_device_leave(dev, mask))
		return false;
	cmpxchg(&dev->dma_ops, &svsm_first_dma_ops, &svsm_dma_ops);
	return true;
}

static void *first_alloc(struct device *dev, size_t size, dma_addr_t *handle, gfp_t gfp, unsigned long attrs)
{
	if (!begin(dev, dev->coherent_dma_mask))
		return dma_alloc_attrs(dev, size, handle, gfp, attrs);
	return op_alloc(dev, size, handle, gfp, attrs);
}

#ifdef SVSM_HAVE_MAP_PHYS
static dma_addr_t first_map_phys(struct device *dev, phys_addr_t phys, size_t size,
				 enum dma_data_direction dir, unsigned long attrs)
{
	if (!begin(dev, *dev->dma_mask))
		return dma_map_phys(dev, phys, size, dir, attrs);
	return op_map_phys(dev, phys, size, dir, attrs);
}
#else
static dma_addr_t first_map_page(struct device *dev, struct page *page, unsigned long offset, size_t size,
				 enum dma_data_direction dir, unsigned long attrs)
{
	if (!begin(dev, *dev->dma_mask))
		return dma_map_page_attrs(dev, page, offset, size, dir, attrs);
	return op_map_page(dev, page, offset, size, dir, attrs);
}
#endif

static int first_map_sg(struct device *dev, struct scatterlist *sgl, int nents,
			enum dma_data_direction dir, unsigned long attrs)
{
	if (!begin(dev, *dev->dma_mask))
		return dma_map_sg_attrs(dev, sgl, nents, dir, attrs) ?: -EIO;
	return op_map_sg(dev, sgl, nents, dir, attrs);
}

static int first_dma_supported(struct device *dev, u64 mask)
{
	u64 before = dev->coherent_dma_mask;
	int supported;

	if (reach_of(dev, mask) >= svsm_least_reach)
		return 1;
	if (!svsm_device_leave(dev, mask))
		return 0;
	/* The only way to ask the kernel's own way whether it serves a mask. */
	supported = !dma_set_coherent_mask(dev, mask);
	dev->coherent_dma_mask = before;
	return supported;
}

const struct dma_map_ops svsm_first_dma_ops = {
	COMMON_OPERATIONS,
	.alloc = first_alloc,
	MAP_OPERATIONS(first),
	.map_sg = first_map_sg,
	.dma_supported = first_dma_supported,
};
