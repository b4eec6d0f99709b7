//! How fast a link may send: by its delay, not by its losses.
//!
//! Controllers that take each loss for congestion stall on lossy links (at 1 % random loss Cubic
//! delivers less than a fifth). Here only a queue slows the sender down, and losses only where they
//! come with a queue and exceed the link's own. [`RateControl`] says how; it does not pace, [`super::pacer`]
//! does.
//!
//! What it owes to others:
//!
//! - the delivery rate under a queue as the measure of capacity, and growth until a queue shows:
//!   BBR (draft-cardwell-iccrg-bbr-congestion-control, section 4.1);
//! - the least delay of a while as the sign of a queue that *stands*: CoDel (RFC 8289, section 3.1);
//! - a rate below the delivery rate as answer to overuse, and multiplicative growth otherwise:
//!   Google Congestion Control (draft-ietf-rmcat-gcc, section 5.5);
//! - bytes in flight as the queue of the near future, so that a drain ends when the queue does and
//!   not a round trip later: SCReAM's self-clocking (RFC 8298, section 4.1.2), used as O. Smith's
//!   predictor ("Closer control of loops with dead time", 1957);
//! - a mode for the company of senders that fill queues: Copa (Arun and Balakrishnan, NSDI 2018,
//!   section 2.2). Like Copa's it halts at losses, but only at more than the link has by itself.

use std::collections::VecDeque;
use std::time::Duration;

use crate::units::Timestamp;

/// Where a link starts, bits per second.
const START_RATE: f64 = 20e6;
const MOST_RATE: f64 = 10e9;
/// A few audio flows always pass.
const LEAST_RATE: f64 = 128e3;

/// More standing delay than this is a queue, on a link without jitter.
const QUEUE: Duration = Duration::from_millis(12);
/// Less than this and delay counts as flat: only then the rate grows.
const FLAT: Duration = Duration::from_millis(4);
/// How much of the link's own jitter is added to these.
const QUEUE_JITTERS: f64 = 3.0;
const FLAT_JITTERS: f64 = 2.0;
/// How many times the jitter a short queue must stand before it is no jitter.
const STANDING_JITTERS: f64 = 30.0;
/// How long it must stand if the application sends less than it may: then it hardly grows.
const STANDING_UNUSED: Duration = Duration::from_millis(100);
/// Jitter of a link of which nothing is known.
const FIRST_JITTER: Duration = Duration::from_millis(1);
/// More jitter than this excuses nothing.
const MOST_JITTER: Duration = Duration::from_millis(10);

/// When a queue is found, it has stood at least this long: delivery since then is the capacity.
const STOOD: Duration = Duration::from_millis(40);
/// No longer than this is capacity averaged.
const MEASURED: Duration = Duration::from_millis(500);
/// A capacity that differs by less than this from the one found before is the same, measured anew.
const ALIKE: f64 = 0.25;
/// Share of the capacity that is used once the queue has gone.
pub const HEADROOM: f64 = 0.95;
/// At a queue of this length next to nothing is sent; at shorter ones proportionally more.
const DRAIN_SPAN: Duration = Duration::from_millis(50);
/// A drain sends at least this share of the capacity, so that urgent packets pass.
const LEAST_DRAIN: f64 = 0.1;
/// A queue of our own is gone after half as much again as its length, and this.
const PATIENCE: Duration = Duration::from_millis(150);

/// Growth per step while no limit was met.
const DOUBLING: f64 = 2.0;
/// Growth per step near the capacity.
const GENTLE: f64 = 1.015;
/// Growth per step where there was a limit once, but it is gone.
const RECOVERING: f64 = 1.4;
/// Decline per step while a queue stands that is not yet too long, so that it goes and others who
/// wait for that get their turn.
const EASING: f64 = 0.993;
/// A step waits for the effect of the one before: a round trip, and the time to see a queue.
const SETTLING: Duration = Duration::from_millis(60);
/// So far beyond the capacity found without a queue and it is refuted. Getting there by gentle
/// steps would have made a queue of some 30 ms.
const REFUTED: f64 = 1.1;
/// In company: growth per round trip, in bits.
const COMPANY_GROWTH: f64 = 1200.0 * 8.0;
/// In company: what is left of the rate after losses.
const COMPANY_CUT: f64 = 0.75;
/// After so many outcomes it is judged whether that was of use: whether this share of the losses is
/// gone.
const CUT_JUDGED: u32 = 200;
const CUT_USE: f64 = 2.0 / 3.0;
/// Senders that heed losses cause fewer: at 2 % TCP has some nine packets in flight (Mathis and
/// others, ACM CCR 27(3), 1997).
const HEEDED_LOSS: f64 = 0.02;
/// Outcomes from which losses are judged, and after how many such samples.
const JUDGED: u32 = 20;
const KNOWN: u32 = 8;
/// No link loses more by itself.
const MOST_LOSS: f64 = 0.9;
/// Longer queues than this are all the same.
const MOST_QUEUE: Duration = Duration::from_secs(10);

