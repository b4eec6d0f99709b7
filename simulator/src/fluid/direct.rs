//! The same traffic over the direct links between its ends, without an overlay and without repair.

use std::collections::{BTreeMap, BTreeSet};
use std::iter::Peekable;
use std::time::Duration;
use std::vec::IntoIter;

use rand::SeedableRng;
use rand::rngs::SmallRng;
use tradewind_proto::units::Class;

use super::delivery::Delivery;
use super::pipe::Pipe;
use super::tally::Tally;
use crate::baseline::Way;
use crate::emulator::IP_UDP_HEADERS;
use crate::link::stream_seed;
use crate::overlay::START;
use crate::progress::{Figures, Progress};
use crate::simulation::{TICK, merged_rows};
use crate::traffic::FlowReport;
use crate::world::{Event, Happening, LinkId, Traffic, World};

/// What arrives of each flow of `world` over its direct link until `lasted` after traffic began;
/// `None` for flows whose ends have no link. Flows over the same link share its capacity; what is
/// too much for it is dropped whoever sent it.
pub(super) fn run(
    world: &World,
    lasted: Duration,
    progress: &mut dyn Progress,
) -> Vec<Option<FlowReport>> {
    let mut flows: Vec<Flow<'_>> = world.traffic.iter().map(Flow::new).collect();
    let mut links = links(world, lasted);
    let report = |flow: &Flow<'_>, at| {
        let link = (flow.traffic.from.clone(), flow.traffic.to.clone());
        world.links.contains_key(&link).then(|| flow.report(at, world.seed))
    };
    let mut at = Duration::ZERO;
    loop {
        links.iter_mut().for_each(|link| link.run_until(at, world, &mut flows));
        if at >= lasted {
            break;
        }
        progress.record(Way::Direct, at, &mut || figures(world, |flow| report(&flows[flow], at)));
        at = (at + TICK).min(lasted);
    }
    progress.record_last(Way::Direct, at, &mut || figures(world, |flow| report(&flows[flow], at)));
    flows.iter().map(|flow| report(flow, lasted)).collect()
}

fn figures(world: &World, report: impl Fn(usize) -> Option<FlowReport>) -> Figures {
    Figures { rows: merged_rows(world, report), links: Vec::new() }
}

/// A flow over its direct link. Times count from when traffic began.
struct Flow<'a> {
    traffic: &'a Traffic,
    tally: Tally,
    /// What was sent before is in the tally; what was sent since fares as `delivery` says.
    since: Duration,
    delivery: Delivery,
}

impl<'a> Flow<'a> {
    fn new(traffic: &'a Traffic) -> Self {
        let (tally, since) = (Tally::default(), traffic.start);
        Self { traffic, tally, since, delivery: Delivery::default() }
    }

    /// `tally`, with what was sent until then.
    fn tally(&self, until: Duration) -> Tally {
        let mut tally = self.tally.clone();
        let until = until.min(self.traffic.stop);
        if until > self.since {
            let [interval, deadline] =
                [self.traffic.interval, self.traffic.deadline].map(|span| span.as_secs_f64());
            let span = (START + self.since, START + until);
            tally.record(span, interval, &self.delivery, deadline);
        }
        tally
    }

    fn flush(&mut self, until: Duration) {
        self.tally = self.tally(until);
        self.since = self.since.max(until);
    }

    fn report(&self, at: Duration, seed: u64) -> FlowReport {
        let sent = super::sent(self.traffic, at);
        let seed = stream_seed(seed, &format!("{} direct tally", self.traffic.name));
        let last = START + self.traffic.stop.min(at);
        let counts = (sent, sent * self.traffic.size as u64);
        self.tally(at).report(counts, Some(last), &mut SmallRng::seed_from_u64(seed))
    }
}

/// A direct link and those who use it.
struct Link<'a> {
    id: LinkId,
    pipe: Pipe,
    /// By number.
    flows: Vec<usize>,
    /// When something changes, what is to come, the earliest first.
    times: Peekable<IntoIter<Duration>>,
    events: Peekable<IntoIter<&'a Event>>,
}

