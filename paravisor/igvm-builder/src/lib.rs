// SPDX-License-Identifier: MIT OR Apache-2.0
//! Packs a paravisor (an ELF file) and a guest (an ELF file, a Linux kernel or firmware) into an SEV-SNP IGVM file and computes the launch
//! digest that an attestation report will show.
//!
//! `elf_image`, `linux` and `firmware` turn a file into pages, `payload` tells them apart, `compose` lays the pages of both images, the boot block and
//! the parameter pages out as IGVM directives, `start_state` makes the boot vCPU, `digest` measures
//! the result. `report` judges the attestation report of a VM that was launched from such a file. The addresses and the boot block are those of the `paravisor` crate. The same input
//! gives the same bytes: nothing depends on time, paths or the order of a hash table.

mod boot_page;
mod byte_size;
mod compose;
mod cpuid_request;
mod digest;
mod elf_image;
mod error;
mod features;
mod firmware;
mod guest_policy;
pub mod igvm_framing;
mod linux;
mod options;
mod payload;
pub mod report;
mod start_state;

pub use byte_size::{format_size, parse_size};
pub use compose::{Image, build};
pub use digest::{LaunchDigest, launch_digest};
pub use elf_image::{ElfImage, Segment};
pub use error::Error;
pub use features::FeatureOptions;
pub use guest_policy::{AbiVersion, GuestPolicy, PolicyOptions};
pub use options::{Options, RamMode, Switch, WindowPlace};
pub use start_state::start_vmsa;
