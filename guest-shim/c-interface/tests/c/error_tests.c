/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Every way to be refused: by the service, for misuse, and for arguments that only C can pass. */
#include "program.h"

#include <stdlib.h>
#include <string.h>

enum { TO = SVSM_SWIOTLB_DIRECTION_TO_DEVICE, FROM = SVSM_SWIOTLB_DIRECTION_FROM_DEVICE,
       BOTH = SVSM_SWIOTLB_DIRECTION_BIDIRECTIONAL };
enum { KEEP = SVSM_SWIOTLB_COPY_IN_KEEP, DEVICE_WRITTEN = SVSM_SWIOTLB_COPY_IN_DEVICE_WRITTEN };

static void attach_fails(void (*change)(struct machine *), int error)
{
    struct fixture fixture;
    struct svsm_swiotlb_config config = defaults();

    fixture_prepare(&fixture);
    change(&fixture.machine);
    EXPECT(fixture_attach(&fixture, true, &config), error);
    REQUIRE(fixture.pool == NULL && machine_granted(&fixture.machine) == 0);
    fixture_stop(&fixture);
}

static void no_service(struct machine *machine) { machine->not_offered = true; }
static void another_uuid(struct machine *machine) { machine->another_uuid = true; }
static void small_chunks(struct machine *machine) { machine->small_chunks = true; }
static void not_mapped(struct machine *machine) { machine->unmapped = true; }
static void not_run(struct machine *machine) { machine->not_run = true; }
static void no_epochs(struct machine *machine) { machine->attach_answer = INVALID_REQUEST; }
static void busy(struct machine *machine) { machine->attach_answer = BUSY; }
static void epoch_zero(struct machine *machine) { machine->attach_epoch_zero = true; }

