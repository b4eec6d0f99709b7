//! How fast a link may send: by its delay, not by its losses.
//!
//! Controllers that take each loss for congestion stall on lossy links (at 1 % random loss Cubic
//! delivers less than a fifth). Here only a queue that stands slows the sender down. Ideas from
//! BBR (delivery rate as the measure of capacity, drain after probing), Copa and GCC (the queue as
//! the signal), RFC 8289 (a *standing* queue is what counts). It does not pace; [`super::pacer`]
//! does.

use std::time::Duration;

use crate::units::Timestamp;

/// Where a link starts, bits per second.
const START_RATE: f64 = 20e6;
const MOST_RATE: f64 = 10e9;
/// A few audio flows always pass.
const LEAST_RATE: f64 = 128e3;

/// More standing delay than this is a queue.
const QUEUE: Duration = Duration::from_millis(15);
/// Less than this and delay counts as flat: only then the rate grows.
const FLAT: Duration = Duration::from_millis(5);
/// Delivery is measured over a standing queue of at least this length before it is believed.
const MEASURING: Duration = Duration::from_millis(60);
/// Share of the capacity found that is used once the queue has drained.
const HEADROOM: f64 = 0.85;
/// A queue of this length would be drained by sending nothing; shorter ones proportionally.
const DRAIN_SPAN: Duration = Duration::from_millis(100);
/// A drain sends at least this share of the capacity, so that urgent packets pass.
const LEAST_DRAIN: f64 = 0.25;

/// Growth per step while no limit was met.
const DOUBLING: f64 = 2.0;
/// Growth per step near the capacity.
const GENTLE: f64 = 1.03;
/// Growth per step where there was a limit once, but it is gone.
const RECOVERING: f64 = 1.5;
/// So far beyond the capacity found without a queue and it is refuted. Further than a rate gets
/// before the queue that it makes is seen.
const REFUTED: f64 = 1.25;
/// Longer queues than this are all the same.
const MOST_QUEUE: Duration = Duration::from_secs(10);

/// What a report says about the link since the report before.
#[derive(Clone, Copy, Debug)]
pub struct Feedback {
    /// Bytes that arrived.
    pub delivered_bytes: u64,
    /// Delay beyond the least, of late. See [`super::meter::DelayMeter::queueing`].
    pub queueing: Duration,
    /// Smoothed round-trip time.
    pub rtt: Duration,
    /// Share of datagrams lost, 0 to 1.
    pub loss: f32,
    /// Whether the application had less to send than the rate allows.
    pub limited_by_application: bool,
}

/// The rate of one direction of one link.
///
/// It starts at 20 Mbit/s and doubles per round trip (at least 40 ms: the queue is seen only after
/// such a time) while the delay stays flat and the application uses what it has; it stays where it
/// is while the application sends less. Once more than 15 ms of queue stand for 60 ms, what is
/// delivered meanwhile *is* the capacity. The rate goes below that until the queue is gone (the
/// longer the queue, the lower), then to 85 % of it, and rises by 3 % a step. 25 % beyond a
/// capacity without a queue, the limit is a thing of the past and the rate rises by half a step.
///
/// Loss does not matter, except that bytes lost on the way are part of what the link took: the
/// delivery is divided by the share that arrives while no queue stands.
///
/// A queue that stays while we hold back is not ours: the delay of a longer route, or another's
/// queue. What is left of it after a drain is tolerated from then on, until it shrinks.
#[derive(Clone, Debug)]
pub struct RateControl {
    /// What is allowed when no queue is being drained.
    rate: f64,
    capacity: Option<f64>,
    /// Whether a limit was ever met.
    met_limit: bool,
    /// Smoothed loss while no queue stands.
    clean_loss: f64,
    /// Standing delay that is not ours.
    tolerated: Duration,
    overload: Option<Overload>,
    drain: Option<Drain>,
    stepped_at: Timestamp,
}

/// A queue that stands.
#[derive(Clone, Copy, Debug)]
struct Overload {
    since: Timestamp,
    /// Delivered after `since`.
    bytes: u64,
}

