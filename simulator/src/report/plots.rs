//! Plots as SVG. Colours stand for roles, which the page's style sheet turns into those of the
//! theme; text is set by the reader's browser.

use std::ops::Range;
use std::time::Duration;

use plotters::prelude::*;

use super::series::Track;
use crate::baseline::Way;
use crate::traffic::FlowReport;

const AXIS: RGBColor = RGBColor(2, 0, 1);
const GRID: RGBColor = RGBColor(2, 0, 2);
const TEXT: RGBColor = RGBColor(2, 0, 3);
const EVENT: RGBColor = RGBColor(2, 0, 4);
const SIZE: (u32, u32) = (400, 235);
/// The logarithm of the least share, in percent, that is told from none.
const LEAST_MISSING: f64 = -3.0;
/// Shares over time are taken over so long.
const WINDOW: Duration = Duration::from_secs(1);
/// Points of a line of a plot, at most.
const MOST_POINTS: usize = 400;

/// A line, in the colour of its way.
pub(super) struct Line {
    pub(super) way: Way,
    pub(super) points: Vec<(f64, f64)>,
}

fn colour(way: Way) -> RGBColor {
    let role = match way {
        Way::Direct => 0,
        Way::Routed => 1,
        Way::Fec => 2,
        Way::Arq => 3,
        Way::Disjoint => 4,
        Way::Overlay => 5,
        Way::Rtt => 6,
    };
    RGBColor(1, 0, role)
}

/// The logarithm (to base 10) of the share of the packets sent, in percent, that had not come within
/// each delay, in milliseconds.
pub(super) fn missing(way: Way, report: &FlowReport) -> Line {
    let share = |missing: u64| {
        let percent = 100.0 * missing as f64 / report.sent.max(1) as f64;
        percent.log10().max(LEAST_MISSING)
    };
    let mut missing = report.sent;
    let mut points: Vec<(f64, f64)> = Vec::new();
    for (delay, packets) in report.delays.buckets() {
        let ms = delay.as_secs_f64() * 1e3;
        points.push((ms, share(missing)));
        missing = missing.saturating_sub(packets);
        points.push((ms, share(missing)));
    }
    Line { way, points: thinned(points) }
}

/// Those points that can be told apart.
fn thinned(points: Vec<(f64, f64)>) -> Vec<(f64, f64)> {
    let every = points.len().div_ceil(MOST_POINTS).max(1);
    let last = points.len().saturating_sub(1);
    let keep = |(at, point): (usize, (f64, f64))| (at % every == 0 || at == last).then_some(point);
    points.into_iter().enumerate().filter_map(keep).collect()
}

/// The share in time over time, in percent, over [`WINDOW`]. What arrives is set against what was
/// sent as long before as packets usually take.
pub(super) fn share_over_time(way: Way, track: &Track, row: usize, delay: Duration) -> Line {
    let (mut sent, mut in_time) = (vec![(0.0, 0.0)], vec![(0.0, 0.0)]);
    let add = |sums: &mut Vec<(f64, f64)>, at: f64, more: u64| {
        let so_far = sums.last().map_or(0.0, |(_, so_far)| *so_far);
        sums.push((at, so_far + more as f64));
    };
    for sample in &track.samples {
        let Some(Some(row)) = sample.rows.get(row) else { continue };
        add(&mut sent, sample.at.as_secs_f64(), row.sent);
        add(&mut in_time, sample.at.as_secs_f64(), row.in_time);
    }
    let delay = delay.as_secs_f64();
    let points = track.samples.iter().filter_map(|sample| {
        let at = sample.at.as_secs_f64();
        let from = at - sample.lasts.max(WINDOW).as_secs_f64();
        let due = sum_by(&sent, at - delay) - sum_by(&sent, from - delay);
        let came = sum_by(&in_time, at) - sum_by(&in_time, from);
        (due >= 1.0).then(|| (at, (100.0 * came / due).min(100.0)))
    });
    Line { way, points: thinned(points.collect()) }
}

/// A sum so far at some time, evenly between two samples.
fn sum_by(sums: &[(f64, f64)], at: f64) -> f64 {
    let next = sums.partition_point(|(then, _)| *then <= at);
    match (next.checked_sub(1).map(|before| sums[before]), sums.get(next)) {
        (Some((t0, n0)), Some((t1, n1))) => n0 + (n1 - n0) * (at - t0) / (t1 - t0).max(1e-9),
        (Some((_, all)), None) => all,
        (None, _) => 0.0,
    }
}

/// The 99th percentile of delay over time, in milliseconds.
pub(super) fn delay_over_time(way: Way, track: &Track, row: usize) -> Line {
    let points = track.samples.iter().filter_map(|sample| {
        let p99 = sample.rows.get(row)?.as_ref()?.p99?;
        Some((sample.at.as_secs_f64(), p99.as_secs_f64() * 1e3))
    });
    Line { way, points: thinned(points.collect()) }
}

