/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Where the pool's memory comes from and goes to: growth, give-back, the cap, reservations, shared buffers. */
#include "program.h"

#include <stdlib.h>
#include <string.h>

enum { TO = SVSM_SWIOTLB_DIRECTION_TO_DEVICE, BOTH = SVSM_SWIOTLB_DIRECTION_BIDIRECTIONAL };
enum { KEEP = SVSM_SWIOTLB_COPY_IN_KEEP };

void test_growth_and_give_back(void)
{
    struct fixture fixture;
    struct svsm_swiotlb_mapping mappings[6];
    struct svsm_swiotlb_given_back given;
    uint8_t *large = malloc(3 * MIB);

    REQUIRE(large != NULL);
    pattern(large, 3 * MIB, 5);
    fixture_start(&fixture, true);
    REQUIRE(machine_granted(&fixture.machine) == CHUNK);
    /* 12 MiB out of a pool that begins with 2: each growth is one call. */
    for (unsigned at = 0; at < 4; at++)
        EXPECT(svsm_swiotlb_map(fixture.pool, large, 3 * MIB, TO, KEEP, NULL, &mappings[at]), 0);
    for (unsigned at = 0; at < 4; at++)
        REQUIRE(is_pattern(machine_device(&fixture.machine, mappings[at].address), 3 * MIB, 5));
    REQUIRE(machine_granted(&fixture.machine) >= 12 * MIB);
    REQUIRE(fixture.machine.calls[CALL_GROW] <= 5);
    REQUIRE(statistics(fixture.pool).growths == fixture.machine.calls[CALL_GROW]);
    REQUIRE(statistics(fixture.pool).calls[CALL_GROW] == fixture.machine.calls[CALL_GROW]);

    /* What is mapped stays. */
    for (unsigned at = 1; at < 4; at++)
        EXPECT(svsm_swiotlb_unmap(fixture.pool, &mappings[at]), 0);
    EXPECT(svsm_swiotlb_give_back(fixture.pool, &given), 0);
    REQUIRE(given.released_bytes > 0 && given.acknowledged_bytes == given.released_bytes);
    REQUIRE(given.stopped_by == 0);
    REQUIRE(machine_granted(&fixture.machine) == statistics(fixture.pool).granted_bytes);
    REQUIRE(is_pattern(machine_device(&fixture.machine, mappings[0].address), 3 * MIB, 5));
    EXPECT(svsm_swiotlb_unmap(fixture.pool, &mappings[0]), 0);
    EXPECT(svsm_swiotlb_give_back(fixture.pool, NULL), 0);
    REQUIRE(machine_granted(&fixture.machine) == 0);
    REQUIRE(statistics(fixture.pool).granted_bytes == 0);
    REQUIRE(statistics(fixture.pool).lost_bytes == 0);

    /* It grows again, to one run over the whole window. */
    free(large);
    large = malloc(WINDOW_BYTES);
    REQUIRE(large != NULL);
    pattern(large, WINDOW_BYTES, 6);
    EXPECT(svsm_swiotlb_map(fixture.pool, large, WINDOW_BYTES, TO, KEEP, NULL, &mappings[0]), 0);
    REQUIRE(mappings[0].address == WINDOW_BASE && is_pattern(fixture.machine.memory, WINDOW_BYTES, 6));
    EXPECT(svsm_swiotlb_unmap(fixture.pool, &mappings[0]), 0);

    /* The service stops a give-back. */
    fixture.machine.release_answer = BUSY;
    EXPECT(svsm_swiotlb_give_back(fixture.pool, &given), 0);
    REQUIRE(given.released_bytes == 0 && given.stopped_by == ERROR(BUSY));
    free(large);
    fixture_stop(&fixture);
}

