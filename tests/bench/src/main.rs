// SPDX-License-Identifier: MIT OR Apache-2.0
//! The benchmark of the guest shim: every allocator in one process and one run, on the same memory.

mod options;

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;

use bench_abi::driver::{Allocator, Clock, set_conversion_ticks, whole};
use bench_abi::report::{Results, csv, faults, figures, listing, noise, plot, table};
use bench_abi::run::Run;
use bench_abi::{allocators, peers};

use options::Options;

fn main() -> ExitCode {
    let options = Options::parse();
    match run(&options) {
        Ok(faults) if faults.is_empty() => ExitCode::SUCCESS,
        Ok(faults) => {
            for fault in faults {
                eprintln!("bench: {fault}");
            }
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::from(2)
        }
    }
}

/// What must not have happened in the run.
fn run(options: &Options) -> Result<Vec<String>, String> {
    let allocators = choose(options)?;
    if options.list {
        for allocator in &allocators {
            println!("{}", allocator.name());
        }
        return Ok(Vec::new());
    }
    let plan = options.plan()?;
    if let Some(folder) = &options.output {
        fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    }
    let mut machine = noise::Machine::look();
    let clock = Clock::calibrate();
    let ticks = u64::try_from(whole(options.conversion_ns * clock.ghz)).unwrap_or(0);
    set_conversion_ticks(ticks);
    allocators::shim::maintain_in_background(options.maintain);

    let results = Run::new(&plan, &allocators, clock).carry_out()?;
    machine.end();
    print!("{}", listing::selftests(&results));
    if options.scenario.is_some() {
        print!("{}", listing::scenarios(&results));
    } else {
        let others: Vec<&str> = results.others().collect();
        print!("{}", table::render(&figures::sections(&results), &others));
    }
    if !results.pairs.is_empty() {
        print!("{}", noise::describe(&results, &machine, plan.rounds));
    }
    if let Some(folder) = &options.output {
        write(&results, clock.overhead_ns, folder)?;
    }
    Ok(faults::of(&results))
}

/// The allocators that the options name, in the order of the run.
fn choose(options: &Options) -> Result<Vec<Allocator>, String> {
    let mut allocators = allocators::all().to_vec();
    for path in &options.peers {
        // SAFETY: Whoever names a file on the command line vouches for it; that is what the option is for.
        let peer = unsafe { peers::load(path) }?;
        allocators.push(unambiguous(peer, &allocators));
    }
    let named = |allocator: &Allocator| {
        options
            .allocators
            .iter()
            .any(|name| name == allocator.name())
    };
    for name in &options.allocators {
        if !allocators.iter().any(|allocator| allocator.name() == name) {
            return Err(format!(
                "--allocator {name}: not there, --list prints the names"
            ));
        }
    }
    allocators.retain(|allocator| options.allocators.is_empty() || named(allocator));
    Ok(allocators)
}

/// A peer may have the name of one that is there already, for example an older build of the shim.
fn unambiguous(peer: Allocator, others: &[Allocator]) -> Allocator {
    let taken = |name: &str| others.iter().any(|other| other.name() == name);
    if !taken(peer.name()) {
        return peer;
    }
    let mut names = (2..).map(|number| format!("{}#{number}", peer.name()));
    let free = names.find(|name| !taken(name));
    // A handful of names, for the rest of the program.
    free.map_or(peer, |name| peer.renamed(name.leak()))
}

fn write(results: &Results, overhead_ns: f64, folder: &Path) -> Result<(), String> {
    csv::write(results, overhead_ns, folder)
        .map_err(|error| format!("{}: {error}", folder.display()))?;
    let drawings = plot::write(results, folder)?;
    println!(
        "\nraw figures and drawings in {}: *.csv {}",
        folder.display(),
        drawings.join(" ")
    );
    Ok(())
}
