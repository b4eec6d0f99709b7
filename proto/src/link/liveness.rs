//! Whether what a link sends arrives: told by silence, in milliseconds instead of QUIC's 30 s.
//!
//! [`Watch`] judges the outgoing direction of one link from two facts: the neighbour was heard, and
//! its reports cover something that was sent. It sends nothing and counts no datagrams; what
//! follows from its verdict (detour, salvage, flooding) is others' business.
//!
//! # When silence is no accident
//!
//! *Suspect* may err, so it is quick: three gaps
//! and a half. *Down* is flooded, so false alarms must be rarer
//! than one a day. Let `g` be the gap between heartbeats, `p` the loss and `B` the mean burst length
//! in datagrams, of the worse direction. In the two-state (Gilbert) model the loss of a datagram is
//! followed by another with probability `q = 1 - 1/B`; where `m` datagrams are sent per gap, a gap
//! that was lost whole is followed by another with `q^m`, but never less than `p`, since reports
//! come once a gap and may be lost one by one. Once a gap whatever else is sent or came: a neighbour
//! that reported only what is new would say nothing after a gap whose heartbeat was lost. And `m`
//! counts what `B` does, numbers; reports have none, however many there are. `n` silent gaps are `i`
//! gaps in which nothing arrived and `n - i` in which no report came back: at most `n + 1` ways, each
//! with probability
//! `p q^(n-1)`. So false alarms per day are at most
//!
//! ```text
//! (86,400 s / g) (n + 1) p q^(n-1)
//! ```
//!
//! and `n` is the least number for which that is below 1. The loss counts as 1 % at least. With
//! `g` = 10 ms:
//!
//! | loss | burst | n | silence |
//! |---|---|---|---|
//! | ≤ 1 % | 1 | 6 | 60 ms |
//! | 10 % | 1.11 | 8 | 80 ms |
//! | 30 % | 1.43 | 16 | 160 ms |
//! | 50 % | 2 | 28 | 280 ms |
//! | 2 % | 2.5 heartbeats (25 ms) | 32 | 320 ms |
//!
//! It is at least 6 gaps and at most 100, and at most 20 s: a hot link (10 ms) is found dead within
//! a second, a cold one (1 s) within 6 to 20. Where
//! a cap binds (hot: from about 80 % loss), false alarms are more frequent than one a day.
//!
//! Measured on whole links that learn their loss and bursts as they go, hot and otherwise silent, RTT
//! 40 ms, both ends' verdicts added up (`scripts/bench-failover alarms --links 24`, 2026-11-22; one
//! link-day a row): no *down* at 30 % loss by chance, nor at 2 % and at 10 % in bursts of 25 ms;
//! *suspect* 280, 55 and 256 times a minute. What that costs is told by `scripts/bench-failover mesh`:
//! the share of packets that take a detour for nothing.
//!
//! `p` and `B` are measured over seconds. Where bursts of more than about 40 ms come less than once in
//! that time, they are forgotten from one to the next and each may be taken for a death.

use std::collections::VecDeque;
use std::time::Duration;

use super::Liveness;
use crate::units::Timestamp;

/// Half a gap more than three, so that two lost heartbeats and a late third are no suspicion:
/// timers of either end may be a millisecond late each time.
const SUSPECT_HALF_GAPS: u32 = 7;
/// Where nothing is lost, scheduling is what delays heartbeats: a busy neighbour is not a dead one.
const LEAST_DOWN_GAPS: u32 = 6;
const MOST_DOWN_GAPS: u32 = 100;
const MOST_SILENCE: Duration = Duration::from_secs(20);
const DAY: Duration = Duration::from_secs(86_400);
/// A link that looks perfect was not watched for long enough.
const LEAST_LOSS: f64 = 0.01;
/// So that a link that loses nearly everything has a sum.
const MOST_LOSS: f64 = 0.95;