/// What a report says about the link since the report before.
#[derive(Clone, Copy, Debug)]
pub struct Feedback {
    /// Bytes that arrived.
    pub delivered_bytes: u64,
    /// Datagrams that arrived, and that were lost.
    pub outcomes: (u32, u32),
    /// When the newest datagram that arrived was sent.
    pub sent_at: Timestamp,
    /// When it arrived, on the neighbour's clock.
    pub arrived_at: Timestamp,
    /// Its delay beyond the least.
    pub queued: Duration,
    /// Bytes sent after it.
    pub in_flight_bytes: u64,
    /// Delay beyond the least, of late. See [`super::meter::DelayMeter::queueing`].
    pub queueing: Duration,
    /// Smoothed round-trip time.
    pub rtt: Duration,
    /// Whether the application had less to send than the rate allows.
    pub limited_by_application: bool,
}

/// The rate of one direction of one link.
///
/// It starts at 20 Mbit/s and doubles per round trip (at least 40 ms) while the delay stays flat
/// and the application uses what it has; it stays where it is while the application sends less.
///
/// Once 12 ms of queue (more on a link with jitter) have stood for 40 ms, what was delivered since
/// *is* the capacity. The rate goes below that, the lower the longer the queue that a packet sent
/// now would meet: what stood before the newest packet known to have arrived, plus the bytes sent
/// since, less the time since. When the queue has gone, 95 % of the capacity are used and the rate
/// rises by 1.5 % a step; 10 % beyond a capacity without a queue, the limit is a thing of the past
/// and the rate rises by 40 % a step.
///
/// Between a flat delay and a queue that is too long the rate declines by 0.7 % a step, once a limit was met. A queue that
/// is hardly too long is believed only once it has stood for thirty times the link's own jitter, or
/// for 100 ms where the application sends less than it may.
///
/// Loss does not matter, except that bytes lost on the way are part of what the link took: the
/// delivery is divided by the share that arrives while no queue of ours can stand. More loss than that, with a
/// queue, is an overflow: the rate falls by a quarter. Where that is of no use, and as much is lost as
/// before, the losses are the link's own, and the rate is what it was.
///
/// A queue that stays although ours must have gone is not ours: the delay of a longer route, or
/// another's queue. It is tolerated from then on (it may double), until it shrinks. In that company
/// the rate grows by a packet per round trip each round trip, as TCP's would: who only looked at
/// delay would starve beside Cubic, who did not look at losses would starve Cubic.
#[derive(Clone, Debug)]
pub struct RateControl {
    rate: f64,
    capacity: Option<f64>,
    /// Whether a limit was ever met.
    met_limit: bool,
    /// Smoothed loss while no queue stands, and the number of samples in it, ...
    clean_loss: f64,
    clean_samples: u32,
    /// ... and of others.
    other_samples: u32,
    /// Jitter while the delay is flat, seconds, and the number of samples in it.
    calm_jitter: f64,
    calm_samples: u32,
    /// Standing delay that is not ours.
    tolerated: Duration,
    arrivals: Arrivals,
    overload: Option<Overload>,
    /// When what met the last queue of ours was sent.
    stood: Option<(Timestamp, Timestamp)>,
    losses: Losses,
    /// The rate was cut for losses that have not ended since.
    cut: Option<Cut>,
    stepped_at: Timestamp,
}

/// Losses were answered by a lower rate.
#[derive(Clone, Copy, Debug)]
struct Cut {
    /// Rate and capacity before.
    former: (f64, Option<f64>),
    /// The share lost then, ...
    share: f64,
    /// ... and what came of the packets after the next judgement, which still tells of earlier ones.
    since: Option<Losses>,
}

/// A queue stands.
#[derive(Clone, Copy, Debug)]
struct Overload {
    began: Timestamp,
    /// On the neighbour's clock.
    measured_from: Timestamp,
    longest: Duration,
    least: Duration,
    /// How long it must stand, if it stays short, to be believed.
    suspicion: Duration,
    /// The queue that a packet sent right at that time would have met.
    ahead: (Duration, Timestamp),
    /// The capacity found before, and now.
    known: Option<f64>,
    capacity: Option<f64>,
    /// Rate and capacity to return to if the queue turns out not to be ours.
    former: Option<(f64, Option<f64>)>,
}

