# SPDX-License-Identifier: MIT OR Apache-2.0
#
# Sourced by init for svsm.work=fio: fio with verification on ext4, on virtio-blk and NVMe at once, from every CPU, while
# a file is fetched. First with room for the pool to grow, and time to give back; then with a cap that the work does not
# fit under, until it is done or waits; then, the cap lifted, all that was written is read again.
# The programs are called by their paths, since busybox's mke2fs cannot make ext4.
# Needs what init defines (say, failed, finished, stalled, statistic, verdict, write_marker). What came of a job is a `stress` line,
# PHASE-DISK-VERDICT.

disks='vdb nvme0n1'
cap=/sys/module/svsm_swiotlb/parameters/cap
# What the pool begins with, under which the work of all jobs together does not fit.
low_cap=2M
rounds=2

note() { say "said fio: $*; used=$(statistic used_bytes) peak=$(statistic peak_used_bytes) granted=$(statistic granted_bytes) growths=$(statistic growths) given-back=$(statistic given_back_bytes) failures=$(statistic failures)"; }

# One job for each CPU on one disk, each with a file of its own.
run_fio() { # PHASE DISK SEED OPTION...
    local phase=$1 disk=$2 seed=$3 cpu=0 jobs= output="/tmp/fio.$1.$2"
    shift 3
    while [ $cpu -lt "$cpus" ]; do
        jobs="$jobs --name=cpu$cpu --cpus_allowed=$cpu --filename=/mnt/$disk/cpu$cpu"
        cpu=$((cpu + 1))
    done
    # shellcheck disable=SC2086
    /usr/bin/fio --output="$output" --ioengine=libaio --direct=1 --iodepth=8 --rw=randwrite --bssplit=4k/20:16k/20:64k/20:256k/10:1m/10:4m/20 \
        --size=12m --randseed="$seed" --verify=crc32c --verify_fatal=1 --verify_state_save=0 "$@" $jobs >"$output.said" 2>&1
    verdicts "$output" "$phase-$disk" >>/tmp/stress.fio
    head -n 3 "$output.said" | sed 's/^/linux: said fio: /'
}

# A line for each job: right, or the number of its error.
verdicts() { # OUTPUT WHAT
    local found=0 error
    for error in $(sed -n 's/^cpu[0-9]*: .* err= *\([0-9]*\).*/\1/p' "$1"); do
        found=$((found + 1))
        [ "$error" = 0 ] && echo "$2-right" || echo "$2-error-$error"
    done
    while [ $found -lt "$cpus" ]; do
        found=$((found + 1))
        echo "$2-missing"
    done
}

# Bytes that the disks moved: init's own count has the network's, which goes on while a disk waits.
moved() { cat /sys/block/vd?/stat /sys/block/nvme?n?/stat | awk '{ sum += $3 + $7 } END { print sum }'; }

# While the jobs run.
fetch_meanwhile() {
    while [ -e /tmp/fio.runs ]; do
        timeout 60 wget -q -O /tmp/fetched.fio http://10.0.2.100/ 2>/dev/null && : >/tmp/error.net.fio || echo error >/tmp/error.net.fio
        verdict fetch /tmp/error.net.fio /tmp/fetched.fio /tmp/fetched >>/tmp/stress.fetch
    done
}

lift() { statistic window_bytes >$cap || failed fio-cap 'the module does not take it back'; }
# Drivers of disks repeat a request that cannot be mapped until it can. One that does not fit under the cap beside what
# the network holds waits until the cap is lifted, which is done when the disks move nothing any more.
lift_when_quiet() {
    local before=none now quiet=0
    while [ -e /tmp/fio.runs ]; do
        now=$(moved)
        [ "$now" = "$before" ] && quiet=$((quiet + 1)) || quiet=0
        before=$now
        if [ $quiet -ge 20 ]; then
            note 'a request waits at the cap'
            lift
            return
        fi
        usleep 500000
    done
}

# The jobs on both disks and the network at once.
all_at_once() { # PHASE SEED OPTION...
    local phase=$1 disk jobs= job
    shift
    : >/tmp/fio.runs
    fetch_meanwhile &
    local fetcher=$!
    [ "$phase" != cap ] || lift_when_quiet &
    local lifter=$!
    for disk in $disks; do
        run_fio "$phase" "$disk" "$@" &
        jobs="$jobs $!"
    done
    for job in $jobs; do
        finished "$job" || { stalled=1; failed "fio-$phase" 'nothing was moved for half a minute'; break; }
    done
    rm /tmp/fio.runs
    finished $fetcher && finished $lifter || stalled=1
    note "$phase done"
}

# Waits until the pool, which has grown since, has given back more than BEFORE.
gives_back() { # BEFORE GROWTHS
    local tries=0
    [ "$(statistic growths)" -gt "$2" ] || return
    while [ "$(statistic given_back_bytes)" -le "$1" ]; do
        tries=$((tries + 1))
        [ $tries -le 100 ] || { failed fio-give-back "nothing was given back in 20 s"; return; }
        usleep 200000
    done
    note 'given back'
}

fio_work() {
    local disk round=0 before growths
    cpus=$(grep -c '^processor' /proc/cpuinfo)
    for disk in $disks; do
        mkdir -p "/mnt/$disk"
        /usr/sbin/mke2fs -q -t ext4 "/dev/$disk" >/tmp/error 2>&1 && mount -t ext4 "/dev/$disk" "/mnt/$disk" 2>/tmp/error ||
            { failed fio-ext4 "$disk: $(tail -n 1 /tmp/error)"; return; }
    done
    note 'file systems are there'
    while [ $round -lt $rounds ] && [ -z "$stalled" ]; do
        round=$((round + 1))
        before=$(statistic given_back_bytes) growths=$(statistic growths)
        all_at_once room $round
        gives_back "$before" "$growths"
    done
    bounced room
    [ -z "$stalled" ] || return
    echo $low_cap >$cap || failed fio-cap 'the module does not take it'
    all_at_once cap 7
    bounced cap
    lift
    [ -z "$stalled" ] || return
    [ "$fault" = corrupt ] && printf wrong | dd of=/mnt/vdb/cpu0 bs=1 seek=5000000 conv=notrunc,fsync 2>/dev/null
    echo 3 >/proc/sys/vm/drop_caches
    all_at_once again 7 --verify_only
    [ -z "$stalled" ] || return
    for disk in $disks; do
        umount "/mnt/$disk" && /usr/sbin/e2fsck -fn "/dev/$disk" >/tmp/error 2>&1 && echo "fsck-$disk-right" || echo "fsck-$disk-wrong"
    done >>/tmp/stress.fio
    # The file system lay over it.
    write_marker
    cat /tmp/stress.fio /tmp/stress.fetch | sort | uniq -c | while read -r count what; do say "stress what=$what count=$count"; done
}
