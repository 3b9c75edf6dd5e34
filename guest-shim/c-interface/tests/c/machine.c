/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * What a kernel lends the library. A real one has its own calling area and GHCB here and executes VMGEXIT; this one
 * calls the service below. Chunks that are not granted hold a pattern, and a grant checks it: a stray write of the
 * library to memory it does not hold ends the test.
 */
#include "machine.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NOT_GRANTED 0x5a
#define LEFT_OVER 0x77

_Noreturn void fail(const char *file, int line, const char *cause)
{
    printf("%s:%d: %s\n", file, line, cause);
    exit(1);
}

static uint8_t *chunk_memory(const struct machine *machine, uint64_t chunk)
{
    return machine->memory + chunk * CHUNK;
}

void machine_start(struct machine *machine)
{
    memset(machine, 0, sizeof *machine);
    machine->memory = aligned_alloc(CHUNK, WINDOW_BYTES);
    REQUIRE(machine->memory != NULL);
    memset(machine->memory, NOT_GRANTED, WINDOW_BYTES);
    machine->cap = WINDOW_BYTES;
    REQUIRE(mtx_init(&machine->service, mtx_plain) == thrd_success);
}

void machine_stop(struct machine *machine)
{
    mtx_destroy(&machine->service);
    free(machine->memory);
    machine->memory = NULL;
}

uint64_t machine_granted(const struct machine *machine)
{
    uint64_t granted = 0;

    for (uint64_t chunk = 0; chunk < CHUNKS; chunk++)
        granted += machine->held[chunk] != 0 ? CHUNK : 0;
    return granted;
}

uint8_t *machine_device(const struct machine *machine, uint64_t address)
{
    REQUIRE(address >= WINDOW_BASE && address < WINDOW_BASE + WINDOW_BYTES);
    return machine->memory + (address - WINDOW_BASE);
}

/* The chunks of a window; whether there is such a window (P-3.2). */
static bool window_at(const struct machine *machine, uint64_t index, uint64_t *first, uint64_t *end)
{
    uint64_t seam = machine->second_window ? CHUNKS - SECOND_CHUNKS : CHUNKS;

    *first = index == 0 ? 0 : seam;
    *end = index == 0 ? seam : CHUNKS;
    return index <= 1 && *first < *end;
}

static uint64_t granted_of(const struct machine *machine, uint64_t first, uint64_t end)
{
    uint64_t granted = 0;

    for (uint64_t chunk = first; chunk < end; chunk++)
        granted += machine->held[chunk] != 0 ? CHUNK : 0;
    return granted;
}

/* The cap of window 0 is what was set; that of the other is all of it. */
static uint64_t cap_of(const struct machine *machine, uint64_t first, uint64_t end)
{
    uint64_t bytes = (end - first) * CHUNK;

    return first == 0 && machine->cap < bytes ? machine->cap : bytes;
}

/* 5.7: RCX = epoch << 32 | contiguous << 8 | window, RDX = at least, R8 = at most. */
static uint64_t grow(struct machine *machine, struct svsm_swiotlb_call_registers *registers)
{
    bool contiguous = (registers->rcx >> 8 & 1) != 0;
    uint64_t least = registers->rdx, most = registers->r8;
    uint64_t cap, granted, room, start, first, end, run = 0;

    if (least == 0 || least > most || (least | most) % CHUNK != 0 || (registers->rcx & 0xfffffe00) != 0)
        return INVALID_PARAMETER;
    if (!window_at(machine, registers->rcx & 0xff, &first, &end))
        return INVALID_PARAMETER;
    if (!machine->attached || registers->rcx >> 32 != machine->epoch)
        return machine->attached ? STALE_EPOCH : NOT_ATTACHED;
    if (machine->grow_answer != 0)
        return machine->grow_answer;
    cap = cap_of(machine, first, end);
    granted = granted_of(machine, first, end);
    room = cap > granted ? cap - granted : 0;
    least = contiguous ? least : CHUNK;
    most = most < room ? most : room;
    if (most < least)
        return CAP_REACHED;
    for (start = first; start < end; start++) {
        for (run = 0; start + run < end && run * CHUNK < most && machine->held[start + run] == 0;)
            run++;
        if (run * CHUNK >= least)
            break;
    }
    if (start == end)
        return NO_CONTIGUOUS_RUN;
    machine->generation++;
    for (uint64_t chunk = start; chunk < start + run; chunk++) {
        uint8_t *bytes = chunk_memory(machine, chunk);

        for (uint64_t at = 0; at < CHUNK; at++)
            REQUIRE(bytes[at] == NOT_GRANTED);
        memset(bytes, LEFT_OVER, CHUNK);
        machine->held[chunk] = machine->generation;
        machine->holder[chunk] = machine->epoch;
    }
    registers->rcx = WINDOW_BASE + start * CHUNK;
    registers->rdx = run * CHUNK;
    registers->r8 = machine->generation;
    return SUCCESS;
}

