/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Mapping, unmapping and partial syncs: which bytes are copied, and when. */
#include "program.h"

#include <string.h>

#define LENGTH 5000

enum { TO = SVSM_SWIOTLB_DIRECTION_TO_DEVICE, FROM = SVSM_SWIOTLB_DIRECTION_FROM_DEVICE,
       BOTH = SVSM_SWIOTLB_DIRECTION_BIDIRECTIONAL };
enum { KEEP = SVSM_SWIOTLB_COPY_IN_KEEP, DEVICE_WRITTEN = SVSM_SWIOTLB_COPY_IN_DEVICE_WRITTEN };

static uint8_t buffer[LENGTH];

static void directions(bool own_copies)
{
    struct fixture fixture;
    struct svsm_swiotlb_mapping mapping;

    fixture_start(&fixture, own_copies);
    for (int direction = TO; direction <= BOTH; direction++) {
        uint8_t *device;
        uint64_t copied_out = fixture.machine.copied_out;

        pattern(buffer, LENGTH, 1);
        EXPECT(svsm_swiotlb_map(fixture.pool, buffer, LENGTH, direction, KEEP, NULL, &mapping), 0);
        REQUIRE(mapping.length == LENGTH && mapping.direction == direction);
        REQUIRE(svsm_swiotlb_contains(fixture.pool, mapping.address));
        REQUIRE(svsm_swiotlb_contains(fixture.pool, mapping.address + LENGTH - 1));
        device = machine_device(&fixture.machine, mapping.address);
        REQUIRE(is_pattern(device, LENGTH, 1));

        /* The device writes part of it, whatever the direction says. */
        memset(device + 100, 0xd1, 1000);
        EXPECT(svsm_swiotlb_unmap(fixture.pool, &mapping), 0);
        if (direction == TO) {
            REQUIRE(is_pattern(buffer, LENGTH, 1));
            REQUIRE(fixture.machine.copied_out == copied_out);
        } else {
            REQUIRE(is_pattern(buffer, 100, 1));
            REQUIRE(buffer[100] == 0xd1 && buffer[1099] == 0xd1);
            memset(device, 0xd2, LENGTH); /* after the unmap: reaches nobody */
            pattern(device, LENGTH, 1);
            REQUIRE(memcmp(buffer + 1100, device + 1100, LENGTH - 1100) == 0);
        }
    }
    REQUIRE(statistics(fixture.pool).maps == 3 && statistics(fixture.pool).unmaps == 3);
    REQUIRE(statistics(fixture.pool).used_bytes == 0);
    REQUIRE(statistics(fixture.pool).bytes_in == 3 * LENGTH);
    REQUIRE(statistics(fixture.pool).bytes_out == 2 * LENGTH);
    if (own_copies)
        REQUIRE(fixture.machine.copied_in == 3 * LENGTH && fixture.machine.copied_out == 2 * LENGTH);
    fixture_stop(&fixture);
}

void test_directions(void)
{
    directions(true);
    directions(false);
}

void test_device_written(void)
{
    struct fixture fixture;
    struct svsm_swiotlb_mapping mapping;
    uint8_t *device;

    fixture_start(&fixture, true);
    pattern(buffer, LENGTH, 2);
    EXPECT(svsm_swiotlb_map(fixture.pool, buffer, LENGTH, FROM, DEVICE_WRITTEN, NULL, &mapping), 0);
    REQUIRE(fixture.machine.copied_in == 0); /* nothing is disclosed */
    device = machine_device(&fixture.machine, mapping.address);
    memset(device, 0xd3, 1500);
    EXPECT(svsm_swiotlb_unmap_written(fixture.pool, &mapping, 1500), 0);
    REQUIRE(fixture.machine.copied_out == 1500);
    REQUIRE(buffer[0] == 0xd3 && buffer[1499] == 0xd3);
    pattern(device, LENGTH, 2);
    REQUIRE(memcmp(buffer + 1500, device + 1500, LENGTH - 1500) == 0);

    /* Unmapped without a word on what was written: nothing comes back. */
    EXPECT(svsm_swiotlb_map(fixture.pool, buffer, LENGTH, FROM, DEVICE_WRITTEN, NULL, &mapping), 0);
    memset(machine_device(&fixture.machine, mapping.address), 0xd4, LENGTH);
    EXPECT(svsm_swiotlb_unmap(fixture.pool, &mapping), 0);
    REQUIRE(buffer[0] == 0xd3 && fixture.machine.copied_out == 1500);

    /* Nothing written, and all of it. */
    EXPECT(svsm_swiotlb_map(fixture.pool, buffer, LENGTH, FROM, DEVICE_WRITTEN, NULL, &mapping), 0);
    EXPECT(svsm_swiotlb_unmap_written(fixture.pool, &mapping, 0), 0);
    EXPECT(svsm_swiotlb_map(fixture.pool, buffer, LENGTH, FROM, DEVICE_WRITTEN, NULL, &mapping), 0);
    pattern(machine_device(&fixture.machine, mapping.address), LENGTH, 3);
    EXPECT(svsm_swiotlb_unmap_written(fixture.pool, &mapping, LENGTH), 0);
    REQUIRE(is_pattern(buffer, LENGTH, 3));
    fixture_stop(&fixture);
}

