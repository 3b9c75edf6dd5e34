// SPDX-License-Identifier: MIT OR Apache-2.0
//! The library for a kernel whose functions are linked with it: one object, no call through a pointer, little stack.

use std::process::Command;

use crate::bare_metal::{names, object_of, panicking_functions};
use crate::commands::{WARNINGS, compiler, package, run, scratch};
use crate::program::SYSTEM_LIBRARIES;
use crate::{archive, header};

#[path = "../../examples/stack_use/analysis.rs"]
mod analysis;
#[path = "../../examples/stack_use/bounds.rs"]
mod bounds;

fn object(test: &str) -> std::path::PathBuf {
    object_of(archive::linked_bare_metal(), test)
}

#[test]
fn the_kernels_functions_are_all_that_is_missing() {
    let object = object("linked-names");
    assert_eq!(
        names(&["--undefined-only"], &object),
        header::kernel_functions()
    );
    let exported = names(&["--extern-only", "--defined-only"], &object);
    assert_eq!(exported, header::functions());
    let found = panicking_functions(&object);
    assert!(
        found.is_empty(),
        "a panic is reachable: make {found:?} total"
    );
}

/// A kernel that mistrusts its branch predictor pays for each of them with a retpoline. `memcpy` and its like have names,
/// though this target reaches them through the global offset table.
#[test]
fn nothing_is_called_through_a_pointer() {
    let needs = analysis::needs(&object("linked-calls")).expect("every call has a name");
    let called: std::collections::BTreeSet<_> = needs
        .values()
        .flat_map(|need| &need.kernel)
        .cloned()
        .collect();
    assert_eq!(called, header::kernel_functions());
}

#[test]
fn each_function_needs_no_more_stack_than_it_may() {
    let needs = analysis::needs(&object("linked-stack")).expect("the stack can be read");
    let entries: std::collections::BTreeSet<_> = needs.keys().cloned().collect();
    assert_eq!(entries, header::functions());
    for (name, need) in &needs {
        let limit = bounds::limit(name);
        println!("{:5} of {limit} {name}", need.bytes);
        assert!(
            need.bytes <= limit,
            "{name} needs {} bytes: {:?}",
            need.bytes,
            need.path
        );
    }
    // A function that grows the pool takes some; an analysis that sees less is wrong.
    assert!(needs["svsm_swiotlb_map"].bytes > 400);
    assert!(needs["svsm_swiotlb_attach"].bytes > 1000);
}

/// The analysis against functions whose need is known.
#[test]
fn the_analysis_reads_frames_calls_and_jumps() {
    let analyse = |name: &str, assembly: &str| {
        let folder = scratch("stack-analysis");
        let (source, object) = (
            folder.join(format!("{name}.s")),
            folder.join(format!("{name}.o")),
        );
        std::fs::write(&source, assembly).expect("the scratch folder is writable");
        run(compiler().arg("-c").arg(&source).arg("-o").arg(&object));
        analysis::needs(&object).map(|needs| {
            let mut needs: Vec<_> = needs
                .into_iter()
                .map(|(name, need)| (name, need.bytes))
                .collect();
            needs.sort();
            needs
        })
    };
    let text = "\
        .text\n.globl svsm_swiotlb_a\nsvsm_swiotlb_a: push %rbx\n sub $0x100,%rsp\n call inner\n call kernel\n\
        add $0x100,%rsp\n pop %rbx\n jmp other\n\
        inner: push %rbp\n mov %rsp,%rbp\n and $-128,%rsp\n sub $24,%rsp\n leave\n ret\n\
        .section .text.other,\"ax\"\nother: sub $0x400,%rsp\n add $0x400,%rsp\n ret\n";
    // Return address, 8 + 256, then 8 + 8 + 127 + 24 in `inner`; by the jump 8 + 1024.
    let expected = vec![("svsm_swiotlb_a".to_owned(), 1032)];
    assert_eq!(analyse("known", text), Ok(expected));
    let less = text.replace("0x400", "0x10");
    assert_eq!(
        analyse("less", &less),
        Ok(vec![("svsm_swiotlb_a".to_owned(), 8 + 264 + 167)])
    );
    for (name, bad) in [
        ("pointer", "call *%rax"),
        ("tail", "jmp *%rax"),
        ("table", "jmp *table(,%rax,8)"),
        ("memory", "call *8(%rdi)"),
        ("thunk", "call __x86_indirect_thunk_rax"),
        ("itself", "call svsm_swiotlb_a"),
        ("register", "sub %rax,%rsp"),
    ] {
        let text = format!(".globl svsm_swiotlb_a\nsvsm_swiotlb_a: {bad}\n ret\n");
        assert!(analyse(name, &text).is_err(), "{bad}");
    }
}

#[test]
fn a_c_program_with_linked_functions_passes() {
    let program = scratch("linked-program").join("program");
    run(compiler()
        .args(WARNINGS)
        .args(["-O1", "-g", "-DSVSM_SWIOTLB_LINKED_PLATFORM", "-I"])
        .arg(package("include"))
        .args(["tests/c/linked.c", "tests/c/machine.c"].map(package))
        .arg(archive::linked_host())
        .args(SYSTEM_LIBRARIES)
        .arg("-o")
        .arg(&program));
    let report = run(&mut Command::new(&program));
    assert_eq!(report.trim(), "ok linked");
}

/// Under `__KERNEL__` the header takes its types from the kernel.
#[test]
fn the_header_is_fit_for_a_linux_kernel() {
    let folder = scratch("kernel-header");
    std::fs::create_dir_all(folder.join("linux")).expect("the scratch folder is writable");
    std::fs::write(
        folder.join("linux/types.h"),
        "typedef unsigned long long uint64_t;\ntypedef long long int64_t;\ntypedef unsigned int uint32_t;\ntypedef int int32_t;\n\
         typedef unsigned char uint8_t;\ntypedef unsigned long size_t;\ntypedef _Bool bool;\n",
    )
    .expect("the scratch folder is writable");
    std::fs::write(folder.join("module.c"), "#include \"svsm_swiotlb.h\"\n")
        .expect("the scratch folder is writable");
    run(compiler()
        .args([
            "-std=gnu11",
            "-Wall",
            "-Wextra",
            "-Werror",
            "-nostdinc",
            "-D__KERNEL__",
        ])
        .args(["-DSVSM_SWIOTLB_LINKED_PLATFORM", "-c", "-I"])
        .arg(package("include"))
        .arg("-I")
        .arg(&folder)
        .arg(folder.join("module.c"))
        .arg("-o")
        .arg(folder.join("module.o")));
}
