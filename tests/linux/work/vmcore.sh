# SPDX-License-Identifier: MIT OR Apache-2.0
#
# Sourced by init in a kernel that a crash started: reads the memory of the kernel that crashed, /proc/vmcore. Its own note says
# where it kept its host name; that name is there (kexec.sh). With svsm.vmcore=all on the command line all of it is read.
# Needs what init defines (failed, say).

vmcore_work() {
    local core=/proc/vmcore count release at base type offset physical bytes place=
    [ -r $core ] || { failed vmcore "there is no $core"; return; }
    count=$(dd if=$core bs=2 skip=28 count=1 2>/dev/null | od -An -t u2 | tr -d ' ')
    # The first pages: headers of the file, and notes.
    dd if=$core of=/tmp/vmcore bs=4096 count=8 2>/dev/null
    release=$(sed -n 's/.*OSRELEASE=//p' /tmp/vmcore | head -n 1)
    at=$(sed -n 's/^SYMBOL(init_uts_ns)=/0x/p' /tmp/vmcore) base=$(sed -n 's/^NUMBER(phys_base)=//p' /tmp/vmcore)
    [ -n "$at" ] && [ -n "$base" ] || { failed vmcore "$core has no note of the kernel's"; return; }
    # The kernel's image is mapped at this address.
    at=$((at - 0xffffffff80000000 + base))
    while read -r type offset _ physical bytes _; do
        offset=$((0x$offset)) physical=$((0x$physical)) bytes=$((0x$bytes))
        [ $((0x$type & 0xffffffff)) = 1 ] && [ $((at >= physical && at < physical + bytes)) = 1 ] && place=$((offset + at - physical))
    done <<END
$(head -c $((64 + count * 56)) /tmp/vmcore | tail -c +65 | od -An -v -t x8 -w56)
END
    [ -n "$place" ] || { failed vmcore "$core has no page of $(printf %#x $at)"; return; }
    dd if=$core of=/tmp/vmcore bs=4096 skip=$((place / 4096)) count=2 2>/dev/null
    grep -q left-by-the-first-kernel /tmp/vmcore || { failed vmcore "the host name of the first kernel is not at $(printf %#x $at)"; return; }
    say "said vmcore: of $release, $(stat -c %s $core) bytes in $((count - 1)) pieces"
    case " $(cat /proc/cmdline) " in
    *' svsm.vmcore=all '*)
        dd if=$core of=/dev/null bs=64k 2>/tmp/error || failed vmcore "$(head -n 1 /tmp/error)"
        say "said vmcore: all of it is read: $(tail -n 1 /tmp/error)"
        ;;
    esac
}
