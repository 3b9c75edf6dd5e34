// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * What the pool did, in /sys/kernel/debug/svsm_swiotlb: `statistics`, a name
 * and a number in each line, and `give_back`, which returns what is empty.
 */
#include <linux/debugfs.h>
#include <linux/kernel.h>
#include <linux/seq_file.h>

#include "module.h"

static struct dentry *folder;

/* Calls of the protocol by number (docs/PROTOCOL.md, P-4.1). */
static const char *const call_names[] = {
	"identify", "describe", "attach", "list_granted", "adopt", "release_orphans", "detach", "grow",
	"release", "convert", "statistics", "trace", "set_limits", "donate", "export_state", "import_state",
};

/* Causes of failed mappings, by the number of the library's error without its sign. */
static const char *const cause_names[] = {
	[-SVSM_SWIOTLB_ERROR_INVALID_REQUEST] = "invalid_request",
	[-SVSM_SWIOTLB_ERROR_CAP_REACHED] = "cap_reached",
	[-SVSM_SWIOTLB_ERROR_HOST_REFUSED] = "host_refused",
	[-SVSM_SWIOTLB_ERROR_NO_CONTIGUOUS_RUN] = "no_contiguous_run",
	[-SVSM_SWIOTLB_ERROR_RECORDS_EXHAUSTED] = "records_exhausted",
	[-SVSM_SWIOTLB_ERROR_TOO_LARGE] = "too_large",
	[-SVSM_SWIOTLB_ERROR_BUSY] = "busy",
	[-SVSM_SWIOTLB_ERROR_NOT_ATTACHED] = "not_attached",
	[-SVSM_SWIOTLB_ERROR_OUT_OF_REACH] = "out_of_reach",
	[-SVSM_SWIOTLB_ERROR_SERVICE_FAULT] = "service_fault",
};

static void line(struct seq_file *file, const char *name, u64 value)
{
	seq_printf(file, "%s %llu\n", name, value);
}

/* The names above are the first window's alone. */
static int low_window_show(struct seq_file *file)
{
	struct svsm_swiotlb_statistics s;
	size_t i;

	if (svsm_swiotlb_statistics(svsm_low.pool, &s, sizeof(s)))
		return -EIO;
	line(file, "low_maps", s.maps);
	line(file, "low_unmaps", s.unmaps);
	line(file, "low_syncs", s.syncs);
	line(file, "low_failures", s.failures);
	line(file, "low_shared_buffers", s.shared_buffers);
	line(file, "low_granted_bytes", s.granted_bytes);
	line(file, "low_peak_granted_bytes", s.peak_granted_bytes);
	line(file, "low_used_bytes", s.used_bytes);
	line(file, "low_given_back_bytes", s.released_bytes);
	line(file, "low_lost_bytes", s.lost_bytes);
	line(file, "low_growths", s.growths);
	line(file, "low_refused_growths", s.refused_growths);
	line(file, "low_metadata_bytes", s.metadata_bytes);
	for (i = 0; i < ARRAY_SIZE(cause_names); i++)
		if (cause_names[i])
			seq_printf(file, "low_failures_%s %llu\n", cause_names[i], s.failures_by_error[i]);
	return 0;
}

static int statistics_show(struct seq_file *file, void *unused)
{
	struct svsm_swiotlb_statistics s;
	size_t i;

	if (svsm_swiotlb_statistics(svsm_pool, &s, sizeof(s)))
		return -EIO;
	line(file, "window_start", svsm_window_first);
	line(file, "window_bytes", svsm_window_last - svsm_window_first + 1);
	line(file, "low_window_start", svsm_low.pool ? svsm_low.first : 0);
	line(file, "low_window_bytes", svsm_low.bytes);
	line(file, "devices", svsm_devices_driven());
	line(file, "maps", s.maps);
	line(file, "unmaps", s.unmaps);
	line(file, "syncs", s.syncs);
	line(file, "failures", s.failures);
	line(file, "shared_buffers", s.shared_buffers);
	line(file, "bytes_in", s.bytes_in);
	line(file, "bytes_out", s.bytes_out);
	line(file, "granted_bytes", s.granted_bytes);
	line(file, "peak_granted_bytes", s.peak_granted_bytes);
	line(file, "used_bytes", s.used_bytes);
	line(file, "peak_used_bytes", s.peak_used_bytes);
	line(file, "given_back_bytes", s.released_bytes);
	line(file, "acknowledged_bytes", s.acknowledged_bytes);
	line(file, "lost_bytes", s.lost_bytes);
	line(file, "growths", s.growths);
	line(file, "refused_growths", s.refused_growths);
	line(file, "metadata_bytes", s.metadata_bytes);
	for (i = 0; i < ARRAY_SIZE(call_names); i++)
		seq_printf(file, "calls_%s %llu\n", call_names[i], s.calls[i]);
	line(file, "calls_memory_form", atomic64_read(&svsm_call_counters.memory_form));
	line(file, "calls_msr", atomic64_read(&svsm_call_counters.msr));
	line(file, "calls_not_run", atomic64_read(&svsm_call_counters.not_run));
	line(file, "calls_grow_interrupts_off", atomic64_read(&svsm_call_counters.grow_interrupts_off));
	for (i = 0; i < ARRAY_SIZE(cause_names); i++)
		if (cause_names[i])
			seq_printf(file, "failures_%s %llu\n", cause_names[i], s.failures_by_error[i]);
	line(file, "failures_nmi", atomic64_read(&svsm_refusals.nmi));
	line(file, "calls_nmi", atomic64_read(&svsm_call_counters.in_nmi));
	line(file, "failures_mmio", atomic64_read(&svsm_refusals.mmio));
	line(file, "failures_peer_to_peer", atomic64_read(&svsm_refusals.peer_to_peer));
	line(file, "failures_outside_direct_map", atomic64_read(&svsm_refusals.outside_direct_map));
	line(file, "failures_unmap", atomic64_read(&svsm_refusals.bad_unmap));
	line(file, "failures_sync", atomic64_read(&svsm_refusals.bad_sync));
	return svsm_low.pool ? low_window_show(file) : 0;
}
DEFINE_SHOW_ATTRIBUTE(statistics);

static int give_back_set(void *unused, u64 value)
{
	return svsm_give_back() ? -EIO : 0;
}
DEFINE_DEBUGFS_ATTRIBUTE(give_back_fops, NULL, give_back_set, "%llu\n");

void svsm_statistics_init(void)
{
	/* Without debugfs the pool works as well; its functions take error pointers. */
	folder = debugfs_create_dir("svsm_swiotlb", NULL);
	debugfs_create_file("statistics", 0444, folder, NULL, &statistics_fops);
	debugfs_create_file("give_back", 0200, folder, NULL, &give_back_fops);
}

void svsm_statistics_exit(void)
{
	debugfs_remove_recursive(folder);
}
