//! The one picture of a sweep: a panel for each figure, the first key along the bottom, a line for
//! each combination of the others, with confidence intervals.

use std::ops::Range;

use plotters::coord::Shift;
use plotters::prelude::*;

use super::{Estimate, Figures, Point, SweepResult};

/// Of the whole picture.
const SIZE: (u32, u32) = (1100, 1150);
/// Lines beyond these are not told apart by anybody; the rest is in the table.
const MAX_LINES: usize = 10;
/// Okabe and Ito's colours, to be told apart by everybody, and two more.
const COLOURS: [RGBColor; MAX_LINES] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(0, 0, 0),
    RGBColor(120, 94, 60),
    RGBColor(150, 150, 150),
    RGBColor(128, 0, 128),
];

/// One line: its name, and where it is at each place along the bottom.
struct Line {
    name: String,
    at: Vec<(f64, [Option<Estimate>; Figures::COUNT])>,
}

type Drawn = Result<(), Box<dyn std::error::Error>>;

impl SweepResult {
    /// The picture as an SVG document that stands by itself.
    ///
    /// # Errors
    ///
    /// Whatever the plotting library refuses.
    pub fn to_svg(&self) -> anyhow::Result<String> {
        let mut svg = String::new();
        let drawn = self.draw(&SVGBackend::with_string(&mut svg, SIZE).into_drawing_area());
        drawn.map_err(|error| anyhow::anyhow!("can't draw the plot: {error}"))?;
        Ok(svg)
    }

    fn draw(&self, area: &DrawingArea<SVGBackend<'_>, Shift>) -> Drawn {
        area.fill(&WHITE)?;
        let title = format!("{}: {} seeds a point, 95 % intervals", self.world, self.seeds.len());
        let area = area.titled(&title, ("sans-serif", 20))?;
        let lines = self.lines();
        for (figure, panel) in area.split_evenly((3, 2)).iter().enumerate() {
            match figure < Figures::COUNT {
                true => self.draw_panel(panel, figure, &lines)?,
                false => draw_legend(panel, &lines)?,
            }
        }
        area.present()?;
        Ok(())
    }

    fn draw_panel(
        &self,
        panel: &DrawingArea<SVGBackend<'_>, Shift>,
        figure: usize,
        lines: &[Line],
    ) -> Drawn {
        let axis = &self.axes[0];
        let labels = axis.values();
        let last = labels.len().saturating_sub(1) as f64;
        let margin = 0.08 * last.max(1.0);
        let mut chart = ChartBuilder::on(panel)
            .caption(Figures::TITLES[figure], ("sans-serif", 16))
            .margin(12)
            .x_label_area_size(40)
            .y_label_area_size(62)
            .build_cartesian_2d(-margin..last + margin, span(lines, figure))?;
        let label = |x: &f64| match (x - x.round()).abs() < 1e-6 && *x > -0.5 {
            true => labels.get(x.round() as usize).cloned().unwrap_or_default(),
            false => String::new(),
        };
        chart
            .configure_mesh()
            .disable_x_mesh()
            .light_line_style(WHITE)
            .x_labels(2 * labels.len().min(12))
            .x_label_formatter(&label)
            .x_desc(axis.key())
            .draw()?;
        for (line, colour) in lines.iter().zip(COLOURS) {
            let dots: Vec<_> =
                line.at.iter().filter_map(|(x, figures)| Some((*x, figures[figure]?))).collect();
            let means = dots.iter().map(|&(x, estimate)| (x, estimate.mean));
            chart.draw_series(LineSeries::new(means, colour.stroke_width(2)))?;
            chart.draw_series(
                dots.iter()
                    .map(|&(x, estimate)| Circle::new((x, estimate.mean), 3, colour.filled())),
            )?;
            chart.draw_series(dots.iter().map(|&(x, Estimate { mean, ci95 })| {
                let ci95 = ci95.unwrap_or(0.0);
                PathElement::new(vec![(x, mean - ci95), (x, mean + ci95)], colour.stroke_width(1))
            }))?;
        }
        Ok(())
    }

    /// Values of the first key stand at equal distances, as they may be no numbers.
    fn lines(&self) -> Vec<Line> {
        let places = self.axes.first().map_or(&[][..], |axis| axis.values());
        let others = self.points.len() / places.len().max(1);
        let line = |which: usize| {
            let points = self.points.iter().skip(which).step_by(others.max(1));
            let at = points.enumerate().map(|(x, point)| (x as f64, point.estimates())).collect();
            Line { name: other_settings(&self.points[which]), at }
        };
        (0..others.min(MAX_LINES)).map(line).collect()
    }
}

fn other_settings(point: &Point) -> String {
    let others = point.settings.iter().skip(1).map(|(key, value)| format!("{key}={value}"));
    others.collect::<Vec<_>>().join(" ")
}

/// From the least to the most with some air; never empty.
fn span(lines: &[Line], figure: usize) -> Range<f64> {
    let estimates = lines.iter().flat_map(|line| &line.at).filter_map(|(_, all)| all[figure]);
    let ends = estimates.flat_map(|Estimate { mean, ci95 }| {
        let ci95 = ci95.unwrap_or(0.0);
        [mean - ci95, mean + ci95]
    });
    let (least, most) = ends.fold((f64::INFINITY, f64::NEG_INFINITY), |(least, most), end| {
        (least.min(end), most.max(end))
    });
    if least > most {
        return 0.0..1.0;
    }
    let air = (0.08 * (most - least)).max(1e-3 * most.abs()).max(1e-3);
    least - air..most + air
}

fn draw_legend(panel: &DrawingArea<SVGBackend<'_>, Shift>, lines: &[Line]) -> Drawn {
    for (at, (line, colour)) in lines.iter().zip(COLOURS).enumerate() {
        let y = 50 + 24 * at as i32;
        let stroke = PathElement::new(vec![(30, y), (60, y)], colour.stroke_width(3));
        panel.draw(&stroke)?;
        let name = if line.name.is_empty() { "all runs" } else { &line.name };
        panel.draw(&Text::new(name.to_owned(), (70, y - 7), ("sans-serif", 15)))?;
    }
    Ok(())
}
