//! Plots as SVG. Colours stand for roles, which the page's style sheet turns into those of the
//! theme; text is set by the reader's browser.

use std::ops::Range;
use std::time::Duration;

use plotters::coord::Shift;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::series::Track;
use crate::baseline::Way;
use crate::traffic::FlowReport;

const AXIS: RGBColor = RGBColor(2, 0, 1);
const GRID: RGBColor = RGBColor(2, 0, 2);
const TEXT: RGBColor = RGBColor(2, 0, 3);
const EVENT: RGBColor = RGBColor(2, 0, 4);
const SIZE: (u32, u32) = (400, 245);
/// Room for the longest label up the side, `0.001 %`.
const Y_LABELS: u32 = 72;
/// Labels along the bottom are so far apart at least.
const X_LABEL_GAP: i32 = 58;
/// So are those of marks.
const MARK_GAP: i32 = 16;
/// The logarithm of the least share, in percent, that is told from none.
const LEAST_MISSING: f64 = -3.0;
/// Shares over time are taken over so long.
const WINDOW: Duration = Duration::from_secs(1);
/// Points of a line of a plot, at most.
const MOST_POINTS: usize = 400;

/// A dashed line from top to bottom, and what is written above it.
pub(super) struct Mark {
    pub(super) at: f64,
    pub(super) label: String,
}

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
        if sum_by(&sent, from - delay) == 0.0 {
            return None; // so few were sent by then that one late packet would look like a breakdown
        }
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

/// The 99th percentile of delay over time, in milliseconds: a line for each stretch of time
/// without a second of silence.
pub(super) fn delay_over_time(way: Way, track: &Track, row: usize) -> Vec<Line> {
    let points = track.samples.iter().filter_map(|sample| {
        let p99 = sample.rows.get(row)?.as_ref()?.p99?;
        Some((sample.at, sample.lasts, p99.as_secs_f64() * 1e3))
    });
    let mut lines: Vec<Line> = Vec::new();
    let mut before = None;
    for (at, lasts, ms) in points {
        if before.is_none_or(|before| at - before > lasts.max(WINDOW)) {
            lines.push(Line { way, points: Vec::new() });
        }
        before = Some(at);
        if let Some(line) = lines.last_mut() {
            line.points.push((at.as_secs_f64(), ms));
        }
    }
    lines.into_iter().map(|line| Line { points: thinned(line.points), ..line }).collect()
}

/// Delays along the bottom, shares of packets up the side, in tenths of each other.
pub(super) fn distribution(lines: &[Line], deadline: Option<Duration>) -> String {
    let delays = || lines.iter().flat_map(|line| &line.points).map(|(ms, _)| *ms);
    let deadline = deadline.map(|deadline| deadline.as_secs_f64() * 1e3);
    let most = delays().chain(deadline).fold(1.0, f64::max) * 1.15;
    let least = delays().fold(most, f64::min).max(0.05) / 1.15;
    let marks: Vec<Mark> =
        deadline.iter().map(|ms| Mark { at: ms.ln(), label: String::new() }).collect();
    let scaled: Vec<Line> = lines
        .iter()
        .map(|line| Line {
            way: line.way,
            points: line.points.iter().map(|&(ms, share)| (ms.max(0.05).ln(), share)).collect(),
        })
        .collect();
    let ticks = logarithmic_ticks(least..most);
    let (x, y) = (least.ln()..most.ln(), LEAST_MISSING..2.0);
    draw(&Axes { x, y, y_unit: "%", ticks: Some(ticks) }, &scaled, &marks)
}

/// Round numbers within `range`, as few as are at least three of; the finest steps otherwise.
fn logarithmic_ticks(range: Range<f64>) -> Vec<f64> {
    const STEPS: [&[f64]; 3] = [
        &[1.0, 2.0, 5.0],
        &[1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0],
        &[
            1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.8, 2.0, 2.2, 2.5, 3.0, 3.5, 4.0, 5.0, 6.0, 7.0,
            8.0, 9.0,
        ],
    ];
    let within = |steps: &&[f64]| -> Vec<f64> {
        let decades = (-2..7).map(|decade| 10f64.powi(decade));
        let all = decades.flat_map(|decade| steps.iter().map(move |step| step * decade));
        all.filter(|tick| range.contains(tick)).collect()
    };
    let finest = within(&STEPS[2]);
    STEPS.iter().map(within).find(|ticks| ticks.len() >= 3).unwrap_or(finest)
}

/// Seconds along the bottom; events are marked.
pub(super) fn over_time(
    lines: &[Line],
    lasted: Duration,
    y: Range<f64>,
    unit: &'static str,
    marks: &[Mark],
) -> String {
    let x = 0.0..lasted.as_secs_f64().max(0.001);
    draw(&Axes { x, y, y_unit: unit, ticks: None }, lines, marks)
}

