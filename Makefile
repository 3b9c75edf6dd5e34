# SPDX-License-Identifier: MIT OR Apache-2.0
#
# The one entry point: `make help` lists the targets. A fresh Debian 12 machine needs rustup, gcc,
# make and git; the first target sets the rest up (scripts/setup.sh).

CARGO  ?= cargo
MEM    ?= 1GiB
WINDOW ?= 256MiB
DISK   ?=
RAM    ?= accepted
CPUS   ?= 1
RESTRICTED_INJECTION ?= on
HARD_CAP ?=
WINDOW_PLACE ?=
LOW_WINDOW ?=
IMAGE_FLAGS ?=
UNIT_LIMIT ?= on
RUNFLAGS ?=
PEERS  ?=
SECONDS ?= 60
VCPUS  ?=
DEVICES ?=
# How hard the devices are worked: usual, stress, or fio (make linux-fio); or what else is done (tests/linux/work).
WORK ?= usual
# Work that is another kernel's, which the first one starts.
LATER = $(filter kexec kdump,$(WORK))
CRASH_CPUS = $(patsubst svsm.crash_cpus=%,--crash-cpus %,$(filter svsm.crash_cpus=%,$(CMDLINE)))
# Series of Debian's kernel, or a kernel and an initrd of the user's own. Earlier ones than 6.14 leave shared memory to the next.
LINUX  ?= $(if $(LATER),7,6.12)
KERNEL ?=
INITRD ?=
CMDLINE ?=
# Who bounces in the kernel: pool (the module) or swiotlb (the kernel itself, as without the module).
DRIVER ?= pool
# Slots of 2 KiB of the kernel's own pool: with the module it needs none, and takes at least 512. Empty: the kernel's choice.
SWIOTLB ?= $(if $(filter pool,$(DRIVER)),512)
# make linux-compare counts instructions, too: yes or no. Not beside hard work, of which it is independent.
INSTRUCTIONS ?= $(if $(filter usual,$(WORK)),yes,no)
MEASURED = $(filter yes,$(INSTRUCTIONS))
FIO = $(filter fio,$(WORK))
# OVMF of the user's own.
FIRMWARE ?=
# Headers of an installed kernel, for the module; without them those of LINUX are fetched.
KDIR   ?=
SOAK_BOOTS ?= 100
SOAK_LINUX ?= 10
SOAK_VCPUS ?=

TARGET_DIR := $(or $(CARGO_TARGET_DIR),$(CURDIR)/target)
NONE       := x86_64-unknown-none
BARE       := $(TARGET_DIR)/$(NONE)/release
HOST       := $(TARGET_DIR)/release
IMAGES     := $(TARGET_DIR)/images
IGVM       := $(IMAGES)/paravisor.igvm
REPORT     := $(TARGET_DIR)/report
LINUX_DIR  := $(TARGET_DIR)/linux
LINUX_IGVM := $(IMAGES)/linux.igvm
# The paravisor at another place, and the tools that know it.
FIRMWARE_DIR := $(TARGET_DIR)/firmware
OVMF_DIR   := $(TARGET_DIR)/ovmf
OVMF_IGVM  := $(IMAGES)/ovmf.igvm
OVMF_DISK  := $(IMAGES)/boot.img
# The Linux module: where it is built, and what it is built from.
MODULE_DIR := $(TARGET_DIR)/module
VERSION    := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
DKMS_DIR   := $(TARGET_DIR)/dkms

# What every kernel is told: the console from its first line on, and an end at a panic.
# Each reading of the ACPI timer would be an exit; the time stamp counter cannot be calibrated by ports this slow.
LINUX_ARGS := clocksource=jiffies console=ttyS0 earlyprintk=ttyS0,115200 panic=-1
LINUX_TIMEOUT = $(if $(filter stress,$(WORK)),1200,$(if $(filter fio hotplug kexec kdump,$(WORK)),1800,300))
LINUX_WORDS = $(LINUX_ARGS) $(if $(INITRD),,svsm.driver=$(DRIVER) svsm.work=$(WORK) $(if $(DEVICES),svsm.devices=$(DEVICES))) $(if $(SWIOTLB),swiotlb=$(SWIOTLB)) \
	$(if $(filter kdump,$(WORK)),crashkernel=192M) $(if $(filter stress,$(WORK)),svsm.readers=16) \
	$(if $(filter hotplug,$(WORK)),svsm.modules=ghcb_free) $(CMDLINE)
