// SPDX-License-Identifier: MIT OR Apache-2.0
//! The guest's command line: words of the form `key=value`, separated by spaces.
//!
//! `mode=all|disk|selftest|watch|restart|overtaken|limits|windows|attacked|attacked-work|host-replies` chooses what runs, `protocol=NUMBER` under which number the service is
//! looked for (hexadecimal with `0x`, else decimal), `devices=blk,net,nvme` which devices must be there;
//! others are used where they are found.

use protocol::DEFAULT_PROTOCOL_NUMBER;

/// What to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mode {
    /// Send every wrong call and compare the answers.
    pub self_test: bool,
    /// Move the disks through the pool.
    pub disk: bool,
    /// Convert a page that another vCPU reads.
    pub watch: bool,
    /// Crash twice at peak load, and account for every chunk.
    pub restart: bool,
    /// Start anew while the other vCPUs are inside calls, and account for every chunk.
    pub overtaken: bool,
    /// Have the whole window granted at attach and give it back: the longest calls there are.
    pub limits: bool,
    /// Map in both windows, and move the disks through the second one.
    pub windows: bool,
    /// Make calls whose pages the host attacks.
    pub attacked: Option<Attacked>,
    /// Make calls whose page-state changes the host answers in its manner.
    pub host_replies: bool,
}

/// Which page of a call the host is to attack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attacked {
    /// The one with the list: `mode=attacked`.
    List,
    /// One that the call works on: `mode=attacked-work`.
    Work,
}

impl Mode {
    /// Both, the default.
    pub const ALL: Self = Self {
        self_test: true,
        disk: true,
        watch: false,
        restart: false,
        overtaken: false,
        limits: false,
        windows: false,
        attacked: None,
        host_replies: false,
    };

    const NOTHING: Self = Self {
        self_test: false,
        disk: false,
        ..Self::ALL
    };

    /// Reads the value of `mode=`; the last one given counts. `None` for one that is not known: running something else than asked for would be a silent success.
    #[must_use]
    pub fn parse(line: &[u8]) -> Option<Self> {
        let mut mode = Self::ALL;
        for word in line.split(u8::is_ascii_whitespace) {
            let Some(value) = word.strip_prefix(b"mode=") else {
                continue;
            };
            mode = match value {
                b"all" => Self::ALL,
                b"disk" => Self {
                    self_test: false,
                    ..Self::ALL
                },
                b"selftest" => Self {
                    disk: false,
                    ..Self::ALL
                },
                b"watch" => Self {
                    watch: true,
                    ..Self::NOTHING
                },
                b"restart" => Self {
                    restart: true,
                    ..Self::NOTHING
                },
                b"overtaken" => Self {
                    overtaken: true,
                    ..Self::NOTHING
                },
                b"limits" => Self {
                    limits: true,
                    ..Self::NOTHING
                },
                b"windows" => Self {
                    windows: true,
                    disk: true,
                    ..Self::NOTHING
                },
                b"attacked" => Self {
                    attacked: Some(Attacked::List),
                    ..Self::NOTHING
                },
                b"attacked-work" => Self {
                    attacked: Some(Attacked::Work),
                    ..Self::NOTHING
                },
                b"host-replies" => Self {
                    host_replies: true,
                    ..Self::NOTHING
                },
                _ => return None,
            };
        }
        Some(mode)
    }
}

/// Devices that must be there; the disks always must.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Devices {
    /// A virtio network device.
    pub net: bool,
    /// An NVMe controller.
    pub nvme: bool,
}

impl Devices {
    /// Reads `devices=LIST`; the last one given counts. `None` for a device it does not know.
    fn parse(line: &[u8]) -> Option<Self> {
        let mut devices = Self::default();
        for word in line.split(u8::is_ascii_whitespace) {
            let Some(list) = word.strip_prefix(b"devices=") else {
                continue;
            };
            devices = Self::default();
            for name in list.split(|byte| *byte == b',') {
                match name {
                    b"blk" => {}
                    b"net" => devices.net = true,
                    b"nvme" => devices.nvme = true,
                    _ => return None,
                }
            }
        }
        Some(devices)
    }
}

