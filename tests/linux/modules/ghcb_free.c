// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * Marks the GHCBs of a CPU that is off line as free.
 *
 * A CPU that goes off line takes its GHCB for the reset hold (sev_es_ap_hlt_loop)
 * and never returns from there in an SNP guest: it begins anew with another VMSA.
 * So its GHCB stays marked as in use, the next time its backup too, and then the
 * kernel ends in "GHCB and Backup GHCB are already in use". With the number of
 * the CPU written to the parameter between the two, it goes on.
 */
#include <linux/cpumask.h>
#include <linux/kprobes.h>
#include <linux/module.h>
#include <linux/percpu.h>

/* struct sev_es_runtime_data (arch/x86/coco/sev): two pages, then a flag for each. */
struct runtime_data {
	u8 ghcb[2][PAGE_SIZE];
	bool in_use[2];
};

static struct runtime_data *__percpu *runtime_data;

/* Not exported; a probe says where it is. */
static unsigned long lookup(const char *name)
{
	struct kprobe probe = { .symbol_name = "kallsyms_lookup_name" };
	unsigned long (*by_name)(const char *name);

	if (register_kprobe(&probe))
		return 0;
	by_name = (void *)probe.addr;
	unregister_kprobe(&probe);
	return by_name(name);
}

static int set_cpu(const char *text, const struct kernel_param *param)
{
	struct runtime_data *data;
	unsigned int cpu;
	int error = kstrtouint(text, 0, &cpu);

	if (error)
		return error;
	if (!cpu_possible(cpu) || cpu_online(cpu))
		return -EINVAL;
	data = *per_cpu_ptr(runtime_data, cpu);
	pr_info("ghcb_free: cpu%u in use: %u %u\n", cpu, data->in_use[0], data->in_use[1]);
	data->in_use[0] = false;
	data->in_use[1] = false;
	return 0;
}

static const struct kernel_param_ops cpu_ops = { .set = set_cpu };
module_param_cb(cpu, &cpu_ops, NULL, 0200);
MODULE_PARM_DESC(cpu, "CPU off line whose GHCBs are free");

static int __init ghcb_free_init(void)
{
	runtime_data = (struct runtime_data *__percpu *)lookup("runtime_data");
	return runtime_data ? 0 : -ENOENT;
}
module_init(ghcb_free_init);

static void __exit ghcb_free_exit(void)
{
}
module_exit(ghcb_free_exit);

MODULE_DESCRIPTION("For tests: frees the GHCBs of a CPU that is off line");
MODULE_LICENSE("Dual MIT/GPL");
