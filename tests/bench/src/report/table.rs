// SPDX-License-Identifier: MIT OR Apache-2.0
//! The figures for people.

use std::fmt::Write as _;

use super::figures::{Line, Reach, Section, Verdict};

/// The tables of all sections.
pub fn render(sections: &[Section], others: &[&str]) -> String {
    let mut text = String::new();
    for section in sections {
        // Writing to a string does not fail.
        let _ = write_section(&mut text, section, others);
    }
    let _ = write_summary(&mut text, sections);
    text
}

fn write_section(text: &mut String, section: &Section, others: &[&str]) -> std::fmt::Result {
    writeln!(text, "\n{}\n  to reach: {}", section.title, section.goal)?;
    let mut header: Vec<String> = ["", "best", "median", "to reach", "of that", "", "limit"]
        .map(String::from)
        .to_vec();
    header.extend(others.iter().map(|name| String::from(*name)));
    header.push("published".into());
    let mut rows = vec![header];
    rows.extend(section.lines.iter().map(|line| cells(line, others.len())));
    drop_empty_columns(&mut rows);
    write_rows(text, &rows)
}

fn cells(line: &Line, others: usize) -> Vec<String> {
    let digits = line.digits;
    let number = |value: f64| format!("{value:.digits$}");
    let (best, median) = match line.ours {
        Some((best, median)) => (number(best), number(median)),
        None => ("-".into(), String::new()),
    };
    let reach = match line.reach {
        Reach::AtMost(bound) => format!("<= {}", number(bound)),
        Reach::AtLeast(bound) => format!(">= {}", number(bound)),
        Reach::Shown => String::new(),
    };
    let ratio = line
        .ratio()
        .map_or(String::new(), |ratio| format!("{ratio:.2}"));
    let verdict = match line.verdict() {
        Verdict::Reached => "reached".into(),
        Verdict::Missed if line.failed > 1.0 => "missed: does not fail".into(),
        Verdict::Missed if line.failed > 0.0 => {
            format!("missed: {:.1} % fail", line.failed * 100.0)
        }
        Verdict::Missed => "missed".into(),
        Verdict::Open => String::new(),
    };
    let limit = line.limit.map_or(String::new(), number);
    let mut cells = vec![
        line.name.clone(),
        best,
        median,
        reach,
        ratio,
        verdict,
        limit,
    ];
    cells.extend((0..others).map(|index| line.others.get(index).cloned().unwrap_or_default()));
    cells.push(line.published.into());
    cells
}

/// Leaves out columns that hold nothing below their heading.
fn drop_empty_columns(rows: &mut [Vec<String>]) {
    let columns = rows.first().map_or(0, Vec::len);
    for column in (0..columns).rev() {
        if rows[1..].iter().all(|row| row[column].is_empty()) {
            for row in rows.iter_mut() {
                row.remove(column);
            }
        }
    }
}

fn write_rows(text: &mut String, rows: &[Vec<String>]) -> std::fmt::Result {
    let columns = rows.first().map_or(0, Vec::len);
    let widths: Vec<usize> = (0..columns)
        .map(|column| rows.iter().map(|row| row[column].len()).max().unwrap_or(0))
        .collect();
    for row in rows {
        let mut line = String::from(" ");
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            if column == 0 {
                write!(line, " {cell:<width$}")?;
            } else {
                write!(line, "  {cell:>width$}")?;
            }
        }
        writeln!(text, "{}", line.trim_end())?;
    }
    Ok(())
}

fn write_summary(text: &mut String, sections: &[Section]) -> std::fmt::Result {
    let lines = || sections.iter().flat_map(|section| &section.lines);
    let count = |verdict| lines().filter(|line| line.verdict() == verdict).count();
    let (reached, missed) = (count(Verdict::Reached), count(Verdict::Missed));
    writeln!(text, "\n{reached} of {} figures reached", reached + missed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(name: &str, best: f64, reach: Reach) -> Line {
        Line {
            name: name.into(),
            ours: Some((best, best * 2.0)),
            failed: 0.0,
            reach,
            limit: Some(4.0),
            others: vec!["70.5".into()],
            published: "129/206",
            digits: 1,
        }
    }

    fn section(lines: Vec<Line>) -> Section {
        Section {
            title: "pairs".into(),
            goal: "30 ns",
            lines,
        }
    }

    #[test]
    fn columns_are_aligned_and_verdicts_stand_in_them() {
        let lines = vec![
            line("64", 24.0, Reach::AtMost(30.0)),
            line("mix", 33.0, Reach::AtMost(30.0)),
            line("shown", 33.0, Reach::Shown),
        ];
        let text = render(&[section(lines)], &["classic"]);
        let expected = "
pairs
  to reach: 30 ns
         best  median  to reach  of that           limit  classic  published
  64     24.0    48.0   <= 30.0     0.80  reached    4.0     70.5    129/206
  mix    33.0    66.0   <= 30.0     1.10   missed    4.0     70.5    129/206
  shown  33.0    66.0                                4.0     70.5    129/206

1 of 2 figures reached
";
        assert_eq!(text, expected);
    }

    #[test]
    fn failures_make_a_quick_figure_missed() {
        let failing = Line {
            failed: 0.125,
            ..line("262144", 20.0, Reach::AtMost(30.0))
        };
        let text = render(&[section(vec![failing])], &["classic"]);
        assert!(text.contains("missed: 12.5 % fail"), "{text}");
        assert!(text.contains("0 of 1 figures reached"), "{text}");
    }

    #[test]
    fn a_column_without_entries_is_left_out() {
        let mut plain = line("64", 24.0, Reach::AtMost(30.0));
        plain.limit = None;
        plain.others.clear();
        let text = render(&[section(vec![plain])], &["classic"]);
        assert!(
            !text.contains("limit") && !text.contains("classic"),
            "{text}"
        );
    }

    #[test]
    fn what_was_not_measured_is_neither_reached_nor_missed() {
        let unknown = Line {
            ours: None,
            ..line("64", 0.0, Reach::AtMost(30.0))
        };
        let text = render(&[section(vec![unknown])], &["classic"]);
        assert!(text.contains("0 of 0 figures reached"), "{text}");
    }
}
