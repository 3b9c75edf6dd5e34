// SPDX-License-Identifier: MIT OR Apache-2.0
//! Prints the stack that each function of the interface in an object file needs, and ends with 1 if one needs more than it
//! may.

use std::path::Path;
use std::process::ExitCode;

mod analysis;
mod bounds;

fn main() -> ExitCode {
    let Some(object) = std::env::args_os().nth(1) else {
        eprintln!("usage: stack_use OBJECT");
        return ExitCode::FAILURE;
    };
    let needs = match analysis::needs(Path::new(&object)) {
        Ok(needs) => needs,
        Err(cause) => {
            eprintln!("stack_use: {cause}");
            return ExitCode::FAILURE;
        }
    };
    println!("bytes  limit  function, and the deepest way");
    let mut code = ExitCode::SUCCESS;
    for (name, need) in &needs {
        let limit = bounds::limit(name);
        let mark = if need.bytes > limit { " TOO MUCH" } else { "" };
        println!(
            "{:5}  {limit:5}  {name}{mark} > {}",
            need.bytes,
            need.path.join(" > ")
        );
        if need.bytes > limit {
            code = ExitCode::FAILURE;
        }
    }
    let kernel: std::collections::BTreeSet<_> =
        needs.values().flat_map(|need| &need.kernel).collect();
    println!("functions of the kernel, whose need comes on top: {kernel:?}");
    code
}