/* A second window of the same attachment: its pool has its own memory, cap and records. */
void test_second_window(void)
{
    static _Alignas(SVSM_SWIOTLB_POOL_ALIGNMENT) uint8_t storage[SVSM_SWIOTLB_POOL_BYTES];
    struct fixture fixture;
    struct svsm_swiotlb_config config;
    struct svsm_swiotlb_window window;
    struct svsm_swiotlb_attachment attachment;
    struct svsm_swiotlb_mapping first, second;
    struct svsm_swiotlb_pool *low;
    size_t bytes = svsm_swiotlb_metadata_bytes(SECOND_CHUNKS * CHUNK, 1);
    uint8_t *metadata = malloc(bytes), *data = malloc(MIB);
    uint64_t orphaned;

    REQUIRE(metadata != NULL && data != NULL);
    pattern(data, MIB, 7);
    fixture_start(&fixture, true);
    EXPECT(svsm_swiotlb_config_init(&config, sizeof config), 0);
    EXPECT(svsm_swiotlb_window_beside(fixture.pool, 1, &window), 0);
    REQUIRE(window.bytes == 0);
    EXPECT(svsm_swiotlb_attach_beside(fixture.pool, 1, &config, storage, sizeof storage, metadata, bytes, &low),
           ERROR(SERVICE_REFUSED));
    fixture_stop(&fixture);

    fixture_prepare(&fixture);
    fixture.machine.second_window = true;
    EXPECT(fixture_attach(&fixture, true, &config), 0);
    EXPECT(svsm_swiotlb_window_beside(fixture.pool, 1, &window), 0);
    REQUIRE(window.base == SECOND_BASE && window.bytes == SECOND_CHUNKS * CHUNK);
    EXPECT(svsm_swiotlb_window_beside(fixture.pool, 2, &window), 0);
    REQUIRE(window.bytes == 0);
    EXPECT(svsm_swiotlb_window_beside(fixture.pool, 8, &window), ERROR(INVALID_ARGUMENT));
    EXPECT(svsm_swiotlb_window_beside(fixture.pool, 1, NULL), ERROR(INVALID_ARGUMENT));
    EXPECT(svsm_swiotlb_attach_beside(fixture.pool, 0, &config, storage, sizeof storage, metadata, bytes, &low),
           ERROR(UNUSABLE_WINDOW));
    EXPECT(svsm_swiotlb_attach_beside(fixture.pool, 256, &config, storage, sizeof storage, metadata, bytes, &low),
           ERROR(INVALID_ARGUMENT));
    EXPECT(svsm_swiotlb_attach_beside(fixture.pool, 1, &config, storage, 64, metadata, bytes, &low),
           ERROR(INVALID_ARGUMENT));
    EXPECT(svsm_swiotlb_attach_beside(fixture.pool, 1, NULL, storage, sizeof storage, metadata, bytes, &low),
           ERROR(INVALID_ARGUMENT));
    config.initial_bytes = 0;
    EXPECT(svsm_swiotlb_attach_beside(fixture.pool, 1, &config, storage, sizeof storage, metadata, bytes, &low), 0);
    REQUIRE(fixture.machine.calls[CALL_ATTACH] == 1);
    EXPECT(svsm_swiotlb_attachment(low, &attachment), 0);
    REQUIRE(attachment.epoch == 1 && attachment.cap_bytes == SECOND_CHUNKS * CHUNK);

    EXPECT(svsm_swiotlb_map(fixture.pool, data, MIB, TO, KEEP, NULL, &first), 0);
    EXPECT(svsm_swiotlb_map(low, data, MIB, TO, KEEP, NULL, &second), 0);
    REQUIRE(svsm_swiotlb_contains(low, second.address) && !svsm_swiotlb_contains(low, first.address));
    REQUIRE(svsm_swiotlb_contains(fixture.pool, first.address) && !svsm_swiotlb_contains(fixture.pool, second.address));
    REQUIRE(is_pattern(machine_device(&fixture.machine, second.address), MIB, 7));
    EXPECT(svsm_swiotlb_unmap(fixture.pool, &second), ERROR(UNKNOWN_ADDRESS));
    EXPECT(svsm_swiotlb_unmap(low, &second), 0);
    EXPECT(svsm_swiotlb_unmap(fixture.pool, &first), 0);
    EXPECT(svsm_swiotlb_give_back(low, NULL), 0);
    REQUIRE(statistics(low).granted_bytes == 0 && machine_granted(&fixture.machine) == CHUNK);
    EXPECT(svsm_swiotlb_detach(low, &orphaned), 0);
    REQUIRE(orphaned == CHUNK);
    fixture_stop(&fixture);
    free(metadata);
    free(data);
}

