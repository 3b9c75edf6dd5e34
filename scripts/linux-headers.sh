#!/usr/bin/env bash
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# linux-headers.sh SERIES FOLDER: provides the headers of a Debian kernel, and the compiler it was built with.
# SERIES is what linux-kernel.sh takes; the headers are those of the release in FOLDER/SERIES/release if that is there.
# They come into FOLDER/deb13 or FOLDER/deb12, by the Debian release that the kernel was built for. deb13 is a root
# to change into, with gcc, make and the C library of Debian 13; for deb12 the machine's own compiler serves.
# Prints `KDIR` (headers), or `KDIR ROOT` with KDIR as seen inside ROOT. Does nothing where all is there.
# Every refusal is one line with the cause and the remedy.
set -euo pipefail

REMEDY='or build against installed headers (make module KDIR=/lib/modules/RELEASE/build)'
. "$(dirname "$0")/debian-archive.sh"

fail() {
    echo "linux-headers: $*" >&2
    exit 2
}

[ $# -eq 2 ] || fail "usage: linux-headers.sh SERIES FOLDER"
series=$1 folder=$2
[[ $series =~ ^[0-9]+(\.[0-9]+)*(-[0-9]+)?(\+deb[0-9]+)?(-[a-z0-9-]+)?$ ]] ||
    fail "'$series' is no kernel series; write 6.12, 7 or a release such as 6.12.117+deb12-amd64 (make: LINUX=)"
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
if [ -s "$folder/$series/release" ]; then
    release=$(<"$folder/$series/release")
elif [[ $series =~ -(cloud-)?amd64$ ]]; then
    release=$series
else
    fail "which release of $series is meant is not known: $folder/$series/release is missing; run 'make linux-kernel LINUX=$series' first"
fi
# Debian's own names: 6.1.0-57-cloud-amd64, 6.12.118+deb13-cloud-amd64.
case $release in
*+deb12* | 6.1.0-*) place=$folder/deb12 suites=("debian bookworm" "debian-security bookworm-security" "debian bookworm-backports") ;;
*+deb13*) place=$folder/deb13 suites=("debian trixie" "debian-security trixie-security" "debian trixie-backports") ;;
*) fail "$release is no kernel of Debian 12 or 13; choose another series (make: LINUX=6.12), $REMEDY" ;;
esac
version=${release%-amd64}
version=${version%-cloud}
answer() {
    case $place in
    */deb13) echo "/usr/src/linux-headers-$release $place" ;;
    *) echo "$place/usr/src/linux-headers-$release" ;;
    esac
    exit
}
done_mark=$place/complete-$release
[ -e "$done_mark" ] && answer
mkdir -p "$place"
archive_lock "$place"
[ -e "$done_mark" ] && answer

archive_read "$place/archive" "${suites[@]}"
kbuild=linux-kbuild-$version
[[ $release == 6.1.0-* ]] && kbuild=linux-kbuild-6.1
for package in "linux-headers-$release" "linux-headers-$version-common" "$kbuild"; do
    archive_has "$package" ||
        fail "the archive has no $package (any more); remove $folder/$series and run 'make linux-kernel' to get the newest kernel, $REMEDY"
    packages+=("$package")
done
if [[ $place == */deb13 ]] && ! [ -e "$place/complete-root" ]; then
    # What kbuild and its tools run; the closure is taken by apt as on an empty machine.
    tools=(gcc-14-x86-64-linux-gnu binutils make dash coreutils sed grep mawk findutils pahole libelf1t64 libssl3t64)
    archive_closure "${tools[@]}" >"$place/packages"
    mapfile -t -O ${#packages[@]} packages <"$place/packages"
    [ ${#packages[@]} -gt $((3 + ${#tools[@]})) ] ||
        fail "apt cannot tell what gcc-14 of Debian 13 needs ($(grep -oE '^E: .*' "$archive_log" | tail -n 1)); $REMEDY"
fi
# Flavours share packages.
touch "$place/unpacked"
mapfile -t packages < <(printf '%s\n' "${packages[@]}" | grep -vxFf "$place/unpacked")
archive_unpack_all "$place" "${packages[@]}"
printf '%s\n' "${packages[@]}" >>"$place/unpacked"
if [[ $place == */deb13 ]]; then
    # What maintainer scripts would do: the merged /usr, and the one alternative that is used.
    for name in bin sbin lib lib64; do ln -sfn usr/$name "$place/$name"; done
    ln -sfn mawk "$place/usr/bin/awk"
    mkdir -p "$place/dev" "$place/proc" "$place/tmp" "$place/build"
    touch "$place/complete-root"
else
    # The packages name their own places from the root.
    sed -i "s#\(include \|=\)/usr/#\1$place/usr/#" "$place/usr/src/linux-headers-$release/Makefile"
fi
touch "$done_mark"
echo "linux-headers: headers of $release are ready" >&2
answer