void test_attach(void)
{
    struct fixture fixture;
    struct svsm_swiotlb_config config = defaults();
    struct svsm_swiotlb_platform platform;
    struct svsm_swiotlb_attachment attachment;
    struct svsm_swiotlb_window window;
    uint8_t *storage, *metadata;
    size_t bytes = svsm_swiotlb_metadata_bytes(WINDOW_BYTES, 2);

    REQUIRE(config.size == sizeof config && config.version == SVSM_SWIOTLB_VERSION);
    REQUIRE(config.protocol == 0x40000001 && config.cpus == 1);
    REQUIRE(config.initial_bytes == CHUNK && config.growth_limit_bytes == 32 * MIB);
    REQUIRE(svsm_swiotlb_metadata_bytes_with_small(WINDOW_BYTES, 2, 1000) > bytes);

    fixture_start(&fixture, true);
    EXPECT(svsm_swiotlb_window(fixture.pool, &window), 0);
    REQUIRE(window.base == WINDOW_BASE && window.bytes == WINDOW_BYTES);
    REQUIRE(fixture.machine.queries == 1);
    REQUIRE(!svsm_swiotlb_contains(fixture.pool, WINDOW_BASE - 1));
    REQUIRE(svsm_swiotlb_contains(fixture.pool, WINDOW_BASE + WINDOW_BYTES - 1));
    REQUIRE(!svsm_swiotlb_contains(fixture.pool, WINDOW_BASE + WINDOW_BYTES));
    EXPECT(svsm_swiotlb_attachment(fixture.pool, &attachment), 0);
    REQUIRE(attachment.epoch == 1 && attachment.fresh == 1 && attachment.orphaned_bytes == 0);
    REQUIRE(attachment.addressing == 0 && attachment.position == 51);
    REQUIRE(attachment.features == 0 && attachment.cap_bytes == WINDOW_BYTES);
    fixture_stop(&fixture);

    attach_fails(no_service, ERROR(NO_SERVICE));
    attach_fails(another_uuid, ERROR(ANOTHER_PROTOCOL));
    attach_fails(small_chunks, ERROR(UNUSABLE_WINDOW));
    attach_fails(not_mapped, ERROR(NOT_MAPPED));
    attach_fails(not_run, ERROR(NOT_RUN));
    attach_fails(no_epochs, ERROR(SERVICE_REFUSED));
    attach_fails(busy, ERROR(BUSY));
    attach_fails(epoch_zero, ERROR(MALFORMED));

    fixture_prepare(&fixture);
    config.protocol = 0x40000002;
    EXPECT(fixture_attach(&fixture, true, &config), ERROR(NO_SERVICE));
    REQUIRE(fixture.machine.queries == 1);
    /* The same without asking the core protocol, and the right number. */
    config.skip_query_protocol = 1;
    EXPECT(fixture_attach(&fixture, true, &config), ERROR(NO_SERVICE));
    config.protocol = 0x40000001;
    EXPECT(fixture_attach(&fixture, true, &config), 0);
    REQUIRE(fixture.machine.queries == 1 && fixture.machine.calls[CALL_ATTACH] == 1);
    fixture_stop(&fixture);
    fixture_prepare(&fixture);
    config.skip_query_protocol = 2;
    EXPECT(fixture_attach(&fixture, true, &config), ERROR(INVALID_ARGUMENT));
    config = defaults();
    /* A caller of the first version has no cap_bytes; nobody has less. */
    config.size = offsetof(struct svsm_swiotlb_config, cap_bytes) - 1;
    EXPECT(fixture_attach(&fixture, true, &config), ERROR(INVALID_ARGUMENT));
    config = defaults();
    config.version = SVSM_SWIOTLB_VERSION + 1;
    EXPECT(fixture_attach(&fixture, true, &config), ERROR(INVALID_ARGUMENT));
    EXPECT(fixture_attach(&fixture, true, NULL), ERROR(INVALID_ARGUMENT));
    config = defaults();
    for (unsigned missing = 0; missing < 4; missing++) {
        platform = machine_platform(&fixture.machine, true);
        if (missing == 0)
            platform.call = NULL;
        else if (missing == 1)
            platform.interrupts_save = NULL;
        else if (missing == 2)
            platform.interrupts_restore = NULL;
        else
            platform.translate = NULL;
        EXPECT(svsm_swiotlb_attach(&platform, &config, fixture.storage, SVSM_SWIOTLB_POOL_BYTES,
                                   fixture.metadata, bytes, &fixture.pool), ERROR(INVALID_ARGUMENT));
    }

    platform = machine_platform(&fixture.machine, true);
    storage = fixture.storage;
    metadata = fixture.metadata;
    EXPECT(svsm_swiotlb_attach(NULL, &config, storage, SVSM_SWIOTLB_POOL_BYTES, metadata, bytes,
                               &fixture.pool), ERROR(INVALID_ARGUMENT));
    EXPECT(svsm_swiotlb_attach(&platform, &config, NULL, SVSM_SWIOTLB_POOL_BYTES, metadata, bytes,
                               &fixture.pool), ERROR(INVALID_ARGUMENT));
    EXPECT(svsm_swiotlb_attach(&platform, &config, storage + 1, SVSM_SWIOTLB_POOL_BYTES - 1, metadata,
                               bytes, &fixture.pool), ERROR(INVALID_ARGUMENT));
    EXPECT(svsm_swiotlb_attach(&platform, &config, storage, svsm_swiotlb_pool_bytes() - 1, metadata, bytes,
                               &fixture.pool), ERROR(INVALID_ARGUMENT));
    EXPECT(svsm_swiotlb_attach(&platform, &config, storage, SVSM_SWIOTLB_POOL_BYTES, NULL, bytes,
                               &fixture.pool), ERROR(INVALID_ARGUMENT));
    EXPECT(svsm_swiotlb_attach(&platform, &config, storage, SVSM_SWIOTLB_POOL_BYTES, metadata, SIZE_MAX,
                               &fixture.pool), ERROR(INVALID_ARGUMENT));
    EXPECT(svsm_swiotlb_attach(&platform, &config, storage, SVSM_SWIOTLB_POOL_BYTES, metadata, bytes, NULL),
           ERROR(INVALID_ARGUMENT));
    REQUIRE(fixture.machine.calls[CALL_ATTACH] == 0);
    EXPECT(svsm_swiotlb_attach(&platform, &config, storage, SVSM_SWIOTLB_POOL_BYTES, metadata, 64,
                               &fixture.pool), ERROR(NO_RECORDS));
    REQUIRE(fixture.machine.calls[CALL_ATTACH] == 0 && fixture.pool == NULL);
    fixture_stop(&fixture);
}

