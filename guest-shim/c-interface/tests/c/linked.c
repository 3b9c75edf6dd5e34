/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* A kernel whose functions are linked with the library: one machine, one pool, one life of each kind of memory. */
#include "machine.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct machine machine;

int svsm_swiotlb_platform_call(struct svsm_swiotlb_call_registers *registers)
{
    return machine_call(&machine, registers);
}

size_t svsm_swiotlb_platform_cpu(void)
{
    return machine_cpu(&machine);
}

size_t svsm_swiotlb_platform_interrupts_save(void)
{
    return machine_interrupts_save(&machine);
}

void svsm_swiotlb_platform_interrupts_restore(size_t saved)
{
    machine_interrupts_restore(&machine, saved);
}

void *svsm_swiotlb_platform_translate(uint64_t address, uint64_t bytes)
{
    return machine_translate(&machine, address, bytes);
}

int main(void)
{
    static _Alignas(SVSM_SWIOTLB_POOL_ALIGNMENT) uint8_t storage[SVSM_SWIOTLB_POOL_BYTES];
    size_t metadata_bytes = svsm_swiotlb_metadata_bytes(WINDOW_BYTES, 2);
    uint8_t *metadata = malloc(metadata_bytes);
    struct svsm_swiotlb_config config;
    struct svsm_swiotlb_pool *pool = NULL;
    struct svsm_swiotlb_mapping mapping;
    struct svsm_swiotlb_shared_buffer shared;
    uint8_t buffer[5000];

    REQUIRE(metadata != NULL);
    machine_start(&machine);
    REQUIRE(svsm_swiotlb_config_init(&config, sizeof config) == 0);
    config.cpus = 2;
    config.skip_query_protocol = 1;

    /* Nothing of a pool is there after an attach that fails. */
    machine.unmapped = true;
    REQUIRE(svsm_swiotlb_attach(&config, storage, sizeof storage, metadata, metadata_bytes, &pool) ==
            SVSM_SWIOTLB_ERROR_NOT_MAPPED);
    REQUIRE(pool == NULL && !svsm_swiotlb_contains((struct svsm_swiotlb_pool *)storage, WINDOW_BASE));
    machine.unmapped = false;
    REQUIRE(svsm_swiotlb_attach(NULL, storage, sizeof storage, metadata, metadata_bytes, &pool) ==
            SVSM_SWIOTLB_ERROR_INVALID_ARGUMENT);
    REQUIRE(svsm_swiotlb_attach(&config, storage, sizeof storage, metadata, metadata_bytes, &pool) == 0);
    REQUIRE(machine.queries == 0 && machine.calls[CALL_ATTACH] == 1);

    /* Short ones are copied word by word, long ones by a string instruction. */
    for (size_t length = 1; length <= sizeof buffer; length += length / 3 + 1) {
        memset(buffer, 0x5a, sizeof buffer);
        REQUIRE(svsm_swiotlb_map(pool, buffer, length, SVSM_SWIOTLB_DIRECTION_BIDIRECTIONAL,
                                 SVSM_SWIOTLB_COPY_IN_KEEP, NULL, &mapping) == 0);
        for (size_t at = 0; at < length; at++)
            REQUIRE(machine_device(&machine, mapping.address)[at] == 0x5a);
        memset(machine_device(&machine, mapping.address), 0xa5, length);
        REQUIRE(svsm_swiotlb_sync_for_cpu(pool, &mapping, length / 2, length - length / 2) == 0);
        REQUIRE(buffer[0] == (length == 1 ? 0xa5 : 0x5a) && buffer[length - 1] == 0xa5);
        REQUIRE(svsm_swiotlb_unmap(pool, &mapping) == 0);
        for (size_t at = 0; at < sizeof buffer; at++)
            REQUIRE(buffer[at] == (at < length ? 0xa5 : 0x5a));
    }
    REQUIRE(svsm_swiotlb_alloc_shared(pool, 3 * MIB, 4096, &shared) == 0);
    REQUIRE(shared.pointer == machine_device(&machine, shared.address));
    REQUIRE(machine.calls[CALL_GROW] > 1);
    REQUIRE(svsm_swiotlb_free_shared(pool, &shared) == 0);
    REQUIRE(svsm_swiotlb_give_back(pool, NULL) == 0 && machine_granted(&machine) == 0);
    machine_stop(&machine);
    free(metadata);
    printf("ok linked\n");
    return 0;
}
