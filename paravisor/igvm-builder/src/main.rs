// SPDX-License-Identifier: MIT OR Apache-2.0
//! `igvm-builder`: packs the paravisor and a guest into an IGVM file and prints its launch digests; `igvm-builder verify` judges an
//! attestation report of such a VM.
//! Exit status: 0 the file was written, or the report is as wanted; 1 the report is not (one line for each cause); 2 the input is
//! bad (one line says why).

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use igvm_builder::report::{VerifyOptions, verify};
use igvm_builder::{Options, build};

/// The one verb; without it the command packs.
const VERIFY: &str = "verify";

/// Packs the paravisor and a guest into an SEV-SNP IGVM file and prints its launch digests
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "`igvm-builder verify REPORT` judges an attestation report (igvm-builder verify --help)"
)]
struct Pack {
    /// The IGVM file to write
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
    #[command(flatten)]
    options: Options,
}

/// Judges an attestation report (docs/ATTESTATION.md): one line for each thing that is not as wanted
#[derive(Debug, Parser)]
#[command(name = "igvm-builder verify")]
struct Verify {
    #[command(flatten)]
    options: VerifyOptions,
}

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let done = if arguments.get(1).is_some_and(|verb| verb == VERIFY) {
        Verify::try_parse_from(&arguments[1..]).map(|command| judge(&command.options))
    } else {
        Pack::try_parse_from(&arguments).map(|command| write(&command))
    };
    match done {
        Ok(Ok(status)) => status,
        Ok(Err(message)) => {
            eprintln!("igvm-builder: {message}");
            ExitCode::from(2)
        }
        Err(error) => usage(&error),
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

fn write(pack: &Pack) -> Result<ExitCode, String> {
    let image = build(&pack.options).map_err(|error| error.to_string())?;
    let output = pack.output.display();
    std::fs::write(&pack.output, &image.bytes)
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
    println!(
        "guest policy: {:#x}",
        pack.options.policy.policy().into_bits()
    );
    Ok(ExitCode::SUCCESS)
}

fn judge(options: &VerifyOptions) -> Result<ExitCode, String> {
    let verdict = verify(options).map_err(|error| error.to_string())?;
    for finding in &verdict.findings {
        println!("wrong: {finding}");
    }
    for what in &verdict.unchecked {
        println!("not checked: {what}");
    }
    if !verdict.findings.is_empty() {
        return Ok(ExitCode::FAILURE);
    }
    println!(
        "{}: everything that was checked is as wanted",
        options.report.display()
    );
    Ok(ExitCode::SUCCESS)
}