/// Sending less than the capacity until the queue is gone.
#[derive(Clone, Copy, Debug)]
struct Drain {
    capacity: f64,
    began: Timestamp,
    /// The longest queue seen before the drain had an effect.
    longest: Duration,
    /// The shortest standing delay seen.
    least: Duration,
}

impl Drain {
    fn share(&self) -> f64 {
        let share = 1.0 - self.longest.as_secs_f64() / DRAIN_SPAN.as_secs_f64();
        share.clamp(LEAST_DRAIN, HEADROOM)
    }

    fn rate(&self) -> f64 {
        (self.capacity * self.share()).max(LEAST_RATE)
    }

    /// When our own queue must be gone: after a round trip and what measuring takes, it shrinks by
    /// what we send less than the capacity.
    fn ends(&self, round_trip: Duration) -> Timestamp {
        self.acts(round_trip) + MEASURING + self.longest.div_f64(1.0 - self.share())
    }

    /// When reports begin to show the lower rate.
    fn acts(&self, round_trip: Duration) -> Timestamp {
        self.began + round_trip + MEASURING
    }

    fn observe(&mut self, queue: Duration, feedback: &Feedback, now: Timestamp) {
        if now < self.acts(round_trip(feedback)) {
            self.longest = self.longest.max(queue);
        }
        self.least = self.least.min(feedback.queueing);
    }
}

impl RateControl {
    /// The rate of a link that knows nothing yet: 20 Mbit/s.
    pub fn new(now: Timestamp) -> Self {
        Self {
            rate: START_RATE,
            capacity: None,
            met_limit: false,
            clean_loss: 0.0,
            tolerated: Duration::ZERO,
            overload: None,
            drain: None,
            stepped_at: now,
        }
    }

    /// A report came.
    pub fn handle_report(&mut self, feedback: Feedback, now: Timestamp) {
        let feedback = Feedback { queueing: feedback.queueing.min(MOST_QUEUE), ..feedback };
        self.tolerated = self.tolerated.min(feedback.queueing);
        let queue = feedback.queueing - self.tolerated;
        if queue > QUEUE {
            self.handle_queue(queue, &feedback, now);
        } else {
            self.overload = None;
            self.end_drain(now);
            self.learn_loss(feedback.loss);
            self.grow(queue, &feedback, now);
        }
    }

    /// What may be sent now, bits per second.
    pub fn rate_bps(&self) -> u64 {
        self.drain.as_ref().map_or(self.rate, Drain::rate) as u64
    }

    /// What the link was found to carry, bits per second; `None` while no limit was met, or once it
    /// has carried clearly more.
    pub fn capacity_bps(&self) -> Option<u64> {
        self.capacity.map(|capacity| capacity as u64)
    }

    fn handle_queue(&mut self, queue: Duration, feedback: &Feedback, now: Timestamp) {
        if let Some(drain) = &mut self.drain {
            drain.observe(queue, feedback, now);
            if now >= drain.ends(round_trip(feedback)) {
                self.tolerated = drain.least;
                self.end_drain(now);
            }
            return;
        }
        let Some(overload) = &mut self.overload else {
            self.overload = Some(Overload { since: now, bytes: 0 });
            return;
        };
        overload.bytes = overload.bytes.saturating_add(feedback.delivered_bytes);
        let span = now.since(overload.since);
        if span >= MEASURING {
            let delivered = overload.bytes as f64 * 8.0 / span.as_secs_f64();
            self.back_off(delivered, queue, feedback, now);
        }
    }

    fn back_off(&mut self, delivered: f64, queue: Duration, feedback: &Feedback, now: Timestamp) {
        let lost = self.clean_loss.min(share(feedback.loss));
        let capacity = (delivered / (1.0 - lost)).clamp(LEAST_RATE, MOST_RATE);
        self.drain = Some(Drain { capacity, began: now, longest: queue, least: feedback.queueing });
        self.rate = (capacity * HEADROOM).clamp(LEAST_RATE, MOST_RATE);
        self.capacity = Some(capacity);
        self.met_limit = true;
        self.overload = None;
        self.stepped_at = now;
    }

