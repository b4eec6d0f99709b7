//! What the sender expects of the link when it decides about repair: delay, rounds and the plan.

use std::time::Duration;

use super::Recovery;
use super::plan::{OperatingPoint, Plan, Target};
use crate::units::Timestamp;

/// Copies of a lone packet that lie apart.
const LEAST_MARGIN: usize = 4;
/// So much later than the report of a loss comes one by timer.
const REPORT_TIMER: Duration = Duration::from_millis(10);
/// Groups that could wait for less would be too short.
const WORTH_WAITING: Duration = Duration::from_millis(2);
/// Timers of a real machine fire so late: what is put off to the last moment is too late then.
const TIMER_LATE: Duration = Duration::from_millis(2);

/// A group does not count on a chance with less to spare: it would be gone with the first report that
/// is lost, and for the packets that came first while others joined them. Under bursts even such a chance
/// is worth more than the parity that would take its place.
const SURE: Duration = Duration::from_millis(6);

/// See the module. Renewed with each report.
#[derive(Clone, Debug)]
pub(super) struct Outlook {
    /// From here to the neighbour, a margin for jitter included.
    pub(super) one_way: Duration,
    /// From sending a shard to sending another because that was lost.
    pub(super) round: Duration,
    /// How long a burst of losses lasts: what must not be lost together is sent so far apart.
    pub(super) spread: Duration,
    /// How it loses: what plans are made for.
    pub(super) point: OperatingPoint,
    /// What is left to the plan.
    pub(super) recovery: Recovery,
}

impl Outlook {
    /// How often something sent now and after each round arrives by then.
    pub(super) fn chances(&self, arrive_by: Timestamp, now: Timestamp) -> usize {
        let earliest = now + self.one_way;
        if arrive_by < earliest {
            return 0;
        }
        if !self.recovery.repeats() {
            return 1; // nothing follows a report
        }
        let rounds = arrive_by.since(earliest).as_micros() / self.round.as_micros().max(1);
        1 + usize::try_from(rounds).unwrap_or(usize::MAX - 1).min(1000)
    }

    /// How often a group that such a packet begins can count on being helped.
    pub(super) fn chances_of_group(&self, arrive_by: Timestamp, now: Timestamp) -> usize {
        let spare = if self.spread.is_zero() { SURE } else { WORTH_WAITING };
        self.chances(arrive_by.minus(spare), now)
    }