# Drivers of the kernel's beside those that every initrd has.
LINUX_DRIVERS = $(if $(findstring ahci,$(DEVICES)),--driver ahci --driver sd_mod)
# The initrd holds the module for that kernel when it is to bounce.
USES_MODULE = $(if $(INITRD),,$(filter pool,$(DRIVER)))
# The initrd that is packed, and the one that a further kernel gets.
LINUX_INITRD = $(LINUX_DIR)/$(LINUX)/initrd$(if $(USES_MODULE),-pool)
NEXT_DIR   = $(LINUX_DIR)/$(LINUX)/next
# What every image is packed with.
IMAGE_OPTIONS = --window $(WINDOW) $(if $(WINDOW_PLACE),--window-place $(WINDOW_PLACE)) $(if $(LOW_WINDOW),--low-window $(LOW_WINDOW)) $(if $(HARD_CAP),--hard-cap $(HARD_CAP)) --unit-limit $(UNIT_LIMIT) \
	--restricted-injection $(RESTRICTED_INJECTION) --cpus $(CPUS) $(IMAGE_FLAGS)
BUILDER    := $(HOST)/igvm-builder
RUNNER     := $(HOST)/runner
# Host-side packages whose unit tests run on this machine, and the three bare-metal binaries.
IMAGE_BINS := paravisor test-guest snp-host
# One at a time: built together, the images would share the union of their dependencies' features.
BARE_BUILD := $(CARGO) build --release --quiet --target $(NONE) --features bare-metal

.DEFAULT_GOAL := help
# No target here is a file.
.PHONY: $(shell grep -oE '^[a-z-]+:' $(firstword $(MAKEFILE_LIST)) | tr -d :)

# What `make help` prints behind the targets.
#?
#? variables of `make run`, `make linux` and `make igvm`:
#?   MEM=1GiB         guest memory, the window included
#?   WINDOW=256MiB    pool window, a multiple of 2MiB
#?   WINDOW_PLACE=high|low   at the top of guest memory, or below 4 GiB, where devices with 32 address bits reach it
#?   LOW_WINDOW=size  a second window, below 4 GiB, for the devices that do not reach the first (default: none)
#?   DISK=file        disk to read (default: a file system image made from this tree)
#?   RAM=accepted     who validates guest RAM: accepted (the paravisor) or firmware (the guest)
#?   RESTRICTED_INJECTION=on|off   off for hosts that lack it
#?   HARD_CAP=size    most that the pool can ever be granted (default: the window)
#?   UNIT_LIMIT=on|off   off: one call grows the pool without bound on its time
#?   VCPUS=n          vCPUs, 1 to 16, of make qemu-snp any (default: 1; of make linux: 2)
#?   DEVICES=list     of blk,net,nvme, and of make linux ahci (default: blk; of make linux: blk,net,nvme)
#?   CPUS=1           print launch digests for 1..CPUS vCPUs
#?   IMAGE_FLAGS=...  further options of the image: guest policy and SEV features (target/release/igvm-builder --help, docs/ATTESTATION.md)
#?   RUNFLAGS=...     further options of the runner, which win over those of make (target/release/runner run --help)
#?
#? variables of `make linux` and `make linux-compare`:
#?   LINUX=6.12       series of the Debian kernel to boot: 6.12, 7, 6.12+deb12, 6.12-amd64, ...
#?   KERNEL=file INITRD=file   a kernel and an initrd of your own instead
#?   CMDLINE=text     further words of the kernel command line
#?   DRIVER=pool|swiotlb   who bounces: the module, or the kernel as without it
#?   SWIOTLB=slots    slots of 2 KiB of the kernel's own pool (default: 512 with the module, else the kernel's choice)
#?   INSTRUCTIONS=no   make linux-compare counts none (default: yes, but for WORK=stress)
#?   WORK=usual|stress   how hard the devices are worked: stress is several readers, a writer and the network at once
#?   WORK=kexec|kdump   a second kernel does the usual work: started in order, or by a crash (LINUX=7 by default); for a crash
#?                    CMDLINE='svsm.crash_cpu=n svsm.crash_cpus=n': on which CPU, and how many that kernel has
#?   WORK=hotplug     take CPUs off line and on line under load (DRIVER=pool; CMDLINE=svsm.cycles=n, default 20)
#?
#? variables of `make linux-fio`: those of `make linux`, but for WORK, DRIVER, DEVICES, KERNEL and INITRD
#?
#? variables of `make module`:
#?   KDIR=folder      headers of an installed kernel (/lib/modules/RELEASE/build)
#?   LINUX=6.12       series, or release, whose headers are fetched where KDIR is not given
#?
#? variables of `make ovmf`: those above (of WORK= kexec and kdump), and
#?   FIRMWARE=file    an OVMF.fd of your own
#?
#? variables of `make soak`:
#?   SOAK_BOOTS=100   boots of the small guest
#?   SOAK_LINUX=10    boots of Linux
#?   SOAK_VCPUS=n     all of them with n vCPUs, of which each has its thread (default: 1 and 2 in turns)
#?
#? variables of `make bench`:
#?   PEERS="a.so b.so"  allocators to measure beside (tests/bench/include/bb_abi.h)