    fn end_drain(&mut self, now: Timestamp) {
        if self.drain.take().is_some() {
            self.overload = None;
            self.stepped_at = now;
        }
    }

    fn learn_loss(&mut self, loss: f32) {
        self.clean_loss += (share(loss) - self.clean_loss) / 16.0;
    }

    fn grow(&mut self, queue: Duration, feedback: &Feedback, now: Timestamp) {
        let (factor, step) = self.growth(feedback);
        if feedback.limited_by_application || queue > FLAT || now.since(self.stepped_at) < step {
            return;
        }
        self.rate = (self.rate * factor).min(MOST_RATE);
        self.stepped_at = now;
        if self.capacity.is_some_and(|capacity| self.rate > capacity * REFUTED) {
            self.capacity = None;
        }
    }

    /// By how much to grow and how long to wait before: the time in which the effect of the step
    /// before shows.
    fn growth(&self, feedback: &Feedback) -> (f64, Duration) {
        let round_trip = round_trip(feedback);
        match (self.capacity, self.met_limit) {
            (Some(_), _) => (GENTLE, round_trip + MEASURING),
            (None, true) => (RECOVERING, round_trip + MEASURING),
            (None, false) => (DOUBLING, round_trip),
        }
    }
}

/// A loss that can be calculated with; not a number: none.
fn share(loss: f32) -> f64 {
    if loss.is_nan() { 0.0 } else { f64::from(loss).clamp(0.0, 0.95) }
}

