//! What arrived, by number, and when to tell the neighbour.
//!
//! A report is due at once when a number is confirmed missing, and by timer while data arrives and
//! for a while after, so that the sender learns of lost tails and of lost reports. Reports of one
//! link are at least [`LEAST_GAP`] apart, whatever arrives.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};

use super::meter::LossMeter;
use crate::frame::{MAX_REPORT_MAP, Report};
use crate::units::{LinkSeq, Timestamp};

/// Between two reports.
const LEAST_GAP: Duration = Duration::from_millis(2);
/// The timer while data arrives is a quarter of the round trip, within these. Not less than the
/// gap of hot links: then a report goes along with each heartbeat and none by itself.
const TIMER: [Duration; 2] = [BEAT_ANSWER, Duration::from_millis(25)];
/// A report of a new gap is repeated so far apart, for each millisecond delays the repair, ...
const REPEAT_GAP: Duration = Duration::from_millis(4);
/// ... until the chance that all were lost is below this, ...
const ALL_LOST: f32 = 1e-3;
/// ... which is so often.
const REPEATS: [u32; 2] = [1, 10];
/// A heartbeat is reported after this long at the latest: the gap of hot links.
pub const BEAT_ANSWER: Duration = Duration::from_millis(10);
/// So long after the last data reports go on.
const TAIL: Duration = Duration::from_millis(300);
/// After so many reports about nothing new, the timer doubles with each.
const STEADY: u32 = 6;
/// So long after the usual time of the next data it counts as missing. Senders wait a little, too.
pub const OVERDUE: Duration = Duration::from_millis(3);
/// Longer gaps between data are no rhythm.
const LONGEST_GAP: Duration = Duration::from_millis(100);
/// Reports go back over what arrived in two round trips, at least in this time.
const LEAST_COVER: Duration = Duration::from_millis(250);
/// How finely that is remembered.
const MARK: Duration = Duration::from_millis(20);
/// The most marks: what [`MARK`] makes of two seconds.
const MARKS: usize = 100;
/// A number is confirmed missing when so many later ones came.
pub const REORDERING: u32 = 3;
/// A number is counted as lost, for display, when so many later ones came.
const SETTLED: u32 = 64;
/// Numbers remembered. More than twice a report's map, so that a jump clears in time.
const WINDOW: u32 = 8192;

/// The receiver's record of numbers.
#[derive(Debug)]
pub(super) struct Receipts {
    /// Bit of number `n` at `n % WINDOW`.
    bits: Box<[u64]>,
    /// The highest number and when it came.
    largest: Option<(LinkSeq, Timestamp)>,
    /// Numbers from the first that came to the highest, at most [`WINDOW`].
    known: u32,
    /// The highest number at some past times, oldest first.
    marks: VecDeque<(Timestamp, LinkSeq)>,
    /// The next number that [`Self::settle`] has to look at.
    settled: LinkSeq,
    reports: u16,
    reported_at: Option<Timestamp>,
    /// When data (anything but heartbeats) came last.
    data_at: Option<Timestamp>,
    /// Mean time between two arrivals of data.
    gap: Duration,
    /// Reports since then.
    repeated: u32,
    /// How often the report of a gap is to be repeated.
    repeats: u32,
    /// How often that of the last one is still to be sent.
    to_repeat: u32,
    /// By timer, or at once.
    due: Timestamp,
    /// When the next data will be overdue; never, once a report has told so.
    overdue_at: Timestamp,
    timer: Duration,
    cover: Duration,
}

impl Receipts {
    pub(super) fn new() -> Self {
        Self {
            bits: vec![0; WINDOW as usize / 64].into(),
            largest: None,
            known: 1,
            marks: VecDeque::new(),
            settled: LinkSeq(0),
            reports: 0,
            reported_at: None,
            data_at: None,
            gap: Duration::ZERO,
            repeated: 0,
            repeats: REPEATS[0],
            to_repeat: 0,
            due: Timestamp::NEVER,
            overdue_at: Timestamp::NEVER,
            timer: TIMER[0],
            cover: LEAST_COVER,
        }
    }

    /// The round trip determines how often and how far back to report.
    pub(super) fn set_rtt(&mut self, rtt: Duration) {
        self.timer = (rtt / 4).clamp(TIMER[0], TIMER[1]);
        self.cover = (rtt * 2).max(LEAST_COVER);
    }

