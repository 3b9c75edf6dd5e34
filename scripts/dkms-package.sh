#!/usr/bin/env bash
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# dkms-package.sh PACKAGE OUTPUT VERSION: packs the folder PACKAGE (make module lays it out) for DKMS, as
# OUTPUT/svsm-swiotlb-VERSION-dkms.tar.gz (to be unpacked below /usr/src) and as a package of Debian. The same sources
# make the same bytes. Every refusal is one line with the cause and the remedy.
set -euo pipefail

fail() {
    echo "dkms: $*" >&2
    exit 2
}

[ $# -eq 3 ] || fail "usage: dkms-package.sh PACKAGE OUTPUT VERSION"
package=$1 output=$2 version=$3
sources=$(cd "$(dirname "$0")/.." && pwd)
name=svsm-swiotlb
[ -n "$(find "$package" -name '*.c' -print -quit)" ] || fail "$package holds no C sources; this tree is not complete"
[ -s "$package/svsm_swiotlb_shim.o_shipped" ] && [ -s "$package/PROVENANCE" ] || fail "$package holds no Rust object; run 'make module-package'"

staging=$(mktemp -d)
trap 'rm -rf "$staging"' EXIT
deb=$staging/deb
folder=$deb/usr/src/$name-$version
mkdir -p "$folder" "$deb/DEBIAN" "$deb/usr/share/doc/$name-dkms"
cp "$package"/* "$sources/LICENSE-MIT" "$folder/"
sed "s/@VERSION@/$version/" "$sources/guest-shim/linux/dkms.conf.in" >"$folder/dkms.conf"
find "$deb" -type d -exec chmod 755 {} + -o -type f -exec chmod 644 {} +
# The commit's own time, so that packing again changes nothing.
SOURCE_DATE_EPOCH=$(git -C "$sources" log -1 --format=%ct 2>/dev/null || echo 0)
export SOURCE_DATE_EPOCH
mkdir -p "$output"
tarball=$output/$name-$version-dkms.tar.gz
tar -C "$deb/usr/src" --sort=name --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner -c "$name-$version" | gzip -9n >"$tarball"
echo "dkms: $tarball ($(stat -c %s "$tarball") bytes)"

command -v dpkg-deb >/dev/null || { echo "dkms: no dpkg-deb here, so no package of Debian" >&2; exit 0; }
cp "$sources/LICENSE-MIT" "$deb/usr/share/doc/$name-dkms/copyright"
cat >"$deb/DEBIAN/control" <<CONTROL
Package: $name-dkms
Version: $version
Architecture: amd64
Maintainer: svsm-swiotlb <https://github.com/svsm-swiotlb/svsm-swiotlb>
Section: kernel
Priority: optional
Depends: dkms (>= 3), gcc, make
Recommends: linux-headers-amd64 | linux-headers-cloud-amd64
Description: I/O memory for confidential guests from a pool that the service at VMPL0 owns
 Source of a kernel module that makes devices of an SEV-SNP guest bounce their data through a pool whose pages belong to
 the paravisor's svsm-swiotlb service. Its Rust part is an object; PROVENANCE says how it was made.
CONTROL
printf '#!/bin/sh\nset -e\n[ "$1" != configure ] || /usr/lib/dkms/common.postinst %s %s /usr/share/%s "" "$2"\n' $name "$version" $name >"$deb/DEBIAN/postinst"
printf '#!/bin/sh\nset -e\ncase $1 in remove | upgrade | deconfigure) dkms remove -m %s -v %s --all ;; esac\n' $name "$version" >"$deb/DEBIAN/prerm"
chmod 755 "$deb/DEBIAN/postinst" "$deb/DEBIAN/prerm"
archive=$output/$name-dkms_${version}_amd64.deb
dpkg-deb --root-owner-group --build "$deb" "$archive" >/dev/null || fail "dpkg-deb failed; check the free space of $output"
echo "dkms: $archive ($(stat -c %s "$archive") bytes)"
