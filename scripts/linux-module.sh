#!/usr/bin/env bash
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# linux-module.sh PACKAGE OUTPUT KDIR [ROOT]: builds the modules of the folder PACKAGE (C sources, Kbuild; of svsm_swiotlb.ko header,
# Rust object) against the headers KDIR, with the tools of ROOT if that is named (linux-headers.sh), and puts them into
# OUTPUT/RELEASE. Fails if the kernel's build system warns of anything; its words are in OUTPUT/RELEASE/build.log.
# Every refusal is one line with the cause and the remedy.
set -euo pipefail

fail() {
    echo "module: $*" >&2
    exit 2
}

[ $# -eq 3 ] || [ $# -eq 4 ] || fail "usage: linux-module.sh PACKAGE OUTPUT KDIR [ROOT]"
package=$1 output=$2 kdir=$3 root=${4:-}
headers=$root$kdir
config=$headers/include/config/auto.conf
[ -e "$headers/Makefile" ] && [ -r "$config" ] ||
    fail "$headers has no kernel headers; install linux-headers-RELEASE, or name fetched ones (make module LINUX=6.12)"
release=$(cat "$headers/include/config/kernel.release" 2>/dev/null) || release=
[ -n "$release" ] || fail "$headers does not say its release; it is not prepared for modules ('make modules_prepare' there)"
needed() { # OPTION, what lacks without it
    grep -qx "$1=y" "$config" || fail "kernel $release is built without $1, $2; use one that has it, or stay with swiotlb"
}
[ "$(printf '6.11\n%s\n' "$release" | sort -V | head -n 1)" = 6.11 ] ||
    fail "kernel $release is older than 6.11, the first that knows an SVSM; use a later one, or stay with swiotlb"
needed CONFIG_X86_64 "and the module is for x86-64 alone"
needed CONFIG_MODULES "and takes no modules"
needed CONFIG_ARCH_HAS_DMA_OPS "so a device has no dma_ops to set (CONFIG_XEN or CONFIG_GART_IOMMU select it)"
needed CONFIG_AMD_MEM_ENCRYPT "so it cannot be an SEV-SNP guest"

place=$output/$release
rm -rf "$place"
mkdir -p "$place"
place=$(cd "$place" && pwd)
log=$place/build.log
jobs=-j$(nproc)
if [ -z "$root" ]; then
    build=$place/build
    # Type information is for tracing tools; a module without any loads as well.
    options=()
    if grep -qx CONFIG_DEBUG_INFO_BTF_MODULES=y "$config" && ! command -v pahole >/dev/null; then
        echo 'module: pahole is not installed, so the module will carry no type information (BTF)' >&2
        options=(CONFIG_DEBUG_INFO_BTF_MODULES=)
    fi
    cp -r "$package" "$build"
    make -C "$kdir" M="$build" "$jobs" "${options[@]}" modules >"$log" 2>&1 && built=yes || built=
else
    # The tools of ROOT see ROOT alone: the sources go there. Namespaces of the user's own make root superfluous; gcc
    # needs /dev/null, objtool /proc.
    unshare -rm true 2>/dev/null ||
        fail "the compiler of the kernel's own Debian release runs in $root, which takes user namespaces; allow them (sysctl kernel.unprivileged_userns_clone=1), or build where it is installed (make module KDIR=)"
    build=$(mktemp -d "$root/build/XXXXXX")
    trap 'rm -rf "$build"' EXIT
    cp -r "$package/." "$build"
    # shellcheck disable=SC2016 # expanded by the inner shell
    unshare -rm sh -c 'mount --rbind /dev "$0/dev" && mount --rbind /proc "$0/proc" && exec chroot "$0" "$@"' "$root" \
        env -i PATH=/usr/bin:/bin HOME=/ LC_ALL=C make -C "$kdir" M="/build/${build##*/}" "$jobs" modules >"$log" 2>&1 && built=yes || built=
fi
modules=("$build"/*.ko)
[ -n "$built" ] && [ -e "${modules[0]}" ] ||
    fail "the build for $release failed ($(grep -m1 -iE 'error|\*\*\*' "$log" || tail -n 1 "$log")); the rest is in $log"
warnings=$(grep -ciE 'warning|^WARN' "$log" || true)
[ "$warnings" -eq 0 ] ||
    fail "the build for $release warned $warnings times ($(grep -m1 -iE 'warning|^WARN' "$log")); the rest is in $log"
# As distributions ship modules; the names in backtraces stay.
for module in "${modules[@]}"; do
    module=${module##*/}
    objcopy --strip-debug "$build/$module" "$place/$module" || fail "objcopy failed; install binutils"
    echo "module: $place/$module ($(stat -c %s "$place/$module") bytes, 0 warnings)"
done
rm -rf "$place/build"
