//! Traffic through the overlay: who sends what, and what came of each packet.

use std::time::Duration;

use tradewind_proto::packet::Path;
use tradewind_proto::units::{Class, PolicyId, Redundancy, Timestamp};

use crate::traffic::{Departures, FlowReport, Meter, Schedule, Shape};

/// A stream of equal packets from a tunnel at one relay to a service at another.
#[derive(Clone, Debug)]
pub struct FlowSpec {
    /// Where it enters.
    pub from: String,
    /// Where the service is.
    pub to: String,
    /// Bytes of a packet, at least 24.
    pub size: usize,
    /// Time between two packets.
    pub interval: Duration,
    /// The pattern in which they leave.
    pub shape: Shape,
    /// Decides what is random about them.
    pub seed: u64,
    /// Its class.
    pub class: Class,
    /// How long a packet is worth delivering.
    pub deadline: Duration,
    /// Which relays it may visit.
    pub policy: PolicyId,
    /// How many copies travel.
    pub redundancy: Redundancy,
    /// The service sends every packet back.
    pub echo: bool,
    /// When the first packet is sent, after the beginning of the simulation.
    pub start: Duration,
    /// When no more are sent.
    pub stop: Duration,
    /// What is kept of it.
    pub watch: Watch,
}

/// What is kept of a flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Watch {
    /// Every packet, with the paths by which it came: a [`FlowRecord`].
    #[default]
    Packets,
    /// The figures of a [`FlowReport`], for long runs of many flows.
    Figures,
}

impl FlowSpec {
    /// 200 video packets of 1,000 bytes a second, all the time.
    pub fn new(from: &str, to: &str) -> Self {
        Self {
            from: from.to_owned(),
            to: to.to_owned(),
            size: 1000,
            interval: Duration::from_millis(5),
            shape: Shape::Constant,
            seed: 0,
            class: Class::Video,
            deadline: Class::Video.default_deadline(),
            policy: PolicyId::NONE,
            redundancy: Redundancy::Single,
            echo: false,
            start: Duration::ZERO,
            stop: Duration::MAX,
            watch: Watch::Packets,
        }
    }

    /// The same from `start` to `stop` only.
    #[must_use]
    pub fn between(self, start: Duration, stop: Duration) -> Self {
        Self { start, stop, ..self }
    }
}

/// Which of the flows of a simulation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FlowNumber(pub(super) usize);

/// A packet that came out.
#[derive(Clone, Debug, PartialEq)]
pub struct Delivery {
    /// Which packet, counted from 0.
    pub number: u64,
    /// When it was sent, in true time.
    pub sent_at: Timestamp,
    /// When it came out, in true time.
    pub at: Timestamp,
    /// The paths by which packets of the flow came at that very moment: its own, and those of
    /// others repaired by the same datagram.
    pub paths: Vec<Path>,
}

impl Delivery {
    /// How long it was under way.
    pub fn delay(&self) -> Duration {
        self.at.since(self.sent_at)
    }
}

/// What became of a flow.
#[derive(Clone, Debug, Default)]
pub struct FlowRecord {
    /// When each packet was sent, in true time.
    pub sent: Vec<Timestamp>,
    /// What came out at the service, in the order of arrival.
    pub delivered: Vec<Delivery>,
    /// What the service sent back and came out at the tunnel.
    pub answered: Vec<Delivery>,
    /// The path in use at the ingress, whenever it changed; `None`: no way.
    pub routes: Vec<(Timestamp, Option<Path>)>,
}

impl FlowRecord {
    /// The longest time between two deliveries that end at `from` or later, up to `to`; silence
    /// up to `to` counts.
    pub fn longest_gap(&self, from: Timestamp, to: Timestamp) -> Duration {
        let mut last = from;
        let mut longest = Duration::ZERO;
        for delivery in &self.delivered {
            if delivery.at > to {
                break;
            }
            longest = longest.max(delivery.at.since(last));
            last = last.max(delivery.at);
        }
        longest.max(to.since(last))
    }

    /// The deliveries between two times.
    pub fn between(&self, from: Timestamp, to: Timestamp) -> impl Iterator<Item = &Delivery> {
        self.delivered.iter().filter(move |delivery| (from..to).contains(&delivery.at))
    }

    /// How many packets sent between two times came out.
    pub fn delivered_of(&self, from: Timestamp, to: Timestamp) -> (usize, usize) {
        let sent = self.sent.iter().filter(|at| (from..to).contains(at)).count();
        let delivered = self.delivered.iter().filter(|d| (from..to).contains(&d.sent_at)).count();
        (delivered, sent)
    }
}

pub(super) struct Flow {
    pub(super) spec: FlowSpec,
    pub(super) from: usize,
    pub(super) to: usize,
    /// Once it sends.
    pub(super) departures: Option<Departures>,
    pub(super) record: FlowRecord,
    /// Of a flow of which only the figures are kept, once it sends.
    pub(super) meter: Option<Meter>,
}

impl Flow {
    pub(super) fn new(spec: FlowSpec, from: usize, to: usize) -> Self {
        Self { spec, from, to, departures: None, record: FlowRecord::default(), meter: None }
    }

    /// From now on it sends; when the first packet is due.
    pub(super) fn begin(&mut self, begin: Timestamp) -> Timestamp {
        let FlowSpec { size, interval, shape, seed, .. } = &self.spec;
        let schedule = Schedule::new(*size, *interval, shape.clone(), *seed);
        self.departures.insert(Departures::new(schedule, begin)).due()
    }

    /// A packet leaves: its number and size, and when the next one is due. `None` if it does not
    /// send yet.
    pub(super) fn leave(&mut self, now: Timestamp) -> Option<(u64, usize, Timestamp)> {
        let departures = self.departures.as_mut()?;
        if self.spec.watch == Watch::Packets {
            self.record.sent.push(now);
        }
        let (number, size) = departures.leave(now);
        Some((number, size, departures.due()))
    }

    pub(super) fn report(&self) -> Option<FlowReport> {
        Some(self.departures.as_ref()?.report(self.meter.as_ref()?))
    }
}
