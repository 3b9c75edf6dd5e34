# SPDX-License-Identifier: MIT OR Apache-2.0
#
# Sourced by init for svsm.work=nmi: the kernel asks its other CPUs by NMI where they are (sysrq l). A CPU that answers has a line
# of the log, `said nmi: CPU ok`; of one that is busy there is a backtrace besides. Needs what init defines (say).

nmi_work() {
    local cpu tries
    # On CPU 0, with CPU 1 busy in user space.
    taskset -c 1 sh -c 'while :; do :; done' &
    taskset -c 0 sh -c 'echo l >/proc/sysrq-trigger'
    for cpu in $(cd /sys/devices/system/cpu && ls -d cpu[1-9]*); do
        tries=0
        until dmesg | grep -q "NMI backtrace for cpu ${cpu#cpu}\$" || [ $tries = 50 ]; do
            tries=$((tries + 1))
            usleep 100000
        done
        if [ $tries = 50 ]; then say "said nmi: $cpu does not answer"; else say "said nmi: $cpu ok"; fi
    done
    kill $!
    say "said nmi: lost $(dmesg | grep -c 'NMI received for unknown reason')"
}
