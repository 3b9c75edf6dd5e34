#!/usr/bin/env bash
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# qemu-snp.sh IGVM MEM [DISK]: starts the IGVM file on a real SEV-SNP host whose KVM and QEMU know
# VMPLs. Elsewhere it lists what is missing, with the remedy, and exits 2.
set -euo pipefail

igvm=$1 mem=$2 disk=${3:-}
missing=()
need() { missing+=("$1"); }

grep -q '^vendor_id.*AuthenticAMD' /proc/cpuinfo || need "an AMD EPYC processor (Milan or later)"
[ -c /dev/sev ] || need "/dev/sev: enable SEV-SNP in the BIOS and load the ccp driver"
[ "$(cat /sys/module/kvm_amd/parameters/sev_snp 2>/dev/null)" = Y ] || need "KVM with SEV-SNP: boot Linux 6.11 or later and load kvm_amd with sev_snp=1"
[ -w /dev/kvm ] || need "/dev/kvm, writable by you: join the group kvm"
if ! command -v qemu-system-x86_64 >/dev/null; then
    need "qemu-system-x86_64, built with IGVM (10.1 or later)"
else
    qemu-system-x86_64 -object help 2>/dev/null | grep -q igvm-cfg || need "QEMU with IGVM support (10.1 or later, object igvm-cfg)"
    qemu-system-x86_64 -machine q35,help 2>/dev/null | grep -q device-plane ||
        need "QEMU and KVM that run VMPL2 under VMPL0 (machine property device-plane: the Coconut-SVSM branches, or KVM planes once merged)"
fi
if [ "${#missing[@]}" -ne 0 ]; then
    echo "qemu-snp: this host cannot run $igvm; it lacks:" >&2
    printf '  - %s\n' "${missing[@]}" >&2
    echo "qemu-snp: 'make run' boots the same file on an emulated SNP machine" >&2
    exit 2
fi

drive=()
[ -n "$disk" ] && drive=(-drive "if=none,id=d0,file=$disk,format=raw,readonly=on" -device virtio-blk-pci,drive=d0,disable-legacy=on,iommu_platform=on)
exec qemu-system-x86_64 -accel kvm -cpu EPYC-v4 -nodefaults -vga none -nographic -no-reboot -smp 1 \
    -machine q35,confidential-guest-support=sev0,memory-backend=ram1,igvm-cfg=igvm0,kernel-irqchip=split,device-plane=2 \
    -object "memory-backend-memfd,id=ram1,size=${mem/iB/},share=true,prealloc=false,reserve=false" \
    -object sev-snp-guest,id=sev0,cbitpos=51,reduced-phys-bits=1 \
    -object "igvm-cfg,id=igvm0,file=$igvm" -serial stdio "${drive[@]}"
