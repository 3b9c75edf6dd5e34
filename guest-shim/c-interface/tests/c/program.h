/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* What the parts of the test program share: checks by error name, and a pool over a fresh machine. */
#ifndef PROGRAM_H
#define PROGRAM_H

#include "machine.h"

/* A shorter name for the errors. */
#define ERROR(name) SVSM_SWIOTLB_ERROR_##name

/* Requires that a call returns `wanted`, and notes that this error was seen. */
#define EXPECT(call, wanted) expect(__FILE__, __LINE__, #call, (call), (wanted))
void expect(const char *file, int line, const char *call, int got, int wanted);

/* A machine, and a pool on it. */
struct fixture {
    struct machine machine;
    struct svsm_swiotlb_pool *pool;
    void *storage;
    void *metadata;
};

void fixture_start(struct fixture *fixture, bool own_copies);
/* Only the memory for a pool; the test attaches itself. */
void fixture_prepare(struct fixture *fixture);
void fixture_stop(struct fixture *fixture);
int fixture_attach(struct fixture *fixture, bool own_copies, const struct svsm_swiotlb_config *config);

/* A configuration of the defaults. */
struct svsm_swiotlb_config defaults(void);
struct svsm_swiotlb_statistics statistics(const struct svsm_swiotlb_pool *pool);

/* Bytes that differ from place to place and from seed to seed. */
void pattern(uint8_t *bytes, size_t length, unsigned seed);
bool is_pattern(const uint8_t *bytes, size_t length, unsigned seed);

/* mapping_tests.c */
void test_directions(void);
void test_device_written(void);
void test_sync(void);
void test_by_address(void);
void test_constraints(void);
void test_boundary(void);
void test_interrupt_in_a_copy(void);
void test_sync_in_a_sync(void);

/* thread_tests.c */
void test_two_cpus(void);

/* memory_tests.c */
void test_growth_and_give_back(void);
void test_second_window(void);
void test_maintenance(void);
void test_reservations(void);
void test_shared_memory(void);
void test_pressure(void);

/* orphan_tests.c */
void test_adopted(void);
void test_orphans_given_back(void);
void test_detach(void);

/* error_tests.c */
void test_attach(void);
void test_map_refusals(void);
void test_misuse(void);
void test_arguments(void);

#endif
