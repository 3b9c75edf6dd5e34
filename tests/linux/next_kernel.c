// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * Starts another kernel, as kexec-tools do, with what a confidential VM needs besides.
 *
 *   next_kernel load|crash KERNEL INITRD COMMAND_LINE   loads a kernel to be started on demand, or at a panic
 *   next_kernel start                                   starts what `load` loaded
 *
 * The kernel finds the secrets page by the confidential-computing blob: under firmware by a table of EFI, and the kernel's own
 * loader (kexec_file_load) is all it takes. A kernel without firmware got the blob's address in set-up data, which
 * neither that loader nor kexec-tools pass on. So this reads the zero page of the running kernel (sysfs) and loads by
 * kexec_load, with a zero page that names the blob and the ACPI tables of the running one; its other set-up data stay behind.
 * A crash kernel gets a header of the running one's memory besides, from which it makes /proc/vmcore.
 * Linux boot protocol: Documentation/arch/x86/boot.rst and zero-page.rst of the kernel.
 */
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/kexec.h>
#include <linux/reboot.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PAGE 4096UL
#define MIB (1UL << 20)
/* Room for the header of a crashed kernel's memory, at the end of the crash kernel's. */
#define CORE_ROOM (16 * PAGE)
#define MOST_SEGMENTS ((CORE_ROOM - sizeof(Elf64_Ehdr)) / sizeof(Elf64_Phdr))

/* Offsets in the zero page. */
enum {
	ACPI_RSDP = 0x070,
	EXT_RAMDISK = 0x0c0,	/* image, size, command line: upper halves */
	CC_BLOB = 0x13c,
	EFI_INFO = 0x1c0,
	E820_ENTRIES = 0x1e8,
	SETUP_HEADER = 0x1f1,
	TYPE_OF_LOADER = 0x210,
	CODE32_START = 0x214,
	RAMDISK_IMAGE = 0x218,
	RAMDISK_SIZE = 0x21c,
	CMD_LINE_PTR = 0x228,
	KERNEL_ALIGNMENT = 0x230,
	SETUP_DATA = 0x250,
	INIT_SIZE = 0x260,
	E820_TABLE = 0x2d0,
	E820_MOST = 128,
};

/* Set-up data that names the blob. */
struct blob_node {
	uint64_t next;
	uint32_t type, bytes, address;
} __attribute__((packed));
#define SETUP_CC_BLOB 7

struct e820_entry {
	uint64_t start, bytes;
	uint32_t type;
} __attribute__((packed));
#define E820_RAM 1
#define E820_RESERVED 2

static void fail(const char *step, const char *cause)
{
	fprintf(stderr, "%s: %s\n", step, cause);
	exit(1);
}

static uint32_t word(const uint8_t *from)
{
	uint32_t value;

	memcpy(&value, from, sizeof(value));
	return value;
}

static void put_word(uint8_t *to, uint64_t value)
{
	uint32_t low = value;

	if (low != value)
		fail("load", "an address beyond 4 GiB");
	memcpy(to, &low, sizeof(low));
}

static uint64_t up(uint64_t value, uint64_t unit)
{
	return (value + unit - 1) / unit * unit;
}

static uint8_t *whole(const char *path, size_t *bytes)
{
	size_t room = 64 * MIB;
	uint8_t *buffer = malloc(room);
	int file = open(path, O_RDONLY);
	ssize_t got;

	if (file < 0 || !buffer)
		fail(path, strerror(errno));
	for (*bytes = 0; (got = read(file, buffer + *bytes, room - *bytes)) > 0; *bytes += got)
		;
	if (got < 0 || *bytes == room)
		fail(path, got < 0 ? strerror(errno) : "too long");
	close(file);
	return buffer;
}

/* The reserved memory of a crash kernel, or what is to be had in the RAM of the running one. */
static void find_room(int crash, const uint8_t *zero_page, uint64_t bytes, uint64_t *start, uint64_t *end)
{
	const struct e820_entry *entry = (const void *)(zero_page + E820_TABLE);
	unsigned long long first, last;
	char line[256];
	FILE *map;
	int i;

	if (crash) {
		map = fopen("/proc/iomem", "r");
		while (map && fgets(line, sizeof(line), map))
			if (strstr(line, "Crash kernel") && sscanf(line, " %llx-%llx", &first, &last) == 2 &&
			    last + 1 - first >= bytes) {
				*start = first;
				*end = last + 1;
				return;
			}
		fail("load", "no crash kernel's memory of that size is reserved (crashkernel=)");
	}
	/* The middle of the RAM below 4 GiB: kernels and firmware allocate at its ends. */
	*end = 0;
	for (i = 0; i < zero_page[E820_ENTRIES] && i < E820_MOST; i++) {
		first = up(entry[i].start, 2 * MIB);
		last = entry[i].start + entry[i].bytes;
		if (entry[i].type != E820_RAM || last > 1UL << 32 || last < first + bytes)
			continue;
		*start = up(first + (last - first - bytes) / 2, 2 * MIB);
		*end = *start + bytes;
		if (*end > last)
			*end = 0;
	}
	if (!*end)
		fail("load", "no RAM below 4 GiB is long enough");
}

