# SPDX-License-Identifier: MIT OR Apache-2.0
#
# Sourced by init for svsm.work=scarce: a disk is read in pieces of 1 MiB while a module for tests leaves 512 KiB of what is
# granted. Where there is no more, maps fail, and the read waits until the module lets go.
# Needs what init defines (failed, finished, say, statistic, verdict).

scarce_work() {
    local fails='no map fails'
    # In small pieces, for which there is room.
    dd if=/dev/vda bs=64k iflag=direct 2>/dev/null | md5sum >/tmp/sum.scarce
    insmod /lib/modules/map_test.ko leave=512 2>/tmp/error || failed map_test "$(head -n 1 /tmp/error)"
    dd if=/dev/vda bs=1M iflag=direct 2>/tmp/error.scarce | md5sum >/tmp/now.scarce &
    while kill -0 $! 2>/dev/null; do
        if [ "$(statistic failures)" != 0 ]; then
            fails='maps fail'
            break
        fi
        usleep 100000
    done
    say "said scarce: $fails"
    rmmod map_test 2>/tmp/error || failed map_test "$(head -n 1 /tmp/error)"
    finished $! || failed scarce 'the read does not end when there is room again'
    say "said scarce: $(verdict read /tmp/error.scarce /tmp/now.scarce /tmp/sum.scarce)"
}
