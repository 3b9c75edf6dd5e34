// SPDX-License-Identifier: MIT OR Apache-2.0
//! How much stack a function of the interface may need.

/// Functions that a kernel calls from deep inside drivers and interrupt handlers: a name begins with one of these.
const HOT: [&str; 5] = ["map", "unmap", "sync_", "alloc_shared", "free_shared"];

/// Most bytes of stack for a function.
pub fn limit(function: &str) -> u64 {
    let name = function.strip_prefix("svsm_swiotlb_").unwrap_or(function);
    if HOT.iter().any(|hot| name.starts_with(hot)) {
        2048
    } else {
        4096
    }
}
