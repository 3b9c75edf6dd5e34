// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * The pool in an NMI: what is asked of it there is refused, whatever the NMI
 * came in the middle of, and the pool is none the worse for it.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/cpumask.h>
#include <linux/err.h>
#include <linux/jiffies.h>
#include <linux/kallsyms.h>
#include <linux/kthread.h>
#include <linux/sched.h>
#include <linux/sizes.h>
#include <linux/slab.h>
#include <linux/smp.h>
#include <linux/string.h>
#include <asm/apic.h>
#include <asm/nmi.h>

#include "map_test.h"

/* Of those that come while the pool is at work: so many in its sections without interrupts, of at most so many. */
#define ENOUGH		8
#define MOST		5000
/* Most that one may take. */
#define PATIENCE	(10 * HZ)

/* What the handler needs and what it finds. */
static struct {
	struct device *dev;
	void *buffer;
	unsigned long attrs;
	unsigned int cpu;
	/* How many came; behind it what the last of them interrupted. */
	unsigned int taken;
	unsigned long ip;
	bool interrupts;
	/* What was not refused. It stays, since nothing can be given back there. */
	unsigned int mapped, allocated;
} nmi;

static int handle(unsigned int type, struct pt_regs *regs)
{
	dma_addr_t at;

	if (smp_processor_id() != nmi.cpu)
		return NMI_DONE;
	at = dma_map_single_attrs(nmi.dev, nmi.buffer, 64, DMA_TO_DEVICE, nmi.attrs);
	if (!dma_mapping_error(nmi.dev, at))
		nmi.mapped++;
	if (dma_alloc_attrs(nmi.dev, SZ_4K, &at, GFP_ATOMIC, nmi.attrs))
		nmi.allocated++;
	nmi.ip = regs->ip;
	nmi.interrupts = regs->flags & X86_EFLAGS_IF;
	smp_store_release(&nmi.taken, nmi.taken + 1);
	return NMI_HANDLED;
}

static bool begin(struct pci_dev *pdev, unsigned int cpu, unsigned long attrs)
{
	memset(&nmi, 0, sizeof(nmi));
	nmi.dev = &pdev->dev;
	nmi.buffer = kmalloc(64, GFP_KERNEL);
	nmi.attrs = attrs;
	nmi.cpu = cpu;
	if (!check(nmi.buffer, "no memory"))
		return false;
	if (check(!register_nmi_handler(NMI_LOCAL, handle, 0, KBUILD_MODNAME), "no handler"))
		return true;
	kfree(nmi.buffer);
	return false;
}

static void nothing(void *info)
{
}

static void end(u64 failures, u64 calls)
{
	/* None is on its way any more when the CPU takes this. */
	smp_call_function_single(nmi.cpu, nothing, NULL, 1);
	unregister_nmi_handler(NMI_LOCAL, KBUILD_MODNAME);
	check(!nmi.mapped, "%u are mapped", nmi.mapped);
	check(!nmi.allocated, "%u are allocated", nmi.allocated);
	counted("failures_nmi", failures, 2 * nmi.taken);
	counted("calls_nmi", calls, 0);
	kfree(nmi.buffer);
}

static bool send(unsigned int count)
{
	unsigned int before = smp_load_acquire(&nmi.taken);
	unsigned long limit = jiffies + PATIENCE;

	while (count--)
		__apic_send_IPI_mask(cpumask_of(nmi.cpu), NMI_VECTOR);
	while (smp_load_acquire(&nmi.taken) == before) {
		if (!check(time_before(jiffies, limit), "no NMI comes"))
			return false;
		cond_resched();
	}
	return true;
}

/* To this CPU itself, with a line for each refusal. */
static void in_an_nmi(struct pci_dev *pdev)
{
	u64 failures = statistic("failures_nmi"), calls = statistic("calls_nmi");
	unsigned int cpu = get_cpu();
	bool sent;

	put_cpu();
	set_cpus_allowed_ptr(current, cpumask_of(cpu));
	if (begin(pdev, cpu, 0)) {
		sent = send(1);
		end(failures, calls);
		check(!sent || nmi.taken == 1, "%u came", nmi.taken);
	}
	set_cpus_allowed_ptr(current, cpu_possible_mask);
}

/*
 * Maps more at a time than the cache of a CPU holds, so that the pool's own lock is taken often; small ones, so that little else
 * takes time. Now and then it allocates.
 */
static int work(void *data)
{
	dma_addr_t list[96], shared;
	u64 *words = data;
	void *pointer;
	u64 round;
	int i;

	for (round = 0; !kthread_should_stop(); round++) {
		for (i = 0; i < ARRAY_SIZE(list); i++) {
			words[8 * i] = round + i;
			list[i] = dma_map_single(nmi.dev, &words[8 * i], 64, DMA_BIDIRECTIONAL);
			check(!dma_mapping_error(nmi.dev, list[i]), "64 bytes are not mapped");
			words[8 * i] = 0;
		}
		for (i = 0; i < ARRAY_SIZE(list); i++) {
			dma_unmap_single(nmi.dev, list[i], 64, DMA_BIDIRECTIONAL);
			check(words[8 * i] == round + i, "the bytes of mapping %d are wrong", i);
		}
		cond_resched();
		if (round % 16)
			continue;
		pointer = dma_alloc_coherent(nmi.dev, SZ_4K, &shared, GFP_KERNEL);
		if (check(pointer, "4096 bytes are not allocated"))
			dma_free_coherent(nmi.dev, SZ_4K, pointer, shared);
	}
	return 0;
}

/* Whether the last one came in the pool, where it had turned interrupts off. */
static bool inside(void)
{
	char place[KSYM_SYMBOL_LEN];

	if (nmi.interrupts)
		return false;
	sprint_symbol(place, nmi.ip);
	return strstr(place, "[svsm_swiotlb]");
}

/* To another CPU, which maps and allocates all the time. */
static void nmis_at_work(struct pci_dev *pdev)
{
	u64 failures = statistic("failures_nmi"), calls = statistic("calls_nmi"), maps = statistic("maps");
	void *buffer = kmalloc(SZ_8K, GFP_KERNEL);
	unsigned int own = get_cpu(), other = cpumask_any_but(cpu_online_mask, own);
	unsigned int rounds = 0, found = 0;
	struct task_struct *worker;

	put_cpu();
	if (!check(buffer, "no memory") || !check(other < nr_cpu_ids, "there is one CPU") ||
	    !begin(pdev, other, DMA_ATTR_NO_WARN))
		goto free;
	set_cpus_allowed_ptr(current, cpumask_of(own));
	worker = kthread_create(work, buffer, "map_test");
	if (check(!IS_ERR(worker), "no thread")) {
		kthread_bind(worker, other);
		wake_up_process(worker);
		/* Several at once now and then: one more is kept while one is taken. */
		while (found < ENOUGH && nmi.taken < MOST && send(rounds++ % 8 ? 1 : 3))
			found += inside();
		kthread_stop(worker);
	}
	end(failures, calls);
	set_cpus_allowed_ptr(current, cpu_possible_mask);
	check(found == ENOUGH, "%u of %u came inside the pool", found, nmi.taken);
	check(statistic("maps") - maps > ENOUGH, "only %llu maps meanwhile", statistic("maps") - maps);
	pr_info("nmis %u, %u inside the pool, beside %llu maps\n", nmi.taken, found, statistic("maps") - maps);
free:
	kfree(buffer);
}

const struct map_test nmi_tests[] = {
	{ "in-an-nmi", in_an_nmi, .reported = true },
	{ "nmis-at-work", nmis_at_work, .reported = true },
	MAP_TEST_END
};
