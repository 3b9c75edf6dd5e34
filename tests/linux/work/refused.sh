# SPDX-License-Identifier: MIT OR Apache-2.0
#
# Sourced by init for svsm.work=refused: the module finds a machine on which it cannot be: first too little memory is free for its
# records, then its window is RAM to the kernel (memmap= says so). The devices are the kernel's own swiotlb's before and behind it.
# Needs what init defines (failed, pool, say).

. /loads.sh
subject=refused

free_kib() { sed -n 's/^MemFree: *\([0-9]*\) kB$/\1/p' /proc/meminfo; }

# Takes memory until this much is free: pages of a file system that are nowhere else, so that they cannot be dropped.
fill() { # KIB
    local free number=0
    mkdir -p /fill
    mount -t ramfs none /fill || failed fill 'no ramfs'
    while free=$(free_kib) && [ "$free" -gt "$1" ] && [ $number -lt 100 ]; do
        number=$((number + 1))
        dd if=/dev/zero of=/fill/$number bs=16k count=$(((free - $1) / 16 + 1)) 2>/dev/null
    done
}

refused_work() {
    local before
    before=$(contents vda)
    # Of a window of 1 GiB they take some 10 MiB. What the kernel keeps back must not count as free.
    echo 512 >/proc/sys/vm/min_free_kbytes
    fill 7168
    refused no-room-for-records 'Cannot allocate memory' 'no memory for ' $module
    umount /fill
    refused window-is-ram 'No such device or address' 'is RAM to this kernel; its memory map must reserve it' $module
    step disk-goes-on "$([ "$(contents vda)" = "$before" ] || echo 'it reads otherwise')"
    say 'said refused: done'
}
