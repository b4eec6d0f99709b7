//! Whom to dial, and when again.
//!
//! A relay dials the peers of its configuration and, of the members that it learns of, those that
//! the mesh wants it to be a neighbour of. Between two relays the one that started later dials at
//! once (it is the newcomer; of two started in the same millisecond the one with the larger key),
//! the other only after [`PATIENCE`]; so most links are dialled once.
//! Who stays when both dialled nevertheless is decided in [`super::neighbour`].

use std::collections::BTreeMap;
use std::time::Duration;

use tradewind_proto::units::{PopKey, Timestamp};

/// How long the relay that started earlier waits to be dialled by the later one.
pub const PATIENCE: Duration = Duration::from_secs(2);
/// The first wait after a failed attempt; it doubles each time.
const FIRST_BACKOFF: Duration = Duration::from_millis(250);
/// The longest wait: a relay that comes back is in use again within 3 s.
const LONGEST_BACKOFF: Duration = Duration::from_secs(1);
/// After this many failures in a row the wait grows further, up to [`LONG_BACKOFF`].
const PATIENT_FAILURES: u32 = 60;
/// A connection that ended earlier counts as a failed attempt: the other end refuses it.
const SHORT_LIVED: Duration = Duration::from_secs(2);
/// The wait for an address that has not answered for long.
const LONG_BACKOFF: Duration = Duration::from_secs(10);
/// The most addresses that are dialled; more are ignored.
const MAX_TARGETS: usize = 4096;

/// An address that the relay wants a connection to.
#[derive(Debug)]
struct Target {
    /// Who answered there last, or who is said to be there.
    peer: Option<PopKey>,
    /// Who answered there is a neighbour still: whatever others say, it is nobody else's address.
    answered: bool,
    /// From the configuration: dialled until reached, whoever is there.
    configured: bool,
    failures: u32,
    next_try: Timestamp,
    /// An attempt is under way.
    dialling: bool,
}

/// The addresses that this relay dials.
#[derive(Debug)]
pub struct Dialler {
    own: PopKey,
    targets: BTreeMap<String, Target>,
}

impl Dialler {
    /// Dials nobody yet.
    pub fn new(own: PopKey) -> Self {
        Self { own, targets: BTreeMap::new() }
    }

    /// Replaces the configured peers; those already connected stay so.
    pub fn set_configured(&mut self, addresses: &[String], now: Timestamp) {
        self.targets.retain(|address, target| !target.configured || addresses.contains(address));
        for address in addresses.iter().take(MAX_TARGETS) {
            let target = self.targets.entry(address.clone()).or_insert(Target::new(None, now));
            target.configured = true;
        }
    }

    /// The members that should be neighbours, with an address each and the earliest time to dial.
    /// Learned addresses that are not among them are forgotten.
    pub fn set_learned<'a>(
        &mut self,
        wanted: impl Iterator<Item = (PopKey, &'a str, Timestamp)>,
        now: Timestamp,
    ) {
        let mut keep = Vec::new();
        for (peer, address, not_before) in wanted.take(MAX_TARGETS) {
            let target = self
                .targets
                .entry(address.to_owned())
                .or_insert_with(|| Target::new(Some(peer), not_before.max(now)));
            if !target.dialling && !target.answered {
                target.peer = Some(peer);
            }
            keep.push(address);
        }
        keep.sort_unstable();
        self.targets.retain(|address, target| {
            target.configured || target.dialling || keep.binary_search(&address.as_str()).is_ok()
        });
    }

    /// The next address to dial now, given who is connected already.
    pub fn poll_dial(
        &mut self,
        connected: impl Fn(PopKey) -> bool,
        now: Timestamp,
    ) -> Option<String> {
        let own = self.own;
        let due = self.targets.iter_mut().find(|(_, target)| {
            target.due(own) && target.next_try <= now && !target.peer.is_some_and(&connected)
        });
        due.map(|(address, target)| {
            target.dialling = true;
            address.clone()
        })
    }

    /// The attempt succeeded: `peer` is there, and a neighbour as soon as it said hello. Should it
    /// be refused instead it is not dialled again at once.
    pub fn handle_connected(&mut self, address: &str, peer: PopKey, now: Timestamp) {
        if let Some(target) = self.targets.get_mut(address) {
            target.dialling = false;
            target.next_try = now + LONGEST_BACKOFF;
            (target.peer, target.answered) = (Some(peer), true);
        }
    }

    /// The attempt failed.
    pub fn handle_failed(&mut self, address: &str, now: Timestamp) {
        if let Some(target) = self.targets.get_mut(address) {
            target.dialling = false;
            target.failures = target.failures.saturating_add(1);
            target.next_try = now + target.backoff();
        }
    }

    /// The connection to `peer`, which lived for so long, ended: dial it again soon, but ever
    /// later if it keeps ending at once.
    pub fn handle_lost(&mut self, peer: PopKey, lived: Duration, now: Timestamp) {
        for target in self.targets.values_mut().filter(|target| target.peer == Some(peer)) {
            let failures = if lived < SHORT_LIVED { target.failures } else { 0 };
            target.failures = failures.saturating_add(1);
            target.next_try = now + target.backoff();
            target.answered = false;
        }
    }

    /// Whether `peer` was found at a configured address.
    pub fn is_configured(&self, peer: PopKey) -> bool {
        self.targets.values().any(|target| target.configured && target.peer == Some(peer))
    }

    /// When [`Self::poll_dial`] may have something, given who is connected already.
    pub fn poll_timeout(&self, connected: impl Fn(PopKey) -> bool) -> Timestamp {
        let waiting = self
            .targets
            .values()
            .filter(|target| target.due(self.own) && !target.peer.is_some_and(&connected));
        waiting.map(|target| target.next_try).min().unwrap_or(Timestamp::NEVER)
    }
}

