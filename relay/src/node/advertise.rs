//! What of a relay's link measurements is worth telling the others, and when.
//!
//! A link that went, or carries only smaller packets than before, is told at once. So is one that
//! came, unless another did a moment ago: those of a relay that starts come one after the other. All
//! of it is told once a minute. What else matters to a route, its metric, is rationed: on average at most two
//! statements a second, of which a reserve is for links that turned worse. Those are told without
//! delay, too: others leave them for it, while what has become better can wait.
//! Deltas are cumulative: each holds every link that differs from the last full
//! statement, so a reader needs only that and the newest delta.

use std::time::Duration;

use tradewind_proto::statement::LinkStatement;
use tradewind_proto::units::{PopKey, Timestamp};
use tradewind_router::metric::{Cost, MetricTerms};

/// How often everything is told.
pub const FULL_INTERVAL: Duration = Duration::from_secs(60);
/// Deltas that are not about links coming or going are spent from a ration of so many, ...
const RATION: u32 = 8;
/// ... one of which is added in this time; ...
const REFILL: Duration = Duration::from_millis(500);
/// ... so many are kept for links that turned worse.
const RESERVE: u32 = 4;
/// The first estimates of a change may be far from the truth: others wait so long after the last
/// delta, so that each is given this time to get nearer.
const DELTA_GAP: Duration = Duration::from_millis(100);

/// What to state now.
#[derive(Clone, Debug, PartialEq)]
pub enum Advert {
    /// All links.
    Full {
        /// The number of the statement.
        seq: u32,
        /// Every outgoing link.
        links: Vec<LinkStatement>,
    },
    /// The links that differ from the full statement `base`.
    Delta {
        /// The number of the statement.
        seq: u32,
        /// The number of the full statement.
        base: u32,
        /// New or changed.
        links: Vec<LinkStatement>,
        /// Gone.
        removed: Vec<PopKey>,
    },
}

/// Decides when the relay states what.
#[derive(Debug, Default)]
pub struct Advertiser {
    seq: u32,
    /// The last full statement: number, time, links.
    full: Option<(u32, Timestamp, Vec<LinkStatement>)>,
    /// What the others know by now.
    told: Vec<LinkStatement>,
    /// When something was told last.
    told_at: Timestamp,
    /// When it was told last that a link came.
    came_at: Timestamp,
    /// When the ration will be whole again.
    whole_at: Timestamp,
    full_wanted: bool,
}

impl Advertiser {
    /// Something other than the links changed: state everything next.
    pub fn want_full(&mut self) {
        self.full_wanted = true;
    }

    /// What to state now, if anything, given the links as they are, in the order of neighbours.
    pub fn poll(&mut self, links: &[LinkStatement], now: Timestamp) -> Option<Advert> {
        let full_due = match &self.full {
            Some((_, at, _)) => self.full_wanted || now.since(*at) >= FULL_INTERVAL,
            None => true,
        };
        if full_due {
            return Some(self.state_all(links, now));
        }
        let may_tell = |news: News| match news {
            News::Urgent => true,
            News::Came => now.since(self.came_at) >= DELTA_GAP,
            News::Worse => self.has_left(1, now),
            News::Significant => {
                now.since(self.told_at) >= DELTA_GAP && self.has_left(RESERVE + 1, now)
            }
        };
        if !self.news(links).any(may_tell) {
            return None;
        }
        if self.news(links).any(|news| news == News::Came) {
            self.came_at = now;
        }
        Some(self.state_changes(links, now))
    }

    /// Whether so much of the ration is left.
    fn has_left(&self, statements: u32, now: Timestamp) -> bool {
        self.whole_at.since(now) <= REFILL * (RATION - statements)
    }

    /// When to poll again at the latest.
    pub fn poll_timeout(&self) -> Timestamp {
        self.full.as_ref().map_or(Timestamp::ZERO, |(_, at, _)| *at + FULL_INTERVAL)
    }

    fn state_all(&mut self, links: &[LinkStatement], now: Timestamp) -> Advert {
        self.seq += 1;
        self.full_wanted = false;
        self.told = links.to_vec();
        self.note_told(now);
        self.full = Some((self.seq, now, links.to_vec()));
        Advert::Full { seq: self.seq, links: links.to_vec() }
    }

    fn state_changes(&mut self, links: &[LinkStatement], now: Timestamp) -> Advert {
        let tell = |link: &LinkStatement| match LinkStatement::find(&self.told, link.to) {
            Some(told) if !differs(told, link) => *told,
            _ => *link,
        };
        self.told = links.iter().map(tell).collect();
        let Some((base, _, full)) = &self.full else { return self.state_all(links, now) };
        let changed: Vec<_> = self
            .told
            .iter()
            .filter(|link| LinkStatement::find(full, link.to) != Some(link))
            .copied()
            .collect();
        let gone = |link: &&LinkStatement| LinkStatement::find(&self.told, link.to).is_none();
        let removed: Vec<_> = full.iter().filter(gone).map(|link| link.to).collect();
        if 2 * (changed.len() + removed.len()) > full.len() + 8 {
            return self.state_all(links, now);
        }
        let base = *base;
        self.note_told(now);
        self.seq += 1;
        Advert::Delta { seq: self.seq, base, links: changed, removed }
    }

