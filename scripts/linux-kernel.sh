#!/usr/bin/env bash
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# linux-kernel.sh SERIES FOLDER: provides Debian's newest cloud kernel of a series (6.12, 7, ...) in
# FOLDER/SERIES (vmlinuz, modules, release) and a static busybox in FOLDER (debian-archive.sh says how).
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
[[ $series =~ ^[0-9]+(\.[0-9]+)*$ ]] || fail "'$series' is no kernel series; write 6.12 or 7 (make: LINUX=)"
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
place=$folder/$series
[ -s "$place/release" ] && [ -s "$folder/busybox" ] && exit 0
archive_lock "$folder"
[ -s "$place/release" ] && [ -s "$folder/busybox" ] && exit 0
archive_read "$folder" "debian bookworm" "debian-security bookworm-security" "debian-security trixie-security" "debian trixie-backports"

# Packs come and go with each security update, so the newest of the series is asked for, not one version.
version=$(apt-cache "${apt_options[@]}" pkgnames linux-image- | sed -n 's/^linux-image-\([0-9].*\)-cloud-amd64$/\1/p' |
    grep -E "^${series//./\\.}\.[0-9]" | sort -V | tail -n 1 || true)
[ -n "$version" ] || fail "the archive has no cloud kernel of series $series; choose another one (make: LINUX=6.12), $REMEDY"
release=$version-cloud-amd64
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