/// Coverage must have been steady for this long before a link that was down is up ...
const LEAST_HOLD: Duration = Duration::from_millis(100);
/// ... twice as long the next time, up to this, ...
const MOST_HOLD: Duration = Duration::from_secs(60);
/// ... and half as long again for each such span that it stayed up.
const QUIET: Duration = Duration::from_secs(120);

/// Sends are remembered at this many per gap.
const MARKS_PER_GAP: u32 = 4;
/// Enough for round trips of 32 gaps; beyond, the newest sends go unremembered and silence shows a
/// little later.
const MOST_MARKS: usize = 128;
/// Gain of the mean spacing of sends.
const SPACING_GAIN: f64 = 1.0 / 64.0;

/// Watches the outgoing direction of one link.
///
/// Call [`Self::poll_change`] after each `handle_*`, and [`Self::handle_timeout`] at
/// [`Self::poll_timeout`].
#[derive(Clone, Debug)]
pub struct Watch {
    state: Liveness,
    reported: Liveness,
    gap: Duration,
    /// What a round trip may take before coverage is overdue.
    allowance: Duration,
    /// Silence that means down.
    down_after: Duration,
    heard_at: Timestamp,
    /// Times of sends that nothing covers yet, oldest first, a quarter of a gap apart at least.
    marks: VecDeque<Timestamp>,
    covered_until: Timestamp,
    sent_at: Timestamp,
    /// Mean time between two sends.
    sends: Spacing,
    /// When a number came last.
    numbered_at: Timestamp,
    /// Mean time between two numbers that came.
    arrivals: Spacing,
    /// Silence before this is not held against the link: it had a longer gap then, or nobody was
    /// listening.
    excused_until: Timestamp,
    /// The gap shrank: excuse the silence up to the next time that is passed in.
    excuse_next: bool,
    /// How long coverage must be steady when the link goes down next, or is down.
    hold: Duration,
    /// While down: since when coverage is steady.
    steady_since: Option<Timestamp>,
    /// When it came up last.
    up_since: Timestamp,
    suspects: u64,
    downs: u64,
}

impl Watch {
    /// Watches a cold link: a heartbeat a second, no loss known.
    pub fn new(now: Timestamp) -> Self {
        let gap = Duration::from_secs(1);
        Self {
            state: Liveness::Starting,
            reported: Liveness::Starting,
            gap,
            allowance: Duration::ZERO,
            down_after: down_after(gap, 0.0, 0.0),
            heard_at: now,
            marks: VecDeque::new(),
            covered_until: Timestamp::ZERO,
            sent_at: now,
            sends: Spacing(gap.as_micros() as f64),
            numbered_at: now,
            arrivals: Spacing(gap.as_micros() as f64),
            excused_until: now,
            excuse_next: false,
            hold: LEAST_HOLD,
            steady_since: None,
            up_since: now,
            suspects: 0,
            downs: 0,
        }
    }

    /// A valid datagram came from the neighbour.
    pub fn handle_heard(&mut self, now: Timestamp) {
        self.excuse(now);
        self.heard_at = self.heard_at.max(now);
        self.update(now);
    }

    /// A number of the neighbour's came: one of those that its losses and bursts are counted in.
    /// Reports have none.
    pub fn handle_numbered(&mut self, now: Timestamp) {
        self.arrivals.record(now.since(self.numbered_at), self.gap);
        self.numbered_at = now;
    }

    /// The neighbour reports that what was sent at `sent_at` arrived.
    pub fn handle_covered(&mut self, sent_at: Timestamp, now: Timestamp) {
        self.excuse(now);
        if sent_at > self.covered_until {
            self.covered_until = sent_at;
            while self.marks.front().is_some_and(|&mark| mark <= sent_at) {
                self.marks.pop_front();
            }
            if self.state == Liveness::Starting {
                // The first round trip, before anybody could tell us of one.
                let round_trip = now.since(sent_at);
                self.allowance = self.allowance.max(round_trip + round_trip / 8);
            }
            self.relieve(now);
        }
        self.update(now);
    }

