// SPDX-License-Identifier: MIT OR Apache-2.0
//! Makes small files for the tests that have the header of a bzImage (Linux,
//! Documentation/arch/x86/boot.rst).

/// Sectors of the real-mode part behind the first one.
const SECTORS: u8 = 3;

/// A relocatable 64-bit kernel with `protected` bytes of protected-mode code, which claims 48 MiB to
/// unpack itself.
pub fn small_kernel(protected: usize) -> Vec<u8> {
    let start = (usize::from(SECTORS) + 1) * 512;
    let mut file = vec![0; start];
    let mut put = |offset: usize, bytes: &[u8]| {
        file[offset..offset + bytes.len()].copy_from_slice(bytes);
    };
    put(0x1f1, &[SECTORS]);
    let paragraphs = u32::try_from(protected.div_ceil(16)).expect("a small kernel");
    put(0x1f4, &paragraphs.to_le_bytes());
    put(0x1fe, &[0x55, 0xaa]);
    put(0x200, &[0xeb, 0x6a]);
    put(0x202, b"HdrS");
    put(0x206, &0x020f_u16.to_le_bytes());
    put(0x211, &[1]);
    put(0x22c, &0x7fff_ffff_u32.to_le_bytes());
    put(0x230, &0x20_0000_u32.to_le_bytes());
    put(0x234, &[1]);
    put(0x236, &0x7f_u16.to_le_bytes());
    put(0x238, &2047_u32.to_le_bytes());
    put(0x258, &0x100_0000_u64.to_le_bytes());
    put(0x260, &(48_u32 << 20).to_le_bytes());
    file.extend((0..251_u8).cycle().take(protected.next_multiple_of(16)));
    file
}

/// A cpio archive without members.
pub fn empty_archive() -> Vec<u8> {
    let mut file = b"070701".to_vec();
    for field in [0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 11, 0] {
        file.extend(format!("{field:08X}").bytes());
    }
    file.extend(b"TRAILER!!!\0");
    file.resize(file.len().next_multiple_of(4), 0);
    file
}
