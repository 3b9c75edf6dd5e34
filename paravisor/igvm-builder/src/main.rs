// SPDX-License-Identifier: MIT OR Apache-2.0
//! `igvm-builder`: packs the paravisor and a guest into an IGVM file and prints its launch digests.
//! Exit status: 0 the file was written, 2 the input is bad (one line says why).

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use igvm_builder::{Options, build};

/// Packs the paravisor and a guest into an SEV-SNP IGVM file and prints its launch digests
#[derive(Debug, Parser)]
#[command(version)]
struct Command {
    #[command(flatten)]
    options: Options,
    /// The IGVM file to write
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
}

fn main() -> ExitCode {
    let command = match Command::try_parse() {
        Ok(command) => command,
        Err(error) => return usage(&error),
    };
    match run(&command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("igvm-builder: {message}");
            ExitCode::from(2)
        }
    }
}

/// Help and version go to standard output; a wrong option gets one line like all bad input.
fn usage(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        print!("{error}");
        return ExitCode::SUCCESS;
    }
    let text = error.to_string();
    let paragraph = text.split("\n\n").next().unwrap_or(&text);
    let words: Vec<_> = paragraph.split_whitespace().collect();
    eprintln!("igvm-builder: {} (see --help)", words.join(" "));
    ExitCode::from(2)
}

fn run(command: &Command) -> Result<(), String> {
    let image = build(&command.options).map_err(|error| error.to_string())?;
    let output = command.output.display();
    std::fs::write(&command.output, &image.bytes)
        .map_err(|error| format!("cannot write {output}: {error}; check the folder"))?;
    println!(
        "{output}: {} bytes, {} launch pages",
        image.bytes.len(),
        image.launch_pages
    );
    for (index, digest) in image.digests.iter().enumerate() {
        let cpus = index + 1;
        let plural = if cpus == 1 { "" } else { "s" };
        println!("SNP launch digest, {cpus} vCPU{plural}: {digest}");
    }
    Ok(())
}
