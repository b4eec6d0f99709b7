//! The same traffic over the direct links between its ends, without an overlay and without repair.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::SmallRng;
use tradewind_proto::units::Class;

use super::delivery::Delivery;
use super::pipe::Pipe;
use super::tally::Tally;
use crate::emulator::IP_UDP_HEADERS;
use crate::link::stream_seed;
use crate::overlay::START;
use crate::traffic::FlowReport;
use crate::world::{Happening, LinkId, Traffic, World};

/// What arrives of each flow of `world` over its direct link until `lasted` after traffic began;
/// `None` for flows whose ends have no link. Flows over the same link share its capacity; what is
/// too much for it is dropped whoever sent it.
pub(super) fn run(world: &World, lasted: Duration) -> Vec<Option<FlowReport>> {
    let mut flows: BTreeMap<LinkId, Vec<usize>> = BTreeMap::new();
    for (at, traffic) in world.traffic.iter().enumerate() {
        let link = (traffic.from.clone(), traffic.to.clone());
        if world.links.contains_key(&link) {
            flows.entry(link).or_default().push(at);
        }
    }
    let mut tallies: Vec<Tally> = vec![Tally::default(); world.traffic.len()];
    for (link, flows) in &flows {
        over(world, link, flows, lasted, &mut tallies);
    }
    let report = |(traffic, tally): (&Traffic, &Tally)| {
        let link = (traffic.from.clone(), traffic.to.clone());
        let sent = super::sent(traffic, lasted);
        let seed = stream_seed(world.seed, &format!("{} direct tally", traffic.name));
        let last = START + traffic.stop.min(lasted);
        let counts = (sent, sent * traffic.size as u64);
        let report = || tally.report(counts, Some(last), &mut SmallRng::seed_from_u64(seed));
        flows.contains_key(&link).then(report)
    };
    world.traffic.iter().zip(&tallies).map(report).collect()
}

/// Goes through the times at which something changes for a link.
fn over(world: &World, link: &LinkId, flows: &[usize], lasted: Duration, tallies: &mut [Tally]) {
    let of_link = |what: &Happening| match what {
        Happening::Cut(links) | Happening::Restore(links) => links.contains(link),
        Happening::Degrade(links) => links.iter().any(|(other, _)| other == link),
        Happening::Kill(_) | Happening::KillRelayOf(_) | Happening::Drain(_) => false,
        Happening::Join(_) | Happening::Restart(_) | Happening::Crowd => false,
    };
    let events: Vec<_> = world.events.iter().filter(|event| of_link(&event.what)).collect();
    let spans = flows.iter().map(|&at| &world.traffic[at]).flat_map(|t| [t.start, t.stop]);
    let mut times: Vec<Duration> = spans.chain(events.iter().map(|event| event.at)).collect();
    times.push(lasted);
    times.retain(|at| *at <= lasted);
    times.sort_unstable();
    times.dedup();
    let mut pipe = Pipe::new(0, 1, world.links[link].clone(), START);
    let mut events = events.into_iter().peekable();
    for span in times.windows(2) {
        while let Some(event) = events.next_if(|event| event.at <= span[0]) {
            perform(world, link, &mut pipe, &event.what);
        }
        let active: Vec<usize> = flows
            .iter()
            .copied()
            .filter(|&at| world.traffic[at].start <= span[0] && world.traffic[at].stop > span[0])
            .collect();
        pipe.load = Default::default();
        for &at in &active {
            let traffic = &world.traffic[at];
            // One queue for all, whatever their class.
            pipe.load.add(Class::Audio, 1.0 / traffic.interval.as_secs_f64(), bytes(traffic));
        }
        for &at in &active {
            let traffic = &world.traffic[at];
            let delivery = delivery(&pipe, bytes(traffic));
            let interval = traffic.interval.as_secs_f64();
            let deadline = traffic.deadline.as_secs_f64();
            let span = (START + span[0], START + span[1]);
            tallies[at].record(span, interval, &delivery, deadline);
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
