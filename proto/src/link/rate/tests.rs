use std::collections::VecDeque;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::link::meter::{DelayMeter, LossMeter};
use crate::link::pacer::Pacer;

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
    one_way: Duration,
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
    outcomes: (u32, u32),
    /// Sequence number, departure, arrival and raw delay of the newest that came.
    newest: (u64, Timestamp, Timestamp, i64),
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
            one_way: ONE_WAY,
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
            outcomes: (0, 0),
            newest: (0, now, now, 0),
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
                self.flying.push_back((self.now + self.one_way, seq, sent_at));
            }
        }
    }

    fn receive(&mut self) {
        let now = self.now;
        while let Some((_, seq, sent_at)) = self.flying.pop_front_if(|(at, ..)| *at <= now) {
            (self.expected..seq).for_each(|_| self.losses.record(false, now));
            self.outcomes.1 += (seq - self.expected) as u32;
            self.losses.record(true, now);
            self.expected = seq + 1;
            let raw = now.micros_after(sent_at) + 123_456;
            self.delay.record(raw, now);
            self.delivered += PACKET as u64;
            self.outcomes.0 += 1;
            self.newest = (seq, sent_at, now, raw);
        }
        if now.since(self.reported_at) >= REPORT_GAP {
            self.reported_at = now;
            let (seq, sent_at, arrived_at, raw) = self.newest;
            let queued = raw.saturating_sub(self.delay.min().unwrap_or(raw));
            let feedback = Feedback {
                delivered_bytes: std::mem::take(&mut self.delivered),
                outcomes: std::mem::take(&mut self.outcomes),
                sent_at,
                arrived_at,
                queued: Duration::from_micros(queued as u64),
                // Completed when the report is heard.
                in_flight_bytes: seq,
                queueing: self.delay.queueing(),
                rtt: ONE_WAY + self.one_way,
                limited_by_application: false,
            };
            self.reports.push_back((now + ONE_WAY, feedback));
        }
    }

    fn hear(&mut self) {
        let now = self.now;
        while let Some((_, feedback)) = self.reports.pop_front_if(|(at, _)| *at <= now) {
            let limited_by_application = std::mem::take(&mut self.ran_dry);
            let newer = self.next_seq - 1 - feedback.in_flight_bytes;
            let in_flight_bytes = newer * PACKET as u64;
            let feedback = Feedback { limited_by_application, in_flight_bytes, ..feedback };
            self.control.handle_report(feedback, now);
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
        assert!(p95 <= 20.0, "queue of {p95} ms at loss {loss}");
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

/// A route that gets longer and loses more at the same time looks like a full link, but sending
/// less changes nothing.
#[test]
fn delay_and_loss_that_rise_together_cost_moments_only() {
    for (most_ms, most_loss, least) in [(30, 0.1, 0.95), (30, 0.3, 0.88), (60, 0.2, 0.88)] {
        let mut link = Bottleneck::new(3e6, 1e9, 0.0);
        link.run(3 * SECOND);
        let mut served = 0;
        for step in (1..=10).chain((0..10).rev()) {
            link.one_way = ONE_WAY + Duration::from_millis(most_ms) * step / 10;
            link.loss = most_loss * f64::from(step) / 10.0;
            served += link.run(SECOND / 4).served;
        }
        let used = served as f64 * 8.0 / 5.0 / 3e6;
        println!("{most_ms} ms, {most_loss}: {used:.3} of what was offered");
        assert!(used >= least, "{most_ms} ms, {most_loss}: {used} of what was offered");
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
            outcomes: (8, 0),
            sent_at: now.minus(5 * ONE_WAY),
            arrived_at: now,
            queued: Duration::from_millis(60),
            in_flight_bytes: 100_000,
            queueing: Duration::from_millis(60),
            rtt: 5 * ONE_WAY,
            limited_by_application: true,
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
            outcomes: (u32::MAX, step as u32 % 2 * u32::MAX),
            sent_at: Timestamp::from_micros(step % 5 * 1_000_000),
            arrived_at: Timestamp::from_micros(step % 11 * 7_000),
            queued: if step % 50 < 20 { Duration::MAX } else { Duration::ZERO },
            in_flight_bytes: if step % 13 < 7 { u64::MAX } else { 0 },
            queueing: if step % 40 < 20 { Duration::MAX } else { Duration::ZERO },
            rtt: if step % 2 == 0 { Duration::MAX } else { Duration::ZERO },
            limited_by_application: step % 7 == 0,
        };
        control.handle_report(feedback, Timestamp::from_micros(step * step * 1000));
        assert!((128_000..=10_000_000_000).contains(&control.rate_bps()), "{}", control.rate_bps());
    }
}
