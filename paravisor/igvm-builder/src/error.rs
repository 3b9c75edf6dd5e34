// SPDX-License-Identifier: MIT OR Apache-2.0
//! What can be wrong with the inputs. Every message is one line: the cause, then the remedy.

use std::path::PathBuf;

use crate::byte_size::format_size;

/// Why no image was built.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read.
    #[error("cannot read {}: {source}; check the path and its permissions", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        source: std::io::Error,
    },
    /// A size is not a number with a known unit.
    #[error("'{0}' is no size; write bytes or a number with KiB, MiB or GiB, such as 256MiB")]
    Size(String),
    /// A number of another kind is malformed.
    #[error("'{0}' is no number; write it in decimal or with 0x")]
    Number(String),
    /// An input is not an ELF file of the wanted kind.
    #[error("{} is {what}; pass a static ELF64 executable for x86-64", path.display())]
    NotAnElf {
        /// The file.
        path: PathBuf,
        /// What it is instead.
        what: &'static str,
    },
    /// An ELF file is damaged.
    #[error("{}: {what}; build the file again", path.display())]
    BrokenElf {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// An ELF segment lies where its image may not be.
    #[error(
        "{}: segment {start:#x}..{end:#x} is outside {allowed_start:#x}..{allowed_end:#x}; \
         link the file inside that range",
        path.display()
    )]
    Outside {
        /// The file.
        path: PathBuf,
        /// First byte of the segment.
        start: u64,
        /// One past its last byte.
        end: u64,
        /// First byte of the allowed range.
        allowed_start: u64,
        /// One past its last byte.
        allowed_end: u64,
    },
    /// Two segments use one 4 KiB page.
    #[error(
        "{}: two segments share the page at {gpa:#x}; align each segment to 4096 bytes in the linker script",
        path.display()
    )]
    SharedPage {
        /// The file.
        path: PathBuf,
        /// The page.
        gpa: u64,
    },
    /// The entry point is in no executable segment.
    #[error(
        "{}: the entry point {entry:#x} is in no executable segment; \
         name an entry symbol inside the text section (ENTRY in the linker script)",
        path.display()
    )]
    Entry {
        /// The file.
        path: PathBuf,
        /// The entry point.
        entry: u64,
    },
    /// The images have more segments than the boot block can list.
    #[error(
        "the images have {found} segments, the boot block lists at most {most}; merge sections"
    )]
    TooManyRanges {
        /// Number of segments.
        found: usize,
        /// Number that fits.
        most: usize,
    },
    /// The window is empty or not a multiple of 2 MiB.
    #[error("a window of {} is impossible; pass a multiple of 2MiB, at least 2MiB", format_size(*.0))]
    Window(u64),
    /// The low window is empty, not a multiple of 2 MiB, or cannot lie below 4 GiB.
    #[error("a low window of {} is impossible; pass a multiple of 2MiB below 4GiB, or leave --low-window away", format_size(*.0))]
    LowWindow(u64),
    /// Both windows are to be low.
    #[error("--low-window is a window beside a high one; leave --window-place low away")]
    TwoLowWindows,
    /// The cap is not a multiple of 2 MiB or exceeds the window.
    #[error(
        "a cap of {} is impossible with a window of {}; pass a multiple of 2MiB up to the window",
        format_size(*cap),
        format_size(*window)
    )]
    Cap {
        /// The cap in bytes.
        cap: u64,
        /// The window in bytes.
        window: u64,
    },
    /// A version of the firmware's ABI is malformed.
    #[error("'{0}' is no version of the firmware's ABI; write MAJOR.MINOR, such as 1.58")]
    Abi(String),
    /// Secure TSC was asked for.
    #[error(
        "Secure TSC is not served: a guest at VMPL2 needs the scale and offset of its time stamps in its VMSA, and only a request of \
         VMPL0 to the secure processor, which the paravisor does not make, tells them; leave --secure-tsc off"
    )]
    SecureTsc,
    /// The protocol number is reserved for the SVSM specification.
    #[error(
        "protocol {0:#x} belongs to the SVSM specification; pass a number from 0x40000000 to 0x7fffffff"
    )]
    Protocol(u32),
    /// The guest command line does not fit its field.
    #[error("the guest command line has {found} bytes; shorten it to {most} bytes of plain text")]
    CommandLine {
        /// Its length.
        found: usize,
        /// The longest that fits.
        most: usize,
    },
    /// A kernel cannot be started at its 64-bit entry point.
    #[error(
        "{} {what}; pass a 64-bit bzImage of Linux 6.11 or later (vmlinuz of a distribution)",
        path.display()
    )]
    Kernel {
        /// The file.
        path: PathBuf,
        /// What keeps it from starting.
        what: &'static str,
    },
    /// A kernel's file contradicts itself.
    #[error("{}: {what}; get the kernel's file again", path.display())]
    BrokenKernel {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: &'static str,
    },
    /// A kernel does not fit where payloads may lie.
    #[error(
        "{}: the kernel needs {} from {preferred:#x}, payloads lie in {allowed_start:#x}..{allowed_end:#x};          pass a relocatable kernel (CONFIG_RELOCATABLE) that fits",
        path.display(), format_size(*bytes)
    )]
    KernelPlace {
        /// The file.
        path: PathBuf,
        /// Memory it unpacks into.
        bytes: u64,
        /// Where it wants to be.
        preferred: u64,
        /// First byte of the allowed range.
        allowed_start: u64,
        /// One past its last byte.
        allowed_end: u64,
    },
    /// A file is no initrd.
    #[error("the initrd {} {what}; make it again (find . | cpio -o -H newc | gzip)", path.display())]
    Initrd {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: &'static str,
    },
    /// An initrd does not fit behind its kernel.
    #[error(
        "the initrd {} has {bytes} bytes, {most} fit behind the kernel; pass a smaller one",
        path.display()
    )]
    InitrdTooLarge {
        /// The file.
        path: PathBuf,
        /// Its bytes.
        bytes: u64,
        /// The most that fit.
        most: u64,
    },
    /// An initrd for a payload that is no kernel.
    #[error(
        "{} is no Linux kernel, so --initrd has no meaning; leave it out or pass a bzImage as --payload",
        .0.display()
    )]
    InitrdWithoutKernel(PathBuf),
    /// A kernel without firmware is to accept its memory itself.
    #[error("a Linux kernel started without firmware cannot accept memory; pass --ram accepted")]
    FirmwareRam,
    /// Firmware that cannot run below a paravisor, or a damaged file.
    #[error("the firmware {} {what}; pass OVMF of edk2-stable202405 or later (Debian 13: /usr/share/ovmf/OVMF.fd)", path.display())]
    Firmware {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: &'static str,
    },
    /// A paravisor of the usual place, which firmware would take for RAM.
    #[error(
        "{} is firmware, which takes the paravisor's place for RAM; build igvm-builder, runner and paravisor with the feature beside-firmware (make ovmf does)",
        .0.display()
    )]
    FirmwarePlace(PathBuf),
    /// Firmware validates RAM itself and has no command line.
    #[error(
        "firmware accepts memory itself and takes no command line; leave out --ram accepted and --cmdline"
    )]
    FirmwareOptions,
    /// No vCPU count, or more than the format can count.
    #[error("{0} vCPUs are impossible; pass 1 to 512")]
    Cpus(u32),
    /// The `igvm` crate refused what we composed, or computed another digest.
    #[error("internal: {0}; report this with the command line")]
    Internal(String),
}
