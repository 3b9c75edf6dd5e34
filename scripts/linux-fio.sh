#!/usr/bin/env bash
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# linux-fio.sh FOLDER: provides fio and the tools of ext4 from Debian 13, with the libraries that they load, as a tree
# for an initrd in FOLDER/fio (debian-archive.sh says how they come).
# Does nothing where it is there. Every refusal is one line with the cause and the remedy.
set -euo pipefail

REMEDY='or do without fio (make linux WORK=stress)'
. "$(dirname "$0")/debian-archive.sh"

fail() {
    echo "linux-fio: $*" >&2
    exit 2
}

[ $# -eq 1 ] || fail "usage: linux-fio.sh FOLDER"
folder=$1
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
place=$folder/fio
[ -d "$place" ] && exit 0
archive_lock "$folder"
[ -d "$place" ] && exit 0
archive_read "$folder/fio-archive" "debian trixie" "debian-security trixie-security"
archive_has fio || fail "the archive has no fio; $REMEDY"

staging=$(mktemp -d "$folder/staging.XXXXXX")
trap 'rm -rf "$staging"' EXIT
root=$staging/root tree=$staging/tree
# Of what apt would install, what can hold a library.
mapfile -t packages < <(archive_closure fio e2fsprogs | grep -E '^(lib|zlib|fio$|e2fsprogs$)' | grep -v '^libpython')
[ ${#packages[@]} -gt 2 ] ||
    fail "apt cannot tell what fio of Debian 13 needs ($(grep -oE '^E: .*' "$archive_log" | tail -n 1)); $REMEDY"
archive_unpack_all "$root" "${packages[@]}"

libraries=$root/usr/lib/x86_64-linux-gnu
loader=$libraries/ld-linux-x86-64.so.2
mkdir -p "$tree/usr/bin" "$tree/usr/sbin" "$tree/etc" "$tree/lib/x86_64-linux-gnu" "$tree/lib64"
for program in usr/bin/fio usr/sbin/mke2fs usr/sbin/e2fsck; do
    # Ceph's have a folder of their own.
    list=$("$loader" --library-path "$libraries:$libraries/ceph" --list "$root/$program" 2>&1) && ! grep -q "not found" <<<"$list" ||
        fail "$program lacks a library ($(tail -n 1 <<<"$list")); remove $folder/fio-archive and try again, $REMEDY"
    sed -n 's/.* => \(.*\) (.*/\1/p' <<<"$list" | grep -vF "$loader" | xargs cp -Lt "$tree/lib/x86_64-linux-gnu"
    cp "$root/$program" "$tree/$program"
done
cp -L "$loader" "$tree/lib64/"
cp "$root/etc/mke2fs.conf" "$tree/etc/"
mv "$tree" "$place"
echo "linux-fio: fio $(apt-cache "${apt_options[@]}" show fio | sed -n 's/^Version: //p' | head -n 1) is ready" >&2
