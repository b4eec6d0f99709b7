//! Figures over time, kept while a world runs.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use crate::baseline::Way;
use crate::emulator::LinkReport;
use crate::progress::{Figures, Progress, Tick};
use crate::traffic::FlowReport;
use crate::world::{LinkId, World};

/// Between two samples, unless there are so many links that it is longer.
const INTERVAL: Duration = Duration::from_millis(250);
/// So many samples of links are kept at most, give or take one of each link.
const MOST_LINK_SAMPLES: u32 = 400_000;

/// Keeps figures over time, and passes on all that a run tells.
pub struct Recorder<'a> {
    progress: &'a mut dyn Progress,
    interval: Duration,
    tracks: BTreeMap<Way, Track>,
}

/// One way over time.
#[derive(Default)]
pub(super) struct Track {
    next: Duration,
    last: Figures,
    pub(super) samples: Vec<Sample>,
}

/// What was measured since the sample before.
pub(super) struct Sample {
    /// The end, since traffic began.
    pub(super) at: Duration,
    pub(super) lasts: Duration,
    /// In the order of the world's rows; `None`: not on this way.
    pub(super) rows: Vec<Option<RowSample>>,
    /// Links that carried something.
    pub(super) links: Vec<LinkSample>,
}

/// A row of the tables over an interval. What arrived counts when it arrived.
pub(super) struct RowSample {
    pub(super) sent: u64,
    pub(super) delivered: u64,
    pub(super) in_time: u64,
    pub(super) median: Option<Duration>,
    pub(super) p99: Option<Duration>,
}

/// One direction of a link over an interval.
pub(super) struct LinkSample {
    pub(super) link: LinkId,
    pub(super) packets: u64,
    pub(super) bytes: u64,
    pub(super) dropped: u64,
}

impl<'a> Recorder<'a> {
    /// Keeps figures of runs of `world`; `progress` is told all the same.
    pub fn new(world: &World, progress: &'a mut dyn Progress) -> Self {
        let links = u32::try_from(world.links.len()).unwrap_or(u32::MAX);
        let least = world.duration * links / MOST_LINK_SAMPLES;
        let intervals = least.as_nanos().div_ceil(INTERVAL.as_nanos()).max(1);
        let interval = INTERVAL * u32::try_from(intervals).unwrap_or(u32::MAX);
        Self { progress, interval, tracks: BTreeMap::new() }
    }

    pub(super) fn track(&self, way: Way) -> Option<&Track> {
        self.tracks.get(&way)
    }
}

impl Progress for Recorder<'_> {
    fn note(&mut self, line: &str) {
        self.progress.note(line);
    }

    fn tick(&mut self, state: &Tick<'_>) {
        self.progress.tick(state);
    }

    fn interrupted(&self) -> bool {
        self.progress.interrupted()
    }

    fn record(&mut self, way: Way, at: Duration, figures: &mut dyn FnMut() -> Figures) {
        if self.tracks.get(&way).is_none_or(|track| at >= track.next) {
            self.record_last(way, at, figures);
        }
    }

    fn record_last(&mut self, way: Way, at: Duration, figures: &mut dyn FnMut() -> Figures) {
        let track = self.tracks.entry(way).or_default();
        let now = figures();
        let before = track.next.saturating_sub(self.interval);
        track.next = at + self.interval;
        let last = std::mem::replace(&mut track.last, now);
        let (lasts, now) = (at.saturating_sub(before), &track.last);
        if lasts.is_zero() {
            return; // how things stood when traffic began
        }
        let rows = now.rows.iter().enumerate().map(|(nth, report)| {
            let before = last.rows.get(nth).and_then(Option::as_ref);
            report.as_ref().map(|report| row_sample(report, before))
        });
        let links = now.links.iter().zip(&last.links).filter(|_| way == Way::Overlay);
        let links = links.filter_map(|(now, before)| link_sample(now, before));
        let sample = Sample { at, lasts, rows: rows.collect(), links: links.collect() };
        track.samples.push(sample);
    }
}

fn row_sample(now: &FlowReport, before: Option<&FlowReport>) -> RowSample {
    let nothing = FlowReport::default();
    let before = before.unwrap_or(&nothing);
    let delays = now.delays.since(&before.delays);
    RowSample {
        sent: now.sent - before.sent,
        delivered: now.delivered - before.delivered,
        in_time: now.in_time - before.in_time,
        median: delays.quantile(0.5),
        p99: delays.quantile(0.99),
    }
}

