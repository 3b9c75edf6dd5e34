# SPDX-License-Identifier: MIT OR Apache-2.0
#
# Sourced by init for svsm.work=hotplug: all CPUs but the first are taken off line and on line again, over and over, while the
# disks are read and the network is fetched from. svsm.cycles=N says how often (20). What happened is in lines
# `said hotplug: ...`, the first thing that failed in one of its own. A kernel takes a CPU off line once, and ends when it comes
# back from the second time (tests/linux/modules/ghcb_free.c), unless that module is loaded. Needs what init defines (expected, failed, finished, say,
# verdict).

cpus=/sys/devices/system/cpu
free=/sys/module/ghcb_free/parameters/cpu
# Reads a disk again and again until the CPUs are done.
load() { # DISK
    while [ ! -e /tmp/hotplug.done ]; do
        dd if="/dev/$1" bs=256k iflag=direct 2>"/tmp/error.$1" | md5sum >"/tmp/now.$1"
        verdict read "/tmp/error.$1" "/tmp/now.$1" "/tmp/sum.$1" >>"/tmp/hotplug.$1"
    done
}
fetch() {
    while [ ! -e /tmp/hotplug.done ]; do
        timeout 60 wget -q -O /tmp/now.net http://10.0.2.100/ 2>/dev/null && : >/tmp/error.net || echo error >/tmp/error.net
        verdict fetch /tmp/error.net /tmp/now.net /tmp/fetched >>/tmp/hotplug.net
    done
}
# Whether a CPU got where it was to be.
switch() { # CPU 0|1
    echo "$2" 2>/tmp/error >"$cpus/$1/online" && [ "$(cat "$cpus/$1/online")" = "$2" ]
}

hotplug_work() {
    local cycles=20 cycle cpu word disk jobs= done=0 all
    for word in $(cat /proc/cmdline); do
        case $word in svsm.cycles=*) cycles=${word#*=} ;; esac
    done
    all=$(cat $cpus/online)
    for disk in $(cd /sys/block && echo vda nvme0n1); do
        [ -b "/dev/$disk" ] || continue
        dd if="/dev/$disk" bs=64k iflag=direct 2>/dev/null | md5sum >"/tmp/sum.$disk"
        load "$disk" &
        jobs="$jobs $!"
    done
    if expected net; then
        fetch &
        jobs="$jobs $!"
    fi
    while [ $done -lt "$cycles" ]; do
        for cpu in $(cd $cpus && ls -d cpu[1-9]*); do
            switch "$cpu" 0 || break 2
            [ ! -e $free ] || echo "${cpu#cpu}" >$free
            switch "$cpu" 1 || break 2
        done
        done=$((done + 1))
        say "said hotplug: cycle $done"
    done
    : >/tmp/hotplug.done
    for job in $jobs; do
        finished "$job" || say 'said hotplug: the load stalls'
    done
    [ $done = "$cycles" ] || say "said hotplug: $cpu in cycle $((done + 1)) failed $(head -n 1 /tmp/error)"
    say "said hotplug: cycles $done of $cycles"
    say "said hotplug: online $(cat $cpus/online) of $all"
    sort /tmp/hotplug.vda /tmp/hotplug.nvme0n1 /tmp/hotplug.net 2>/dev/null | uniq -c |
        while read -r cycle word; do say "said hotplug: load $word $cycle"; done
    dmesg | sed -n 's/^\[[^]]*\] //; /do_boot_cpu failed\|clear VMSA\|leaking page\|failed to report dead/s/^/linux: said hotplug: kernel /p' |
        sort | uniq -c | while read -r cycle word; do echo "$word ($cycle)"; done
}
