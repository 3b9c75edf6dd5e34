// SPDX-License-Identifier: MIT OR Apache-2.0
//! Each check, seen refusing a made-up object that is good but for one thing.

use module_object::{InstructionFault, Refused, RelocationFault, SectionFault, SymbolFault, check};
use object::elf::{
    R_X86_64_32, R_X86_64_32S, R_X86_64_64, R_X86_64_GOTPCREL, R_X86_64_GOTPCRELX, R_X86_64_PC32,
    R_X86_64_PLT32, R_X86_64_REX_GOTPCRELX, R_X86_64_TPOFF32, RelocationType, SHF_ALLOC,
    SHF_EXECINSTR, SHF_WRITE, SHT_PROGBITS, SectionFlags as ElfFlags,
};
use object::write::{Object, Relocation, SectionId, Symbol, SymbolId, SymbolSection};
use object::{
    Architecture, BinaryFormat, Endianness, RelocationFlags, SectionFlags, SectionKind,
    SymbolFlags, SymbolKind, SymbolScope,
};

/// `endbr64`, `pause`, `jmp` to the thunk, `int3`.
const CODE: [u8; 12] = [0xf3, 0x0f, 0x1e, 0xfa, 0xf3, 0x90, 0xe9, 0, 0, 0, 0, 0xcc];

/// An object that passes.
struct Made {
    object: Object<'static>,
    text: SectionId,
}

fn symbol(name: &str, section: SymbolSection, kind: SymbolKind, scope: SymbolScope) -> Symbol {
    Symbol {
        name: name.into(),
        value: 0,
        size: 0,
        kind,
        scope,
        weak: false,
        section,
        flags: SymbolFlags::None,
    }
}

impl Made {
    fn good() -> Self {
        Self::of(Architecture::X86_64)
    }

    fn of(architecture: Architecture) -> Self {
        let mut object = Object::new(BinaryFormat::Elf, architecture, Endianness::Little);
        let text = object.add_section(vec![], b".text".into(), SectionKind::Text);
        object.append_section_data(text, &CODE, 16);
        let constants = object.add_section(vec![], b".rodata".into(), SectionKind::ReadOnlyData);
        object.append_section_data(constants, &[1, 2, 3], 8);
        let mut made = Self { object, text };
        made.define("svsm_swiotlb_map", SymbolKind::Text, SymbolScope::Linkage);
        made.define("hidden_away", SymbolKind::Text, SymbolScope::Compilation);
        let thunk = made.need("__x86_return_thunk");
        made.relocate(7, thunk, R_X86_64_PLT32);
        made
    }

    fn define(&mut self, name: &str, kind: SymbolKind, scope: SymbolScope) -> SymbolId {
        self.object
            .add_symbol(symbol(name, SymbolSection::Section(self.text), kind, scope))
    }

    fn need(&mut self, name: &str) -> SymbolId {
        self.object.add_symbol(symbol(
            name,
            SymbolSection::Undefined,
            SymbolKind::Unknown,
            SymbolScope::Unknown,
        ))
    }

    fn relocate(&mut self, offset: u64, symbol: SymbolId, r_type: RelocationType) {
        let relocation = Relocation {
            offset,
            symbol,
            addend: -4,
            flags: RelocationFlags::Elf { r_type },
        };
        self.object
            .add_relocation(self.text, relocation)
            .expect("x86-64 has it");
    }

    fn section(&mut self, name: &str, flags: ElfFlags, bytes: &[u8]) {
        let section = self
            .object
            .add_section(vec![], name.into(), SectionKind::Other);
        self.object.append_section_data(section, bytes, 8);
        self.object.section_mut(section).flags = SectionFlags::Elf {
            sh_flags: flags,
            sh_type: SHT_PROGBITS,
        };
    }

    fn refused(&self) -> Vec<Refused> {
        check(&self.object.write().expect("it can be written")).expect_err("it is refused")
    }
}

fn section_fault(name: &str, flags: ElfFlags, bytes: &[u8]) -> SectionFault {
    let mut made = Made::good();
    made.section(name, flags, bytes);
    match made.refused().as_slice() {
        [Refused::Section(refused, fault)] if refused == name => *fault,
        other => panic!("{name}: {other:?}"),
    }
}

