// SPDX-License-Identifier: MIT OR Apache-2.0
//! `runner linux`: boots a stock Linux kernel and judges what its user space (tests/linux/init) and
//! the host's records say.
//!
//! `line` reads the guest's lines, `facts` collects them, `death` says why a boot did not come to its
//! end, `checks`, `pool_checks` and `fio_checks` judge one that did, `account` says what each phase cost, `table`
//! and `report` show it, `verdict` puts it together. `compare` sets several boots side by side.

mod account;
mod checks;
mod compare;
mod death;
mod driver;
mod facts;
mod fio_checks;
mod line;
mod pool_checks;
mod report;
mod table;
mod verdict;

pub use compare::{CompareOptions, compare_and_report};
pub use driver::Driver;
pub use facts::Facts;
pub use verdict::linux_and_report;
