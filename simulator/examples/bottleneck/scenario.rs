//! Two relays on both sides of a bottleneck: video and one audio flow over real nodes, in virtual
//! time.

use std::ops::Range;
use std::time::Duration;

use tradewind_proto::link::Link;
use tradewind_proto::units::{Class, Timestamp};
use tradewind_simulator::link::{LinkSpec, Loss, Rate};
use tradewind_simulator::overlay::{FlowNumber, FlowSpec, Overlay, RelaySpec, START, pop};

/// Each way, so that the round trip is 40 ms.
pub const ONE_WAY: Duration = Duration::from_millis(20);
/// Propagation + 100 ms.
pub const DEADLINE: Duration = Duration::from_millis(120);
/// Traffic begins so long after the relays.
pub const LEAD: Duration = Duration::from_secs(2);
/// How long the steady scenarios last.
pub const SPAN: Duration = Duration::from_secs(30);
/// Payload of a video packet.
pub const VIDEO: usize = 1_200;
/// How often the queue is looked at.
const SAMPLE: Duration = Duration::from_millis(1);

/// A link that carries `mbps` in front of which 64 kB may wait, and loses a share of `loss`.
pub fn narrow(mbps: u64, loss: f64) -> LinkSpec {
    let rate = Rate { bits_per_second: mbps * 1_000_000, queue: 64_000 };
    LinkSpec { rate: Some(rate), ..wide(loss) }
}

/// A link without a limit that loses a share of `loss`.
pub fn wide(loss: f64) -> LinkSpec {
    let loss = if loss > 0.0 { Loss::Independent(loss) } else { Loss::None };
    LinkSpec { loss, ..LinkSpec::with_delay(ONE_WAY) }
}

/// The bottleneck from `a` to `b`; what flows back has a link without a limit, but the same loss.
pub struct Bottleneck {
    pub overlay: Overlay,
    flows: [FlowNumber; 2],
    /// What waited in front of the bottleneck, and what the link allowed itself, at each look.
    looks: Vec<(Timestamp, Duration, u64)>,
}

impl Bottleneck {
    /// Video of `video_mbps`, payload alone, and 50 audio packets of 160 bytes a second, from [`LEAD`] on.
    pub fn new(seed: u64, link: LinkSpec, video_mbps: f64) -> Self {
        let mut overlay = Overlay::new(seed);
        overlay.add(RelaySpec::new(pop("a")));
        overlay.add(RelaySpec::new(pop("b")).dialling(["a"]));
        overlay.link_both("a", "b", &wide(0.0));
        overlay.start_all();
        overlay.run_for(LEAD / 2); // they meet
        overlay.link("b", "a", LinkSpec { rate: None, ..link.clone() });
        overlay.link("a", "b", link);
        let flow = |size, interval, class| FlowSpec {
            size,
            interval,
            class,
            deadline: DEADLINE,
            start: LEAD,
            ..FlowSpec::new("a", "b")
        };
        let interval = Duration::from_secs_f64(VIDEO as f64 * 8.0 / (video_mbps * 1e6));
        let audio = overlay.flow(flow(160, Duration::from_millis(20), Class::Audio));
        let video = overlay.flow(flow(VIDEO, interval, Class::Video));
        Self { overlay, flows: [audio, video], looks: Vec::new() }
    }

    /// From now on the link is another.
    pub fn change(&mut self, link: LinkSpec) {
        self.overlay.link("a", "b", link);
    }

    /// Runs until so long after the traffic began.
    pub fn run_until(&mut self, since_lead: Duration) {
        let end = at(since_lead);
        while self.overlay.now() < end {
            self.overlay.run_until((self.overlay.now() + SAMPLE).min(end));
            self.look();
        }
    }

    /// Notes the queue and the rate.
    pub fn look(&mut self) {
        let waiting = self.overlay.waiting("a", "b");
        let rate = self.link().quality().rate_bps;
        self.looks.push((self.overlay.now(), waiting, rate));
    }

    /// The sender's end of the link.
    ///
    /// # Panics
    ///
    /// If the relays did not meet.
    pub fn link(&self) -> &Link {
        let neighbour = self.overlay.node("a").and_then(|a| a.neighbours().get(pop("b").key()));
        &neighbour.expect("the relays have met").line.link
    }

    /// What became of the packets sent between two times after the traffic began.
    pub fn tally(&self, class: Class, span: Range<Duration>) -> Tally {
        let record = self.overlay.record(self.flows[class as usize]);
        let span = at(span.start)..at(span.end);
        let sent = record.sent.iter().filter(|at| span.contains(at)).count();
        let delivered = record.delivered.iter().filter(|d| span.contains(&d.sent_at));
        let mut delays: Vec<Duration> = delivered.map(|delivery| delivery.delay()).collect();
        delays.sort_unstable();
        Tally { sent, delays }
    }

    /// The queue in front of the bottleneck at that share of the looks.
    pub fn queue(&self, span: Range<Duration>, quantile: f64) -> Duration {
        let span = at(span.start)..at(span.end);
        let looks = self.looks.iter().filter(|(at, ..)| span.contains(at));
        let mut waits: Vec<Duration> = looks.map(|&(_, waiting, _)| waiting).collect();
        waits.sort_unstable();
        waits.get((waits.len() as f64 * quantile) as usize).copied().unwrap_or_default()
    }

    /// How long after `since` the link first allowed itself `bps`; `None`: not yet.
    pub fn reached(&self, bps: u64, since: Duration) -> Option<Duration> {
        let since = at(since);
        let look = self.looks.iter().find(|&&(at, _, rate)| at >= since && rate >= bps)?;
        Some(look.0.since(since))
    }

    /// The rate at all looks.
    pub fn rates(&self, span: Range<Duration>) -> impl Iterator<Item = u64> {
        let span = at(span.start)..at(span.end);
        self.looks.iter().filter(move |(at, ..)| span.contains(at)).map(|&(.., rate)| rate)
    }
}

/// A link that carried 10 Mbit/s carries 2 Mbit/s for 20 s.
pub struct Drop {
    pub link: Bottleneck,
    /// From half a second after the drop up to the return.
    pub narrow_for: Range<Duration>,
    /// When the link allowed itself 9 Mbit/s again, after its return.
    pub back_after: Option<Duration>,
}

/// Video of 8 Mbit/s and audio meet that.
pub fn drop_to_a_fifth(seed: u64, loss: f64) -> Drop {
    let secs = Duration::from_secs;
    let mut link = Bottleneck::new(seed, narrow(10, loss), 8.0);
    // At any phase of timers.
    let dropped = secs(5) + Duration::from_micros(seed * 7_919 % 50_000);
    link.run_until(dropped);
    link.change(narrow(2, loss));
    let back = dropped + secs(20);
    link.run_until(back);
    link.change(narrow(10, loss));
    link.run_until(back + secs(5));
    let back_after = link.reached(9_000_000, back);
    Drop { link, narrow_for: dropped + Duration::from_millis(500)..back, back_after }
}

fn at(since_lead: Duration) -> Timestamp {
    START + LEAD + since_lead
}

/// Packets of a flow.
pub struct Tally {
    pub sent: usize,
    /// Of those delivered, in ascending order.
    delays: Vec<Duration>,
}

impl Tally {
    pub fn delivered(&self) -> usize {
        self.delays.len()
    }

    pub fn in_time(&self) -> usize {
        self.delays.iter().filter(|delay| **delay <= DEADLINE).count()
    }

    /// Of those sent.
    pub fn percent_in_time(&self) -> f64 {
        100.0 * self.in_time() as f64 / self.sent.max(1) as f64
    }
}
