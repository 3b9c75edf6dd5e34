// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * Which devices the pool drives.
 *
 * A device gets the operations between its bus's DMA set-up and its driver's
 * probe (BUS_NOTIFY_BIND_DRIVER): then it is known whether a vIOMMU translates
 * for it, and nothing is mapped yet. It loses them when its driver is gone.
 * As long as it has them it holds a reference to the module.
 *
 * A device whose driver came first has buffers elsewhere and has been told
 * that it needs no syncs. It is released and attached again, if nobody uses
 * it; else it is left alone.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/blkdev.h>
#include <linux/device.h>
#include <linux/dma-mapping.h>
#include <linux/module.h>
#include <linux/netdevice.h>
#include <linux/pci.h>
#include <linux/string.h>
#include <linux/workqueue.h>

#include "compatibility.h"
#include "module.h"

/* "all", or PCI addresses and driver names with commas between them. */
static const char *wanted_devices;
/* Whether a device that has a driver and is idle is attached again. */
static bool release;
static atomic_t driven = ATOMIC_INIT(0);

static bool named(const char *list, const char *name)
{
	size_t length = strlen(name);
	const char *at = list;

	while ((at = strstr(at, name))) {
		bool begins = at == list || at[-1] == ',';

		at += length;
		if (begins && (*at == ',' || *at == '\0'))
			return true;
	}
	return false;
}

static bool wanted(struct device *dev, const struct device_driver *driver)
{
	/* A bridge moves other devices' data and maps none of its own. */
	if (to_pci_dev(dev)->class >> 16 == PCI_BASE_CLASS_BRIDGE)
		return false;
	return !strcmp(wanted_devices, "all") || named(wanted_devices, dev_name(dev)) ||
	       (driver && named(wanted_devices, driver->name));
}

static bool is_driven(const struct device *dev)
{
	return dev->dma_ops == &svsm_dma_ops || dev->dma_ops == &svsm_first_dma_ops;
}

static void take(struct device *dev)
{
	if (is_driven(dev))
		return;
	if (!wanted(dev, dev->driver))
		return;
	if (use_dma_iommu(dev)) {
		dev_info(dev, "svsm_swiotlb: behind an IOMMU, keeps the kernel's own way\n");
		return;
	}
	if (dev->dma_ops) {
		dev_info(dev, "svsm_swiotlb: has DMA operations of its own and keeps them\n");
		return;
	}
	if (!try_module_get(THIS_MODULE))
		return;
	set_dma_ops(dev, &svsm_first_dma_ops);
	atomic_inc(&driven);
}

static void drop(struct device *dev)
{
	if (!is_driven(dev))
		return;
	set_dma_ops(dev, NULL);
	atomic_dec(&driven);
	module_put(THIS_MODULE);
}

/*
 * After a failed probe the core still frees what the driver had, with the
 * operations. This runs later and takes them away.
 *
 * A device that leaves does so inside an operation: its reference is dropped
 * here, when the module's exit waits for it.
 */
static atomic_t left = ATOMIC_INIT(0);

static void drop_unbound(struct work_struct *work)
{
	struct pci_dev *pdev = NULL;
	int references = atomic_xchg(&left, 0);

	for_each_pci_dev(pdev) {
		device_lock(&pdev->dev);
		if (!pdev->dev.driver)
			drop(&pdev->dev);
		device_unlock(&pdev->dev);
	}
	while (references--)
		module_put(THIS_MODULE);
}

static DECLARE_WORK(drop_work, drop_unbound);

/*
 * Lets go a device whose mask does not reach the window. Returns whether it is
 * gone; one that has buffers here cannot go.
 */
bool svsm_device_leave(struct device *dev, u64 mask)
{
	if (cmpxchg(&dev->dma_ops, &svsm_first_dma_ops, NULL) != &svsm_first_dma_ops)
		return !is_driven(dev);
	dev_notice(dev, "svsm_swiotlb: its DMA mask %#llx does not reach the window, it keeps the kernel's own way\n",
		   mask);
	atomic_dec(&driven);
	atomic_inc(&left);
	schedule_work(&drop_work);
	return true;
}

