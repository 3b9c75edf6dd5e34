// SPDX-License-Identifier: MIT OR Apache-2.0
//! Invariant C1 in the image that ships, with the machine under it: from the run loop of a processor, and from the
//! exceptions that it survives, no function leads to the panic handler; and the stack is long enough.
//!
//! What `no_panic.rs` shows of service and core protocol with whole-program optimisation, this shows of the run loop,
//! the GHCB and the copies of guest memory as they are linked. The boot may panic: nobody is served yet.

mod call_graph;
mod frames;

use std::path::Path;
use std::process::Command;
use std::{env, fs};

use call_graph::CallGraph;

/// Links the paravisor as `make images` does, but with its relocations kept.
fn image() -> Vec<u8> {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("image-call-path");
    let output = Command::new(env!("CARGO"))
        .args(["rustc", "--locked", "--release", "--quiet"])
        .args(["--target", "x86_64-unknown-none", "-p", "paravisor"])
        .args(["--bin", "paravisor", "--features", "bare-metal"])
        .args(["--", "-C", "link-arg=--emit-relocs"])
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."))
        .env("CARGO_TARGET_DIR", &target)
        // The image's own are in the workspace's configuration.
        .env_remove("RUSTFLAGS")
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    fs::read(target.join("x86_64-unknown-none/release/paravisor")).unwrap()
}

#[test]
fn c1_no_way_leads_from_the_run_loop_of_the_image_to_a_panic() {
    let graph = CallGraph::of(&image());
    let handler = graph.named("rust_begin_unwind");
    // Panics when a line has key-value pairs, which needs a feature of the crate that nobody enables.
    let log = graph.named("3log13__private_api3log17h");
    // CREATE_VCPU names it as the place where another processor begins, with its own boot.
    let start_further = graph.named("9paravisor13start_further");
    let way = |from: usize| graph.way(from, handler, &[log, start_further]);

    let run = graph.named("5serve6Server3run");
    assert_eq!(way(run), None);
    // The parts whose panics this is about lie on the way, and were not optimised into something else.
    for protocol in [
        "13core_protocol21CoreProtocol$LT$M$GT$4call",
        "7service16Service$LT$P$GT$8dispatch",
    ] {
        let protocol = graph.named(protocol);
        assert!(graph.way(run, protocol, &[]).is_some());
    }
    // What an exception interrupts goes on, if its handler does.
    assert_eq!(way(graph.named("10exceptions9exception")), None);
    // The references do not show whom an indirect call reaches. It is a function whose address is taken.
    for function in graph.in_data() {
        assert_eq!(way(function), None);
    }

    // The same search finds the panics that the boot has.
    assert!(way(graph.named("10exceptions7install")).is_some());
}

/// Bytes of a processor's stack (`paravisor/src/processor_memory.rs`, STACK_BYTES).
const STACK: u64 = 0x1_0000;
/// What the call graph does not show: a line of the log, written by indirect calls into `core`, and an exception in it.
const RESERVE: u64 = 4096;

#[test]
fn c1_the_deepest_calls_of_the_image_fit_its_stack() {
    let graph = CallGraph::of(&image());
    let start_further = graph.named("9paravisor13start_further");
    let log = graph.named("3log13__private_api3log17h");
    for start in [
        "9paravisor5start17h",
        "9paravisor13start_further",
        "5serve6Server3run",
    ] {
        let stack = graph.deepest(graph.named(start), &[log, start_further]);
        println!("{start}: {} bytes", stack.bytes);
        assert!(stack.bytes + RESERVE <= STACK, "{stack:#?}");
    }
}
