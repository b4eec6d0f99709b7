//! What the sender expects of the link when it decides about repair: delay, rounds and the plan.

use std::sync::Arc;
use std::time::Duration;

use super::plan::Plan;
use crate::units::Timestamp;

/// Groups that could wait for less would be too short.
const WORTH_WAITING: Duration = Duration::from_millis(2);

/// See the module. Renewed with each report.
#[derive(Clone, Debug)]
pub(super) struct Outlook {
    /// From here to the neighbour, a margin for jitter included.
    pub(super) one_way: Duration,
    /// From sending a shard to sending another because that was lost.
    pub(super) round: Duration,
    /// How long a burst of losses lasts: what must not be lost together is sent so far apart.
    pub(super) spread: Duration,
    /// How many shards to send.
    pub(super) plan: Arc<Plan>,
}

impl Outlook {
    /// How often something sent now and after each round arrives by then.
    pub(super) fn chances(&self, arrive_by: Timestamp, now: Timestamp) -> usize {
        let earliest = now + self.one_way;
        if arrive_by < earliest {
            return 0;
        }
        let rounds = arrive_by.since(earliest).as_micros() / self.round.as_micros().max(1);
        1 + usize::try_from(rounds).unwrap_or(usize::MAX - 1).min(1000)
    }

    /// How long a group may wait for more packets: as long as that costs none of its chances, if
    /// that is long enough to matter.
    pub(super) fn spare_time(&self, arrive_by: Timestamp, now: Timestamp) -> Duration {
        let slack = arrive_by.since(now + self.one_way);
        let rest = self.rest(slack);
        match self.chances(arrive_by, now) {
            0 | 1 => slack / 2, // parity must still follow in time
            _ if rest < WORTH_WAITING => slack / 4,
            _ => rest * 2, // that of the packet in the middle counts
        }
    }

    /// How long a margin may wait without costing a chance.
    pub(super) fn patience(&self, deadline: Timestamp, now: Timestamp) -> Duration {
        // Under bursts it is sent in parts, which takes time as well.
        let rest = self.rest(deadline.since(now + self.one_way)).saturating_sub(self.spread * 2);
        if rest < WORTH_WAITING { Duration::ZERO } else { rest * 3 / 4 }
    }

    /// What is left when as many rounds as fit are taken off.
    fn rest(&self, slack: Duration) -> Duration {
        let rest = slack.as_micros() % self.round.as_micros().max(1);
        Duration::from_micros(rest as u64)
    }

    /// When to send the `nth` (from 0) shard of a margin: a burst apart, as far as the time that
    /// no whole round fits into allows.
    pub(super) fn margin_at(&self, nth: usize, deadline: Timestamp, now: Timestamp) -> Timestamp {
        let slack = deadline.since(now + self.one_way);
        now + (self.spread * (nth as u32 + 1)).min(self.rest(slack))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::plan::{OperatingPoint, Planner};

    #[test]
    fn chances_are_the_rounds_that_fit() {
        let outlook = Outlook {
            one_way: Duration::from_millis(20),
            round: Duration::from_millis(44),
            spread: Duration::from_millis(5),
            plan: Planner::new(1e-5).plan(OperatingPoint::default()),
        };
        let now = Timestamp::from_micros(1_000_000);
        for (millis, chances) in [(0, 0), (19, 0), (20, 1), (63, 1), (64, 2), (120, 3)] {
            let arrive_by = now + Duration::from_millis(millis);
            assert_eq!(outlook.chances(arrive_by, now), chances, "{millis} ms");
        }
        let deadline = now + Duration::from_millis(120); // 12 ms after the last chance
        let offsets = [0, 1, 2, 9].map(|nth| outlook.margin_at(nth, deadline, now).since(now));
        assert_eq!(offsets.map(|offset| offset.as_millis()), [5, 10, 12, 12]);
    }
}
