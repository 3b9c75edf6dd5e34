// SPDX-License-Identifier: MIT OR Apache-2.0
//! Writes small ELF64 executables for the tests (ELF specification, `Elf64_Ehdr`, `Elf64_Phdr`).

/// A PT_LOAD segment.
#[derive(Clone)]
pub struct Load {
    pub address: u64,
    pub virtual_address: u64,
    pub data: Vec<u8>,
    pub memory_bytes: u64,
    /// 1 execute, 2 write, 4 read.
    pub flags: u32,
}

/// An executable.
#[derive(Clone)]
pub struct SmallElf {
    pub class: u8,
    pub machine: u16,
    pub kind: u16,
    pub entry: u64,
    pub loads: Vec<Load>,
}

/// A segment of code at `address`.
pub fn code(address: u64) -> Load {
    Load {
        address,
        virtual_address: address,
        data: vec![0xf4; 100],
        memory_bytes: 100,
        flags: 5,
    }
}

/// A writable segment at `address` with 5 bytes of data in `memory_bytes`.
pub fn data(address: u64, memory_bytes: u64) -> Load {
    Load {
        data: b"hello".to_vec(),
        memory_bytes,
        flags: 6,
        ..code(address)
    }
}

impl SmallElf {
    /// A static x86-64 executable that starts with its first segment.
    pub fn new(loads: Vec<Load>) -> Self {
        let entry = loads.first().map_or(0, |load| load.address);
        Self {
            class: 2,
            machine: 62,
            kind: 2,
            entry,
            loads,
        }
    }

    /// The file.
    pub fn bytes(&self) -> Vec<u8> {
        let mut file = vec![0x7f, b'E', b'L', b'F', self.class, 1, 1];
        file.resize(16, 0);
        file.extend(self.kind.to_le_bytes());
        file.extend(self.machine.to_le_bytes());
        file.extend(1_u32.to_le_bytes());
        file.extend(self.entry.to_le_bytes());
        file.extend(64_u64.to_le_bytes()); // program headers follow
        file.extend(0_u64.to_le_bytes()); // no section headers
        file.extend(0_u32.to_le_bytes());
        let count = u16::try_from(self.loads.len()).expect("a few segments");
        for field in [64, 56, count, 64, 0, 0] {
            file.extend(field.to_le_bytes());
        }
        let mut offset = 64 + 56 * self.loads.len() as u64;
        for load in &self.loads {
            file.extend(1_u32.to_le_bytes());
            file.extend(load.flags.to_le_bytes());
            let bytes = load.data.len() as u64;
            for field in [
                offset,
                load.virtual_address,
                load.address,
                bytes,
                load.memory_bytes,
                4096,
            ] {
                file.extend(field.to_le_bytes());
            }
            offset += bytes;
        }
        self.loads.iter().for_each(|load| file.extend(&load.data));
        file
    }
}
