//! What of a relay's link measurements is worth telling the others, and when.
//!
//! A link that came or went, or carries only smaller packets than before, is told at once; so is
//! another significant change, but on average at most twice a second; all of it once a minute.
//! Deltas are cumulative: each holds every link that differs from the last full
//! statement, so a reader needs only that and the newest delta.

use std::collections::BTreeMap;
use std::time::Duration;

use tradewind_proto::statement::LinkStatement;
use tradewind_proto::units::{PopKey, Timestamp};

/// How often everything is told.
pub const FULL_INTERVAL: Duration = Duration::from_secs(60);
/// Of deltas that are not about links coming or going, at most so many ...
const DELTAS: usize = 4;
/// ... in this time: the first estimates of a link that turned bad may be far from the truth, ...
const DELTA_INTERVAL: Duration = Duration::from_secs(2);
/// ... so that each is given this time to get nearer.
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
    full: Option<(u32, Timestamp, BTreeMap<PopKey, LinkStatement>)>,
    /// What the others know by now.
    told: BTreeMap<PopKey, LinkStatement>,
    /// When something was told the last times, the latest first.
    told_at: [Timestamp; DELTAS],
    full_wanted: bool,
}

impl Advertiser {
    /// Something other than the links changed: state everything next.
    pub fn want_full(&mut self) {
        self.full_wanted = true;
    }

    /// What to state now, if anything, given the links as they are.
    pub fn poll(
        &mut self,
        links: &BTreeMap<PopKey, LinkStatement>,
        now: Timestamp,
    ) -> Option<Advert> {
        let full_due = match &self.full {
            Some((_, at, _)) => self.full_wanted || now.since(*at) >= FULL_INTERVAL,
            None => true,
        };
        if full_due {
            return Some(self.state_all(links, now));
        }
        let news = self.news(links)?;
        let [latest, .., oldest] = self.told_at.map(|at| now.since(at));
        if news == News::Significant && (latest < DELTA_GAP || oldest < DELTA_INTERVAL) {
            return None;
        }
        Some(self.state_changes(links, now))
    }

    /// When to poll again at the latest.
    pub fn poll_timeout(&self) -> Timestamp {
        self.full.as_ref().map_or(Timestamp::ZERO, |(_, at, _)| *at + FULL_INTERVAL)
    }

    fn state_all(&mut self, links: &BTreeMap<PopKey, LinkStatement>, now: Timestamp) -> Advert {
        self.seq += 1;
        self.full_wanted = false;
        self.told = links.clone();
        self.note_told(now);
        self.full = Some((self.seq, now, links.clone()));
        Advert::Full { seq: self.seq, links: links.values().copied().collect() }
    }

    fn state_changes(&mut self, links: &BTreeMap<PopKey, LinkStatement>, now: Timestamp) -> Advert {
        self.told.retain(|peer, _| links.contains_key(peer));
        for (&peer, link) in links {
            match self.told.get_mut(&peer) {
                Some(told) if !differs(told, link) => {}
                Some(told) => *told = *link,
                None => {
                    self.told.insert(peer, *link);
                }
            }
        }
        self.note_told(now);
        let Some((base, _, full)) = &self.full else { return self.state_all(links, now) };
        let changed: Vec<_> = self
            .told
            .iter()
            .filter(|(peer, link)| full.get(peer) != Some(link))
            .map(|(_, link)| *link)
            .collect();
        let removed: Vec<_> =
            full.keys().filter(|peer| !self.told.contains_key(peer)).copied().collect();
        if 2 * (changed.len() + removed.len()) > full.len() + 8 {
            return self.state_all(links, now);
        }
        self.seq += 1;
        Advert::Delta { seq: self.seq, base: *base, links: changed, removed }
    }

    fn note_told(&mut self, now: Timestamp) {
        self.told_at.rotate_right(1);
        self.told_at[0] = now;
    }