    /// A datagram is sent that the neighbour's reports are to cover.
    pub fn handle_sent(&mut self, now: Timestamp) {
        self.excuse(now);
        self.sends.record(now.since(self.sent_at), self.gap);
        self.sent_at = now;
        let next_mark =
            self.marks.back().map_or(Timestamp::ZERO, |&mark| mark + self.gap / MARKS_PER_GAP);
        if now >= next_mark && self.marks.len() < MOST_MARKS {
            self.marks.push_back(now);
        }
    }

    /// Says how often a silent link is probed now, what the outgoing and the incoming direction lose,
    /// and the smoothed round-trip time.
    ///
    /// Where the gap shrinks, silence counts from now on: before, it was allowed.
    pub fn tune(&mut self, gap: Duration, [tx, rx]: [Losses; 2], rtt: Duration) {
        let gap = gap.max(Duration::from_millis(1));
        // RFC 9002 section 6.1.2 waits 9/8 of a round trip, too.
        self.allowance = rtt + rtt / 8;
        if gap < self.gap {
            self.excuse_next = true;
            self.sends.shrink(gap);
            self.arrivals.shrink(gap);
        }
        self.gap = gap;
        let lasts = tx.lasts(self.sends.per(gap)).max(rx.lasts(self.arrivals.per(gap)));
        self.down_after = down_after(gap, tx.loss().max(rx.loss()), lasts);
    }

    /// Time has come for something. Cheap when it hasn't.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        self.excuse(now);
        self.update(now);
    }

    /// The state now.
    pub fn state(&self) -> Liveness {
        self.state
    }

    /// The new state, if it is another than told last. States that came and went in between are
    /// only counted.
    pub fn poll_change(&mut self) -> Option<Liveness> {
        (self.state != self.reported).then(|| {
            self.reported = self.state;
            self.state
        })
    }

    /// When to call [`Self::handle_timeout`], should nothing happen before.
    pub fn poll_timeout(&self) -> Timestamp {
        // Deadlines are the last moments at which all is well.
        let just_after = |deadline: Timestamp| deadline + Duration::from_micros(1);
        match self.state {
            Liveness::Starting => Timestamp::NEVER,
            Liveness::Up => just_after(self.suspect_at()),
            Liveness::Suspect => just_after(self.down_at()),
            Liveness::Down => self.steady_since.map_or(Timestamp::NEVER, |since| {
                (since + self.hold).min(just_after(self.suspect_at()))
            }),
        }
    }

    /// How long a silence means down at present.
    pub fn down_after(&self) -> Duration {
        self.down_after
    }

    /// How often the link became suspect.
    pub fn suspects(&self) -> u64 {
        self.suspects
    }

    /// How often it went down.
    pub fn downs(&self) -> u64 {
        self.downs
    }

    /// Excuses silence that is no fault of the link's. Where the gap shrank, the neighbour may learn
    /// of it a round trip later. And woken much later than asked, this relay was not listening: what
    /// came meanwhile is still to be read. Only once until something was heard: a relay that is always
    /// late must find the dead, too.
    fn excuse(&mut self, now: Timestamp) {
        if std::mem::take(&mut self.excuse_next) {
            self.excused_until = now + self.allowance;
        } else if now.since(self.poll_timeout()) > self.gap && self.heard_at > self.excused_until {
            self.excused_until = self.excused_until.max(now);
        }
    }

    /// Something new is covered.
    fn relieve(&mut self, now: Timestamp) {
        match self.state {
            Liveness::Starting => self.come_up(now),
            Liveness::Up => {}
            Liveness::Suspect if now <= self.suspect_at() => self.state = Liveness::Up,
            Liveness::Suspect => {}
            Liveness::Down => {
                self.steady_since.get_or_insert(now);
            }
        }
    }

    fn update(&mut self, now: Timestamp) {
        let silent = now > self.suspect_at();
        match self.state {
            Liveness::Starting => {}
            Liveness::Up if silent => {
                self.state = Liveness::Suspect;
                self.suspects += 1;
                self.go_down_if_due(now);
            }
            Liveness::Up => self.relent(now),
            Liveness::Suspect => self.go_down_if_due(now),
            Liveness::Down if silent => self.steady_since = None,
            Liveness::Down => {
                if self.steady_since.is_some_and(|since| now >= since + self.hold) {
                    self.hold = (self.hold * 2).min(MOST_HOLD);
                    self.come_up(now);
                }
            }
        }
    }

    fn come_up(&mut self, now: Timestamp) {
        self.state = Liveness::Up;
        self.up_since = now;
    }

    fn go_down_if_due(&mut self, now: Timestamp) {
        if now > self.down_at() {
            self.state = Liveness::Down;
            self.steady_since = None;
            self.downs += 1;
        }
    }

    /// Forgives flaps: the hold halves with each quiet span.
    fn relent(&mut self, now: Timestamp) {
        while self.hold > LEAST_HOLD && now.since(self.up_since) >= QUIET {
            self.hold = (self.hold / 2).max(LEAST_HOLD);
            self.up_since = self.up_since + QUIET;
        }
    }

    /// The last moment at which silence is still normal.
    fn suspect_at(&self) -> Timestamp {
        let patience = self.gap * SUSPECT_HALF_GAPS / 2;
        let heard = self.heard_at.max(self.excused_until) + patience;
        self.coverage_due().map_or(heard, |due| heard.min(due + patience))
    }

    /// The last moment at which silence may still be an accident. Where nothing was sent, nothing
    /// can be covered: then the neighbour's silence alone never means down.
    fn down_at(&self) -> Timestamp {
        self.coverage_due().map_or(Timestamp::NEVER, |due| due + self.down_after)
    }

    /// When the oldest send that nothing covers should have been covered.
    fn coverage_due(&self) -> Option<Timestamp> {
        self.marks.front().map(|&mark| (mark + self.allowance).max(self.excused_until))
    }
}

