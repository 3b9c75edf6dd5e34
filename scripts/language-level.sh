#!/usr/bin/env bash
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# Builds what a foreign paravisor links with the lowest Rust that the manifests promise: `language-level.sh <target folder>`.
# Clippy checks the library functions against that level, this the language. Fetches the toolchain where it is not there;
# code 2 where it is not to be had, so that nothing was checked.
set -euo pipefail
cd "$(dirname "$0")/.."

LEVEL=1.88
TARGET=x86_64-unknown-none

there() { [ -d "$(rustup run "$LEVEL" rustc --print target-libdir --target $TARGET 2>/dev/null)" ]; }

if ! command -v rustup >/dev/null; then
    echo "language-level: not checked: there is no rustup to provide Rust $LEVEL" >&2
    exit 2
fi
if ! there; then
    echo "language-level: fetching Rust $LEVEL"
    install=(toolchain install "$LEVEL" --profile minimal --target $TARGET --no-self-update)
    if ! rustup "${install[@]}" >/dev/null 2>&1 || ! there; then
        echo "language-level: not checked: 'rustup ${install[*]}' failed; run it by hand to see why" >&2
        exit 2
    fi
fi
CARGO_TARGET_DIR=$1 rustup run "$LEVEL" cargo build --quiet --locked --target $TARGET \
    -p snp -p protocol -p svsm-swiotlb -p foreign-paravisor --features snp/instructions
echo 'language-level: ok'
