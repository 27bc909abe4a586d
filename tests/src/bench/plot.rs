//! One plot for each table: medians as points, and lines from the smallest sample to the largest.

use plotters::chart::ChartBuilder;
use plotters::element::{Circle, PathElement, Text};
use plotters::prelude::{IntoDrawingArea as _, IntoFont as _, SVGBackend};
use plotters::style::{Color as _, RGBColor, ShapeStyle, WHITE};

use super::page::number;
use super::results::{Series, distinct};
use crate::lab::LabError;

const SIZE: (u32, u32) = (640, 320);

/// Told apart also by those who do not see red or green (Okabe and Ito).
const COLOURS: [RGBColor; 5] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
];

/// How far subjects at the same point of the axis stand apart.
const APART: f64 = 0.12;

/// Draws the series of one table.
pub(super) fn draw(series: &[&Series], axis: &str) -> Result<String, LabError> {
    let mut svg = String::new();
    paint(&mut svg, series, axis).map_err(|e| LabError::new("draw a plot", e))?;
    Ok(svg)
}

type Trouble = Box<dyn std::error::Error>;

fn paint(svg: &mut String, series: &[&Series], axis: &str) -> Result<(), Trouble> {
    let points = distinct(series.iter().map(|s| s.at.as_str()));
    let subjects = distinct(series.iter().map(|s| s.subject.as_str()));
    let top = series.iter().map(|s| s.range().1).fold(0.0, f64::max);
    let (what, unit) = series.first().map_or(("", ""), |s| (&s.what, &s.unit));
    let root = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .margin(12)
        .caption(what, ("sans-serif", 15).into_font())
        .x_label_area_size(34)
        .y_label_area_size(64)
        // Room above for the names.
        .build_cartesian_2d(-0.5..points.len() as f64 - 0.5, 0.0..top.max(1e-9) * 1.25)?;
    let words = |x: &f64| {
        let near = (x - x.round()).abs() < 0.01 && *x > -0.5;
        let at = near.then(|| points.get(x.round() as usize)).flatten();
        at.map_or_else(String::new, |at| (*at).to_owned())
    };
    chart
        .configure_mesh()
        .disable_x_mesh()
        .max_light_lines(0)
        .x_labels(points.len() * 2 + 1)
        .x_label_formatter(&words)
        .y_label_formatter(&|y| number(*y))
        .x_desc(axis)
        .y_desc(unit)
        .draw()?;
    let lines = points.iter().all(|at| at.parse::<f64>().is_ok());
    for (turn, subject) in subjects.iter().enumerate() {
        let colour = COLOURS[turn % COLOURS.len()];
        let style = ShapeStyle::from(colour).stroke_width(2);
        let beside = (turn as f64 - (subjects.len() as f64 - 1.0) / 2.0) * APART;
        let mut medians = Vec::new();
        for one in series.iter().filter(|s| s.subject == *subject) {
            let Some(at) = points.iter().position(|at| *at == one.at) else {
                continue;
            };
            let (x, (low, high)) = (at as f64 + beside, one.range());
            medians.push((x, one.median()));
            chart.draw_series([PathElement::new(vec![(x, low), (x, high)], style)])?;
            chart.draw_series([Circle::new((x, one.median()), 4, colour.filled())])?;
        }
        if lines && medians.len() > 1 {
            chart.draw_series([PathElement::new(medians, colour.mix(0.5))])?;
        }
        let place = (80 + 130 * turn as i32, 40);
        let font = ("sans-serif", 13).into_font().color(&colour);
        root.draw(&Text::new((*subject).to_owned(), place, font))?;
    }
    root.present()?;
    drop(chart);
    Ok(())
}
