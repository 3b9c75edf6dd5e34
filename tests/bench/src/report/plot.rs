// SPDX-License-Identifier: MIT OR Apache-2.0
//! Drawings of the figures: cost against size, fill and threads; one line per allocator, logarithmic cost.

use std::fs;
use std::path::Path;

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::FontFamily;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::results::{Results, SHIM};
use crate::driver::pair::{Cell, Mode, Size};
use crate::driver::{Fill, whole};
use crate::plan::{FILLS, SIZES, cell};

mod legend;

use legend::Legend;

/// Size of one panel in pixels.
const PANEL: (u32, u32) = (640, 400);
type Failure = DrawingAreaErrorKind<std::io::Error>;
type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// A figure at one place of the x axis, and whether maps failed there.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Point {
    place: usize,
    ns: f64,
    fails: bool,
}

/// An allocator's figures.
#[derive(Clone, Debug, PartialEq)]
struct Curve {
    name: &'static str,
    points: Vec<Point>,
}

/// One coordinate system.
#[derive(Clone, Debug, PartialEq)]
struct Panel {
    title: String,
    x_title: &'static str,
    places: Vec<String>,
    /// Lines are not drawn to this place: it is no larger than the one before it.
    apart: Option<usize>,
    curves: Vec<Curve>,
}

impl Panel {
    /// A panel over the cells of each place.
    fn over(
        results: &Results,
        title: String,
        x_title: &'static str,
        places: Vec<(String, Cell)>,
    ) -> Option<Self> {
        let mut names = results.allocators.clone();
        // The shim last, so that its line lies on top.
        names.sort_by_key(|name| *name == SHIM);
        let curves = names.into_iter().map(|name| {
            let points = places.iter().enumerate().filter_map(|(place, (_, cell))| {
                let figure = results.figure(name, cell)?;
                Some(Point {
                    place,
                    ns: figure.best,
                    fails: figure.fail_rate > 0.0,
                })
            });
            Curve {
                name,
                points: points.collect(),
            }
        });
        let curves: Vec<Curve> = curves.filter(|curve| !curve.points.is_empty()).collect();
        let panel = Self {
            title,
            x_title,
            apart: places.iter().position(|(name, _)| name == "mix"),
            places: places.into_iter().map(|(name, _)| name).collect(),
            curves,
        };
        (!panel.curves.is_empty()).then_some(panel)
    }
}

/// Draws what was measured into a folder; the names of the files.
///
/// # Errors
/// What the drawing library or the file system says.
pub fn write(results: &Results, folder: &Path) -> Result<Vec<&'static str>, String> {
    let drawings = [
        (
            "size.svg",
            "map + unmap in an empty pool, 1 thread",
            by_size(results),
        ),
        (
            "fill.svg",
            "map + unmap without copies as the pool fills, 1 thread",
            by_fill(results),
        ),
        (
            "threads.svg",
            "map + unmap without copies by threads, empty pool",
            by_threads(results),
        ),
    ];
    let mut written = Vec::new();
    for (name, caption, panels) in drawings {
        if panels.is_empty() {
            continue;
        }
        let svg = draw(caption, &panels).map_err(|error| format!("{name}: {error}"))?;
        let path = folder.join(name);
        fs::write(&path, svg).map_err(|error| format!("{}: {error}", path.display()))?;
        written.push(name);
    }
    Ok(written)
}

fn by_size(results: &Results) -> Vec<Panel> {
    let measured = results.cells();
    let modes = [
        (Mode::NoCopy, "book-keeping alone"),
        (Mode::Receive, "with two copies (reception)"),
    ];
    let panel = |(mode, title): (Mode, &str)| {
        let cells = SIZES.map(|size| (label(size), cell(size, mode)));
        let places: Vec<_> = cells
            .into_iter()
            .filter(|(_, cell)| measured.contains(cell))
            .collect();
        Panel::over(results, title.into(), "size", places)
    };
    modes.into_iter().filter_map(panel).collect()
}