void test_sync(void)
{
    struct fixture fixture;
    struct svsm_swiotlb_mapping mapping;
    uint8_t *device;

    fixture_start(&fixture, true);
    memset(buffer, 0, LENGTH);
    EXPECT(svsm_swiotlb_map(fixture.pool, buffer, LENGTH, BOTH, KEEP, NULL, &mapping), 0);
    device = machine_device(&fixture.machine, mapping.address);
    memset(device, 0xd5, LENGTH);
    EXPECT(svsm_swiotlb_sync_for_cpu(fixture.pool, &mapping, 10, 20), 0);
    REQUIRE(buffer[9] == 0 && buffer[10] == 0xd5 && buffer[29] == 0xd5 && buffer[30] == 0);
    memset(buffer, 0xc5, LENGTH);
    EXPECT(svsm_swiotlb_sync_for_device(fixture.pool, &mapping, LENGTH - 1, 1), 0);
    REQUIRE(device[LENGTH - 2] == 0xd5 && device[LENGTH - 1] == 0xc5);

    /* By address, which may lie anywhere inside. */
    EXPECT(svsm_swiotlb_sync_address_for_device(fixture.pool, mapping.address + 7, 2), 0);
    REQUIRE(device[6] == 0xd5 && device[7] == 0xc5 && device[8] == 0xc5 && device[9] == 0xd5);
    EXPECT(svsm_swiotlb_sync_address_for_cpu(fixture.pool, mapping.address + 4096, 1), 0);
    REQUIRE(buffer[4095] == 0xc5 && buffer[4096] == 0xd5 && buffer[4097] == 0xc5);

    EXPECT(svsm_swiotlb_sync_for_cpu(fixture.pool, &mapping, 1, LENGTH), ERROR(OUT_OF_RANGE));
    EXPECT(svsm_swiotlb_sync_for_cpu(fixture.pool, &mapping, UINT64_MAX, 2), ERROR(OUT_OF_RANGE));
    EXPECT(svsm_swiotlb_sync_address_for_cpu(fixture.pool, mapping.address + 1, LENGTH),
           ERROR(OUT_OF_RANGE));
    EXPECT(svsm_swiotlb_unmap(fixture.pool, &mapping), 0);
    EXPECT(svsm_swiotlb_sync_for_device(fixture.pool, &mapping, 0, 1), ERROR(ALREADY_UNMAPPED));
    EXPECT(svsm_swiotlb_sync_address_for_device(fixture.pool, WINDOW_BASE - 1, 1),
           ERROR(UNKNOWN_ADDRESS));
    REQUIRE(statistics(fixture.pool).syncs == 4);
    fixture_stop(&fixture);
}

