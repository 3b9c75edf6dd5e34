// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which instructions an object may hold.

use iced_x86::{Code, CpuidFeature, Decoder, DecoderOptions, FlowControl, Instruction, Mnemonic};
use object::{File, Object, ObjectSection};
use thiserror::Error;

use crate::{Refused, sections};

/// What is wrong with an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum InstructionFault {
    /// A byte sequence that is none.
    #[error("no instruction")]
    Invalid,
    /// Of an extension that a kernel's code does not use, or one that has not been thought about.
    #[error("{0:?} belongs to {1:?}, which kernel code must not use")]
    Extension(Mnemonic, CpuidFeature),
    /// Not by `__x86_return_thunk`.
    #[error("a return without the kernel's thunk")]
    Return,
    /// Not by `__x86_indirect_thunk_*`.
    #[error("an indirect branch without the kernel's thunk")]
    IndirectBranch,
    /// What a library has no business with.
    #[error("{0:?} is the kernel's own business")]
    Privileged(Mnemonic),
    /// A far branch, system call, interrupt, transaction.
    #[error("{0:?} leaves the library in a way that it does not need")]
    Leaves(Mnemonic),
}

/// What every x86-64 processor has and what needs no state beyond the general registers.
const BASE: [CpuidFeature; 10] = [
    CpuidFeature::INTEL8086,
    CpuidFeature::INTEL186,
    CpuidFeature::INTEL286,
    CpuidFeature::INTEL386,
    CpuidFeature::INTEL486,
    CpuidFeature::X64,
    CpuidFeature::CMOV,
    CpuidFeature::MULTIBYTENOP,
    CpuidFeature::PAUSE,
    // ENDBR64; a NOP on processors without it.
    CpuidFeature::CET_IBT,
];

pub(crate) fn check(file: &File<'_>, refused: &mut Vec<Refused>) {
    for section in file
        .sections()
        .filter(|section| sections::is_code(section.flags()))
    {
        let name = section.name().unwrap_or("(no name)");
        let Ok(bytes) = section.data() else {
            refused.push(Refused::Instruction(
                name.into(),
                0,
                InstructionFault::Invalid,
            ));
            continue;
        };
        for instruction in Decoder::new(64, bytes, DecoderOptions::NONE) {
            if let Some(fault) = fault(&instruction) {
                refused.push(Refused::Instruction(name.into(), instruction.ip(), fault));
            }
        }
    }
}

fn fault(instruction: &Instruction) -> Option<InstructionFault> {
    let mnemonic = instruction.mnemonic();
    if instruction.is_invalid() {
        return Some(InstructionFault::Invalid);
    }
    match instruction.flow_control() {
        FlowControl::Next
        | FlowControl::UnconditionalBranch
        | FlowControl::ConditionalBranch
        | FlowControl::Call => {}
        FlowControl::Return => return Some(InstructionFault::Return),
        FlowControl::IndirectBranch | FlowControl::IndirectCall => {
            return Some(InstructionFault::IndirectBranch);
        }
        // UD2, where the compiler knows that no path leads, and INT3 behind a branch.
        FlowControl::Exception if mnemonic == Mnemonic::Ud2 => {}
        FlowControl::Interrupt if instruction.code() == Code::Int3 => {}
        _ => return Some(InstructionFault::Leaves(mnemonic)),
    }
    let extension = instruction
        .cpuid_features()
        .iter()
        .find(|feature| !BASE.contains(feature));
    // REP BSF, which is TZCNT where that exists: written for operands that are not zero, of which both say the same.
    if let Some(feature) = extension
        && mnemonic != Mnemonic::Tzcnt
    {
        return Some(InstructionFault::Extension(mnemonic, *feature));
    }
    instruction
        .is_privileged()
        .then_some(InstructionFault::Privileged(mnemonic))
}
