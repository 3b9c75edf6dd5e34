// SPDX-License-Identifier: MIT OR Apache-2.0
//! `pool.svg`: pool bytes granted and in use over time.

use plotters::prelude::*;
use plotters::style::FontFamily;

use crate::steady_state;
use crate::transcript::Transcript;

/// Size of the drawing in pixels.
const SIZE: (u32, u32) = (960, 480);
const GRANTED: RGBColor = RGBColor(0x1f, 0x77, 0xb4);
const USED: RGBColor = RGBColor(0xd6, 0x5f, 0x0e);
const STEADY: RGBColor = RGBColor(0x2c, 0xa0, 0x2c);

/// The drawing; without samples it says so.
///
/// # Errors
/// What the drawing library says.
pub fn pool_chart(transcript: &Transcript) -> Result<String, String> {
    let mut svg = String::new();
    draw(transcript, &mut svg).map_err(|error| error.to_string())?;
    Ok(svg)
}

/// A curve of (time, MiB) points.
type Curve = Vec<(f64, f64)>;

fn draw(
    transcript: &Transcript,
    svg: &mut String,
) -> Result<(), DrawingAreaErrorKind<std::io::Error>> {
    let root = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let font = |size: i32| (FontFamily::SansSerif, size).into_font();
    let Some(first) = transcript.pool.first() else {
        let text = "the guest reported no pool samples";
        root.draw(&Text::new(text, (40, 40), font(20)))?;
        return root.present();
    };
    let (scale, unit) = match transcript.ticks_per_second() {
        Some(rate) => (rate, "seconds since attach"),
        None => (1e6, "million ticks since attach"),
    };
    let origin = transcript.attach.map_or(first.tsc, |attach| attach.tsc);
    let curve = |of: fn(&crate::guest_line::PoolSample) -> u64| -> Curve {
        transcript
            .pool
            .iter()
            .map(|sample| {
                let time = sample.tsc.saturating_sub(origin) as f64 / scale;
                (time, of(sample) as f64 / f64::from(1 << 20))
            })
            .collect()
    };
    let granted = steps(&curve(|sample| sample.granted));
    let used = curve(|sample| sample.used);
    let end = granted.last().map_or(1.0, |(time, _)| *time).max(1e-6);
    let top = granted
        .iter()
        .chain(&used)
        .fold(1.0, |top: f64, (_, y)| top.max(*y));

    let mut chart = ChartBuilder::on(&root)
        .caption("I/O pool: granted and in use", font(22))
        .margin(16)
        .x_label_area_size(48)
        .y_label_area_size(72)
        .build_cartesian_2d(0.0..end, 0.0..top * 1.1)?;
    if let Some((from, to)) = steady_state(transcript) {
        let time = |tsc: u64| tsc.saturating_sub(origin) as f64 / scale;
        let band = [(time(from), 0.0), (time(to), top * 1.1)];
        chart
            .draw_series([Rectangle::new(band, STEADY.mix(0.12).filled())])?
            .label("second full read: steady state")
            .legend(|(x, y)| {
                Rectangle::new([(x, y - 5), (x + 24, y + 5)], STEADY.mix(0.3).filled())
            });
    }
    chart
        .configure_mesh()
        .x_desc(unit)
        .y_desc("MiB")
        .axis_desc_style(font(16))
        .label_style(font(14))
        .max_light_lines(0)
        .draw()?;
    let area =
        AreaSeries::new(granted, 0.0, GRANTED.mix(0.15)).border_style(GRANTED.stroke_width(2));
    chart
        .draw_series(area)?
        .label("granted by the service")
        .legend(|(x, y)| PathElement::new([(x, y), (x + 24, y)], GRANTED.stroke_width(2)));
    chart
        .draw_series(LineSeries::new(used, USED.stroke_width(2)))?
        .label("in use")
        .legend(|(x, y)| PathElement::new([(x, y), (x + 24, y)], USED.stroke_width(2)));
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .legend_area_size(32)
        .label_font(font(14))
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.3))
        .draw()?;
    root.present()
}

/// Time stamps of the markers around the steady state; host and guest read the same counter.
fn steady_state(transcript: &Transcript) -> Option<(u64, u64)> {
    let mark = |id| transcript.marks.get(&id).copied();
    Some((mark(steady_state::FROM)?, mark(steady_state::TO)?))
}

/// A curve that keeps its height until the next point: the pool changes in jumps.
fn steps(points: &Curve) -> Curve {
    let mut height = None;
    let mut steps = Vec::with_capacity(points.len() * 2);
    for (time, value) in points {
        if let Some(before) = height.filter(|before| before != value) {
            steps.push((*time, before));
        }
        steps.push((*time, *value));
        height = Some(*value);
    }
    steps
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{pool_chart, steps};
    use crate::transcript::Transcript;

    #[test]
    fn labels_and_both_curves_are_drawn() {
        let mut transcript = Transcript::default();
        for (tsc, granted, used) in [(0, 2, 1), (10, 2, 2), (20, 8, 5), (40, 2, 0)] {
            let (granted, used) = (granted << 20, used << 20);
            let line = format!("@pool tsc={tsc} granted={granted} used={used}");
            transcript.guest_says(&line, Duration::from_millis(tsc * 100));
        }
        transcript.host_says("mark id=1 tsc=15");
        transcript.host_says("mark id=2 tsc=30");
        let svg = pool_chart(&transcript).expect("a drawing");
        for part in [
            "<svg",
            "steady state",
            "MiB",
            "seconds since attach",
            "granted by the service",
            "in use",
        ] {
            assert!(svg.contains(part), "no '{part}'");
        }
        assert!(svg.matches("<polyline").count() >= 2, "no curves");
    }

    #[test]
    fn a_run_without_samples_says_so() {
        let svg = pool_chart(&Transcript::default()).expect("a drawing");
        assert!(svg.contains("no pool samples"));
    }

    #[test]
    fn the_pool_jumps() {
        let curve = steps(&vec![(0.0, 2.0), (1.0, 2.0), (2.0, 4.0)]);
        assert_eq!(curve, [(0.0, 2.0), (1.0, 2.0), (2.0, 2.0), (2.0, 4.0)]);
    }
}
