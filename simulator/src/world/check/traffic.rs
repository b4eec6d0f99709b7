//! Who sends what: `[[traffic]]`, `[[demand]]`, `[[calls]]`, and the crowds that make more of it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use toml::Spanned;
use tradewind_proto::units::{Class, PopId};

use super::flow::{Kind, Setting, check_flow};
use super::matrix::Matrix;
use super::{Checked, Pops};
use crate::link::{normal, stream_seed};
use crate::world::error::{Fault, hint};
use crate::world::file::{CallsTable, DemandTable, EventTable, FlowKeys, ShapeName, TrafficTable};
use crate::world::quantity::{BitRate, Bytes, Share, Span};
use crate::world::source::Sources;
use crate::world::{Traffic, World};

/// Flows of a demand begin within this time, so that their packets do not all leave at once.
const STAGGER: Duration = Duration::from_secs(1);
/// What a call without picture sends: 20 ms of G.711 (160 bytes, RFC 3551 section 4.5.14) behind an
/// RTP header, 50 times a second.
const AUDIO: (usize, f64) = (172, 50.0);
/// The most that a packet of a call's picture holds.
const VIDEO_SIZE: usize = 1200;
const VIDEO_RATE: BitRate = BitRate(1_500_000);

/// The tables that traffic comes from.
pub(super) struct Tables {
    pub(super) traffic: Vec<Spanned<TrafficTable>>,
    pub(super) demand: Vec<Spanned<DemandTable>>,
    pub(super) calls: Vec<Spanned<CallsTable>>,
}

/// All flows. `seed` decides what is random about them, `events` say which PoPs join when, and when
/// there are more flows.
pub(super) fn check_traffic(
    tables: Tables,
    events: &[Spanned<EventTable>],
    pops: &Pops,
    seed: u64,
    setting: Setting<'_>,
    files: &mut Sources,
) -> Checked<Vec<Traffic>> {
    let mut sources = Vec::new();
    for (index, table) in tables.traffic.into_iter().enumerate() {
        sources.push(traffic_source(index, table, pops, setting, files)?);
    }
    for (index, table) in tables.demand.into_iter().enumerate() {
        sources.push(demand_source(index, table, pops, setting, files)?);
    }
    for (index, table) in tables.calls.into_iter().enumerate() {
        sources.push(calls_source(index, table, pops, setting, files)?);
    }
    let mut names = BTreeSet::new();
    if let Some(twice) = sources.iter().find(|source| !names.insert(source.name.as_str())) {
        let message = format!("a second [[{}]] named \"{}\"", twice.table, twice.name);
        return Err(Fault::new(twice.at.clone(), message));
    }
    let crowds = crowds(events, &sources, setting.duration)?;
    let mut flows = Flows { list: Vec::new(), joins: joins(events) };
    for source in &sources {
        let crowds: Vec<_> = crowds.iter().filter(|crowd| crowd.of == source.name).collect();
        source.expand(&crowds, seed, &mut flows);
        if flows.list.len() > World::MAX_FLOWS {
            let message = format!("more than {} flows are too many", World::MAX_FLOWS);
            return Err(Fault::new(source.at.clone(), message));
        }
    }
    let mut names = BTreeSet::new();
    match flows.list.iter().find(|flow| !names.insert(flow.name.as_str())) {
        Some(twice) => {
            let message = format!("two flows are named \"{}\": name a table otherwise", twice.name);
            Err(Fault { at: None, message })
        }
        None => Ok(flows.list),
    }
}

/// A table that makes flows.
struct Source {
    table: &'static str,
    name: String,
    at: Range<usize>,
    what: What,
}

enum What {
    /// One flow.
    One(Kind, (PopId, PopId)),
    /// So many flows, all the time.
    Many(Kind, Matrix, usize),
    /// Flows that come and go.
    Calls(Box<Calls>),
}

struct Calls {
    audio: Kind,
    video: Option<(Kind, f64)>,
    matrix: Matrix,
    /// Calls a second.
    arrivals: f64,
    median: Duration,
    sigma: f64,
    one_way: bool,
}

fn traffic_source(
    index: usize,
    table: Spanned<TrafficTable>,
    pops: &Pops,
    setting: Setting<'_>,
    files: &mut Sources,
) -> Checked<Source> {
    let (at, table) = (table.span(), table.into_inner());
    let ends = pops.pair(&[table.from.clone(), table.to.clone()], &at)?;
    let kind = check_flow(&table.flow_keys(), "traffic", setting, files, &at)?;
    let name = table.name.unwrap_or_else(|| format!("traffic-{}", index + 1));
    Ok(Source { table: "traffic", name, at, what: What::One(kind, ends) })
}