help: ## List the targets and the variables
	@printf 'svsm-swiotlb: I/O memory for confidential VMs, owned by a service at VMPL0\n\ntargets:\n'
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 28
	@sed -n 's/^#? \{0,1\}//p' $(MAKEFILE_LIST)

setup: ## Add the bare-metal Rust target
	@scripts/setup.sh rust

setup-qemu: setup ## The same, and QEMU (installed through apt where that is allowed)
	@scripts/setup.sh qemu

images: setup ## Build the bare-metal binaries and the tools that pack and run them
	@for bin in $(IMAGE_BINS); do $(BARE_BUILD) -p $$bin --bin $$bin || exit; done
	@$(CARGO) build --release --quiet -p igvm-builder -p runner --bins
	@$(CARGO) build --release --quiet -p snp-host --example self_check

igvm: images ## Pack paravisor.igvm; prints its size and SNP launch digest
	@mkdir -p $(IMAGES)
	@$(BUILDER) --paravisor $(BARE)/paravisor --payload $(BARE)/test-guest --output $(IGVM) \
		--ram $(RAM) $(IMAGE_OPTIONS)

disk: images ## Make the default disk: a file system image of this source tree
	@mkdir -p $(IMAGES)
	@$(RUNNER) disk --from $(CURDIR) --output $(IMAGES)/disk.img

run: setup-qemu igvm $(if $(DISK),,disk) ## Boot the image on the emulated SNP machine and do real disk I/O through the pool
	@$(RUNNER) run --igvm $(IGVM) --host $(BARE)/snp-host --disk "$(or $(DISK),$(IMAGES)/disk.img)" \
		--memory $(MEM) --report $(REPORT) $(if $(VCPUS),--vcpus $(VCPUS)) $(if $(DEVICES),--devices $(DEVICES)) $(RUNFLAGS)

# The beginning of the default disk: hashing is most of what the guest does, and emulated processors are slow at it.
linux-disk: disk
	@head -c 16M $(IMAGES)/disk.img >$(IMAGES)/linux-disk.img

linux: setup-qemu linux-igvm $(if $(DISK),,linux-disk) ## Boot a stock Linux kernel at VMPL2, its devices on the pool, and check its CPUs, memory, disks and network
	@$(RUNNER) linux --igvm $(LINUX_IGVM) --host $(BARE)/snp-host --disk "$(or $(DISK),$(IMAGES)/linux-disk.img)" \
		--memory $(MEM) --vcpus $(or $(VCPUS),2) --usual-timeout $(LINUX_TIMEOUT) --usual-idle $(if $(filter usual,$(WORK)),60,300) --report $(REPORT) $(if $(filter stress,$(WORK)),--more-disks 2 --disk-rate 8MiB) \
		$(if $(FIO),--second-disk-size $(FIO_DISK) --nvme-disk $(IMAGES)/fio-nvme.img --nvme-writable) \
		$(if $(DEVICES),--devices $(DEVICES)) $(if $(INITRD),--own-initrd,--driver $(DRIVER)) $(CRASH_CPUS) $(RUNFLAGS)

# The kernel has to have ext4 built in, as Debian's cloud kernels do. The NVMe disk is zeros that take no room; the guest
# reads all of it once, so it is no larger than the work needs.
FIO_DISK := 48MiB
linux-fio: images ## fio with verification on ext4, on virtio-blk and NVMe at once beside the network, while the pool grows, shrinks and hits its cap
	@scripts/linux-fio.sh $(LINUX_DIR)
	@mkdir -p $(IMAGES) && rm -f $(IMAGES)/fio-nvme.img && truncate -s $(FIO_DISK:iB=) $(IMAGES)/fio-nvme.img
	@$(MAKE) --no-print-directory linux WORK=fio DRIVER=pool

