/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Two CPUs at the same time: what one maps the other may end, and nobody's bytes get mixed up. */
#include "program.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <threads.h>

enum { THREADS = 2, ROUNDS = 4000, LONGEST = 30000 };

struct job {
    struct svsm_swiotlb_mapping mapping;
    uint8_t *buffer;
    unsigned seed;
};

struct cpu {
    struct fixture *fixture;
    _Atomic(struct job *) *mailbox;
    unsigned seed;
};

static struct job *begin(struct cpu *cpu)
{
    struct job *job = malloc(sizeof *job);
    size_t length;

    cpu->seed = cpu->seed * 1103515245 + 12345;
    length = 1 + (cpu->seed >> 8) % (cpu->seed % 8 == 0 ? LONGEST : 2000);
    REQUIRE(job != NULL);
    job->seed = cpu->seed >> 16;
    job->buffer = malloc(length);
    REQUIRE(job->buffer != NULL);
    pattern(job->buffer, length, job->seed);
    EXPECT(svsm_swiotlb_map(cpu->fixture->pool, job->buffer, length, SVSM_SWIOTLB_DIRECTION_BIDIRECTIONAL,
                            SVSM_SWIOTLB_COPY_IN_KEEP, NULL, &job->mapping), 0);
    return job;
}

/* The device has found what was mapped and answers; the driver finds the answer. */
static void finish(struct cpu *cpu, struct job *job)
{
    uint8_t *device = machine_device(&cpu->fixture->machine, job->mapping.address);
    size_t length = job->mapping.length;

    REQUIRE(is_pattern(device, length, job->seed));
    pattern(device, length, job->seed + 1);
    EXPECT(svsm_swiotlb_unmap(cpu->fixture->pool, &job->mapping), 0);
    REQUIRE(is_pattern(job->buffer, length, job->seed + 1));
    free(job->buffer);
    free(job);
}

static int run(void *argument)
{
    struct cpu *cpu = argument;

    for (unsigned round = 0; round < ROUNDS; round++) {
        struct job *job = atomic_exchange(&cpu->mailbox[round % 64], begin(cpu));

        if (job != NULL)
            finish(cpu, job);
    }
    return 0;
}

static void two_cpus(bool own_copies)
{
    static _Atomic(struct job *) mailbox[64];
    struct fixture fixture;
    struct cpu cpus[THREADS];
    thrd_t threads[THREADS];

    fixture_start(&fixture, own_copies);
    for (unsigned at = 0; at < THREADS; at++) {
        cpus[at] = (struct cpu){.fixture = &fixture, .mailbox = mailbox, .seed = at + 1};
        REQUIRE(thrd_create(&threads[at], run, &cpus[at]) == thrd_success);
    }
    for (unsigned at = 0; at < THREADS; at++)
        REQUIRE(thrd_join(threads[at], NULL) == thrd_success);
    for (unsigned at = 0; at < 64; at++)
        finish(&cpus[0], atomic_exchange(&mailbox[at], NULL));
    REQUIRE(statistics(fixture.pool).maps == THREADS * ROUNDS);
    REQUIRE(statistics(fixture.pool).unmaps == THREADS * ROUNDS);
    REQUIRE(statistics(fixture.pool).used_bytes == 0);
    fixture_stop(&fixture);
}

void test_two_cpus(void)
{
    two_cpus(false);
    two_cpus(true);
}
