// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the guest's other processors can do while VMPL0 works for one of them, and what a guest can ask for.
//!
//! * `prepared`: the world in which all this happens
//! * `victims`, `attacks`: the calls that are interrupted, and what interrupts them
//! * `another_processor`: each attack before each platform call of each victim
//! * `same_pages`: two processors that convert the same pages
//! * `old_translations`: a processor that has kept the translation of a page on its way
//! * `rewritten`: lists that change while they are read
//! * `block`: the registers of a call in memory
//! * `forbidden`: addresses that are not the guest's to name
//! * `incomplete`: lists that are taken up again, otherwise
//! * `epochs`: what is an older kernel's, or another's
//! * `later_kernel`: a kernel that another one starts in the middle of a call
//! * `threads`: several processors at once, as it comes
//! * `registers`: any registers, any list

mod another_processor;
mod attacks;
mod block;
mod epochs;
mod forbidden;
mod incomplete;
mod later_kernel;
mod old_translations;
mod prepared;
mod registers;
pub mod rewritten;
mod same_pages;
mod threads;
mod victims;
