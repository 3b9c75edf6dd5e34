// SPDX-License-Identifier: MIT OR Apache-2.0
//! The lines that `tests/linux/init` prints, one fact each.

use crate::line::{Line, LineError};

/// What such a line starts with.
const PREFIX: &str = "linux: ";

/// One fact.
#[derive(Debug, Clone, PartialEq)]
pub enum LinuxLine {
    /// User space runs, this many seconds after the kernel's start.
    Start(f64),
    /// Devices that the guest will look for.
    Devices(Vec<String>),
    /// Release of the kernel.
    Release(String),
    /// A line of the kernel's log that names SEV.
    Log(String),
    /// Processors that are on line.
    Cpus(u64),
    /// Size of the kernel's own bounce buffer.
    Swiotlb(u64),
    /// A range of RAM, as the kernel sees it, and its last byte.
    Ram(u64, u64),
    /// A reserved range, its last byte, and the bytes of it that the direct map covers.
    Reserved(u64, u64, u64),
    /// A page of RAM was looked up in the direct map: bytes found.
    WalkTest(u64),
    /// A device was read whole: device, bytes, SHA-256.
    Digest(String, u64, String),
    /// A block was written to the second disk: offset, SHA-256.
    Marker(u64, String),
    /// What a module for tests said: its name, its words.
    Said(String, String),
    /// A step failed, and why.
    Failed(String, String),
    /// Who bounces, and how hard the devices are worked.
    Driver(String, String),
    /// What the kernel's own bounce buffer has in use and had at most, in bytes: moment, in use, peak.
    Bounce(String, u64, u64),
    /// A statistic of the module: moment, name, value.
    Pool(String, String, String),
    /// A line of the module in the kernel's log.
    ModuleLog(String),
    /// A line of the kernel's log about a device or itself in trouble.
    Trouble(String),
    /// So many transfers of the heavy work ended so.
    Stress(String, u64),
    /// When the heavy work began and ended, in seconds since the kernel's start.
    StressTime(f64, f64),
    /// All steps were tried, this many seconds after the kernel's start.
    Done(f64),
}

impl LinuxLine {
    /// Reads a console line. `None` for those that are not init's.
    pub fn parse(text: &str) -> Option<Result<Self, LineError>> {
        let text = text.strip_prefix(PREFIX)?;
        let (kind, rest) = text.split_once(' ').unwrap_or((text, ""));
        Some(match kind {
            "log" => Ok(Self::Log(rest.to_owned())),
            "failed" => failed(rest),
            "module-log" => Ok(Self::ModuleLog(rest.to_owned())),
            "trouble" => Ok(Self::Trouble(rest.to_owned())),
            "pool" => statistic(rest),
            "said" => said(rest),
            _ => Line::parse(text).and_then(|line| fact(&line)),
        })
    }
}

/// `step=STEP cause=WORDS`; the cause is for people and goes to the end of the line.
fn failed(rest: &str) -> Result<LinuxLine, LineError> {
    let (step, cause) = rest
        .strip_prefix("step=")
        .and_then(|rest| rest.split_once(" cause="))
        .ok_or("no step=STEP cause=WORDS")?;
    Ok(LinuxLine::Failed(step.to_owned(), cause.to_owned()))
}

/// `MOMENT NAME VALUE`, as the module writes names and values; a value may be a list.
fn statistic(rest: &str) -> Result<LinuxLine, LineError> {
    let mut words = rest.splitn(3, ' ').filter(|word| !word.is_empty());
    match (words.next(), words.next(), words.next()) {
        (Some(moment), Some(name), value) => Ok(LinuxLine::Pool(
            moment.to_owned(),
            name.to_owned(),
            value.unwrap_or_default().to_owned(),
        )),
        _ => Err("no MOMENT NAME VALUE".into()),
    }
}

/// `MODULE: WORDS`.
fn said(rest: &str) -> Result<LinuxLine, LineError> {
    let (module, words) = rest.split_once(": ").ok_or("no MODULE: WORDS")?;
    Ok(LinuxLine::Said(module.to_owned(), words.to_owned()))
}

fn fact(line: &Line<'_>) -> Result<LinuxLine, LineError> {
    let text = |key| line.text(key).map(str::to_owned);
    Ok(match line.kind {
        "start" => LinuxLine::Start(seconds(line, "uptime")?),
        "devices" => LinuxLine::Devices(
            line.text("expected")?
                .split(',')
                .map(str::to_owned)
                .collect(),
        ),
        "kernel" => LinuxLine::Release(text("release")?),
        "cpus" => LinuxLine::Cpus(line.number("online")?),
        "swiotlb" => LinuxLine::Swiotlb(line.number("bytes")?),
        "ram" => {
            let (start, last) = range(line)?;
            LinuxLine::Ram(start, last)
        }
        "reserved" => {
            let (start, last) = range(line)?;
            LinuxLine::Reserved(start, last, line.number("mapped")?)
        }
        "walk-test" => LinuxLine::WalkTest(line.number("mapped")?),
        "digest" => LinuxLine::Digest(text("device")?, line.number("bytes")?, text("sha256")?),
        "marker" => LinuxLine::Marker(line.number("offset")?, text("sha256")?),
        "driver" => LinuxLine::Driver(text("name")?, text("work")?),
        "bounce" => LinuxLine::Bounce(text("moment")?, line.number("used")?, line.number("peak")?),
        "stress" => LinuxLine::Stress(text("what")?, line.number("count")?),
        "stress-time" => LinuxLine::StressTime(seconds(line, "from")?, seconds(line, "to")?),
        "done" => LinuxLine::Done(seconds(line, "uptime")?),
        other => return Err(format!("'{other}' is no kind of line")),
    })
}