fn instruction_fault(bytes: &[u8]) -> InstructionFault {
    let mut made = Made::good();
    made.object.append_section_data(made.text, bytes, 1);
    match made.refused().as_slice() {
        [Refused::Instruction(section, offset, fault)] if section == ".text" => {
            assert_eq!(*offset, CODE.len() as u64, "{bytes:x?}");
            *fault
        }
        other => panic!("{bytes:x?}: {other:?}"),
    }
}

fn relocation_fault(r_type: RelocationType) -> RelocationFault {
    let mut made = Made::good();
    let copy = made.need("memcpy");
    made.relocate(8, copy, r_type);
    match made.refused().as_slice() {
        [Refused::Relocation(section, 8, fault)] if section == ".text" => *fault,
        other => panic!("{}: {other:?}", r_type.0),
    }
}

fn symbol_fault(made: &Made, name: &str) -> SymbolFault {
    match made.refused().as_slice() {
        [Refused::Symbol(refused, fault)] if refused == name => *fault,
        other => panic!("{name}: {other:?}"),
    }
}

#[test]
fn a_good_object_passes_with_its_entries() {
    let mut made = Made::good();
    for name in [
        "memcpy",
        "memset",
        "memmove",
        "memcmp",
        "__x86_indirect_thunk_r11",
        "svsm_swiotlb_platform_call",
    ] {
        made.need(name);
    }
    let copy = made.need("memcpy");
    for r_type in [R_X86_64_64, R_X86_64_32S, R_X86_64_PC32] {
        made.relocate(0, copy, r_type);
    }
    let bytes = made.object.write().expect("it can be written");
    assert_eq!(check(&bytes), Ok(vec!["svsm_swiotlb_map".to_owned()]));
}

#[test]
fn what_is_no_object_is_refused() {
    let not = |bytes: &[u8]| {
        let refused = check(bytes).expect_err("it is refused");
        assert!(
            matches!(refused.as_slice(), [Refused::NotAnObject(_)]),
            "{refused:?}"
        );
    };
    not(b"");
    not(b"\x7fELF");
    not(&Made::good().object.write().expect("it can be written")[..100]);
    not(&Made::of(Architecture::I386)
        .object
        .write()
        .unwrap_or_default());
    // A shared library instead of an object.
    let mut library = Made::good().object.write().expect("it can be written");
    library[16] = 3;
    not(&library);
}

#[test]
fn an_object_without_entries_is_refused() {
    let object = Object::new(BinaryFormat::Elf, Architecture::X86_64, Endianness::Little);
    let refused = check(&object.write().expect("it can be written")).expect_err("it is refused");
    assert_eq!(refused, [Refused::NoEntries]);
}

#[test]
fn writable_data_is_refused() {
    for name in [".data", ".data.rel.ro", ".rodata", ".rodata.cst16"] {
        assert_eq!(
            section_fault(name, ElfFlags(SHF_ALLOC.0 | SHF_WRITE.0), &[0]),
            SectionFault::Writable
        );
    }
    let mut made = Made::good();
    let zeroed = made
        .object
        .add_section(vec![], b".bss".into(), SectionKind::UninitializedData);
    made.object.append_section_bss(zeroed, 64, 8);
    assert_eq!(
        made.refused(),
        [Refused::Section(".bss".into(), SectionFault::Writable)]
    );
}

#[test]
fn unknown_sections_are_refused() {
    for name in [
        ".eh_frame",
        ".init.text.x",
        ".llvmbc",
        ".data..ro",
        ".modinfo",
        ".debug_info",
        ".textual",
    ] {
        assert_eq!(
            section_fault(name, SHF_ALLOC, &[0]),
            SectionFault::Unknown,
            "{name}"
        );
    }
}