    /// What our reports suffer determines how often they are repeated: where a burst of losses has
    /// begun, it goes on with probability 1 - 1/burst.
    pub(super) fn set_way_back(&mut self, loss: f32, burst: f32) {
        let goes_on = (1.0 - 1.0 / burst.max(1.0)).clamp(loss.min(0.9), 0.9);
        let repeats = (ALL_LOST / loss.max(ALL_LOST)).ln() / goes_on.max(ALL_LOST).ln();
        self.repeats = (repeats.ceil() as u32).clamp(REPEATS[0], REPEATS[1]);
    }

    /// The number of a shard or probe came: it wants to be reported.
    pub(super) fn record_data(&mut self, seq: LinkSeq, now: Timestamp) {
        let gap = self.record(seq, now);
        let gap_now = self.data_at.map_or(self.gap, |at| now.since(at)).min(LONGEST_GAP);
        self.gap = (self.gap * 7 + gap_now) / 8;
        self.data_at = Some(now);
        self.overdue_at = now + self.gap + OVERDUE;
        self.repeated = 0;
        let wait = if gap { Duration::ZERO } else { self.timer };
        self.to_repeat = if gap { self.repeats + 1 } else { self.to_repeat };
        let earliest = self.reported_at.map_or(now, |at| at + LEAST_GAP);
        self.due = self.due.min((now + wait).max(earliest));
    }

    /// The number of a heartbeat came. On a hot, silent link our own heartbeats carry the report;
    /// where our data takes their place, or our side is cold, one goes by itself.
    pub(super) fn record_beat(&mut self, seq: LinkSeq, now: Timestamp) {
        self.record(seq, now);
        self.due = self.due.min(now + BEAT_ANSWER);
    }

    /// Notes a number. Whether it confirms that another is missing.
    fn record(&mut self, seq: LinkSeq, now: Timestamp) -> bool {
        let Some((largest, _)) = self.largest else {
            self.settled = seq;
            self.largest = Some((seq, now));
            self.set(seq);
            return false;
        };
        let ahead = largest.behind(seq);
        if ahead <= 0 {
            // Older than the window: the bit belongs to another number by now.
            if ahead > -(WINDOW as i32 / 2) {
                self.set(seq);
            }
            return false;
        }
        let ahead = ahead as u32;
        self.advance(largest, ahead, now);
        self.set(seq);
        let confirmed = REORDERING..(REORDERING + ahead.min(SETTLED)).min(self.known);
        confirmed.into_iter().any(|behind| !self.has(LinkSeq(seq.0.wrapping_sub(behind))))
    }

    fn advance(&mut self, largest: LinkSeq, ahead: u32, now: Timestamp) {
        for step in 1..=ahead.min(WINDOW) {
            self.clear(LinkSeq(largest.0.wrapping_add(step)));
        }
        if self.marks.back().is_none_or(|&(at, _)| now.since(at) >= MARK) {
            self.marks.push_back((now, largest));
            if self.marks.len() > MARKS {
                self.marks.pop_front();
            }
        }
        self.known = self.known.saturating_add(ahead).min(WINDOW);
        self.largest = Some((LinkSeq(largest.0.wrapping_add(ahead)), now));
    }

    /// Tells the loss meter of numbers that will hardly come any more.
    pub(super) fn settle(&mut self, meter: &mut LossMeter, now: Timestamp) {
        let Some((largest, _)) = self.largest else { return };
        let behind = self.settled.behind(largest);
        if behind > WINDOW as i32 / 2 {
            self.settled = LinkSeq(largest.0.wrapping_sub(WINDOW / 2));
        }
        while self.settled.behind(largest) > SETTLED as i32 {
            meter.record(self.has(self.settled), now);
            self.settled = self.settled.next();
        }
    }

    /// When the next report is due: after `gap` at the latest, that of our heartbeats, even where data
    /// takes their place. The report before may be lost, and with it the news that the neighbour is
    /// heard.
    pub(super) fn due(&self, gap: Duration) -> Timestamp {
        let Some(reported_at) = self.reported_at else { return self.due.min(self.overdue_at) };
        self.due.min(self.overdue_at.max(reported_at + LEAST_GAP)).min(reported_at + gap)
    }

