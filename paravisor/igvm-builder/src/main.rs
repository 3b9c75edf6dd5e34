// SPDX-License-Identifier: MIT OR Apache-2.0
//! `igvm-builder`: packs the paravisor and a guest into an IGVM file and prints its launch digests; `igvm-builder verify` judges an
//! attestation report of such a VM.
//! Exit status: 0 the file was written, or the report is as wanted; 1 the report is not (one line for each cause); 2 the input is
//! bad (one line says why).

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use igvm_builder::report::{VerifyOptions, verify};
use igvm_builder::{Options, build};

/// Packs the paravisor and a guest into an SEV-SNP IGVM file and prints its launch digests
#[derive(Debug, Parser)]
#[command(
    version,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true
)]
struct Command {
    #[command(flatten)]
    pack: Option<Pack>,
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, Args)]
struct Pack {
    /// The IGVM file to write
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
    #[command(flatten)]
    options: Options,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Judge an attestation report (docs/ATTESTATION.md): one line for each thing that is not as wanted
    Verify(VerifyOptions),
}

fn main() -> ExitCode {
    let done = match Command::try_parse() {
        Ok(Command {
            verb: Some(Verb::Verify(options)),
            ..
        }) => judge(&options),
        Ok(Command {
            pack: Some(pack), ..
        }) => write(&pack),
        // The parser lets no other command pass.
        Ok(_) => Err("nothing to do (see --help)".into()),
        Err(error) => return usage(&error),
    };
    done.unwrap_or_else(|message| {
        eprintln!("igvm-builder: {message}");
        ExitCode::from(2)
    })
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