fn link_sample(now: &LinkReport, before: &LinkReport) -> Option<LinkSample> {
    let (counters, before) = (&now.counters, &before.counters);
    let packets = counters.offered - before.offered;
    (packets > 0).then(|| LinkSample {
        link: now.link.clone(),
        packets,
        bytes: counters.offered_bytes - before.offered_bytes,
        // Each counter is rounded by itself at fidelity flow: one may run ahead of the other.
        dropped: (counters.dropped() - before.dropped()).min(packets),
    })
}

/// `series.csv`: a line for each interval and row and way, and for each link that carried something.
pub(super) fn csv(world: &World, recorder: &Recorder<'_>) -> String {
    let mut text = String::from(
        "at_ms,kind,name,way,sent,delivered,in_time,delay_median_ms,delay_p99_ms,loss,load_bps,rate_bps\n",
    );
    let names: Vec<String> = world.rows().iter().map(|(name, _)| quoted(name)).collect();
    let ms = |span: Option<Duration>| {
        span.map_or(String::new(), |span| format!("{:.3}", span.as_secs_f64() * 1e3))
    };
    for (way, track) in &recorder.tracks {
        for sample in &track.samples {
            let at = sample.at.as_millis();
            for (name, row) in names.iter().zip(&sample.rows) {
                let Some(row) = row else { continue };
                let RowSample { sent, delivered, in_time, median, p99 } = row;
                let (median, p99, way) = (ms(*median), ms(*p99), way.name());
                let _ = writeln!(
                    text,
                    "{at},flow,{name},{way},{sent},{delivered},{in_time},{median},{p99},,,"
                );
            }
            for link in &sample.links {
                let (from, to) = &link.link;
                let rate = world.links.get(&link.link).and_then(|spec| spec.rate);
                let rate = rate.map_or(String::new(), |rate| rate.bits_per_second.to_string());
                let loss = link.dropped as f64 / link.packets as f64;
                let load = (link.bytes * 8) as f64 / sample.lasts.as_secs_f64();
                let (sent, came) = (link.packets, link.packets - link.dropped);
                let way = way.name();
                let _ = writeln!(
                    text,
                    "{at},link,{from}>{to},{way},{sent},{came},,,,{loss:.4},{load:.0},{rate}"
                );
            }
        }
    }
    text
}

/// As RFC 4180 has it.
fn quoted(text: &str) -> String {
    match text.contains([',', '"', '\n', '\r']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::LinkCounters;
    use crate::progress::Silent;

    #[test]
    fn samples_add_up_to_all_though_the_last_interval_is_short() {
        let demo = crate::demo::world().unwrap();
        // So long that samples are taken every second or more.
        let seconds = 4 * MOST_LINK_SAMPLES / u32::try_from(demo.links.len()).unwrap();
        let world = World { duration: Duration::from_secs(seconds.into()), ..demo };
        let mut silent = Silent;
        let mut recorder = Recorder::new(&world, &mut silent);
        assert!(recorder.interval > INTERVAL * 4, "{:?}", recorder.interval);
        let figures = |sent| Figures {
            rows: vec![Some(FlowReport { sent, ..FlowReport::default() })],
            links: Vec::new(),
        };
        for tick in 0..=30 {
            recorder.record(Way::Overlay, INTERVAL * tick, &mut || figures(tick.into()));
        }
        recorder.record_last(Way::Overlay, INTERVAL * 31, &mut || figures(31));
        let samples = &recorder.track(Way::Overlay).unwrap().samples;
        assert!(samples.len() < 10);
        let sent = samples.iter().flat_map(|sample| &sample.rows).flatten().map(|row| row.sent);
        assert_eq!(sent.sum::<u64>(), 31);
        let lasted: Duration = samples.iter().map(|sample| sample.lasts).sum();
        assert_eq!(lasted, INTERVAL * 31);
    }

    #[test]
    fn no_link_drops_more_than_it_was_given_however_its_counters_are_rounded() {
        let link: LinkId = ("a".parse().unwrap(), "b".parse().unwrap());
        let report = |offered, lost| {
            let counters = LinkCounters { offered, lost, ..LinkCounters::default() };
            LinkReport { link: link.clone(), counters }
        };
        let sample = |now, before| {
            let sample = link_sample(&now, &before)?;
            Some((sample.packets, sample.dropped))
        };
        assert_eq!(sample(report(11, 11), report(10, 9)), Some((1, 1)));
        assert_eq!(sample(report(10, 10), report(10, 9)), None);
    }
}