/// The direct links of all flows.
fn links(world: &World, lasted: Duration) -> Vec<Link<'_>> {
    let mut flows: BTreeMap<LinkId, Vec<usize>> = BTreeMap::new();
    for (at, traffic) in world.traffic.iter().enumerate() {
        let link = (traffic.from.clone(), traffic.to.clone());
        if world.links.contains_key(&link) {
            flows.entry(link).or_default().push(at);
        }
    }
    let link = |(id, flows): (LinkId, Vec<usize>)| {
        let events = world.events.iter().filter(|event| touches(&event.what, &id));
        let events: Vec<&Event> = events.collect();
        let spans = flows.iter().map(|&at| &world.traffic[at]).flat_map(|t| [t.start, t.stop]);
        let times: BTreeSet<Duration> =
            spans.chain(events.iter().map(|event| event.at)).filter(|at| *at < lasted).collect();
        let times = times.into_iter().collect::<Vec<_>>().into_iter().peekable();
        let pipe = Pipe::new(0, 1, world.links[&id].clone(), START);
        Link { id, pipe, flows, times, events: events.into_iter().peekable() }
    };
    flows.into_iter().map(link).collect()
}

fn touches(what: &Happening, link: &LinkId) -> bool {
    match what {
        Happening::Cut(links) | Happening::Restore(links) => links.contains(link),
        Happening::Degrade(links) => links.iter().any(|(other, _)| other == link),
        Happening::Kill(_) | Happening::KillRelayOf(_) | Happening::Drain(_) => false,
        Happening::Join(_) | Happening::Restart(_) | Happening::Crowd => false,
    }
}

impl Link<'_> {
    /// Goes through the times at which something changes.
    fn run_until(&mut self, until: Duration, world: &World, flows: &mut [Flow<'_>]) {
        while let Some(now) = self.times.next_if(|at| *at <= until) {
            self.flows.iter().for_each(|&at| flows[at].flush(now));
            while let Some(event) = self.events.next_if(|event| event.at <= now) {
                perform(world, &self.id, &mut self.pipe, &event.what);
            }
            let sends = |traffic: &Traffic| traffic.start <= now && traffic.stop > now;
            self.pipe.load = Default::default();
            for traffic in self.flows.iter().map(|&at| flows[at].traffic).filter(|it| sends(it)) {
                let pace = 1.0 / traffic.interval.as_secs_f64();
                // One queue for all, whatever their class.
                self.pipe.load.add(Class::Audio, pace, bytes(traffic));
            }
            for &at in &self.flows {
                flows[at].delivery = delivery(&self.pipe, bytes(flows[at].traffic));
            }
        }
    }
}

fn bytes(traffic: &Traffic) -> f64 {
    (traffic.size + IP_UDP_HEADERS) as f64
}

/// Packets of so many bytes on a link without repair: a full drop-tail queue where it is too slow.
fn delivery(pipe: &Pipe, bytes: f64) -> Delivery {
    if !pipe.up || bytes > pipe.spec.mtu as f64 {
        return Delivery::default();
    }
    let (mut served, mut queue) = (1.0, 0.0);
    if let Some(rate) = pipe.spec.rate {
        let capacity = rate.bits_per_second as f64;
        if pipe.load.bps() > capacity {
            served = capacity / pipe.load.bps();
            queue = (rate.queue as f64 - bytes).max(0.0) * 8.0 / capacity;
        }
    }
    let share = served * (1.0 - pipe.loss());
    let arrivals = vec![(pipe.delay(bytes) + queue, share)];
    Delivery { arrivals, sigma: pipe.sigma(), shards: Vec::new() }
}

/// Relays mean nothing here.
fn perform(world: &World, link: &LinkId, pipe: &mut Pipe, what: &Happening) {
    match what {
        Happening::Kill(_) | Happening::KillRelayOf(_) | Happening::Drain(_) => {}
        Happening::Join(_) | Happening::Restart(_) | Happening::Crowd => {}
        Happening::Cut(_) => pipe.up = false,
        Happening::Restore(_) => {
            pipe.spec = world.links[link].clone();
            pipe.up = true;
        }
        Happening::Degrade(links) => {
            for (_, spec) in links.iter().filter(|(other, _)| other == link) {
                pipe.spec = spec.clone();
            }
        }
    }
}