#[test]
fn known_sections_with_other_flags_are_refused() {
    assert_eq!(
        section_fault(
            ".rodata.str1.1",
            ElfFlags(SHF_ALLOC.0 | SHF_EXECINSTR.0),
            &[]
        ),
        SectionFault::Flags(SHF_ALLOC.0 | SHF_EXECINSTR.0)
    );
    assert_eq!(
        section_fault(".text.unlikely", SHF_ALLOC, &[]),
        SectionFault::Flags(SHF_ALLOC.0)
    );
    assert_eq!(
        section_fault(".note.GNU-stack", SHF_EXECINSTR, &[]),
        SectionFault::Flags(SHF_EXECINSTR.0)
    );
    assert_eq!(
        section_fault(".comment", SHF_ALLOC, &[]),
        SectionFault::Flags(SHF_ALLOC.0)
    );
}

#[test]
fn other_properties_than_landing_pads_are_refused() {
    let mut note = [
        4, 0, 0, 0, 16, 0, 0, 0, 5, 0, 0, 0, b'G', b'N', b'U', 0, 2, 0, 0, 0xc0, 4, 0, 0, 0, 1, 0,
        0, 0, 0, 0, 0, 0,
    ];
    let mut made = Made::good();
    made.section(".note.gnu.property", SHF_ALLOC, &note);
    check(&made.object.write().expect("it can be written")).expect("landing pads pass");
    // Shadow stacks as well.
    note[24] = 3;
    assert_eq!(
        section_fault(".note.gnu.property", SHF_ALLOC, &note),
        SectionFault::Properties
    );
}

#[test]
fn names_that_the_kernel_sees_are_entries() {
    let mut made = Made::good();
    made.define("memcpy", SymbolKind::Text, SymbolScope::Linkage);
    assert_eq!(symbol_fault(&made, "memcpy"), SymbolFault::VisibleName);
    let mut made = Made::good();
    made.define(
        "svsm_swiotlb_platform_call",
        SymbolKind::Text,
        SymbolScope::Dynamic,
    );
    assert_eq!(
        symbol_fault(&made, "svsm_swiotlb_platform_call"),
        SymbolFault::VisibleName
    );
}

#[test]
fn what_a_kernel_does_not_lend_is_refused() {
    for name in [
        "printk",
        "__udivti3",
        "_GLOBAL_OFFSET_TABLE_",
        "memcpy_fast",
        "svsm_swiotlb_map_page",
    ] {
        let mut made = Made::good();
        made.need(name);
        assert_eq!(symbol_fault(&made, name), SymbolFault::Needed);
    }
}

#[test]
fn weak_definitions_and_entries_without_code_are_refused() {
    let mut made = Made::good();
    let id = made.define("svsm_swiotlb_unmap", SymbolKind::Text, SymbolScope::Linkage);
    made.object.symbol_mut(id).weak = true;
    assert_eq!(symbol_fault(&made, "svsm_swiotlb_unmap"), SymbolFault::Weak);

    let mut made = Made::good();
    made.define("svsm_swiotlb_state", SymbolKind::Data, SymbolScope::Linkage);
    assert_eq!(
        symbol_fault(&made, "svsm_swiotlb_state"),
        SymbolFault::NotCode
    );
    let mut made = Made::good();
    made.object.add_symbol(symbol(
        "svsm_swiotlb_fixed",
        SymbolSection::Absolute,
        SymbolKind::Text,
        SymbolScope::Linkage,
    ));
    assert_eq!(
        symbol_fault(&made, "svsm_swiotlb_fixed"),
        SymbolFault::NotCode
    );

    let mut made = Made::good();
    made.define("per_thread", SymbolKind::Tls, SymbolScope::Compilation);
    assert_eq!(symbol_fault(&made, "per_thread"), SymbolFault::Kind);
}

#[test]
fn offset_tables_are_refused() {
    for r_type in [
        R_X86_64_GOTPCREL,
        R_X86_64_GOTPCRELX,
        R_X86_64_REX_GOTPCRELX,
    ] {
        assert_eq!(relocation_fault(r_type), RelocationFault::OffsetTable);
    }
}

#[test]
fn unknown_relocations_are_refused() {
    for r_type in [R_X86_64_32, R_X86_64_TPOFF32] {
        assert_eq!(relocation_fault(r_type), RelocationFault::Unknown(r_type.0));
    }
}

