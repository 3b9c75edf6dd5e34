#!/usr/bin/env bash
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# ovmf.sh FOLDER: provides Debian's OVMF in FOLDER/OVMF.fd (debian-archive.sh says how). It is the one of
# trixie: that of bookworm knows no SVSM. The file is variables and code in one, 4 MiB, without Secure Boot.
# Does nothing where it is there. Every refusal is one line with the cause and the remedy.
set -euo pipefail

REMEDY='or pass an OVMF.fd of your own (make ovmf FIRMWARE=file)'
. "$(dirname "$0")/debian-archive.sh"

fail() {
    echo "ovmf: $*" >&2
    exit 2
}

[ $# -eq 1 ] || fail "usage: ovmf.sh FOLDER"
folder=$1
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
[ -s "$folder/OVMF.fd" ] && exit 0
archive_lock "$folder"
[ -s "$folder/OVMF.fd" ] && exit 0
archive_read "$folder" "debian trixie" "debian-security trixie-security"

staging=$(mktemp -d "$folder/staging.XXXXXX")
trap 'rm -rf "$staging"' EXIT
archive_unpack ovmf "$staging"
image=$(find "$staging" -path '*/ovmf/OVMF.fd' -type f | head -n 1)
[ -n "$image" ] || fail "the package has no OVMF.fd; $REMEDY"
mv "$image" "$folder/OVMF.fd"
echo "ovmf: OVMF $(apt-cache "${apt_options[@]}" show ovmf | sed -n 's/^Version: //p' | head -n 1) is ready" >&2
