#!/usr/bin/env bash
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# Source rules no compiler lint covers. Lists every violation, then fails.
set -euo pipefail
cd "$(dirname "$0")/.."

bad=0
report() { # rule, lines
    [ -z "$2" ] && return
    printf '%s:\n%s\n' "$1" "$2" | sed '2,$s/^/  /' >&2
    bad=1
}

files() { { git ls-files -- "$@"; git ls-files -o --exclude-standard -- "$@"; } | sort -u | while read -r f; do [ -e "$f" ] && echo "$f"; done; }

[ -n "$(files Makefile)" ] || { echo 'check-source: git does not list this tree; run it in a clone that git trusts' >&2; exit 2; }

report 'no SPDX line at the top' "$(files '*.rs' '*.sh' '*.toml' '*.ld' '*.S' Makefile .ci/run | while read -r f; do
    head -n 3 "$f" | grep -q 'SPDX-License-Identifier: MIT OR Apache-2.0' || echo "$f"
done)"
report 'longer than 600 lines (aim for 400)' "$(files '*.rs' | xargs -r wc -l | awk '$2 != "total" && $1 > 600 {print $2 ": " $1}')"
report 'unsafe in a crate that has none' "$(files 'protocol/**.rs' 'svsm-swiotlb/**.rs' 'snp/**.rs' | grep -v '^snp/src/instructions' |
    xargs -r grep -nE '\bunsafe\b' | grep -vE '//|forbid\(unsafe_code\)' || true)"
# Opting in takes a line here, and a reviewer.
unsafe_files='^(snp/src/instructions/|paravisor/src/machine/|guest-shim/src/(attach|convert|lock|loom_tests|map|platform|pool|shared_buffer|shared_memory|sync|transport|unmap|virtio|windows)\.rs|guest-shim/src/tests/|guest-shim/c-interface/src/|tests/bench/|tests/fuzz/|tests/guest/src/(machine/|start\.rs|disk_job\.rs|windows_job\.rs|pci_configuration\.rs|virtio_pci/tests\.rs)|tests/snp-host/(src/(main\.rs|bare_metal/)|examples/)|tests/integration/)'
report 'unsafe in a file that is not listed for it' "$(files '*.rs' | grep -vE "$unsafe_files" |
    xargs -r grep -nE '\bunsafe (\{|fn|impl|trait|extern)|unsafe\(' | grep -vE '^[^:]+:[0-9]+: *//' || true)"
report 'inline assembly in a library outside snp/src/instructions' "$(files 'protocol/**.rs' 'svsm-swiotlb/**.rs' 'snp/**.rs' 'guest-shim/**.rs' | grep -v '^snp/src/instructions' |
    xargs -r grep -nE '\b(asm|global_asm|naked_asm)!' || true)"
report 'a panic in the trusted call path' "$(files 'protocol/src/**.rs' 'svsm-swiotlb/src/**.rs' | grep -vE '/tests?/|/test_[a-z]+\.rs$|tests?\.rs$' | while read -r f; do
    awk -v f="$f" '/#\[cfg\(test\)\]/ {exit} /\.unwrap\(\)|\.expect\(|panic!\(|unreachable!\(|todo!\(|unimplemented!\(/ && !/^ *\/\// {print f ":" FNR ": " $0}' "$f"
done)"
report 'unfinished' "$(files '*.rs' | xargs -r grep -nE 'todo!\(|unimplemented!\(|FIXME|XXX|#\[ignore' || true)"
report 'a file name that says nothing' "$(files '*.rs' | grep -E '/(util|utils|common|base|helpers|misc)\.rs$' || true)"

[ "$bad" -eq 0 ] || { echo 'check-source: the rules above are broken (scripts/check-source.sh)' >&2; exit 1; }
