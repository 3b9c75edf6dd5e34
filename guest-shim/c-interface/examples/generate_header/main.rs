// SPDX-License-Identifier: MIT OR Apache-2.0
//! Writes `include/svsm_swiotlb.h`.

use std::process::ExitCode;

mod render;

fn main() -> ExitCode {
    let path = render::committed();
    let written = render::render()
        .and_then(|text| std::fs::write(&path, text).map_err(|error| error.to_string()));
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(cause) => {
            eprintln!("generate_header: {}: {cause}", path.display());
            ExitCode::FAILURE
        }
    }
}
