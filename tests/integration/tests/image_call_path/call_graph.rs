// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which function of a linked image refers to which, by the relocations that the linker was told to keep.
//!
//! The compiler puts every function into a section of its own, so each call, jump or address of another function
//! is a relocation. What has none are indirect calls: they go to functions whose address is in the data, which
//! [`CallGraph::in_data`] lists, or in the code, which counts as a reference.

use std::collections::{BTreeMap, BTreeSet};

use elf::ElfBytes;
use elf::abi::{
    R_X86_64_GOTPCREL, R_X86_64_PC32, R_X86_64_PLT32, SHF_ALLOC, SHF_EXECINSTR, SHT_RELA, STT_FUNC,
};
use elf::endian::LittleEndian;
use elf::relocation::Rela;

use crate::frames::frames;

/// R_X86_64_GOTPCRELX and R_X86_64_REX_GOTPCRELX.
const RELAXED: [u32; 2] = [41, 42];

fn debug_frame<'a>(file: &ElfBytes<'a, LittleEndian>) -> &'a [u8] {
    let section = file.section_header_by_name(".debug_frame").unwrap();
    let (bytes, compression) = file.section_data(&section.expect("call frames")).unwrap();
    assert!(compression.is_none());
    bytes
}

/// Functions by name.
pub struct CallGraph {
    /// Start, end and name, by start.
    functions: Vec<(u64, u64, String)>,
    references: BTreeMap<usize, BTreeSet<usize>>,
    /// Functions whose address is in the data.
    in_data: BTreeSet<usize>,
    /// Bytes of each function's frame, by its start.
    frames: BTreeMap<u64, u64>,
}

impl CallGraph {
    /// Of an image that was linked with `--emit-relocs`.
    pub fn of(image: &[u8]) -> Self {
        let file = ElfBytes::<LittleEndian>::minimal_parse(image).unwrap();
        let (symbols, names) = file.symbol_table().unwrap().expect("symbols");
        let mut functions: Vec<_> = symbols
            .iter()
            .filter(|symbol| symbol.st_symtype() == STT_FUNC && symbol.st_size > 0)
            .map(|symbol| {
                let name = names.get(symbol.st_name as usize).unwrap().to_owned();
                (symbol.st_value, symbol.st_value + symbol.st_size, name)
            })
            .collect();
        functions.sort();
        let mut graph = Self {
            functions,
            references: BTreeMap::new(),
            in_data: BTreeSet::new(),
            frames: frames(debug_frame(&file)),
        };
        let target = |rela: &Rela| {
            let symbol = symbols.get(rela.r_sym as usize).unwrap();
            if symbol.st_symtype() == STT_FUNC {
                return symbol.st_value;
            }
            let relative = [R_X86_64_PC32, R_X86_64_PLT32, R_X86_64_GOTPCREL]
                .contains(&rela.r_type)
                || RELAXED.contains(&rela.r_type);
            let address = symbol.st_value.wrapping_add_signed(rela.r_addend);
            // Relative to the end of the field.
            address.wrapping_add(if relative { 4 } else { 0 })
        };
        let sections = file.section_headers().expect("sections");
        let mut seen = 0;
        for section in sections
            .iter()
            .filter(|section| section.sh_type == SHT_RELA)
        {
            let of = sections.get(section.sh_info as usize).unwrap();
            if of.sh_flags & u64::from(SHF_ALLOC) == 0 {
                continue;
            }
            for rela in file.section_data_as_relas(&section).unwrap() {
                seen += 1;
                let target = target(&rela);
                let Some(to) = graph.at(target) else {
                    continue; // data
                };
                match graph.at(rela.r_offset) {
                    Some(from) => _ = graph.references.entry(from).or_default().insert(to),
                    // Assembly begins a processor's boot or calls the handler of exceptions.
                    None if of.sh_flags & u64::from(SHF_EXECINSTR) != 0 => {}
                    // Jump tables point into the middle of the function that they belong to.
                    None if graph.functions[to].0 == target => _ = graph.in_data.insert(to),
                    None => {}
                }
            }
        }
        assert!(seen > 0, "the image has no relocations");
        graph
    }

    /// The function at an address.
    fn at(&self, address: u64) -> Option<usize> {
        let index = self
            .functions
            .partition_point(|(start, ..)| *start <= address);
        let index = index.checked_sub(1)?;
        (address < self.functions[index].1).then_some(index)
    }

    /// The one function whose mangled name has this part.
    pub fn named(&self, part: &str) -> usize {
        let mut found =
            (0..self.functions.len()).filter(|function| self.name(*function).contains(part));
        let function = found.next().unwrap_or_else(|| panic!("no function {part}"));
        assert_eq!(found.next(), None, "two functions {part}");
        function
    }

    pub fn name(&self, function: usize) -> &str {
        &self.functions[function].2
    }

    pub fn in_data(&self) -> impl Iterator<Item = usize> {
        self.in_data.iter().copied()
    }

    /// The functions on a way from one to another, without those that `avoiding` names.
    pub fn way(&self, from: usize, to: usize, avoiding: &[usize]) -> Option<Vec<&str>> {
        let mut came_from = BTreeMap::from([(from, None)]);
        let mut next = vec![from];
        while let Some(function) = next.pop() {
            if function == to {
                let way = std::iter::successors(Some(to), |function| came_from[function]);
                let mut way: Vec<_> = way.map(|function| self.name(function)).collect();
                way.reverse();
                return Some(way);
            }
            for callee in self.references.get(&function).into_iter().flatten() {
                if !avoiding.contains(callee) && !came_from.contains_key(callee) {
                    came_from.insert(*callee, Some(function));
                    next.push(*callee);
                }
            }
        }
        None
    }

    /// The most stack from a function on, and the functions that take it, without those that `avoiding` names.
    pub fn deepest(&self, from: usize, avoiding: &[usize]) -> Stack {
        self.deepest_of(from, avoiding, &mut Vec::new(), &mut BTreeMap::new())
    }

    fn deepest_of(
        &self,
        from: usize,
        avoiding: &[usize],
        callers: &mut Vec<usize>,
        known: &mut BTreeMap<usize, Stack>,
    ) -> Stack {
        assert!(!callers.contains(&from), "{} recurses", self.name(from));
        if let Some(stack) = known.get(&from) {
            return stack.clone();
        }
        callers.push(from);
        let callees = self.references.get(&from).into_iter().flatten();
        let callees = callees.filter(|callee| !avoiding.contains(callee));
        let mut stack = callees
            .map(|callee| self.deepest_of(*callee, avoiding, callers, known))
            .max()
            .unwrap_or_default();
        callers.pop();
        let frame = self.frames.get(&self.functions[from].0).copied();
        let frame = frame.unwrap_or_default();
        stack.bytes += frame;
        stack.frames.push((frame, self.name(from).to_owned()));
        known.insert(from, stack.clone());
        stack
    }
}

/// A stack at its deepest.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stack {
    pub bytes: u64,
    /// The last caller last.
    pub frames: Vec<(u64, String)>,
}
