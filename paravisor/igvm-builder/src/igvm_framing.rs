// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whether bytes are an IGVM file at all.

use igvm_defs::IGVM_MAGIC_VALUE;

/// Magic and a variable header section that lies inside the file. The parser of the `igvm` crate trusts these sums, so a
/// foreign file must not reach it.
#[must_use]
pub fn is_framed(bytes: &[u8]) -> bool {
    let word = |index: usize| {
        let field = bytes.get(index * 4..index * 4 + 4)?;
        Some(u32::from_le_bytes(field.try_into().ok()?))
    };
    match (word(0), word(2), word(3)) {
        (Some(IGVM_MAGIC_VALUE), Some(offset), Some(size)) => offset
            .checked_add(size)
            .is_some_and(|end| u64::from(end) < bytes.len() as u64),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::is_framed;

    #[test]
    fn foreign_and_cut_files_are_no_igvm_files() {
        let mut file = vec![0_u8; 64];
        file[..4].copy_from_slice(b"IGVM");
        file[8] = 24;
        file[12] = 8;
        assert!(is_framed(&file));
        assert!(!is_framed(&file[..20]));
        assert!(!is_framed(&file[..32]), "no file data");
        file[12..16].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(!is_framed(&file), "the section would wrap");
        file[0] = 0x7f;
        assert!(!is_framed(&file));
    }
}
