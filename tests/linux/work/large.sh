# SPDX-License-Identifier: MIT OR Apache-2.0
#
# Sourced by init for svsm.work=large: requests of 2, 16 and 128 MiB in one piece, by a module for tests. Needs what init
# defines (failed, said_by, say).

large_work() {
    say "said large: max_segment_size $(cat /sys/block/vda/queue/max_segment_size)"
    echo 131072 >/sys/block/vda/queue/max_sectors_kb || failed large 'the disk takes no requests of 128 MiB'
    insmod /lib/modules/map_test.ko disk=1 2>/tmp/error || failed map_test "$(head -n 1 /tmp/error)"
    said_by map_test
}
