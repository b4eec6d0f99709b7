//! When to leave a path for a better one.
//!
//! Moving costs reordering, and two relays that chase each other's load cost more. So a path is
//! left at once when it is gone, suspect or has turned bad, and slowly when another is merely better;
//! while a destination or a link is new there is nothing to be loyal to.

use std::time::Duration;

use serde::Serialize;
use tradewind_proto::units::Timestamp;

use crate::metric::Cost;

/// How loyal routes are.
#[derive(Clone, Copy, Debug)]
pub struct Loyalty {
    /// Another path must be better by this much, absolutely ...
    pub better: Cost,
    /// ... and in percent of the present one ...
    pub better_percent: i64,
    /// ... for so long, to be taken merely for being better.
    pub hold: Duration,
    /// A path that is worse than the best by this much ...
    pub bad: Cost,
    /// ... and in percent of the best is left at once. So is ...
    pub bad_percent: i64,
    /// ... one that is worse by [`Self::bad`] and so many percent than it was at its own best, if another
    /// is better by as much as is asked of those that are merely better.
    pub harm_percent: i64,
    /// For so long a destination or a link is new.
    pub fresh: Duration,
}

impl Default for Loyalty {
    fn default() -> Self {
        Self {
            better: Cost::from_micros(5_000),
            better_percent: 10,
            hold: Duration::from_secs(5),
            bad: Cost::from_micros(10_000),
            bad_percent: 33,
            harm_percent: 20,
            fresh: Duration::from_secs(5),
        }
    }
}

/// Why the present path was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The first one known.
    First,
    /// The one before is no more: a link is down, a relay left, drains or is not allowed.
    Gone,
    /// The first link of the one before was suspect.
    Suspect,
    /// The one before was worse than the direct link.
    Harm,
    /// It was the best while the destination or a link was new.
    Fresh,
    /// The one before had turned clearly bad.
    Bad,
    /// It had been better than the one before for a while.
    Better,
}

/// What is known when a route is looked at again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Situation {
    /// What the present path costs now; `None`: it is no more.
    pub(crate) current: Option<Cost>,
    /// What the best path costs. It differs from the present one.
    pub(crate) best: Cost,
    /// The first link of the present path is suspect.
    pub(crate) suspect: bool,
    /// The present path is worse than the direct link.
    pub(crate) harmful: bool,
    /// A link of the best path is new.
    pub(crate) fresh_link: bool,
}

/// The memory of one route.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Watch {
    known_since: Timestamp,
    /// Since when another path has been better by enough.
    better_since: Option<Timestamp>,
    /// The least that the present path has cost.
    least: Option<Cost>,
}

impl Watch {
    /// Of a destination that has just become known.
    pub(crate) fn new(now: Timestamp) -> Self {
        Self { known_since: now, better_since: None, least: None }
    }

    /// The present path is the best, at this cost.
    pub(crate) fn settle(&mut self, cost: Cost) {
        self.better_since = None;
        self.note(cost);
    }

    fn note(&mut self, cost: Cost) -> Cost {
        let least = self.least.map_or(cost, |least| least.min(cost));
        self.least = Some(least);
        least
    }

    /// Whether to leave the present path for the best one, and why.
    pub(crate) fn judge(
        &mut self,
        situation: Situation,
        loyalty: &Loyalty,
        now: Timestamp,
    ) -> Option<Reason> {
        let reason = self.verdict(situation, loyalty, now);
        if reason.is_some() {
            (self.better_since, self.least) = (None, Some(situation.best));
        }
        reason
    }

    fn verdict(&mut self, at: Situation, loyalty: &Loyalty, now: Timestamp) -> Option<Reason> {
        let Some(current) = at.current else { return Some(Reason::Gone) };
        if at.suspect {
            return Some(Reason::Suspect);
        }
        if at.harmful {
            return Some(Reason::Harm);
        }
        let least = self.note(current);
        let gain = current - at.best;
        if gain <= Cost::ZERO {
            self.better_since = None;
            return None;
        }
        if at.fresh_link || now.since(self.known_since) < loyalty.fresh {
            return Some(Reason::Fresh);
        }
        if gain >= loyalty.bad.max(at.best.percent(loyalty.bad_percent)) {
            return Some(Reason::Bad);
        }
        if gain < loyalty.better.max(current.percent(loyalty.better_percent)) {
            self.better_since = None;
            return None;
        }
        if current - least >= loyalty.bad.max(least.percent(loyalty.harm_percent)) {
            return Some(Reason::Bad);
        }
        let since = *self.better_since.get_or_insert(now);
        (now.since(since) >= loyalty.hold).then_some(Reason::Better)
    }