void test_maintenance(void)
{
    struct fixture fixture;
    struct svsm_swiotlb_mapping mapping;
    struct svsm_swiotlb_given_back given;
    uint64_t released = 0, previous = 0;
    uint8_t *large = calloc(1, 8 * MIB);

    REQUIRE(large != NULL);
    fixture_start(&fixture, false);
    EXPECT(svsm_swiotlb_map(fixture.pool, large, 8 * MIB, TO, KEEP, NULL, &mapping), 0);
    EXPECT(svsm_swiotlb_unmap(fixture.pool, &mapping), 0);
    /* With hysteresis: not at once, but after a few calls. */
    EXPECT(svsm_swiotlb_maintain(fixture.pool, NULL), 0);
    REQUIRE(machine_granted(&fixture.machine) >= 8 * MIB);
    for (unsigned call = 0; call < 10; call++) {
        EXPECT(svsm_swiotlb_maintain(fixture.pool, &given), 0);
        REQUIRE(given.stopped_by == 0);
        released += given.released_bytes;
    }
    REQUIRE(released > 0 && machine_granted(&fixture.machine) == CHUNK);
    REQUIRE(statistics(fixture.pool).released_bytes >= released);

    EXPECT(svsm_swiotlb_set_cap(fixture.pool, 2 * CHUNK, &previous), 0);
    REQUIRE(previous == WINDOW_BYTES && fixture.machine.cap == 2 * CHUNK);
    EXPECT(svsm_swiotlb_map(fixture.pool, large, 8 * MIB, TO, KEEP, NULL, &mapping), ERROR(CAP_REACHED));
    EXPECT(svsm_swiotlb_set_cap(fixture.pool, WINDOW_BYTES, NULL), 0);
    EXPECT(svsm_swiotlb_map(fixture.pool, large, 8 * MIB, TO, KEEP, NULL, &mapping), 0);
    EXPECT(svsm_swiotlb_set_cap(fixture.pool, CHUNK + 1, NULL), ERROR(INVALID_REQUEST));
    EXPECT(svsm_swiotlb_set_cap(fixture.pool, WINDOW_BYTES + CHUNK, NULL), ERROR(TOO_LARGE));
    free(large);
    fixture_stop(&fixture);
}

void test_reservations(void)
{
    enum { COUNT = 4, LENGTH = 9000 };
    static uint8_t buffers[COUNT][LENGTH];
    struct fixture fixture;
    struct svsm_swiotlb_reservation reservation = {0}, copy, refused = {0};
    struct svsm_swiotlb_mapping mappings[COUNT], ballast[64], mapping;
    unsigned filled = 0;
    uint8_t *large = calloc(1, MIB);

    REQUIRE(large != NULL);
    fixture_start(&fixture, true);
    EXPECT(svsm_swiotlb_reserve(fixture.pool, COUNT, LENGTH, 4096, &reservation), 0);
    /* Nothing else is left. */
    EXPECT(svsm_swiotlb_set_cap(fixture.pool, CHUNK, NULL), 0);
    while (filled < 64 && svsm_swiotlb_map(fixture.pool, large, 65536, TO, KEEP, NULL, &ballast[filled]) == 0)
        filled++;
    REQUIRE(filled > 0 && filled < 64);
    for (unsigned round = 0; round < 3; round++) {
        for (unsigned at = 0; at < COUNT; at++) {
            pattern(buffers[at], LENGTH, at + round);
            EXPECT(svsm_swiotlb_map_reserved(fixture.pool, &reservation, buffers[at], LENGTH - at, BOTH,
                                             KEEP, NULL, &mappings[at]), 0);
        }
        EXPECT(svsm_swiotlb_cancel_reservation(fixture.pool, &reservation), ERROR(IN_USE));
        for (unsigned at = 0; at < COUNT; at++) {
            REQUIRE(is_pattern(machine_device(&fixture.machine, mappings[at].address), LENGTH - at, at + round));
            EXPECT(svsm_swiotlb_unmap(fixture.pool, &mappings[at]), 0);
        }
    }
    EXPECT(svsm_swiotlb_map_reserved(fixture.pool, &reservation, large, LENGTH + 1, BOTH, KEEP, NULL,
                                     &mapping), ERROR(INVALID_REQUEST));

    /* A copy is no reservation, nor is one that was never made or is gone. */
    memcpy(&copy, &reservation, sizeof copy);
    EXPECT(svsm_swiotlb_map_reserved(fixture.pool, &copy, large, 1, BOTH, KEEP, NULL, &mapping),
           ERROR(INVALID_ARGUMENT));
    EXPECT(svsm_swiotlb_cancel_reservation(fixture.pool, &copy), ERROR(INVALID_ARGUMENT));
    EXPECT(svsm_swiotlb_reserve(fixture.pool, 1000, MIB, 1, &refused), ERROR(TOO_LARGE));
    EXPECT(svsm_swiotlb_cancel_reservation(fixture.pool, &refused), ERROR(INVALID_ARGUMENT));
    EXPECT(svsm_swiotlb_cancel_reservation(fixture.pool, &reservation), 0);
    EXPECT(svsm_swiotlb_cancel_reservation(fixture.pool, &reservation), ERROR(INVALID_ARGUMENT));
    EXPECT(svsm_swiotlb_map_reserved(fixture.pool, &reservation, large, 1, BOTH, KEEP, NULL, &mapping),
           ERROR(INVALID_ARGUMENT));
    while (filled > 0)
        EXPECT(svsm_swiotlb_unmap(fixture.pool, &ballast[--filled]), 0);
    REQUIRE(statistics(fixture.pool).used_bytes == 0);
    free(large);
    fixture_stop(&fixture);
}

