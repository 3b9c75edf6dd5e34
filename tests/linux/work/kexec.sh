# SPDX-License-Identifier: MIT OR Apache-2.0
#
# Sourced by init for svsm.work=kexec and svsm.work=kdump, before the devices are looked at: this kernel starts another one,
# /next/vmlinuz with /next/initrd, on demand or by a crash. The other one does the usual work, is told
# svsm.work=after-kexec or after-kdump, and makes all the marks. svsm.crash_cpu=N says on which CPU the crash is (0),
# svsm.crash_cpus=N how many the other kernel may have then (1). Where there is a low window, map_test.ko holds memory of it.
# Needs what init defines (bounced, expected, failed, present, say, statistic).

kexec_work() { # kexec|kdump
    local cpu=0 cpus=1 load=$driver word words= disk how=load tries=0
    for word in $(cat /proc/cmdline); do
        case $word in
        svsm.crash_cpu=*) cpu=${word#*=} ;;
        svsm.crash_cpus=*) cpus=${word#*=} ;;
        svsm.load=*) load=${word#*=} ;;
        svsm.work=*) words="$words svsm.work=after-$1" ;;
        # None of them is the next kernel's.
        crashkernel=* | BOOT_IMAGE=* | initrd=*) ;;
        *) words="$words $word" ;;
        esac
    done
    # As the kernel's own documentation has it; interrupts that were in flight have no handler.
    [ "$1" = kexec ] || words="$words nr_cpus=$cpus irqpoll reset_devices" how=crash
    # Under firmware a kernel looks for an initrd in a table of the first kernel's EFI stub, whose memory has been used since, unless
    # it was told of one (docs/LINUX-GUEST.md). The loader's initrd goes before this one, so nobody reads it.
    [ -d /sys/firmware/efi ] && words="$words initrdmem=4096,4096"
    /next/next_kernel $how /next/vmlinuz /next/initrd "${words# }" 2>/tmp/error || {
        failed kexec "$(head -n 1 /tmp/error)"
        return
    }
    # Large requests, so that the pool grows, and the crash comes while they are in flight. Not without the pool: a crash beside the
    # kernel's own conversions can end the first kernel (docs/LINUX-GUEST.md): svsm.load=pool has it there, too.
    for disk in vda nvme0n1; do
        [ "$load" = pool ] && [ -b /dev/$disk ] || continue
        while :; do dd if=/dev/$disk of=/dev/null bs=4M iflag=direct 2>/dev/null; done &
    done
    while [ "$driver" = pool ] && [ "$(statistic granted_bytes)" -le 2097152 ] && [ $tries -lt 100 ]; do
        tries=$((tries + 1))
        usleep 100000
    done
    if [ "$driver" = pool ] && [ "$(statistic low_window_bytes)" != 0 ]; then
        insmod /lib/modules/map_test.ko low=1 2>/tmp/error || failed map_test "$(head -n 1 /tmp/error)"
        say "said $1: granted of the low window $(statistic low_granted_bytes)"
    fi
    [ "$driver" = pool ] && say "said $1: granted $(statistic granted_bytes)"
    say "said $1: on CPU $cpu of $(cat /sys/devices/system/cpu/online)"
    # What the next kernel looks for in the memory of this one (vmcore.sh).
    hostname left-by-the-first-kernel
    if [ "$1" = kexec ]; then
        /next/next_kernel start 2>/tmp/error
    else
        taskset -c "$cpu" sh -c 'echo c >/proc/sysrq-trigger' 2>/tmp/error
    fi
    failed kexec "it came back: $(head -n 1 /tmp/error)"
}
