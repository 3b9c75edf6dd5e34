// SPDX-License-Identifier: MIT OR Apache-2.0
//! A machine that says what one says on which Linux boots well; shell variables set before it make it say otherwise.

use std::process::Output;

use igvm::IgvmDirectiveHeader;
use igvm_defs::{IgvmPageDataFlags, IgvmPageDataType};
use paravisor::boot_block::{self, BootBlock};
use paravisor::layout;
use zerocopy::{FromZeros, IntoBytes};

use crate::setup::{Setup, image, stderr};

/// Bytes of the image's window: at the end of the machine's 64 MiB.
const WINDOW_BYTES: u64 = 4 << 20;

/// Finds the further files of a Linux run, and what the kernel and init say in a good one.
pub const GOOD_BOOT: &str = r#"
for word in "$@"; do
    case "$word" in
    if=none,id=n0,*) nvme=${word##*file=} ;;
    user,id=net0,*) fetched=$(echo "$word" | sed "s/.* serve '\(.*\)'$/\1/") ;;
    esac
done
sum() { sha256sum "$1" | cut -d' ' -f1; }
size() { stat -c %s "$1"; }
record "boot version=1 mem=0x4000000 switches=0x0"
for moment in 0 1; do
    record "inspected moment=$moment writable=4096 executable=4096 both=${both:-0} code_start=0x410000 code_end=0x411000 stack=4096 keys=0"
done
say "[    0.0] Memory Encryption Features active: AMD SEV SEV-ES SEV-SNP"
say "linux: start uptime=0.01"
say "linux: devices expected=${expected:-blk,net,nvme}"
say "linux: kernel release=6.12.1-test"
say "linux: log ${log:-SEV: SNP running at VMPL2.}"
say "linux: cpus online=${cpus:-1}"
say "linux: driver name=${driver:-swiotlb} work=${work:-usual}"
say "linux: swiotlb bytes=67108864"
record "psc tsc=5 vmpl=2 op=shared gpa=0x100000 bytes=4096 total_shared=4096"
record "psc tsc=6 vmpl=0 op=shared gpa=0x3c00000 bytes=${held:-2097152} total_shared=2101248"
mark() { record "mark id=$1 tsc=$2"; record "snapshot id=$1 tsc=$2"; shift 2
    for count in "$@"; do record "count name=${count%=*} value=${count#*=}"; done; }
bounce() { say "linux: bounce moment=$1 used=${used:-0} peak=${used:-0}"
    [ "$driver" != pool ] || for line in "maps 7" "failures ${failures:-0}" "devices ${count:-4}" "calls_grow_interrupts_off ${growths:-1}" "bytes_in 99"; do
        say "linux: pool $1 $line"; done; }
bounce loaded; mark 1 10; record "end id=1"
bounce begin; mark 2 20 svsm.msr.core.pvalidate=${kernel_calls:-512} svsm.msr.pool.7=${own_calls:-1} vmgexit.2.msr-psc=512; record "end id=2"
[ -n "$elsewhere" ] && record "psc tsc=25 vmpl=2 op=shared gpa=0x101000 bytes=4096 total_shared=2105344"
bounce end; mark 3 30 svsm.msr.core.pvalidate=${kernel_calls:-512} svsm.msr.pool.7=${own_calls:-1} vmgexit.2.msr-psc=${converts:-512}; record "end id=3"
mark 4 40; record "end id=4"; bounce after
for line in "$trouble" "$more_trouble"; do [ -n "$line" ] && say "linux: trouble $line"; done
[ -n "$stress" ] && say "linux: stress what=$stress count=3"
say "linux: ram start=0x1000 last=0x3ffffff"
say "linux: reserved start=0x3a00000 last=0x3ffffff mapped=0"
say "linux: walk-test mapped=4096"
say "linux: digest device=vda bytes=$(size "$first") sha256=${wrong_blk:-$(sum "$first")}"
[ -z "$no_marker" ] && { echo 'svsm-swiotlb: written by Linux 6.12.1-test'; head -c 4096 /dev/zero; } |
    head -c 4096 | dd of="$second" bs=4096 seek=256 conv=notrunc 2>/dev/null
[ -n "$second" ] && marker=$(dd if="$second" bs=4096 skip=256 count=1 2>/dev/null | sha256sum | cut -d' ' -f1)
say "linux: marker offset=1048576 sha256=$marker"
[ -n "$nvme" ] && say "linux: digest device=nvme0n1 bytes=$(size "$nvme") sha256=${wrong_nvme:-$(sum "$nvme")}"
[ -z "$nvme" ] && say "linux: failed step=nvme cause=there is no /dev/nvme0n1: the machine lacks it"
[ -n "$fetched" ] && say "linux: digest device=eth0 bytes=$(size "$fetched") sha256=${wrong_net:-$(sum "$fetched")}"
say "linux: done uptime=0.02"
record "poweroff vmpl=2"
record "snapshot id=4294967295 tsc=50"; record "count name=svsm.ghcb.core.pvalidate value=112"
record "count name=svsm.msr.core.pvalidate value=513"; record "count name=vmgexit.2.psc value=13"
[ -n "$changed" ] && record "changed $changed"
[ -z "$unwatched" ] && record "count name=shared.watched value=513"
record "count name=exit.2.npf value=7"; record "count name=convert.shared.4k value=99"
record "count name=pattern.checked value=9"; record "end id=4294967295"
record "exit code=${code:-0}"; exit 1
"#;

/// What `runner linux` makes of `machine`, with these further options.
pub fn boot(machine: &str, more: &[&str]) -> (Setup, Output) {
    let setup = Setup::new(machine);
    setup.write("image.igvm", &image(&[boot_block()]));
    setup.write("nvme", &[0xa5; 8192]);
    setup.write("fetched", &[0x33; 1000]);
    let usual = "--disk disk --nvme-disk nvme --fetched fetched --report report";
    let usual: Vec<_> = usual.split(' ').collect();
    let output = setup.command("linux", &[&usual[..], more].concat());
    (setup, output)
}

/// The page by which an image tells that it has a window.
fn boot_block() -> IgvmDirectiveHeader {
    let mut block = BootBlock::new_zeroed();
    (block.magic, block.version) = (boot_block::MAGIC, boot_block::VERSION);
    block.protocol_number = 0x4000_0001;
    // SNP and debug swap.
    block.sev_features = 0x21;
    (block.window_bytes, block.hard_cap) = (WINDOW_BYTES, WINDOW_BYTES);
    block.secrets_page = layout::SECRETS_COPY;
    block.cpuid_page = layout::CPUID_COPY;
    block.calling_area = layout::BOOT_CALLING_AREA;
    IgvmDirectiveHeader::PageData {
        gpa: layout::BOOT_BLOCK,
        compatibility_mask: 1,
        flags: IgvmPageDataFlags::new(),
        data_type: IgvmPageDataType::NORMAL,
        data: block.as_bytes().to_vec(),
    }
}

/// One check failed, and the verdict, the last line, names it in these words. `fault` is what made it fail.
pub fn assert_one_check_fails(output: &Output, fault: &str, parts: &[&str]) {
    let message = stderr(output);
    assert_eq!(output.status.code(), Some(1), "{fault}: {message}");
    let verdict = message.lines().last().expect("a verdict");
    assert!(
        verdict.starts_with("runner: 1 of the checks failed: "),
        "{fault}: {message}"
    );
    for part in parts {
        assert!(verdict.contains(part), "{fault}: {message}");
    }
}
