//! One direction of a link between two PoPs, as a machine without I/O.
//!
//! A [`LinkModel`] is offered packets with the time and says whether and when each comes out at
//! the other end. The real-time emulator asks it about real packets, [`crate::virtual_net`] about
//! those of a virtual clock: same model, same seed, same fates. It holds no packet and does not
//! know what is inside one.

mod loss;
mod spec;
mod trace;

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tradewind_proto::units::Timestamp;

use loss::LossState;
pub use loss::{Chain, Loss, LossError};
pub use spec::{LinkSpec, Rate};
pub use trace::{DelayTrace, RateTrace, TraceError};

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It never arrives.
    Dropped(DropReason),
    /// It arrives.
    Once(Delivery),
    /// It arrives, and so does a copy.
    Twice(Delivery, Delivery),
}

impl Fate {
    /// The arrivals, none to two.
    pub fn deliveries(self) -> impl Iterator<Item = Delivery> {
        let (first, second) = match self {
            Self::Dropped(_) => (None, None),
            Self::Once(only) => (Some(only), None),
            Self::Twice(first, second) => (Some(first), Some(second)),
        };
        first.into_iter().chain(second)
    }
}

/// One arrival of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// When.
    pub at: Timestamp,
    /// Damage: which bit is flipped, counted from a random start; take it modulo the bits at hand.
    pub flipped: Option<u32>,
}

/// Why a packet never arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DropReason {
    /// The link is cut.
    Down,
    /// It is larger than the MTU.
    TooBig,
    /// The queue in front of the bottleneck is full.
    QueueFull,
    /// Lost on the way.
    Loss,
}

/// What a link did so far, in packets and their bytes.
///
/// `offered` = `delivered` less `duplicated` plus all drops.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkCounters {
    /// Packets that entered.
    pub offered: u64,
    /// Their bytes, headers included.
    pub offered_bytes: u64,
    /// Packets that come out, copies included.
    pub delivered: u64,
    /// Their bytes, headers included.
    pub delivered_bytes: u64,
    /// Dropped because the link was cut.
    pub down: u64,
    /// Dropped because they exceeded the MTU.
    pub too_big: u64,
    /// Dropped because the queue was full.
    pub queue_full: u64,
    /// Lost on the way.
    pub lost: u64,
    /// Copies made.
    pub duplicated: u64,
    /// Delivered with a flipped bit.
    pub corrupted: u64,
    /// Held back for others to overtake.
    pub reordered: u64,
}

impl LinkCounters {
    /// Packets that never arrive, for whatever reason.
    pub fn dropped(&self) -> u64 {
        self.down + self.too_big + self.queue_full + self.lost
    }
}

/// One direction of a link.
pub struct LinkModel {
    spec: LinkSpec,
    up: bool,
    loss: LossState,
    jitter: Jitter,
    /// When the bottleneck will have sent all that it took, in nanoseconds.
    free_at_ns: u64,
    /// Of the bits that a traced bottleneck can carry, those that are spoken for.
    taken_bits: u128,
    /// When traces began.
    traces_from: Timestamp,
    /// The latest arrival of a packet that keeps its place.
    last_arrival: Timestamp,
    /// Separate streams, so that asking for duplicates does not change which packets are lost.
    loss_rng: StdRng,
    mischief_rng: StdRng,
    counters: LinkCounters,
}

impl LinkModel {
    /// A link that is up and empty. For `seed` see [`stream_seed`].
    pub fn new(spec: LinkSpec, seed: u64) -> Self {
        let stream = |name| StdRng::seed_from_u64(stream_seed(seed, name));
        Self {
            spec,
            up: true,
            loss: LossState::default(),
            jitter: Jitter::new(stream("jitter")),
            free_at_ns: 0,
            taken_bits: 0,
            traces_from: Timestamp::ZERO,
            last_arrival: Timestamp::ZERO,
            loss_rng: stream("loss"),
            mischief_rng: stream("mischief"),
            counters: LinkCounters::default(),
        }
    }

