//! The same traffic over the direct links between its ends, without an overlay.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{TICK, merged_rows};
use crate::baseline::Way;
use crate::emulator::IP_UDP_HEADERS;
use crate::link::{LinkModel, stream_seed};
use crate::overlay::START;
use crate::progress::{Figures, Progress};
use crate::traffic::{Departures, FlowReport, Meter, Stamp};
use crate::virtual_net::Events;
use crate::world::{Happening, LinkId, Traffic, World};

/// What happens next.
enum Next<'a> {
    Event(&'a Happening),
    Send(usize),
    Arrive(usize, Stamp, usize, Option<u32>),
    Tick,
}

struct Flow<'a> {
    traffic: &'a Traffic,
    link: LinkId,
    meter: Meter,
    departures: Departures,
}

/// What arrives of each flow of `world` over its direct link until `lasted` after traffic began;
/// `None` for flows whose ends have no link. Links are twins of the overlay's, with the same seeds,
/// not slowed by its traffic; flows over the same link share its capacity.
pub(super) fn run(
    world: &World,
    lasted: Duration,
    progress: &mut dyn Progress,
) -> Vec<Option<FlowReport>> {
    let mut links: BTreeMap<LinkId, LinkModel> = BTreeMap::new();
    let mut flows: Vec<Flow<'_>> = Vec::new();
    let mut events = Events::default();
    // The first, so that it shows how things stand before anything is sent.
    events.schedule(START, Next::Tick);
    for event in &world.events {
        events.schedule(START + event.at, Next::Event(&event.what));
    }
    for (at, traffic) in world.traffic.iter().enumerate() {
        let link = (traffic.from.clone(), traffic.to.clone());
        let departures = Departures::new(traffic.schedule(world.seed), START + traffic.start);
        if let Some(spec) = world.links.get(&link) {
            let seed = stream_seed(world.seed, &format!("{}>{}", link.0, link.1));
            let model = links.entry(link.clone());
            let model = model.or_insert_with(|| LinkModel::new(spec.clone(), seed));
            model.start_traces(START);
            events.schedule(departures.due(), Next::Send(at));
        }
        flows.push(Flow {
            traffic,
            link,
            meter: Meter::new(stream(at), traffic.deadline),
            departures,
        });
    }
    let mut buffer = Vec::new();
    let mut end = START;
    while let Some((now, next)) = events.pop() {
        end = end.max(now);
        match next {
            Next::Tick => {
                let mut figures = || figures(world, &flows, &links);
                progress.record(Way::Direct, now.since(START), &mut figures);
                if now < START + lasted {
                    events.schedule((now + TICK).min(START + lasted), Next::Tick);
                }
            }
            Next::Event(what) if now < START + lasted => perform(world, &mut links, what),
            Next::Event(_) => {}
            Next::Send(at) => {
                let flow = &mut flows[at];
                if now >= START + lasted.min(flow.traffic.stop) {
                    continue;
                }
                let (number, size) = flow.departures.leave(now);
                events.schedule(flow.departures.due(), Next::Send(at));
                let stamp = Stamp { stream: stream(at), number, sent_at: now };
                let bytes = size + IP_UDP_HEADERS;
                let fate = links.get_mut(&flow.link).map(|link| link.offer(bytes, now));
                for arrival in fate.iter().flat_map(|fate| fate.deliveries()) {
                    events.schedule(arrival.at, Next::Arrive(at, stamp, size, arrival.flipped));
                }
            }
            Next::Arrive(at, stamp, size, flipped) => {
                buffer.resize(size, 0);
                stamp.write(&mut buffer);
                if let Some(bit) = flipped {
                    let bit = bit as usize % (size * 8);
                    buffer[bit / 8] ^= 1 << (bit % 8);
                }
                flows[at].meter.record(&buffer, now);
            }
        }
    }
    let mut figures = || figures(world, &flows, &links);
    progress.record_last(Way::Direct, end.since(START), &mut figures);
    flows.iter().map(|flow| report(flow, &links)).collect()
}

fn report(flow: &Flow<'_>, links: &BTreeMap<LinkId, LinkModel>) -> Option<FlowReport> {
    links.contains_key(&flow.link).then(|| flow.departures.report(&flow.meter))
}

fn figures(world: &World, flows: &[Flow<'_>], links: &BTreeMap<LinkId, LinkModel>) -> Figures {
    Figures { rows: merged_rows(world, |at| report(&flows[at], links)), links: Vec::new() }
}

/// Relays mean nothing here.
fn perform(world: &World, links: &mut BTreeMap<LinkId, LinkModel>, what: &Happening) {
    match what {
        Happening::Kill(_) | Happening::KillRelayOf(_) | Happening::Drain(_) => {}
        Happening::Join(_) | Happening::Restart(_) | Happening::Crowd => {}
        Happening::Cut(cut) => {
            for link in cut {
                links.entry(link.clone()).and_modify(|model| model.set_up(false));
            }
        }
        Happening::Restore(restored) => {
            for link in restored {
                let restore = |model: &mut LinkModel| {
                    model.set(world.links[link].clone());
                    model.set_up(true);
                };
                links.entry(link.clone()).and_modify(restore);
            }
        }
        Happening::Degrade(degraded) => {
            for (link, spec) in degraded {
                links.entry(link.clone()).and_modify(|model| model.set(spec.clone()));
            }
        }
    }
}

fn stream(flow: usize) -> u32 {
    u32::try_from(flow).unwrap_or(u32::MAX)
}