/// What one direction loses.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Losses {
    /// The share of datagrams, 0 to 1.
    pub loss: f32,
    /// The mean length of a burst of losses, in datagrams.
    pub burst: f32,
}

impl Losses {
    /// `p` of the module's arithmetic.
    fn loss(self) -> f64 {
        let loss = if self.loss.is_nan() { MOST_LOSS } else { f64::from(self.loss) };
        loss.clamp(LEAST_LOSS, MOST_LOSS)
    }

    /// `q^m` of the module's arithmetic, for so many numbers per gap.
    fn lasts(self, per_gap: f64) -> f64 {
        (1.0 - 1.0 / f64::from(self.burst).max(1.0)).powf(per_gap).clamp(self.loss(), 1.0)
    }
}

/// The mean time between two numbers in microseconds, each counted as a gap at most.
#[derive(Clone, Copy, Debug)]
struct Spacing(f64);

impl Spacing {
    fn record(&mut self, spacing: Duration, gap: Duration) {
        let spacing = spacing.min(gap).as_micros() as f64;
        self.0 += (spacing - self.0) * SPACING_GAIN;
    }

    fn shrink(&mut self, gap: Duration) {
        self.0 = self.0.min(gap.as_micros() as f64);
    }

    /// Datagrams per gap.
    fn per(self, gap: Duration) -> f64 {
        (gap.as_micros() as f64 / self.0.max(1.0)).max(1.0)
    }
}

/// How long silence must last before it is no accident. See the module's arithmetic.
fn down_after(gap: Duration, loss: f64, lasts: f64) -> Duration {
    let gaps_per_day = DAY.as_secs_f64() / gap.as_secs_f64();
    let mut chance = gaps_per_day * loss;
    let mut gaps = 1;
    while gaps < LEAST_DOWN_GAPS || (chance * f64::from(gaps + 1) >= 1.0 && gaps < MOST_DOWN_GAPS) {
        gaps += 1;
        chance *= lasts;
    }
    (gap * gaps).min(MOST_SILENCE.max(gap * LEAST_DOWN_GAPS))
}