static int on_bus(struct notifier_block *block, unsigned long action, void *data)
{
	struct device *dev = data;

	switch (action) {
	case BUS_NOTIFY_BIND_DRIVER:
		take(dev);
		break;
	case BUS_NOTIFY_DRIVER_NOT_BOUND:
		if (is_driven(dev))
			schedule_work(&drop_work);
		break;
	case BUS_NOTIFY_UNBOUND_DRIVER:
		drop(dev);
		break;
	}
	return NOTIFY_OK;
}

static struct notifier_block bus_notifier = { .notifier_call = on_bus };

/* Drivers of the virtio bus of which it is known how their use shows. */
static bool shows_use(const struct device *dev)
{
	return !strcmp(dev->bus->name, "virtio") &&
	       (!strcmp(dev->driver->name, "virtio_blk") || !strcmp(dev->driver->name, "virtio_net"));
}

/*
 * Whether something below a device is in use: an open disk, an interface that
 * is up, or a driver of which that is not known.
 */
static int in_use(struct device *dev, void *data)
{
	const char *class = dev->class ? dev->class->name : "";

	if (!strcmp(class, "block") && disk_openers(dev_to_bdev(dev)->bd_disk))
		return 1;
	if (!strcmp(class, "net") && netif_running(to_net_dev(dev)))
		return 1;
	if (dev->bus && dev->driver && !shows_use(dev))
		return 1;
	return device_for_each_child(dev, NULL, in_use);
}

static bool can_be_released(struct pci_dev *pdev)
{
	unsigned int class = pdev->class >> 16;
	bool known = class == PCI_BASE_CLASS_STORAGE || class == PCI_BASE_CLASS_NETWORK ||
		     pdev->vendor == PCI_VENDOR_ID_REDHAT_QUMRANET;

	return known && !pci_num_vf(pdev) && !device_for_each_child(&pdev->dev, NULL, in_use);
}

static void take_bound(struct pci_dev *pdev)
{
	const char *driver = pdev->dev.driver->name;

	if (!release) {
		dev_notice(&pdev->dev, "svsm_swiotlb: bound to %s, left alone (rebind=never)\n", driver);
		return;
	}
	if (!can_be_released(pdev)) {
		dev_notice(&pdev->dev, "svsm_swiotlb: in use by %s, keeps the kernel's own way; load the module earlier\n",
			   driver);
		return;
	}
	dev_info(&pdev->dev, "svsm_swiotlb: released from %s to be attached again\n", driver);
	/* The notifier takes it on the way back. */
	device_release_driver(&pdev->dev);
	if (device_attach(&pdev->dev) != 1)
		dev_err(&pdev->dev, "svsm_swiotlb: its driver %s did not come back; write its address to /sys/bus/pci/drivers_probe\n",
			driver);
}

unsigned int svsm_devices_driven(void)
{
	return atomic_read(&driven);
}

/*
 * Stops devices without a driver from reading and writing memory: an earlier
 * kernel may have left them running. Those with a driver were reset by it.
 */
void svsm_devices_quiet(void)
{
	struct pci_dev *pdev = NULL;

	for_each_pci_dev(pdev) {
		device_lock(&pdev->dev);
		if (!pdev->dev.driver && pdev->class >> 16 != PCI_BASE_CLASS_BRIDGE)
			pci_clear_master(pdev);
		device_unlock(&pdev->dev);
	}
}

/* Checks and keeps the parameters. */
int svsm_devices_parameters(const char *devices, const char *rebind)
{
	release = !strcmp(rebind, "idle");
	if (!release && strcmp(rebind, "never")) {
		pr_err("rebind=%s is not known; write idle or never\n", rebind);
		return -EINVAL;
	}
	wanted_devices = devices;
	return 0;
}

int svsm_devices_init(void)
{
	struct pci_dev *pdev = NULL;
	int error;

	error = bus_register_notifier(&pci_bus_type, &bus_notifier);
	if (error) {
		pr_err("the PCI bus cannot be followed (error %d)\n", error);
		return error;
	}
	for_each_pci_dev(pdev) {
		if (pdev->dev.driver && !is_driven(&pdev->dev) &&
		    wanted(&pdev->dev, pdev->dev.driver) && !use_dma_iommu(&pdev->dev))
			take_bound(pdev);
	}
	return 0;
}

/* Devices hold references to the module, so none has the operations here. */
void svsm_devices_exit(void)
{
	bus_unregister_notifier(&pci_bus_type, &bus_notifier);
	cancel_work_sync(&drop_work);
}
