// SPDX-License-Identifier: MIT OR Apache-2.0
//! Stack that functions of an object file need, read from its machine code. Shared with the test that bounds it.
//!
//! A function's frame is what its instructions take from the stack: pushes, subtractions and alignments, all of them
//! added up wherever they stand, so it is never less than what is taken at one time. A function needs its frame and, for
//! each call, the return address and what the called function needs. Functions of the kernel count nothing but the return
//! address; they are named. What cannot be read is an error: a call or a jump through a pointer or a table (kernels have objects
//! built without jump tables), a recursion, an unknown way to move the stack pointer.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

/// What the functions of the interface begin with.
pub const PREFIX: &str = "svsm_swiotlb_";
/// Functions that the kernel defines.
const PLATFORM: &str = "svsm_swiotlb_platform_";
/// Calls through these go where a register says.
const THUNKS: &str = "__x86_indirect_thunk";
/// A function returns through it; what it needs is the return address of a call inside.
const RETURN_THUNK: &str = "__x86_return_thunk";
const WORD: u64 = 8;

/// What a function of the interface needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Need {
    /// Bytes, its own return address included.
    pub bytes: u64,
    /// The functions on the deepest way, without the first.
    pub path: Vec<String>,
    /// Functions of the kernel that it may call; what they need comes on top.
    pub kernel: BTreeSet<String>,
}

/// One function's code, as far as the stack is concerned.
#[derive(Debug, Default)]
struct Function {
    frame: u64,
    /// Names of called functions, or `section+offset`.
    calls: BTreeSet<String>,
    /// The same for jumps out of the function, which leave nothing on the stack.
    jumps: BTreeSet<String>,
    /// What cannot be read.
    unknown: Vec<String>,
    /// Names whose addresses registers hold, from the global offset table.
    loaded: BTreeMap<String, String>,
}

/// What an instruction refers to.
struct Relocation<'a> {
    kind: &'a str,
    place: &'a str,
}

impl<'a> Relocation<'a> {
    /// Reads `address: kind place`.
    fn read(line: &'a str) -> Option<Self> {
        let mut words = line.split_whitespace().skip(1);
        Some(Self {
            kind: words.next()?,
            place: words.next()?,
        })
    }
}

/// All code of an object.
#[derive(Debug, Default)]
struct Code {
    functions: BTreeMap<String, Function>,
    /// Names by section and address.
    places: BTreeMap<String, String>,
}

/// Stack that each function of the interface in an object file needs, by name.
///
/// # Errors
/// What is not understood, with the function it stands in.
pub fn needs(object: &Path) -> Result<BTreeMap<String, Need>, String> {
    let output = Command::new("objdump")
        .args(["-d", "-r", "--no-show-raw-insn"])
        .arg(object)
        .output()
        .map_err(|error| format!("objdump: {error}; is binutils installed?"))?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    let code = Code::read(&String::from_utf8_lossy(&output.stdout));
    let entries: Vec<_> = code
        .functions
        .keys()
        .filter(|name| name.starts_with(PREFIX) && !name.starts_with(PLATFORM))
        .cloned()
        .collect();
    if entries.is_empty() {
        return Err(format!("{}: no function {PREFIX}*", object.display()));
    }
    let mut known = BTreeMap::new();
    entries
        .into_iter()
        .map(|name| {
            let need = code.need(&name, &mut Vec::new(), &mut known)?;
            Ok((name, need))
        })
        .collect()
}

impl Code {
    fn read(listing: &str) -> Self {
        let mut code = Self::default();
        let (mut section, mut name) = (String::new(), String::new());
        let mut lines = listing.lines().peekable();
        while let Some(line) = lines.next() {
            if let Some(rest) = line.strip_prefix("Disassembly of section ") {
                rest.trim_end_matches(':').clone_into(&mut section);
            } else if let Some((address, rest)) = line
                .strip_suffix(">:")
                .and_then(|line| line.split_once(" <"))
            {
                rest.clone_into(&mut name);
                let address = u64::from_str_radix(address, 16).unwrap_or(u64::MAX);
                code.places
                    .insert(format!("{section}+{address:#x}"), name.clone());
                if address == 0 {
                    code.places.insert(section.clone(), name.clone());
                }
                code.functions.entry(name.clone()).or_default();
            } else if let Some((_, instruction)) = line.split_once(":\t")
                && let Some(function) = code.functions.get_mut(&name)
                && !line.contains("\tR_X86_64")
            {
                let relocation = lines
                    .next_if(|next| next.contains("R_X86_64"))
                    .and_then(Relocation::read);
                function.step(instruction.trim(), relocation, &name);
            }
        }
        code
    }