/* A map that must grow meets a service that answers `answer`. */
static void growth_fails(uint64_t answer, int error)
{
    struct fixture fixture;
    struct svsm_swiotlb_mapping mapping = {.address = 77};
    uint8_t *large = calloc(1, 2 * CHUNK);

    REQUIRE(large != NULL);
    fixture_start(&fixture, true);
    fixture.machine.grow_answer = answer;
    fixture.machine.not_run = answer == 0;
    EXPECT(svsm_swiotlb_map(fixture.pool, large, 2 * CHUNK, TO, KEEP, NULL, &mapping), error);
    REQUIRE(mapping.address == 77);
    REQUIRE(statistics(fixture.pool).failures == 1 && statistics(fixture.pool).used_bytes == 0);
    REQUIRE(statistics(fixture.pool).failures_by_error[-error] == 1);
    /* The next failure is not asked for again. */
    fixture.machine.not_run = false;
    memset(fixture.machine.calls, 0, sizeof fixture.machine.calls);
    EXPECT(svsm_swiotlb_map(fixture.pool, large, 2 * CHUNK, TO, KEEP, NULL, &mapping), error);
    REQUIRE(fixture.machine.calls[CALL_GROW] == 0);
    /* The pool works with what it has. */
    EXPECT(svsm_swiotlb_map(fixture.pool, large, 100, TO, KEEP, NULL, &mapping), 0);
    EXPECT(svsm_swiotlb_unmap(fixture.pool, &mapping), 0);
    free(large);
    fixture_stop(&fixture);
}

void test_map_refusals(void)
{
    struct fixture fixture;
    struct svsm_swiotlb_mapping mapping;
    uint8_t *large = calloc(1, WINDOW_BYTES + 1);

    REQUIRE(large != NULL);
    growth_fails(CAP_REACHED, ERROR(CAP_REACHED));
    growth_fails(HOST_REFUSED, ERROR(HOST_REFUSED));
    growth_fails(NO_CONTIGUOUS_RUN, ERROR(NO_CONTIGUOUS_RUN));
    growth_fails(RECORDS_EXHAUSTED, ERROR(RECORDS_EXHAUSTED));
    growth_fails(BUSY, ERROR(BUSY));
    growth_fails(STALE_EPOCH, ERROR(NOT_ATTACHED));
    growth_fails(INVALID_PARAMETER, ERROR(SERVICE_FAULT));
    growth_fails(0, ERROR(SERVICE_FAULT));

    fixture_start(&fixture, true);
    EXPECT(svsm_swiotlb_map(fixture.pool, large, WINDOW_BYTES + 1, TO, KEEP, NULL, &mapping),
           ERROR(TOO_LARGE));
    EXPECT(svsm_swiotlb_map(fixture.pool, large, 0, TO, KEEP, NULL, &mapping), ERROR(INVALID_REQUEST));
    EXPECT(svsm_swiotlb_map(fixture.pool, large, SIZE_MAX, TO, KEEP, NULL, &mapping),
           ERROR(INVALID_REQUEST));
    /* Old pool contents would be sent where the device reads. */
    EXPECT(svsm_swiotlb_map(fixture.pool, large, 1, TO, DEVICE_WRITTEN, NULL, &mapping),
           ERROR(INVALID_REQUEST));
    EXPECT(svsm_swiotlb_map(fixture.pool, large, 1, BOTH, DEVICE_WRITTEN, NULL, &mapping),
           ERROR(INVALID_REQUEST));
    free(large);
    fixture_stop(&fixture);
}