fn round_trip(feedback: &Feedback) -> Duration {
    feedback.rtt.clamp(Duration::from_millis(40), Duration::from_secs(1))
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use rand::rngs::SmallRng;
    use rand::{Rng, SeedableRng};

    use super::super::meter::{DelayMeter, LossMeter};
    use super::super::pacer::Pacer;
    use super::*;

    const TICK: Duration = Duration::from_micros(100);
    const ONE_WAY: Duration = Duration::from_millis(20);
    const REPORT_GAP: Duration = Duration::from_millis(10);
    const PACKET: usize = 1200;
    const BUFFER: usize = 64_000;

    /// A sender with our pacer, a bottleneck with a queue, random loss behind it, and a receiver
    /// with our meters that reports every 10 ms.
    struct Bottleneck {
        now: Timestamp,
        random: SmallRng,
        control: RateControl,
        pacer: Pacer,
        /// Bits per second that the application offers and the bottleneck carries.
        offered: f64,
        capacity: f64,
        loss: f64,
        backlog: f64,
        ran_dry: bool,
        next_seq: u64,
        credit: f64,
        /// Sequence number and departure of what stands in the bottleneck.
        queue: VecDeque<(u64, Timestamp)>,
        flying: VecDeque<(Timestamp, u64, Timestamp)>,
        reports: VecDeque<(Timestamp, Feedback)>,
        delay: DelayMeter,
        losses: LossMeter,
        expected: u64,
        delivered: u64,
        reported_at: Timestamp,
        seen: Seen,
    }

    /// What happened since it was last taken.
    #[derive(Default)]
    struct Seen {
        served: u64,
        /// Queueing delay of each packet served, in microseconds.
        waits: Vec<u64>,
    }

    impl Seen {
        fn wait_ms(&mut self, quantile: f64) -> f64 {
            self.waits.sort_unstable();
            let at = ((self.waits.len() - 1) as f64 * quantile) as usize;
            self.waits[at] as f64 / 1000.0
        }
    }

    impl Bottleneck {
        fn new(offered: f64, capacity: f64, loss: f64) -> Self {
            let now = Timestamp::from_micros(1_700_000_000_000_000);
            let control = RateControl::new(now);
            let pacer = Pacer::new(control.rate_bps(), now);
            Self {
                now,
                random: SmallRng::seed_from_u64(1),
                control,
                pacer,
                offered,
                capacity,
                loss,
                backlog: 0.0,
                ran_dry: true,
                next_seq: 0,
                credit: 0.0,
                queue: VecDeque::new(),
                flying: VecDeque::new(),
                reports: VecDeque::new(),
                delay: DelayMeter::new(),
                losses: LossMeter::new(),
                expected: 0,
                delivered: 0,
                reported_at: now,
                seen: Seen::default(),
            }
        }

        fn run(&mut self, span: Duration) -> Seen {
            let end = self.now + span;
            while self.now < end {
                self.now = self.now + TICK;
                self.offer();
                self.serve();
                self.receive();
                self.hear();
            }
            std::mem::take(&mut self.seen)
        }

        /// The application offers; what the pacer allows leaves. 100 ms wait at most.
        fn offer(&mut self) {
            let limit = self.control.rate_bps() as f64 / 80.0;
            self.backlog =
                (self.backlog + self.offered / 8.0 * TICK.as_secs_f64()).min(limit.max(3000.0));
            while self.backlog >= PACKET as f64 && self.pacer.ready_at(self.now) <= self.now {
                self.backlog -= PACKET as f64;
                self.pacer.spend(PACKET, self.now);
                if (self.queue.len() + 1) * PACKET <= BUFFER {
                    self.queue.push_back((self.next_seq, self.now));
                }
                self.next_seq += 1;
            }
            self.ran_dry |= self.backlog < PACKET as f64;
        }

        fn serve(&mut self) {
            let bits = PACKET as f64 * 8.0;
            self.credit = (self.credit + self.capacity * TICK.as_secs_f64())
                .min(bits.max(self.capacity * TICK.as_secs_f64() * 2.0));
            while self.credit >= bits
                && let Some((seq, sent_at)) = self.queue.pop_front()
            {
                self.credit -= bits;
                self.seen.served += PACKET as u64;
                self.seen.waits.push(self.now.since(sent_at).as_micros() as u64);
                if !self.random.random_bool(self.loss) {
                    self.flying.push_back((self.now + ONE_WAY, seq, sent_at));
                }
            }
        }

        fn receive(&mut self) {
            let now = self.now;
            while let Some((_, seq, sent_at)) = self.flying.pop_front_if(|(at, ..)| *at <= now) {
                (self.expected..seq).for_each(|_| self.losses.record(false, now));
                self.losses.record(true, now);
                self.expected = seq + 1;
                self.delay.record(now.micros_after(sent_at) + 123_456, now);
                self.delivered += PACKET as u64;
            }
            if now.since(self.reported_at) >= REPORT_GAP {
                self.reported_at = now;
                let feedback = Feedback {
                    delivered_bytes: std::mem::take(&mut self.delivered),
                    queueing: self.delay.queueing(),
                    rtt: ONE_WAY * 2,
                    loss: self.losses.loss(),
                    limited_by_application: false,
                };
                self.reports.push_back((now + ONE_WAY, feedback));
            }
        }

        fn hear(&mut self) {
            let now = self.now;
            while let Some((_, feedback)) = self.reports.pop_front_if(|(at, _)| *at <= now) {
                let limited_by_application = std::mem::take(&mut self.ran_dry);
                self.control.handle_report(Feedback { limited_by_application, ..feedback }, now);
                self.pacer.set_rate(self.control.rate_bps(), now);
            }
        }
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_full_bottleneck_is_used_without_a_queue() {
        for loss in [0.0, 0.05, 0.3] {
            let mut link = Bottleneck::new(50e6, 10e6, loss);
            link.run(3 * SECOND);
            let mut seen = link.run(20 * SECOND);
            let used = seen.served as f64 * 8.0 / 20.0 / 10e6;
            let (median, p95) = (seen.wait_ms(0.5), seen.wait_ms(0.95));
            println!("loss {loss}: used {used:.3}, queue median {median:.1} ms, p95 {p95:.1} ms");
            assert!(used >= 0.85, "used {used} at loss {loss}");
            assert!(p95 <= 30.0, "queue of {p95} ms at loss {loss}");
            let capacity = link.control.capacity_bps().unwrap_or_default() as f64;
            assert!((0.85..1.2).contains(&(capacity / 10e6)), "capacity {capacity} at loss {loss}");
        }
    }

    #[test]
    fn a_bottleneck_that_shrinks_and_grows_is_followed() {
        let mut link = Bottleneck::new(8e6, 10e6, 0.0);
        link.run(5 * SECOND);
        link.capacity = 2e6;
        link.run(SECOND / 2);
        let mut settling = link.run(SECOND);
        let mut seen = link.run(18 * SECOND);
        let used = seen.served as f64 * 8.0 / 18.0 / 2e6;
        println!(
            "settling p95 {:.1} ms; used {used:.3}, queue p95 {:.1} ms",
            settling.wait_ms(0.95),
            seen.wait_ms(0.95)
        );
        assert!(used >= 0.85, "used {used}");
        assert!(settling.wait_ms(0.5) <= 60.0 && seen.wait_ms(0.95) <= 40.0);
        link.capacity = 10e6;
        link.run(2 * SECOND);
        let mut seen = link.run(5 * SECOND);
        let used = seen.served as f64 * 8.0 / 5.0 / 8e6;
        assert!(used >= 0.9 && seen.wait_ms(0.95) <= 30.0, "used {used} of what was offered");
    }

    #[test]
    fn random_loss_alone_lowers_nothing() {
        for loss in [0.05, 0.3] {
            let mut link = Bottleneck::new(15e6, 1e9, loss);
            link.run(10 * SECOND);
            assert!(link.control.rate_bps() >= 20_000_000, "{}", link.control.rate_bps());
            assert_eq!(link.control.capacity_bps(), None);
        }
    }

    #[test]
    fn the_rate_doubles_while_it_is_used_and_then_stays() {
        let mut link = Bottleneck::new(500e6, 1e9, 0.0);
        link.run(SECOND / 2);
        assert!(link.control.rate_bps() >= 500_000_000, "{}", link.control.rate_bps());
        let reached = link.control.rate_bps();
        link.offered = 1e6;
        link.run(30 * SECOND);
        assert_eq!(link.control.rate_bps(), reached);
    }

    #[test]
    fn a_longer_route_costs_a_moment_only() {
        let mut control = RateControl::new(Timestamp::ZERO);
        let mut now = Timestamp::ZERO;
        let mut lowest = u64::MAX;
        for _ in 0..200 {
            now = now + REPORT_GAP;
            // 8 Mbit/s arrive, 60 ms later than they used to.
            let feedback = Feedback {
                delivered_bytes: 10_000,
                queueing: Duration::from_millis(60),
                rtt: 3 * ONE_WAY,
                loss: 0.0,
                limited_by_application: false,
            };
            control.handle_report(feedback, now);
            lowest = lowest.min(control.rate_bps());
        }
        assert!(lowest < 8_000_000);
        assert!(control.rate_bps() > 8_000_000, "{}", control.rate_bps());
    }

    #[test]
    fn odd_reports_keep_the_rate_in_its_bounds() {
        let mut control = RateControl::new(Timestamp::ZERO);
        for step in 0..1000u64 {
            let feedback = Feedback {
                delivered_bytes: if step % 3 == 0 { u64::MAX } else { 0 },
                queueing: if step % 40 < 20 { Duration::MAX } else { Duration::ZERO },
                rtt: if step % 2 == 0 { Duration::MAX } else { Duration::ZERO },
                loss: [f32::NAN, 1.0, -1.0, 0.5][step as usize % 4],
                limited_by_application: step % 7 == 0,
            };
            control.handle_report(feedback, Timestamp::from_micros(step * step * 1000));
            assert!(
                (128_000..=10_000_000_000).contains(&control.rate_bps()),
                "{}",
                control.rate_bps()
            );
        }
    }
}