void test_by_address(void)
{
    struct fixture fixture;
    struct svsm_swiotlb_mapping mapping;

    fixture_start(&fixture, true);
    memset(buffer, 0, LENGTH);
    EXPECT(svsm_swiotlb_map(fixture.pool, buffer, LENGTH, FROM, KEEP, NULL, &mapping), 0);
    memset(machine_device(&fixture.machine, mapping.address), 0xd6, LENGTH);
    EXPECT(svsm_swiotlb_unmap_address(fixture.pool, mapping.address, LENGTH, TO), ERROR(WRONG_DIRECTION));
    EXPECT(svsm_swiotlb_unmap_address(fixture.pool, mapping.address, LENGTH - 1, FROM),
           ERROR(WRONG_LENGTH));
    REQUIRE(buffer[0] == 0);
    EXPECT(svsm_swiotlb_unmap_address(fixture.pool, mapping.address, LENGTH, FROM), 0);
    REQUIRE(buffer[0] == 0xd6 && buffer[LENGTH - 1] == 0xd6);

    EXPECT(svsm_swiotlb_map(fixture.pool, buffer, LENGTH, FROM, DEVICE_WRITTEN, NULL, &mapping), 0);
    memset(machine_device(&fixture.machine, mapping.address), 0xd7, LENGTH);
    EXPECT(svsm_swiotlb_unmap_address_written(fixture.pool, mapping.address, LENGTH, FROM, LENGTH + 1),
           ERROR(OUT_OF_RANGE));
    EXPECT(svsm_swiotlb_unmap_address_written(fixture.pool, mapping.address, LENGTH, FROM, 3), 0);
    REQUIRE(buffer[2] == 0xd7 && buffer[3] == 0xd6);
    EXPECT(svsm_swiotlb_unmap(fixture.pool, &mapping), ERROR(ALREADY_UNMAPPED));

    /* An address and nothing else, anywhere and within constraints. */
    for (int page = 0; page <= 1; page++) {
        const struct svsm_swiotlb_constraints aligned = {.alignment = 4096};
        const int64_t answer = svsm_swiotlb_map_address(fixture.pool, buffer, LENGTH, BOTH, KEEP,
                                                        page ? &aligned : NULL);
        const uint64_t address = (uint64_t)answer;

        REQUIRE(answer > 0 && svsm_swiotlb_contains(fixture.pool, address));
        REQUIRE(!page || address % 4096 == 0);
        REQUIRE(memcmp(machine_device(&fixture.machine, address), buffer, LENGTH) == 0);
        memset(machine_device(&fixture.machine, address), 0xd8 + page, LENGTH);
        EXPECT(svsm_swiotlb_unmap_address(fixture.pool, address, LENGTH, BOTH), 0);
        REQUIRE(buffer[0] == 0xd8 + page && buffer[LENGTH - 1] == 0xd8 + page);
    }
    REQUIRE(svsm_swiotlb_map_address(fixture.pool, buffer, LENGTH, TO, DEVICE_WRITTEN, NULL) ==
            ERROR(INVALID_REQUEST));
    fixture_stop(&fixture);
}

void test_constraints(void)
{
    static _Alignas(4096) uint8_t area[3 * 4096];
    struct fixture fixture;
    struct svsm_swiotlb_mapping mapping, low;
    struct svsm_swiotlb_constraints constraints = {0};
    struct svsm_swiotlb_constraints nvme = {.min_align_mask = 4095};
    struct svsm_swiotlb_constraints reach = {.highest_address = WINDOW_BASE + 65535};

    fixture_start(&fixture, true);
    EXPECT(svsm_swiotlb_map(fixture.pool, area + 1, 1, TO, KEEP, &constraints, &mapping), 0);
    EXPECT(svsm_swiotlb_map(fixture.pool, area + 1234, 6000, TO, KEEP, &nvme, &low), 0);
    REQUIRE((low.address & 4095) == 1234);
    EXPECT(svsm_swiotlb_unmap(fixture.pool, &low), 0);
    EXPECT(svsm_swiotlb_unmap(fixture.pool, &mapping), 0);

    constraints.alignment = 65536;
    EXPECT(svsm_swiotlb_map(fixture.pool, area + 3, 100, TO, KEEP, &constraints, &mapping), 0);
    REQUIRE(mapping.address % 65536 == 0);
    EXPECT(svsm_swiotlb_unmap(fixture.pool, &mapping), 0);

    EXPECT(svsm_swiotlb_map(fixture.pool, area, 4096, TO, KEEP, &reach, &mapping), 0);
    REQUIRE(mapping.address + 4095 <= reach.highest_address);
    EXPECT(svsm_swiotlb_unmap(fixture.pool, &mapping), 0);

    constraints.alignment = 3;
    EXPECT(svsm_swiotlb_map(fixture.pool, area, 1, TO, KEEP, &constraints, &mapping),
           ERROR(INVALID_REQUEST));
    nvme.min_align_mask = 4094;
    EXPECT(svsm_swiotlb_map(fixture.pool, area, 1, TO, KEEP, &nvme, &mapping), ERROR(INVALID_REQUEST));
    reach.highest_address = WINDOW_BASE - 1;
    EXPECT(svsm_swiotlb_map(fixture.pool, area, 1, TO, KEEP, &reach, &mapping), ERROR(OUT_OF_REACH));
    fixture_stop(&fixture);
}

