// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * A window: one mapping of all of it, shared (C-bit clear) and write-back.
 *
 * It is reserved in the firmware's memory map, so it is in no direct map and
 * has no struct page. It is mapped once, before anything in it is granted;
 * growing changes no page table.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/io.h>
#include <linux/ioport.h>
#include <linux/mem_encrypt.h>
#include <linux/mm.h>
#include <linux/pgtable.h>
#include <linux/printk.h>
#include <asm/processor.h>

#include "module.h"

/* The first, and the low one if there is one. */
static void *windows[2];

/*
 * Whether an address is mapped as devices need it. memremap() maps uncached
 * without a word where the MTRRs do not say write-back, and encrypted where a
 * flag is not known: reading and writing would work, and no device would see it.
 */
static bool mapped_shared(unsigned long address)
{
	unsigned int level;
	pte_t *pte = lookup_address(address, &level);
	unsigned long pat = level == PG_LEVEL_4K ? _PAGE_PAT : _PAGE_PAT_LARGE;

	if (!pte || !pte_present(*pte)) {
		pr_err("the window is not mapped at %#lx; no page table entry\n", address);
		return false;
	}
	if (pte_val(*pte) & sme_me_mask) {
		pr_err("the window is mapped encrypted; this kernel's memremap() does not know MEMREMAP_DEC\n");
		return false;
	}
	if (pte_val(*pte) & (_PAGE_PWT | _PAGE_PCD | pat)) {
		pr_err("the window is not mapped write-back; the MTRRs of this VM do not cover it\n");
		return false;
	}
	return true;
}

/* What the library finds a window by. Returns its first byte, or null. */
void *svsm_swiotlb_platform_translate(u64 address, u64 bytes)
{
	void **place = windows[0] ? &windows[1] : &windows[0];
	unsigned long at;
	void *window;

	if (*place)
		return NULL;
	if (address + bytes - 1 > BIT_ULL(boot_cpu_data.x86_phys_bits) - 1) {
		pr_err("window [mem %#llx-%#llx] is beyond the %u address bits of this CPU; ask for another place of it\n",
		       address, address + bytes - 1, boot_cpu_data.x86_phys_bits);
		return NULL;
	}
	if (region_intersects(address, bytes, IORESOURCE_SYSTEM_RAM, IORES_DESC_NONE) != REGION_DISJOINT) {
		pr_err("window [mem %#llx-%#llx] is RAM to this kernel; its memory map must reserve it\n",
		       address, address + bytes - 1);
		return NULL;
	}
	window = memremap(address, bytes, MEMREMAP_WB | MEMREMAP_DEC);
	if (!window) {
		pr_err("window [mem %#llx-%#llx] cannot be mapped; the kernel log says why\n",
		       address, address + bytes - 1);
		return NULL;
	}
	for (at = 0; at < bytes; at += PMD_SIZE) {
		if (!mapped_shared((unsigned long)window + at)) {
			memunmap(window);
			return NULL;
		}
	}
	*place = window;
	return window;
}

void svsm_low_window_unmap(void)
{
	if (windows[1])
		memunmap(windows[1]);
	windows[1] = NULL;
}

void svsm_windows_unmap(void)
{
	svsm_low_window_unmap();
	if (windows[0])
		memunmap(windows[0]);
	windows[0] = NULL;
}