impl RateControl {
    /// The rate of a link that knows nothing yet: 20 Mbit/s.
    pub fn new(now: Timestamp) -> Self {
        Self {
            rate: START_RATE,
            capacity: None,
            met_limit: false,
            clean_loss: 0.0,
            clean_samples: 0,
            other_samples: 0,
            calm_jitter: FIRST_JITTER.as_secs_f64(),
            calm_samples: 4,
            tolerated: Duration::ZERO,
            arrivals: Arrivals::default(),
            overload: None,
            stood: None,
            losses: Losses::new(now),
            cut: None,
            stepped_at: now,
        }
    }

    /// A report came.
    pub fn handle_report(&mut self, feedback: Feedback, now: Timestamp) {
        let feedback = Feedback {
            queueing: feedback.queueing.min(MOST_QUEUE),
            queued: feedback.queued.min(MOST_QUEUE),
            ..feedback
        };
        self.arrivals.note(feedback.delivered_bytes, feedback.arrived_at);
        self.tolerated = self.tolerated.min(feedback.queueing);
        let queue = feedback.queueing - self.tolerated;
        if queue > self.too_long() {
            self.handle_queue(&feedback, now);
        } else {
            self.end_overload(now);
            self.learn_jitter(queue, &feedback);
            self.grow(queue, &feedback, now);
        }
        if let Some(judged) = self.losses.judge(&feedback, now) {
            self.handle_losses(judged, &feedback, now);
        }
    }

    /// What may be sent now, bits per second.
    pub fn rate_bps(&self) -> u64 {
        self.rate as u64
    }

    /// What the link was found to carry, bits per second; `None` while no limit was met, or once it
    /// has carried clearly more.
    pub fn capacity_bps(&self) -> Option<u64> {
        self.capacity.map(|capacity| capacity as u64)
    }

    /// What was sent in this time met the latest queue, and may have been dropped for it.
    pub fn queue_stood(&self) -> Option<(Timestamp, Timestamp)> {
        self.stood
    }

    /// The link's own jitter: what the delay varies while no queue stands.
    pub fn jitter(&self) -> Duration {
        Duration::from_secs_f64(self.calm_jitter)
    }

    /// The queue that a packet sent now would meet, while one stands.
    pub fn queue(&self, now: Timestamp) -> Option<Duration> {
        self.overload.map(|Overload { ahead: (queue, at), .. }| queue.saturating_sub(now.since(at)))
    }

    fn too_long(&self) -> Duration {
        self.tolerated + QUEUE + self.jitter().mul_f64(QUEUE_JITTERS)
    }

    fn flat(&self) -> Duration {
        FLAT + self.jitter().mul_f64(FLAT_JITTERS)
    }

    fn in_company(&self) -> bool {
        self.tolerated > self.flat()
    }

    fn handle_queue(&mut self, feedback: &Feedback, now: Timestamp) {
        let former = feedback.limited_by_application.then_some((self.rate, self.capacity));
        let mut overload = self.overload.unwrap_or(Overload {
            began: now,
            measured_from: feedback.arrived_at.minus(STOOD),
            longest: Duration::ZERO,
            least: feedback.queueing,
            suspicion: if feedback.limited_by_application {
                STANDING_UNUSED
            } else {
                Duration::ZERO
            },
            ahead: (feedback.queueing, now),
            known: self.capacity,
            capacity: None,
            former,
        });
        overload.longest = overload.longest.max(feedback.queueing - self.tolerated);
        overload.least = overload.least.min(feedback.queueing);
        let from = overload.measured_from.max(feedback.arrived_at.minus(MEASURED));
        let stood_from = match (self.overload, self.stood) {
            (Some(_), Some((from, _))) => from,
            _ => feedback.sent_at.minus(STOOD),
        };
        self.stood = Some((stood_from, now));
        let patience = overload.longest * 3 / 2 + PATIENCE;
        let proven = self.jitter().mul_f64(STANDING_JITTERS).max(overload.suspicion);
        let doubtful = overload.longest < self.too_long() * 3 && now.since(overload.began) < proven;
        if let Some(delivered) = self.arrivals.rate_since(from)
            && !doubtful
        {
            let capacity = (delivered / (1.0 - self.clean_loss)).clamp(LEAST_RATE, MOST_RATE);
            let capacity = match overload.known {
                Some(known) if (capacity / known - 1.0).abs() < ALIKE => (capacity + known) / 2.0,
                _ => capacity,
            };
            overload.former.get_or_insert((capacity, Some(capacity)));
            overload.capacity = Some(capacity);
            self.capacity = Some(capacity);
            self.met_limit = true;
            let ahead = self.queue_ahead(capacity, feedback, now);
            overload.ahead = (ahead, now);
            let ours = ahead.saturating_sub(self.tolerated).div_duration_f64(DRAIN_SPAN);
            // What does not shrink is pressed harder: the capacity may have been taken for more.
            let stays = feedback.sent_at.since(overload.began).div_duration_f64(patience).min(1.0);
            let share = (1.0 - ours).clamp(LEAST_DRAIN, HEADROOM) * (1.0 - stays / 2.0);
            self.rate = (capacity * share).max(LEAST_RATE);
            self.stepped_at = now;
        }
        if feedback.sent_at > overload.began + patience {
            (self.rate, self.capacity) = overload.former.unwrap_or((self.rate, self.capacity));
            self.tolerated = overload.least;
            self.overload = None;
            self.stepped_at = now;
        } else {
            self.overload = Some(overload);
        }
    }