#[cfg(test)]
mod tests {
    use rand::rngs::SmallRng;
    use rand::{Rng, SeedableRng};

    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const START: Timestamp = Timestamp::from_micros(1_700_000_000_000_000);
    const RTT: Duration = Duration::from_millis(40);

    /// Two neighbours that send a heartbeat each gap, which covers what the other sent.
    struct Pair {
        watch: Watch,
        gap: Duration,
        now: Timestamp,
        /// When the neighbour received our heartbeats, and when we sent them.
        there: VecDeque<(Timestamp, Timestamp)>,
        /// When the neighbour's heartbeats come, and the newest of ours that each covers.
        back: VecDeque<(Timestamp, Option<Timestamp>)>,
        newest_there: Option<Timestamp>,
    }

    impl Pair {
        fn new(gap: Duration, loss: f32, burst: f32) -> Self {
            let mut watch = Watch::new(START);
            watch.tune(gap, [Losses { loss, burst }; 2], RTT);
            let (there, back) = (VecDeque::new(), VecDeque::new());
            Self { watch, gap, now: START, there, back, newest_there: None }
        }

        /// One gap: both send, each heartbeat lost or not.
        fn step(&mut self, lost: bool, lost_back: bool) {
            let now = self.now;
            self.watch.handle_sent(now);
            if !lost {
                self.there.push_back((now + RTT / 2, now));
            }
            while let Some((_, sent_at)) = self.there.pop_front_if(|(at, _)| *at <= now) {
                self.newest_there = Some(sent_at);
            }
            if !lost_back {
                self.back.push_back((now + RTT / 2, self.newest_there));
            }
            let next = now + self.gap;
            while let Some((at, covered)) = self.back.pop_front_if(|(at, _)| *at < next) {
                self.wake_until(at);
                self.watch.handle_heard(at);
                if let Some(sent_at) = covered {
                    self.watch.handle_covered(sent_at, at);
                }
            }
            self.wake_until(next);
            self.now = next;
        }

        fn wake_until(&mut self, until: Timestamp) {
            while self.watch.poll_timeout() <= until {
                let wake = self.watch.poll_timeout();
                self.watch.handle_timeout(wake);
                assert!(self.watch.poll_timeout() > wake, "woken in vain");
            }
        }

        fn steps(&mut self, count: u32, lost: bool, lost_back: bool) {
            (0..count).for_each(|_| self.step(lost, lost_back));
        }

        /// How long until the state is reached, at most `count` gaps.
        fn until(
            &mut self,
            state: Liveness,
            count: u32,
            lost: bool,
            lost_back: bool,
        ) -> Option<Duration> {
            let began = self.now;
            (0..count).find_map(|_| {
                self.step(lost, lost_back);
                (self.watch.state() == state).then(|| self.now.since(began))
            })
        }
    }

    #[test]
    fn the_arithmetic() {
        let hot = 10 * MS;
        for (gap, loss, burst, spacing, expected) in [
            (hot, 0.0, 1.0, hot, 60 * MS),
            (hot, 0.01, 1.0, hot, 60 * MS),
            (hot, 0.1, 1.11, hot, 80 * MS),
            (hot, 0.3, 1.43, hot, 160 * MS),
            (hot, 0.5, 2.0, hot, 280 * MS),
            (hot, 0.02, 2.5, hot, 320 * MS),
            (hot, 0.9, 10.0, hot, 1000 * MS),
            // The same 25 ms bursts, seen by 2,000 packets/s.
            (hot, 0.02, 50.0, MS / 2, 410 * MS),
            (100 * MS, 0.0, 1.0, 100 * MS, 600 * MS),
            (1000 * MS, 0.0, 1.0, 1000 * MS, 6000 * MS),
            (1000 * MS, 0.3, 1.43, 1000 * MS, 12_000 * MS),
            (1000 * MS, 0.9, 10.0, 1000 * MS, 20_000 * MS),
        ] {
            let losses = Losses { loss, burst };
            let lasts = losses.lasts(Spacing(spacing.as_micros() as f64).per(gap));
            let after = down_after(gap, losses.loss(), lasts);
            assert_eq!(after, expected, "{gap:?} {loss} {burst} {spacing:?}");
        }
    }