static void take_back(struct machine *machine, uint64_t chunk)
{
    machine->held[chunk] = 0;
    memset(chunk_memory(machine, chunk), NOT_GRANTED, CHUNK);
}

/* Bytes that this epoch holds. */
static uint64_t held_by(const struct machine *machine, uint32_t epoch)
{
    uint64_t bytes = 0;

    for (uint64_t chunk = 0; chunk < CHUNKS; chunk++)
        bytes += machine->held[chunk] != 0 && machine->holder[chunk] == epoch ? CHUNK : 0;
    return bytes;
}

/* 5.3: RCX = list, RDX = epoch. Two runs of one chunk in each call, so that every list takes several. */
static uint64_t list_granted(struct machine *machine, const struct svsm_swiotlb_call_registers *registers)
{
    uint8_t *entry = machine->list + 8;
    uint16_t capacity, written = 0;
    uint32_t cursor;

    REQUIRE(registers->rcx == machine->list_address && registers->rdx == machine->epoch);
    memcpy(&capacity, machine->list, sizeof capacity);
    memcpy(&cursor, machine->list + 4, sizeof cursor);
    REQUIRE(capacity >= 2 && cursor < CHUNKS);
    for (; cursor < CHUNKS && written < 2; cursor++) {
        uint64_t run[2] = {WINDOW_BASE + cursor * CHUNK, CHUNK};
        uint32_t of[2] = {machine->holder[cursor], machine->held[cursor]};

        if (machine->held[cursor] == 0)
            continue;
        memcpy(entry, run, sizeof run);
        memcpy(entry + sizeof run, of, sizeof of);
        entry += sizeof run + sizeof of;
        written++;
    }
    memcpy(machine->list + 2, &written, sizeof written);
    memcpy(machine->list + 4, &cursor, sizeof cursor);
    return cursor < CHUNKS ? INCOMPLETE : SUCCESS;
}

/* 5.4 and 5.5: RCX = epoch << 32 | older epoch. One chunk in each call. */
static uint64_t orphans(struct machine *machine, struct svsm_swiotlb_call_registers *registers, bool adopt)
{
    uint32_t older = (uint32_t)registers->rcx;
    uint64_t chunk = 0, left;

    if (registers->rcx >> 32 != machine->epoch)
        return STALE_EPOCH;
    if (registers->rdx != 0 || registers->r8 != 0 || older == 0 || older >= machine->epoch)
        return INVALID_PARAMETER;
    registers->rcx = 0;
    while (chunk < CHUNKS && (machine->held[chunk] == 0 || machine->holder[chunk] != older))
        chunk++;
    if (chunk < CHUNKS && !machine->stuck) {
        if (adopt)
            machine->holder[chunk] = machine->epoch;
        else
            take_back(machine, chunk);
        registers->rcx = CHUNK;
    }
    left = held_by(machine, older);
    registers->rdx = adopt ? left : registers->rcx;
    registers->r8 = adopt ? 0 : left;
    return SUCCESS;
}

