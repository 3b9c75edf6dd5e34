// SPDX-License-Identifier: MIT OR Apache-2.0
//! Runs cases, as text or as a fuzzer's bytes, and turns the one into the other.

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use fuzz::engine::{run, step};
use fuzz::script::Script;

const USAGE: &str = "usage: replay run|text|bytes FILE...\n\
    run    runs the cases\n\
    text   prints a case as text\n\
    bytes  writes FILE.bytes, which a fuzzer takes as an input";

fn read(path: &str) -> Result<Script, String> {
    let bytes = fs::read(path).map_err(|error| format!("{path}: {error}"))?;
    if Path::new(path).extension().is_some_and(|it| it == "ops") {
        Script::parse(&String::from_utf8_lossy(&bytes)).map_err(|error| format!("{path}: {error}"))
    } else {
        Ok(Script::from_bytes(&bytes))
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some((verb, files)) = arguments
        .split_first()
        .filter(|(_, files)| !files.is_empty())
    else {
        eprintln!("{USAGE}");
        return ExitCode::FAILURE;
    };
    let inner = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        inner(panic);
        eprintln!("in step {:?}", step());
    }));
    for path in files {
        let script = match read(path) {
            Ok(script) => script,
            Err(error) => {
                eprintln!("{error}");
                return ExitCode::FAILURE;
            }
        };
        match verb.as_str() {
            "run" => run(&script),
            "text" => print!("{}", script.to_text()),
            "bytes" => {
                if let Err(error) = fs::write(format!("{path}.bytes"), script.to_bytes()) {
                    eprintln!("{path}.bytes: {error}");
                    return ExitCode::FAILURE;
                }
            }
            _ => {
                eprintln!("{USAGE}");
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}