    /// Sends a packet of `bytes` bytes (as the network counts them: IP and UDP headers included)
    /// into the link. `now` must not go back.
    pub fn offer(&mut self, bytes: usize, now: Timestamp) -> Fate {
        self.counters.offered += 1;
        self.counters.offered_bytes += bytes as u64;
        match self.pass(bytes, now) {
            Ok(at) => self.arrive(bytes, at),
            Err(reason) => self.drop_for(reason),
        }
    }

    /// Counts what is too little to matter but for its bytes: `packets` packets, or none where the bytes
    /// ride on a packet that was offered. It takes no room in the queue and is lost only when the link
    /// is cut.
    pub fn count_in(&mut self, packets: u64, bytes: usize) {
        self.counters.offered += packets;
        self.counters.offered_bytes += bytes as u64;
        if self.up {
            self.counters.delivered += packets;
            self.counters.delivered_bytes += bytes as u64;
        } else {
            self.counters.down += packets;
        }
    }

    /// Changes how the link behaves from now on. What is under way keeps its fate, and packets
    /// sent later still don't overtake it.
    pub fn set(&mut self, spec: LinkSpec) {
        self.spec = spec;
        self.take_up_trace();
    }

    /// Traces of the rate and the delay begin now. Before the first call they began at zero.
    pub fn start_traces(&mut self, now: Timestamp) {
        self.traces_from = now;
        self.take_up_trace();
    }

    /// What is in the queue leaves as it would have: until then nothing is left of a new trace.
    fn take_up_trace(&mut self) {
        if let Some(trace) = &self.spec.rate_trace {
            let free_at = Timestamp::from_micros(self.free_at_ns.div_ceil(1000));
            self.taken_bits = trace.carried(micros_between(self.traces_from, free_at));
        }
    }

    /// Cuts or restores the link. What is under way arrives.
    pub fn set_up(&mut self, up: bool) {
        self.up = up;
    }

    /// Whether it carries anything.
    pub fn is_up(&self) -> bool {
        self.up
    }

    /// How it behaves now.
    pub fn spec(&self) -> &LinkSpec {
        &self.spec
    }

    /// What it did so far.
    pub fn counters(&self) -> &LinkCounters {
        &self.counters
    }

    /// How long a packet that enters now waits for those in front of it.
    pub fn waiting(&self, now: Timestamp) -> Duration {
        Duration::from_micros(self.free_at_ns.div_ceil(1000).saturating_sub(now.as_micros()))
    }

    /// The arrival time, in order, if the packet gets through.
    fn pass(&mut self, bytes: usize, now: Timestamp) -> Result<Timestamp, DropReason> {
        if !self.up {
            return Err(DropReason::Down);
        }
        if bytes > self.spec.mtu {
            return Err(DropReason::TooBig);
        }
        let sent = self.serialise(bytes, now)?;
        if self.loss.next(&self.spec.loss, now, &mut self.loss_rng) {
            return Err(DropReason::Loss);
        }
        let mut delay = self.spec.delay;
        if let Some(trace) = &self.spec.delay_trace {
            let (more, loss) = trace.at(micros_between(self.traces_from, now));
            if loss > 0.0 && self.loss_rng.random_bool(loss) {
                return Err(DropReason::Loss);
            }
            delay += more;
        }
        let at = sent + self.jitter.next(delay, self.spec.jitter, now);
        Ok(at.max(self.last_arrival))
    }

