// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a kernel gets: an archive that links without anything else, and takes no name that is not its own.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::commands::{WARNINGS, compiler, package, run, scratch};
use crate::{archive, header};

/// How kernels compile: no library, no red zone, no vector registers, addresses in the top or bottom 2 GiB.
const KERNEL: [&str; 9] = [
    "-O2",
    "-ffreestanding",
    "-nostdlib",
    "-mno-red-zone",
    "-mgeneral-regs-only",
    "-mcmodel=kernel",
    "-fno-pic",
    "-fno-stack-protector",
    "-fno-asynchronous-unwind-tables",
];

/// Options that make the linker take every function in.
fn all_functions() -> impl Iterator<Item = String> {
    header::functions()
        .into_iter()
        .map(|name| format!("--undefined={name}"))
}

/// The example in the README, as a file.
fn readme_example(folder: &Path) -> PathBuf {
    let readme = std::fs::read_to_string(package("README.md")).expect("README.md is committed");
    let code = readme
        .split_once("```c\n")
        .and_then(|(_, rest)| rest.split_once("\n```"))
        .map(|(code, _)| code)
        .expect("README.md has an example in C");
    let path = folder.join("example.c");
    std::fs::write(&path, format!("{code}\n")).expect("the scratch folder is writable");
    path
}

/// Compiles the README's example and a kernel round it, and links them with nothing but the archive.
fn link_kernel(test: &str, text_address: &str, define: &str) -> PathBuf {
    let folder = scratch(test);
    let objects = [
        (
            package("tests/c/freestanding.c"),
            folder.join("freestanding.o"),
        ),
        (readme_example(&folder), folder.join("example.o")),
    ];
    for (source, object) in &objects {
        run(compiler()
            .args(WARNINGS)
            .args(KERNEL)
            .arg(define)
            .arg("-I")
            .arg(package("include"))
            .arg("-c")
            .arg(source)
            .arg("-o")
            .arg(object));
    }
    let kernel = folder.join("kernel.elf");
    run(Command::new("ld")
        .args([
            "-static",
            "-nostdlib",
            "--gc-sections",
            "--entry=start",
            "--fatal-warnings",
        ])
        .arg(format!("-Ttext={text_address}"))
        .args(all_functions())
        .args(objects.iter().map(|(_, object)| object))
        .arg(archive::bare_metal())
        .arg("-o")
        .arg(&kernel));
    kernel
}

/// Everything the archive can be asked for, as one relocatable object with the interface as its only global names.
fn one_object(test: &str) -> PathBuf {
    object_of(archive::bare_metal(), test)
}

/// The same of an archive.
pub fn object_of(archive: &Path, test: &str) -> PathBuf {
    let folder = scratch(test);
    let (linked, object) = (folder.join("linked.o"), folder.join("svsm_swiotlb.o"));
    run(Command::new("ld")
        .args(["-r", "--gc-sections"])
        .args(all_functions())
        .arg(archive)
        .arg("-o")
        .arg(&linked));
    run(Command::new("objcopy")
        .args(["--wildcard", "--keep-global-symbol=svsm_swiotlb_*"])
        .args(["--remove-section=.llvmbc", "--remove-section=.llvmcmd"])
        .args([&linked, &object]));
    object
}

/// Names that `nm` prints with these options.
pub fn names(options: &[&str], object: &Path) -> BTreeSet<String> {
    run(Command::new("nm")
        .args(options)
        .arg("--format=posix")
        .arg(object))
    .lines()
    .filter_map(|line| line.split(' ').next())
    .map(str::to_owned)
    .collect()
}

#[test]
fn freestanding_kernel_links_in_the_top_two_gib() {
    link_kernel(
        "top",
        "0xffffffff81000000",
        "-DKERNEL_WITHOUT_MEMORY_FUNCTIONS",
    );
}

#[test]
fn freestanding_kernel_links_in_the_bottom_two_gib() {
    link_kernel("bottom", "0x1000000", "-DKERNEL_WITHOUT_MEMORY_FUNCTIONS");
}

/// The kernel's `memcpy` wins over the archive's and does not collide with it.
#[test]
fn kernel_with_memory_functions_of_its_own_links() {
    let kernel = link_kernel(
        "memory",
        "0xffffffff81000000",
        "-DKERNEL_WITH_MEMORY_FUNCTIONS",
    );
    let all = run(Command::new("nm").arg("--format=posix").arg(kernel));
    let copies = all
        .lines()
        .filter(|line| line.starts_with("memcpy "))
        .count();
    assert_eq!(copies, 1, "the kernel has {copies} functions named memcpy");
}

#[test]
fn only_the_interface_is_exported_and_nothing_is_missing() {
    let object = one_object("exports");
    let exported = names(&["--extern-only", "--defined-only"], &object);
    println!("{} exported symbols: {exported:?}", exported.len());
    assert_eq!(
        exported,
        header::functions(),
        "exported symbols (left) and the header (right) differ"
    );
    let missing = names(&["--undefined-only"], &object);
    assert!(
        missing.is_empty(),
        "the archive needs {missing:?} from the kernel"
    );
}

/// Names of the functions that call something that panics.
pub fn panicking_functions(object: &Path) -> BTreeSet<String> {
    let code = run(Command::new("objdump")
        .args(["-d", "-r", "--demangle"])
        .arg(object));
    assert!(
        code.contains("<svsm_swiotlb_map>:"),
        "objdump shows no code: is it the one of binutils?"
    );
    let mut function = "";
    let mut found = BTreeSet::new();
    for line in code.lines() {
        if let Some((_, name)) = line
            .strip_suffix(">:")
            .and_then(|line| line.split_once(" <"))
        {
            function = name;
        } else if line.contains("R_X86_64") && line.contains("panic") && !function.contains("panic")
        {
            found.insert(function.to_owned());
        }
    }
    found
}

#[test]
fn no_panic_is_reachable() {
    let found = panicking_functions(&one_object("panics"));
    assert!(
        found.is_empty(),
        "a panic is reachable in the optimised archive: make {found:?} total"
    );
}

#[test]
fn no_vector_or_floating_point_register_is_used() {
    let code = run(Command::new("objdump")
        .args(["-d", "--no-show-raw-insn"])
        .arg(one_object("registers")));
    assert!(
        code.contains("<svsm_swiotlb_map>:"),
        "objdump shows no code: is it the one of binutils?"
    );
    let used = code.lines().find(|line| {
        ["%xmm", "%ymm", "%zmm", "%st", "%mm"]
            .iter()
            .any(|register| line.contains(register))
    });
    assert_eq!(used, None, "a kernel does not save this register");
}