    /// The queue that a packet sent now will meet: what the newest that arrived met, and what was
    /// sent since, less what has left since.
    fn queue_ahead(&self, capacity: f64, feedback: &Feedback, now: Timestamp) -> Duration {
        let added = feedback.in_flight_bytes as f64 * 8.0 / capacity;
        let ahead = feedback.queued + Duration::from_secs_f64(added.min(MOST_QUEUE.as_secs_f64()));
        ahead.saturating_sub(now.since(feedback.sent_at)).max(self.tolerated)
    }

    fn end_overload(&mut self, now: Timestamp) {
        if let Some(Overload { capacity: Some(capacity), .. }) = self.overload.take() {
            self.rate = (capacity * HEADROOM).max(LEAST_RATE);
            self.stepped_at = now;
        }
    }

    /// What a packet takes beyond the least of its 50 ms: a queue that grows and shrinks adds little
    /// to that.
    fn learn_jitter(&mut self, queue: Duration, feedback: &Feedback) {
        if queue <= self.flat() {
            let jitter = feedback.queued.saturating_sub(feedback.queueing).min(MOST_JITTER);
            self.calm_samples = self.calm_samples.saturating_add(1);
            let gain = f64::from(self.calm_samples.min(64));
            self.calm_jitter += (jitter.as_secs_f64() - self.calm_jitter) / gain;
        }
    }

    fn grow(&mut self, queue: Duration, feedback: &Feedback, now: Timestamp) {
        let round_trip = feedback.rtt.clamp(Duration::from_millis(40), Duration::from_secs(1));
        let settled = round_trip + SETTLING;
        let (grown, step) = match (self.in_company(), self.capacity, self.met_limit) {
            (true, ..) => (self.rate + COMPANY_GROWTH / round_trip.as_secs_f64(), round_trip),
            (false, Some(_), _) => (self.rate * GENTLE, settled),
            (false, None, true) => (self.rate * RECOVERING, settled),
            (false, None, false) => (self.rate * DOUBLING, round_trip),
        };
        let flat = queue <= self.flat() || self.in_company();
        let (grown, step) = match flat {
            true => (grown, step),
            false if self.met_limit => (self.rate * EASING, settled),
            false => return,
        };
        if feedback.limited_by_application || now.since(self.stepped_at) < step {
            return;
        }
        self.rate = grown.clamp(LEAST_RATE, MOST_RATE);
        self.stepped_at = now;
        if self.capacity.is_some_and(|capacity| self.rate > capacity * REFUTED) {
            self.capacity = None;
        }
    }

    /// Losses without a queue are the link's own. More of them with a queue are a queue that
    /// overflows: one that another sender keeps full, or too short to show.
    fn handle_losses(&mut self, judged: Losses, feedback: &Feedback, now: Timestamp) {
        self.judge_cut(judged, now);
        // Nor is a queue that is there while next to nothing is sent.
        if feedback.queueing <= self.flat() || judged.rate(now) < LEAST_RATE {
            self.clean_samples = self.clean_samples.saturating_add(1);
            let gain = f64::from(self.clean_samples.min(16));
            self.clean_loss += (judged.share() - self.clean_loss) / gain;
            return;
        }
        self.other_samples = self.other_samples.saturating_add(1);
        let known = self.clean_samples.saturating_add(self.other_samples) >= KNOWN;
        // Who sends less than he may is seldom the cause.
        let queue = match feedback.limited_by_application {
            true => self.too_long().mul_f64(0.6),
            false => FLAT,
        };
        if known
            && feedback.queueing > queue
            && self.overload.is_none()
            && judged.exceed(self.clean_loss)
        {
            let since = feedback.arrived_at.minus(feedback.rtt);
            let delivered = self.arrivals.rate_since(since).unwrap_or(self.rate);
            let capacity = (delivered / (1.0 - self.clean_loss)).clamp(LEAST_RATE, MOST_RATE);
            let (former, share) = ((self.rate, self.capacity), judged.share());
            self.cut.get_or_insert(Cut { former, share, since: None });
            self.rate = (self.rate.min(capacity) * COMPANY_CUT).max(LEAST_RATE);
            self.capacity = Some(capacity);
            self.met_limit = true;
            self.stepped_at = now;
        }
    }