    #[test]
    fn how_often_we_send_says_nothing_of_the_bursts_that_reports_come_in() {
        let patience = |tx, rx| {
            let mut watch = Watch::new(START);
            watch.tune(10 * MS, [tx, rx], RTT);
            // Twenty datagrams for each that comes back.
            for at in 0..2_000 {
                let now = START + MS / 2 * at;
                watch.handle_sent(now);
                if at % 20 == 0 {
                    watch.handle_numbered(now);
                }
                // Reports go in between, but nobody counts how many of them are lost.
                if at % 5 == 0 {
                    watch.handle_heard(now);
                }
            }
            watch.tune(10 * MS, [tx, rx], RTT);
            watch.down_after()
        };
        let bursts = Losses { loss: 0.05, burst: 5.0 };
        let clean = Losses { loss: 0.0, burst: 1.0 };
        // Five datagrams of ours are a quarter of a gap, five reports are five.
        assert!(patience(bursts, clean) < 100 * MS, "{:?}", patience(bursts, clean));
        assert!(patience(clean, bursts) > 700 * MS, "{:?}", patience(clean, bursts));
    }

    #[test]
    fn a_dead_neighbour_is_suspected_in_three_gaps_and_down_soon_after() {
        let mut pair = Pair::new(10 * MS, 0.0, 1.0);
        assert_eq!(pair.watch.state(), Liveness::Starting);
        pair.steps(100, false, false);
        assert_eq!(
            (pair.watch.poll_change(), pair.watch.poll_change()),
            (Some(Liveness::Up), None)
        );
        // What is on the way still comes, for half a round trip.
        let suspect = pair.until(Liveness::Suspect, 100, true, true);
        assert!(suspect.is_some_and(|after| after <= 60 * MS), "{suspect:?}");
        let down = pair.until(Liveness::Down, 100, true, true);
        assert!(down.is_some_and(|after| after <= 50 * MS), "{down:?}");
        assert_eq!((pair.watch.suspects(), pair.watch.downs()), (1, 1));
    }

    #[test]
    fn a_neighbour_that_does_not_hear_us_is_found_by_its_reports() {
        let mut pair = Pair::new(10 * MS, 0.0, 1.0);
        pair.steps(100, false, false);
        let suspect = pair.until(Liveness::Suspect, 100, true, false);
        assert!(suspect.is_some_and(|after| after <= 90 * MS), "{suspect:?}");
        assert!(pair.until(Liveness::Down, 100, true, false).is_some());
    }

    #[test]
    fn a_short_silence_is_suspicious_until_the_next_coverage() {
        let mut pair = Pair::new(10 * MS, 0.3, 1.43);
        pair.steps(100, false, false);
        pair.steps(8, true, true);
        assert_eq!(pair.watch.state(), Liveness::Suspect);
        assert!(pair.until(Liveness::Up, 20, false, false).is_some());
        assert_eq!((pair.watch.suspects(), pair.watch.downs()), (1, 0));
    }

    #[test]
    fn a_silent_start_stays_a_start() {
        let mut pair = Pair::new(10 * MS, 0.0, 1.0);
        pair.steps(1000, true, true);
        assert_eq!((pair.watch.state(), pair.watch.poll_change()), (Liveness::Starting, None));
    }