# With and without the module, and under hard work without it at the smallest the kernel takes. A boot that breaks a promise
# is judged with the others.
COMPARED := pool swiotlb $(if $(filter stress,$(WORK)),swiotlb-1MiB)
linux-compare: $(if $(DISK),,linux-disk) ## Boot it with the module and without, on the same disks and work, and set both side by side
	@rm -rf $(REPORT)/compare
	@for boot in $(COMPARED); do \
		echo "linux-compare: $$boot" >&2; \
		case $$boot in swiotlb-1MiB) slots=SWIOTLB=512 ;; *) slots= ;; esac; \
		$(MAKE) --no-print-directory linux DISK="$(or $(DISK),$(IMAGES)/linux-disk.img)" DRIVER=$${boot%-*} $$slots REPORT=$(REPORT)/compare/$$boot RUNFLAGS="--quiet $(RUNFLAGS)" || \
			[ -e $(REPORT)/compare/$$boot/linux.json ] || exit; \
	done
	@$(if $(MEASURED),echo 'linux-compare: instructions' >&2; \
		$(MAKE) --no-print-directory linux-instructions REPORT=$(REPORT)/compare/instructions)
	@$(RUNNER) linux-compare --report $(REPORT) $(if $(MEASURED),--instructions $(REPORT)/compare/instructions/linux.json) $(if $(filter stress,$(WORK)),--expect-trouble) \
		$(foreach boot,$(COMPARED),--boot $(boot)=$(REPORT)/compare/$(boot)/linux.json)

# What map and unmap cost, in a boot that counts instructions and so takes its time.
linux-instructions: linux-kernel linux-disk module test-modules
	@$(RUNNER) initrd --init tests/linux/init --busybox $(LINUX_DIR)/busybox --mark $(LINUX_DIR)/mark --modules $(LINUX_DIR)/$(LINUX)/modules \
		--module $(MODULE_DIR)/$$(cat $(LINUX_DIR)/$(LINUX)/release)/svsm_swiotlb.ko \
		--module $(MODULE_DIR)/tests/$$(cat $(LINUX_DIR)/$(LINUX)/release)/map_bench.ko --output $(LINUX_DIR)/$(LINUX)/initrd-bench
	@$(BUILDER) --paravisor $(BARE)/paravisor --payload $(LINUX_DIR)/$(LINUX)/vmlinuz --initrd $(LINUX_DIR)/$(LINUX)/initrd-bench \
		--cmdline "$(LINUX_ARGS) svsm.modules=svsm_swiotlb,map_bench" --output $(IMAGES)/linux-bench.igvm $(IMAGE_OPTIONS)
	@$(RUNNER) linux --igvm $(IMAGES)/linux-bench.igvm --host $(BARE)/snp-host --disk $(IMAGES)/linux-disk.img --deterministic \
		--memory $(MEM) --usual-timeout 900 --usual-idle 120 --report $(REPORT) --quiet

# This kernel has everything built in. KASAN needs an eighth of the RAM, and the checks make the boot slow.
linux-debug: setup-qemu linux-kernel linux-disk module-package ## Build a kernel with KASAN, lockdep and checks of RCU and the DMA API (minutes, 3 GB), boot it with the module and its tests: no report
	@headers="$$(scripts/linux-debug-kernel.sh $(LINUX_DIR))" && \
		scripts/linux-module.sh $(MODULE_DIR)/package $(MODULE_DIR) $$headers && \
		scripts/linux-module.sh tests/linux/modules $(MODULE_DIR)/tests $$headers
	@$(RUNNER) initrd --init tests/linux/init --busybox $(LINUX_DIR)/busybox --mark $(LINUX_DIR)/mark --modules $(LINUX_DIR)/debug/modules \
		--module $(MODULE_DIR)/$$(cat $(LINUX_DIR)/debug/release)/svsm_swiotlb.ko \
		--module $(MODULE_DIR)/tests/$$(cat $(LINUX_DIR)/debug/release)/map_test.ko --output $(LINUX_DIR)/debug/initrd
	@$(BUILDER) --paravisor $(BARE)/paravisor --payload $(LINUX_DIR)/debug/vmlinuz --initrd $(LINUX_DIR)/debug/initrd \
		--cmdline "$(LINUX_ARGS) swiotlb=512 svsm.driver=pool svsm.work=$(WORK) svsm.modules=map_test svsm.again=yes $(CMDLINE)" \
		--output $(IMAGES)/linux-debug.igvm $(IMAGE_OPTIONS)
	@$(RUNNER) linux --igvm $(IMAGES)/linux-debug.igvm --host $(BARE)/snp-host --disk $(IMAGES)/linux-disk.img --driver pool \
		--memory $(MEM) --vcpus $(or $(VCPUS),2) --usual-timeout 1800 --usual-idle 300 $(if $(filter stress,$(WORK)),--more-disks 2) --report $(REPORT)/debug $(RUNFLAGS)

