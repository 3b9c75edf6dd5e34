#!/usr/bin/env bash
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# Which clauses of docs/PROTOCOL.md and which invariants of docs/ARCHITECTURE.md no test names. A test names them at the
# beginning of its own name, one after the other: `p_5_7_3_p_5_7_6_...`, `p3_p5_...`. `-v` prints the tests of each.
#
# Clauses of calls whose heading says "not offered" need no test until the words are gone. What cannot be tested here is
# listed below with its reason; the list may only have obligations of others, permissions and definitions.
set -euo pipefail
cd "$(dirname "$0")/.."

exempt() {
    cat <<'LIST'
P-1.1 the integrator's choice of a number; that any number works is tested on QEMU (another_protocol_number)
P-2.5 binds later versions
P-10.3 what a guest's kernel does with its interrupts and calling areas; a clause of guest_shim::Platform::call
P-5.2.4 what a guest should do with its devices before it deals with orphans
P-5.4.4 what a guest should do with its devices before it adopts
P-5.9.12 what a guest must not rely on
P-13.5 reserves calls
P-14.4 what a guest keeps for the kernel after it
P-14.5 what a kernel does with its other vCPUs before it starts another one
LIST
}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Identifier and whether its call is offered.
awk '/^### / {offered = !/not offered/} /^## / {offered = 1}
    match($0, /^\*\*P-[0-9.]+\*\*/) {print substr($0, 3, RLENGTH - 4), offered ? "offered" : "later"}' docs/PROTOCOL.md >"$work/clauses"
awk -F '|' '/^\| [WPCS][0-9] \|/ {gsub(/ /, "", $2); print $2, "offered"}' docs/ARCHITECTURE.md >"$work/invariants"
[ "$(wc -l <"$work/clauses")" -ge 70 ] || { echo 'check-clauses: docs/PROTOCOL.md has not the form this script reads' >&2; exit 1; }
[ "$(wc -l <"$work/invariants")" -ge 14 ] || { echo 'check-clauses: docs/ARCHITECTURE.md has not the table of invariants' >&2; exit 1; }
sed -nE 's/^## ([0-9]+)\. .*/P-\1/p; s/^### ([0-9.]+).*/P-\1/p' docs/PROTOCOL.md >"$work/chapters"

# Every test, with the identifiers that its name begins with.
{ git ls-files -- '*.rs'; git ls-files -o --exclude-standard -- '*.rs'; } | sort -u | while read -r f; do [ -e "$f" ] && echo "$f"; done |
    xargs awk '/#\[test\]/ {test = 1}
        test && match($0, /^ *fn [a-z0-9_]+\(/) {
            test = 0; name = $0; sub(/^ *fn /, "", name); sub(/\(.*/, "", name)
            rest = name
            while (1) {
                if (match(rest, /^p(_[0-9]+)+_/)) {
                    id = substr(rest, 3, RLENGTH - 3); gsub(/_/, ".", id); id = "P-" id
                } else if (match(rest, /^[wpcs][0-9]_/)) {
                    id = toupper(substr(rest, 1, 2))
                } else break
                print id, FILENAME "::" name
                rest = substr(rest, RLENGTH + 1)
            }
        }' >"$work/named"
exempt >"$work/exempt"

awk -v verbose="${1:-}" -v folder="$work" '
    FILENAME == folder "/exempt" {exempt[$1] = 1; next}
    FILENAME == folder "/chapters" {chapter[$1] = 1; next}
    FILENAME == folder "/named" {named[$1] = named[$1] "\n    " $2; next}
    {known[$1] = 1; order[++count] = $1; if ($2 == "later") later[$1] = 1}
    function bad(line) {print "check-clauses: " line > "/dev/stderr"; failed = 1}
    END {
        for (i = 1; i <= count; i++) {
            id = order[i]
            if (id in named) tested++
            else if (id in later) waiting++
            else if (id in exempt) exempted++
            else bad(id " is named by no test")
            if (verbose == "-v") print id (id in named ? named[id] : id in later ? " (not offered)" : id in exempt ? " (exempt)" : " NO TEST")
        }
        for (id in exempt) {
            if (!(id in known)) bad(id " is exempt and does not exist")
            if (id in named) bad(id " is exempt and has a test: take it off the list")
        }
        for (id in named) if (!(id in known) && !(id in chapter)) bad(id " does not exist; named by" named[id])
        printf "clauses and invariants: %d, named by tests %d, exempt %d, of calls not offered %d\n", count, tested, exempted, waiting
        exit failed
    }' "$work/exempt" "$work/chapters" "$work/named" "$work/clauses" "$work/invariants"
