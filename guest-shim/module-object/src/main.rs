// SPDX-License-Identifier: MIT OR Apache-2.0
//! `module-object`: builds and checks the Rust part of the Linux module.
//! Exit status: 0 done, 1 the object is refused (a line for each cause), 2 the input is bad (one line says why).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use module_object::{OBJECT_NAME, check, compile, provenance};

/// Builds and checks the Rust part of the Linux module
#[derive(Debug, Parser)]
#[command(version)]
struct Command {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Builds the object, checks it, and writes it with its provenance
    Build {
        /// The source tree
        #[arg(long, value_name = "FOLDER", default_value = ".")]
        tree: PathBuf,
        /// Where the compiler works
        #[arg(long, value_name = "FOLDER")]
        target_dir: PathBuf,
        /// Where the object goes
        #[arg(long, value_name = "FOLDER")]
        output: PathBuf,
        /// Features of guest-shim-c
        #[arg(long, value_name = "LIST", default_value = "")]
        features: String,
    },
    /// Checks an object
    Check {
        /// The object
        file: PathBuf,
    },
}

fn main() -> ExitCode {
    let result = match Command::parse().action {
        Action::Build {
            tree,
            target_dir,
            output,
            features,
        } => build(&tree, &target_dir, &output, &features),
        Action::Check { file } => read(&file).and_then(|bytes| entries(&file, &bytes).map(drop)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err((status, message)) => {
            eprintln!("module-object: {message}");
            ExitCode::from(status)
        }
    }
}

type Failure = (u8, String);

fn build(tree: &Path, target: &Path, output: &Path, features: &str) -> Result<(), Failure> {
    let object = compile(tree, target, features).map_err(|error| (2, error.to_string()))?;
    let bytes = read(&object)?;
    let entries = entries(&object, &bytes)?;
    let text = provenance(tree, &bytes, features, entries).map_err(|error| (2, error))?;
    fs::create_dir_all(output)
        .and_then(|()| fs::write(output.join(OBJECT_NAME), &bytes))
        .and_then(|()| fs::write(output.join("PROVENANCE"), text))
        .map_err(|error| {
            (
                2,
                format!(
                    "cannot write to {}: {error}; check the folder",
                    output.display()
                ),
            )
        })
}

/// Number of entries of a good object.
fn entries(file: &Path, bytes: &[u8]) -> Result<usize, Failure> {
    let entries = check(bytes).map_err(|refused| {
        let lines: Vec<_> = refused.iter().map(ToString::to_string).collect();
        (
            1,
            format!("{} is refused:\n  {}", file.display(), lines.join("\n  ")),
        )
    })?;
    println!(
        "module-object: {}: {} bytes, {} entries",
        file.display(),
        bytes.len(),
        entries.len()
    );
    Ok(entries.len())
}

fn read(file: &Path) -> Result<Vec<u8>, Failure> {
    fs::read(file).map_err(|error| (2, format!("cannot read {}: {error}", file.display())))
}
