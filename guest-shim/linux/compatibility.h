/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * Differences between the kernels this module is built for. Kbuild looks into
 * the kernel's headers for each and defines a name; versions are not compared,
 * because distributions backport.
 */
#ifndef SVSM_SWIOTLB_COMPATIBILITY_H
#define SVSM_SWIOTLB_COMPATIBILITY_H

#include <linux/dma-map-ops.h>
#include <linux/iommu-dma.h>
#include <linux/syscore_ops.h>
#include <asm/sev.h>

#ifndef CONFIG_ARCH_HAS_DMA_OPS
#error "svsm_swiotlb: no dma_ops in struct device (needs CONFIG_XEN or CONFIG_GART_IOMMU)"
#endif

#ifndef CONFIG_AMD_MEM_ENCRYPT
#error "svsm_swiotlb: this kernel cannot run as an SEV-SNP guest; build one with CONFIG_AMD_MEM_ENCRYPT"
#endif

#ifndef SVSM_HAVE_CALLING_AREA
#error "svsm_swiotlb: this kernel does not know an SVSM (no svsm_ca in asm/sev.h); use 6.11 or later"
#endif

/* 6.18: the DMA operations get physical addresses, MMIO among them. */
#ifndef SVSM_HAVE_MAP_PHYS
#define DMA_ATTR_MMIO 0
#endif

/* A hook after the last driver's shutdown, also on the way into another kernel. */
#ifdef SVSM_HAVE_SYSCORE_DATA
#define SVSM_SYSCORE(name, function)						\
	static void name##_with_data(void *data) { function(); }		\
	static const struct syscore_ops name##_ops = { .shutdown = name##_with_data }; \
	static struct syscore name = { .ops = &name##_ops }
#else
#define SVSM_SYSCORE(name, function)						\
	static struct syscore_ops name = { .shutdown = function }
#define register_syscore register_syscore_ops
#define unregister_syscore unregister_syscore_ops
#endif

#endif