/* 5.6: RCX = epoch << 32. */
static uint64_t detach(struct machine *machine, struct svsm_swiotlb_call_registers *registers)
{
    if (!machine->attached || registers->rcx != (uint64_t)machine->epoch << 32)
        return machine->attached ? STALE_EPOCH : NOT_ATTACHED;
    machine->attached = false;
    registers->rcx = 0;
    registers->r8 = machine_granted(machine);
    return SUCCESS;
}

/* 5.8: RCX = base, RDX = bytes, R8 = epoch << 32 | generation. */
static uint64_t release(struct machine *machine, struct svsm_swiotlb_call_registers *registers)
{
    uint64_t first = (registers->rcx - WINDOW_BASE) / CHUNK, chunks = registers->rdx / CHUNK;

    if (registers->r8 >> 32 != machine->epoch)
        return STALE_EPOCH;
    if (machine->release_answer != 0)
        return machine->release_answer;
    REQUIRE(registers->rcx >= WINDOW_BASE && first < CHUNKS && chunks >= 1 && chunks <= CHUNKS - first);
    for (uint64_t chunk = first; chunk < first + chunks; chunk++)
        if (machine->held[chunk] != (uint32_t)registers->r8 || machine->holder[chunk] != machine->epoch)
            return NOT_HELD;
    for (uint64_t chunk = first; chunk < first + chunks; chunk++)
        take_back(machine, chunk);
    registers->rcx = registers->rdx;
    registers->r8 = 0;
    return SUCCESS;
}

static uint64_t describe(const struct machine *machine, struct svsm_swiotlb_call_registers *registers)
{
    uint64_t first, end;

    if (!window_at(machine, registers->rcx, &first, &end))
        return INVALID_PARAMETER;
    switch (registers->rdx) {
    case 0: /* geometry: base, bytes, log2 of the chunk size */
        registers->rcx = WINDOW_BASE + first * CHUNK;
        registers->rdx = (end - first) * CHUNK;
        registers->r8 = machine->small_chunks ? 12 : 21;
        return SUCCESS;
    case 1: /* usage: cap, granted, quarantined */
        registers->rcx = cap_of(machine, first, end);
        registers->rdx = granted_of(machine, first, end);
        registers->r8 = 0;
        return SUCCESS;
    case 2: /* work limits: units, entries, most bytes of one GROW */
        registers->rcx = 4096;
        registers->rdx = 253;
        registers->r8 = 253 * CHUNK;
        return SUCCESS;
    default:
        return INVALID_PARAMETER;
    }
}

static uint64_t set_limits(struct machine *machine, struct svsm_swiotlb_call_registers *registers)
{
    uint64_t previous = machine->cap;

    if (registers->rdx > WINDOW_BYTES || registers->rdx % CHUNK != 0)
        return INVALID_PARAMETER;
    machine->cap = registers->rdx;
    registers->rcx = previous;
    registers->rdx = 0;
    return SUCCESS;
}

/* Serves one call of the protocol; P-4.7: the registers stay as they are where it is refused. */
static uint64_t answer(struct machine *machine, struct svsm_swiotlb_call_registers *registers)
{
    uint64_t call = registers->rax & UINT32_MAX;

    if (call < 16)
        machine->calls[call]++;
    switch (call) {
    case CALL_IDENTIFY:
        registers->rcx = UINT64_C(0x7dd432f1ec304975);
        registers->rdx = UINT64_C(0xac6a7fe46323e39a) ^ (machine->another_uuid ? 1 : 0);
        registers->r8 = UINT64_C(51) << 24 | 1 << 8 | 1;
        return SUCCESS;
    case CALL_DESCRIBE:
        return describe(machine, registers);
    case CALL_ATTACH:
        if (machine->attach_answer != 0)
            return machine->attach_answer;
        machine->epoch++;
        machine->attached = true;
        registers->rcx = machine->attach_epoch_zero ? 0 : machine->epoch;
        registers->r8 = machine_granted(machine);
        registers->rdx = (machine->epoch == 1 ? 1 : 0) | (registers->r8 != 0 ? 2 : 0);
        return SUCCESS;
    case CALL_LIST_GRANTED:
        return list_granted(machine, registers);
    case CALL_ADOPT:
        return orphans(machine, registers, true);
    case CALL_RELEASE_ORPHANS:
        return orphans(machine, registers, false);
    case CALL_DETACH:
        return detach(machine, registers);
    case CALL_GROW:
        return grow(machine, registers);
    case CALL_RELEASE:
        return release(machine, registers);
    case CALL_SET_LIMITS:
        return set_limits(machine, registers);
    default:
        return UNSUPPORTED_CALL;
    }
}