void test_shared_memory(void)
{
    static const size_t lengths[] = {1, 64, 4096, 100000, 5 * MIB};
    struct fixture fixture;
    struct svsm_swiotlb_shared_buffer buffer, gone;
    struct svsm_swiotlb_mapping mapping;

    for (unsigned own_copies = 0; own_copies < 2; own_copies++) {
        unsigned reused = 0;

        fixture_start(&fixture, own_copies != 0);
        for (unsigned at = 0; at < sizeof lengths / sizeof lengths[0]; at++) {
            volatile uint8_t *bytes;
            int again;

            EXPECT(svsm_swiotlb_alloc_shared(fixture.pool, lengths[at], 4096, &buffer), 0);
            REQUIRE(buffer.length == lengths[at] && buffer.address % 4096 == 0);
            REQUIRE(buffer.pointer == machine_device(&fixture.machine, buffer.address));
            bytes = buffer.pointer;
            for (size_t byte = 0; byte < lengths[at]; byte++)
                REQUIRE(bytes[byte] == 0);
            bytes[lengths[at] - 1] = 0xc9;
            REQUIRE(statistics(fixture.pool).shared_buffers == 1);
            gone = buffer;
            gone.length++;
            EXPECT(svsm_swiotlb_free_shared(fixture.pool, &gone), ERROR(WRONG_LENGTH));
            EXPECT(svsm_swiotlb_unmap_address(fixture.pool, buffer.address, buffer.length, BOTH),
                   ERROR(WRONG_DIRECTION));
            EXPECT(svsm_swiotlb_free_shared(fixture.pool, &buffer), 0);
            again = svsm_swiotlb_free_shared(fixture.pool, &buffer);
            /* Memory of a long buffer may be free memory again, of which nothing is remembered. */
            if (lengths[at] <= 4096 || again != ERROR(UNKNOWN_ADDRESS))
                EXPECT(again, ERROR(ALREADY_UNMAPPED));
            /* The same memory, handed out again: only the generation tells. */
            gone = buffer;
            EXPECT(svsm_swiotlb_alloc_shared(fixture.pool, lengths[at], 4096, &buffer), 0);
            if (buffer.address == gone.address) {
                EXPECT(svsm_swiotlb_free_shared(fixture.pool, &gone), ERROR(STALE_HANDLE));
                reused++;
            }
            EXPECT(svsm_swiotlb_free_shared(fixture.pool, &buffer), 0);
        }
        REQUIRE(reused > 0);
        EXPECT(svsm_swiotlb_alloc_shared(fixture.pool, 64, 64, &buffer), 0);
        EXPECT(svsm_swiotlb_free_shared_address(fixture.pool, buffer.address, 64), 0);
        EXPECT(svsm_swiotlb_free_shared_address(fixture.pool, WINDOW_BASE + WINDOW_BYTES, 64),
               ERROR(UNKNOWN_ADDRESS));
        EXPECT(svsm_swiotlb_alloc_shared(fixture.pool, 0, 64, &buffer), ERROR(INVALID_REQUEST));
        EXPECT(svsm_swiotlb_alloc_shared(fixture.pool, 64, 48, &buffer), ERROR(INVALID_REQUEST));
        EXPECT(svsm_swiotlb_map(fixture.pool, &gone, sizeof gone, BOTH, KEEP, NULL, &mapping), 0);
        EXPECT(svsm_swiotlb_free_shared_address(fixture.pool, mapping.address, sizeof gone),
               ERROR(WRONG_DIRECTION));
        fixture_stop(&fixture);
    }
}