void test_boundary(void)
{
    static const size_t lengths[] = {1, 700, 1500, 4096, 5000, 20000, 65536};
    struct fixture fixture;
    struct svsm_swiotlb_mapping mappings[40];
    struct svsm_swiotlb_constraints constraints = {.boundary = 65536};
    struct svsm_swiotlb_shared_buffer shared;
    static uint8_t large[65537];
    unsigned made = 0;

    fixture_start(&fixture, true);
    for (unsigned round = 0; round < 5; round++) {
        for (unsigned at = 0; at < sizeof lengths / sizeof lengths[0]; at++, made++) {
            struct svsm_swiotlb_mapping *mapping = &mappings[made];

            EXPECT(svsm_swiotlb_map(fixture.pool, large, lengths[at], TO, KEEP, &constraints, mapping), 0);
            REQUIRE(mapping->address / 65536 == (mapping->address + lengths[at] - 1) / 65536);
        }
    }
    while (made > 0)
        EXPECT(svsm_swiotlb_unmap(fixture.pool, &mappings[--made]), 0);
    EXPECT(svsm_swiotlb_map(fixture.pool, large, 65537, TO, KEEP, &constraints, &mappings[0]),
           ERROR(OUT_OF_REACH));
    /* The same boundary is none for what lies within it as a whole. */
    constraints.boundary = UINT64_C(1) << 32;
    EXPECT(svsm_swiotlb_map(fixture.pool, large, 65537, TO, KEEP, &constraints, &mappings[0]), 0);
    EXPECT(svsm_swiotlb_unmap(fixture.pool, &mappings[0]), 0);
    constraints.boundary = 12345;
    EXPECT(svsm_swiotlb_map(fixture.pool, large, 1, TO, KEEP, &constraints, &mappings[0]),
           ERROR(INVALID_REQUEST));

    /* Shared memory in reach of a device. */
    constraints = (struct svsm_swiotlb_constraints){
        .alignment = 4096, .boundary = MIB, .highest_address = WINDOW_BASE + CHUNK - 1};
    for (unsigned round = 0; round < 2; round++) {
        EXPECT(svsm_swiotlb_alloc_shared_within(fixture.pool, 700000, &constraints, &shared), 0);
        REQUIRE(shared.address % 4096 == 0 && shared.address + 700000 <= WINDOW_BASE + CHUNK);
        REQUIRE(shared.address / MIB == (shared.address + 699999) / MIB);
    }
    EXPECT(svsm_swiotlb_free_shared(fixture.pool, &shared), 0);
    constraints.highest_address = WINDOW_BASE + 4094;
    EXPECT(svsm_swiotlb_alloc_shared_within(fixture.pool, 4096, &constraints, &shared), ERROR(OUT_OF_REACH));
    EXPECT(svsm_swiotlb_alloc_shared_within(fixture.pool, 4096, NULL, NULL), ERROR(INVALID_ARGUMENT));
    EXPECT(svsm_swiotlb_alloc_shared_within(fixture.pool, 4096, NULL, &shared), 0);
    fixture_stop(&fixture);

    /* A caller of the second version knows no boundary: what lies behind its constraints is not read. */
    {
        struct svsm_swiotlb_config config = defaults();

        config.size = offsetof(struct svsm_swiotlb_config, skip_query_protocol);
        config.version = 2;
        fixture_prepare(&fixture);
        EXPECT(fixture_attach(&fixture, true, &config), 0);
        constraints = (struct svsm_swiotlb_constraints){.boundary = 1};
        EXPECT(svsm_swiotlb_map(fixture.pool, large, 100, TO, KEEP, &constraints, &mappings[0]), 0);
        fixture_stop(&fixture);
    }
}

