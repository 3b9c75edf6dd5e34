// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * Calls to the service at VMPL0, in two ways.
 *
 * The memory form goes through the one function that the kernel exports for
 * SVSM calls. The kernel's own GHCB is used then, nested in an NMI or not, and
 * the registers of the call travel in this CPU's calling area
 * (docs/PROTOCOL.md, 5.16).
 *
 * The MSR protocol (AMD 56421, 2.3.1; AMD 58019, 5) is for kernels without
 * that function. An NMI that leaves for the host between the write of the GHCB
 * MSR and VMGEXIT overwrites the MSR: the host then sees the NMI's exit once
 * more instead of the call. CALL_PENDING is still set afterwards, so the call
 * counts as not made. That is why it is the second choice.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/cpuhotplug.h>
#include <linux/errno.h>
#include <linux/hardirq.h>
#include <linux/irqflags.h>
#include <linux/percpu.h>
#include <linux/preempt.h>
#include <linux/printk.h>
#include <linux/string.h>
#include <asm/msr.h>
#include <asm/page.h>

#include "compatibility.h"
#include "module.h"

/* Call of the protocol whose registers lie in memory. */
#define MEMORY_FORM		16
/* Call of the protocol that grows the pool. */
#define GROW			7
/* GHCB MSR protocol: run VMPL0 (AMD 56421, 2.3.1). */
#define GHCB_RUN_VMPL0		0x016
/* In a register: what no result code is. */
#define ALL_ONES		(~0ULL)

struct svsm_call_counters svsm_call_counters;

static bool by_memory;
/* Physical address of each CPU's calling area; 0: not known yet. */
static DEFINE_PER_CPU(u64, calling_area);
static int hotplug_state = -1;

static u64 read_calling_area(void)
{
	/* #VC; the kernel's handler answers without leaving for the host. */
	return native_read_msr(MSR_SVSM_CAA);
}

static int calling_area_online(unsigned int cpu)
{
	this_cpu_write(calling_area, read_calling_area());
	return 0;
}

static int calling_area_offline(unsigned int cpu)
{
	this_cpu_write(calling_area, 0);
	return 0;
}

static int call_by_msr(struct svsm_swiotlb_call_registers *registers)
{
	register unsigned long rax asm("rax");
	register unsigned long rcx asm("rcx");
	register unsigned long rdx asm("rdx");
	register unsigned long r8 asm("r8");
	register unsigned long r9 asm("r9");
	struct svsm_ca *area;
	unsigned long flags;
	u64 address, saved;
	u8 pending;

	local_irq_save(flags);
	address = this_cpu_read(calling_area);
	if (!address)
		address = read_calling_area();
	area = __va(address);
	saved = native_read_msr(MSR_AMD64_SEV_ES_GHCB);
	native_wrmsr(MSR_AMD64_SEV_ES_GHCB, GHCB_RUN_VMPL0, 0);
	WRITE_ONCE(area->call_pending, 1);

	rax = registers->rax;
	rcx = registers->rcx;
	rdx = registers->rdx;
	r8 = registers->r8;
	r9 = 0;
	asm volatile("rep; vmmcall"
		     : "+r"(rax), "+r"(rcx), "+r"(rdx), "+r"(r8), "+r"(r9)
		     :
		     : "memory");
	/* P-4.2: only a cleared byte says that VMPL0 has seen the call. */
	pending = xchg(&area->call_pending, 0);
	if (!pending) {
		registers->rax = rax;
		registers->rcx = rcx;
		registers->rdx = rdx;
		registers->r8 = r8;
	}
	native_wrmsr(MSR_AMD64_SEV_ES_GHCB, lower_32_bits(saved), upper_32_bits(saved));
	local_irq_restore(flags);

	return pending ? -EIO : 0;
}

#ifdef SVSM_HAVE_ATTEST_REQUEST
#define HAVE_MEMORY_FORM true

/* The block of the memory form, the beginning of what the kernel copies into the calling area (P-5.16.1). */
struct memory_form {
	u64 rax;
	u64 rcx;
	u64 rdx;
	u64 r8;
};

