// SPDX-License-Identifier: MIT OR Apache-2.0
//! The options of `runner run` that make the host, or the VMM that fills the image's parameters, hostile beyond its manners.

use std::str::FromStr;

use clap::{Args, ValueEnum, value_parser};
use igvm_builder::parse_size;
use snp_host::attack::PageAttackWord;
use snp_host::false_reply::FalseReplyWord;
use snp_host::injection::InjectionWord;
use snp_host::launch::kind;
use snp_host::surplus_launch::SurplusLaunchWord;

use crate::cpuid_decoy::CpuidDecoy;
use crate::launch_plan::MapEntry;

/// What the host does to a page; `snp_host::attack::Action` says more. The order is its numbering.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PageAction {
    /// Assigns it anew: it is not validated any more.
    Unvalidate,
    /// Takes it for itself.
    Share,
    /// Exchanges its frame with that of the secrets page.
    Remap,
    /// Puts the secrets page's frame there too, and insists.
    DoubleMap,
    /// The same, and switches the reverse map to whichever of the two is used.
    SwitchMap,
    /// Maps it read-only.
    ReadOnly,
    /// Makes it valid, which no host can: a defect of hardware.
    Validate,
}

/// When the host does it; `snp_host::attack::Moment` says more. The order is its numbering.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum AttackMoment {
    /// Behind exit COUNT of VMPL0.
    Exit,
    /// Behind exit COUNT of those that begin, interrupt and end calls.
    Call,
    /// To the page that VMPL0 validates, before validation COUNT.
    Validation,
    /// To the page that the guest names for a call (mode=attacked), one exit later in each call.
    Sweep,
    /// To a page that VMPL0 validates in such a call, one validation later in each call.
    SweepValidations,
}

/// Whose page, where the moment does not tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttackedPage {
    /// The one that VMPL0 executes.
    Code,
    /// The one with its stack.
    Stack,
    /// The one with the keys.
    Secrets,
    /// The boot vCPU's calling area.
    CallingArea,
    /// The first one of the service's chunk records and page states.
    Storage,
    /// This one.
    At(u64),
}

fn page_address(text: &str) -> Result<u64, String> {
    let address = parse_size(text).ok();
    let address = address.filter(|address| address % 4096 == 0);
    address.ok_or_else(|| "the address of a page".into())
}

impl FromStr for AttackedPage {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(match text {
            "code" => Self::Code,
            "stack" => Self::Stack,
            "secrets" => Self::Secrets,
            "calling-area" => Self::CallingArea,
            "storage" => Self::Storage,
            _ => Self::At(page_address(text).map_err(|error| {
                format!("write code, stack, secrets, calling-area, storage or {error}")
            })?),
        })
    }
}

/// A false reply as `REQUEST:FALSEHOOD`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MsrReply(FalseReplyWord);

/// Requests and falsehoods in the order of their numbering (`snp_host::false_reply`).
const REQUESTS: [&str; 6] = [
    "sev-info", "features", "psc", "register", "run-vmpl", "call",
];
const FALSEHOODS: [&str; 4] = ["code", "echo", "error", "none"];

impl FromStr for MsrReply {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let place = |names: &[&str], name: &str| {
            let found = names.iter().position(|one| *one == name);
            found.and_then(|place| u8::try_from(place).ok())
        };
        let parts = text.split_once(':').and_then(|(request, falsehood)| {
            Some((place(&REQUESTS, request)?, place(&FALSEHOODS, falsehood)?))
        });
        let (asked, falsehood) = parts.ok_or_else(|| {
            format!(
                "write one of {} and, behind a colon, one of {}",
                REQUESTS.join(", "),
                FALSEHOODS.join(", ")
            )
        })?;
        let word = FalseReplyWord::new()
            .with_asked(asked)
            .with_falsehood(falsehood);
        Ok(Self(word))
    }
}

/// An event as `TYPE:VECTOR@EXITS` or `TYPE:VECTOR@call:EXITS`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Injected(InjectionWord);

impl FromStr for Injected {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parse = || {
            let (kind, rest) = text.split_once(':')?;
            let (vector, exits) = rest.split_once('@')?;
            let kind = match kind {
                "interrupt" => 0,
                "nmi" => 2,
                "exception" => 3,
                _ => return None,
            };
            let in_call = exits.strip_prefix("call:");
            let number = in_call.unwrap_or(exits).parse().ok();
            let exits: u32 = number.filter(|exits| *exits < 1 << 20)?;
            let word = InjectionWord::new()
                .with_kind(kind)
                .with_vector(vector.parse().ok()?)
                .with_in_calls(in_call.is_some())
                .with_count(exits);
            Some(Self(word))
        };
        parse().ok_or_else(|| {
            "write interrupt, nmi or exception, a colon, a vector, @, call: or not, and a number of exits".into()
        })
    }
}

