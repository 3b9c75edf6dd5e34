#!/usr/bin/env bash
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# linux-kernel.sh SERIES FOLDER: provides Debian's newest cloud kernel of a series (6.12, 7, ...) in
# FOLDER/SERIES (vmlinuz, modules, release) and a static busybox in FOLDER (debian-archive.sh says how).
# SERIES may name the Debian release that the kernel was built for and the flavour (6.12+deb12, 7-amd64), or all of it
# (6.12.117+deb12-cloud-amd64).
# Does nothing where all is there. Every refusal is one line with the cause and the remedy.
set -euo pipefail

REMEDY='or pass a kernel and an initrd of your own (make linux KERNEL=bzImage INITRD=file)'
. "$(dirname "$0")/debian-archive.sh"

fail() {
    echo "linux-kernel: $*" >&2
    exit 2
}

[ $# -eq 2 ] || fail "usage: linux-kernel.sh SERIES FOLDER"
series=$1 folder=$2
[[ $series =~ ^([0-9]+(\.[0-9]+)*(-[0-9]+)?)(\+deb[0-9]+)?(-(cloud-)?amd64)?$ ]] ||
    fail "'$series' is no kernel series; write 6.12, 7, 6.12+deb12 or 6.12-amd64 (make: LINUX=)"
# Kernels of Debian 12 itself have no such ending.
[ -n "${BASH_REMATCH[4]}" ] && optional= || optional='?'
number=${BASH_REMATCH[1]} debian=${BASH_REMATCH[4]:-+deb[0-9]+} flavour=${BASH_REMATCH[5]:--cloud-amd64}
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
place=$folder/$series
[ -s "$place/release" ] && [ -s "$folder/busybox" ] && exit 0
archive_lock "$folder"
[ -s "$place/release" ] && [ -s "$folder/busybox" ] && exit 0
archive_read "$folder" "debian bookworm" "debian-security bookworm-security" "debian bookworm-backports" "debian-security trixie-security" "debian trixie-backports"

# Packs come and go with each security update, so the newest of the series is asked for, not one version.
# A name with less than three numbers stands for another package.
version=$(apt-cache "${apt_options[@]}" pkgnames linux-image- | sed -n "s/^linux-image-\([0-9]*\.[0-9]*\.[0-9].*\)$flavour\$/\1/p" |
    grep -E "^${number//./\\.}([.-][0-9]+)*(${debian/+/\\+}[.0-9]*)$optional\$" | sort -V | tail -n 1 || true)
[ -n "$version" ] || fail "the archive has no ${flavour#-} kernel of series $series; choose another one (make: LINUX=6.12), $REMEDY"
release=$version$flavour
# Up to 6.18 one package has it all, later ones are split.
packages=(busybox-static)
for part in image binary modules; do
    name=linux-$part-$release
    apt-cache "${apt_options[@]}" show "$name" >/dev/null 2>&1 && packages+=("$name")
done

staging=$(mktemp -d "$folder/staging.XXXXXX")
trap 'rm -rf "$staging"' EXIT
for package in "${packages[@]}"; do
    archive_unpack "$package" "$staging"
done

kernel=$(find "$staging" -name "vmlinuz*" -type f -size +1M | head -n 1)
modules=$(find "$staging" -type d -path "*/lib/modules/$release/kernel" | head -n 1)
busybox=$(find "$staging" -path '*/bin/busybox' -type f | head -n 1)
[ -n "$kernel" ] && [ -n "$modules" ] && [ -n "$busybox" ] ||
    fail "the packages of $release lack a kernel, its modules or busybox; choose another series (make: LINUX=6.12), $REMEDY"
rm -rf "$place"
mkdir "$place"
mv "$kernel" "$place/vmlinuz"
mv "$modules" "$place/modules"
mv "$busybox" "$folder/busybox"
# Written last: it says that the rest is complete.
echo "$release" >"$place/release"
echo "linux-kernel: $release is ready" >&2