/* The interrupt flag of this CPU. */
static _Thread_local bool interrupts_off;

int machine_call(void *context, struct svsm_swiotlb_call_registers *registers)
{
    struct machine *machine = context;
    uint64_t protocol = registers->rax >> 32;

    REQUIRE(!interrupts_off);
    if (machine->not_run)
        return -1;
    REQUIRE(mtx_lock(&machine->service) == thrd_success);
    if (registers->rax == 6) { /* the core protocol's QUERY_PROTOCOL (P-1.3) */
        bool ours = registers->rcx >> 32 == 0x40000001 && !machine->not_offered;

        machine->queries++;
        registers->rcx = ours ? UINT64_C(1) << 32 | 1 : 0;
        registers->rax = SUCCESS;
    } else if (protocol != 0x40000001) {
        registers->rax = UNSUPPORTED_PROTOCOL;
    } else {
        registers->rax = answer(machine, registers);
    }
    REQUIRE(mtx_unlock(&machine->service) == thrd_success);
    return 0;
}

size_t machine_cpu(void *context)
{
    struct machine *machine = context;
    size_t asked = (size_t)atomic_fetch_add(&machine->cpu_asked, 1);

    /* A hint that is sometimes wrong. */
    return asked % 5 == 4 ? SIZE_MAX : asked & 1;
}

size_t machine_interrupts_save(void *context)
{
    size_t saved = interrupts_off;

    (void)context;
    interrupts_off = true;
    return saved;
}

void machine_interrupts_restore(void *context, size_t saved)
{
    (void)context;
    REQUIRE(interrupts_off);
    interrupts_off = saved != 0;
}

void *machine_translate(void *context, uint64_t address, uint64_t bytes)
{
    struct machine *machine = context;

    REQUIRE(address >= WINDOW_BASE && bytes <= WINDOW_BYTES - (address - WINDOW_BASE));
    return machine->unmapped ? NULL : machine_device(machine, address);
}

#ifndef SVSM_SWIOTLB_LINKED_PLATFORM
static void machine_copy_to_pool(void *context, void *pool, const void *buffer, size_t bytes)
{
    struct machine *machine = context;

    REQUIRE(!interrupts_off);
    machine->copied_in += bytes;
    memcpy(pool, buffer, bytes);
}

static void machine_copy_from_pool(void *context, void *buffer, const void *pool, size_t bytes)
{
    struct machine *machine = context;
    void (*interrupt)(void *) = machine->interrupt;

    REQUIRE(!interrupts_off);
    machine->copied_out += bytes;
    machine->interrupt = NULL;
    memcpy(buffer, pool, bytes / 2);
    if (interrupt != NULL)
        interrupt(machine->interrupt_argument);
    memcpy((uint8_t *)buffer + bytes / 2, (const uint8_t *)pool + bytes / 2, bytes - bytes / 2);
}

struct svsm_swiotlb_platform machine_platform(struct machine *machine, bool own_copies)
{
    return (struct svsm_swiotlb_platform){
        .context = machine,
        .call = machine_call,
        .cpu = own_copies ? machine_cpu : NULL,
        .interrupts_save = machine_interrupts_save,
        .interrupts_restore = machine_interrupts_restore,
        .translate = machine_translate,
        .copy_to_pool = own_copies ? machine_copy_to_pool : NULL,
        .copy_from_pool = own_copies ? machine_copy_from_pool : NULL,
    };
}
#endif
