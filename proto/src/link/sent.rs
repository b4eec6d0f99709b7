//! What the link sent, and what the neighbour's reports say became of it.
//!
//! A number is lost when a report misses it although the neighbour has three later ones and has
//! had time for a little reordering (RFC 9002 section 6.1.1), or although it should have arrived
//! long before the report was written: that finds the last packets before a silence, which no
//! later one betrays. Nothing is concluded from reports that do not come.

use std::collections::VecDeque;
use std::time::Duration;

use super::meter::LossMeter;
use crate::frame::Report;
use crate::units::{LinkSeq, Timestamp};

/// The most transmissions remembered; the oldest goes first, its fate unknown.
pub(super) const MOST: usize = 32_768;
/// So much later a transmission of unknown fate is forgotten.
const FORGET: Duration = Duration::from_secs(2);
/// A missing number with so many later ones is lost, reordering aside.
const REORDERING: i32 = 3;
/// Numbers before the highest reported that are looked at again: they may have come late.
const LOOK_BACK: usize = 256;

/// Whether a shard goes out with its group or to make up for losses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wave {
    /// Data, or parity sent before any loss was known.
    First,
    /// Sent because shards were lost.
    Repair,
}

/// What took a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    /// A packet of a group, or a copy of it.
    Packet { group: u64, index: u8, wave: Wave },
    /// A parity shard of a group.
    Parity { group: u64, wave: Wave },
    /// A heartbeat or a probe.
    Other,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Unknown,
    Arrived,
    Lost,
    /// Not known and never will be.
    Forgotten,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    at: Timestamp,
    sent: Sent,
    bytes: u16,
    fate: Fate,
}

/// What a report told about a transmission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It arrived.
    Arrived,
    /// It did not, or nobody will ever know.
    Lost,
    /// It arrived after it had been given up.
    Late,
}

/// How long to wait for what a report misses. Both count from when it should have arrived.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// The usual delay as the clocks show it, in microseconds.
    pub(super) raw_delay: i64,
    /// With later numbers there already.
    pub(super) reordering: Duration,
    /// Without, ...
    pub(super) tail: Duration,
    /// ... and for each of its bytes, what the link takes for one: the usual delay is mostly that of
    /// heartbeats, which are small.
    pub(super) per_byte: Duration,
}

/// What a report said beyond single fates.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Covered {
    /// Bytes that are now known to have arrived.
    pub(super) bytes: u64,
    /// The longest time that it took to find a loss, from its sending.
    pub(super) loss_found_after: Option<Duration>,
}

/// The numbers given out, the oldest first.
#[derive(Debug)]
pub(super) struct SentLog {
    entries: VecDeque<Entry>,
    /// The number of the first entry.
    first: LinkSeq,
    /// Entries before this have a fate, and the loss meter knows it.
    settled: usize,
    /// The highest number acknowledged.
    acknowledged: Option<LinkSeq>,
    /// What was sent in this time met a queue of ours: its fate says nothing of the link.
    queued: (Timestamp, Timestamp),
}

impl SentLog {
    pub(super) fn new() -> Self {
        Self {
            entries: VecDeque::new(),
            first: LinkSeq(0),
            settled: 0,
            acknowledged: None,
            queued: (Timestamp::NEVER, Timestamp::ZERO),
        }
    }

    /// What is sent from here to there meets a queue of ours.
    pub(super) fn set_queued(&mut self, from: Timestamp, to: Timestamp) {
        self.queued = (from, to);
    }

    /// The number for something that leaves now.
    pub(super) fn push(&mut self, sent: Sent, bytes: usize, now: Timestamp) -> LinkSeq {
        let seq = LinkSeq(self.first.0.wrapping_add(self.entries.len() as u32));
        let bytes = bytes.min(usize::from(u16::MAX)) as u16;
        self.entries.push_back(Entry { at: now, sent, bytes, fate: Fate::Unknown });
        if self.entries.len() > MOST {
            self.entries.pop_front();
            self.first = self.first.next();
            self.settled = self.settled.saturating_sub(1);
        }
        seq
    }

    /// When `seq` was sent; `None` if it was not, or too long ago.
    pub(super) fn sent_at(&self, seq: LinkSeq) -> Option<Timestamp> {
        self.index(seq).map(|at| self.entries[at].at)
    }

    /// Whether `seq` is higher than any number acknowledged before; remembers it.
    pub(super) fn acknowledge(&mut self, seq: LinkSeq) -> bool {
        let newer = self.acknowledged.is_none_or(|acknowledged| seq.is_after(acknowledged));
        if newer {
            self.acknowledged = Some(seq);
        }
        newer
    }

