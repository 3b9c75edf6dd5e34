# SPDX-License-Identifier: MIT OR Apache-2.0
#
# Sourced by init for svsm.work=kexec and svsm.work=kdump, before the devices are looked at: this kernel starts another one,
# /next/vmlinuz with /next/initrd, on demand or by a crash. The other one does the usual work, is told
# svsm.work=after-kexec or after-kdump, and makes all the marks. svsm.crash_cpu=N says on which CPU the crash is (0).
# Needs what init defines (bounced, expected, failed, present, say, statistic).

kexec_work() { # kexec|kdump
    local cpu=0 word words= disk how=load tries=0
    for word in $(cat /proc/cmdline); do
        case $word in
        svsm.crash_cpu=*) cpu=${word#*=} ;;
        svsm.work=*) words="$words svsm.work=after-$1" ;;
        # Neither is the crash kernel's, which has little memory and one CPU.
        crashkernel=* | BOOT_IMAGE=* | initrd=*) ;;
        *) words="$words $word" ;;
        esac
    done
    # As the kernel's own documentation has it; interrupts that were in flight have no handler.
    [ "$1" = kexec ] || words="$words maxcpus=1 irqpoll reset_devices" how=crash
    /next/next_kernel $how /next/vmlinuz /next/initrd "${words# }" 2>/tmp/error || {
        failed kexec "$(head -n 1 /tmp/error)"
        return
    }
    # Large requests, so that the pool grows, and the crash comes while they are in flight. Not without the pool: a crash beside the
    # kernel's own conversions can end the first kernel (docs/LINUX-GUEST.md).
    for disk in vda nvme0n1; do
        [ "$driver" = pool ] && [ -b /dev/$disk ] || continue
        while :; do dd if=/dev/$disk of=/dev/null bs=4M iflag=direct 2>/dev/null; done &
    done
    while [ "$driver" = pool ] && [ "$(statistic granted_bytes)" -le 2097152 ] && [ $tries -lt 100 ]; do
        tries=$((tries + 1))
        usleep 100000
    done
    [ "$driver" = pool ] && say "said $1: granted $(statistic granted_bytes)"
    say "said $1: on CPU $cpu of $(cat /sys/devices/system/cpu/online)"
    if [ "$1" = kexec ]; then
        /next/next_kernel start 2>/tmp/error
    else
        taskset -c "$cpu" sh -c 'echo c >/proc/sysrq-trigger' 2>/tmp/error
    fi
    failed kexec "it came back: $(head -n 1 /tmp/error)"
}