struct Axes {
    x: Range<f64>,
    y: Range<f64>,
    y_unit: &'static str,
    /// Of a bottom axis whose coordinates are logarithms of milliseconds, while those up the side
    /// are logarithms of percents; `None`: seconds, and plain numbers.
    ticks: Option<Vec<f64>>,
}

fn draw(axes: &Axes, lines: &[Line], marks: &[Mark]) -> String {
    let mut svg = String::new();
    // Nothing is written to a file: what could go wrong is only that there is no room for a mark.
    if paint(&mut svg, axes, lines, marks).is_err() {
        svg.clear();
    }
    svg
}

type Area<'b> = DrawingArea<SVGBackend<'b>, Shift>;
type Chart<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;
type Painted = Result<(), Box<dyn std::error::Error>>;

fn paint(svg: &mut String, axes: &Axes, lines: &[Line], marks: &[Mark]) -> Painted {
    let area = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    let (x, y) = (axes.x.clone(), axes.y.clone());
    let mut chart = ChartBuilder::on(&area)
        .margin_top(22)
        .margin_right(18)
        .x_label_area_size(28)
        .y_label_area_size(Y_LABELS)
        .build_cartesian_2d(x.clone(), y.clone())?;
    mesh(&mut chart, &area, axes)?;
    let inside: Vec<&Mark> = marks.iter().filter(|mark| x.contains(&mark.at)).collect();
    let line = |mark: &&Mark| PathElement::new([(mark.at, y.start), (mark.at, y.end)], EVENT);
    chart.draw_series(inside.iter().map(line))?;
    let labels = inside.iter().map(|mark| (mark.at, mark.label.as_str()));
    write_along(&chart, &area, labels, (y.end, VPos::Bottom, -4), MARK_GAP)?;
    for line in lines.iter().filter(|line| !line.points.is_empty()) {
        let within = line.points.iter().filter(|(at, _)| (x.start..=x.end).contains(at));
        let within = within.map(|&(at, value)| (at, value.clamp(y.start, y.end)));
        let style = ShapeStyle::from(&colour(line.way)).stroke_width(2);
        chart.draw_series(LineSeries::new(within, style))?;
    }
    area.present()?;
    Ok(())
}

/// Axes, grid and their labels.
fn mesh<'b>(chart: &mut Chart<'_, 'b>, area: &Area<'b>, axes: &Axes) -> Painted {
    let y = axes.y.clone();
    let digits = match y.end - y.start {
        span if span < 0.1 => 3,
        span if span < 1.0 => 2,
        span if span < 10.0 => 1,
        _ => 0,
    };
    let y_label = |value: &f64| match axes.ticks {
        Some(_) => format!("{} %", 10f64.powf(*value)),
        None => format!("{value:.digits$} {}", axes.y_unit),
    };
    let x_label = |value: &f64| format!("{value} s");
    let mut mesh = chart.configure_mesh();
    mesh.axis_style(AXIS).bold_line_style(GRID).light_line_style(TRANSPARENT);
    mesh.label_style(("sans-serif", 16).into_font().color(&TEXT)).x_labels(6).y_labels(6);
    mesh.x_label_formatter(&x_label).y_label_formatter(&y_label);
    let Some(ticks) = &axes.ticks else { return Ok(mesh.draw()?) };
    mesh.disable_x_mesh().x_labels(0).draw()?;
    let at = |tick: &f64| PathElement::new([(tick.ln(), y.start), (tick.ln(), y.end)], GRID);
    chart.draw_series(ticks.iter().map(at))?;
    let labels: Vec<String> = ticks.iter().map(|tick| format!("{tick} ms")).collect();
    let labels = ticks.iter().zip(&labels).map(|(tick, label)| (tick.ln(), label.as_str()));
    write_along(chart, area, labels, (y.start, VPos::Top, 6), X_LABEL_GAP)
}

/// Writes at those places along the bottom, so many pixels from the height `y`, what does not come
/// nearer than `gap` to what is written before.
fn write_along<'l>(
    chart: &Chart<'_, '_>,
    area: &Area<'_>,
    labels: impl Iterator<Item = (f64, &'l str)>,
    (y, side, away): (f64, VPos, i32),
    gap: i32,
) -> Painted {
    let text = ("sans-serif", 16).into_font().color(&TEXT).pos(Pos::new(HPos::Center, side));
    let mut free = 0;
    for (at, label) in labels {
        let (px, py) = chart.backend_coord(&(at, y));
        if px >= free {
            area.draw(&Text::new(label.to_owned(), (px, py + away), text.clone()))?;
            free = px + gap;
        }
    }
    Ok(())
}
