// SPDX-License-Identifier: MIT OR Apache-2.0
//! TCB_VERSION: the security versions of what the secure processor and the cores run (SEV-SNP firmware ABI 1.58, tables 3 and 4).

use std::str::FromStr;

/// Security versions by their part.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TcbVersion {
    /// Of the module that loads the others (FMC); since Turin.
    pub fmc: Option<u8>,
    /// Of the secure processor's boot loader.
    pub bootloader: u8,
    /// Of its operating system.
    pub tee: u8,
    /// Of the SNP firmware.
    pub snp: u8,
    /// Least microcode patch level of all cores.
    pub microcode: u8,
}

impl TcbVersion {
    /// The parts of `raw`, in the layout since Turin or in the one before.
    #[must_use]
    pub const fn decode(raw: [u8; 8], turin: bool) -> Self {
        if turin {
            let [fmc, bootloader, tee, snp, .., microcode] = raw;
            Self {
                fmc: Some(fmc),
                bootloader,
                tee,
                snp,
                microcode,
            }
        } else {
            let [bootloader, tee, .., snp, microcode] = raw;
            Self {
                fmc: None,
                bootloader,
                tee,
                snp,
                microcode,
            }
        }
    }

    /// Each part that both layouts have, with its name.
    #[must_use]
    pub const fn parts(self) -> [(&'static str, u8); 4] {
        [
            ("bootloader", self.bootloader),
            ("tee", self.tee),
            ("snp", self.snp),
            ("microcode", self.microcode),
        ]
    }
}

/// Least versions that a verifier accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MinimumTcb(pub TcbVersion);

impl FromStr for MinimumTcb {
    type Err = String;

    /// Parses `bootloader=N,tee=N,snp=N,microcode=N`, for Turin and later with `fmc=N` besides. Nothing is left out by accident.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut found = [None; 5];
        for part in text.split(',') {
            let number = |value: &str| value.parse::<u8>().ok();
            let pair = part
                .split_once('=')
                .map(|(name, value)| (name, number(value)));
            let (name, Some(value)) = pair.unwrap_or((part, None)) else {
                return Err(format!(
                    "'{part}' is no part of a TCB version; write name=0 to name=255"
                ));
            };
            let names = ["bootloader", "tee", "snp", "microcode", "fmc"];
            let Some(slot) = names
                .iter()
                .zip(&mut found)
                .find(|(known, _)| **known == name)
            else {
                return Err(format!(
                    "'{name}' is no part of a TCB version; the parts are {}",
                    names.join(", ")
                ));
            };
            if slot.1.replace(value).is_some() {
                return Err(format!("'{name}' is there twice; write it once"));
            }
        }
        let [Some(bootloader), Some(tee), Some(snp), Some(microcode), fmc] = found else {
            return Err(
                "a part of the TCB version is missing; write bootloader=N,tee=N,snp=N,microcode=N"
                    .into(),
            );
        };
        Ok(Self(TcbVersion {
            fmc,
            bootloader,
            tee,
            snp,
            microcode,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::{MinimumTcb, TcbVersion};

    #[test]
    fn both_layouts_are_decoded() {
        let raw = [1, 2, 3, 4, 5, 6, 7, 8];
        let milan = TcbVersion::decode(raw, false);
        assert_eq!(milan.parts().map(|(_, value)| value), [1, 2, 7, 8]);
        assert_eq!(milan.fmc, None);
        let turin = TcbVersion::decode(raw, true);
        assert_eq!(turin.parts().map(|(_, value)| value), [2, 3, 4, 8]);
        assert_eq!(turin.fmc, Some(1));
    }

    #[test]
    fn a_minimum_has_every_part() {
        let minimum: MinimumTcb = "snp=27,microcode=86,tee=0,bootloader=10"
            .parse()
            .expect("all parts");
        assert_eq!(minimum.0.parts().map(|(_, value)| value), [10, 0, 27, 86]);
        assert_eq!(minimum.0.fmc, None);
        let turin = "fmc=1,bootloader=2,tee=3,snp=4,microcode=5".parse::<MinimumTcb>();
        assert_eq!(turin.map(|minimum| minimum.0.fmc), Ok(Some(1)));
        for (wrong, part) in [
            ("", "is no part"),
            ("snp=27", "missing"),
            ("bootloader=1,tee=2,snp=3", "missing"),
            ("bootloader=1,tee=2,snp=3,microcode=256", "'microcode=256'"),
            ("bootloader=1,tee=2,snp=3,ucode=4", "'ucode'"),
            ("bootloader=1,tee=2,snp=3,microcode=4,snp=5", "twice"),
        ] {
            let message = wrong.parse::<MinimumTcb>().expect_err(wrong);
            assert!(message.contains(part), "{message}");
        }
    }
}
