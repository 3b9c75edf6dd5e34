// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * The module's life: parameters, attach, give back at shutdown, unload.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/cc_platform.h>
#include <linux/gfp.h>
#include <linux/kernel.h>
#include <linux/module.h>
#include <linux/moduleparam.h>
#include <linux/sizes.h>
#include <linux/suspend.h>
#include <linux/vmalloc.h>

#include "compatibility.h"
#include "module.h"

struct svsm_swiotlb_pool *svsm_pool;
u64 svsm_window_first, svsm_window_last, svsm_least_reach;
struct svsm_low_window svsm_low;
unsigned long svsm_max_mapping = SZ_2M;

static void *storage, *metadata, *low_storage, *low_metadata;

/* ---- parameters ---- */

static int size_set(const char *text, const struct kernel_param *parameter)
{
	char *end;
	u64 bytes = memparse(text, &end);

	if (end == text || (*end && *end != '\n'))
		return -EINVAL;
	*(unsigned long *)parameter->arg = bytes;
	return 0;
}

static int size_get(char *buffer, const struct kernel_param *parameter)
{
	return sysfs_emit(buffer, "%lu\n", *(unsigned long *)parameter->arg);
}

static const struct kernel_param_ops size_ops = { .set = size_set, .get = size_get };

static unsigned long cap;

/*
 * The block drivers repeat a request that finds no room, and never split one.
 * Receive buffers and queues take most of a chunk.
 */
static void warn_of_small_cap(void)
{
	if (cap && cap < svsm_max_mapping + SZ_2M)
		pr_warn("cap=%lu may have no room for a mapping of max_mapping=%lu beside the network's buffers; a disk repeats such a request until there is room\n",
			cap, svsm_max_mapping);
}

static int cap_set(const char *text, const struct kernel_param *parameter)
{
	unsigned long before = cap;
	int error = size_set(text, parameter);

	if (error)
		return error;
	if (!IS_ALIGNED(cap, SZ_2M) || (svsm_pool && !cap)) {
		pr_err("cap=%lu is refused; write a multiple of 2M (0 at load only)\n", cap);
		goto refused;
	}
	if (!svsm_pool)
		return 0;
	warn_of_small_cap();
	error = svsm_swiotlb_set_cap(svsm_pool, cap, NULL);
	if (!error)
		return 0;
	pr_err("cap=%lu: %s\n", cap, svsm_swiotlb_error_text(error));
refused:
	cap = before;
	return -EINVAL;
}

static const struct kernel_param_ops cap_ops = { .set = cap_set, .get = size_get };

module_param_cb(cap, &cap_ops, &cap, 0644);
MODULE_PARM_DESC(cap, "most that the pool may hold, in bytes (K, M, G), a multiple of 2M; 0: what the service allows. Can be changed at run time");

static unsigned long initial = SZ_2M;
module_param_cb(initial, &size_ops, &initial, 0444);
MODULE_PARM_DESC(initial, "granted at load and never given back, in bytes (K, M, G); default 2M");

module_param_cb(max_mapping, &size_ops, &svsm_max_mapping, 0444);
MODULE_PARM_DESC(max_mapping, "largest mapping that drivers are told of, in bytes (K, M, G); default 2M");

static unsigned int give_back_ms = 1000;
module_param(give_back_ms, uint, 0444);
MODULE_PARM_DESC(give_back_ms, "how often unused memory is given back, in milliseconds; 0: never; default 1000");

static char *devices = "all";
module_param(devices, charp, 0444);
MODULE_PARM_DESC(devices, "PCI addresses or driver names, with commas; default all");

static char *rebind = "idle";
module_param(rebind, charp, 0444);
MODULE_PARM_DESC(rebind, "devices that have a driver already: idle (attach again those nobody uses) or never; default idle");

static char *path = "auto";
module_param(path, charp, 0444);
MODULE_PARM_DESC(path, "how the service is called: auto, memory or msr; default auto");

static unsigned int protocol;
module_param(protocol, uint, 0444);
MODULE_PARM_DESC(protocol, "number of the protocol; default 0x40000001");

/* ---- life ---- */

/*
 * Behind the last driver's shutdown, on the way to power-off, reboot or
 * another kernel. What is still mapped stays granted; the next kernel finds
 * it as orphans.
 */
static void shut_down(void)
{
	u64 orphaned = 0;

	svsm_maintenance_stop();
	svsm_give_back();
	svsm_swiotlb_detach(svsm_pool, &orphaned);
	if (orphaned)
		pr_info("%llu bytes stay granted, devices did not let them go\n", orphaned);
}

SVSM_SYSCORE(at_shutdown, shut_down);

/*
 * An image of this kernel would hold records of grants that the service of
 * another boot does not know. Sleeping without leaving memory is no matter.
 */