/// The moment of a surplus launch as `EXITS` or `call:EXITS`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SurplusEntry(SurplusLaunchWord);

impl FromStr for SurplusEntry {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let in_call = text.strip_prefix("call:");
        let count = in_call.unwrap_or(text).parse().ok();
        let count = count.filter(|count| (1..1 << 31).contains(count));
        let word = |count| {
            SurplusLaunchWord::new()
                .with_in_calls(in_call.is_some())
                .with_count(count)
        };
        count
            .map(|count| Self(word(count)))
            .ok_or_else(|| "write a number of exits, from 1 on, behind call: or not".into())
    }
}

impl FromStr for MapEntry {
    type Err = String;

    /// `FIRST+PAGES` or `FIRST+PAGES:TYPE`.
    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| match text.strip_prefix("0x") {
            Some(digits) => u64::from_str_radix(digits, 16).ok(),
            None => text.parse().ok(),
        };
        let parse = || {
            let (range, kind) = text.split_once(':').unwrap_or((text, "0"));
            let (first, pages) = range.split_once('+')?;
            Some(Self {
                first: number(first)?,
                pages: number(pages)?,
                kind: u16::try_from(number(kind)?).ok()?,
            })
        };
        parse().ok_or_else(|| "write FIRST+PAGES or FIRST+PAGES:TYPE".into())
    }
}

/// What is false beyond the manners.
#[derive(Debug, Clone, Default, Args)]
pub struct AttackOptions {
    /// What the host does to a page of the guest or of VMPL0
    #[arg(long, value_enum)]
    pub attack: Option<PageAction>,
    /// To which one: code, stack, secrets, calling-area, storage or an address [default: secrets]
    #[arg(long, value_name = "PAGE", requires = "attack")]
    pub attack_page: Option<AttackedPage>,
    /// When [default: exit]
    #[arg(long, value_enum, requires = "attack")]
    pub attack_moment: Option<AttackMoment>,
    /// For the moments exit, call and validation [default: 1]; for the sweeps the only series of calls [default: all]
    #[arg(long, value_name = "COUNT", requires = "attack", value_parser = value_parser!(u32).range(1..1 << 20))]
    pub attack_count: Option<u32>,
    /// What of the GHCB MSR protocol the host answers falsely, and how: sev-info, features, psc, register, run-vmpl or
    /// call, and code, echo, error or none
    #[arg(long, value_name = "REQUEST:FALSEHOOD")]
    pub msr_reply: Option<MsrReply>,
    /// Raise an event in VMPL0 behind so many of its exits, or of those that begin, interrupt and end calls: interrupt, nmi or
    /// exception, and its vector
    #[arg(long, value_name = "TYPE:VECTOR@[call:]EXITS")]
    pub inject: Option<Injected>,
    /// Run another launch VMSA on the last vCPU, after this many exits of VMPL0, or of those that begin, interrupt and end calls
    #[arg(long, value_name = "[call:]EXITS")]
    pub surplus_launch: Option<SurplusEntry>,
    /// List a leaf of the encryption leaf's number before it in the CPUID page, with another key
    #[arg(long, value_enum)]
    pub cpuid_decoy: Option<CpuidDecoy>,
    /// Launch these pages of zeros too, which the file does not name: they are valid from the start, and the digest differs
    #[arg(long, value_delimiter = ',', value_name = "ADDRESSES", value_parser = page_address)]
    pub launch_page: Vec<u64>,
    /// The memory map that the VMM gives the image instead of the true one: entries of FIRST+PAGES[:TYPE] in pages
    #[arg(long, value_delimiter = ',', value_name = "LIST")]
    pub memory_map: Vec<MapEntry>,
}

/// A record of the launch image that arms an attack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Armed {
    /// [`kind`].
    pub kind: u32,
    /// A page, or 0.
    pub gpa: u64,
    /// How.
    pub word: u32,
}

