/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * A PCI device of QEMU's q35 machine that no other driver wants, claimed by a
 * test module: what a real driver goes through, without a device that works.
 */
#ifndef CLAIMED_DEVICE_H
#define CLAIMED_DEVICE_H

#include <linux/module.h>
#include <linux/pci.h>

static struct pci_dev *claimed;

static int claim(struct pci_dev *pdev, const struct pci_device_id *id)
{
	if (claimed)
		return -EBUSY;
	claimed = pdev;
	return 0;
}

static void unclaim(struct pci_dev *pdev)
{
	claimed = NULL;
}

/* Defines `driver`, which claims the first of these devices of Intel's that has no other. */
#define CLAIM_DEVICE(...)						\
	static const struct pci_device_id devices[] = {			\
		__VA_ARGS__,						\
		{ }							\
	};								\
	static struct pci_driver driver = {				\
		.name = KBUILD_MODNAME,					\
		.id_table = devices,					\
		.probe = claim,						\
		.remove = unclaim,					\
	}

#endif
