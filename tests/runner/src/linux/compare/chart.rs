// SPDX-License-Identifier: MIT OR Apache-2.0
//! `compare.svg`: memory that is shared with the host, boot beside boot.

use plotters::prelude::*;
use plotters::style::FontFamily;

use super::boot::Boot;
use super::table::MOMENTS;

/// Size of the drawing in pixels.
const SIZE: (u32, u32) = (960, 480);
const COLOURS: [RGBColor; 4] = [
    RGBColor(0x1f, 0x77, 0xb4),
    RGBColor(0xd6, 0x5f, 0x0e),
    RGBColor(0x2c, 0xa0, 0x2c),
    RGBColor(0x94, 0x67, 0xbd),
];
/// Room of a group of bars that they fill.
const FILLED: f64 = 0.8;

/// The drawing.
///
/// # Errors
/// What the drawing library says.
pub fn chart(boots: &[Boot]) -> Result<String, String> {
    let mut svg = String::new();
    draw(boots, &mut svg).map_err(|error| error.to_string())?;
    Ok(svg)
}

fn draw(boots: &[Boot], svg: &mut String) -> Result<(), DrawingAreaErrorKind<std::io::Error>> {
    let root = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let font = |size: i32| (FontFamily::SansSerif, size).into_font();
    let mebibytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let heights: Vec<_> = boots
        .iter()
        .map(|boot| MOMENTS.map(|(_, of)| mebibytes(of(&boot.account.shared))))
        .collect();
    let top = heights
        .iter()
        .flatten()
        .fold(1.0, |top: f64, y| top.max(*y));
    let mut chart = ChartBuilder::on(&root)
        .caption("Memory shared with the host", font(22))
        .margin(16)
        .x_label_area_size(40)
        .y_label_area_size(72)
        .build_cartesian_2d(0.0..MOMENTS.len() as f64, 0.0..top * 1.25)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .disable_x_axis()
        .y_desc("MiB")
        .axis_desc_style(font(16))
        .label_style(font(14))
        .max_light_lines(0)
        .draw()?;
    let width = FILLED / boots.len().max(1) as f64;
    for (number, (boot, heights)) in boots.iter().zip(&heights).enumerate() {
        let colour = COLOURS[number % COLOURS.len()];
        let left = |moment: usize| moment as f64 + (1.0 - FILLED) / 2.0 + number as f64 * width;
        let bars = heights.iter().enumerate().map(|(moment, height)| {
            let corners = [(left(moment), 0.0), (left(moment) + width * 0.9, *height)];
            Rectangle::new(corners, colour.filled())
        });
        chart
            .draw_series(bars)?
            .label(&boot.name)
            .legend(move |(x, y)| Rectangle::new([(x, y - 5), (x + 24, y + 5)], colour.filled()));
        let labels = heights.iter().enumerate().map(|(moment, height)| {
            Text::new(
                format!("{height:.1}"),
                (left(moment), height + top * 0.05),
                font(14),
            )
        });
        chart.draw_series(labels)?;
    }
    let names = MOMENTS.iter().enumerate().map(|(moment, (name, _))| {
        let place = (moment as f64 + (1.0 - FILLED) / 2.0, 0.0);
        EmptyElement::at(place) + Text::new((*name).to_owned(), (0, 10), font(16))
    });
    // Below the axis: the plotting area cuts off what lies outside.
    for name in names {
        chart.draw_series(std::iter::once(name))?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .legend_area_size(32)
        .label_font(font(14))
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.3))
        .draw()?;
    root.present()
}