#[test]
fn floating_point_and_vector_instructions_are_refused() {
    let extensions: [&[u8]; 8] = [
        &[0xd9, 0xe8],                         // fld1
        &[0x0f, 0x6f, 0xc1],                   // movq mm0, mm1
        &[0x0f, 0x28, 0xc1],                   // movaps xmm0, xmm1
        &[0x66, 0x0f, 0x6f, 0xc1],             // movdqa xmm0, xmm1
        &[0xf2, 0x0f, 0x58, 0xc1],             // addsd xmm0, xmm1
        &[0xc5, 0xf8, 0x28, 0xc1],             // vmovaps xmm0, xmm1
        &[0x62, 0xf1, 0x7c, 0x48, 0x28, 0xc1], // vmovaps zmm0, zmm1
        &[0x0f, 0xae, 0x00],                   // fxsave
    ];
    for bytes in extensions {
        let fault = instruction_fault(bytes);
        assert!(
            matches!(fault, InstructionFault::Extension(..)),
            "{bytes:x?}: {fault:?}"
        );
    }
}

#[test]
fn extensions_that_no_kernel_promises_are_refused() {
    // popcnt, crc32, rdrand, xbegin's neighbour rdtscp, cmpxchg16b
    let extensions: [&[u8]; 5] = [
        &[0xf3, 0x0f, 0xb8, 0xc1],
        &[0xf2, 0x0f, 0x38, 0xf1, 0xc1],
        &[0x0f, 0xc7, 0xf0],
        &[0x0f, 0x01, 0xf9],
        &[0x48, 0x0f, 0xc7, 0x08],
    ];
    for bytes in extensions {
        let fault = instruction_fault(bytes);
        assert!(
            matches!(fault, InstructionFault::Extension(..)),
            "{bytes:x?}: {fault:?}"
        );
    }
}

#[test]
fn branches_without_the_kernels_thunks_are_refused() {
    assert_eq!(instruction_fault(&[0xc3]), InstructionFault::Return);
    assert_eq!(instruction_fault(&[0xc2, 8, 0]), InstructionFault::Return);
    // call rax; jmp rax; call [rip]; jmp [rax*8]
    let indirect: [&[u8]; 4] = [
        &[0xff, 0xd0],
        &[0xff, 0xe0],
        &[0xff, 0x15, 0, 0, 0, 0],
        &[0xff, 0x24, 0xc5, 0, 0, 0, 0],
    ];
    for bytes in indirect {
        assert_eq!(
            instruction_fault(bytes),
            InstructionFault::IndirectBranch,
            "{bytes:x?}"
        );
    }
}

#[test]
fn the_kernels_own_business_is_refused() {
    // hlt, cli, in, mov cr3
    let privileged: [&[u8]; 4] = [&[0xf4], &[0xfa], &[0xec], &[0x0f, 0x22, 0xd8]];
    for bytes in privileged {
        let fault = instruction_fault(bytes);
        assert!(
            matches!(fault, InstructionFault::Privileged(_)),
            "{bytes:x?}: {fault:?}"
        );
    }
    // wrmsr, vmmcall, syscall: of extensions, so they do not even come to that.
    let extensions: [&[u8]; 3] = [&[0x0f, 0x30], &[0x0f, 0x01, 0xd9], &[0x0f, 0x05]];
    for bytes in extensions {
        let fault = instruction_fault(bytes);
        assert!(
            matches!(fault, InstructionFault::Extension(..)),
            "{bytes:x?}: {fault:?}"
        );
    }
    // int 0x80, int1
    let leaves: [&[u8]; 2] = [&[0xcd, 0x80], &[0xf1]];
    for bytes in leaves {
        let fault = instruction_fault(bytes);
        assert!(
            matches!(fault, InstructionFault::Leaves(_)),
            "{bytes:x?}: {fault:?}"
        );
    }
}

#[test]
fn what_is_no_instruction_is_refused() {
    assert_eq!(instruction_fault(&[0x06]), InstructionFault::Invalid);
    // One that the section's end cuts off.
    assert_eq!(instruction_fault(&[0x48]), InstructionFault::Invalid);
}
