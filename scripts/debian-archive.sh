# SPDX-License-Identifier: MIT OR Apache-2.0
#
# Sourced by the scripts that fetch packages of Debian. They come from the archive through apt, with its
# signatures checked, and are unpacked, never installed: the lists are private to a folder, so no root
# is needed and the machine's own apt stays as it is.
# The script that sources this defines fail (one line, does not return) and REMEDY (words behind a cause).

MIRROR=${DEBIAN_MIRROR:-http://deb.debian.org}
KEYRING=/usr/share/keyrings/debian-archive-keyring.gpg

# archive_lock FOLDER: waits until no other run uses the lists of FOLDER.
archive_lock() {
    for program in apt-get apt-cache dpkg-deb xz; do
        command -v $program >/dev/null ||
            fail "$program is missing, it fetches packages of Debian; install it (Debian: apt, dpkg, xz-utils), $REMEDY"
    done
    [ -r $KEYRING ] || fail "$KEYRING is missing, it proves that packages are Debian's; install debian-archive-keyring, $REMEDY"
    exec 9>"$1/lock"
    flock 9
}

# archive_read FOLDER SUITE...: reads the package lists of the suites ("debian bookworm") and sets apt_options.
archive_read() {
    archive_log=$1/apt.log archive_lists=$1/apt
    shift
    mkdir -p "$archive_lists/lists/partial" "$archive_lists/cache/archives/partial"
    for suite in "$@"; do
        echo "deb [arch=amd64 signed-by=$KEYRING] $MIRROR/${suite% *} ${suite#* } main"
    done >"$archive_lists/sources.list"
    apt_options=(-o "Dir::Etc::sourcelist=$archive_lists/sources.list" -o Dir::Etc::sourceparts=- -o "Dir::State::lists=$archive_lists/lists"
        -o "Dir::Cache=$archive_lists/cache" -o APT::Architecture=amd64 -o APT::Sandbox::User=root -o Acquire::Retries=3
        -o Acquire::Languages=none -o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false)
    echo "${0##*/}: reading Debian's package lists ($MIRROR)" >&2
    archive_try archive_update ||
        fail "the package lists cannot be had from $MIRROR ($(grep -m1 -oE '^[EW]: .*' "$archive_log" || echo no message)); check the network, set DEBIAN_MIRROR, $REMEDY"
}

archive_update() {
    apt-get "${apt_options[@]}" -qq update >"$archive_log" 2>&1 && ! grep -qE '^(E|W): Failed' "$archive_log"
}

# archive_try COMMAND...: three times, with a pause: the archive changes while it is read, and networks have moods.
archive_try() {
    local pause
    for pause in 5 20; do
        "$@" && return
        echo "${0##*/}: no answer, once more in $pause s" >&2
        sleep $pause
    done
    "$@"
}

archive_download() {
    (cd "$archive_lists/cache" && apt-get "${apt_options[@]}" -qq download "$1") >>"$archive_log" 2>&1
}

# archive_unpack PACKAGE PLACE: fetches a package and unpacks it into PLACE.
archive_unpack() {
    local cache=$archive_lists/cache size archive
    size=$(apt-cache "${apt_options[@]}" show "$1" | sed -n 's/^Size: //p' | head -n 1)
    echo "${0##*/}: fetching $1 ($((size / 1000)) kB)" >&2
    archive_try archive_download "$1" ||
        fail "$1 cannot be fetched ($(grep -oE '^E: .*' "$archive_log" | tail -n 1)); check the network and the free space of ${archive_lists%/apt}, $REMEDY"
    archive=$(find "$cache" -maxdepth 1 -name "${1}_*.deb" | sort -V | tail -n 1)
    dpkg-deb -x "$archive" "$2" || fail "$archive cannot be unpacked; check the free space of $2"
    rm -f "$archive"
}

# archive_has PACKAGE: whether the lists know it.
archive_has() {
    apt-cache "${apt_options[@]}" show "$1" >/dev/null 2>&1
}

# archive_closure PACKAGE...: their names and those of all that they depend on, one a line.
archive_closure() {
    : >"$archive_lists/status"
    apt-get "${apt_options[@]}" -o Dir::State::status="$archive_lists/status" -o APT::Install-Recommends=false -qq \
        --print-uris install "$@" 2>>"$archive_log" | sed -nE 's/^\S+ ([^_]+)_.*/\1/p'
}

archive_download_all() {
    (cd "$archive_lists/cache" && apt-get "${apt_options[@]}" -qq download "$@") >>"$archive_log" 2>&1
}

# archive_unpack_all PLACE PACKAGE...: fetches packages by one command and unpacks them into PLACE.
archive_unpack_all() {
    local place=$1 cache=$archive_lists/cache archive
    shift
    echo "${0##*/}: fetching $# packages ($(apt-cache "${apt_options[@]}" show --no-all-versions "$@" | awk '/^Size:/ {s += $2} END {print int(s / 1000000)}') MB)" >&2
    archive_try archive_download_all "$@" ||
        fail "packages cannot be fetched ($(grep -oE '^E: .*' "$archive_log" | tail -n 1)); check the network and the free space of ${archive_lists%/apt}, $REMEDY"
    for archive in "$cache"/*.deb; do
        dpkg-deb -x "$archive" "$place" || fail "$archive cannot be unpacked; check the free space of $place"
        rm -f "$archive"
    done
}