    /// When the last bit has left the bottleneck.
    fn serialise(&mut self, bytes: usize, now: Timestamp) -> Result<Timestamp, DropReason> {
        let Some(rate) = self.spec.rate else { return Ok(now) };
        if let Some(trace) = &self.spec.rate_trace {
            let carried = trace.carried(micros_between(self.traces_from, now));
            let waiting = self.taken_bits.saturating_sub(carried) / 8;
            if waiting + bytes as u128 > rate.queue as u128 {
                return Err(DropReason::QueueFull);
            }
            self.taken_bits = self.taken_bits.max(carried) + bytes as u128 * 8;
            let sent = self.traces_from + Duration::from_micros(trace.when(self.taken_bits));
            self.free_at_ns = sent.as_micros().saturating_mul(1000);
            return Ok(sent);
        }
        let now_ns = now.as_micros().saturating_mul(1000);
        let waiting_ns = self.free_at_ns.saturating_sub(now_ns);
        let bits_per_second = u128::from(rate.bits_per_second.max(1));
        let waiting = u128::from(waiting_ns) * bits_per_second / 8_000_000_000;
        if waiting + bytes as u128 > rate.queue as u128 {
            return Err(DropReason::QueueFull);
        }
        let takes_ns = (bytes as u128 * 8_000_000_000).div_ceil(bits_per_second);
        let takes_ns = u64::try_from(takes_ns).unwrap_or(u64::MAX);
        self.free_at_ns = self.free_at_ns.max(now_ns).saturating_add(takes_ns);
        Ok(Timestamp::from_micros(self.free_at_ns.div_ceil(1000)))
    }

    fn arrive(&mut self, bytes: usize, in_order: Timestamp) -> Fate {
        let rng = &mut self.mischief_rng;
        let (reorder, duplicate, corrupt) =
            [self.spec.reorder, self.spec.duplicate, self.spec.corrupt]
                .map(|p| rng.random_bool(p))
                .into();
        let at = if reorder {
            self.counters.reordered += 1;
            in_order + self.spec.reorder_by.mul_f64(rng.random())
        } else {
            self.last_arrival = in_order;
            in_order
        };
        let flipped = corrupt.then(|| rng.random());
        self.counters.corrupted += u64::from(corrupt);
        self.counters.duplicated += u64::from(duplicate);
        let copies = 1 + u64::from(duplicate);
        self.counters.delivered += copies;
        self.counters.delivered_bytes += copies * bytes as u64;
        let delivery = Delivery { at, flipped };
        match duplicate {
            true => Fate::Twice(delivery, Delivery { at, flipped: None }),
            false => Fate::Once(delivery),
        }
    }

    fn drop_for(&mut self, reason: DropReason) -> Fate {
        *match reason {
            DropReason::Down => &mut self.counters.down,
            DropReason::TooBig => &mut self.counters.too_big,
            DropReason::QueueFull => &mut self.counters.queue_full,
            DropReason::Loss => &mut self.counters.lost,
        } += 1;
        Fate::Dropped(reason)
    }
}

/// Delay that wanders: a normal process whose memory fades exponentially (Ornstein-Uhlenbeck).
struct Jitter {
    rng: StdRng,
    /// In standard deviations.
    value: f64,
    at: Option<Timestamp>,
}

impl Jitter {
    fn new(rng: StdRng) -> Self {
        Self { rng, value: 0.0, at: None }
    }

    fn next(&mut self, delay: Duration, deviation: Duration, now: Timestamp) -> Duration {
        if deviation.is_zero() {
            return delay;
        }
        let memory = self.at.map_or(0.0, |at| {
            (-now.since(at).as_secs_f64() / LinkSpec::JITTER_MEMORY.as_secs_f64()).exp()
        });
        self.at = Some(now);
        self.value = memory * self.value + (1.0 - memory * memory).sqrt() * normal(&mut self.rng);
        let shift = deviation.as_secs_f64() * self.value.clamp(-3.0, 3.0);
        Duration::from_secs_f64((delay.as_secs_f64() + shift).max(0.0))
    }
}

/// A standard normal number (Box and Muller, Annals of Mathematical Statistics 29, 1958).
pub(crate) fn normal(rng: &mut impl Rng) -> f64 {
    let radius = (-2.0 * (1.0 - rng.random::<f64>()).ln()).sqrt();
    radius * (std::f64::consts::TAU * rng.random::<f64>()).cos()
}

fn micros_between(start: Timestamp, now: Timestamp) -> u64 {
    u64::try_from(now.since(start).as_micros()).unwrap_or(u64::MAX)
}

/// The seed of a random stream of its own, told apart by name (64-bit FNV-1a over both), so that
/// what is added to a world does not shift what was there. Links are named `a>b`.
pub fn stream_seed(seed: u64, name: &str) -> u64 {
    let bytes = seed.to_le_bytes().into_iter().chain(name.bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests;
