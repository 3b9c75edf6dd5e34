# SPDX-License-Identifier: MIT OR Apache-2.0
#
# Sourced by init for svsm.work=scarce: a disk is read in pieces of 1 MiB while a module for tests leaves 512 KiB of what is
# granted. Where there is no more, maps fail, and the read waits until the module lets go. Where there is a disk at the AHCI
# controller, it is read besides: its driver does not repeat without end.
# Needs what init defines (failed, finished, say, statistic, verdict).

# The beginning of the AHCI disk, as one request: it has fewer pieces than the controller takes (168 pages).
BEGINNING=640

# What a read of that in blocks of so many KiB came to.
read_beginning() { # KIB
    dd if=/dev/sda bs="$1k" count=$((BEGINNING / $1)) iflag=direct 2>/tmp/error.sda | md5sum >/tmp/now.sda
    # Not the numbers of records.
    if ! grep -v records /tmp/error.sda | sed -n 's/^dd: .*: //p' | grep .; then
        verdict read /tmp/error.sda /tmp/now.sda /tmp/sum.sda
    fi
}

hold() { # KIB-THAT-STAY-FREE
    insmod /lib/modules/map_test.ko leave="$1" 2>/tmp/error || failed map_test "$(head -n 1 /tmp/error)"
}
let_go() { rmmod map_test 2>/tmp/error || failed map_test "$(head -n 1 /tmp/error)"; }

scarce_work() {
    local fails='no map fails' before
    # In small pieces, for which there is room.
    dd if=/dev/vda bs=64k iflag=direct 2>/dev/null | md5sum >/tmp/sum.scarce
    dd if=/dev/sda bs=64k count=$((BEGINNING / 64)) iflag=direct 2>/dev/null | md5sum >/tmp/sum.sda
    hold 512
    if [ -b /dev/sda ]; then
        say "said scarce: sda as a whole: $(read_beginning $BEGINNING)"
        say "said scarce: sda in pieces: $(read_beginning 64)"
    fi
    before=$(statistic failures)
    dd if=/dev/vda bs=1M iflag=direct 2>/tmp/error.scarce | md5sum >/tmp/now.scarce &
    while kill -0 $! 2>/dev/null; do
        if [ "$(statistic failures)" != "$before" ]; then
            fails='maps fail'
            break
        fi
        usleep 100000
    done
    say "said scarce: $fails"
    let_go
    finished $! || failed scarce 'the read does not end when there is room again'
    say "said scarce: $(verdict read /tmp/error.scarce /tmp/now.scarce /tmp/sum.scarce)"
    if [ -b /dev/sda ]; then
        say "said scarce: sda as a whole: $(read_beginning $BEGINNING)"
    fi
}