fn demand_source(
    index: usize,
    table: Spanned<DemandTable>,
    pops: &Pops,
    setting: Setting<'_>,
    files: &mut Sources,
) -> Checked<Source> {
    let (at, table) = (table.span(), table.into_inner());
    let keys = table.flow_keys();
    let each = keys.rate.is_some() || keys.pps.is_some() || keys.trace.is_some();
    let (keys, flows) = match (table.flows, table.total) {
        (Some(flows), None) if each => (keys, flows),
        (Some(flows @ 1..), Some(BitRate(total))) if !each => {
            (FlowKeys { rate: Some(BitRate(total / flows as u64)), ..keys }, flows)
        }
        (None, Some(_)) if each => (keys, 1),
        _ => {
            let message = "[[demand]] needs two of: flows, total, and rate or pps of each";
            return Err(Fault::new(at, message));
        }
    };
    let kind = check_flow(&keys, "demand", setting, files, &at)?;
    let each = kind.size as f64 * 8.0 / kind.interval.as_secs_f64();
    let flows = match (table.flows, table.total) {
        (None, Some(BitRate(total))) => (total as f64 / each).round().max(1.0) as usize,
        _ => flows,
    };
    if !(1..=World::MAX_FLOWS).contains(&flows) {
        let message = format!("a demand is 1 to {} flows, not {flows}", World::MAX_FLOWS);
        return Err(Fault::new(at, message));
    }
    let matrix = Matrix::read(&table.matrix, table.distance, pops, files, &at)?;
    let name = table.name.unwrap_or_else(|| format!("demand-{}", index + 1));
    Ok(Source { table: "demand", name, at, what: What::Many(kind, matrix, flows) })
}

fn calls_source(
    index: usize,
    table: Spanned<CallsTable>,
    pops: &Pops,
    setting: Setting<'_>,
    files: &mut Sources,
) -> Checked<Source> {
    let (at, table) = (table.span(), table.into_inner());
    let fault = |message: String| Fault::new(at.clone(), message);
    let (Span(median), sigma) = (table.median, table.sigma.unwrap_or(1.0));
    if !(0.001..=10_000.0).contains(&table.arrivals) {
        return Err(fault(format!(
            "{} calls a second: at least 0.001, at most 10,000",
            table.arrivals
        )));
    }
    if !(Duration::from_millis(100)..=Duration::from_secs(86_400)).contains(&median) {
        return Err(fault(format!("calls last 100ms to 1day in the median, not {median:?}")));
    }
    if !(0.0..=3.0).contains(&sigma) {
        return Err(fault(format!("sigma is 0 to 3, not {sigma}")));
    }
    let keys = table.flow_keys();
    let (size, pps) = AUDIO;
    let sound = FlowKeys { class: Class::Audio, size: Some(Bytes(size)), pps: Some(pps), ..keys };
    let audio = check_flow(&sound, "calls", setting, files, &at)?;
    let video = match (table.video, table.video_rate) {
        (Some(Share(share)), rate) => {
            let (size, rate) = (Some(Bytes(VIDEO_SIZE)), Some(rate.unwrap_or(VIDEO_RATE)));
            let shape = Some(ShapeName::Video);
            let keys = table.flow_keys();
            let picture = FlowKeys { class: Class::Video, size, rate, shape, ..keys };
            Some((check_flow(&picture, "calls", setting, files, &at)?, share))
        }
        (None, None) => None,
        (None, Some(_)) => {
            return Err(fault(
                "video_rate means nothing without video, the share of calls with it".into(),
            ));
        }
    };
    let expected = table.arrivals * (audio.stop - audio.start).as_secs_f64();
    if expected > World::MAX_FLOWS as f64 {
        return Err(fault(format!(
            "{expected:.0} calls are too many, at most {}",
            World::MAX_FLOWS
        )));
    }
    let matrix = Matrix::read(&table.matrix, table.distance, pops, files, &at)?;
    let name = table.name.unwrap_or_else(|| format!("calls-{}", index + 1));
    let (arrivals, one_way) = (table.arrivals, table.one_way);
    let calls = Calls { audio, video, matrix, arrivals, median, sigma, one_way };
    Ok(Source { table: "calls", name, at, what: What::Calls(Box::new(calls)) })
}

/// A time in which a table makes more flows.
struct Crowd {
    of: String,
    /// How many times as much.
    times: u32,
    from: Duration,
    to: Duration,
}

fn crowds(
    events: &[Spanned<EventTable>],
    sources: &[Source],
    duration: Duration,
) -> Checked<Vec<Crowd>> {
    let mut crowds = Vec::new();
    for event in events {
        let (at, from) = (event.span(), event.get_ref().at.0);
        let Some(table) = &event.get_ref().crowd else { continue };
        let (of, times, to) = (table.of.clone(), table.times, from + table.lasting.0);
        let names = || sources.iter().map(|source| source.name.as_str());
        if !names().any(|name| name == of) {
            let hint = hint(&of, names());
            let message =
                format!("there is no [[traffic]], [[demand]] or [[calls]] named \"{of}\"{hint}");
            return Err(Fault::new(at, message));
        }
        if !(2..=100).contains(&times) {
            return Err(Fault::new(at, format!("a crowd is 2 to 100 times as many, not {times}")));
        }
        if to <= from || to > duration {
            let message =
                format!("a crowd from {from:?} to {to:?} is not within the run's {duration:?}");
            return Err(Fault::new(at, message));
        }
        crowds.push(Crowd { of, times, from, to });
    }
    Ok(crowds)
}

