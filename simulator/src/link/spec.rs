//! How a link behaves, as numbers: what a world file's `[[link]]` becomes.

use std::sync::Arc;
use std::time::Duration;

use super::loss::Loss;
use super::trace::{DelayTrace, RateTrace};

/// One direction of a link. The words are those of Linux's `tc netem`, where it has them.
#[derive(Clone, Debug, PartialEq)]
pub struct LinkSpec {
    /// Propagation: what every packet takes at least, jitter aside.
    pub delay: Duration,
    /// Standard deviation of the delay. Normal, cut off at three deviations and at zero, and
    /// correlated in time (see [`Self::JITTER_MEMORY`]).
    pub jitter: Duration,
    /// Which packets vanish on the way.
    pub loss: Loss,
    /// Bits per second, and the queue in front; `None`: as many as are sent.
    pub rate: Option<Rate>,
    /// What the bottleneck carries over time; `rate` is then the mean, and has the queue.
    pub rate_trace: Option<Arc<RateTrace>>,
    /// Delay on top of `delay`, and loss on top of `loss`, over time.
    pub delay_trace: Option<Arc<DelayTrace>>,
    /// Share of packets held back so that later ones overtake them, 0 to 1.
    pub reorder: f64,
    /// How long those are held back: evenly between nothing and this.
    pub reorder_by: Duration,
    /// Share of packets that arrive twice, 0 to 1.
    pub duplicate: f64,
    /// Share of packets that arrive with one bit flipped, 0 to 1.
    pub corrupt: f64,
    /// The largest IP packet that gets through, in bytes.
    pub mtu: usize,
}

/// A bottleneck: a rate, and the drop-tail queue in front of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Bits per second, at least 1.
    pub bits_per_second: u64,
    /// Bytes that may wait, the packet being sent included.
    pub queue: usize,
}

impl Rate {
    /// The queue of a rate for which none was named: 50 ms at that rate, but ten full packets at least.
    pub fn with_default_queue(bits_per_second: u64) -> Self {
        let fifty_ms = usize::try_from(bits_per_second / 8 / 20).unwrap_or(usize::MAX);
        Self { bits_per_second, queue: fifty_ms.max(15_000) }
    }
}

impl LinkSpec {
    /// How fast jitter forgets: the correlation of two packets' delays falls to 1/e when they are
    /// sent this far apart. Queues on a path fill and empty over milliseconds; jitter that is
    /// independent from packet to packet would either reorder nearly all of them or, with the
    /// order kept, turn into a running maximum that grows with the packet rate.
    pub const JITTER_MEMORY: Duration = Duration::from_millis(20);

    /// A link that delays by `delay` and does nothing else.
    pub fn with_delay(delay: Duration) -> Self {
        Self { delay, ..Self::default() }
    }

    /// What a packet takes on average, queues aside.
    pub fn mean_delay(&self) -> Duration {
        self.delay + self.delay_trace.as_ref().map_or(Duration::ZERO, |trace| trace.mean_delay())
    }
}

impl Default for LinkSpec {
    /// A perfect wire without length: no delay, no loss, no limit, Ethernet's MTU.
    fn default() -> Self {
        Self {
            delay: Duration::ZERO,
            jitter: Duration::ZERO,
            loss: Loss::None,
            rate: None,
            rate_trace: None,
            delay_trace: None,
            reorder: 0.0,
            reorder_by: Duration::from_millis(5),
            duplicate: 0.0,
            corrupt: 0.0,
            mtu: 1500,
        }
    }
}