void test_misuse(void)
{
    struct fixture fixture;
    struct svsm_swiotlb_mapping mapping, later, wrong;
    uint8_t buffer[3000];
    uint64_t maps;

    fixture_start(&fixture, true);
    memset(buffer, 0xc1, sizeof buffer);
    EXPECT(svsm_swiotlb_map(fixture.pool, buffer, sizeof buffer, FROM, KEEP, NULL, &mapping), 0);
    memset(machine_device(&fixture.machine, mapping.address), 0xd8, sizeof buffer);

    wrong = mapping;
    wrong.length--;
    EXPECT(svsm_swiotlb_unmap(fixture.pool, &wrong), ERROR(WRONG_LENGTH));
    wrong = mapping;
    wrong.direction = BOTH;
    EXPECT(svsm_swiotlb_unmap(fixture.pool, &wrong), ERROR(WRONG_DIRECTION));
    wrong = mapping;
    wrong.generation++;
    EXPECT(svsm_swiotlb_unmap(fixture.pool, &wrong), ERROR(STALE_HANDLE));
    wrong = mapping;
    wrong.address = WINDOW_BASE + WINDOW_BYTES;
    EXPECT(svsm_swiotlb_unmap(fixture.pool, &wrong), ERROR(UNKNOWN_ADDRESS));
    wrong.address = 0;
    EXPECT(svsm_swiotlb_unmap(fixture.pool, &wrong), ERROR(UNKNOWN_ADDRESS));
    /* In the window, never handed out, and not even granted. */
    EXPECT(svsm_swiotlb_unmap_address(fixture.pool, WINDOW_BASE + WINDOW_BYTES - CHUNK, 1, FROM),
           ERROR(UNKNOWN_ADDRESS));
    EXPECT(svsm_swiotlb_unmap_written(fixture.pool, &mapping, sizeof buffer + 1), ERROR(OUT_OF_RANGE));
    REQUIRE(buffer[0] == 0xc1 && fixture.machine.copied_out == 0);

    EXPECT(svsm_swiotlb_unmap(fixture.pool, &mapping), 0);
    REQUIRE(buffer[0] == 0xd8);
    EXPECT(svsm_swiotlb_unmap(fixture.pool, &mapping), ERROR(ALREADY_UNMAPPED));
    EXPECT(svsm_swiotlb_unmap_address(fixture.pool, mapping.address, mapping.length, FROM),
           ERROR(ALREADY_UNMAPPED));

    /* The slot freed last is the one handed out next: the old handle names memory of the new mapping. */
    /* On the same CPU, that is: the machine's hint moves about. */
    EXPECT(svsm_swiotlb_map(fixture.pool, buffer, sizeof buffer, FROM, KEEP, NULL, &later), 0);
    for (maps = 2; later.address != mapping.address && maps < 64; maps++) {
        EXPECT(svsm_swiotlb_unmap(fixture.pool, &later), 0);
        EXPECT(svsm_swiotlb_map(fixture.pool, buffer, sizeof buffer, FROM, KEEP, NULL, &later), 0);
    }
    REQUIRE(later.address == mapping.address && later.generation != mapping.generation);
    EXPECT(svsm_swiotlb_unmap(fixture.pool, &mapping), ERROR(STALE_HANDLE));
    EXPECT(svsm_swiotlb_sync_for_cpu(fixture.pool, &mapping, 0, 1), ERROR(STALE_HANDLE));
    EXPECT(svsm_swiotlb_unmap(fixture.pool, &later), 0);
    REQUIRE(statistics(fixture.pool).maps == maps && statistics(fixture.pool).unmaps == maps);
    REQUIRE(statistics(fixture.pool).used_bytes == 0);
    fixture_stop(&fixture);
}

