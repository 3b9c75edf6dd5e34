#!/usr/bin/env bash
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# linux-debug-kernel.sh FOLDER: builds a kernel that watches itself (tests/linux/debug.config) from Debian 13's source of
# 6.12, in FOLDER/debug, which becomes a root to change into, with Debian 13's compiler and all that the build needs.
# Puts vmlinuz and release there; an empty folder modules stands for the kernel's own. Prints `KDIR ROOT`, as
# linux-headers.sh does. Does nothing where all is there and the configuration is the same.
# The first build takes minutes, 230 MB to fetch and 3 GB of space. Every refusal is one line with the cause and the remedy.
set -euo pipefail

REMEDY='or do without this kernel; no other target needs it'
. "$(dirname "$0")/debian-archive.sh"

SOURCE=linux-source-6.12
compiler=x86_64-linux-gnu-gcc-14

fail() {
    echo "linux-debug: $*" >&2
    exit 2
}

[ $# -eq 1 ] || fail "usage: linux-debug-kernel.sh FOLDER"
fragment=$(cd "$(dirname "$0")/.." && pwd)/tests/linux/debug.config
place=$1/debug
mkdir -p "$place"
place=$(cd "$place" && pwd)
kdir=/usr/src/$SOURCE tree=$place/usr/src/$SOURCE
answer() {
    echo "$kdir $place"
    exit
}
is_complete() { [ -e "$place/release" ] && cmp -s "$fragment" "$place/config"; }
is_complete && answer
archive_lock "$place"
is_complete && answer
unshare -rm true 2>/dev/null ||
    fail "the compiler of Debian 13 runs in $place, which takes user namespaces; allow them (sysctl kernel.unprivileged_userns_clone=1), $REMEDY"

if ! [ -e "$place/complete-root" ]; then
    archive_read "$place/archive" "debian trixie" "debian-security trixie-security"
    tools=(gcc-14-x86-64-linux-gnu libc6-dev binutils make dash coreutils diffutils sed grep mawk findutils gzip bc flex bison perl-base libelf-dev)
    archive_closure "${tools[@]}" >"$place/packages"
    mapfile -t packages <"$place/packages"
    [ ${#packages[@]} -ge ${#tools[@]} ] ||
        fail "apt cannot tell what gcc-14 of Debian 13 needs ($(grep -oE '^E: .*' "$archive_log" | tail -n 1)); $REMEDY"
    archive_unpack_all "$place" "$SOURCE" "${packages[@]}"
    # What maintainer scripts would do: the merged /usr, and the one alternative that is used.
    for name in bin sbin lib lib64; do ln -sfn usr/$name "$place/$name"; done
    ln -sfn mawk "$place/usr/bin/awk"
    mkdir -p "$place/dev" "$place/proc" "$place/tmp" "$place/build"
    tar -xJf "$tree.tar.xz" -C "$place/usr/src" || fail "$tree.tar.xz cannot be unpacked; check the free space of $place"
    rm "$tree.tar.xz"
    # Modules are built with the same compiler, and nobody passes its name then.
    sed -i -E "s/^((HOST)?CC[[:space:]]*= ).*gcc\$/\1$compiler/" "$tree/Makefile"
    # The first #VC of an SEV-ES guest comes before KASAN has its shadow, and its handler decodes an instruction: what it
    # runs for that must not ask KASAN. This kernel does not say so, and no such guest starts with KASAN.
    for file in arch/x86/lib/insn arch/x86/lib/inat arch/x86/mm/maccess mm/maccess; do
        echo "KASAN_SANITIZE_${file##*/}.o := n" >>"$tree/${file%/*}/Makefile"
    done
    touch "$place/complete-root"
fi

rm -rf "$place/release" "$place/config" "$place/modules"
log=$place/build.log
# The tools of the root see the root alone. gcc needs /dev/null, objtool /proc.
inside() { # COMMAND...
    # shellcheck disable=SC2016 # expanded by the inner shell
    unshare -rm sh -c 'mount --rbind /dev "$0/dev" && mount --rbind /proc "$0/proc" && exec chroot "$0" "$@"' "$place" \
        env -i PATH=/usr/bin:/bin HOME=/ LC_ALL=C "$@"
}
build() { # ARGUMENT...
    inside make -C "$kdir" -j"$(nproc)" "$@" >>"$log" 2>&1 ||
        fail "the build failed ($(grep -m1 -E 'error|\*\*\*' "$log" || tail -n 1 "$log")); the rest is in $log"
}
: >"$log"
cp "$fragment" "$tree/debug.config"
build KCONFIG_ALLCONFIG=debug.config allnoconfig
# What an option needs is not asked for, so one that lacks something vanishes without a word.
while read -r line; do
    grep -qxF "$line" "$tree/.config" || fail "$line of $fragment is not what the kernel has; what it depends on is missing"
done < <(grep '^CONFIG_' "$fragment")
echo "linux-debug: building the kernel, which takes minutes ($log)" >&2
started=$SECONDS
build bzImage modules
release=$(<"$tree/include/config/kernel.release")
cp "$tree/arch/x86/boot/bzImage" "$place/vmlinuz"
mkdir "$place/modules"
cp "$tree/debug.config" "$place/config"
# Written last: it says that the rest is complete.
echo "$release" >"$place/release"
echo "linux-debug: $release is ready, built in $((SECONDS - started)) s" >&2
answer
