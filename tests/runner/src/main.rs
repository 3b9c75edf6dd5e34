// SPDX-License-Identifier: MIT OR Apache-2.0
//! `runner run` boots an SNP IGVM file on the emulated machine, `runner linux` one with a Linux kernel, and
//! `runner linux-compare` sets several of those side by side;
//! `runner disk` makes a disk to read, `runner boot-disk` one to boot from, `runner initrd` the user space of the Linux guest.
//! Exit status: 0 everything as promised, 1 a check failed, 2 bad input, 3 died or hung.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use runner::{
    BootDiskOptions, CompareOptions, DiskOptions, Failure, InitrdOptions, RunOptions, ServeOptions,
};

/// Boots SEV-SNP IGVM files on an emulated SNP machine
#[derive(Debug, Parser)]
#[command(version, args_override_self = true)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Boot an image, follow it to its end, check and report
    Run(Box<RunOptions>),
    /// Boot an image with a Linux kernel, follow it to its end, check and report
    Linux(Box<RunOptions>),
    /// Set boots of Linux side by side: with the module and without it
    LinuxCompare(CompareOptions),
    /// Make a disk image with a file system that holds a folder
    Disk(DiskOptions),
    /// Make a disk from which firmware boots a Linux kernel
    BootDisk(BootDiskOptions),
    /// Make the initrd of the Linux guest
    Initrd(InitrdOptions),
    /// Serve a file to one HTTP client on standard input and output
    Serve(ServeOptions),
}

fn main() -> ExitCode {
    let command_line = match CommandLine::try_parse() {
        Ok(command_line) => command_line,
        Err(error) => return usage(&error),
    };
    let result = match command_line.command {
        Command::Run(options) => runner::run_and_report(&options),
        Command::Linux(options) => runner::linux_and_report(&options),
        Command::LinuxCompare(options) => runner::compare_and_report(&options),
        Command::Disk(options) => runner::make_disk(&options),
        Command::BootDisk(options) => runner::make_boot_disk(&options),
        Command::Initrd(options) => runner::make_initrd(&options),
        Command::Serve(options) => runner::serve(&options),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("runner: {failure}");
            Failure::exit_code(&failure)
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
    eprintln!("runner: {} (see --help)", words.join(" "));
    ExitCode::from(2)
}
