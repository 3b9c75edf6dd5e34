// SPDX-License-Identifier: MIT OR Apache-2.0
//! `runner linux`: boots a stock Linux kernel and judges what its user space (tests/linux/init) and
//! the host's records say.
//!
//! `line` reads the guest's lines, `facts` collects them, `death` says why a boot did not come to its
//! end, `checks` judge one that did, `table` and `report` show it, `verdict` puts it together.

mod checks;
mod death;
mod facts;
mod line;
mod report;
mod table;
mod verdict;

pub use facts::Facts;
pub use verdict::linux_and_report;