    /// Whether the last cut was of use; if not, the losses are no overflow, and it is undone.
    fn judge_cut(&mut self, judged: Losses, now: Timestamp) {
        let Some(cut) = &mut self.cut else { return };
        let Some(since) = &mut cut.since else {
            cut.since = Some(Losses::new(now));
            return;
        };
        since.add(judged);
        if since.all() < CUT_JUDGED {
            return;
        }
        if since.share() > HEEDED_LOSS.max(cut.share * (1.0 - CUT_USE)) {
            self.clean_loss = since.share();
            (self.rate, self.capacity) = cut.former;
            self.stepped_at = now;
        }
        self.cut = None;
    }
}

/// What arrived when, on the neighbour's clock.
#[derive(Clone, Debug, Default)]
struct Arrivals {
    /// The newest arrival, and the bytes up to it.
    latest: (Timestamp, u64),
    /// The same at some past times, oldest first. At most [`Self::MOST`].
    marks: VecDeque<(Timestamp, u64)>,
}

impl Arrivals {
    const MARK: Duration = Duration::from_millis(5);
    const MOST: usize = 100;
    /// Over less no rate is told. Nobody's voice alone makes so many bytes in [`MEASURED`], nor the
    /// queue that they meet.
    const LEAST_SPAN: Duration = Duration::from_millis(20);
    const LEAST_BYTES: u64 = 6_000;

    fn note(&mut self, bytes: u64, at: Timestamp) {
        self.latest = (self.latest.0.max(at), self.latest.1.saturating_add(bytes));
        let newest = self.marks.back().map_or(Timestamp::ZERO, |&(at, _)| at);
        if at.since(newest) >= Self::MARK {
            self.marks.push_back(self.latest);
            if self.marks.len() > Self::MOST {
                self.marks.pop_front();
            }
        }
    }

    /// Bits per second since then.
    fn rate_since(&self, from: Timestamp) -> Option<f64> {
        let &(at, bytes) = self.marks.iter().find(|&&(at, _)| at >= from)?;
        let span = self.latest.0.since(at);
        let bytes = self.latest.1 - bytes;
        let enough = span >= Self::LEAST_SPAN && bytes >= Self::LEAST_BYTES;
        enough.then(|| bytes as f64 * 8.0 / span.as_secs_f64())
    }
}

/// Outcomes since the last judgement.
#[derive(Clone, Copy, Debug)]
struct Losses {
    since: Timestamp,
    /// What arrived.
    bytes: u64,
    arrived: u32,
    lost: u32,
}

impl Losses {
    fn new(now: Timestamp) -> Self {
        Self { since: now, bytes: 0, arrived: 0, lost: 0 }
    }

    /// Counts; what came together, once per round trip.
    fn judge(&mut self, feedback: &Feedback, now: Timestamp) -> Option<Self> {
        let (arrived, lost) = feedback.outcomes;
        self.add(Self { bytes: feedback.delivered_bytes, arrived, lost, ..*self });
        let ripe = self.all() >= JUDGED && now.since(self.since) >= feedback.rtt.max(SETTLING);
        ripe.then(|| std::mem::replace(self, Self::new(now)))
    }

    fn add(&mut self, more: Self) {
        self.bytes = self.bytes.saturating_add(more.bytes);
        self.arrived = self.arrived.saturating_add(more.arrived);
        self.lost = self.lost.saturating_add(more.lost);
    }

    /// Bits per second that arrived.
    fn rate(&self, now: Timestamp) -> f64 {
        self.bytes as f64 * 8.0 / now.since(self.since).as_secs_f64().max(1e-3)
    }

    fn all(&self) -> u32 {
        self.arrived.saturating_add(self.lost)
    }

    fn share(&self) -> f64 {
        (f64::from(self.lost) / f64::from(self.all().max(1))).min(MOST_LOSS)
    }

    /// Whether these are more than so large a share and chance explain.
    fn exceed(&self, share: f64) -> bool {
        let expected = f64::from(self.all()) * share;
        f64::from(self.lost) > expected + 4.0 * expected.sqrt() + 1.0
    }
}

#[cfg(test)]
mod tests;
