#!/usr/bin/env bash
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# qemu-snp.sh IGVM MEM [DISK]: lists what this host has of what the image needs (the first part of docs/HARDWARE.md), and
# boots the IGVM file where nothing is missing. Elsewhere it exits 2.
set -euo pipefail

igvm=$1 mem=$2 disk=${3:-}
qemu=${QEMU:-qemu-system-x86_64}
lacks=0

# One line of the list. What is missing has its remedy behind it.
have() { printf '  yes  %s\n' "$1" >&2; }
note() { printf '   ?   %s\n' "$1" >&2; }
need() {
    printf '  NO   %s: %s\n' "$1" "$2" >&2
    lacks=$((lacks + 1))
}
flag() { grep -qw "$1" <(grep -m1 '^flags' /proc/cpuinfo); }

echo "qemu-snp: what this host has (docs/HARDWARE.md says more)" >&2

model=$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)
if flag sev_snp; then
    have "processor with SEV-SNP: $model"
else
    need "processor with SEV-SNP ($model)" "an AMD EPYC 7003 (Milan) or later, SEV-SNP on in the BIOS, and a kernel built with CONFIG_AMD_MEM_ENCRYPT"
fi

if [ -c /dev/sev ]; then
    have "secure processor: /dev/sev"
    version=$(dmesg 2>/dev/null | grep -o 'SEV-SNP API:.*' | tail -n 1) || true
    note "its firmware: ${version:-not in the kernel log that you may read (dmesg | grep SEV-SNP)}"
else
    need "secure processor: /dev/sev" "load ccp; memory for the RMP table is reserved in the BIOS ('SNP memory coverage')"
fi

if [ "$(cat /sys/module/kvm_amd/parameters/sev_snp 2>/dev/null)" = Y ]; then
    have "KVM with SEV-SNP: Linux $(uname -r)"
else
    need "KVM with SEV-SNP" "Linux 6.11 or later with CONFIG_KVM_AMD_SEV, kvm_amd loaded with sev_snp=1"
fi
if [ -w /dev/kvm ]; then
    have "/dev/kvm, writable"
else
    need "/dev/kvm, writable" "load kvm_amd and join the group kvm"
fi

planes="the branches 'svsm' of github.com/coconut-svsm, until KVM planes are merged"
if ! version=$("$qemu" --version 2>/dev/null); then
    need "$qemu" "QEMU 10.1 or later built with --enable-igvm (QEMU= names it)"
else
    version=$(head -n 1 <<<"$version")
    if "$qemu" -object help 2>/dev/null | grep -q igvm-cfg; then
        have "QEMU that loads IGVM files: $version"
    else
        need "QEMU that loads IGVM files ($version)" "10.1 or later built with --enable-igvm (QEMU= names it)"
    fi
    # The property is the machine's own, so only the general help lists it; '-machine q35,help' does not.
    if ! "$qemu" -h 2>/dev/null | grep -q 'device-plane='; then
        need "QEMU with planes" "$planes (qemu)"
    else
        have "QEMU with planes"
        # Stopped before its first instruction, it stays until it is ended; without planes it says so and is gone.
        if said=$(timeout 5 "$qemu" -accel kvm -machine q35,kernel-irqchip=split,device-plane=2 -display none -nodefaults -S 2>&1); [ $? -eq 124 ]; then
            have "KVM with planes, which run VMPL2 under VMPL0"
        else
            need "KVM with planes" "$planes (linux); QEMU said: $(head -n 1 <<<"$said")"
        fi
    fi
fi

if [ "$lacks" -ne 0 ]; then
    echo "qemu-snp: this host cannot run $igvm; 'make run' boots the same file on an emulated SNP machine" >&2
    exit 2
fi

drive=()
[ -n "$disk" ] && drive=(-drive "if=none,id=d0,file=$disk,format=raw,readonly=on" -device virtio-blk-pci,drive=d0,disable-legacy=on,iommu_platform=on)
exec "$qemu" -accel kvm -cpu EPYC-v4 -nodefaults -vga none -nographic -no-reboot -smp "${VCPUS:-1}" \
    -machine q35,confidential-guest-support=sev0,memory-backend=ram1,igvm-cfg=igvm0,kernel-irqchip=split,device-plane=2 \
    -object "memory-backend-memfd,id=ram1,size=${mem/iB/},share=true,prealloc=false,reserve=false" \
    -object sev-snp-guest,id=sev0,cbitpos=51,reduced-phys-bits=1 \
    -object "igvm-cfg,id=igvm0,file=$igvm" -serial stdio "${drive[@]}"
