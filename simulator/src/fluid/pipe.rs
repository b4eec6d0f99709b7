//! One direction of a link as a fluid: what is sent into it per second, and what comes of that.

use std::time::Duration;

use tradewind_proto::link::rate::HEADROOM;
use tradewind_proto::units::{Class, Timestamp};

use crate::emulator::IP_UDP_HEADERS;
use crate::link::{Chain, LinkCounters, LinkSpec, Loss, Rate};
use crate::virtual_net::QUIC_OVERHEAD;

/// Loads that differ by less are alike.
const ALIKE: f64 = 0.1;

/// One direction of a link.
pub(super) struct Pipe {
    pub(super) from: usize,
    pub(super) to: usize,
    pub(super) spec: LinkSpec,
    pub(super) up: bool,
    /// Grows with every change that a packet on it could notice.
    pub(super) version: u64,
    /// What the flows send into it, repair included.
    pub(super) load: Load,
    /// The load for which [`Self::served`] and the burst length were reckoned.
    reckoned: Load,
    /// Share of the packets of each class that leave before they are too old to wait.
    pub(super) served: [f64; 3],
    /// It carried more than it can: rate control knows its limit.
    pub(super) limit_met: bool,
    /// Heartbeats and reports, per second.
    pub(super) idle: Idle,
    pub(super) tally: PipeTally,
}

/// What enters per second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Load {
    /// Bytes on the wire, by class.
    pub(super) bytes: [f64; 3],
    /// Packets.
    pub(super) packets: [f64; 3],
}

impl Load {
    pub(super) fn add(&mut self, class: Class, packets: f64, bytes: f64) {
        self.packets[class as usize] += packets;
        self.bytes[class as usize] += packets * bytes;
    }

    pub(super) fn pps(&self) -> f64 {
        self.packets.iter().sum()
    }

    pub(super) fn bps(&self) -> f64 {
        self.bytes.iter().sum::<f64>() * 8.0
    }

    fn is_like(&self, other: &Self) -> bool {
        let like = |a: f64, b: f64| (a - b).abs() <= ALIKE * a.max(b);
        (0..3).all(|class| like(self.bytes[class], other.bytes[class]))
    }
}

/// What a link sends by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Idle {
    pub(super) packets: f64,
    pub(super) bytes: f64,
}

/// What a pipe carried so far, in expectation.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct PipeTally {
    since: Timestamp,
    offered: f64,
    bytes: f64,
    lost: f64,
    down: f64,
}

impl PipeTally {
    /// So much was sent, of which this share was lost; `None`: all, as the link is cut.
    fn count(&mut self, packets: f64, bytes: f64, loss: Option<f64>) {
        self.offered += packets;
        self.bytes += bytes;
        match loss {
            Some(loss) => self.lost += packets * loss,
            None => self.down += packets,
        }
    }
}

impl Pipe {
    pub(super) fn new(from: usize, to: usize, spec: LinkSpec, now: Timestamp) -> Self {
        Self {
            from,
            to,
            spec,
            up: true,
            version: 0,
            load: Load::default(),
            reckoned: Load::default(),
            served: [1.0; 3],
            limit_met: false,
            idle: Idle::default(),
            tally: PipeTally { since: now, ..PipeTally::default() },
        }
    }

    /// What was sent until now is accounted for: to be called before anything changes.
    pub(super) fn settle(&mut self, now: Timestamp) {
        self.tally = self.tally_at(now);
    }

    fn tally_at(&self, now: Timestamp) -> PipeTally {
        let span = now.since(self.tally.since).as_secs_f64();
        let (packets, bytes) = self.carried();
        let (packets, bytes) = (packets + self.idle.packets, bytes + self.idle.bytes);
        let mut tally = PipeTally { since: now, ..self.tally };
        tally.count(packets * span, bytes * span, self.up.then(|| self.loss()));
        tally
    }

    /// So much was sent into it.
    pub(super) fn count(&mut self, packets: f64, bytes: f64) {
        let loss = self.up.then(|| self.loss());
        self.tally.count(packets, bytes, loss);
    }