    #[test]
    fn a_link_that_flaps_is_held_down_longer_and_forgiven_later() {
        let mut pair = Pair::new(10 * MS, 0.0, 1.0);
        pair.steps(100, false, false);
        let mut flap = |quiet: u32| {
            assert!(pair.until(Liveness::Down, 200, true, true).is_some());
            let up = pair.until(Liveness::Up, 10_000, false, false);
            pair.steps(quiet, false, false);
            up.unwrap_or_default().as_millis()
        };
        let holds = [100, 100, 100, 100, 100 * 6 * 60 * 2].map(&mut flap);
        for (hold, expected) in holds.into_iter().zip([100, 200, 400, 800, 1600]) {
            // A round trip passes before the first coverage.
            assert!((expected..expected + 70).contains(&hold), "{holds:?}");
        }
        let forgiven = flap(100);
        assert!(forgiven < 200, "{forgiven}");
    }

    #[test]
    fn a_stutter_while_down_starts_the_hold_anew() {
        let mut pair = Pair::new(10 * MS, 0.0, 1.0);
        pair.steps(100, false, false);
        assert!(pair.until(Liveness::Down, 100, true, true).is_some());
        for _ in 0..10 {
            pair.steps(8, false, false);
            pair.steps(8, true, true);
            assert_eq!(pair.watch.state(), Liveness::Down);
        }
    }

    #[test]
    fn a_shorter_gap_is_no_silence_and_nor_is_a_stall_of_ours() {
        let mut pair = Pair::new(1000 * MS, 0.0, 1.0);
        pair.steps(5, false, false);
        pair.gap = 10 * MS;
        pair.watch.tune(pair.gap, [Losses { loss: 0.0, burst: 1.0 }; 2], RTT);
        pair.steps(300, false, false);
        assert_eq!((pair.watch.state(), pair.watch.suspects()), (Liveness::Up, 0));
        // Nobody ran for half a second; then what came meanwhile is read.
        let late = pair.now + 500 * MS;
        pair.watch.handle_timeout(late);
        pair.watch.handle_heard(late);
        pair.watch.handle_covered(pair.now.minus(pair.gap), late);
        assert_eq!((pair.watch.state(), pair.watch.suspects()), (Liveness::Up, 0));
    }

    #[test]
    fn a_relay_that_always_wakes_late_finds_the_dead() {
        let mut pair = Pair::new(10 * MS, 0.0, 1.0);
        pair.steps(100, false, false);
        let died = pair.now;
        while pair.watch.state() != Liveness::Down {
            pair.now = pair.watch.poll_timeout() + 25 * MS;
            pair.watch.handle_sent(pair.now);
            pair.watch.handle_timeout(pair.now);
            assert!(pair.now.since(died) < 500 * MS);
        }
    }

    /// How often a living link goes down in `hours` of heartbeats each 10 ms, both ways lossy.
    fn false_alarms(hours: u32, loss: f64, burst: f64, seed: u64) -> u64 {
        let mut random = SmallRng::seed_from_u64(seed);
        let mut pair = Pair::new(10 * MS, loss as f32, burst as f32);
        let (leave, enter) = (1.0 / burst, loss / (burst * (1.0 - loss)));
        let mut bad = [false; 2];
        for _ in 0..hours * 3600 * 100 {
            for bad in &mut bad {
                *bad = random.random_bool(if *bad { 1.0 - leave } else { enter });
            }
            pair.step(bad[0], bad[1]);
        }
        assert!(pair.watch.suspects() > 0);
        pair.watch.downs()
    }

    #[test]
    fn false_alarms_are_rarer_than_one_a_day() {
        // Ten days of independent loss and of 25 ms bursts; `scripts/bench-failover alarms` runs whole
        // links.
        for (loss, burst) in [(0.3, 1.0 / 0.7), (0.02, 2.5)] {
            let alarms: u64 = (0..10).map(|seed| false_alarms(24, loss, burst, 100 + seed)).sum();
            println!("{alarms} downs in ten days at {loss}, bursts of {burst} heartbeats");
            assert!(alarms < 10, "{alarms} at {loss}, bursts of {burst}");
        }
    }
}
