/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * Uses all of the interface from C, against the service in machine.c. Prints one line for each test; the last one says
 * that every error the header names has been returned by some call. Ends with 1 at the first check that fails.
 */
#include "program.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LAST_ERROR (-ERROR(TOO_MANY_SYNCS))
static atomic_bool seen[LAST_ERROR + 1];

void expect(const char *file, int line, const char *call, int got, int wanted)
{
    if (got != wanted) {
        printf("%s:%d: %s\n  returned %d (%s), expected %d (%s)\n", file, line, call, got,
               svsm_swiotlb_error_text(got), wanted, svsm_swiotlb_error_text(wanted));
        exit(1);
    }
    REQUIRE(got <= 0 && got >= -LAST_ERROR);
    seen[-got] = true;
}

struct svsm_swiotlb_config defaults(void)
{
    struct svsm_swiotlb_config config;

    EXPECT(svsm_swiotlb_config_init(&config, sizeof config), 0);
    return config;
}

struct svsm_swiotlb_statistics statistics(const struct svsm_swiotlb_pool *pool)
{
    struct svsm_swiotlb_statistics statistics;

    EXPECT(svsm_swiotlb_statistics(pool, &statistics, sizeof statistics), 0);
    return statistics;
}

void fixture_prepare(struct fixture *fixture)
{
    size_t metadata_bytes = svsm_swiotlb_metadata_bytes(WINDOW_BYTES, 2);

    machine_start(&fixture->machine);
    REQUIRE(svsm_swiotlb_pool_bytes() <= SVSM_SWIOTLB_POOL_BYTES);
    REQUIRE(svsm_swiotlb_pool_alignment() <= SVSM_SWIOTLB_POOL_ALIGNMENT);
    fixture->storage = aligned_alloc(SVSM_SWIOTLB_POOL_ALIGNMENT, SVSM_SWIOTLB_POOL_BYTES);
    fixture->metadata = malloc(metadata_bytes + 1);
    REQUIRE(fixture->storage != NULL && fixture->metadata != NULL);
    memset(fixture->storage, 0xee, SVSM_SWIOTLB_POOL_BYTES);
    memset(fixture->metadata, 0xee, metadata_bytes + 1);
    fixture->pool = NULL;
}

int fixture_attach(struct fixture *fixture, bool own_copies, const struct svsm_swiotlb_config *config)
{
    struct svsm_swiotlb_platform platform = machine_platform(&fixture->machine, own_copies);

    /* An odd address: the metadata may have any alignment. */
    return svsm_swiotlb_attach(&platform, config, fixture->storage, SVSM_SWIOTLB_POOL_BYTES,
                               (uint8_t *)fixture->metadata + 1,
                               svsm_swiotlb_metadata_bytes(WINDOW_BYTES, 2), &fixture->pool);
}

void fixture_start(struct fixture *fixture, bool own_copies)
{
    struct svsm_swiotlb_config config = defaults();

    config.cpus = 2;
    fixture_prepare(fixture);
    EXPECT(fixture_attach(fixture, own_copies, &config), 0);
    REQUIRE(fixture->pool != NULL);
}

void fixture_stop(struct fixture *fixture)
{
    machine_stop(&fixture->machine);
    free(fixture->storage);
    free(fixture->metadata);
}

static uint8_t pattern_at(size_t at, unsigned seed)
{
    return (uint8_t)((at * 31 + at / 251 + seed * 67) & 0xff);
}

void pattern(uint8_t *bytes, size_t length, unsigned seed)
{
    for (size_t at = 0; at < length; at++)
        bytes[at] = pattern_at(at, seed);
}

bool is_pattern(const uint8_t *bytes, size_t length, unsigned seed)
{
    for (size_t at = 0; at < length; at++)
        if (bytes[at] != pattern_at(at, seed))
            return false;
    return true;
}

static void run(const char *name, void (*test)(void))
{
    test();
    printf("ok %s\n", name);
    fflush(stdout);
}

int main(void)
{
    unsigned missing = 0;

    run("attach", test_attach);
    run("directions", test_directions);
    run("device-written", test_device_written);
    run("sync", test_sync);
    run("by-address", test_by_address);
    run("constraints", test_constraints);
    run("boundary", test_boundary);
    run("interrupt-in-a-copy", test_interrupt_in_a_copy);
    run("sync-in-a-sync", test_sync_in_a_sync);
    run("two-cpus", test_two_cpus);
    run("growth-and-give-back", test_growth_and_give_back);
    run("second-window", test_second_window);
    run("maintenance", test_maintenance);
    run("reservations", test_reservations);
    run("shared-memory", test_shared_memory);
    run("pressure", test_pressure);
    run("adopted", test_adopted);
    run("orphans-given-back", test_orphans_given_back);
    run("detach", test_detach);
    run("map-refusals", test_map_refusals);
    run("misuse", test_misuse);
    run("arguments", test_arguments);

    for (int error = 1; error <= LAST_ERROR; error++) {
        if (!seen[error]) {
            printf("no call has returned %d (%s)\n", -error, svsm_swiotlb_error_text(-error));
            missing++;
        }
    }
    if (missing != 0)
        return 1;
    printf("ok all %d errors were returned\n", LAST_ERROR);
    return 0;
}
