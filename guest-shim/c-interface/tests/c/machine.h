/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * A machine that fits a test: a service as docs/PROTOCOL.md describes it, the memory of its window, and what a kernel
 * lends the library.
 */
#ifndef MACHINE_H
#define MACHINE_H

#include "svsm_swiotlb.h"

#include <stdatomic.h>
#include <threads.h>

#define MIB ((uint64_t)1 << 20)
#define CHUNK (2 * MIB)
#define CHUNKS 8
#define WINDOW_BASE UINT64_C(0x40200000)
#define WINDOW_BYTES (CHUNKS * CHUNK)
#define SECOND_CHUNKS 2
#define SECOND_BASE (WINDOW_BASE + WINDOW_BYTES - SECOND_CHUNKS * CHUNK)

/* Call numbers of the protocol (P-4.1). */
enum call {
    CALL_IDENTIFY = 0,
    CALL_DESCRIBE = 1,
    CALL_ATTACH = 2,
    CALL_LIST_GRANTED = 3,
    CALL_ADOPT = 4,
    CALL_RELEASE_ORPHANS = 5,
    CALL_DETACH = 6,
    CALL_GROW = 7,
    CALL_RELEASE = 8,
    CALL_SET_LIMITS = 12
};

/* Result codes (P-6.1). */
#define SUCCESS UINT64_C(0)
#define INCOMPLETE UINT64_C(0x80000000)
#define UNSUPPORTED_PROTOCOL UINT64_C(0x80000001)
#define UNSUPPORTED_CALL UINT64_C(0x80000002)
#define INVALID_PARAMETER UINT64_C(0x80000005)
#define INVALID_REQUEST UINT64_C(0x80000006)
#define BUSY UINT64_C(0x80000007)
#define NOT_ATTACHED UINT64_C(0x80001001)
#define STALE_EPOCH UINT64_C(0x80001002)
#define CAP_REACHED UINT64_C(0x80001003)
#define HOST_REFUSED UINT64_C(0x80001004)
#define NO_CONTIGUOUS_RUN UINT64_C(0x80001005)
#define NOT_HELD UINT64_C(0x80001007)
#define RECORDS_EXHAUSTED UINT64_C(0x80001009)

struct machine {
    /* The memory behind the window, as the device and the host see it. */
    uint8_t *memory;

    /* What a test changes about the service: 0 is a correct one. */
    bool not_offered;
    /* The last SECOND_CHUNKS of the memory are a second window, index 1. */
    bool second_window;
    bool another_uuid;
    bool small_chunks;
    bool unmapped;
    bool not_run;
    /* Answers to ATTACH, GROW and RELEASE before the service looks at them, if not 0. */
    uint64_t attach_answer;
    uint64_t grow_answer;
    uint64_t release_answer;
    /* ATTACH succeeds with an epoch that cannot be. */
    bool attach_epoch_zero;
    /* ADOPT and RELEASE_ORPHANS say that something is left, and do nothing. */
    bool stuck;

    /* The guest's page for lists, and its address. */
    uint8_t *list;
    uint64_t list_address;

    /* The service's state; one call at a time. */
    mtx_t service;
    uint32_t epoch;
    uint32_t generation;
    /* Generations of what is granted, and the epochs that hold it. */
    uint32_t held[CHUNKS];
    uint32_t holder[CHUNKS];
    bool attached;
    uint64_t cap;

    /* What was seen. */
    uint64_t calls[16];
    uint64_t queries; /* of the core protocol */
    atomic_ullong copied_in;
    atomic_ullong copied_out;
    atomic_ullong cpu_asked;

    /* Runs once in the middle of the next copy out: an interrupt. */
    void (*interrupt)(void *argument);
    void *interrupt_argument;
};

/* A machine with a correct service and nothing granted. */
void machine_start(struct machine *machine);
void machine_stop(struct machine *machine);

/* What a kernel lends the library; `context` is the machine. */
int machine_call(void *context, struct svsm_swiotlb_call_registers *registers);
size_t machine_cpu(void *context);
size_t machine_interrupts_save(void *context);
void machine_interrupts_restore(void *context, size_t saved);
void *machine_translate(void *context, uint64_t address, uint64_t bytes);

#ifndef SVSM_SWIOTLB_LINKED_PLATFORM
/* The attach table over it; the copies are the library's own if `own_copies` is false. */
struct svsm_swiotlb_platform machine_platform(struct machine *machine, bool own_copies);
#endif

/* Bytes granted now. */
uint64_t machine_granted(const struct machine *machine);

/* Where the device finds an address. */
uint8_t *machine_device(const struct machine *machine, uint64_t address);

/* Prints the place and the cause, and ends the program. */
_Noreturn void fail(const char *file, int line, const char *cause);
#define REQUIRE(condition) ((condition) ? (void)0 : fail(__FILE__, __LINE__, #condition))

#endif