    /// A report of all that is known; `None` while nothing came.
    pub(super) fn report(&mut self, now: Timestamp) -> Option<Report> {
        let (largest, largest_at) = self.largest?;
        self.schedule_next(now);
        self.reports = self.reports.wrapping_add(1);
        let received = self.map(largest, now);
        let (at, largest_at) = (now.wire(), largest_at.wire());
        Some(Report { number: self.reports, at, largest, largest_at, received })
    }

    fn schedule_next(&mut self, now: Timestamp) {
        self.reported_at = Some(now);
        self.repeated = self.repeated.saturating_add(1);
        let doublings = self.repeated.saturating_sub(STEADY).min(6);
        self.to_repeat = self.to_repeat.saturating_sub(1);
        let regular = match self.to_repeat {
            0 => now + self.timer * (1 << doublings),
            _ => now + REPEAT_GAP,
        };
        let Some(data_at) = self.data_at else { return self.due = Timestamp::NEVER };
        if self.overdue_at <= now {
            self.overdue_at = Timestamp::NEVER;
        }
        // In a slow flow, the one that can show that the next packet is missing takes its place.
        let latest = regular + self.timer / 2;
        let replaced = (regular..=latest).contains(&self.overdue_at);
        let next = if replaced { self.overdue_at } else { regular };
        let until = data_at + TAIL;
        self.due = if next <= until { next } else { Timestamp::NEVER };
    }

    fn map(&mut self, largest: LinkSeq, now: Timestamp) -> Bytes {
        while self.marks.get(1).is_some_and(|&(at, _)| now.since(at) > self.cover) {
            self.marks.pop_front();
        }
        let oldest = self.marks.front().map_or(largest, |&(_, largest)| largest);
        let span = oldest.behind(largest).clamp(0, MAX_REPORT_MAP as i32 * 8) as u32;
        let mut map = BytesMut::with_capacity(MAX_REPORT_MAP);
        for byte in 0..span.div_ceil(8) {
            let bit =
                |i: u32| u8::from(self.has(LinkSeq(largest.0.wrapping_sub(byte * 8 + i + 1))));
            map.put_u8((0..8).fold(0, |bits, i| bits << 1 | bit(i)));
        }
        map.freeze()
    }

    fn has(&self, seq: LinkSeq) -> bool {
        let at = seq.0 % WINDOW;
        self.bits[at as usize / 64] & (1 << (at % 64)) != 0
    }

    fn set(&mut self, seq: LinkSeq) {
        let at = seq.0 % WINDOW;
        self.bits[at as usize / 64] |= 1 << (at % 64);
    }

    fn clear(&mut self, seq: LinkSeq) {
        let at = seq.0 % WINDOW;
        self.bits[at as usize / 64] &= !(1 << (at % 64));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A cold link's.
    const GAP: Duration = Duration::from_secs(1);

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_micros(1_000_000 + millis * 1000)
    }

    fn receipts(seqs: &[u32]) -> Receipts {
        let mut receipts = Receipts::new();
        for (millis, &seq) in (0..).zip(seqs) {
            receipts.record_data(LinkSeq(seq), at(millis));
        }
        receipts
    }

    #[test]
    fn nothing_to_report_before_the_first() {
        assert_eq!(Receipts::new().report(at(0)), None);
        assert_eq!(Receipts::new().due(GAP), Timestamp::NEVER);
    }

    #[test]
    fn the_map_shows_what_came() {
        for (name, base) in [("plain", 100), ("wrapping", u32::MAX - 1)] {
            let seqs = [0u32, 1, 3, 2, 7, 5].map(|step| step.wrapping_add(base));
            let report = receipts(&seqs).report(at(9)).unwrap();
            assert_eq!(report.largest, LinkSeq(base.wrapping_add(7)), "{name}");
            assert_eq!(&report.received[..], [0b0101_1110], "{name}");
            assert_eq!((report.at, report.largest_at), (at(9).wire(), at(4).wire()));
        }
    }

    #[test]
    fn a_confirmed_gap_is_reported_at_once_and_others_by_timer() {
        let mut receipts = receipts(&[0, 2]);
        assert!(receipts.due(GAP) > at(3), "two later numbers are too few");
        receipts.record_data(LinkSeq(4), at(2));
        assert_eq!(receipts.due(GAP), at(2));
        receipts.report(at(2));
        receipts.record_data(LinkSeq(9), at(3));
        assert_eq!(receipts.due(GAP), at(4), "not more often than every 2 ms");
        receipts.report(at(4));
        assert!(receipts.due(GAP) <= at(8), "the one before may be lost");
    }