    /// The plan for groups with that target.
    pub(super) fn plan(&self, target: Target) -> &'static Plan {
        Plan::of(self.point, target)
    }

    /// Parity shards to send with a group of `k` packets that can be helped `chances` times.
    pub(super) fn upfront(&self, target: Target, k: usize, chances: usize) -> usize {
        self.recovery.upfront(self.plan(target), k, chances)
    }

    /// Shards to send for a group that lacks `lacking` and can be helped `chances` times.
    pub(super) fn repair(&self, target: Target, lacking: usize, chances: usize) -> usize {
        self.recovery.repair(self.plan(target), lacking, chances)
    }

    /// Shards to send at the last chance for so many packets that no report tells of.
    pub(super) fn unheard(&self, target: Target, packets: usize) -> usize {
        match self.recovery {
            Recovery::Plan => self.plan(target).upfront(packets, 1),
            _ => 0,
        }
    }

    /// How long a group may wait for more packets: as long as that costs none of its chances.
    pub(super) fn spare_time(&self, arrive_by: Timestamp, now: Timestamp) -> Duration {
        let slack = arrive_by.since(now + self.one_way);
        match self.chances_of_group(arrive_by, now) {
            // Parity must still follow in time, in parts where losses come in bursts.
            0 | 1 if self.spread.is_zero() => slack * 3 / 4,
            0 | 1 => slack / 2,
            // That of the packet in the middle counts.
            chances => slack.saturating_sub(self.round * (chances - 1) as u32) * 2,
        }
    }

    /// How long a margin may wait without costing a chance.
    pub(super) fn patience(&self, deadline: Timestamp, now: Timestamp) -> Duration {
        // Under bursts it is sent in parts, which takes time as well.
        let rest = self.rest(deadline.since(now + self.one_way)).saturating_sub(self.spread * 2);
        if rest < WORTH_WAITING { Duration::ZERO } else { rest * 3 / 4 }
    }

    /// When to send a margin at the latest, in parts where losses come in bursts; but not before
    /// there should be a report of what is sent now, if that is early enough.
    pub(super) fn last_chance(&self, deadline: Timestamp, now: Timestamp) -> Timestamp {
        let last = deadline.minus(self.one_way + TIMER_LATE);
        last.minus(self.spread * 4).max(now + self.round + REPORT_TIMER).min(last)
    }

    /// How many shards of a margin are of use to so many packets. The plan counts its shards as
    /// neighbours, of which one burst takes all; these lie apart.
    pub(super) fn most_margin(&self, packets: usize, deadline: Timestamp, now: Timestamp) -> usize {
        let rest = self.rest(deadline.since(now + self.one_way));
        match self.spread {
            Duration::ZERO => usize::MAX,
            spread if rest < spread => packets.max(LEAST_MARGIN),
            _ => (packets * 2).max(LEAST_MARGIN),
        }
    }

    /// What is left when as many rounds as fit are taken off.
    fn rest(&self, slack: Duration) -> Duration {
        let rest = slack.as_micros() % self.round.as_micros().max(1);
        Duration::from_micros(rest as u64)
    }

    /// When to send the `nth` (from 0) of `count` shards of a margin: a burst apart, or evenly over
    /// the time that no whole round fits into where that is too short.
    pub(super) fn margin_at(
        &self,
        (nth, count): (usize, usize),
        deadline: Timestamp,
        now: Timestamp,
    ) -> Timestamp {
        let slack = deadline.since(now + self.one_way);
        let rest = self.rest(slack).saturating_sub(TIMER_LATE);
        let gap = self.spread.min(rest / count.max(1) as u32);
        now + gap * (nth as u32 + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chances_are_the_rounds_that_fit() {
        let outlook = Outlook {
            one_way: Duration::from_millis(20),
            round: Duration::from_millis(44),
            spread: Duration::from_millis(5),
            point: OperatingPoint::default(),
            recovery: Recovery::Plan,
        };
        let now = Timestamp::from_micros(1_000_000);
        for (millis, chances) in [(0, 0), (19, 0), (20, 1), (63, 1), (64, 2), (120, 3)] {
            let arrive_by = now + Duration::from_millis(millis);
            assert_eq!(outlook.chances(arrive_by, now), chances, "{millis} ms");
        }
        let deadline = now + Duration::from_millis(120); // 12 ms after the last chance
        let at = |nth, count| outlook.margin_at((nth, count), deadline, now).since(now).as_millis();
        assert_eq!([at(0, 2), at(1, 2)], [5, 10]);
        assert_eq!([at(0, 4), at(1, 4), at(3, 4)], [2, 5, 10]);
        assert_eq!(
            [1, 2, 20].map(|packets| outlook.most_margin(packets, deadline, now)),
            [4, 4, 40]
        );
        assert_eq!(outlook.last_chance(deadline, now), now + Duration::from_millis(78));
        // Too late for the reports by timer, but not for what depends on it.
        let tight = now + Duration::from_millis(65);
        assert_eq!(outlook.last_chance(tight, now), now + Duration::from_millis(43));
        let calm = Outlook { spread: Duration::ZERO, ..outlook.clone() };
        for (outlook, millis, chances, wait) in [
            (&calm, 69, 1, 36_750), // with a second chance for the first only
            (&calm, 70, 2, 12_000),
            (&calm, 113, 2, 98_000),
            (&calm, 114, 3, 12_000),
            (&outlook, 65, 1, 22_500),
            (&outlook, 66, 2, 4_000),
        ] {
            let arrive_by = now + Duration::from_millis(millis);
            assert_eq!(outlook.chances_of_group(arrive_by, now), chances, "{millis} ms");
            assert_eq!(outlook.spare_time(arrive_by, now).as_micros(), wait, "{millis} ms");
        }
    }
}
