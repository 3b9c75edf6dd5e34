// SPDX-License-Identifier: MIT OR Apache-2.0
//! The line above the panels: which curve is whose.

use plotters::prelude::*;

use super::{Area, Failure, Panel, font, pixels};
use crate::report::{LIMIT, SHIM};

/// Height of the caption, and of a line of the legend below it.
pub(super) const CAPTION: u32 = 44;
const LEGEND_LINE: u32 = 26;
/// Width of an entry of the legend.
const LEGEND_ENTRY: u32 = 190;

/// Which line is whose; once for all panels of a drawing.
#[derive(Debug)]
pub(super) struct Legend {
    entries: Vec<(&'static str, RGBColor, u32)>,
    some_fail: bool,
    columns: u32,
}

impl Legend {
    /// The curves of all panels of a drawing of this width.
    pub(super) fn of(panels: &[Panel], width: u32) -> Self {
        let mut entries: Vec<(&'static str, RGBColor, u32)> = Vec::new();
        let mut others = 0;
        for curve in panels.iter().flat_map(|panel| &panel.curves) {
            let name = curve.name;
            if entries.iter().all(|(known, ..)| *known != name) {
                let (color, width) = style(name, others);
                others += usize::from(name != SHIM && !name.starts_with("memcpy_"));
                entries.push((name, color, width));
            }
        }
        let mut points = panels
            .iter()
            .flat_map(|panel| &panel.curves)
            .flat_map(|curve| &curve.points);
        Self {
            entries,
            some_fail: points.any(|point| point.fails),
            columns: (width / LEGEND_ENTRY).max(1),
        }
    }

    /// Height of the caption's area below the caption.
    pub(super) fn height(&self) -> u32 {
        let entries = self.entries.len() + usize::from(self.some_fail);
        pixels(entries).div_ceil(self.columns) * LEGEND_LINE + 8
    }

    /// Colour and width of an allocator's line.
    pub(super) fn style_of(&self, name: &str) -> (RGBColor, u32) {
        let entry = self.entries.iter().find(|(known, ..)| *known == name);
        entry.map_or((BLACK, 1), |(_, color, width)| (*color, *width))
    }

    /// Draws the legend into the area above the panels.
    pub(super) fn draw(&self, head: &Area<'_>) -> Result<(), Failure> {
        let place = |index: usize| {
            let (line, column) = (pixels(index) / self.columns, pixels(index) % self.columns);
            let coordinate = |value: u32| i32::try_from(value).unwrap_or(0);
            (
                coordinate(24 + column * LEGEND_ENTRY),
                coordinate(CAPTION + line * LEGEND_LINE + LEGEND_LINE / 2),
            )
        };
        for (index, (name, color, width)) in self.entries.iter().enumerate() {
            let (x, y) = place(index);
            let line = [(x, y), (x + 28, y)];
            head.draw(&PathElement::new(line, color.stroke_width(*width)))?;
            head.draw(&Circle::new((x + 14, y), 4, color.filled()))?;
            let name = if *name == LIMIT {
                "memcpy_hot (limit)"
            } else {
                name
            };
            head.draw(&Text::new(name.to_owned(), (x + 36, y - 7), font(14)))?;
        }
        if self.some_fail {
            let (x, y) = place(self.entries.len());
            head.draw(&Circle::new((x + 14, y), 5, BLACK.stroke_width(2)))?;
            head.draw(&Text::new("hollow: maps fail", (x + 36, y - 7), font(14)))?;
        }
        Ok(())
    }
}

/// How an allocator is drawn: colour and width. The shim stands out, limits stand back.
fn style(name: &str, others_before: usize) -> (RGBColor, u32) {
    const OTHERS: [RGBColor; 6] = [
        RGBColor(0xd6, 0x5f, 0x0e),
        RGBColor(0x2c, 0x8a, 0x2c),
        RGBColor(0x94, 0x3f, 0xa8),
        RGBColor(0xb0, 0x1e, 0x3a),
        RGBColor(0x8c, 0x6d, 0x31),
        RGBColor(0x17, 0x9c, 0xa8),
    ];
    match name {
        SHIM => (RGBColor(0x1f, 0x4f, 0xc4), 4),
        LIMIT => (RGBColor(0x70, 0x70, 0x70), 2),
        "memcpy_walk" => (RGBColor(0xb4, 0xb4, 0xb4), 2),
        _ => (OTHERS[others_before % OTHERS.len()], 2),
    }
}