fn by_fill(results: &Results) -> Vec<Panel> {
    let sizes = [
        Size::Bytes(4096),
        Size::Bytes(65536),
        Size::Bytes(262_144),
        Size::Mix,
    ];
    let panel = |size: Size| {
        let one = cell(size, Mode::NoCopy);
        let fills = [Fill::EMPTY].into_iter().chain(FILLS);
        let places = fills.map(|fill| (fill_label(fill), Cell { fill, ..one }));
        Panel::over(results, title(size), "pool in use", places.collect())
    };
    sizes.into_iter().filter_map(panel).collect()
}

fn by_threads(results: &Results) -> Vec<Panel> {
    let mut counts: Vec<usize> = results.cells().iter().map(|cell| cell.threads).collect();
    counts.sort_unstable();
    counts.dedup();
    if counts.len() < 2 {
        return Vec::new();
    }
    let panel = |size: Size| {
        let one = cell(size, Mode::NoCopy);
        let places = counts
            .iter()
            .map(|&threads| (threads.to_string(), Cell { threads, ..one }));
        Panel::over(results, title(size), "threads", places.collect())
    };
    [Size::Bytes(4096), Size::Mix]
        .into_iter()
        .filter_map(panel)
        .collect()
}

fn label(size: Size) -> String {
    match size {
        Size::Bytes(bytes) if bytes >= 1024 && bytes.is_multiple_of(1024) => {
            format!("{} KiB", bytes / 1024)
        }
        Size::Bytes(bytes) => format!("{bytes} B"),
        Size::Mix => "mix".into(),
    }
}

fn title(size: Size) -> String {
    match size {
        Size::Bytes(_) => format!("mappings of {}", label(size)),
        Size::Mix => "the mix of sizes of a guest that boots".into(),
    }
}

fn fill_label(fill: Fill) -> String {
    match fill {
        Fill::Used(0.0) => "empty".into(),
        Fill::Used(share) | Fill::Payload(share) => format!("{share} %"),
        Fill::Fragmented(share) | Fill::FragmentedPayload(share) => {
            format!("{share} % fragmented")
        }
    }
}

fn font(size: i32) -> FontDesc<'static> {
    (FontFamily::SansSerif, size).into_font()
}

fn draw(caption: &str, panels: &[Panel]) -> Result<String, Failure> {
    let mut svg = String::new();
    let columns = panels.len().min(2);
    let rows = panels.len().div_ceil(columns);
    let width = pixels(columns) * PANEL.0;
    let legend = Legend::of(panels, width);
    let head_height = legend::CAPTION + legend.height();
    {
        let size = (width, pixels(rows) * PANEL.1 + head_height);
        let root = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        root.fill(&WHITE)?;
        let (head, body) = root.split_vertically(head_height);
        head.draw(&Text::new(caption.to_owned(), (20, 14), font(22)))?;
        legend.draw(&head)?;
        for (area, panel) in body.split_evenly((rows, columns)).iter().zip(panels) {
            draw_panel(area, panel, &legend)?;
        }
        root.present()?;
    }
    Ok(svg)
}

/// A count as pixels count.
fn pixels(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(1)
}

/// Places are one apart.
const fn x(place: usize) -> f64 {
    place as f64
}