/* Calls every function with `pool`, which is none; the other arguments are right. */
static void without_pool(struct svsm_swiotlb_pool *pool)
{
    struct svsm_swiotlb_mapping mapping = {.address = WINDOW_BASE, .length = 1, .direction = TO};
    struct svsm_swiotlb_shared_buffer shared = {.address = WINDOW_BASE, .length = 1};
    struct svsm_swiotlb_reservation reservation = {0};
    struct svsm_swiotlb_attachment attachment;
    struct svsm_swiotlb_window window;
    struct svsm_swiotlb_pressure pressure;
    struct svsm_swiotlb_statistics statistics;
    uint8_t byte = 0;
    const int refused = ERROR(INVALID_ARGUMENT);

    EXPECT(svsm_swiotlb_map(pool, &byte, 1, TO, KEEP, NULL, &mapping), refused);
    EXPECT((int)svsm_swiotlb_map_address(pool, &byte, 1, TO, KEEP, NULL), refused);
    EXPECT(svsm_swiotlb_map_reserved(pool, &reservation, &byte, 1, TO, KEEP, NULL, &mapping), refused);
    EXPECT(svsm_swiotlb_unmap(pool, &mapping), refused);
    EXPECT(svsm_swiotlb_unmap_written(pool, &mapping, 0), refused);
    EXPECT(svsm_swiotlb_unmap_address(pool, WINDOW_BASE, 1, TO), refused);
    EXPECT(svsm_swiotlb_unmap_address_written(pool, WINDOW_BASE, 1, TO, 0), refused);
    EXPECT(svsm_swiotlb_sync_for_device(pool, &mapping, 0, 1), refused);
    EXPECT(svsm_swiotlb_sync_for_cpu(pool, &mapping, 0, 1), refused);
    EXPECT(svsm_swiotlb_sync_address_for_device(pool, WINDOW_BASE, 1), refused);
    EXPECT(svsm_swiotlb_sync_address_for_cpu(pool, WINDOW_BASE, 1), refused);
    EXPECT(svsm_swiotlb_alloc_shared(pool, 1, 1, &shared), refused);
    EXPECT(svsm_swiotlb_alloc_shared_within(pool, 1, NULL, &shared), refused);
    EXPECT(svsm_swiotlb_free_shared(pool, &shared), refused);
    EXPECT(svsm_swiotlb_free_shared_address(pool, WINDOW_BASE, 1), refused);
    EXPECT(svsm_swiotlb_reserve(pool, 1, 1, 1, &reservation), refused);
    EXPECT(svsm_swiotlb_cancel_reservation(pool, &reservation), refused);
    EXPECT(svsm_swiotlb_maintain(pool, NULL), refused);
    EXPECT(svsm_swiotlb_give_back(pool, NULL), refused);
    EXPECT(svsm_swiotlb_set_cap(pool, CHUNK, NULL), refused);
    EXPECT(svsm_swiotlb_statistics(pool, &statistics, sizeof statistics), refused);
    EXPECT(svsm_swiotlb_pressure(pool, &pressure), refused);
    EXPECT(svsm_swiotlb_window(pool, &window), refused);
    EXPECT(svsm_swiotlb_window_beside(pool, 1, &window), refused);
    EXPECT(svsm_swiotlb_attachment(pool, &attachment), refused);
    REQUIRE(!svsm_swiotlb_contains(pool, WINDOW_BASE));
}

