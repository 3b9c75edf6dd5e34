/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * The rest of a kernel round the example of the README: just enough to link. It is never run; what counts is that
 * nothing but the archive is needed.
 */
#include "svsm_swiotlb.h"

int kernel_svsm_call(void *context, struct svsm_swiotlb_call_registers *registers);
size_t kernel_cpu(void *context);
size_t kernel_irq_save(void *context);
void kernel_irq_restore(void *context, size_t saved);
void *kernel_shared_mapping(void *context, uint64_t address, uint64_t bytes);
uint64_t nic_receive(uint64_t address, uint64_t length);
int io_memory_init(void);
int receive(void *buffer, size_t length);
void start(void);

int kernel_svsm_call(void *context, struct svsm_swiotlb_call_registers *registers)
{
    (void)context;
    (void)registers;
    return -1;
}

size_t kernel_cpu(void *context)
{
    (void)context;
    return 0;
}

size_t kernel_irq_save(void *context)
{
    uint64_t flags;

    (void)context;
    __asm__ volatile("pushfq; popq %0; cli" : "=r"(flags) : : "memory");
    return flags >> 9 & 1;
}

void kernel_irq_restore(void *context, size_t saved)
{
    (void)context;
    if (saved != 0)
        __asm__ volatile("sti" : : : "memory");
}

void *kernel_shared_mapping(void *context, uint64_t address, uint64_t bytes)
{
    (void)context;
    (void)bytes;
    return (void *)(address | UINT64_C(0xffff888000000000));
}

uint64_t nic_receive(uint64_t address, uint64_t length)
{
    (void)address;
    return length;
}

#ifdef KERNEL_WITH_MEMORY_FUNCTIONS
void *memcpy(void *restrict to, const void *restrict from, size_t bytes);
void *memset(void *to, int value, size_t bytes);

void *memcpy(void *restrict to, const void *restrict from, size_t bytes)
{
    void *start_of_copy = to;

    __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(bytes) : : "memory");
    return start_of_copy;
}

void *memset(void *to, int value, size_t bytes)
{
    void *start_of_fill = to;

    __asm__ volatile("rep stosb" : "+D"(to), "+c"(bytes) : "a"(value) : "memory");
    return start_of_fill;
}
#endif

void start(void)
{
    static uint8_t packet[1500];

    if (io_memory_init() == 0)
        (void)receive(packet, sizeof packet);
    for (;;)
        __asm__ volatile("hlt");
}
