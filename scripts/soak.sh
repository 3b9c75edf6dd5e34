#!/usr/bin/env bash
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# soak.sh TARGET BOOTS LINUX_BOOTS DRIVER [VCPUS]: boots the small guest and Linux many times in a row, in turns with
# 1 and 2 vCPUs, RMP entries of 2 MiB and 4 KiB, and QEMU's two thread modes; or always with VCPUS vCPUs, of which
# each has its thread. A line for each boot; stops at the first failure and says where its logs are. The small guest moves its disks through the pool, without
# the self-test, so that a boot is what takes the time.
set -euo pipefail

[ $# -eq 4 ] || [ $# -eq 5 ] || { echo 'soak: usage: soak.sh TARGET BOOTS LINUX_BOOTS DRIVER [VCPUS]' >&2; exit 2; }
target=$1 boots=$2 linux_boots=$3 driver=$4 fixed_vcpus=${5:-}
for count in "$boots" "$linux_boots" "${fixed_vcpus:-1}"; do
    [[ $count =~ ^[0-9]+$ ]] || { echo "soak: '$count' is no count (make: SOAK_BOOTS=, SOAK_LINUX=, SOAK_VCPUS=)" >&2; exit 2; }
done
images=$target/images
logs=$target/soak
rm -rf "$logs"
mkdir -p "$logs"
dd if="$images/disk.img" of="$logs/disk.img" bs=1M count=8 status=none
"$target/release/igvm-builder" --paravisor "$target/x86_64-unknown-none/release/paravisor" --cmdline mode=disk --window 64MiB \
    --payload "$target/x86_64-unknown-none/release/test-guest" --output "$logs/small.igvm" >/dev/null

boot() { # COMMAND IMAGE NUMBER COUNT MEMORY OPTION...
    local command=$1 image=$2 number=$3 count=$4 memory=$5 start=$SECONDS
    shift 5
    local vcpus=$((1 + number % 2)) rmp=2m threads=multi
    [ $((number / 2 % 2)) -eq 1 ] && rmp=4k
    [ $((number / 4 % 2)) -eq 1 ] && threads=single
    [ -n "$fixed_vcpus" ] && vcpus=$fixed_vcpus threads=multi
    local how="$vcpus vCPU, RMP $rmp, $threads thread"
    if ! "$target/release/runner" "$command" --igvm "$image" --host "$target/x86_64-unknown-none/release/snp-host" \
        --disk "$logs/disk.img" --memory "$memory" --vcpus $vcpus --rmp $rmp --tcg-thread $threads \
        --timeout 600 --idle 120 --quiet --keep "$logs/last" --report "$logs/last" "$@" >"$logs/last.log" 2>&1; then
        cat "$logs/last.log" >&2
        echo "soak: $command boot $((number + 1)) of $count ($how) failed; its logs are in $logs/last" >&2
        exit 1
    fi
    echo "soak: $command boot $((number + 1)) of $count: $how, $((SECONDS - start)) s"
    rm -rf "$logs/last"
}

for ((number = 0; number < boots; number++)); do
    boot run "$logs/small.igvm" $number "$boots" 256MiB
done
for ((number = 0; number < linux_boots; number++)); do
    boot linux "$images/linux.igvm" $number "$linux_boots" 1GiB --driver "$driver"
done
rm -rf "$logs"
echo "soak: $boots boots of the small guest and $linux_boots of Linux, no failure"
