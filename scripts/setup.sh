#!/usr/bin/env bash
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# Sets a machine up: `setup.sh rust` adds the bare-metal target, `setup.sh rust-src` the sources of its
# core library, `setup.sh qemu` provides QEMU.
# Does nothing where everything is there. Every refusal is one line with the cause and the remedy.
set -euo pipefail

TARGET=x86_64-unknown-none
RUST_MINIMUM=1.95
QEMU_MINIMUM=7.2

fail() {
    echo "setup: $*" >&2
    exit 2
}

# True when dotted version $1 is at least $2.
at_least() {
    [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]
}

setup_rust() {
    command -v cargo >/dev/null || fail "cargo is missing; install rustup from https://rustup.rs and run this again"
    local version
    version=$(rustc --version | cut -d' ' -f2)
    at_least "$version" "$RUST_MINIMUM" ||
        fail "rustc $version is older than $RUST_MINIMUM; run 'rustup update stable' and 'rustup default stable'"
    [ -d "$(rustc --print target-libdir --target $TARGET 2>/dev/null)" ] && return
    command -v rustup >/dev/null ||
        fail "the Rust target $TARGET is missing and there is no rustup to add it; install the target with your distribution's tools"
    echo "setup: adding the Rust target $TARGET"
    rustup target add --toolchain "$(rustup show active-toolchain | cut -d' ' -f1)" $TARGET >/dev/null 2>&1 ||
        fail "'rustup target add $TARGET' failed; check the network and run it by hand to see why"
}

# The sources of the core library, from which the Linux module's Rust part is built.
setup_rust_src() {
    [ -e "$(rustc --print sysroot)/lib/rustlib/src/rust/library/core/src/lib.rs" ] && return
    command -v rustup >/dev/null ||
        fail "the sources of Rust's core library are missing and there is no rustup to add them; install rust-src with your distribution's tools"
    echo "setup: adding the Rust component rust-src"
    rustup component add --toolchain "$(rustup show active-toolchain | cut -d' ' -f1)" rust-src >/dev/null 2>&1 ||
        fail "'rustup component add rust-src' failed; check the network and run it by hand to see why"
}

install_qemu() {
    command -v apt-get >/dev/null || fail "qemu-system-x86_64 is missing; install QEMU $QEMU_MINIMUM or later"
    local as_root=()
    if [ "$(id -u)" -ne 0 ]; then
        sudo -n true 2>/dev/null ||
            fail "qemu-system-x86_64 is missing; run 'sudo apt-get install qemu-system-x86' and try again"
        as_root=(sudo -n)
    fi
    echo "setup: installing qemu-system-x86 (apt-get)"
    { "${as_root[@]}" apt-get -o Acquire::Retries=3 -o DPkg::Lock::Timeout=300 update -qq &&
        "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -o Acquire::Retries=3 -o DPkg::Lock::Timeout=300 install -y -qq --no-install-recommends qemu-system-x86; } >/dev/null 2>&1 ||
        fail "'apt-get install qemu-system-x86' failed; run it by hand to see why"
}

setup_qemu() {
    command -v qemu-system-x86_64 >/dev/null || install_qemu
    local version
    version=$(qemu-system-x86_64 --version | sed -nE '1s/.*version ([0-9]+(\.[0-9]+)*).*/\1/p')
    [ -n "$version" ] || fail "qemu-system-x86_64 does not say its version; reinstall qemu-system-x86"
    at_least "$version" "$QEMU_MINIMUM" ||
        fail "QEMU $version is too old: nested SVM with 5-level tables needs $QEMU_MINIMUM or later; install a newer qemu-system-x86"
    [ -x /sbin/mke2fs ] || command -v mke2fs >/dev/null ||
        fail "mke2fs is missing, it makes the default disk; install e2fsprogs or pass DISK=file"
}

case "${1:-}" in
rust) setup_rust ;;
rust-src) setup_rust_src ;;
qemu) setup_qemu ;;
*) fail "usage: setup.sh rust|rust-src|qemu" ;;
esac