static int on_suspend(struct notifier_block *block, unsigned long action, void *data)
{
	if (action != PM_HIBERNATION_PREPARE)
		return NOTIFY_DONE;
	pr_err("hibernation is refused: the pool's grants would not survive it; unload the module first\n");
	return notifier_from_errno(-EBUSY);
}

static struct notifier_block suspend_notifier = { .notifier_call = on_suspend };

/* What an earlier kernel still holds goes back, once its devices are quiet. */
static void release_orphans(void)
{
	struct svsm_swiotlb_attachment attachment;
	struct svsm_swiotlb_given_back given;
	void *page;
	int error;

	if (svsm_swiotlb_attachment(svsm_pool, &attachment) || !attachment.orphaned_bytes)
		return;
	page = (void *)get_zeroed_page(GFP_KERNEL);
	if (!page) {
		pr_warn("%llu bytes of an earlier kernel stay granted: no memory for the list\n",
			attachment.orphaned_bytes);
		return;
	}
	svsm_devices_quiet();
	error = svsm_swiotlb_release_orphans(svsm_pool, page, __pa(page), &given);
	if (error || given.stopped_by)
		pr_warn("%llu bytes of an earlier kernel were granted, not all are given back: %s\n",
			attachment.orphaned_bytes, svsm_swiotlb_error_text(error ?: given.stopped_by));
	else
		pr_info("%llu bytes of an earlier kernel given back\n", given.released_bytes);
	free_page((unsigned long)page);
}

/*
 * Zeroed memory for the library. Where there is not enough, it fails without
 * ending processes for it and without a page of the allocator's own words.
 */
static void *records_alloc(size_t bytes)
{
	return __vmalloc(bytes, GFP_KERNEL | __GFP_ZERO | __GFP_NORETRY | __GFP_NOWARN);
}

static void free_low(void)
{
	svsm_low_window_unmap();
	vfree(low_metadata);
	vfree(low_storage);
	low_metadata = low_storage = NULL;
	svsm_low = (struct svsm_low_window){};
}

static void free_pool(void)
{
	free_low();
	svsm_windows_unmap();
	vfree(metadata);
	vfree(storage);
	svsm_pool = NULL;
}

/*
 * A second window, for devices that do not reach the first. Nothing is granted
 * of it before such a device maps. Without it they keep the kernel's own way.
 */
static void attach_low(struct svsm_swiotlb_config config)
{
	struct svsm_swiotlb_window window;
	struct svsm_swiotlb_pool *pool;
	size_t bytes;
	int error;

	svsm_least_reach = svsm_window_last;
	error = svsm_swiotlb_window_beside(svsm_pool, 1, &window);
	if (error || !window.bytes)
		goto none;
	if (window.base > svsm_window_first) {
		pr_info("the second window [mem %#llx-%#llx] lies above the first and serves no device\n", window.base,
			window.base + window.bytes - 1);
		return;
	}
	bytes = svsm_swiotlb_metadata_bytes(window.bytes, nr_cpu_ids);
	low_storage = records_alloc(svsm_swiotlb_pool_bytes());
	low_metadata = records_alloc(bytes);
	if (!low_storage || !low_metadata) {
		pr_warn("no memory for %zu bytes of records of the low window; devices that need it keep the kernel's own way\n",
			bytes);
		free_low();
		return;
	}
	config.initial_bytes = 0;
	config.minimum_bytes = 0;
	config.cap_bytes = 0;
	error = svsm_swiotlb_attach_beside(svsm_pool, 1, &config, low_storage, svsm_swiotlb_pool_bytes(),
					   low_metadata, bytes, &pool);
	if (error) {
		free_low();
		goto none;
	}
	svsm_low = (struct svsm_low_window){ pool, window.base, window.bytes };
	svsm_least_reach = window.base + window.bytes - 1;
	pr_info("low window [mem %#llx-%#llx], %zu KiB of records\n", window.base, svsm_least_reach,
		bytes >> 10);
	return;

none:
	if (error)
		pr_warn("no low window: %s; devices that need it keep the kernel's own way\n",
			svsm_swiotlb_error_text(error));
}

