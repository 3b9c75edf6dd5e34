#!/usr/bin/env bash
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# linux-kernel.sh SERIES FOLDER: provides Debian's newest cloud kernel of a series (6.12, 7, ...) in
# FOLDER/SERIES (vmlinuz, modules, release) and a static busybox in FOLDER. The packages come from
# the archive through apt, with its signatures checked, and are unpacked, never installed: the lists
# are private to FOLDER, so no root is needed and the machine's own apt stays as it is.
# Does nothing where all is there. Every refusal is one line with the cause and the remedy.
set -euo pipefail

REMEDY='or pass a kernel and an initrd of your own (make linux KERNEL=bzImage INITRD=file)'
MIRROR=${DEBIAN_MIRROR:-http://deb.debian.org}
KEYRING=/usr/share/keyrings/debian-archive-keyring.gpg

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

for program in apt-get apt-cache dpkg-deb xz; do
    command -v $program >/dev/null ||
        fail "$program is missing, it fetches Debian's kernel; install it (Debian: apt, dpkg, xz-utils), $REMEDY"
done
[ -r $KEYRING ] || fail "$KEYRING is missing, it proves that packages are Debian's; install debian-archive-keyring, $REMEDY"
# Two runs at once would share the lists.
exec 9>"$folder/lock"
flock 9
[ -s "$place/release" ] && [ -s "$folder/busybox" ] && exit 0

lists=$folder/apt
mkdir -p "$lists/lists/partial" "$lists/cache/archives/partial"
for source in "debian bookworm" "debian-security bookworm-security" "debian-security trixie-security" "debian trixie-backports"; do
    echo "deb [arch=amd64 signed-by=$KEYRING] $MIRROR/${source% *} ${source#* } main"
done >"$lists/sources.list"
options=(-o "Dir::Etc::sourcelist=$lists/sources.list" -o Dir::Etc::sourceparts=- -o "Dir::State::lists=$lists/lists"
    -o "Dir::Cache=$lists/cache" -o APT::Architecture=amd64 -o APT::Sandbox::User=root -o Acquire::Retries=3
    -o Acquire::Languages=none)

echo "linux-kernel: reading Debian's package lists ($MIRROR)" >&2
apt-get "${options[@]}" -qq update >"$folder/apt.log" 2>&1 && ! grep -qE '^(E|W): Failed' "$folder/apt.log" ||
    fail "the package lists cannot be had from $MIRROR ($(grep -m1 -oE '^[EW]: .*' "$folder/apt.log" || echo no message)); check the network, set DEBIAN_MIRROR, $REMEDY"

# Packs come and go with each security update, so the newest of the series is asked for, not one version.
version=$(apt-cache "${options[@]}" pkgnames linux-image- | sed -n 's/^linux-image-\([0-9].*\)-cloud-amd64$/\1/p' |
    grep -E "^${series//./\\.}\.[0-9]" | sort -V | tail -n 1 || true)
[ -n "$version" ] || fail "the archive has no cloud kernel of series $series; choose another one (make: LINUX=6.12), $REMEDY"
release=$version-cloud-amd64
# Up to 6.18 one package has it all, later ones are split.
packages=(busybox-static)
for part in image binary modules; do
    name=linux-$part-$release
    apt-cache "${options[@]}" show "$name" >/dev/null 2>&1 && packages+=("$name")
done

staging=$(mktemp -d "$folder/staging.XXXXXX")
trap 'rm -rf "$staging"' EXIT
for package in "${packages[@]}"; do
    size=$(apt-cache "${options[@]}" show "$package" | sed -n 's/^Size: //p' | head -n 1)
    echo "linux-kernel: fetching $package ($((size / 1000)) kB)" >&2
    (cd "$lists/cache" && apt-get "${options[@]}" -qq download "$package") >>"$folder/apt.log" 2>&1 ||
        fail "$package cannot be fetched ($(grep -oE '^E: .*' "$folder/apt.log" | tail -n 1)); check the network and the free space of $folder, $REMEDY"
    archive=$(find "$lists/cache" -maxdepth 1 -name "${package}_*.deb" | sort -V | tail -n 1)
    dpkg-deb -x "$archive" "$staging" || fail "$archive cannot be unpacked; check the free space of $folder"
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
find "$lists/cache" -name '*.deb' -delete
# Written last: it says that the rest is complete.
echo "$release" >"$place/release"
echo "linux-kernel: $release is ready" >&2