linux-kernel: images ## Fetch Debian's kernel (not installed) and pack the initrd
	@$(if $(KERNEL),$(if $(INITRD),,echo 'linux: KERNEL= needs INITRD=, an initrd with the modules of that kernel' >&2; exit 2;))true
	@$(if $(KERNEL),,scripts/linux-kernel.sh $(LINUX) $(LINUX_DIR))
	@mkdir -p $(LINUX_DIR) && gcc -nostdlib -static -s -o $(LINUX_DIR)/mark tests/linux/mark.S
	@$(if $(INITRD),,$(RUNNER) initrd --init tests/linux/init --busybox $(LINUX_DIR)/busybox \
		--mark $(LINUX_DIR)/mark --modules $(LINUX_DIR)/$(LINUX)/modules $(LINUX_DRIVERS) --output $(LINUX_DIR)/$(LINUX)/initrd)

linux-initrd: linux-kernel module $(if $(filter hotplug,$(WORK)),test-modules)
	@$(RUNNER) initrd --init tests/linux/init --busybox $(LINUX_DIR)/busybox --mark $(LINUX_DIR)/mark --modules $(LINUX_DIR)/$(LINUX)/modules $(LINUX_DRIVERS) \
		--module $(MODULE_DIR)/$$(cat $(LINUX_DIR)/$(LINUX)/release)/svsm_swiotlb.ko \
		$(if $(filter hotplug,$(WORK)),--module $(MODULE_DIR)/tests/$$(cat $(LINUX_DIR)/$(LINUX)/release)/ghcb_free.ko) \
		$(if $(FIO),--folder $(LINUX_DIR)/fio) $(if $(filter-out usual stress,$(WORK)),--folder tests/linux/work) --output $(LINUX_DIR)/$(LINUX)/initrd-pool
	@$(if $(FIO),gzip -nf $(LINUX_DIR)/$(LINUX)/initrd-pool && mv $(LINUX_DIR)/$(LINUX)/initrd-pool.gz $(LINUX_DIR)/$(LINUX)/initrd-pool)

# The first kernel's initrd holds the second kernel, that one's initrd, and what loads them; and what holds memory of a low window.
NEXT_INITRD = $(RUNNER) initrd --init tests/linux/init --busybox $(LINUX_DIR)/busybox --mark $(LINUX_DIR)/mark --modules $(LINUX_DIR)/$(LINUX)/modules \
	--folder tests/linux/work $(if $(USES_MODULE),--module $(MODULE_DIR)/$$(cat $(LINUX_DIR)/$(LINUX)/release)/svsm_swiotlb.ko)
linux-next: linux-kernel $(if $(USES_MODULE),module $(if $(LOW_WINDOW),test-modules))
	@rm -rf $(NEXT_DIR) && mkdir -p $(NEXT_DIR)/next
	@gcc -O2 -Wall -Wextra -static -s -o $(NEXT_DIR)/next/next_kernel tests/linux/next_kernel.c
	@cp $(LINUX_DIR)/$(LINUX)/vmlinuz $(NEXT_DIR)/next/
	@$(NEXT_INITRD) --output $(NEXT_DIR)/next/initrd
	@$(NEXT_INITRD) $(if $(USES_MODULE),$(if $(LOW_WINDOW),--module $(MODULE_DIR)/tests/$$(cat $(LINUX_DIR)/$(LINUX)/release)/map_test.ko)) \
		--folder $(NEXT_DIR) --output $(LINUX_INITRD)-next

linux-igvm: linux-kernel $(if $(USES_MODULE),linux-initrd) $(if $(LATER),linux-next) ## Pack the paravisor with that kernel
	@mkdir -p $(IMAGES)
	@$(BUILDER) --paravisor $(BARE)/paravisor --payload "$(or $(KERNEL),$(LINUX_DIR)/$(LINUX)/vmlinuz)" \
		--initrd "$(or $(INITRD),$(LINUX_INITRD)$(if $(LATER),-next))" --cmdline "$(strip $(LINUX_WORDS))" --output $(LINUX_IGVM) \
		$(IMAGE_OPTIONS)