void test_pressure(void)
{
    struct fixture fixture;
    struct svsm_swiotlb_pressure pressure;
    struct svsm_swiotlb_mapping mapping;
    struct svsm_swiotlb_shared_buffer buffer, small;
    struct {
        struct svsm_swiotlb_statistics known;
        uint64_t appended[2];
    } later;
    uint8_t *large = calloc(1, 2 * CHUNK);

    REQUIRE(large != NULL);
    fixture_start(&fixture, true);
    EXPECT(svsm_swiotlb_pressure(fixture.pool, &pressure), 0);
    REQUIRE(pressure.level == SVSM_SWIOTLB_PRESSURE_LEVEL_LOW && pressure.cause == 0);
    REQUIRE(pressure.used_bytes == 0 && pressure.reachable_bytes == WINDOW_BYTES);
    EXPECT(svsm_swiotlb_set_cap(fixture.pool, CHUNK, NULL), 0);
    EXPECT(svsm_swiotlb_alloc_shared(fixture.pool, CHUNK * 13 / 16, 1, &buffer), 0);
    EXPECT(svsm_swiotlb_pressure(fixture.pool, &pressure), 0);
    REQUIRE(pressure.level == SVSM_SWIOTLB_PRESSURE_LEVEL_ELEVATED && pressure.cause == ERROR(CAP_REACHED));
    EXPECT(svsm_swiotlb_alloc_shared(fixture.pool, CHUNK * 2 / 16, 1, &small), 0);
    EXPECT(svsm_swiotlb_pressure(fixture.pool, &pressure), 0);
    REQUIRE(pressure.level == SVSM_SWIOTLB_PRESSURE_LEVEL_HIGH && pressure.cause == ERROR(CAP_REACHED));
    EXPECT(svsm_swiotlb_map(fixture.pool, large, CHUNK / 2, TO, KEEP, NULL, &mapping), ERROR(CAP_REACHED));
    EXPECT(svsm_swiotlb_pressure(fixture.pool, &pressure), 0);
    REQUIRE(pressure.level == SVSM_SWIOTLB_PRESSURE_LEVEL_EXHAUSTED);
    REQUIRE(statistics(fixture.pool).failures == 1 && statistics(fixture.pool).metadata_bytes > 0);

    /* A caller that knows more counters, and one that knows fewer. */
    memset(&later, 0xee, sizeof later);
    EXPECT(svsm_swiotlb_statistics(fixture.pool, &later.known, sizeof later), 0);
    REQUIRE(later.known.failures == 1 && later.appended[0] == 0 && later.appended[1] == 0);
    memset(&later, 0xee, sizeof later);
    EXPECT(svsm_swiotlb_statistics(fixture.pool, &later.known, 16), 0);
    REQUIRE(later.known.maps == 0 && later.known.syncs == UINT64_C(0xeeeeeeeeeeeeeeee));
    EXPECT(svsm_swiotlb_statistics(fixture.pool, &later.known, 12), ERROR(INVALID_ARGUMENT));
    free(large);
    fixture_stop(&fixture);
}
