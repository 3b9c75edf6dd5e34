#!/usr/bin/env bash
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# What the documents point at exists: tests, written `file.rs::name` (as much of the path as there is need for), and
# relative links. Lists every reference that leads nowhere, then fails.
set -euo pipefail
cd "$(dirname "$0")/.."

bad=0
miss() {
    printf 'check-references: %s\n' "$*" >&2
    bad=1
}
documents=(README.md docs/*.md)
sources=$({ git ls-files -- '*.rs'; git ls-files -o --exclude-standard -- '*.rs'; } | sort -u | while read -r f; do [ -e "$f" ] && echo "$f"; done)

count=0
while IFS=: read -r document reference; do
    file=${reference%%::*} name=${reference##*::} found=
    while read -r candidate; do
        [ -n "$candidate" ] && grep -qE "fn $name\(" "$candidate" && found=1 && break
    done < <(grep -E "(^|/)${file//./\\.}\$" <<<"$sources" || true)
    count=$((count + 1))
    [ -n "$found" ] || miss "$document: no test $reference"
done < <(grep -oE '`[A-Za-z0-9_/.-]+\.rs::[a-z0-9_]+`' "${documents[@]}" | tr -d '`' | sort -u)

while IFS=: read -r document link; do
    target=${link%%#*}
    [ -e "$(dirname "$document")/$target" ] || miss "$document: no file $target"
done < <(grep -oE '\]\([^)#:]+\)' "${documents[@]}" | sed -E 's/\]\(([^)]*)\)/\1/' | sort -u)

echo "references to tests: $count"
exit "$bad"