fn range(line: &Line<'_>) -> Result<(u64, u64), LineError> {
    let (start, last) = (line.number("start")?, line.number("last")?);
    if start > last {
        return Err("the range ends before it starts".into());
    }
    Ok((start, last))
}

fn seconds(line: &Line<'_>, key: &str) -> Result<f64, LineError> {
    let text = line.text(key)?;
    text.parse()
        .ok()
        .filter(|seconds: &f64| seconds.is_finite() && *seconds >= 0.0)
        .ok_or_else(|| format!("'{key}={text}' is no time"))
}

#[cfg(test)]
mod tests {
    use super::LinuxLine;

    #[test]
    fn facts_are_read() {
        for (text, fact) in [
            ("start uptime=3.21", LinuxLine::Start(3.21)),
            (
                "devices expected=blk,net",
                LinuxLine::Devices(vec!["blk".into(), "net".into()]),
            ),
            (
                "kernel release=6.12.1+deb13-cloud-amd64",
                LinuxLine::Release("6.12.1+deb13-cloud-amd64".into()),
            ),
            (
                "log SEV: SNP running at VMPL2.",
                LinuxLine::Log("SEV: SNP running at VMPL2.".into()),
            ),
            ("cpus online=2", LinuxLine::Cpus(2)),
            ("swiotlb bytes=67108864", LinuxLine::Swiotlb(64 << 20)),
            (
                "ram start=0x1000 last=0x1fff",
                LinuxLine::Ram(0x1000, 0x1fff),
            ),
            (
                "reserved start=0x1000 last=0x1fff mapped=0",
                LinuxLine::Reserved(0x1000, 0x1fff, 0),
            ),
            ("walk-test mapped=4096", LinuxLine::WalkTest(4096)),
            (
                "digest device=vda bytes=512 sha256=ab",
                LinuxLine::Digest("vda".into(), 512, "ab".into()),
            ),
            (
                "marker offset=1048576 sha256=ab",
                LinuxLine::Marker(1 << 20, "ab".into()),
            ),
            (
                "failed step=net cause=there is no eth0: a = b",
                LinuxLine::Failed("net".into(), "there is no eth0: a = b".into()),
            ),
            (
                "driver name=pool work=usual",
                LinuxLine::Driver("pool".into(), "usual".into()),
            ),
            (
                "bounce moment=begin used=2048 peak=4096",
                LinuxLine::Bounce("begin".into(), 2048, 4096),
            ),
            (
                "pool begin devices 0000:00:03.0 0000:00:04.0",
                LinuxLine::Pool(
                    "begin".into(),
                    "devices".into(),
                    "0000:00:03.0 0000:00:04.0".into(),
                ),
            ),
            (
                "module-log svsm_swiotlb: hello = a",
                LinuxLine::ModuleLog("svsm_swiotlb: hello = a".into()),
            ),
            (
                "trouble I/O error, dev vda",
                LinuxLine::Trouble("I/O error, dev vda".into()),
            ),
            (
                "stress what=read-right count=12",
                LinuxLine::Stress("read-right".into(), 12),
            ),
            ("stress-time from=1.5 to=3", LinuxLine::StressTime(1.5, 3.0)),
            (
                "said map_test: large-2m failed byte 0: wrong",
                LinuxLine::Said("map_test".into(), "large-2m failed byte 0: wrong".into()),
            ),
            ("done uptime=9", LinuxLine::Done(9.0)),
        ] {
            let line = format!("linux: {text}");
            assert_eq!(LinuxLine::parse(&line), Some(Ok(fact)), "{text}");
        }
    }

    #[test]
    fn other_lines_are_not_ours_and_damaged_ones_are_named() {
        for text in ["", "[    0.1] Linux version", "@done ok=1", "linux:x"] {
            assert_eq!(LinuxLine::parse(text), None, "{text}");
        }
        for text in [
            "",
            "hello",
            "start",
            "start uptime=soon",
            "start uptime=-1",
            "start uptime=inf",
            "cpus online=two",
            "ram start=0x2000 last=0x1000",
            "reserved start=0x1000 last=0x2000",
            "failed step=net",
            "pool begin",
            "bounce moment=begin used=0",
            "stress-time from=1 to=-1",
            "said map_test",
            "digest device=vda sha256=ab",
            "marker offset=1",
        ] {
            let line = format!("linux: {text}");
            assert!(matches!(LinuxLine::parse(&line), Some(Err(_))), "{text}");
        }
    }
}