    /// When a path that is merely better will have been so for long enough.
    pub(crate) fn due(&self, loyalty: &Loyalty) -> Option<Timestamp> {
        self.better_since.map(|since| since + loyalty.hold)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn ms(ms: i64) -> Cost {
        Cost::from_micros(ms * 1_000)
    }

    fn situation(current: i64, best: i64) -> Situation {
        Situation {
            current: Some(ms(current)),
            best: ms(best),
            suspect: false,
            harmful: false,
            fresh_link: false,
        }
    }

    #[test]
    fn an_old_route_is_left_for_cause() {
        let bad = Situation { suspect: true, ..situation(50, 200) };
        let harm = Situation { harmful: true, ..situation(50, 49) };
        let fresh = Situation { fresh_link: true, ..situation(50, 49) };
        let cases = [
            ("gone", Situation { current: None, ..situation(0, 90) }, Some(Reason::Gone)),
            ("suspect", bad, Some(Reason::Suspect)),
            ("worse than direct", harm, Some(Reason::Harm)),
            ("new link", fresh, Some(Reason::Fresh)),
            ("turned bad", situation(100, 60), Some(Reason::Bad)),
            ("bad relatively only", situation(12, 6), None),
            ("bad absolutely only", situation(212, 200), None),
            ("merely better, not long enough", situation(60, 52), None),
            ("no better", situation(50, 50), None),
        ];
        for (name, situation, reason) in cases {
            let mut watch = Watch::new(Timestamp::ZERO);
            let now = Timestamp::ZERO + 100 * SECOND;
            assert_eq!(watch.judge(situation, &Loyalty::default(), now), reason, "{name}");
        }
    }

    #[test]
    fn merely_better_must_last() {
        let loyalty = Loyalty::default();
        let mut watch = Watch::new(Timestamp::ZERO);
        let at = |seconds: u32| Timestamp::ZERO + seconds * SECOND;
        assert_eq!(watch.judge(situation(60, 52), &loyalty, at(100)), None);
        assert_eq!(watch.judge(situation(60, 58), &loyalty, at(103)), None); // interrupted
        assert_eq!(watch.judge(situation(60, 52), &loyalty, at(104)), None);
        assert_eq!(watch.due(&loyalty), Some(at(109)));
        assert_eq!(watch.judge(situation(60, 52), &loyalty, at(108)), None);
        assert_eq!(watch.judge(situation(60, 52), &loyalty, at(109)), Some(Reason::Better));
        assert_eq!(watch.due(&loyalty), None);
    }

    #[test]
    fn a_path_that_turned_bad_is_left_at_once_for_one_that_is_merely_better() {
        let loyalty = Loyalty::default();
        let at = |seconds: u32| Timestamp::ZERO + seconds * SECOND;
        for (usual, current, best, reason) in [
            (100, 140, 112, Some(Reason::Bad)),
            (100, 118, 104, None), // has hardly changed
            (130, 140, 112, None), // has always been like that
            (100, 140, 128, None), // nothing is better
        ] {
            let mut watch = Watch::new(Timestamp::ZERO);
            watch.settle(ms(usual));
            let got = watch.judge(situation(current, best), &loyalty, at(100));
            assert_eq!(got, reason, "{usual} {current} {best}");
        }
    }

    #[test]
    fn a_new_destination_takes_the_best_at_once() {
        let mut watch = Watch::new(Timestamp::ZERO);
        let now = Timestamp::ZERO + SECOND;
        let reason = watch.judge(situation(60, 58), &Loyalty::default(), now);
        assert_eq!(reason, Some(Reason::Fresh));
    }
}
