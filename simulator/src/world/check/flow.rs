//! The keys of a flow, wherever they stand: how its packets come, and what is asked of it.

use std::ops::Range;
use std::time::Duration;

use tradewind_proto::units::{Class, PopId, Redundancy};

use super::Checked;
use crate::traffic::{Schedule, Shape, Video};
use crate::world::error::{Fault, hint};
use crate::world::file::{FlowKeys, LimitsTable, ShapeName, VideoTable};
use crate::world::quantity::{BitRate, Bytes, Share, Span};
use crate::world::source::Sources;
use crate::world::{Limits, PolicyRule, Traffic, World};

/// What flows are checked against.
#[derive(Clone, Copy)]
pub(super) struct Setting<'a> {
    pub(super) policies: &'a [PolicyRule],
    /// How long the run is.
    pub(super) duration: Duration,
    /// What is asked of flows that have no figures of their own.
    pub(super) asserted: LimitsTable,
}

/// A flow without its name and its ends.
pub(super) struct Kind {
    pub(super) class: Class,
    pub(super) size: usize,
    pub(super) interval: Duration,
    pub(super) shape: Shape,
    pub(super) deadline: Duration,
    pub(super) policy: Option<String>,
    pub(super) redundancy: Redundancy,
    pub(super) start: Duration,
    pub(super) stop: Duration,
    pub(super) limits: Limits,
}

impl Kind {
    /// A flow of this kind.
    pub(super) fn flow(
        &self,
        name: String,
        group: Option<String>,
        (from, to): (PopId, PopId),
    ) -> Traffic {
        Traffic {
            name,
            group,
            from,
            to,
            class: self.class,
            size: self.size,
            interval: self.interval,
            shape: self.shape.clone(),
            deadline: self.deadline,
            policy: self.policy.clone(),
            redundancy: self.redundancy,
            start: self.start,
            stop: self.stop,
            limits: self.limits,
        }
    }
}

/// The flow that `keys` of a `table` describe.
pub(super) fn check_flow(
    keys: &FlowKeys<'_>,
    table: &str,
    setting: Setting<'_>,
    sources: &mut Sources,
    at: &Range<usize>,
) -> Checked<Kind> {
    let fault = |message: String| Fault::new(at.clone(), message);
    if let Some(name) = keys.policy
        && !setting.policies.iter().any(|rule| rule.name == *name)
    {
        let hint = hint(name, setting.policies.iter().map(|rule| rule.name.as_str()));
        return Err(fault(format!("there is no [[policy]] named \"{name}\"{hint}")));
    }
    let (shape, size, pps) = match keys.trace {
        Some(file) => recorded(keys, file, sources).map_err(fault)?,
        None => packets(keys, table).map_err(fault)?,
    };
    if !(0.001..=Traffic::MAX_PPS).contains(&pps) {
        return Err(fault(format!("{pps} packets per second: at least 0.001, at most 200,000")));
    }
    let deadline = keys.deadline.map_or(keys.class.default_deadline(), |Span(deadline)| deadline);
    if !Traffic::DEADLINES.contains(&deadline) {
        return Err(fault(format!("a deadline is 1 ms to 16 s, not {deadline:?}")));
    }
    let (start, stop) = times(keys, setting.duration).map_err(fault)?;
    let packets = (stop - start).as_secs_f64() * pps;
    if packets > World::MAX_PACKETS as f64 {
        return Err(fault(format!("{packets:.0} packets are too many for one flow")));
    }
    Ok(Kind {
        class: keys.class,
        size,
        interval: Duration::from_secs_f64(1.0 / pps),
        shape,
        deadline,
        policy: keys.policy.map(str::to_owned),
        redundancy: keys.redundancy,
        start,
        stop,
        limits: limits(keys.assert, setting.asserted),
    })
}