impl AttackOptions {
    /// The records that arm it all; `locate` finds the pages that have names.
    #[must_use]
    pub fn armed(&self, locate: impl Fn(AttackedPage) -> u64) -> Vec<Armed> {
        let page = self.attack.map(|action| {
            let page = self.attack_page.unwrap_or(AttackedPage::Secrets);
            let (target, gpa) = match page {
                AttackedPage::Code => (1, 0),
                AttackedPage::Stack => (2, 0),
                AttackedPage::At(address) => (0, address),
                named => (0, locate(named)),
            };
            let moment = self.attack_moment.unwrap_or(AttackMoment::Exit);
            let word = PageAttackWord::new()
                .with_action(action as u8)
                .with_moment(moment as u8)
                .with_target(target)
                .with_count(self.attack_count.unwrap_or(match moment {
                    AttackMoment::Sweep | AttackMoment::SweepValidations => 0,
                    _ => 1,
                }));
            Armed {
                kind: kind::ATTACK_ON_PAGE,
                gpa,
                word: word.into_bits(),
            }
        });
        let reply = self.msr_reply.map(|MsrReply(word)| Armed {
            kind: kind::ATTACK_BY_REPLY,
            gpa: 0,
            word: word.into_bits(),
        });
        let vector = self.inject.map(|Injected(word)| Armed {
            kind: kind::ATTACK_BY_VECTOR,
            gpa: 0,
            word: word.into_bits(),
        });
        let surplus = self.surplus_launch.map(|SurplusEntry(word)| Armed {
            kind: kind::ATTACK_BY_LAUNCH,
            gpa: 0,
            word: word.into_bits(),
        });
        let launched = self.launch_page.iter().map(|page| Armed {
            kind: kind::ZERO,
            gpa: *page,
            word: 0,
        });
        let armed = [page, reply, vector, surplus].into_iter().flatten();
        launched.chain(armed).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_become_records() {
        let options = AttackOptions {
            attack: Some(PageAction::Remap),
            attack_page: "storage".parse().ok(),
            attack_moment: Some(AttackMoment::Call),
            attack_count: Some(5),
            msr_reply: "register:echo".parse().ok(),
            inject: "exception:13@7".parse().ok(),
            surplus_launch: "call:3".parse().ok(),
            launch_page: vec![0x9000],
            ..AttackOptions::default()
        };
        let armed = options.armed(|page| {
            assert_eq!(page, AttackedPage::Storage);
            0x7000
        });
        let expected = [
            (kind::ZERO, 0x9000, 0),
            (kind::ATTACK_ON_PAGE, 0x7000, 0x5012),
            (kind::ATTACK_BY_REPLY, 0, 0x13),
            (kind::ATTACK_BY_VECTOR, 0, 0x730d),
            (kind::ATTACK_BY_LAUNCH, 0, 7),
        ];
        let armed: Vec<_> = armed
            .iter()
            .map(|one| (one.kind, one.gpa, one.word))
            .collect();
        assert_eq!(armed, expected);
        assert!(AttackOptions::default().armed(|_| 0).is_empty());
    }

    #[test]
    fn the_numbering_is_the_hosts() {
        use snp_host::attack::{Action, Moment, PageAttack};
        let attack = |action, moment| {
            let options = AttackOptions {
                attack: Some(action),
                attack_moment: Some(moment),
                ..AttackOptions::default()
            };
            let [one] = options.armed(|_| 0x1000)[..] else {
                panic!("one record")
            };
            PageAttack::decode(one.gpa, one.word).map(|attack| (attack.action, attack.moment))
        };
        let pairs = [
            (PageAction::Unvalidate, Action::Unvalidate),
            (PageAction::Share, Action::Share),
            (PageAction::Remap, Action::Remap),
            (PageAction::DoubleMap, Action::DoubleMap),
            (PageAction::SwitchMap, Action::SwitchMap),
            (PageAction::ReadOnly, Action::ReadOnly),
            (PageAction::Validate, Action::Validate),
        ];
        for (option, action) in pairs {
            let expected = Some((action, Moment::Exit));
            assert_eq!(attack(option, AttackMoment::Exit), expected);
        }
        let pairs = [
            (AttackMoment::Call, Moment::Call),
            (AttackMoment::Validation, Moment::Validation),
            (AttackMoment::Sweep, Moment::Sweep),
            (AttackMoment::SweepValidations, Moment::SweepValidations),
        ];
        for (option, moment) in pairs {
            let expected = Some((Action::Share, moment));
            assert_eq!(attack(PageAction::Share, option), expected);
        }
    }

    #[test]
    fn words_are_read() {
        assert_eq!("0x1000".parse(), Ok(AttackedPage::At(0x1000)));
        assert!("0x1001".parse::<AttackedPage>().is_err());
        for text in ["", "psc", "psc:lie", "nothing:code"] {
            assert!(text.parse::<MsrReply>().is_err(), "{text}");
        }
        for text in [
            "",
            "nmi:2",
            "trap:1@1",
            "exception:256@1",
            "nmi:2@1048576",
            "nmi:2@calls:1",
        ] {
            assert!(text.parse::<Injected>().is_err(), "{text}");
        }
        for text in ["", "0", "call:", "call:0", "2147483648"] {
            assert!(text.parse::<SurplusEntry>().is_err(), "{text}");
        }
        let entry = |text: &str| text.parse::<MapEntry>().ok();
        let (first, pages) = (0x100, 16);
        let expected = MapEntry {
            first,
            pages,
            kind: 1,
        };
        assert_eq!(entry("0x100+16:1"), Some(expected));
        assert_eq!(
            entry("0x100+16"),
            Some(MapEntry {
                kind: 0,
                ..expected
            })
        );
        assert_eq!(
            (entry("1"), entry("1+x"), entry("1+2:3:4")),
            (None, None, None)
        );
    }
}