ovmf: setup-qemu firmware-images linux-kernel $(if $(LATER),linux-next) $(if $(FIRMWARE),,ovmf-image) ## Boot stock OVMF at VMPL2, and a stock Linux kernel from a disk by it
	@mkdir -p $(IMAGES)
	@$(FIRMWARE_DIR)/release/igvm-builder --paravisor $(FIRMWARE_DIR)/$(NONE)/release/paravisor --payload "$(or $(FIRMWARE),$(OVMF_DIR)/OVMF.fd)" \
		--output $(OVMF_IGVM) $(IMAGE_OPTIONS)
	@$(FIRMWARE_DIR)/release/runner boot-disk --kernel "$(or $(KERNEL),$(LINUX_DIR)/$(LINUX)/vmlinuz)" --initrd "$(or $(INITRD),$(if $(LATER),$(LINUX_INITRD)-next,$(LINUX_DIR)/$(LINUX)/initrd))" \
		--cmdline "$(strip $(if $(LATER),$(filter-out svsm.devices=%,$(LINUX_WORDS)),$(LINUX_ARGS) $(CMDLINE)) svsm.devices=$(or $(DEVICES),blk))" --output $(OVMF_DISK)
	@$(FIRMWARE_DIR)/release/runner linux --igvm $(OVMF_IGVM) --host $(BARE)/snp-host --disk $(OVMF_DISK) --devices $(or $(DEVICES),blk) \
		--memory $(MEM) --vcpus $(or $(VCPUS),1) --usual-timeout $(if $(LATER),1800,900) --usual-idle $(if $(LATER),300,120) --report $(REPORT) \
		$(if $(INITRD),--own-initrd) $(if $(LATER),--driver $(DRIVER)) $(CRASH_CPUS) $(RUNFLAGS)

ovmf-image: ## Fetch Debian's OVMF (not installed)
	@scripts/ovmf.sh $(OVMF_DIR)

# Features move addresses, so these are other binaries of the same names; what they are linked from is shared.
firmware-images: images ## Build the paravisor that lies beside firmware, and its tools
	@mkdir -p $(FIRMWARE_DIR)/release $(FIRMWARE_DIR)/$(NONE)/release
	@$(BARE_BUILD) -p paravisor --bin paravisor --features beside-firmware
	@$(CARGO) build --release --quiet -p igvm-builder -p runner --bins --features igvm-builder/beside-firmware,runner/beside-firmware
	@cp $(BARE)/paravisor $(FIRMWARE_DIR)/$(NONE)/release/
	@cp $(BUILDER) $(RUNNER) $(FIRMWARE_DIR)/release/
	@$(MAKE) --no-print-directory images

module: module-package ## Build svsm_swiotlb.ko for KDIR=/lib/modules/RELEASE/build, or for a fetched series (LINUX=6.12)
	@$(if $(or $(KDIR),$(filter %amd64,$(LINUX))),,[ -e $(LINUX_DIR)/$(LINUX)/release ] || scripts/linux-kernel.sh $(LINUX) $(LINUX_DIR))
	@headers="$(or $(KDIR),$$(scripts/linux-headers.sh $(LINUX) $(LINUX_DIR)))" && scripts/linux-module.sh $(MODULE_DIR)/package $(MODULE_DIR) $$headers

test-modules: ## Build map_test.ko and map_bench.ko, which test and measure the module in a guest (for KDIR or LINUX as above)
	@$(if $(KDIR),,[ -e $(LINUX_DIR)/$(LINUX)/release ] || scripts/linux-kernel.sh $(LINUX) $(LINUX_DIR))
	@headers="$(or $(KDIR),$$(scripts/linux-headers.sh $(LINUX) $(LINUX_DIR)))" && scripts/linux-module.sh tests/linux/modules $(MODULE_DIR)/tests $$headers

module-object: setup ## Build the Rust part of the module, and check it: code, relocations, stack
	@scripts/setup.sh rust-src
	@$(CARGO) build --release --quiet -p module-object
	@$(HOST)/module-object build --target-dir $(MODULE_DIR)/rust --output $(MODULE_DIR)/object --features linked-platform
	@$(CARGO) run --quiet -p guest-shim-c --example stack_use -- $(MODULE_DIR)/object/svsm_swiotlb_shim.o_shipped >$(MODULE_DIR)/stack.txt || \
		{ grep 'TOO MUCH' $(MODULE_DIR)/stack.txt >&2; exit 1; }