    #[test]
    fn reports_go_on_for_a_while_after_the_last_data_and_then_end() {
        let mut receipts = receipts(&[0]);
        let mut times = Vec::new();
        while receipts.due(GAP) < at(0) + GAP {
            times.push(receipts.due(GAP).since(at(0)).as_millis());
            receipts.report(receipts.due(GAP));
            assert!(times.len() < 20);
        }
        assert_eq!(times[..8], [3, 13, 23, 33, 43, 53, 63, 83]);
        assert!(times.last().is_some_and(|&last| (150..=300).contains(&last)), "{times:?}");
    }

    #[test]
    fn reports_of_gaps_are_repeated_as_often_as_the_way_back_needs() {
        for (loss, burst, repeats) in [
            (0.0, 1.0, 1),
            (0.01, 1.01, 1),
            (0.1, 1.11, 2),
            (0.3, 1.43, 5),
            (0.02, 3.0, 8),
            (0.9, 10.0, 10),
            (f32::NAN, f32::NAN, 1),
        ] {
            let mut receipts = receipts(&[0]);
            receipts.set_rtt(Duration::from_millis(100));
            receipts.set_way_back(loss, burst);
            receipts.record_data(LinkSeq(5), at(1));
            receipts.report(at(1));
            let mut quick = 0;
            while receipts.due(GAP) <= at(1) + REPEAT_GAP * (REPEATS[1] + 1) {
                receipts.report(receipts.due(GAP));
                quick += 1;
            }
            // By timer and because data is overdue there are more.
            assert!((repeats..=repeats + 3).contains(&quick), "{quick}: {loss} x {burst}");
        }
    }

    #[test]
    fn a_fast_flow_without_losses_is_reported_by_timer_only_and_its_end_at_once() {
        let mut receipts = Receipts::new();
        receipts.set_rtt(Duration::from_millis(40));
        let mut reports = 0;
        for seq in 0..1000 {
            receipts.record_data(LinkSeq(seq), at(seq.into()));
            while receipts.due(GAP) <= at(seq.into()) {
                receipts.report(at(seq.into()));
                reports += 1;
            }
        }
        assert!((95..=105).contains(&reports), "{reports} in a second");
        assert!(receipts.due(GAP) <= at(999 + 5), "soon after the last");
    }

    #[test]
    fn in_a_slow_flow_a_report_shows_soon_that_a_packet_is_missing() {
        let mut receipts = Receipts::new();
        receipts.set_rtt(Duration::from_millis(40));
        for seq in 0..100 {
            receipts.record_data(LinkSeq(seq), at(20 * u64::from(seq)));
            while receipts.due(GAP) <= at(20 * u64::from(seq) + 19) {
                receipts.report(receipts.due(GAP));
            }
        }
        let expected = at(2000);
        while receipts.due(GAP) <= expected {
            receipts.report(receipts.due(GAP));
        }
        let after = receipts.due(GAP).since(expected);
        assert!((2000..=4000).contains(&after.as_micros()), "{after:?}");
    }

    #[test]
    fn a_jump_of_any_size_is_bounded_and_clears() {
        let mut receipts = receipts(&[0, 1, 2, 1_000_000, 1_000_001]);
        let report = receipts.report(at(9)).unwrap();
        assert_eq!(report.received.len(), MAX_REPORT_MAP);
        assert_eq!(report.received[0], 0x80);
        assert!(report.received[1..].iter().all(|&byte| byte == 0));
        receipts.record_data(LinkSeq(2), at(10)); // far too old: must not set another's bit
        let again = receipts.report(at(20)).unwrap();
        assert!(again.received[1..].iter().all(|&byte| byte == 0));
        let mut meter = LossMeter::new();
        receipts.settle(&mut meter, at(20));
    }

    #[test]
    fn coverage_follows_the_round_trip() {
        let mut receipts = Receipts::new();
        receipts.set_rtt(Duration::from_millis(200));
        (0..2000).for_each(|seq| receipts.record_data(LinkSeq(seq), at(seq.into())));
        let bits = receipts.report(at(2000)).unwrap().received.len() * 8;
        assert!((400..=440).contains(&bits), "{bits}");
    }
}
