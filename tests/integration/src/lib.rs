// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tests that need several crates at once; they are in `tests/`, one file per subject.