    fn note_told(&mut self, now: Timestamp) {
        self.told_at = now;
        self.whole_at = (self.whole_at.max(now) + REFILL).min(now + REFILL * RATION);
    }

    /// How what was told differs from what is.
    fn news(&self, links: &[LinkStatement]) -> impl Iterator<Item = News> {
        let gone = |told: &LinkStatement| told.up && LinkStatement::find(links, told.to).is_none();
        let changed = |link: &LinkStatement| match LinkStatement::find(&self.told, link.to) {
            Some(told) if told == link => None,
            // Others lose what they send too large.
            Some(told) if told.up && (!link.up || link.max_packet < told.max_packet) => {
                Some(News::Urgent)
            }
            told if link.up && told.is_none_or(|told| !told.up) => Some(News::Came),
            Some(told) if dearer(told, link) => Some(News::Worse),
            Some(told) if !differs(told, link) => None,
            _ => Some(News::Significant),
        };
        let gone = self.told.iter().filter(move |told| gone(told)).map(|_| News::Urgent);
        gone.chain(links.iter().filter_map(changed))
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum News {
    /// A link went, or carries less.
    Urgent,
    /// A link came.
    Came,
    /// A metric that others leave a link for.
    Worse,
    /// Another difference that matters to a route.
    Significant,
}

/// Whether `now` is far enough from `told` to matter to a route.
fn differs(told: &LinkStatement, now: &LinkStatement) -> bool {
    now.up != told.up
        || now.cost != told.cost
        || now.max_packet != told.max_packet
        || (told.loss == 0.0) != (now.loss == 0.0) && (now.loss - told.loss).abs() > 0.002
        || dearer(told, now)
        || dearer(now, told)
}

/// Whether the metric of `now` is more than that of `told` by 2 ms and a tenth.
fn dearer(told: &LinkStatement, now: &LinkStatement) -> bool {
    let [told, now] = [told, now].map(|link| MetricTerms::of(link).total());
    now - told > Cost::from_micros(2_000).max(told.percent(10))
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: PopKey = PopKey(1);
    const B: PopKey = PopKey(2);

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_micros(1_000_000_000 + millis * 1000)
    }

    fn link(to: PopKey, delay_ms: i32) -> LinkStatement {
        LinkStatement {
            to,
            up: true,
            delay_micros: delay_ms * 1000,
            jitter: Duration::ZERO,
            rtt: Duration::from_millis(40),
            loss: 0.0,
            burst: 1.0,
            capacity_kbps: 0,
            load_kbps: 0,
            cost: Duration::ZERO,
            max_packet: 1_402,
        }
    }

    fn started(of: &[LinkStatement]) -> Advertiser {
        let mut advertiser = Advertiser::default();
        assert!(matches!(advertiser.poll(of, at(0)), Some(Advert::Full { seq: 1, .. })));
        advertiser
    }

    #[test]
    fn nothing_new_is_told_once_a_minute() {
        let mut advertiser = started(&[link(A, 20)]);
        let same = [link(A, 21)];
        assert_eq!(advertiser.poll(&same, at(1_000)), None);
        assert_eq!(advertiser.poll(&same, at(59_999)), None);
        assert_eq!(advertiser.poll_timeout(), at(60_000));
        assert!(matches!(advertiser.poll(&same, at(60_000)), Some(Advert::Full { seq: 2, .. })));
    }

    #[test]
    fn a_link_that_is_better_is_told_after_a_while_and_one_that_is_worse_at_once() {
        for (delay, at_once) in [(15, false), (30, true)] {
            let mut advertiser = started(&[link(A, 20), link(B, 5)]);
            let links = [link(A, delay), link(B, 6)];
            let delta =
                Advert::Delta { seq: 2, base: 1, links: vec![link(A, delay)], removed: vec![] };
            assert_eq!(advertiser.poll(&links, at(50)).is_some(), at_once, "{delay}");
            if !at_once {
                assert_eq!(advertiser.poll(&links, at(100)), Some(delta));
            }
        }
    }

    #[test]
    fn changes_are_told_at_most_twice_a_second_and_worse_news_even_after_much_else() {
        let mut advertiser = started(&[link(A, 100), link(B, 5)]);
        let mut told = Vec::new();
        for step in 0..6_000 {
            let millis = 10 + 10 * step;
            let delay = if step % 2 == 0 { 30 } else { 100 };
            if advertiser.poll(&[link(A, delay), link(B, 5)], at(millis)).is_some() {
                told.push(millis);
            }
        }
        assert!((110..=130).contains(&told.len()), "{} in a minute", told.len());
        let most = RATION as usize;
        assert!(told.windows(most + 1).all(|some| some[most] - some[0] >= 500), "{told:?}");

        let mut advertiser = started(&[link(A, 100), link(B, 5)]);
        let mut told =
            |a, b, millis| advertiser.poll(&[link(A, a), link(B, b)], at(millis)).is_some();
        for (nth, delay) in [80, 60, 40, 20].into_iter().enumerate() {
            assert_eq!(told(delay, 5, 100 + 100 * nth as u64), nth < 3, "{delay} ms");
        }
        for (nth, delay) in [10, 20, 40, 80].into_iter().enumerate() {
            assert!(told(40, delay, 410 + 10 * nth as u64), "{delay} ms");
        }
    }

    #[test]
    fn what_changes_no_metric_is_not_told() {
        let clean = link(A, 20);
        let busy = LinkStatement { capacity_kbps: 10_000, load_kbps: 7_000, ..clean };
        assert!(!differs(&clean, &busy), "there is room");
        assert!(differs(&clean, &LinkStatement { load_kbps: 9_500, ..busy }));
        assert!(dearer(&clean, &LinkStatement { loss: 0.2, burst: 1.25, ..clean }));
        assert!(!dearer(&clean, &LinkStatement { loss: 0.005, ..clean }));
    }

    #[test]
    fn a_link_that_goes_down_or_away_is_told_at_once() {
        let mut advertiser = started(&[link(A, 20), link(B, 5)]);
        let down = LinkStatement { up: false, ..link(A, 20) };
        assert_eq!(
            advertiser.poll(&[down, link(B, 5)], at(1)),
            Some(Advert::Delta { seq: 2, base: 1, links: vec![down], removed: vec![] })
        );
        assert_eq!(
            advertiser.poll(&[down], at(2)),
            Some(Advert::Delta { seq: 3, base: 1, links: vec![down], removed: vec![B] }),
            "deltas are cumulative"
        );
        assert_eq!(advertiser.poll(&[down], at(3)), None);
    }

    #[test]
    fn links_that_come_one_after_the_other_are_told_together() {
        let all: Vec<_> = (1..=30).map(|n| link(PopKey(n), 20)).collect();
        let mut advertiser = started(&[]);
        let up = |millis: usize| &all[..all.len().min(1 + millis / 10)];
        let told: Vec<_> = (20..600)
            .filter(|&millis| advertiser.poll(up(millis), at(millis as u64)).is_some())
            .collect();
        assert_eq!(told, [20, 120, 220, 320]);
        let worse = LinkStatement { delay_micros: 50_000, ..all[0] };
        let mut news = all.clone();
        news[0] = worse;
        news.push(link(PopKey(40), 20));
        assert!(advertiser.poll(&news, at(600)).is_some());
        news[1] = LinkStatement { up: false, ..all[1] };
        news.push(link(PopKey(41), 20));
        assert!(advertiser.poll(&news, at(601)).is_some(), "one went as well");
        news[2] = LinkStatement { delay_micros: 50_000, ..all[2] };
        news.push(link(PopKey(42), 20));
        assert!(advertiser.poll(&news, at(602)).is_some(), "one turned worse as well");
        news.push(link(PopKey(43), 20));
        assert!(advertiser.poll(&news, at(603)).is_none());
        assert!(advertiser.poll(&news, at(702)).is_some());
    }

    #[test]
    fn another_largest_packet_is_told_and_a_smaller_one_at_once() {
        for (max_packet, at_once) in [(1_401, true), (1_403, false)] {
            let mut advertiser = started(&[link(A, 20), link(B, 5)]);
            let changed = LinkStatement { max_packet, ..link(A, 20) };
            let links = [changed, link(B, 5)];
            assert_eq!(advertiser.poll(&links, at(1)).is_some(), at_once, "{max_packet}");
            let later = advertiser.poll(&links, at(500));
            assert_eq!(later.is_some(), !at_once, "{max_packet}");
        }
    }

    #[test]
    fn changes_of_most_links_are_told_as_a_full_statement() {
        let many: Vec<_> = (0..40).map(|n| link(PopKey(n), 10)).collect();
        let mut advertiser = started(&many);
        let moved: Vec<_> = (0..40).map(|n| link(PopKey(n), 50)).collect();
        assert!(matches!(advertiser.poll(&moved, at(500)), Some(Advert::Full { seq: 2, .. })));
    }

    #[test]
    fn small_losses_count_where_there_were_none() {
        let clean = link(A, 20);
        for (loss, expected) in [(0.001, false), (0.003, true), (0.3, true)] {
            assert_eq!(differs(&clean, &LinkStatement { loss, ..clean }), expected, "{loss}");
        }
    }
}
