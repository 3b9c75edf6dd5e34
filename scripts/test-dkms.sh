#!/usr/bin/env bash
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# test-dkms.sh DKMS VERSION SERIES FOLDER: installs what dkms-package.sh wrote to the folder DKMS as a user does, in a root
# of Debian 13 that holds the headers of SERIES, DKMS and what those need, unpacked from packages: the tarball by
# `dkms add, build, install`, then the package by dpkg. Passes when both end in a module for that kernel, with no
# warning, and removing them leaves none. Every refusal is one line with the cause and the remedy.
set -euo pipefail

REMEDY='or build in a Debian 13 machine of your own'
. "$(dirname "$0")/debian-archive.sh"

fail() {
    echo "test-dkms: $*" >&2
    exit 2
}

wrong() {
    echo "test-dkms: $*; the log is $log" >&2
    exit 1
}

[ $# -eq 4 ] || fail "usage: test-dkms.sh DKMS VERSION SERIES FOLDER"
dkms=$1 version=$2 series=$3 folder=$4
start=$SECONDS
read -r kdir base < <("$(dirname "$0")/linux-headers.sh" "$series" "$folder")
[ -n "${base:-}" ] || fail "the kernel of series $series is not one of Debian 13; choose another (make: LINUX=6.12)"
release=${kdir#/usr/src/linux-headers-}
folder=$(cd "$folder" && pwd)
[ -d "$folder/$series/modules" ] || fail "$folder/$series has no modules of that kernel; run 'make linux-kernel LINUX=$series' first"
place=$folder/deb13-dkms
log=$folder/test-dkms.log
unshare -rm true 2>/dev/null || fail "user namespaces are refused, a root of another Debian needs them; allow them (sysctl kernel.unprivileged_userns_clone=1), $REMEDY"

# The programs: fetched once, beside those of the compiler.
if ! [ -e "$place/complete" ]; then
    rm -rf "$place"
    mkdir -p "$place/tools"
    archive_lock "$place"
    archive_read "$base/archive" "debian trixie" "debian-security trixie-security" "debian trixie-backports"
    mapfile -t packages < <(archive_closure dkms gcc make bash diffutils gzip hostname gawk libc-bin | grep -vxFf "$base/packages")
    [ ${#packages[@]} -gt 10 ] || fail "apt cannot tell what dkms of Debian 13 needs ($(grep -oE '^E: .*' "$archive_log" | tail -n 1)); $REMEDY"
    archive_unpack_all "$place/tools" "${packages[@]}"
    touch "$place/complete"
fi
# A root nobody has installed anything in: hard links to what was unpacked.
root=$place/root
rm -rf "$root"
cp -al "$base" "$root"
rm -rf "$root/archive" "$root/build" "$root"/complete-*
cp -al "$place/tools/." "$root/" 2>/dev/null || cp -alf "$place/tools/usr/." "$root/usr/"
# One kernel, with its modules: without any, DKMS takes it for one that is gone.
find "$root/usr/lib/modules" -mindepth 1 -maxdepth 1 ! -name "$release" -exec rm -r {} +
mkdir -p "$root"/{dev,proc,tmp,root,etc/dkms,run,var/{lib/{dkms,dpkg/{info,updates,triggers}},log,tmp}} "$root/usr/lib/modules/$release"
cp -al "$folder/$series/modules" "$root/usr/lib/modules/$release/kernel"
touch "$root/var/lib/dpkg/status" "$root/usr/lib/modules/$release"/modules.{order,builtin,builtin.modinfo}
ln -sfn "$kdir" "$root/usr/lib/modules/$release/build"
echo 'root:x:0:0:root:/root:/bin/sh' >"$root/etc/passwd"
echo 'root:x:0:' >"$root/etc/group"
cp "$dkms/svsm-swiotlb-$version-dkms.tar.gz" "$dkms/svsm-swiotlb-dkms_${version}_amd64.deb" "$root/tmp/"

: >"$log"
inside() { # COMMAND...
    echo "+ $*" >>"$log"
    # shellcheck disable=SC2016 # expanded by the inner shell
    unshare -rm sh -c 'mount --rbind /dev "$0/dev" && mount --rbind /proc "$0/proc" && exec chroot "$0" "$@"' "$root" \
        env -i PATH=/usr/sbin:/usr/bin HOME=/root LC_ALL=C DEBIAN_FRONTEND=noninteractive "$@" >>"$log" 2>&1
}
installed() { find "$root/usr/lib/modules/$release/updates" -name 'svsm_swiotlb.ko*' 2>/dev/null | grep -q .; }
check() { # WHAT
    installed || wrong "$1: there is no module for $release"
    inside modinfo -k "$release" -F vermagic svsm_swiotlb || wrong "$1: modinfo does not find the module"
    tail -n 1 "$log" | grep -q "^$release " || wrong "$1: the module is for another kernel ($(tail -n 1 "$log"))"
    local build
    build=$(find "$root/var/lib/dkms/svsm-swiotlb" -name make.log | head -n 1)
    [ -n "$build" ] || wrong "$1: DKMS keeps no log of the build"
    ! grep -iE 'warning|^WARN' "$build" >>"$log" || wrong "$1: the build warned ($(tail -n 1 "$log"))"
}

# As the package of a kernel does.
inside depmod -a "$release" || wrong "depmod failed"
step=$SECONDS
inside tar -C /usr/src -xf "/tmp/svsm-swiotlb-$version-dkms.tar.gz" || wrong "the tarball cannot be unpacked"
inside dkms add "svsm-swiotlb/$version" || wrong "dkms add failed"
inside dkms build "svsm-swiotlb/$version" -k "$release" || wrong "dkms build failed"
inside dkms install "svsm-swiotlb/$version" -k "$release" || wrong "dkms install failed"
check tarball
inside dkms remove "svsm-swiotlb/$version" --all || wrong "dkms remove failed"
! installed || wrong "dkms remove leaves the module"
rm -r "$root/usr/src/svsm-swiotlb-$version"
# Its dependencies are unpacked, not registered.
inside dpkg --force-depends -i "/tmp/svsm-swiotlb-dkms_${version}_amd64.deb" || wrong "dpkg -i failed"
check package
inside dpkg --force-depends -P svsm-swiotlb-dkms || wrong "dpkg -P failed"
! installed || wrong "removing the package leaves the module"
rm -rf "$root"
echo "test-dkms: $release: tarball and package each end in a module and go without a trace ($((SECONDS - step)) s, with the root $((SECONDS - start)) s)"
