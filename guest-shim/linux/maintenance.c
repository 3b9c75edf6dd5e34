// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * Gives back what the load of the recent past did not need. Nothing depends
 * on this being run: mappings grow the pool by themselves.
 */
#include <linux/jiffies.h>
#include <linux/workqueue.h>

#include "module.h"

static unsigned int period;

static void maintain(struct work_struct *work);
/* Deferrable: an idle CPU is not woken for it. */
static DECLARE_DEFERRABLE_WORK(work, maintain);

static void maintain(struct work_struct *unused)
{
	svsm_swiotlb_maintain(svsm_pool, NULL);
	if (svsm_low.pool)
		svsm_swiotlb_maintain(svsm_low.pool, NULL);
	queue_delayed_work(system_freezable_wq, &work, msecs_to_jiffies(period));
}

static int give_back(struct svsm_swiotlb_pool *pool)
{
	struct svsm_swiotlb_given_back given;
	int error = svsm_swiotlb_give_back(pool, &given);

	return error ?: given.stopped_by;
}

/* Gives back every empty chunk at once. Returns 0, or an enum svsm_swiotlb_error. */
int svsm_give_back(void)
{
	int error = svsm_low.pool ? give_back(svsm_low.pool) : 0;

	return give_back(svsm_pool) ?: error;
}

void svsm_maintenance_init(unsigned int period_ms)
{
	period = period_ms;
	if (period)
		queue_delayed_work(system_freezable_wq, &work, msecs_to_jiffies(period));
}

void svsm_maintenance_stop(void)
{
	cancel_delayed_work_sync(&work);
}