/* The memory map of a crash kernel: of the RAM what is reserved for it and the first MiB. */
static void narrow(uint8_t *zero_page, uint64_t start, uint64_t end)
{
	struct e820_entry *table = (void *)(zero_page + E820_TABLE), old[E820_MOST];
	int i, count = 0, entries = zero_page[E820_ENTRIES];

	memcpy(old, table, sizeof(old));
	for (i = 0; i < entries && i < E820_MOST; i++) {
		uint64_t first = old[i].start, last = first + old[i].bytes;

		if (count > E820_MOST - 3)
			fail("load", "the memory map is too long");
		if (old[i].type != E820_RAM || last <= MIB) {
			table[count++] = old[i];
			continue;
		}
		if (first > start || last < end) {
			table[count++] = (struct e820_entry){ first, last - first, E820_RESERVED };
			continue;
		}
		if (start > first)
			table[count++] = (struct e820_entry){ first, start - first, E820_RESERVED };
		table[count++] = (struct e820_entry){ start, end - start, E820_RAM };
		if (last > end)
			table[count++] = (struct e820_entry){ end, last - end, E820_RESERVED };
	}
	zero_page[E820_ENTRIES] = count;
}

static void add_segment(Elf64_Ehdr *header, uint32_t type, uint64_t start, uint64_t bytes)
{
	Elf64_Phdr *segment = (Elf64_Phdr *)(header + 1) + header->e_phnum;

	if (header->e_phnum == MOST_SEGMENTS)
		fail("load", "the running kernel's memory has too many pieces");
	header->e_phnum++;
	*segment = (Elf64_Phdr){
		.p_type = type, .p_offset = start, .p_paddr = start, .p_filesz = bytes, .p_memsz = bytes,
	};
}

/* A note of the running kernel's, of whose place a file of sysfs tells the address, and that file or another one the size. */
static int add_note(Elf64_Ehdr *header, const char *place, const char *size)
{
	unsigned long long start, bytes = 0;
	FILE *file = fopen(place, "r");
	int found = file ? fscanf(file, "%llx %llx", &start, &bytes) : 0;

	if (file)
		fclose(file);
	if (found == 1 && size && (file = fopen(size, "r"))) {
		found += fscanf(file, "%llu", &bytes);
		fclose(file);
	}
	if (found == 2)
		add_segment(header, PT_NOTE, start, bytes);
	return found == 2;
}

/*
 * The header of an ELF core file: the processors' notes, the kernel's own, and its RAM but for the first MiB, which every kernel
 * keeps for itself, and the crash kernel's memory (Documentation/admin-guide/kdump/kdump.rst).
 */
static uint8_t *core_header(uint64_t crash_start, uint64_t crash_end)
{
	Elf64_Ehdr *header = calloc(1, CORE_ROOM);
	unsigned long long first, last;
	char place[80], size[80], line[256];
	FILE *map = fopen("/proc/iomem", "r");
	int cpu, notes = 0;

	if (!header || !map)
		fail("/proc/iomem", strerror(errno));
	memcpy(header->e_ident, ELFMAG, SELFMAG);
	header->e_ident[EI_CLASS] = ELFCLASS64;
	header->e_ident[EI_DATA] = ELFDATA2LSB;
	header->e_ident[EI_VERSION] = EV_CURRENT;
	header->e_type = ET_CORE;
	header->e_machine = EM_X86_64;
	header->e_version = EV_CURRENT;
	header->e_phoff = header->e_ehsize = sizeof(*header);
	header->e_phentsize = sizeof(Elf64_Phdr);
	for (cpu = 0; cpu < 256; cpu++) {
		sprintf(place, "/sys/devices/system/cpu/cpu%d/crash_notes", cpu);
		sprintf(size, "/sys/devices/system/cpu/cpu%d/crash_notes_size", cpu);
		notes += add_note(header, place, size);
	}
	if (!notes || !add_note(header, "/sys/kernel/vmcoreinfo", NULL))
		fail("load", "the running kernel does not say where its notes are (crash_notes, vmcoreinfo)");
	while (fgets(line, sizeof(line), map)) {
		if (sscanf(line, "%llx-%llx", &first, &last) != 2 || !strstr(line, ": System RAM") || line[0] == ' ')
			continue;
		last++;
		if (last <= MIB)
			continue;
		if (first < MIB)
			first = MIB;
		if (first < crash_start)
			add_segment(header, PT_LOAD, first, (last < crash_start ? last : crash_start) - first);
		if (last > crash_end) {
			first = first > crash_end ? first : crash_end;
			add_segment(header, PT_LOAD, first, last - first);
		}
	}
	fclose(map);
	return (uint8_t *)header;
}

