// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reads a static ELF64 executable into the 4 KiB pages that are launched.
//!
//! The images run with physical = virtual addresses, so a segment's address is the guest physical
//! address of its bytes (ELF specification, program header `p_paddr`).

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use elf::ElfBytes;
use elf::abi::{
    EI_CLASS, ELFCLASS32, EM_X86_64, ET_EXEC, PF_W, PF_X, PT_DYNAMIC, PT_INTERP, PT_LOAD,
};
use elf::endian::AnyEndian;
use elf::segment::ProgramHeader;

use crate::Error;

/// Bytes of a page.
const PAGE: u64 = 4096;

/// One loaded segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// Its pages, both ends rounded to whole pages.
    pub pages: Range<u64>,
    /// The segment may be written.
    pub write: bool,
    /// The segment may be executed.
    pub execute: bool,
}

/// The pages of an executable, ready to be launched.
#[derive(Debug, Clone)]
pub struct ElfImage {
    /// Address of the first instruction.
    pub entry: u64,
    /// The segments by address; they share no page.
    pub segments: Vec<Segment>,
    /// Contents of every page of every segment, zeroed parts (`.bss`) included.
    pub pages: BTreeMap<u64, Box<[u8; 4096]>>,
}

impl ElfImage {
    /// Reads `bytes`, the contents of the file `path` (for messages), whose segments have to lie
    /// in `allowed`.
    ///
    /// # Errors
    /// Each says what is wrong with the file and how to link it instead.
    pub fn parse(path: &Path, bytes: &[u8], allowed: &Range<u64>) -> Result<Self, Error> {
        let file = check_header(path, bytes)?;
        let mut image = Self {
            entry: file.ehdr.e_entry,
            segments: Vec::new(),
            pages: BTreeMap::new(),
        };
        let mut headers: Vec<ProgramHeader> = file.segments().into_iter().flatten().collect();
        if headers
            .iter()
            .any(|header| matches!(header.p_type, PT_INTERP | PT_DYNAMIC))
        {
            return Err(not_an_elf(path, "dynamically linked or relocatable"));
        }
        headers.retain(|header| header.p_type == PT_LOAD && header.p_memsz != 0);
        headers.sort_by_key(|header| header.p_paddr);
        for header in &headers {
            image.load(path, &file, header, allowed)?;
        }
        let entered = |segment: &Segment| segment.execute && segment.pages.contains(&image.entry);
        if !image.segments.iter().any(entered) {
            return Err(Error::Entry {
                path: path.to_owned(),
                entry: image.entry,
            });
        }
        Ok(image)
    }

    fn load(
        &mut self,
        path: &Path,
        file: &ElfBytes<'_, AnyEndian>,
        header: &ProgramHeader,
        allowed: &Range<u64>,
    ) -> Result<(), Error> {
        let broken = |what: &str| Error::BrokenElf {
            path: path.to_owned(),
            what: what.to_owned(),
        };
        let start = header.p_paddr;
        let end = start
            .checked_add(header.p_memsz)
            .ok_or_else(|| broken("a segment wraps around the address space"))?;
        if start < allowed.start || end > allowed.end {
            return Err(Error::Outside {
                path: path.to_owned(),
                start,
                end,
                allowed_start: allowed.start,
                allowed_end: allowed.end,
            });
        }
        if header.p_vaddr != header.p_paddr {
            return Err(broken("a segment's virtual and physical address differ"));
        }
        if header.p_filesz > header.p_memsz {
            return Err(broken("a segment is larger in the file than in memory"));
        }
        let data = file
            .segment_data(header)
            .map_err(|_| broken("a segment lies outside the file"))?;

        let pages = start & !(PAGE - 1)..end.next_multiple_of(PAGE);
        for gpa in pages.clone().step_by(4096) {
            if self.pages.insert(gpa, Box::new([0; 4096])).is_some() {
                let path = path.to_owned();
                return Err(Error::SharedPage { path, gpa });
            }
        }
        // The first page may begin before the segment; every later piece is page-aligned.
        let mut address = start;
        let mut rest = data;
        while !rest.is_empty() {
            let offset = (address % PAGE) as usize;
            let (piece, later) = rest.split_at(rest.len().min(4096 - offset));
            if let Some(page) = self.pages.get_mut(&(address & !(PAGE - 1))) {
                page[offset..offset + piece.len()].copy_from_slice(piece);
            }
            address += piece.len() as u64;
            rest = later;
        }
        self.segments.push(Segment {
            pages,
            write: header.p_flags & PF_W != 0,
            execute: header.p_flags & PF_X != 0,
        });
        Ok(())
    }
}

fn not_an_elf(path: &Path, what: &'static str) -> Error {
    Error::NotAnElf {
        path: path.to_owned(),
        what,
    }
}

/// Checks everything that makes the file one of ours before a segment is looked at.
fn check_header<'a>(path: &Path, bytes: &'a [u8]) -> Result<ElfBytes<'a, AnyEndian>, Error> {
    if bytes.is_empty() {
        return Err(not_an_elf(path, "empty"));
    }
    if !bytes.starts_with(b"\x7fELF") {
        return Err(not_an_elf(path, "no ELF file"));
    }
    // Looked at first: the parser calls the headers of such a file damaged.
    if bytes.get(EI_CLASS) == Some(&ELFCLASS32) {
        return Err(not_an_elf(path, "a 32-bit ELF file"));
    }
    let file = ElfBytes::<AnyEndian>::minimal_parse(bytes).map_err(|error| Error::BrokenElf {
        path: path.to_owned(),
        what: format!("unreadable ELF headers ({error})"),
    })?;
    if file.ehdr.e_machine != EM_X86_64 || file.ehdr.endianness != AnyEndian::Little {
        return Err(not_an_elf(path, "an ELF file for another machine"));
    }
    if file.ehdr.e_type != ET_EXEC {
        return Err(not_an_elf(
            path,
            "an ELF file that is not a fixed-address executable",
        ));
    }
    Ok(file)
}