# One folder, as the kernel's build system wants it; make dkms packs the same.
module-package: module-object
	@rm -rf $(MODULE_DIR)/package && mkdir -p $(MODULE_DIR)/package
	@cp $(wildcard guest-shim/linux/*.[ch]) guest-shim/linux/Kbuild guest-shim/c-interface/include/svsm_swiotlb.h $(MODULE_DIR)/object/* $(MODULE_DIR)/package/

dkms: module-package ## Pack the module's sources for DKMS, as a tarball and as a package of Debian
	@scripts/dkms-package.sh $(MODULE_DIR)/package $(DKMS_DIR) $(VERSION)

test-dkms: dkms ## Install those in a clean root of Debian 13 with the headers of LINUX=6.12
	@[ -e $(LINUX_DIR)/$(LINUX)/release ] || scripts/linux-kernel.sh $(LINUX) $(LINUX_DIR)
	@scripts/test-dkms.sh $(DKMS_DIR) $(VERSION) $(LINUX) $(LINUX_DIR)

soak: setup-qemu igvm linux-igvm disk ## Boot again and again: SOAK_BOOTS times the small guest, SOAK_LINUX times Linux
	@scripts/soak.sh $(TARGET_DIR) $(SOAK_BOOTS) $(SOAK_LINUX) $(DRIVER) $(SOAK_VCPUS)

# The images are built twice, by the same names (firmware-images).
.NOTPARALLEL:

test: setup-qemu test-host test-loom test-qemu ## Every test: unit, property and model tests, then the images on QEMU

# In one build: each other set of features would be one more of nearly everything. Not bare-metal, which is for another target, nor
# beside-firmware, which moves addresses, nor qemu.
TEST_FEATURES := guest-shim/virtio,guest-shim/transport,guest-shim-c/linked-platform,snp/instructions,snp-model/machine
test-host: setup ## The tests that need no QEMU
	@$(CARGO) test --workspace --features $(TEST_FEATURES)
	@$(CARGO) test -p igvm-builder --features beside-firmware --test firmware

test-loom: ## What CPUs share in the shim, the service and the paravisor, in every order of accesses
	@RUSTFLAGS='--cfg loom' CARGO_TARGET_DIR=$(TARGET_DIR)/loom $(CARGO) test --release -p guest-shim --lib loom_tests
	@RUSTFLAGS='--cfg loom' CARGO_TARGET_DIR=$(TARGET_DIR)/loom $(CARGO) test --release -p svsm-swiotlb --test loom
	@RUSTFLAGS='--cfg loom' CARGO_TARGET_DIR=$(TARGET_DIR)/loom $(CARGO) test --release -p paravisor --test loom

test-qemu: setup-qemu igvm linux-kernel firmware-images ovmf-image ## The tests that boot the images on QEMU
	@for series in 7 6.1; do scripts/linux-kernel.sh $$series $(LINUX_DIR) || exit; done
	@for series in 6.12 7; do $(MAKE) --no-print-directory LINUX=$$series KDIR= module test-modules || exit; done
	@SVSM_SWIOTLB_IMAGES=$(TARGET_DIR) $(CARGO) test -p integration --features qemu --test qemu -- --test-threads=2

# What the interpreter can do in minutes: the allocator, the checks of misuse, the copies; the models with small windows.
MIRI := CARGO_TARGET_DIR=$(TARGET_DIR)/miri $(CARGO) +nightly miri test
miri: ## Protocol, service, shim and models under Miri (needs the nightly toolchain with the miri component)
	@$(CARGO) +nightly miri --version >/dev/null 2>&1 || { echo 'miri: not there; rustup component add --toolchain nightly miri rust-src' >&2; exit 2; }
	@MIRIFLAGS='-Zmiri-ignore-leaks' $(MIRI) -p snp -p protocol -p svsm-swiotlb --lib
	@MIRIFLAGS='-Zmiri-disable-isolation' $(MIRI) -p snp-model --lib --features machine
	@MIRIFLAGS='-Zmiri-disable-isolation' $(MIRI) -p reference-model
	@MIRIFLAGS='-Zmiri-permissive-provenance -Zmiri-ignore-leaks' $(MIRI) -p guest-shim --lib -- allocator:: misuse shared_memory
	@MIRIFLAGS='-Zmiri-permissive-provenance -Zmiri-disable-isolation -Zmiri-disable-stacked-borrows' \
		$(MIRI) -p fuzz --test hammer --test threads --test random
	@MIRIFLAGS='-Zmiri-permissive-provenance -Zmiri-disable-isolation' $(MIRI) -p fuzz --test handles --test false_answers --test corpus

# Of the shim against its model, and of the service against the reference model.
FUZZ := $(CARGO) +nightly fuzz run --fuzz-dir libfuzzer --target-dir $(TARGET_DIR)/fuzz/build
FUZZ_SERVICE := decode calls hostile_host machine
fuzz: ## Fuzz shim and service against their models, each target for SECONDS=60 (needs nightly and cargo-fuzz)
	@$(CARGO) +nightly fuzz --version >/dev/null 2>&1 || { echo 'fuzz: not there; cargo install cargo-fuzz' >&2; exit 2; }
	@mkdir -p $(TARGET_DIR)/fuzz/seeds $(TARGET_DIR)/fuzz/found
	@cd tests/fuzz && $(CARGO) run --quiet -p fuzz --example replay bytes corpus/*.ops && mv corpus/*.bytes $(TARGET_DIR)/fuzz/seeds/
	@cd tests/fuzz && $(FUZZ) pool $(TARGET_DIR)/fuzz/found $(TARGET_DIR)/fuzz/seeds \
		-- -rss_limit_mb=4000 -len_control=0 -max_len=1200 -max_total_time=$(SECONDS) -print_final_stats=1
	@for target in $(FUZZ_SERVICE); do \
		mkdir -p $(TARGET_DIR)/fuzz/found_$$target && (cd tests/fuzz && $(FUZZ) $$target $(TARGET_DIR)/fuzz/found_$$target \
			../reference-model/corpus/$$target -- -max_len=800 -len_control=0 -max_total_time=$(SECONDS) -print_final_stats=1) || exit; done

language-level: ## Build the service's crates with Rust 1.88, which rustup fetches
	@scripts/language-level.sh $(TARGET_DIR)/language-level

bench: setup ## Measure the shim beside limits and other allocators; PEERS="a.so b.so" adds shared objects
	@$(CARGO) run --release --quiet -p bench -- --output $(REPORT)/bench $(foreach so,$(PEERS),--peer $(so))

bench-quick: setup ## The same with fewer sizes and rounds
	@$(CARGO) run --release --quiet -p bench -- --quick --output $(REPORT)/bench $(foreach so,$(PEERS),--peer $(so))

bench-operations: setup ## The operations one by one, by criterion
	@$(CARGO) bench --quiet -p bench

bench-instructions: setup ## The costs in instructions, under valgrind
	@$(CARGO) run --release --quiet -p bench --bin bench-instructions

# Code 2: Rust 1.88 is not to be had here, which has been said. The level is then not checked; that is no fault of the source.
lint: setup lint-source ## Formatting, clippy on every target, source rules, language level
	@scripts/language-level.sh $(TARGET_DIR)/language-level || [ $$? -eq 2 ]
	@$(CARGO) fmt --all --check
	@$(CARGO) clippy --quiet --workspace --all-targets --features integration/qemu -- -D warnings
	@for bin in $(IMAGE_BINS); do \
		$(CARGO) clippy --quiet --target $(NONE) --features bare-metal -p $$bin --bin $$bin -- -D warnings || exit; done
	@$(CARGO) clippy --quiet -p snp -p protocol -p svsm-swiotlb -p guest-shim -p guest-shim-c -p foreign-paravisor --lib --target $(NONE) -- -D warnings
	@$(CARGO) clippy --quiet -p guest-shim-c --features linked-platform --lib --tests -- -D warnings
	@echo 'lint: ok'

lint-source:
	@scripts/check-source.sh
	@scripts/check-clauses.sh
	@scripts/check-references.sh

header: ## Write the C header from the Rust sources
	@$(CARGO) run --quiet -p guest-shim-c --example generate_header

fmt: ## Format the sources
	@$(CARGO) fmt --all

doc: ## Build the API documentation
	@RUSTDOCFLAGS='-D warnings' $(CARGO) doc --workspace --no-deps --quiet

qemu-snp: igvm ## List what this host lacks to run it on real SEV-SNP hardware (docs/HARDWARE.md), or boot the same IGVM file
	@scripts/qemu-snp.sh $(IGVM) $(MEM) $(DISK)

clean: ## Remove everything that was built
	@$(CARGO) clean