void test_arguments(void)
{
    static _Alignas(SVSM_SWIOTLB_POOL_ALIGNMENT) uint8_t zeroed[SVSM_SWIOTLB_POOL_BYTES];
    static const int not_enumerators[] = {0, 4, -1, 256, INT32_MAX, INT32_MIN};
    struct fixture fixture;
    struct svsm_swiotlb_mapping mapping, wrong;
    struct svsm_swiotlb_config config;
    struct svsm_swiotlb_platform platform;
    uint8_t bytes[2 * sizeof mapping] = {0};
    void *misaligned = bytes + ((uintptr_t)bytes % 2 == 0 ? 1 : 0);
    const int refused = ERROR(INVALID_ARGUMENT);

    fixture_start(&fixture, true);
    without_pool(NULL);
    without_pool((struct svsm_swiotlb_pool *)zeroed);
    memcpy(zeroed, fixture.storage, svsm_swiotlb_pool_bytes());
    without_pool((struct svsm_swiotlb_pool *)zeroed); /* a copy */

    EXPECT(svsm_swiotlb_map(fixture.pool, bytes, 1, TO, KEEP, NULL, &mapping), 0);
    for (unsigned at = 0; at < sizeof not_enumerators / sizeof not_enumerators[0]; at++) {
        int number = not_enumerators[at];

        EXPECT(svsm_swiotlb_map(fixture.pool, bytes, 1, number, KEEP, NULL, &wrong), refused);
        if (number != KEEP)
            EXPECT(svsm_swiotlb_map(fixture.pool, bytes, 1, FROM, number, NULL, &wrong), refused);
        EXPECT((int)svsm_swiotlb_map_address(fixture.pool, bytes, 1, number, KEEP, NULL), refused);
        EXPECT(svsm_swiotlb_unmap_address(fixture.pool, mapping.address, 1, number), refused);
        EXPECT(svsm_swiotlb_unmap_address_written(fixture.pool, mapping.address, 1, number, 0), refused);
        wrong = mapping;
        wrong.direction = number;
        EXPECT(svsm_swiotlb_unmap(fixture.pool, &wrong), refused);
        EXPECT(svsm_swiotlb_sync_for_cpu(fixture.pool, &wrong, 0, 1), refused);
    }
    EXPECT(svsm_swiotlb_map(fixture.pool, NULL, 1, TO, KEEP, NULL, &wrong), refused);
    EXPECT(svsm_swiotlb_map(fixture.pool, bytes, 1, TO, KEEP, NULL, NULL), refused);
    EXPECT(svsm_swiotlb_map(fixture.pool, bytes, 1, TO, KEEP, NULL, misaligned), refused);
    EXPECT(svsm_swiotlb_map(fixture.pool, bytes, 1, TO, KEEP, misaligned, &wrong), refused);
    EXPECT((int)svsm_swiotlb_map_address(fixture.pool, NULL, 1, TO, KEEP, NULL), refused);
    EXPECT((int)svsm_swiotlb_map_address(fixture.pool, bytes, 1, TO, KEEP, misaligned), refused);
    EXPECT((int)svsm_swiotlb_map_address(fixture.pool, bytes, 0, TO, KEEP, NULL), ERROR(INVALID_REQUEST));
    EXPECT(svsm_swiotlb_map_reserved(fixture.pool, NULL, bytes, 1, TO, KEEP, NULL, &wrong), refused);
    EXPECT(svsm_swiotlb_unmap(fixture.pool, NULL), refused);
    EXPECT(svsm_swiotlb_unmap(fixture.pool, misaligned), refused);
    EXPECT(svsm_swiotlb_unmap_written(fixture.pool, NULL, 0), refused);
    EXPECT(svsm_swiotlb_sync_for_device(fixture.pool, NULL, 0, 0), refused);
    EXPECT(svsm_swiotlb_sync_for_cpu(fixture.pool, NULL, 0, 0), refused);
    EXPECT(svsm_swiotlb_alloc_shared(fixture.pool, 1, 1, NULL), refused);
    EXPECT(svsm_swiotlb_free_shared(fixture.pool, NULL), refused);
    EXPECT(svsm_swiotlb_reserve(fixture.pool, 1, 1, 1, NULL), refused);
    EXPECT(svsm_swiotlb_cancel_reservation(fixture.pool, NULL), refused);
    EXPECT(svsm_swiotlb_maintain(fixture.pool, misaligned), refused);
    EXPECT(svsm_swiotlb_give_back(fixture.pool, misaligned), refused);
    EXPECT(svsm_swiotlb_set_cap(fixture.pool, CHUNK, misaligned), refused);
    EXPECT(svsm_swiotlb_statistics(fixture.pool, NULL, sizeof(struct svsm_swiotlb_statistics)), refused);
    EXPECT(svsm_swiotlb_pressure(fixture.pool, NULL), refused);
    EXPECT(svsm_swiotlb_window(fixture.pool, NULL), refused);
    EXPECT(svsm_swiotlb_attachment(fixture.pool, NULL), refused);
    EXPECT(svsm_swiotlb_config_init(NULL, sizeof config), refused);
    EXPECT(svsm_swiotlb_config_init(&config, offsetof(struct svsm_swiotlb_config, cap_bytes) - 1), refused);
    EXPECT(svsm_swiotlb_config_init(misaligned, sizeof config), refused);

    /* Nothing of all that has changed the mapping, or been issued as a call. */
    REQUIRE(statistics(fixture.pool).maps == 1 && fixture.machine.cap == WINDOW_BYTES);
    EXPECT(svsm_swiotlb_unmap(fixture.pool, &mapping), 0);
    REQUIRE(strcmp(svsm_swiotlb_error_text(0), "success") == 0);
    REQUIRE(svsm_swiotlb_error_text(1) != NULL && svsm_swiotlb_error_text(INT32_MIN) != NULL);

    /* Copies that the kernel leaves out one by one. */
    platform = machine_platform(&fixture.machine, true);
    platform.copy_to_pool = NULL;
    config = defaults();
    EXPECT(svsm_swiotlb_attach(&platform, &config, fixture.storage, SVSM_SWIOTLB_POOL_BYTES,
                               fixture.metadata, svsm_swiotlb_metadata_bytes(WINDOW_BYTES, 1),
                               &fixture.pool), 0);
    EXPECT(svsm_swiotlb_map(fixture.pool, bytes, 1, BOTH, KEEP, NULL, &mapping), 0);
    EXPECT(svsm_swiotlb_unmap(fixture.pool, &mapping), 0);
    REQUIRE(fixture.machine.copied_in == 1 && fixture.machine.copied_out == 1);
    fixture_stop(&fixture);
}