fn draw_panel(area: &Area<'_>, panel: &Panel, legend: &Legend) -> Result<(), Failure> {
    let costs = panel.curves.iter().flat_map(|curve| &curve.points);
    let (low, high) = costs.fold((f64::MAX, 1.0_f64), |(low, high), point| {
        (low.min(point.ns), high.max(point.ns))
    });
    // Whole decades: the library labels those well.
    let (lowest, highest) = (low.max(1.0).log10().floor(), high.log10().ceil());
    let range = 10_f64.powf(lowest)..10_f64.powf(highest.max(lowest + 1.0));
    let decades = whole(highest - lowest).max(1);
    let places = -0.5..x(panel.places.len()) - 0.5;
    let bottom = range.start;
    let mut chart = ChartBuilder::on(area)
        .caption(&panel.title, font(18))
        .margin(14)
        .x_label_area_size(46)
        .y_label_area_size(70)
        .build_cartesian_2d(places, range.log_scale())?;
    chart
        .configure_mesh()
        .x_labels(0)
        .y_labels(decades + 1)
        .y_label_formatter(&|ns| cost(*ns))
        .x_desc(panel.x_title)
        .y_desc("ns per pair and thread, best round")
        .axis_desc_style(font(14))
        .label_style(font(13))
        .bold_line_style(BLACK.mix(0.12))
        .max_light_lines(0)
        .disable_x_mesh()
        .draw()?;
    // The library labels numbers, and these are names.
    let (left, top) = area.get_base_pixel();
    let centred = font(13)
        .into_text_style(area)
        .pos(Pos::new(HPos::Center, VPos::Top));
    for (place, name) in panel.places.iter().enumerate() {
        let (at, below) = chart.plotting_area().map_coordinate(&(x(place), bottom));
        let position = (at - left, below - top + 8);
        area.draw(&Text::new(name.clone(), position, centred.clone()))?;
    }
    for curve in &panel.curves {
        let (color, width) = legend.style_of(curve.name);
        let line = color.stroke_width(width);
        let at = |point: &Point| (x(point.place), point.ns);
        let joined = curve
            .points
            .iter()
            .filter(|point| Some(point.place) != panel.apart);
        chart.draw_series(LineSeries::new(joined.map(at), line))?;
        let markers = curve.points.iter().map(|point| {
            let fill = if point.fails { WHITE } else { color };
            EmptyElement::at(at(point))
                + Circle::new((0, 0), 5, fill.filled())
                + Circle::new((0, 0), 5, color.stroke_width(2))
        });
        chart.draw_series(markers)?;
    }
    Ok(())
}

/// A cost on the axis.
fn cost(ns: f64) -> String {
    if ns >= 1e6 {
        format!("{} ms", ns / 1e6)
    } else if ns >= 1e3 {
        format!("{} us", ns / 1e3)
    } else {
        format!("{ns} ns")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::pair::Outcome;
    use crate::report::{LIMIT, Row};

    fn results() -> Results {
        let mut results = Results {
            allocators: vec![LIMIT, "classic", SHIM],
            ..Results::default()
        };
        for (index, allocator) in [LIMIT, SHIM, "classic"].into_iter().enumerate() {
            for size in SIZES {
                for fill in [Fill::EMPTY, FILLS[0]] {
                    let outcome = Outcome {
                        mean_ns: 10.0 * (index + 1) as f64,
                        fail_rate: if fill == FILLS[0] { 0.5 } else { 0.0 },
                        ..Outcome::default()
                    };
                    results.pairs.push(Row {
                        allocator,
                        of: Cell {
                            fill,
                            ..cell(size, Mode::NoCopy)
                        },
                        round: 0,
                        outcome,
                    });
                }
            }
        }
        results
    }

    #[test]
    fn every_allocator_and_size_is_in_the_drawing() {
        let panels = by_size(&results());
        assert_eq!(panels.len(), 1, "only one mode was measured");
        let svg = draw("caption", &panels).expect("a drawing");
        for part in [
            "<svg",
            "caption",
            "memcpy_hot",
            "classic",
            "guest_shim",
            "64 B",
            "256 KiB",
            "mix",
        ] {
            assert!(svg.contains(part), "no '{part}'");
        }
        assert!(!svg.contains("maps fail"));
        for color in ["#1F4FC4", "#707070", "#D65F0E"] {
            let lines = svg
                .lines()
                .filter(|line| line.contains("<polyline") && line.contains(color));
            assert_eq!(
                lines.count(),
                2,
                "{color}: one line in the panel, one in the legend"
            );
        }
    }

    #[test]
    fn failing_points_are_marked() {
        let panels = by_fill(&results());
        assert_eq!(panels.len(), 4);
        let svg = draw("caption", &panels).expect("a drawing");
        assert!(svg.contains("maps fail"));
    }

    #[test]
    fn one_thread_count_is_no_drawing() {
        assert!(by_threads(&results()).is_empty());
    }
}