static void load_with_blob(int crash, const uint8_t *running, char *const *arguments)
{
	size_t kernel_bytes, initrd_bytes;
	uint8_t *kernel = whole(arguments[0], &kernel_bytes), *initrd = whole(arguments[1], &initrd_bytes);
	uint8_t *zero_page = calloc(1, PAGE), *command_line = calloc(1, PAGE), *jump = calloc(1, PAGE);
	struct blob_node *node = calloc(1, PAGE);
	unsigned int sectors = kernel[SETUP_HEADER] ?: 4;
	size_t setup = (sectors + 1) * 512;
	uint64_t alignment = word(kernel + KERNEL_ALIGNMENT), size = up(word(kernel + INIT_SIZE), PAGE);
	uint64_t start, end, low, image, ramdisk, entry, blob;
	uint8_t *core = NULL;
	long error;
	int at = 0;

	if (kernel_bytes < PAGE || memcmp(kernel + 0x202, "HdrS", 4))
		fail(arguments[0], "no kernel");
	find_room(crash, running, 2 * MIB + alignment + size + up(initrd_bytes, PAGE) + CORE_ROOM, &start, &end);
	if (crash) {
		core = core_header(start, end);
		end -= CORE_ROOM;
	}
	/* Zero page, command line and the first instructions; then the kernel; then the initrd. */
	low = start + 64 * 1024;
	image = up(start + MIB, alignment);
	ramdisk = up(image + size, PAGE);
	entry = image + 0x200;

	memcpy(zero_page, running, PAGE);
	memcpy(zero_page + SETUP_HEADER, kernel + SETUP_HEADER, kernel[0x201] + 0x202 - SETUP_HEADER);
	*node = (struct blob_node){ .type = SETUP_CC_BLOB, .bytes = 4, .address = word(running + CC_BLOB) };
	if (!node->address)
		fail("load", "the running kernel has no confidential-computing blob");
	blob = low + 3 * PAGE;
	memcpy(zero_page + SETUP_DATA, &blob, 8);
	memset(zero_page + EXT_RAMDISK, 0, 12);
	zero_page[TYPE_OF_LOADER] = 0xff;
	put_word(zero_page + CODE32_START, image);
	put_word(zero_page + RAMDISK_IMAGE, ramdisk);
	put_word(zero_page + RAMDISK_SIZE, initrd_bytes);
	put_word(zero_page + CMD_LINE_PTR, low + PAGE);
	if (snprintf((char *)command_line, PAGE, crash ? "%s elfcorehdr=%#lx" : "%s", arguments[2], end) >= (int)PAGE)
		fail("load", "the command line is too long");
	if (crash)
		narrow(zero_page, start, end);
	/* mov rsi, zero page; mov rax, entry; jmp rax */
	memcpy(jump, "\x48\xbe", 2);
	memcpy(jump + (at = 2), &low, 8);
	memcpy(jump + (at += 8), "\x48\xb8", 2);
	memcpy(jump + (at += 2), &entry, 8);
	memcpy(jump + at + 8, "\xff\xe0", 2);

	struct kexec_segment segments[] = {
		{ zero_page, PAGE, (void *)low, PAGE },
		{ command_line, PAGE, (void *)(low + PAGE), PAGE },
		{ jump, PAGE, (void *)(low + 2 * PAGE), PAGE },
		{ node, PAGE, (void *)blob, PAGE },
		{ kernel + setup, kernel_bytes - setup, (void *)image, size },
		{ initrd, initrd_bytes, (void *)ramdisk, up(initrd_bytes, PAGE) },
		{ core, CORE_ROOM, (void *)end, CORE_ROOM },
	};
	error = syscall(SYS_kexec_load, low + 2 * PAGE, sizeof(segments) / sizeof(*segments) - !crash, segments,
			KEXEC_ARCH_X86_64 | (crash ? KEXEC_ON_CRASH : 0));
	if (error)
		fail("kexec_load", strerror(errno));
}

static void load_by_kernel(int crash, char *const *arguments)
{
	int kernel = open(arguments[0], O_RDONLY), initrd = open(arguments[1], O_RDONLY);

	if (kernel < 0 || initrd < 0)
		fail("load", strerror(errno));
	if (syscall(SYS_kexec_file_load, kernel, initrd, strlen(arguments[2]) + 1, arguments[2],
		    crash ? KEXEC_FILE_ON_CRASH : 0))
		fail("kexec_file_load", strerror(errno));
}

int main(int count, char **arguments)
{
	size_t bytes;

	if (count == 2 && !strcmp(arguments[1], "start")) {
		sync();
		syscall(SYS_reboot, LINUX_REBOOT_MAGIC1, LINUX_REBOOT_MAGIC2, LINUX_REBOOT_CMD_KEXEC, NULL);
		fail("start", strerror(errno));
	}
	if (count == 5 && (!strcmp(arguments[1], "load") || !strcmp(arguments[1], "crash"))) {
		int crash = arguments[1][0] == 'c';
		uint8_t *running = whole("/sys/kernel/boot_params/data", &bytes);

		if (bytes < PAGE)
			fail("load", "the running kernel's zero page cannot be read");
		if (word(running + EFI_INFO))
			load_by_kernel(crash, arguments + 2);
		else
			load_with_blob(crash, running, arguments + 2);
		return 0;
	}
	fail("next_kernel", "write load|crash KERNEL INITRD COMMAND_LINE, or start");
}
