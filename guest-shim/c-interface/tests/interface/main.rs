// SPDX-License-Identifier: MIT OR Apache-2.0
//! The interface as C sees it: the header belongs to the sources, a C program uses all of it, and a freestanding kernel
//! links the bare-metal archive. Needs gcc and binutils; without them these tests fail.

mod archive;
mod bare_metal;
mod commands;
mod header;
mod linked_platform;
mod program;