    /// Bytes sent after `seq`.
    pub(super) fn bytes_after(&self, seq: LinkSeq) -> u64 {
        let after = self.index(seq).map_or(0, |at| at + 1);
        self.entries.range(after..).map(|entry| u64::from(entry.bytes)).sum()
    }

    fn index(&self, seq: LinkSeq) -> Option<usize> {
        let at = usize::try_from(self.first.behind(seq)).ok()?;
        (at < self.entries.len()).then_some(at)
    }

    /// Learns fates from a report written at `reported_at` of the neighbour's clock, and appends
    /// those that are news to `fates`. A report of numbers that were never sent says nothing.
    pub(super) fn handle_report(
        &mut self,
        report: &Report,
        reported_at: Timestamp,
        patience: Patience,
        fates: &mut Vec<(Sent, Outcome)>,
    ) -> Covered {
        let mut covered = Covered::default();
        let Some(largest) = self.index(report.largest) else { return covered };
        let first = self.settled.min(largest.saturating_sub(LOOK_BACK));
        for at in first..self.entries.len() {
            let entry = &mut self.entries[at];
            let behind = largest as i32 - at as i32;
            let fate = match arrived(report, behind) {
                Some(true) => Fate::Arrived,
                Some(false) if patience.is_over(entry, reported_at, behind) => Fate::Lost,
                None if behind > 0 => Fate::Forgotten,
                None if patience.is_over(entry, reported_at, behind) => Fate::Lost,
                None if behind < 0 => break, // so is what was sent later
                _ => continue,
            };
            let outcome = match (entry.fate, fate) {
                (Fate::Unknown, Fate::Arrived) => Outcome::Arrived,
                (Fate::Unknown, _) => Outcome::Lost,
                (Fate::Lost | Fate::Forgotten, Fate::Arrived) => Outcome::Late,
                _ => continue,
            };
            entry.fate = fate;
            if entry.at < self.queued.0 || entry.at > self.queued.1 {
                covered.note_loss(entry, reported_at, patience.raw_delay);
            }
            covered.note_arrival(entry);
            fates.push((entry.sent, outcome));
        }
        covered
    }

    /// Tells the loss meter, in the order of sending, what is known by now. Repair can't wait, the
    /// meter can: what counts as lost is recorded only `grace` after it was sent, since a stalled
    /// receiver reports late what it has long received.
    pub(super) fn settle(&mut self, meter: &mut LossMeter, grace: Duration, now: Timestamp) {
        while let Some(entry) = self.entries.get_mut(self.settled) {
            let queued = self.queued.0 <= entry.at && entry.at <= self.queued.1;
            match entry.fate {
                Fate::Arrived | Fate::Lost if queued => {}
                Fate::Arrived => meter.record(true, now),
                Fate::Lost if now.since(entry.at) < grace => break,
                Fate::Lost => meter.record(false, now),
                Fate::Forgotten => {}
                Fate::Unknown if now.since(entry.at) > FORGET => entry.fate = Fate::Forgotten,
                Fate::Unknown => break,
            }
            self.settled += 1;
        }
    }
}

impl Covered {
    fn note_arrival(&mut self, entry: &Entry) {
        if entry.fate == Fate::Arrived {
            self.bytes += u64::from(entry.bytes);
        }
    }

    fn note_loss(&mut self, entry: &Entry, reported_at: Timestamp, raw_delay: i64) {
        if entry.fate == Fate::Lost {
            let after = reported_at.micros_after(entry.at).saturating_sub(raw_delay).max(0);
            let after = Duration::from_micros(after as u64);
            self.loss_found_after = self.loss_found_after.max(Some(after));
        }
    }
}

impl Patience {
    fn is_over(&self, entry: &Entry, reported_at: Timestamp, behind: i32) -> bool {
        let wait = match behind {
            REORDERING.. => self.reordering,
            _ => self.tail + self.per_byte * entry.bytes.into(),
        };
        let late = reported_at.micros_after(entry.at).saturating_sub(self.raw_delay);
        late >= i64::try_from(wait.as_micros()).unwrap_or(i64::MAX)
    }
}