    /// What a function needs. `way` is how it was reached.
    fn need(
        &self,
        name: &str,
        way: &mut Vec<String>,
        known: &mut BTreeMap<String, Need>,
    ) -> Result<Need, String> {
        let name = self.places.get(name).map_or(name, String::as_str);
        if let Some(need) = known.get(name) {
            return Ok(need.clone());
        }
        let Some(function) = self.functions.get(name) else {
            return Ok(Need {
                bytes: WORD,
                path: Vec::new(),
                kernel: BTreeSet::from([name.to_owned()]),
            });
        };
        if let Some(unknown) = function.unknown.first() {
            return Err(format!("{name}: not understood: {unknown}"));
        }
        if way.iter().any(|before| before == name) {
            return Err(format!("{name} calls itself: {way:?}"));
        }
        way.push(name.to_owned());
        let mut deepest = Need {
            bytes: function.frame + WORD,
            path: Vec::new(),
            kernel: BTreeSet::new(),
        };
        // A jump out of a function is its last act: nothing but the return address is left.
        let calls = function
            .calls
            .iter()
            .map(|called| (called, WORD + function.frame));
        let jumps = function.jumps.iter().map(|target| (target, 0));
        for (called, held) in calls.chain(jumps) {
            let below = self.need(called, way, known)?;
            deepest.kernel.extend(below.kernel);
            if held + below.bytes > deepest.bytes {
                deepest.bytes = held + below.bytes;
                deepest.path = [vec![called.clone()], below.path].concat();
            }
        }
        way.pop();
        known.insert(name.to_owned(), deepest.clone());
        Ok(deepest)
    }
}

impl Function {
    /// Adds what one instruction does. `relocation` is what it refers to.
    fn step(&mut self, instruction: &str, relocation: Option<Relocation<'_>>, own: &str) {
        let instruction = instruction.split(" #").next().unwrap_or_default().trim();
        let (mnemonic, operands) = instruction
            .split_once(char::is_whitespace)
            .map_or((instruction, ""), |(mnemonic, operands)| {
                (mnemonic, operands.trim())
            });
        // Through the global offset table the place is a name all the same.
        let by_name = relocation
            .as_ref()
            .is_some_and(|relocation| relocation.kind.contains("GOTPCREL"));
        let target = relocation
            .map(|relocation| target_of(relocation.place))
            .or_else(|| symbol(operands));
        self.track_loads(mnemonic, operands, target.as_deref().filter(|_| by_name));
        match mnemonic {
            "push" => self.frame += WORD,
            "sub" if operands.ends_with(",%rsp") => match immediate(operands) {
                Some(bytes) => self.frame += bytes,
                None => self.unknown.push(instruction.to_owned()),
            },
            // An alignment takes less than its granule.
            "and" if operands.ends_with(",%rsp") => match immediate(operands) {
                Some(mask) => self.frame += mask.wrapping_neg() - 1,
                None => self.unknown.push(instruction.to_owned()),
            },
            // Back up, or from where a frame pointer says.
            "add" | "lea" | "mov" | "pop" | "leave" | "cmp" | "test" => {
                // The loop that touches each page of a large frame begins like this: where it ends.
                if mnemonic == "lea"
                    && operands.starts_with('-')
                    && operands.contains("(%rsp),%r11")
                {
                    let bytes = operands
                        .strip_prefix('-')
                        .and_then(|rest| rest.split_once('('))
                        .and_then(|(bytes, _)| number(bytes));
                    match bytes {
                        Some(bytes) => self.frame += bytes,
                        None => self.unknown.push(instruction.to_owned()),
                    }
                } else if mnemonic == "lea"
                    && operands.ends_with(",%rsp")
                    && operands.starts_with('-')
                    && !operands.contains("(%rbp)")
                {
                    self.unknown.push(instruction.to_owned());
                }
            }
            "call" | "callq" => match target {
                Some(target)
                    if (by_name || !operands.starts_with('*')) && !target.starts_with(THUNKS) =>
                {
                    self.calls.insert(target);
                }
                _ => match operands
                    .strip_prefix('*')
                    .and_then(|register| self.loaded.get(register))
                {
                    Some(target) => {
                        self.calls.insert(target.clone());
                    }
                    None => self.unknown.push(instruction.to_owned()),
                },
            },
            _ if mnemonic.starts_with('j') => match target {
                Some(target) if target == RETURN_THUNK || is_inside(&target, own) => {}
                Some(target) if !operands.starts_with('*') && !target.starts_with(THUNKS) => {
                    self.jumps.insert(target);
                }
                // Through a table or a pointer: nobody knows where to.
                _ => self.unknown.push(instruction.to_owned()),
            },
            _ if operands.ends_with(",%rsp") => self.unknown.push(instruction.to_owned()),
            _ => {}
        }
    }
}

