# SPDX-License-Identifier: MIT OR Apache-2.0
#
# Sourced by the scripts that have the module loaded (life.sh, refused.sh): one line for each step, and loads that are refused.
# Needs what init defines (pool, say).

module=/lib/modules/svsm_swiotlb.ko
# What the lines begin with.
subject=

step() { # NAME WHY-NOT
    if [ -n "$2" ]; then
        say "said $subject: $1 failed $2"
    else
        say "said $subject: $1 ok"
    fi
}
# The kernel's lines since the last look.
seen=0
look() {
    dmesg | tail -n +$((seen + 1)) >/tmp/new
    seen=$(dmesg | wc -l)
}
# Whether one of them says so; else what they say.
told() { # TEXT
    look
    grep -qF "$1" /tmp/new || echo "the log does not say '$1': $(grep svsm /tmp/new | tail -n 2 | tr '\n' ' ')"
}

# Whether the module's own line is one, and nothing of the kernel's is about a fault. The kernel says of itself that a module is
# not its own, and which parameter is refused. Busybox tries a load that fails a second time, in another way.
one_line() {
    local lines
    lines=$(grep 'svsm_swiotlb\|Call Trace\|Out of memory' /tmp/new | grep -v 'tain\|invalid for parameter' | sed 's/^\[[^]]*\] //' | uniq)
    [ "$(echo "$lines" | wc -l)" = 1 ] || echo "not one line: $(echo "$lines" | head -n 4 | tr '\n' ' ')"
}

# A load that ends with an error of insmod and, if it is given, one line of the log; nothing of it stays.
refused() { # STEP ERROR TEXT FILE PARAMETER...
    local name=$1 error=$2 text=$3
    shift 3
    look
    if insmod "$@" 2>/tmp/error; then
        step "$name" 'it loads'
        rmmod svsm_swiotlb
    elif ! grep -qF "$error" /tmp/error; then
        step "$name" "not '$error': $(head -n 1 /tmp/error)"
    elif [ "$name" != second-load ] && [ -d $pool ]; then
        step "$name" 'something of it stays'
    else
        step "$name" "${text:+$(told "$text"; one_line)}"
    fi
}

contents() { # DISK...
    local disk
    for disk in "$@"; do
        dd if="/dev/$disk" bs=1M iflag=direct 2>/dev/null | md5sum
    done
}
