// SPDX-License-Identifier: MIT OR Apache-2.0
//! The boots side by side, for people.

use std::collections::BTreeSet;

use protocol::Call;

use super::super::account::{Account, Phase, Shared};
use super::boot::Boot;
use super::instructions::Figure;
use crate::table::mebibytes;

/// What is not known, or has no meaning for a boot.
const NOTHING: &str = "-";

/// A line: its name, and a cell for each boot. A title has no cells.
pub type Row = (String, Vec<String>);

/// All lines of the table; `figures` are instructions, of a boot that measured them.
#[must_use]
pub fn rows(boots: &[Boot], figures: &[Figure]) -> Vec<Row> {
    let mut rows = Rows {
        boots,
        list: Vec::new(),
    };
    rows.title("memory shared with the host");
    rows.optional("the kernel's own swiotlb", |boot| {
        boot.guest.swiotlb_bytes.map(mebibytes)
    });
    for (name, of) in MOMENTS {
        rows.line(name, |boot| mebibytes(of(&boot.account.shared)));
    }
    for (name, of) in MOMENTS {
        rows.line(&format!("of that, in the window {name}"), |boot| {
            mebibytes(of(&boot.account.window))
        });
    }
    for phase in ["boot", "work"] {
        rows.phase(phase);
    }
    rows.title("what was bounced");
    for (name, statistic) in [
        ("maps", "maps"),
        ("bytes in", "bytes_in"),
        ("bytes out", "bytes_out"),
        ("failures", "failures"),
        ("growths", "growths"),
        ("growths with interrupts off", "calls_grow_interrupts_off"),
        ("growths refused", "refused_growths"),
        ("bytes given back", "given_back_bytes"),
    ] {
        rows.optional(name, |boot| {
            boot.statistic(statistic).map(|n| n.to_string())
        });
    }
    rows.optional("swiotlb: most in use", |boot| {
        let moments = boot
            .guest
            .bounce
            .get(if boot.is_pool() { "after" } else { "end" });
        moments.map(|bounce| mebibytes(bounce.peak))
    });
    rows.line("bytes changed in other shared pages", |boot| {
        of_watch(&boot.account)
    });
    rows.title("what user space and the log saw");
    rows.line("lines 'swiotlb buffer is full'", |boot| {
        boot.troubles("buffer is full").to_string()
    });
    rows.line("lines 'I/O error'", |boot| {
        boot.troubles("I/O error").to_string()
    });
    rows.line("steps that failed or stalled", |boot| {
        boot.guest.failed.len().to_string()
    });
    rows.line("transfers that failed, stalled or were wrong", |boot| {
        boot.guest.bad_transfers().to_string()
    });
    rows.optional("transfers that were right", |boot| {
        let right = boot
            .guest
            .stress
            .iter()
            .filter(|(what, _)| what.ends_with("-right"));
        (!boot.guest.stress.is_empty()).then(|| right.map(|(_, n)| n).sum::<u64>().to_string())
    });
    rows.optional("seconds of the heavy work", |boot| {
        boot.guest
            .stress_seconds
            .map(|seconds| format!("{seconds:.1}"))
    });
    rows.instructions(figures);
    rows.list
}

/// A number of an account.
type Count<T> = fn(&T) -> u64;

/// Memory at each moment.
pub const MOMENTS: [(&str, Count<Shared>); 4] = [
    ("at boot", |shared| shared.boot),
    ("in use", |shared| shared.in_use),
    ("peak", |shared| shared.peak),
    ("after give-back", |shared| shared.after),
];

struct Rows<'a> {
    boots: &'a [Boot],
    list: Vec<Row>,
}

impl Rows<'_> {
    fn title(&mut self, title: &str) {
        self.list.push((title.to_owned(), Vec::new()));
    }

    fn line(&mut self, name: &str, cell: impl Fn(&Boot) -> String) {
        let cells = self.boots.iter().map(cell).collect();
        self.list.push((name.to_owned(), cells));
    }

    fn optional(&mut self, name: &str, cell: impl Fn(&Boot) -> Option<String>) {
        self.line(name, |boot| cell(boot).unwrap_or(NOTHING.into()));
    }

    fn of_phase(&mut self, phase: &str, name: &str, cell: impl Fn(&Phase) -> String) {
        self.optional(name, |boot| boot.phase(phase).map(&cell));
    }

    /// Calls and exits of one phase by kind.
    fn phase(&mut self, phase: &str) {
        self.title(match phase {
            "boot" => "until the drivers are there",
            _ => "during the work",
        });
        self.of_phase(phase, "SVSM calls", |one| one.all_calls().to_string());
        let in_phase = self.boots.iter().filter_map(|boot| boot.phase(phase));
        let kinds: BTreeSet<_> = in_phase.flat_map(|one| one.calls.keys().cloned()).collect();
        for kind in kinds {
            self.of_phase(phase, &format!("  {}", in_words(&kind)), |one| {
                one.calls.get(&kind).copied().unwrap_or(0).to_string()
            });
        }
        for (name, of) in EXITS {
            self.of_phase(phase, name, |one| of(one).to_string());
        }
        self.of_phase(phase, "  made shared", |one| {
            mebibytes(one.page_state.to_shared)
        });
        self.of_phase(phase, "  made private", |one| {
            mebibytes(one.page_state.to_private)
        });
    }

    /// Instructions of a map with its unmap, where a boot measured them.
    fn instructions(&mut self, figures: &[Figure]) {
        self.title("instructions of one map and unmap without copies");
        if figures.is_empty() {
            self.line("not measured", |_| NOTHING.into());
        }
        for figure in figures {
            self.optional(&figure.of, |boot| {
                if boot.is_pool() {
                    figure.pool.clone()
                } else {
                    figure.swiotlb.clone()
                }
            });
        }
    }
}

const EXITS: [(&str, Count<Phase>); 3] = [
    ("page-state exits of the guest, MSR", |one| {
        one.page_state.msr_exits
    }),
    ("page-state exits of the guest, GHCB", |one| {
        one.page_state.ghcb_exits
    }),
    ("page-state exits of the service", |one| {
        one.page_state.service_exits
    }),
];

fn of_watch(account: &Account) -> String {
    match account.watched_pages {
        0 => NOTHING.into(),
        _ => account.changed_elsewhere.to_string(),
    }
}

/// `msr.pool.7` as `msr pool grow`.
fn in_words(kind: &str) -> String {
    let number = kind.rsplit_once(".pool.");
    let call = number.and_then(|(form, number)| {
        let call = Call::try_from(number.parse::<u32>().ok()?).ok()?;
        Some(format!("{form} pool {}", call.name()))
    });
    call.unwrap_or_else(|| kind.replace('.', " "))
}

/// The lines as text.
#[must_use]
pub fn table(boots: &[Boot], rows: &[Row]) -> String {
    let names = boots.iter().map(|boot| boot.name.len());
    let cells = rows
        .iter()
        .flat_map(|(_, cells)| cells.iter().map(String::len));
    let width = names.chain(cells).max().unwrap_or(0) + 2;
    let first = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0) + 2;
    let line = |name: &str, cells: &mut dyn Iterator<Item = &str>| {
        let cells: String = cells.map(|cell| format!("{cell:>width$}")).collect();
        format!("  {name:<first$}{cells}\n")
    };
    let mut text = line("", &mut boots.iter().map(|boot| boot.name.as_str()));
    for (name, cells) in rows {
        if cells.is_empty() {
            text = text + "\n" + name + "\n";
        } else {
            text += &line(name, &mut cells.iter().map(String::as_str));
        }
    }
    text
}