struct interruption {
    struct svsm_swiotlb_pool *pool;
    struct svsm_swiotlb_mapping outer;
    bool ran;
};

/* An interrupt handler that does I/O of its own, and one that is wrong about whose mapping it is. */
static void interrupt(void *argument)
{
    struct interruption *interruption = argument;
    struct svsm_swiotlb_mapping inner;
    uint8_t small[64] = {1};

    EXPECT(svsm_swiotlb_unmap(interruption->pool, &interruption->outer), ERROR(IN_USE));
    EXPECT(svsm_swiotlb_map(interruption->pool, small, sizeof small, BOTH, KEEP, NULL, &inner), 0);
    EXPECT(svsm_swiotlb_unmap(interruption->pool, &inner), 0);
    interruption->ran = true;
}

void test_interrupt_in_a_copy(void)
{
    struct fixture fixture;
    struct interruption interruption = {0};

    fixture_start(&fixture, true);
    interruption.pool = fixture.pool;
    EXPECT(svsm_swiotlb_map(fixture.pool, buffer, LENGTH, FROM, KEEP, NULL, &interruption.outer), 0);
    pattern(machine_device(&fixture.machine, interruption.outer.address), LENGTH, 4);
    fixture.machine.interrupt = interrupt;
    fixture.machine.interrupt_argument = &interruption;
    EXPECT(svsm_swiotlb_unmap(fixture.pool, &interruption.outer), 0);
    REQUIRE(interruption.ran && is_pattern(buffer, LENGTH, 4));
    fixture_stop(&fixture);
}

struct syncs {
    struct machine *machine;
    struct svsm_swiotlb_pool *pool;
    struct svsm_swiotlb_mapping mapping;
    unsigned depth;
};

/* An interrupt handler in the middle of a sync that syncs the same mapping: each one in the middle of the one before. */
static void sync_again(void *argument)
{
    struct syncs *syncs = argument;
    unsigned part = ++syncs->depth;

    if (part == 61) {
        EXPECT(svsm_swiotlb_sync_for_cpu(syncs->pool, &syncs->mapping, 0, 64), ERROR(TOO_MANY_SYNCS));
        return;
    }
    EXPECT(svsm_swiotlb_unmap(syncs->pool, &syncs->mapping), ERROR(IN_USE));
    syncs->machine->interrupt = sync_again;
    if (part % 2 == 0)
        EXPECT(svsm_swiotlb_sync_for_cpu(syncs->pool, &syncs->mapping, 64 * part, 64), 0);
    else
        EXPECT(svsm_swiotlb_sync_address_for_cpu(syncs->pool, syncs->mapping.address + 64 * part, 64), 0);
}

void test_sync_in_a_sync(void)
{
    struct fixture fixture;
    struct syncs syncs = {0};

    fixture_start(&fixture, true);
    memset(buffer, 0, LENGTH);
    syncs.machine = &fixture.machine;
    syncs.pool = fixture.pool;
    EXPECT(svsm_swiotlb_map(fixture.pool, buffer, LENGTH, FROM, KEEP, NULL, &syncs.mapping), 0);
    pattern(machine_device(&fixture.machine, syncs.mapping.address), LENGTH, 5);
    fixture.machine.interrupt = sync_again;
    fixture.machine.interrupt_argument = &syncs;
    EXPECT(svsm_swiotlb_sync_for_cpu(fixture.pool, &syncs.mapping, 0, 64), 0);
    REQUIRE(syncs.depth == 61 && is_pattern(buffer, (size_t)61 * 64, 5));
    REQUIRE(buffer[61 * 64] == 0);
    EXPECT(svsm_swiotlb_unmap(fixture.pool, &syncs.mapping), 0);
    REQUIRE(is_pattern(buffer, LENGTH, 5));
    fixture_stop(&fixture);
}
