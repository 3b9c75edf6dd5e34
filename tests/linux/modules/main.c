// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * Checks of the pool's DMA operations, on a PCI device of the machine that no
 * driver has claimed: this module is its driver, and so the pool takes it as
 * it takes every other device. Nothing is asked of the device itself; what it
 * would read and write, the tests read and write through the window.
 *
 * The tests run at load, one line each in the kernel log. The module stays
 * loaded even if some fail.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/kernel.h>
#include <linux/module.h>
#include <linux/pci.h>

#include "claimed_device.h"
#include "map_test.h"

/* The order matters: growth comes before the large mappings. */
static const struct map_test *const lists[] = { data_tests, constraint_tests, nmi_tests, refusal_tests };

/* The SATA controller; the one of the SMBus where the other has its own driver. */
CLAIM_DEVICE({ PCI_VDEVICE(INTEL, 0x2922) }, { PCI_VDEVICE(INTEL, 0x2930) });

static bool disk;
module_param(disk, bool, 0444);
MODULE_PARM_DESC(disk, "only read the first disk in large pieces, by its own driver");

/* What a test has mapped it has unmapped. */
static void run(const struct map_test *test, unsigned int *good, unsigned int *bad)
{
	u64 used = statistic("used_bytes");
	const char *failure;

	test->run(claimed);
	check(statistic("used_bytes") == used, "%llu bytes in use before, %llu behind it", used,
	      statistic("used_bytes"));
	failure = first_failure();
	if (failure)
		pr_err("%s failed %s\n", test->name, failure);
	else
		pr_info("%s ok\n", test->name);
	++*(failure ? bad : good);
}

static unsigned int leave;
module_param(leave, uint, 0444);
MODULE_PARM_DESC(leave, "run no test; use up the granted memory but for this many KiB, until the module is unloaded");

static bool low;
module_param(low, bool, 0444);
MODULE_PARM_DESC(low, "run no test; hold a page of the low window, as a device does that reaches no other, until the module is unloaded");

static unsigned int run_list(const struct map_test *test, unsigned int *good)
{
	unsigned int bad = 0;

	for (; test->run; test++) {
		if (IS_ENABLED(CONFIG_DMA_API_DEBUG) && test->reported)
			pr_info("%s left out, CONFIG_DMA_API_DEBUG reports it\n", test->name);
		else
			run(test, good, &bad);
	}
	return bad;
}

static int run_all(void)
{
	unsigned int good = 0, bad = 0, i;

	if (disk)
		bad = run_list(disk_tests, &good);
	for (i = 0; !disk && i < ARRAY_SIZE(lists); i++)
		bad += run_list(lists[i], &good);
	pr_info("done ok=%u failed=%u\n", good, bad);
	/* A load that fails is a failed step of the boot. */
	return bad ? -EIO : 0;
}

static int __init map_test_init(void)
{
	int error = pci_register_driver(&driver);

	if (error)
		return error;
	if (!claimed || (!disk && !get_dma_ops(&claimed->dev))) {
		pr_err("device failed %s\n", claimed ? "the pool does not drive it" : "there is none");
		error = -ENODEV;
	} else {
		check(!dma_set_mask_and_coherent(&claimed->dev, DMA_BIT_MASK(64)),
		      "a 64-bit mask is refused");
		error = low ? hold_low(claimed) : leave ? hold(claimed, leave) : run_all();
	}
	if (error)
		pci_unregister_driver(&driver);
	return error;
}

static void __exit map_test_exit(void)
{
	let_go(claimed);
	pci_unregister_driver(&driver);
}

module_init(map_test_init);
module_exit(map_test_exit);
MODULE_LICENSE("Dual MIT/GPL");
MODULE_DESCRIPTION("Tests of the DMA operations of svsm_swiotlb");
MODULE_AUTHOR("The svsm-swiotlb authors");