impl Function {
    /// Remembers a register that gets a name's address, and forgets one that gets something else.
    fn track_loads(&mut self, mnemonic: &str, operands: &str, name: Option<&str>) {
        let Some(register) = operands.rsplit(',').next().and_then(whole_register) else {
            return;
        };
        match name {
            Some(name) if mnemonic == "mov" => {
                self.loaded.insert(register, name.to_owned());
            }
            _ if mnemonic.starts_with("call") || mnemonic == "push" => {}
            _ => {
                self.loaded.remove(&register);
            }
        }
    }
}

/// The 64-bit register of which an operand is all or part.
fn whole_register(operand: &str) -> Option<String> {
    let name = operand.strip_prefix('%')?;
    let numbered = name
        .strip_prefix('r')
        .filter(|rest| rest.starts_with(|first: char| first.is_ascii_digit()));
    let whole = match numbered {
        Some(number) => {
            let digits = number.trim_end_matches(['d', 'w', 'b']);
            format!("%r{digits}")
        }
        None if name.len() == 3 => format!("%r{}", &name[1..]),
        None => format!("%r{}", name.trim_end_matches(['l', 'h'])),
    };
    Some(match whole.as_str() {
        "%ra" => "%rax".to_owned(),
        "%rb" => "%rbx".to_owned(),
        "%rc" => "%rcx".to_owned(),
        "%rd" => "%rdx".to_owned(),
        _ => whole,
    })
}

/// What a relocation of a call refers to: a name, or a place in a section.
fn target_of(relocation: &str) -> String {
    let place = relocation.strip_suffix("-0x4").unwrap_or(relocation);
    match place.rsplit_once("+0x") {
        // The processor adds the distance from the end of the instruction, four bytes behind the field.
        Some((section, offset)) => match u64::from_str_radix(offset, 16) {
            Ok(offset) => format!("{section}+{:#x}", offset + 4),
            Err(_) => place.to_owned(),
        },
        None => place.to_owned(),
    }
}

/// The name in `address <name>` or `address <name+0x12>`.
fn symbol(operands: &str) -> Option<String> {
    let (_, rest) = operands.split_once('<')?;
    rest.strip_suffix('>').map(str::to_owned)
}

/// Whether a jump stays inside the function that makes it.
fn is_inside(target: &str, own: &str) -> bool {
    target
        .strip_prefix(own)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with("+0x"))
}

fn immediate(operands: &str) -> Option<u64> {
    let (value, _) = operands.strip_prefix('$')?.split_once(',')?;
    number(value)
}

fn number(text: &str) -> Option<u64> {
    u64::from_str_radix(text.strip_prefix("0x")?, 16).ok()
}