    /// The most urgent difference between what was told and what is.
    fn news(&self, links: &BTreeMap<PopKey, LinkStatement>) -> Option<News> {
        let gone = self.told.iter().any(|(peer, told)| told.up && !links.contains_key(peer));
        let turned = links.iter().any(|(peer, link)| match self.told.get(peer) {
            // Others lose what they send too large.
            Some(told) => told.up != link.up || link.max_packet < told.max_packet,
            None => link.up,
        });
        if gone || turned {
            return Some(News::Urgent);
        }
        let significant = links
            .iter()
            .any(|(peer, link)| self.told.get(peer).is_none_or(|told| differs(told, link)));
        significant.then_some(News::Significant)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum News {
    Urgent,
    Significant,
}

/// Whether `now` is far enough from `told` to matter to a route: 2 ms and a tenth of the delay, a
/// percentage point and a quarter of the loss, a tenth of the capacity.
fn differs(told: &LinkStatement, now: &LinkStatement) -> bool {
    let delay = now.delay_micros.abs_diff(told.delay_micros);
    let jitter = now.jitter.abs_diff(told.jitter);
    let loss = (now.loss - told.loss).abs();
    let capacity = now.capacity_kbps.abs_diff(told.capacity_kbps);
    // Load matters only as a share of a known capacity.
    let load = if now.capacity_kbps > 0 { now.load_kbps.abs_diff(told.load_kbps) } else { 0 };
    now.up != told.up
        || now.cost != told.cost
        || now.max_packet != told.max_packet
        || delay > 2_000.max(told.delay_micros.unsigned_abs() / 10)
        || jitter > Duration::from_millis(3).max(told.jitter / 2)
        || loss > 0.01_f32.max(told.loss / 4.0)
        || (told.loss == 0.0) != (now.loss == 0.0) && loss > 0.002
        || capacity > told.capacity_kbps / 10
        || load > now.capacity_kbps / 10
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

    fn links(of: &[LinkStatement]) -> BTreeMap<PopKey, LinkStatement> {
        of.iter().map(|link| (link.to, *link)).collect()
    }

    fn started(of: &[LinkStatement]) -> Advertiser {
        let mut advertiser = Advertiser::default();
        assert!(matches!(advertiser.poll(&links(of), at(0)), Some(Advert::Full { seq: 1, .. })));
        advertiser
    }

    #[test]
    fn nothing_new_is_told_once_a_minute() {
        let mut advertiser = started(&[link(A, 20)]);
        let same = links(&[link(A, 21)]);
        assert_eq!(advertiser.poll(&same, at(1_000)), None);
        assert_eq!(advertiser.poll(&same, at(59_999)), None);
        assert_eq!(advertiser.poll_timeout(), at(60_000));
        assert!(matches!(advertiser.poll(&same, at(60_000)), Some(Advert::Full { seq: 2, .. })));
    }

    #[test]
    fn significant_changes_are_told_at_most_twice_a_second() {
        let mut advertiser = started(&[link(A, 20), link(B, 5)]);
        let told = |advertiser: &mut Advertiser, delay, millis| {
            advertiser.poll(&links(&[link(A, delay), link(B, 6)]), at(millis))
        };
        assert_eq!(told(&mut advertiser, 30, 50), None, "it may change further");
        assert_eq!(
            told(&mut advertiser, 40, 100),
            Some(Advert::Delta { seq: 2, base: 1, links: vec![link(A, 40)], removed: vec![] })
        );
        let mut deltas = Vec::new();
        for step in 0..1_000 {
            let (delay, millis) = (if step % 2 == 0 { 80 } else { 20 }, 110 + 10 * step);
            if told(&mut advertiser, delay, millis).is_some() {
                deltas.push(millis);
            }
        }
        assert!(deltas.windows(2).all(|two| two[1] - two[0] >= 100), "{deltas:?}");
        assert!(deltas.windows(5).all(|five| five[4] - five[0] >= 2_000), "{deltas:?}");
        assert!((18..=22).contains(&deltas.len()), "{deltas:?}");
    }

    #[test]
    fn a_link_that_goes_down_or_away_is_told_at_once() {
        let mut advertiser = started(&[link(A, 20), link(B, 5)]);
        let down = LinkStatement { up: false, ..link(A, 20) };
        assert_eq!(
            advertiser.poll(&links(&[down, link(B, 5)]), at(1)),
            Some(Advert::Delta { seq: 2, base: 1, links: vec![down], removed: vec![] })
        );
        assert_eq!(
            advertiser.poll(&links(&[down]), at(2)),
            Some(Advert::Delta { seq: 3, base: 1, links: vec![down], removed: vec![B] }),
            "deltas are cumulative"
        );
        assert_eq!(advertiser.poll(&links(&[down]), at(3)), None);
    }

    #[test]
    fn another_largest_packet_is_told_and_a_smaller_one_at_once() {
        for (max_packet, at_once) in [(1_401, true), (1_403, false)] {
            let mut advertiser = started(&[link(A, 20), link(B, 5)]);
            let changed = LinkStatement { max_packet, ..link(A, 20) };
            let links = links(&[changed, link(B, 5)]);
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
        assert!(matches!(
            advertiser.poll(&links(&moved), at(500)),
            Some(Advert::Full { seq: 2, .. })
        ));
    }

    #[test]
    fn small_losses_count_where_there_were_none() {
        let clean = link(A, 20);
        for (loss, expected) in [(0.001, false), (0.003, true), (0.3, true)] {
            assert_eq!(differs(&clean, &LinkStatement { loss, ..clean }), expected, "{loss}");
        }
    }
}