/// When relays join that do not run from the beginning; names are checked later.
fn joins(events: &[Spanned<EventTable>]) -> BTreeMap<String, Duration> {
    let join =
        |event: &Spanned<EventTable>| Some((event.get_ref().join.clone()?, event.get_ref().at.0));
    events.iter().filter_map(join).collect()
}

/// The flows made so far.
struct Flows {
    list: Vec<Traffic>,
    joins: BTreeMap<String, Duration>,
}

impl Flows {
    /// Adds a flow that lasts from `start` to `stop`; less if an end of it joins later. Too many
    /// are not added, only one more than [`World::MAX_FLOWS`].
    fn add(&mut self, flow: Traffic, start: Duration, stop: Duration) {
        let joins = [&flow.from, &flow.to].map(|pop| self.joins.get(pop.as_str()).copied());
        let start = joins.into_iter().flatten().fold(start, Duration::max);
        if start < stop && self.list.len() <= World::MAX_FLOWS {
            self.list.push(Traffic { start, stop, ..flow });
        }
    }
}

impl Source {
    fn expand(&self, crowds: &[&Crowd], seed: u64, flows: &mut Flows) {
        let mut rng = SmallRng::seed_from_u64(stream_seed(seed, &format!("demand {}", self.name)));
        // Numbers of flows, or of calls.
        let mut numbers = 1..;
        let mut number = || numbers.next().unwrap_or(u64::MAX);
        let group = Some(self.name.clone());
        match &self.what {
            What::One(kind, ends) => {
                let alone = crowds.is_empty();
                let first =
                    kind.flow(self.name.clone(), group.clone().filter(|_| !alone), ends.clone());
                // It starts when it was said to, or is refused.
                flows.list.push(first);
                for crowd in crowds {
                    for _ in 1..crowd.times {
                        let name = format!("{}/{}", self.name, number());
                        let start = crowd.from + rng.random_range(Duration::ZERO..kind.interval);
                        flows.add(kind.flow(name, group.clone(), ends.clone()), start, crowd.to);
                    }
                }
            }
            What::Many(kind, matrix, count) => {
                let mut many = |count: usize, from: Duration, to: Duration, rng: &mut SmallRng| {
                    let stagger = STAGGER.min((to - from) / 10).max(Duration::from_nanos(1));
                    for ends in matrix.spread(count, rng) {
                        let start = from + rng.random_range(Duration::ZERO..stagger);
                        let name = format!("{}/{}", self.name, number());
                        flows.add(kind.flow(name, group.clone(), ends), start, to);
                    }
                };
                many(*count, kind.start, kind.stop, &mut rng);
                for crowd in crowds {
                    many(count * (crowd.times as usize - 1), crowd.from, crowd.to, &mut rng);
                }
            }
            What::Calls(calls) => {
                let (from, to) = (calls.audio.start, calls.audio.stop);
                let mut come = |from: Duration, to: Duration, rate: f64, rng: &mut SmallRng| {
                    for at in calls.arrivals(from, to, rate, rng) {
                        calls.call(
                            &format!("{}/{}", self.name, number()),
                            &self.name,
                            at,
                            rng,
                            flows,
                        );
                    }
                };
                come(from, to, calls.arrivals, &mut rng);
                for crowd in crowds {
                    let more = calls.arrivals * f64::from(crowd.times - 1);
                    come(crowd.from.max(from), crowd.to.min(to), more, &mut rng);
                }
            }
        }
    }
}

impl Calls {
    /// A Poisson process; at most one call more than [`World::MAX_FLOWS`].
    fn arrivals(
        &self,
        from: Duration,
        to: Duration,
        rate: f64,
        rng: &mut SmallRng,
    ) -> Vec<Duration> {
        let mut at = from;
        let mut next = || {
            at += Duration::from_secs_f64(-(1.0 - rng.random::<f64>()).ln() / rate);
            (at < to).then_some(at)
        };
        std::iter::from_fn(&mut next).take(World::MAX_FLOWS + 1).collect()
    }

    /// A call that begins at `at` and lasts a lognormal time (Bolotin, "Modeling call holding time
    /// distributions for CCS network design and performance analysis", IEEE JSAC 12, 1994).
    fn call(&self, name: &str, table: &str, at: Duration, rng: &mut SmallRng, flows: &mut Flows) {
        let ends = self.matrix.draw(rng);
        let holds = self.median.mul_f64((self.sigma * normal(rng)).exp());
        let seen: f64 = rng.random();
        let stop = (at + holds).min(self.audio.stop);
        let back = (ends.1.clone(), ends.0.clone());
        let ways = [Some((ends, ">")), Some((back, "<")).filter(|_| !self.one_way)];
        let video = self.video.as_ref().filter(|(_, share)| seen < *share);
        let kinds = [Some(("audio", &self.audio)), video.map(|(kind, _)| ("video", kind))];
        for (what, kind) in kinds.into_iter().flatten() {
            for (ends, way) in ways.iter().flatten() {
                let group = Some(format!("{table} {what}"));
                flows.add(kind.flow(format!("{name} {what}{way}"), group, ends.clone()), at, stop);
            }
        }
    }
}