    /// What it did until now. Expectations, rounded.
    pub(super) fn counters(&self, now: Timestamp) -> LinkCounters {
        let PipeTally { offered, bytes, lost, down, .. } = self.tally_at(now);
        let [offered, offered_bytes, lost, down] = [offered, bytes, lost, down].map(|n| n as u64);
        let delivered = offered.saturating_sub(lost + down);
        let share = delivered as f64 / offered.max(1) as f64;
        LinkCounters {
            offered,
            offered_bytes,
            delivered,
            delivered_bytes: (offered_bytes as f64 * share) as u64,
            down,
            lost,
            ..LinkCounters::default()
        }
    }

    /// Takes over the load, and what follows from it.
    pub(super) fn reckon(&mut self) {
        let bound = self.spec.rate.is_some() || matches!(self.spec.loss, Loss::Outages { .. });
        if !bound || self.load.is_like(&self.reckoned) {
            return;
        }
        self.reckoned = self.load;
        self.version += 1;
        self.served = [1.0; 3];
        let Some(rate) = self.spec.rate else { return };
        let all = rate.bits_per_second as f64 / 8.0;
        if self.load.bps() / 8.0 > all * HEADROOM {
            self.limit_met = true;
        }
        let mut left = all * HEADROOM;
        for (served, &offered) in self.served.iter_mut().zip(&self.load.bytes) {
            *served = if offered > left { (left / offered).max(0.0) } else { 1.0 };
            left = (left - offered).max(0.0);
        }
    }

    /// It behaves differently from now on.
    pub(super) fn set(&mut self, spec: LinkSpec) {
        self.spec = spec;
        self.reckoned = Load::default();
        self.limit_met = false;
        self.version += 1;
        self.reckon();
    }

    /// What a packet of `bytes` bytes takes, its own time in the bottleneck included, in seconds.
    pub(super) fn delay(&self, bytes: f64) -> f64 {
        let passing = |rate: Rate| bytes * 8.0 / rate.bits_per_second as f64;
        self.span().as_secs_f64() + self.spec.rate.map_or(0.0, passing)
    }

    /// Standard deviation of the delay, in seconds.
    pub(super) fn sigma(&self) -> f64 {
        self.spec.jitter.as_secs_f64()
    }

    /// Share lost on the way; that of a trace on average.
    pub(super) fn loss(&self) -> f64 {
        let traced = self.spec.delay_trace.as_ref().map_or(0.0, |trace| trace.mean_loss());
        1.0 - (1.0 - self.spec.loss.rate()) * (1.0 - traced)
    }

    /// Mean run of losses in packets, at the present load; `heartbeats` a second come on top.
    pub(super) fn burst(&self, heartbeats: f64) -> f64 {
        match self.spec.loss {
            Loss::None => 1.0,
            Loss::Independent(loss) => 1.0 / (1.0 - loss.min(0.99)),
            Loss::Chain(Chain { r, bad, .. }) => 1.0 / (1.0 - bad * (1.0 - r)).max(0.01),
            Loss::Outages { mean, .. } => {
                1.0 + mean.as_secs_f64() * self.load.pps().max(heartbeats)
            }
        }
    }

    /// What rate control found it to carry, in bits of datagrams per second.
    pub(super) fn capacity_bps(&self) -> Option<u64> {
        let rate = self.spec.rate.filter(|_| self.limit_met)?;
        let (bytes, packets) = (self.load.bps() / 8.0, self.load.pps());
        let size = if packets > 0.0 { bytes / packets } else { 1500.0 };
        let inside = 1.0 - (IP_UDP_HEADERS + QUIC_OVERHEAD) as f64 / size;
        Some((rate.bits_per_second as f64 * inside) as u64)
    }

    /// Packets and bytes per second of flows that leave.
    fn carried(&self) -> (f64, f64) {
        let of =
            |load: &[f64; 3]| load.iter().zip(&self.served).map(|(load, share)| load * share).sum();
        (of(&self.load.packets), of(&self.load.bytes))
    }

    /// Bits of datagrams per second that it carries.
    pub(super) fn load_bps(&self) -> u64 {
        let headers = (IP_UDP_HEADERS + QUIC_OVERHEAD) as f64;
        let (packets, bytes) = self.carried();
        let data = bytes - packets * headers;
        let idle = self.idle.bytes - self.idle.packets * headers;
        ((data + idle).max(0.0) * 8.0) as u64
    }

    /// What every packet takes; that of a trace on average.
    pub(super) fn span(&self) -> Duration {
        self.spec.mean_delay()
    }
}