impl Target {
    fn new(peer: Option<PopKey>, next_try: Timestamp) -> Self {
        Self { peer, answered: false, configured: false, failures: 0, next_try, dialling: false }
    }

    /// Whether it may be dialled at all; an address that turned out to be our own never is.
    fn due(&self, own: PopKey) -> bool {
        !self.dialling && self.peer != Some(own)
    }

    fn backoff(&self) -> Duration {
        if self.failures > PATIENT_FAILURES {
            return LONG_BACKOFF;
        }
        FIRST_BACKOFF.saturating_mul(1 << (self.failures - 1).min(8)).min(LONGEST_BACKOFF)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: PopKey = PopKey(1);
    const B: PopKey = PopKey(2);

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_micros(millis * 1000)
    }

    fn nobody(_: PopKey) -> bool {
        false
    }

    #[test]
    fn a_failing_peer_is_dialled_again_within_a_second_at_first() {
        let mut dialler = Dialler::new(A);
        dialler.set_configured(&["b:1".into()], at(0));
        let (mut now, mut waits) = (at(0), Vec::new());
        for _ in 0..6 {
            assert_eq!(dialler.poll_dial(nobody, now).as_deref(), Some("b:1"));
            assert_eq!(dialler.poll_dial(nobody, now), None, "already under way");
            dialler.handle_failed("b:1", now);
            let wake = dialler.poll_timeout(nobody);
            waits.push(wake.since(now).as_millis());
            now = wake;
        }
        assert_eq!(waits, [250, 500, 1000, 1000, 1000, 1000]);
    }

    #[test]
    fn connected_peers_are_left_alone_until_lost() {
        let mut dialler = Dialler::new(A);
        dialler.set_configured(&["b:1".into()], at(0));
        dialler.poll_dial(nobody, at(0));
        dialler.handle_connected("b:1", B, at(0));
        assert_eq!(dialler.poll_dial(|peer| peer == B, at(60_000)), None);
        assert_eq!(dialler.poll_timeout(|peer| peer == B), Timestamp::NEVER);
        dialler.handle_lost(B, Duration::from_secs(60), at(60_000));
        assert_eq!(dialler.poll_dial(nobody, at(60_100)), None);
        assert_eq!(dialler.poll_dial(nobody, at(60_250)).as_deref(), Some("b:1"));
    }

    #[test]
    fn a_peer_that_ends_every_connection_at_once_is_dialled_ever_later() {
        let mut dialler = Dialler::new(A);
        dialler.set_configured(&["b:1".into()], at(0));
        let (mut now, mut waits) = (at(0), Vec::new());
        for lived in [10, 10, 10, 2_000, 10] {
            assert!(dialler.poll_dial(nobody, now).is_some());
            dialler.handle_connected("b:1", B, now);
            now = now + Duration::from_millis(lived);
            dialler.handle_lost(B, Duration::from_millis(lived), now);
            waits.push(dialler.poll_timeout(nobody).since(now).as_millis());
            now = dialler.poll_timeout(nobody);
        }
        assert_eq!(waits, [250, 500, 1000, 250, 500]);
    }

    #[test]
    fn a_connection_is_given_time_to_say_hello() {
        let mut dialler = Dialler::new(A);
        dialler.set_configured(&["b:1".into()], at(0));
        dialler.poll_dial(nobody, at(0));
        dialler.handle_connected("b:1", B, at(5));
        assert_eq!(dialler.poll_dial(nobody, at(1004)), None);
        // It was refused, or the other end says nothing.
        assert_eq!(dialler.poll_timeout(nobody), at(1005));
        assert_eq!(dialler.poll_dial(nobody, at(1005)).as_deref(), Some("b:1"));
    }

    #[test]
    fn an_address_that_is_our_own_is_never_dialled_again() {
        let mut dialler = Dialler::new(A);
        dialler.set_configured(&["a:1".into()], at(0));
        dialler.poll_dial(nobody, at(0));
        dialler.handle_connected("a:1", A, at(0));
        assert_eq!(dialler.poll_dial(nobody, at(600_000)), None);
    }

    #[test]
    fn an_address_that_another_claims_is_not_dialled_while_its_owner_is_connected() {
        let mut dialler = Dialler::new(A);
        let (owner, liar) = (B, PopKey(3));
        let learned = [(owner, "b:1", at(0)), (liar, "b:1", at(0))];
        dialler.set_learned(learned.into_iter(), at(0));
        assert!(dialler.poll_dial(nobody, at(0)).is_some());
        dialler.handle_connected("b:1", owner, at(5));
        for second in 1..10 {
            dialler.set_learned(learned.into_iter(), at(second * 1000));
            assert_eq!(dialler.poll_dial(|peer| peer == owner, at(second * 1000)), None);
        }
        dialler.handle_lost(owner, Duration::from_secs(10), at(10_000));
        dialler.set_learned(learned[1..].iter().copied(), at(10_000));
        assert!(dialler.poll_dial(nobody, at(10_250)).is_some(), "it may have moved in since");
    }

    #[test]
    fn learned_members_wait_their_turn_and_can_be_forgotten() {
        let mut dialler = Dialler::new(A);
        dialler.set_learned([(B, "b:1", at(2000))].into_iter(), at(0));
        assert_eq!(dialler.poll_dial(nobody, at(1999)), None);
        assert_eq!(dialler.poll_timeout(nobody), at(2000));
        dialler.set_learned(std::iter::empty(), at(1000));
        assert_eq!(dialler.poll_dial(nobody, at(3000)), None);
    }
}
