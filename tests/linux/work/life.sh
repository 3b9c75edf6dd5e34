# SPDX-License-Identifier: MIT OR Apache-2.0
#
# Sourced by init for svsm.work=life: the module is loaded twice, loaded wrongly, unloaded and loaded again, with its
# devices bound, unbound and busy. Each step is a line `said life: STEP ok`, or `failed` and why. Needs what init defines
# (say, pool, present, statistic). /lib/modules/svsm_swiotlb-stale.ko is the module of another kernel.

drivers='virtio-pci nvme'
. /loads.sh
subject=life

load() { # PARAMETER...
    insmod $module "$@" 2>/tmp/error || echo "it does not load: $(head -n 1 /tmp/error)"
}
unload() {
    local wrong
    wrong=$(rmmod svsm_swiotlb 2>&1)
    [ -n "$wrong" ] && echo "$wrong" && return
    [ -d $pool ] && echo 'its statistics stay'
}
# The PCI devices that have one of the drivers.
bound() {
    local driver
    for driver in $drivers; do
        (cd "/sys/bus/pci/drivers/$driver" && ls -d 0000:*)
    done 2>/dev/null
}
unbind() {
    local device
    for device in $(bound); do
        echo "$device" >"/sys/bus/pci/devices/$device/driver/unbind"
    done
}
bind() { # DEVICE...
    local device
    for device in "$@"; do
        echo "$device" >/sys/bus/pci/drivers_probe
    done
    present vda && present nvme0n1 || echo 'a disk does not come back'
}
life_work() {
    local devices count before granted
    devices=$(bound)
    count=$(echo "$devices" | wc -l)
    before=$(contents vda nvme0n1)

    refused second-load 'File exists' '' $module
    step unload-while-bound "$(rmmod svsm_swiotlb 2>/dev/null && echo 'it is unloaded')"
    step devices-before "$([ "$(statistic devices)" = "$count" ] || echo "$(statistic devices) of $count")"
    ifconfig eth0 down
    unbind
    step devices-unbound "$([ "$(statistic devices)" = 0 ] || echo "$(statistic devices) stay")"
    step nothing-in-use "$([ "$(statistic used_bytes)" = 0 ] || echo "$(statistic used_bytes) bytes are")"
    # Its memory goes back while it is unloaded: the next one finds nothing of it.
    step unload "$(unload)"

    refused no-such-protocol 'No such device' 'no pool: this SVSM has no service at protocol 0x40000009' $module protocol=0x40000009
    refused no-such-protocol-by-msr 'No such device' 'no pool: this SVSM has no service at protocol 0x40000009' $module protocol=0x40000009 path=msr
    refused no-such-path 'Invalid argument' 'write auto, memory or msr' $module path=phone
    refused no-such-rebind 'Invalid argument' 'write idle or never' $module rebind=always
    refused odd-cap 'Invalid argument' 'write a multiple of 2M' $module cap=3M
    refused no-size 'Invalid argument' '' $module cap=much
    refused cap-beyond-the-hard-one 'Invalid argument' 'cap=1073741824 may be more than the paravisor allows' $module cap=1G
    refused stale-module 'invalid module format' 'version magic' /lib/modules/svsm_swiotlb-stale.ko

    look
    step load-again "$(load)"
    step no-orphans "$(look; grep -o 'bytes of an earlier kernel.*' /tmp/new)"
    granted=$(statistic granted_bytes)
    step first-grant "$([ "$granted" = 2097152 ] || echo "$granted bytes")"
    # shellcheck disable=SC2086
    step devices-again "$(bind $devices; [ "$(statistic devices)" = "$count" ] || echo "$(statistic devices) of $count")"
    step contents-again "$([ "$(contents vda nvme0n1)" = "$before" ] || echo 'a disk reads otherwise')"
    step cap-at-run-time "$(echo 16M >/sys/module/svsm_swiotlb/parameters/cap || echo 'it is refused')"
    step odd-cap-at-run-time "$(echo 3M 2>/dev/null >/sys/module/svsm_swiotlb/parameters/cap && echo 'it is accepted')"
    step cap-stays "$([ "$(cat /sys/module/svsm_swiotlb/parameters/cap)" = 16777216 ] || cat /sys/module/svsm_swiotlb/parameters/cap)"
    unbind
    step unload-again "$(unload)"

    # The kernel's own way, with one disk open and one idle.
    # shellcheck disable=SC2086
    step kernels-own-way "$(bind $devices)"
    step contents-own-way "$([ "$(contents vda nvme0n1)" = "$before" ] || echo 'a disk reads otherwise')"
    exec 3</dev/vda
    look
    step load-when-busy "$(load devices=nvme,virtio-pci)"
    step busy-is-left "$(told 'in use by virtio-pci, keeps the kernel'\''s own way')"
    step idle-is-taken "$(grep -q 'released from nvme to be attached again' /tmp/new || echo 'NVMe is not taken')"
    exec 3<&-
    step contents-side-by-side "$(present nvme0n1; [ "$(contents vda nvme0n1)" = "$before" ] || echo 'a disk reads otherwise')"
    unbind
    step unload-third "$(unload)"
    step load-never "$(load rebind=never devices=nvme)"
    # shellcheck disable=SC2086
    step devices-by-name "$(bind $devices; [ "$(statistic devices)" = 1 ] || echo "$(statistic devices) devices")"
    if grep -q disk /sys/power/state; then
        look
        step hibernation "$(echo disk 2>/dev/null >/sys/power/state && echo 'it is not refused'; told 'hibernation is refused')"
    fi
    say 'said life: done'
}