static int call_by_memory(struct svsm_swiotlb_call_registers *registers)
{
	/* Set when this SVSM turned out not to return R9. */
	static bool broken;
	union {
		struct svsm_attest_call kernel;
		struct memory_form form;
	} input = {};
	struct svsm_call call = { .r9 = ALL_ONES, .rax_out = ALL_ONES };
	u64 id = (registers->rax & GENMASK_ULL(63, 32)) | MEMORY_FORM;

	BUILD_BUG_ON(sizeof(input.form) > sizeof(input.kernel));
	if (READ_ONCE(broken))
		return -EIO;
	input.form.rax = registers->rax;
	input.form.rcx = registers->rcx;
	input.form.rdx = registers->rdx;
	input.form.r8 = registers->r8;

	/*
	 * The value returned says nothing: -EINVAL stands for a refusal and for a
	 * call that was not made. The registers do, since only VMPL0 can change
	 * them while this VMPL is away (P-5.16.9).
	 */
	snp_issue_svsm_attest_req(id, &call, &input.kernel);
	if (upper_32_bits(call.rax_out))
		return -EIO;
	if (call.rax_out) {
		registers->rax = call.rax_out;
		return 0;
	}
	if (upper_32_bits(call.r9_out)) {
		pr_err("the SVSM does not return R9, so no call by memory can be trusted; use path=msr\n");
		WRITE_ONCE(broken, true);
		return -EIO;
	}
	registers->rax = call.r9_out;
	registers->rcx = call.rcx_out;
	registers->rdx = call.rdx_out;
	registers->r8 = call.r8_out;
	return 0;
}
#else
#define HAVE_MEMORY_FORM false

static int call_by_memory(struct svsm_swiotlb_call_registers *registers)
{
	return -EIO;
}
#endif

/* What the library calls the service by. */
int svsm_swiotlb_platform_call(struct svsm_swiotlb_call_registers *registers)
{
	int error;

	/* An NMI may have come in the middle of a call, whose calling area this would overwrite. */
	if (in_nmi()) {
		atomic64_inc(&svsm_call_counters.in_nmi);
		return -EBUSY;
	}
	if (lower_32_bits(registers->rax) == GROW && irqs_disabled())
		atomic64_inc(&svsm_call_counters.grow_interrupts_off);

	if (by_memory) {
		atomic64_inc(&svsm_call_counters.memory_form);
		error = call_by_memory(registers);
	} else {
		atomic64_inc(&svsm_call_counters.msr);
		error = call_by_msr(registers);
	}
	if (error)
		atomic64_inc(&svsm_call_counters.not_run);
	return error;
}

size_t svsm_swiotlb_platform_cpu(void)
{
	return raw_smp_processor_id();
}

size_t svsm_swiotlb_platform_interrupts_save(void)
{
	unsigned long flags;

	local_irq_save(flags);
	return flags;
}

void svsm_swiotlb_platform_interrupts_restore(size_t saved)
{
	local_irq_restore(saved);
}

const char *svsm_call_path(void)
{
	return by_memory ? "memory" : "msr";
}

/*
 * Chooses the way: "memory", "msr", or "auto" for the memory form where the
 * kernel has it.
 */
int svsm_call_init(const char *path)
{
	if (strcmp(path, "auto") && strcmp(path, "memory") && strcmp(path, "msr")) {
		pr_err("path=%s is not known; write auto, memory or msr\n", path);
		return -EINVAL;
	}
	by_memory = HAVE_MEMORY_FORM && strcmp(path, "msr");
	if (!HAVE_MEMORY_FORM && !strcmp(path, "memory")) {
		pr_err("path=memory: this kernel has no snp_issue_svsm_attest_req(); use path=msr\n");
		return -EOPNOTSUPP;
	}
	if (by_memory)
		return 0;

	hotplug_state = cpuhp_setup_state(CPUHP_AP_ONLINE_DYN, "svsm_swiotlb:online",
					  calling_area_online, calling_area_offline);
	if (hotplug_state < 0) {
		pr_err("the calling areas of the CPUs cannot be followed (error %d); try path=memory\n",
		       hotplug_state);
		return hotplug_state;
	}
	return 0;
}

void svsm_call_exit(void)
{
	if (hotplug_state >= 0)
		cpuhp_remove_state(hotplug_state);
	hotplug_state = -1;
}