/// Whether the number `behind` the highest arrived; `None` where the report says nothing.
fn arrived(report: &Report, behind: i32) -> Option<bool> {
    if behind == 0 {
        return Some(true);
    }
    let bit = usize::try_from(behind - 1).ok()?;
    report.received.get(bit / 8).map(|byte| byte & (0x80 >> (bit % 8)) != 0)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    const PATIENCE: Patience = Patience {
        raw_delay: 20_000,
        reordering: Duration::from_millis(1),
        tail: Duration::from_millis(5),
        per_byte: Duration::ZERO,
    };

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_micros(1_000_000 + millis * 1000)
    }

    fn packet(index: u8) -> Sent {
        Sent::Packet { group: 0, index, wave: Wave::First }
    }

    /// Packets 0 to `count`, one per millisecond.
    fn log(count: u8) -> SentLog {
        let mut log = SentLog::new();
        for index in 0..count {
            let seq = log.push(packet(index), 100, at(index.into()));
            assert_eq!(seq, LinkSeq(index.into()));
        }
        log
    }

    fn report(largest: u32, map: &'static [u8]) -> Report {
        let (at, largest_at) = Default::default();
        Report {
            number: 0,
            at,
            largest: LinkSeq(largest),
            largest_at,
            received: Bytes::from_static(map),
        }
    }

    fn fates(log: &mut SentLog, report: &Report, reported_at: Timestamp) -> Vec<(u8, Outcome)> {
        let mut fates = Vec::new();
        log.handle_report(report, reported_at, PATIENCE, &mut fates);
        let index = |sent| match sent {
            Sent::Packet { index, .. } => index,
            _ => unreachable!("only packets were sent"),
        };
        fates.into_iter().map(|(sent, outcome)| (index(sent), outcome)).collect()
    }

    #[test]
    fn a_gap_is_a_loss_once_three_later_numbers_came() {
        let mut log = log(6);
        // 0 arrived, 1 missing, 2 arrived.
        assert_eq!(
            fates(&mut log, &report(2, &[0b0100_0000]), at(22)),
            [(0, Outcome::Arrived), (2, Outcome::Arrived)]
        );
        let news = fates(&mut log, &report(4, &[0b1101_0000]), at(24));
        assert_eq!(news, [(1, Outcome::Lost), (3, Outcome::Arrived), (4, Outcome::Arrived)]);
        // It was only late.
        assert_eq!(fates(&mut log, &report(4, &[0b1111_0000]), at(24)), [(1, Outcome::Late)]);
    }

    #[test]
    fn the_tail_is_lost_once_a_report_should_have_covered_it() {
        let mut log = log(4);
        assert_eq!(
            fates(&mut log, &report(1, &[0x80]), at(23)),
            [(0, Outcome::Arrived), (1, Outcome::Arrived)]
        );
        assert_eq!(fates(&mut log, &report(1, &[0x80]), at(27)), [(2, Outcome::Lost)]);
        assert_eq!(fates(&mut log, &report(1, &[0x80]), at(28)), [(3, Outcome::Lost)]);
    }

    #[test]
    fn a_large_packet_of_the_tail_may_take_longer_than_a_small_one() {
        let slow = Patience { per_byte: Duration::from_micros(8), ..PATIENCE };
        for (bytes, lost_after) in [(13, 26), (1250, 35)] {
            let mut log = log(1);
            log.push(packet(1), bytes, at(0));
            let mut lost = |millis| {
                let mut fates = Vec::new();
                log.handle_report(&report(0, &[]), at(millis), slow, &mut fates);
                fates.contains(&(packet(1), Outcome::Lost))
            };
            assert!(!lost(lost_after - 1), "{bytes} bytes");
            assert!(lost(lost_after), "{bytes} bytes");
        }
    }

    #[test]
    fn reports_of_what_was_never_sent_say_nothing() {
        let mut log = log(4);
        assert_eq!(fates(&mut log, &report(4, &[0xff]), at(100)), []);
        assert_eq!(fates(&mut log, &report(u32::MAX, &[0xff]), at(100)), []);
    }

    #[test]
    fn the_loss_meter_hears_in_order_and_skips_what_stays_unknown() {
        let (mut log, mut meter) = (log(6), LossMeter::new());
        fates(&mut log, &report(5, &[0b1100_1000]), at(26));
        let grace = Duration::from_millis(40);
        log.settle(&mut meter, grace, at(26));
        assert_eq!(log.settled, 1, "the second may yet turn out to have come");
        log.settle(&mut meter, grace, at(42));
        assert_eq!(log.settled, 6);
        log.push(packet(6), 100, at(30));
        log.settle(&mut meter, grace, at(45));
        assert_eq!(log.settled, 6, "may still be on its way");
        log.settle(&mut meter, grace, at(5000));
        assert_eq!(log.settled, 7);
    }

    #[test]
    fn the_log_is_bounded() {
        let mut log = SentLog::new();
        for millis in 0..MOST as u64 + 10 {
            log.push(Sent::Other, 60, at(millis));
        }
        assert_eq!(log.entries.len(), MOST);
        assert_eq!(log.sent_at(LinkSeq(9)), None);
        assert_eq!(log.sent_at(LinkSeq(10)), Some(at(10)));
    }
}
