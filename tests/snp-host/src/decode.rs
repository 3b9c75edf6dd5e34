// SPDX-License-Identifier: MIT OR Apache-2.0
//! The few instructions this host has to recognize from their bytes; QEMU's nested SVM reports
//! neither the bytes nor the next RIP. Source: APM volume 3.

/// An SNP instruction that arrives as #UD or VMMCALL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trapped {
    /// F2 0F 01 FF.
    Pvalidate,
    /// F3 0F 01 FE.
    RmpAdjust,
    /// F3 0F 01 FD.
    RmpQuery,
    /// F2 or F3 0F 01 D9.
    Vmgexit,
    /// 0F 01 FE.
    Invlpgb,
    /// 0F 01 FF.
    Tlbsync,
}

impl Trapped {
    /// Recognizes the instruction at the start of `bytes`.
    #[must_use]
    pub const fn decode(bytes: [u8; 4]) -> Option<Self> {
        Some(match bytes {
            [0xF2, 0x0F, 0x01, 0xFF] => Self::Pvalidate,
            [0xF3, 0x0F, 0x01, 0xFE] => Self::RmpAdjust,
            [0xF3, 0x0F, 0x01, 0xFD] => Self::RmpQuery,
            [0xF2 | 0xF3, 0x0F, 0x01, 0xD9] => Self::Vmgexit,
            [0x0F, 0x01, 0xFE, _] => Self::Invlpgb,
            [0x0F, 0x01, 0xFF, _] => Self::Tlbsync,
            _ => return None,
        })
    }

    /// Length in bytes.
    #[must_use]
    pub const fn length(self) -> u64 {
        match self {
            Self::Invlpgb | Self::Tlbsync => 3,
            _ => 4,
        }
    }
}

/// A write to CR0 in 16- or 32-bit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cr0Write {
    /// LMSW, which changes the low four bits only, instead of MOV CR0.
    pub machine_status_word: bool,
    /// Encoding of the source register.
    pub register: u8,
    /// Length in bytes.
    pub length: u64,
}

impl Cr0Write {
    /// Recognizes MOV CR0, r32 (0F 22 /r) and LMSW r (0F 01 /6) behind an optional operand-size
    /// prefix.
    #[must_use]
    pub fn decode(bytes: &[u8; 4]) -> Option<Self> {
        let prefix = usize::from(bytes[0] == 0x66);
        let [escape, opcode, modrm] = *bytes.get(prefix..)?.first_chunk()?;
        let (reg, register) = ((modrm >> 3) & 7, modrm & 7);
        let machine_status_word = match (escape, opcode, reg) {
            (0x0F, 0x22, 0) => false,
            (0x0F, 0x01, 6) if modrm >> 6 == 3 => true,
            _ => return None,
        };
        Some(Self {
            machine_status_word,
            register,
            length: prefix as u64 + 3,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn snp_instructions() {
        assert_eq!(
            Trapped::decode([0xF2, 0x0F, 0x01, 0xFF]),
            Some(Trapped::Pvalidate)
        );
        assert_eq!(
            Trapped::decode([0xF3, 0x0F, 0x01, 0xFE]),
            Some(Trapped::RmpAdjust)
        );
        assert_eq!(
            Trapped::decode([0xF3, 0x0F, 0x01, 0xFD]),
            Some(Trapped::RmpQuery)
        );
        assert_eq!(
            Trapped::decode([0xF3, 0x0F, 0x01, 0xD9]),
            Some(Trapped::Vmgexit)
        );
        assert_eq!(
            Trapped::decode([0x0F, 0x01, 0xFF, 0xF2]),
            Some(Trapped::Tlbsync)
        );
        // RMPUPDATE and PSMASH are the hypervisor's; a plain VMMCALL is no VMGEXIT.
        for other in [
            [0xF2, 0x0F, 0x01, 0xFE],
            [0xF3, 0x0F, 0x01, 0xFF],
            [0x0F, 0x01, 0xD9, 0],
        ] {
            assert_eq!(Trapped::decode(other), None);
        }
    }

    #[test]
    fn writes_to_cr0() {
        let mov = Cr0Write {
            machine_status_word: false,
            register: 0,
            length: 3,
        };
        assert_eq!(Cr0Write::decode(&[0x0F, 0x22, 0xC0, 0x90]), Some(mov));
        let prefixed = Cr0Write {
            register: 2,
            length: 4,
            ..mov
        };
        assert_eq!(Cr0Write::decode(&[0x66, 0x0F, 0x22, 0xC2]), Some(prefixed));
        let lmsw = Cr0Write {
            machine_status_word: true,
            register: 3,
            length: 3,
        };
        assert_eq!(Cr0Write::decode(&[0x0F, 0x01, 0xF3, 0x90]), Some(lmsw));
        assert_eq!(Cr0Write::decode(&[0x0F, 0x22, 0xD8, 0x90]), None); // CR3
    }
}
