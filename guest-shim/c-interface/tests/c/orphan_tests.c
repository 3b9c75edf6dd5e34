/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* A kernel after another: what the first one left is adopted or given back; and one that leaves in good order. */
#include "program.h"

#include <stdlib.h>
#include <string.h>

enum { TO = SVSM_SWIOTLB_DIRECTION_TO_DEVICE };
enum { KEEP = SVSM_SWIOTLB_COPY_IN_KEEP };

/* Any page of the guest's own. */
#define LIST_ADDRESS UINT64_C(0x7000)

/* A first kernel holds 10 MiB in several grants and is gone; a second one has attached. */
static struct svsm_swiotlb_attachment second_kernel(struct fixture *fixture, uint8_t *list)
{
    static uint8_t large[3 * MIB];
    struct svsm_swiotlb_config config = defaults();
    struct svsm_swiotlb_attachment attachment;
    struct svsm_swiotlb_mapping mapping;
    size_t metadata_bytes = svsm_swiotlb_metadata_bytes(WINDOW_BYTES, 2);

    fixture_start(fixture, false);
    fixture->machine.list = list;
    fixture->machine.list_address = LIST_ADDRESS;
    for (unsigned at = 0; at < 3; at++)
        EXPECT(svsm_swiotlb_map(fixture->pool, large, sizeof large, TO, KEEP, NULL, &mapping), 0);
    REQUIRE(machine_granted(&fixture->machine) >= 10 * MIB);
    /* Nothing of its memory is left. */
    memset(fixture->storage, 0xee, SVSM_SWIOTLB_POOL_BYTES);
    memset(fixture->metadata, 0xee, metadata_bytes + 1);
    config.cpus = 2;
    config.initial_bytes = 0;
    EXPECT(fixture_attach(fixture, false, &config), 0);
    EXPECT(svsm_swiotlb_attachment(fixture->pool, &attachment), 0);
    REQUIRE(attachment.epoch == 2 && attachment.fresh == 0);
    REQUIRE(attachment.orphaned_bytes == machine_granted(&fixture->machine));
    return attachment;
}

void test_adopted(void)
{
    static uint8_t bytes[MIB];
    struct fixture fixture;
    struct svsm_swiotlb_adoption adoption;
    struct svsm_swiotlb_mapping mapping;
    uint8_t *list = aligned_alloc(4096, 4096);
    uint64_t orphans, grows;

    REQUIRE(list != NULL);
    orphans = second_kernel(&fixture, list).orphaned_bytes;
    grows = fixture.machine.calls[CALL_GROW];
    EXPECT(svsm_swiotlb_adopt_orphans(fixture.pool, list, LIST_ADDRESS, &adoption), 0);
    REQUIRE(adoption.adopted_bytes == orphans && adoption.uncovered_bytes == 0);
    REQUIRE(fixture.machine.calls[CALL_ADOPT] == orphans / CHUNK);
    REQUIRE(statistics(fixture.pool).granted_bytes == orphans);
    /* It is the pool's: used without a call, and given back with its own generations. */
    pattern(bytes, sizeof bytes, 3);
    EXPECT(svsm_swiotlb_map(fixture.pool, bytes, sizeof bytes, TO, KEEP, NULL, &mapping), 0);
    REQUIRE(is_pattern(machine_device(&fixture.machine, mapping.address), sizeof bytes, 3));
    REQUIRE(fixture.machine.calls[CALL_GROW] == grows);
    EXPECT(svsm_swiotlb_unmap(fixture.pool, &mapping), 0);
    EXPECT(svsm_swiotlb_give_back(fixture.pool, NULL), 0);
    REQUIRE(machine_granted(&fixture.machine) == 0 && statistics(fixture.pool).granted_bytes == 0);
    /* There is nothing any more. */
    EXPECT(svsm_swiotlb_adopt_orphans(fixture.pool, list, LIST_ADDRESS, NULL), 0);
    REQUIRE(fixture.machine.calls[CALL_ADOPT] == orphans / CHUNK);
    fixture_stop(&fixture);
    free(list);
}

void test_orphans_given_back(void)
{
    struct fixture fixture;
    struct svsm_swiotlb_given_back given;
    struct svsm_swiotlb_adoption adoption;
    uint8_t *list = aligned_alloc(4096, 2 * 4096);
    uint64_t orphans;

    REQUIRE(list != NULL);
    orphans = second_kernel(&fixture, list).orphaned_bytes;
    /* Arguments that are none. */
    EXPECT(svsm_swiotlb_release_orphans(fixture.pool, NULL, LIST_ADDRESS, &given), ERROR(INVALID_ARGUMENT));
    EXPECT(svsm_swiotlb_release_orphans(fixture.pool, list + 8, LIST_ADDRESS, &given), ERROR(INVALID_ARGUMENT));
    EXPECT(svsm_swiotlb_adopt_orphans(fixture.pool, list, LIST_ADDRESS + 8, &adoption), ERROR(INVALID_ARGUMENT));
    EXPECT(svsm_swiotlb_adopt_orphans(NULL, list, LIST_ADDRESS, &adoption), ERROR(INVALID_ARGUMENT));
    EXPECT(svsm_swiotlb_detach(NULL, NULL), ERROR(INVALID_ARGUMENT));
    REQUIRE(fixture.machine.calls[CALL_LIST_GRANTED] == 0);
    /* A service that says there is more and does nothing is not asked for ever. */
    fixture.machine.stuck = true;
    EXPECT(svsm_swiotlb_release_orphans(fixture.pool, list, LIST_ADDRESS, &given), ERROR(SERVICE_FAULT));
    EXPECT(svsm_swiotlb_adopt_orphans(fixture.pool, list, LIST_ADDRESS, &adoption), ERROR(SERVICE_FAULT));
    fixture.machine.stuck = false;

    EXPECT(svsm_swiotlb_release_orphans(fixture.pool, list, LIST_ADDRESS, &given), 0);
    REQUIRE(given.released_bytes == orphans && given.acknowledged_bytes == orphans && given.stopped_by == 0);
    REQUIRE(machine_granted(&fixture.machine) == 0);
    fixture_stop(&fixture);
    free(list);
}

void test_detach(void)
{
    static uint8_t bytes[MIB], large[WINDOW_BYTES];
    struct fixture fixture;
    struct svsm_swiotlb_mapping mapping, refused;
    uint64_t orphaned = 0;

    fixture_start(&fixture, false);
    EXPECT(svsm_swiotlb_map(fixture.pool, bytes, sizeof bytes, TO, KEEP, NULL, &mapping), 0);
    EXPECT(svsm_swiotlb_detach(fixture.pool, &orphaned), 0);
    REQUIRE(orphaned == machine_granted(&fixture.machine) && orphaned >= CHUNK);
    /* What is mapped can still be ended; the pool neither grows nor leaves twice. */
    EXPECT(svsm_swiotlb_map(fixture.pool, large, sizeof large, TO, KEEP, NULL, &refused), ERROR(NOT_ATTACHED));
    EXPECT(svsm_swiotlb_unmap(fixture.pool, &mapping), 0);
    EXPECT(svsm_swiotlb_detach(fixture.pool, NULL), ERROR(NOT_ATTACHED));
    fixture_stop(&fixture);
}