/* Says why there is no pool and what to do, in one line, and returns the error of the load. */
static int no_pool(const struct svsm_swiotlb_config *config, int error)
{
	switch (error) {
	case SVSM_SWIOTLB_ERROR_NO_SERVICE:
		pr_err("no pool: this SVSM has no service at protocol %#x; boot a paravisor that has it, or name its number (protocol=)\n",
		       config->protocol);
		return -ENODEV;
	case SVSM_SWIOTLB_ERROR_ANOTHER_PROTOCOL:
		pr_err("no pool: protocol %#x of this SVSM is another one, or another version of ours; boot a paravisor that fits this module, or name ours (protocol=)\n",
		       config->protocol);
		return -EPROTONOSUPPORT;
	case SVSM_SWIOTLB_ERROR_NOT_MAPPED:
		/* What is wrong with the window has been said. */
		return -ENXIO;
	case SVSM_SWIOTLB_ERROR_SERVICE_REFUSED:
		if (config->cap_bytes) {
			pr_err("no pool: the service refused; cap=%llu may be more than the paravisor allows (--hard-cap)\n",
			       config->cap_bytes);
			return -EINVAL;
		}
		fallthrough;
	default:
		pr_err("no pool: %s; the paravisor's log may say more\n", svsm_swiotlb_error_text(error));
		return -ENODEV;
	}
}

static int attach(void)
{
	struct svsm_swiotlb_config config;
	struct svsm_swiotlb_window window;
	struct svsm_swiotlb_pool *pool;
	size_t bytes;
	int error;

	svsm_swiotlb_config_init(&config, sizeof(config));
	if (protocol)
		config.protocol = protocol;
	config.cpus = nr_cpu_ids;
	config.initial_bytes = initial;
	config.minimum_bytes = initial;
	config.cap_bytes = cap;
	/* The memory form carries calls of this protocol only. */
	config.skip_query_protocol = !strcmp(svsm_call_path(), "memory");

	error = svsm_swiotlb_find(&config, &window);
	if (error == SVSM_SWIOTLB_ERROR_SERVICE_REFUSED && config.skip_query_protocol &&
	    !strcmp(path, "auto")) {
		/* An earlier service: it has no memory form. */
		error = svsm_call_init("msr");
		if (error)
			return error;
		config.skip_query_protocol = 0;
		error = svsm_swiotlb_find(&config, &window);
	}
	if (error)
		return no_pool(&config, error);
	bytes = svsm_swiotlb_metadata_bytes(window.bytes, nr_cpu_ids);
	storage = records_alloc(svsm_swiotlb_pool_bytes());
	metadata = records_alloc(bytes);
	if (!storage || !metadata) {
		pr_err("no memory for %zu bytes of records; give the guest more, or the paravisor a smaller window\n",
		       bytes);
		free_pool();
		return -ENOMEM;
	}
	svsm_window_first = window.base;
	svsm_window_last = window.base + window.bytes - 1;
	error = svsm_swiotlb_attach(&config, storage, svsm_swiotlb_pool_bytes(), metadata, bytes, &pool);
	if (error) {
		free_pool();
		return no_pool(&config, error);
	}
	svsm_pool = pool;
	warn_of_small_cap();
	pr_info("window [mem %#llx-%#llx], %zu KiB of records, calls by %s\n", svsm_window_first,
		svsm_window_last, bytes >> 10, svsm_call_path());
	attach_low(config);
	return 0;
}

static int __init svsm_swiotlb_init(void)
{
	int error;

	if (!cc_platform_has(CC_ATTR_GUEST_SEV_SNP)) {
		pr_err("this is no SEV-SNP guest; the kernel's own swiotlb stays\n");
		return -ENODEV;
	}
	if (!snp_vmpl) {
		pr_err("this guest runs at VMPL0, without an SVSM; the kernel's own swiotlb stays\n");
		return -ENODEV;
	}
	error = svsm_devices_parameters(devices, rebind);
	if (error)
		return error;
	error = svsm_call_init(path);
	if (error)
		return error;
	error = attach();
	if (error)
		goto no_pool;
	release_orphans();
	svsm_statistics_init();
	svsm_maintenance_init(give_back_ms);
	register_syscore(&at_shutdown);
	error = register_pm_notifier(&suspend_notifier);
	if (error)
		goto no_notifier;
	error = svsm_devices_init();
	if (error)
		goto no_devices;
	return 0;

no_devices:
	unregister_pm_notifier(&suspend_notifier);
no_notifier:
	unregister_syscore(&at_shutdown);
	svsm_statistics_exit();
	shut_down();
	free_pool();
no_pool:
	svsm_call_exit();
	return error;
}

static void __exit svsm_swiotlb_exit(void)
{
	svsm_devices_exit();
	unregister_pm_notifier(&suspend_notifier);
	unregister_syscore(&at_shutdown);
	svsm_statistics_exit();
	shut_down();
	free_pool();
	svsm_call_exit();
}

module_init(svsm_swiotlb_init);
module_exit(svsm_swiotlb_exit);
MODULE_LICENSE("Dual MIT/GPL");
MODULE_DESCRIPTION("DMA through a pool of shared memory that a service at VMPL0 grows");
MODULE_AUTHOR("The svsm-swiotlb authors");