/// Delays along the bottom, in steps of 1, 2, 5; shares of packets up the side, in tenths of each other.
pub(super) fn distribution(lines: &[Line], deadline: Option<Duration>) -> String {
    let delays = || lines.iter().flat_map(|line| &line.points).map(|(ms, _)| *ms);
    let deadline = deadline.map(|deadline| deadline.as_secs_f64() * 1e3);
    let most = delays().chain(deadline).fold(1.0, f64::max) * 1.15;
    let least = delays().fold(most, f64::min).max(0.05) / 1.15;
    let marks: Vec<f64> = deadline.into_iter().collect();
    let (from, to) = (least.ln(), most.ln());
    let ticks: Vec<f64> = (-2..7)
        .flat_map(|decade| [1.0, 2.0, 5.0].map(|step| step * 10f64.powi(decade)))
        .filter(|tick| (least..most).contains(tick))
        .collect();
    let scaled: Vec<Line> = lines
        .iter()
        .map(|line| Line {
            way: line.way,
            points: line.points.iter().map(|&(ms, share)| (ms.max(0.05).ln(), share)).collect(),
        })
        .collect();
    let axes = Axes { x: from..to, y: LEAST_MISSING..2.0, x_unit: "ms", y_unit: "%" };
    draw(&axes, &scaled, &marks.iter().map(|ms| ms.ln()).collect::<Vec<_>>(), Some(&ticks))
}

/// Seconds along the bottom; events are marked.
pub(super) fn over_time(
    lines: &[Line],
    lasted: Duration,
    y: Range<f64>,
    unit: &'static str,
    events: &[Duration],
) -> String {
    let x = 0.0..lasted.as_secs_f64().max(0.001);
    let marks: Vec<f64> = events.iter().map(Duration::as_secs_f64).collect();
    draw(&Axes { x, y, x_unit: "s", y_unit: unit }, lines, &marks, None)
}

struct Axes {
    x: Range<f64>,
    y: Range<f64>,
    x_unit: &'static str,
    y_unit: &'static str,
}

/// `ticks`: of a bottom axis whose coordinates are logarithms; those up the side then are as well.
fn draw(axes: &Axes, lines: &[Line], marks: &[f64], ticks: Option<&[f64]>) -> String {
    let mut svg = String::new();
    // Nothing is written to a file: what could go wrong is only that there is no room for a mark.
    if paint(&mut svg, axes, lines, marks, ticks).is_err() {
        svg.clear();
    }
    svg
}

fn paint(
    svg: &mut String,
    axes: &Axes,
    lines: &[Line],
    marks: &[f64],
    ticks: Option<&[f64]>,
) -> Result<(), Box<dyn std::error::Error>> {
    let area = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    let (x, y) = (axes.x.clone(), axes.y.clone());
    let mut chart = ChartBuilder::on(&area)
        .margin_top(10)
        .margin_right(14)
        .x_label_area_size(28)
        .y_label_area_size(58)
        .build_cartesian_2d(x.clone(), y.clone())?;
    let text = ("sans-serif", 16).into_font().color(&TEXT);
    let span = y.end - y.start;
    let digits = if span < 0.1 {
        3
    } else if span < 1.0 {
        2
    } else if span < 10.0 {
        1
    } else {
        0
    };
    let y_label = |value: &f64| match ticks {
        Some(_) => format!("{} %", 10f64.powf(*value)),
        None => format!("{value:.digits$} {}", axes.y_unit),
    };
    let x_label = |value: &f64| match ticks {
        Some(_) => String::new(),
        None => format!("{value} {}", axes.x_unit),
    };
    let mut mesh = chart.configure_mesh();
    mesh.axis_style(AXIS).bold_line_style(GRID).light_line_style(TRANSPARENT);
    mesh.label_style(text.clone()).x_labels(6).y_labels(6);
    mesh.x_label_formatter(&x_label).y_label_formatter(&y_label);
    if ticks.is_some() {
        mesh.disable_x_mesh().x_labels(0);
    }
    mesh.draw()?;
    for &tick in ticks.unwrap_or_default() {
        let at = tick.ln();
        chart.draw_series([PathElement::new([(at, y.start), (at, y.end)], GRID)])?;
        let (px, py) = chart.backend_coord(&(at, y.start));
        let label = format!("{tick}");
        let centred = text.clone().pos(plotters::style::text_anchor::Pos::new(
            plotters::style::text_anchor::HPos::Center,
            plotters::style::text_anchor::VPos::Top,
        ));
        area.draw(&Text::new(label, (px, py + 6), centred))?;
    }
    let inside = marks.iter().filter(|at| (x.start..=x.end).contains(at));
    chart.draw_series(inside.map(|&at| PathElement::new([(at, y.start), (at, y.end)], EVENT)))?;
    for line in lines.iter().filter(|line| !line.points.is_empty()) {
        let within = line.points.iter().filter(|(at, _)| (x.start..=x.end).contains(at));
        let within = within.map(|&(at, value)| (at, value.clamp(y.start, y.end)));
        let style = ShapeStyle::from(&colour(line.way)).stroke_width(2);
        chart.draw_series(LineSeries::new(within, style))?;
    }
    area.present()?;
    Ok(())
}