/// Its shape, the size of its packets, and how many there are a second.
fn packets(keys: &FlowKeys<'_>, table: &str) -> Result<(Shape, usize, f64), String> {
    let shape = shape(keys)?;
    let Some(Bytes(size)) = keys.size else {
        return Err(format!("[[{table}]] needs the size of its packets"));
    };
    let min = match shape {
        Shape::Video(_) => Schedule::MIN_VIDEO_SIZE,
        _ => Traffic::MIN_SIZE,
    };
    if !(min..=Traffic::MAX_SIZE).contains(&size) {
        let max = Traffic::MAX_SIZE;
        return Err(format!("a packet's size is {min} to {max} bytes, not {size}"));
    }
    match (keys.rate, keys.pps) {
        (Some(BitRate(rate)), None) => Ok((shape, size, rate as f64 / (size as f64 * 8.0))),
        (None, Some(pps)) => Ok((shape, size, pps)),
        _ => Err(format!("[[{table}]] needs either rate or pps")),
    }
}

/// The same of packets that were recorded.
fn recorded(
    keys: &FlowKeys<'_>,
    file: &str,
    sources: &mut Sources,
) -> Result<(Shape, usize, f64), String> {
    let others = [keys.size.is_some(), keys.rate.is_some(), keys.pps.is_some()];
    if others.contains(&true) || keys.shape.is_some() || keys.video.is_some() {
        return Err(
            "a trace has its own sizes and times: leave out size, rate, pps and shape".into()
        );
    }
    let recording = sources.recording(file).map_err(|error| error.to_string())?;
    let count = recording.packets.len();
    let bytes: usize = recording.packets.iter().map(|(_, size)| size).sum();
    let pps = count as f64 / recording.length.as_secs_f64();
    Ok((Shape::Recorded(recording), bytes.div_ceil(count), pps))
}

fn times(keys: &FlowKeys<'_>, duration: Duration) -> Result<(Duration, Duration), String> {
    let start = keys.start.map_or(Duration::ZERO, |Span(start)| start);
    let stop = keys.stop.map_or(duration, |Span(stop)| stop);
    match start < stop && stop <= duration {
        true => Ok((start, stop)),
        false => {
            Err(format!("traffic from {start:?} to {stop:?} is not within the run's {duration:?}"))
        }
    }
}

fn shape(keys: &FlowKeys<'_>) -> Result<Shape, String> {
    match (keys.shape, keys.video) {
        (Some(ShapeName::Video), None) => Ok(Shape::Video(Video::default())),
        (Some(ShapeName::Video), Some(table)) => video(table).map(Shape::Video),
        (_, Some(_)) => Err("video = {} belongs to shape = \"video\"".into()),
        (None | Some(ShapeName::Constant), None) => Ok(Shape::Constant),
        (Some(ShapeName::Poisson), None) => Ok(Shape::Poisson),
    }
}

fn video(table: VideoTable) -> Result<Video, String> {
    let within = |key: &str, value: Option<f64>, default, range: std::ops::RangeInclusive<f64>| {
        let value = value.unwrap_or(default);
        match range.contains(&value) {
            true => Ok(value),
            false => Err(format!("{key} is {} to {}, not {value}", range.start(), range.end())),
        }
    };
    let default = Video::default();
    let key_every = table.key_every.unwrap_or(default.key_every);
    if key_every == 0 {
        return Err("key_every counts frames from one key frame to the next, 1 at least".into());
    }
    Ok(Video {
        fps: within("fps", table.fps, default.fps, 1.0..=240.0)?,
        key_every,
        key_size: within("key_size", table.key_size, default.key_size, 1.0..=100.0)?,
        spread: within("spread", table.spread, default.spread, 0.0..=1.0)?,
        // At less than the mean rate frames would queue up without end.
        pace: within("pace", table.pace, default.pace, 1.1..=1000.0)?,
    })
}

/// What is asked of one flow: its own figures, and those of all flows where it has none.
fn limits(own: LimitsTable, all: LimitsTable) -> Limits {
    let span = |own: Option<Span>, all: Option<Span>| own.or(all).map(|Span(span)| span);
    Limits {
        in_time: own.in_time.or(all.in_time).map(|Share(share)| share),
        delay_median: span(own.delay_median, all.delay_median),
        delay_p99: span(own.delay_p99, all.delay_p99),
        longest_gap: span(own.longest_gap, all.longest_gap),
    }
}