/// Everything the line says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CommandLine {
    /// What to run.
    pub mode: Mode,
    /// Where to look for the service.
    pub protocol: u32,
    /// What must be there.
    pub devices: Devices,
}

impl CommandLine {
    /// Reads the line. `None` when a word it knows has a value it does not.
    #[must_use]
    pub fn parse(line: &[u8]) -> Option<Self> {
        Some(Self {
            mode: Mode::parse(line)?,
            protocol: protocol_number(line)?,
            devices: Devices::parse(line)?,
        })
    }
}

/// Reads `protocol=NUMBER`; the last one given counts. `None` for what is no number.
fn protocol_number(line: &[u8]) -> Option<u32> {
    let mut number = DEFAULT_PROTOCOL_NUMBER;
    for word in line.split(u8::is_ascii_whitespace) {
        let Some(value) = word.strip_prefix(b"protocol=") else {
            continue;
        };
        let text = core::str::from_utf8(value).ok()?;
        number = match text.strip_prefix("0x") {
            Some(digits) => u32::from_str_radix(digits, 16).ok()?,
            None => text.parse().ok()?,
        };
    }
    Some(number)
}

#[cfg(test)]
mod tests {
    use super::{Attacked, DEFAULT_PROTOCOL_NUMBER, Devices, Mode, protocol_number};

    #[test]
    fn the_mode_is_a_known_word() {
        assert_eq!(Mode::parse(b""), Some(Mode::ALL));
        assert_eq!(Mode::parse(b"quiet mode=all"), Some(Mode::ALL));
        let disk = Mode::parse(b"mode=disk").expect("known mode");
        assert!(disk.disk && !disk.self_test);
        let self_test = Mode::parse(b"mode=disk mode=selftest").expect("known mode");
        assert!(self_test.self_test && !self_test.disk);
        let watch = Mode::parse(b"mode=watch").expect("known mode");
        assert!(watch.watch && !watch.disk && !watch.self_test);
        let restart = Mode::parse(b"mode=restart").expect("known mode");
        assert!(restart.restart && !restart.disk && !restart.self_test && !disk.restart);
        let overtaken = Mode::parse(b"mode=overtaken").expect("known mode");
        assert!(overtaken.overtaken && !overtaken.restart && !overtaken.disk);
        let limits = Mode::parse(b"mode=limits").expect("known mode");
        assert!(limits.limits && !limits.restart && !limits.disk && !restart.limits);
        let windows = Mode::parse(b"mode=windows").expect("known mode");
        assert!(windows.windows && windows.disk && !windows.self_test && !disk.windows);
        for (line, attacked) in [
            (&b"mode=attacked"[..], Attacked::List),
            (b"mode=attacked-work", Attacked::Work),
        ] {
            let mode = Mode::parse(line).expect("known mode");
            assert_eq!((mode.attacked, mode.disk), (Some(attacked), false));
        }
        let replies = Mode::parse(b"mode=host-replies").expect("known mode");
        assert!(replies.host_replies && !replies.disk && !limits.host_replies);
        assert_eq!(limits.attacked, None);
        assert_eq!(Mode::parse(b"mode=none"), None);
    }

    #[test]
    fn devices_are_known_by_name() {
        assert_eq!(Devices::parse(b"mode=all"), Some(Devices::default()));
        let parsed = Devices::parse(b"devices=blk devices=nvme,blk,net");
        let all = Devices {
            net: true,
            nvme: true,
        };
        assert_eq!(parsed, Some(all));
        assert_eq!(Devices::parse(b"devices=net,x"), None);
        assert_eq!(Devices::parse(b"devices="), None);
    }

    #[test]
    fn the_number_is_the_last_one_given() {
        assert_eq!(protocol_number(b"mode=all"), Some(DEFAULT_PROTOCOL_NUMBER));
        assert_eq!(
            protocol_number(b"protocol=1 protocol=0x40001234"),
            Some(0x4000_1234)
        );
        assert_eq!(protocol_number(b"protocol=x"), None);
        assert_eq!(protocol_number(b"protocol=0x1ffffffff"), None);
    }
}
