//! The control plane of one relay: link state in and out, routes from it.
//!
//! [`Control`] keeps the link-state database, verifies what comes into it, states what this relay
//! measures, and computes tables from all of it. It moves no packets and knows connections only by
//! the neighbour they lead to.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tradewind_proto::control::{DigestEntry, Message};
use tradewind_proto::link::{Liveness, Quality};
use tradewind_proto::statement::{
    Body, ClockCoordinate, LinkStatement, NodeState, Policy, ServiceStatement, SignedStatement,
    Statement,
};
use tradewind_proto::units::{Incarnation, PolicyId, PopId, PopKey, Timestamp};
use tradewind_router::clock::{ClockEstimator, ClockSample, Times, normalised};
use tradewind_router::lsdb::{Change, Cursor, Labels, Lsdb, Member, Rejected};
use tradewind_router::metric::Metric;
use tradewind_router::routes::{Router, RouterConfig};
use tradewind_router::tables::Tables;

use super::advertise::{Advert, Advertiser};
use crate::identity::{CertificateError, Identity, PeerCertificate, verify_signature};

/// How often link measurements are looked at. Worsening is to be seen within 250 ms.
pub const MEASURE_INTERVAL: Duration = Duration::from_millis(50);
/// How often neighbours hear what this relay has.
const DIGEST_INTERVAL: Duration = Duration::from_secs(1);
/// How often the relay's clock is compared with those of its neighbours.
const CLOCK_INTERVAL: Duration = Duration::from_secs(1);
/// After another time was taken over: until the link state shows it.
const ADOPTION_INTERVAL: Duration = Duration::from_secs(3);
/// What others state that can't wait is computed at once, but not more often than this: a member
/// that signs one such statement after the other costs no more than so many computations. ...
const URGENT_GAP: Duration = Duration::from_millis(5);
/// ... Longer by this for each member: with more of them a computation takes longer.
const URGENT_GAP_PER_MEMBER: Duration = Duration::from_micros(250);
/// What makes no route in use clearly worse is computed no more often than this for each member, ...
const CALM_GAP_PER_MEMBER: Duration = Duration::from_millis(5);
/// ... and this often in the largest overlays: where many have something to say, somebody always has,
/// and a route is left for one that is merely better after seconds only.
const LONGEST_CALM_GAP: Duration = Duration::from_secs(1);
/// The most policies remembered as wanted that no member defines.
const MAX_UNDEFINED_POLICIES: usize = 32;

/// Who can sign for this relay, and tell who signed for another.
pub trait Trust {
    /// This relay's certificate (DER).
    fn certificate(&self) -> Bytes;
    /// This relay's labels.
    fn labels(&self) -> Labels;
    /// Signs with this relay's key (Ed25519).
    fn sign(&self, body: &[u8]) -> [u8; 64];
    /// What `certificate` (DER) proves at `now`, or why it proves nothing.
    fn verify_certificate(
        &self,
        certificate: &[u8],
        now: Timestamp,
    ) -> Result<PeerCertificate, CertificateError>;
    /// Whether `signature` over `body` is by `public_key`.
    fn verify_signature(&self, public_key: &[u8; 32], body: &[u8], signature: &[u8; 64]) -> bool;
}

impl Trust for Rc<Identity> {
    fn certificate(&self) -> Bytes {
        Bytes::copy_from_slice(self.certificate_der())
    }

    fn labels(&self) -> Labels {
        Identity::labels(self).clone()
    }

    fn sign(&self, body: &[u8]) -> [u8; 64] {
        Identity::sign(self, body)
    }

    fn verify_certificate(
        &self,
        certificate: &[u8],
        now: Timestamp,
    ) -> Result<PeerCertificate, CertificateError> {
        self.authority().verify_certificate(certificate, now.as_micros() / 1_000_000)
    }

    fn verify_signature(&self, public_key: &[u8; 32], body: &[u8], signature: &[u8; 64]) -> bool {
        verify_signature(public_key, body, signature)
    }
}

/// What the relay says of itself beside its links.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SelfDescription {
    /// Where it can be dialled.
    pub addresses: Vec<String>,
    /// Degrees north and east.
    pub location: Option<(f32, f32)>,
    /// What can be reached there.
    pub services: Vec<ServiceStatement>,
    /// The rules that its flows obey.
    pub policies: Vec<Policy>,
    /// It is leaving.
    pub draining: bool,
}

/// One of the relay's own links as it is now.
#[derive(Clone, Copy, Debug)]
pub struct Measured {
    /// Where it leads.
    pub to: PopKey,
    /// Whether it carries packets.
    pub liveness: Liveness,
    /// How it was measured.
    pub quality: Quality,
    /// The largest packet that it carries, in bytes.
    pub max_packet: usize,
}

/// What was refused, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ControlCounters {
    /// Statements of this relay.
    pub statements_tx: u64,
    /// Statements received.
    pub statements_rx: u64,
    /// Of those, already known or older than what is known.
    pub stale: u64,
    /// Deltas whose full statement is unknown.
    pub unknown_base: u64,
    /// Certificates or signatures that prove nothing.
    pub forged: u64,
    /// Statements that could not be read.
    pub malformed: u64,
    /// Names whose key another relay has.
    pub collisions: u64,
    /// Statements beyond the limit on members.
    pub overflow: u64,
    /// Times that routes were computed.
    pub computations: u64,
}

/// What [`Control`] wants done.
#[derive(Debug)]
pub enum ControlOutput {
    /// Tell a neighbour.
    Tell(PopKey, Message),
    /// Routes changed.
    Tables(Arc<Tables>),
    /// Another relay was started anew.
    Restarted(PopKey, Incarnation),
    /// A newer start of this relay's own name runs elsewhere: stop.
    Replaced(Incarnation),
}

/// The control plane.
pub struct Control<T> {
    own: PopId,
    incarnation: Incarnation,
    trust: T,
    description: SelfDescription,
    lsdb: Lsdb,
    router: Router,
    clock: ClockEstimator,
    /// Whether the clock coordinate has begun.
    aligned: bool,
    /// When another time was taken over last.
    adopted_at: Timestamp,
    advertiser: Advertiser,
    /// Our own newest full statement, and the newest delta on it.
    stated: [Option<SignedStatement>; 2],
    /// What each neighbour was told and has.
    adjacent: BTreeMap<PopKey, Cursor>,
    /// Identities of members, so that a certificate is verified once. As many as members.
    known: BTreeMap<PopKey, (Bytes, Arc<PeerCertificate>)>,
    outputs: VecDeque<ControlOutput>,
    /// Whether routes are to be computed.
    dirty: bool,
    computed_at: Timestamp,
    /// Whether that can't wait longer than until the next measurement, ...
    pressing: bool,
    /// ... or than until `next_urgent`.
    urgent: bool,
    next_urgent: Timestamp,
    next_digest: Timestamp,
    next_alignment: Timestamp,
    counters: ControlCounters,
}

impl<T: Trust> Control<T> {
    /// The control plane of the relay `own`, alone so far.
    pub fn new(
        own: PopId,
        incarnation: Incarnation,
        description: SelfDescription,
        metric: Metric,
        trust: T,
        now: Timestamp,
    ) -> Self {
        let mut control = Self {
            lsdb: Lsdb::new(own.clone()),
            router: Router::new(own.clone(), RouterConfig { metric, ..RouterConfig::default() }),
            clock: ClockEstimator::new(),
            aligned: false,
            adopted_at: Timestamp::ZERO,
            own,
            incarnation,
            trust,
            description,
            advertiser: Advertiser::default(),
            stated: [None, None],
            adjacent: BTreeMap::new(),
            known: BTreeMap::new(),
            outputs: VecDeque::new(),
            dirty: true,
            computed_at: now,
            pressing: true,
            urgent: false,
            next_urgent: now,
            next_digest: now + DIGEST_INTERVAL,
            next_alignment: now,
            counters: ControlCounters::default(),
        };
        control.router.want_policy(PolicyId::NONE);
        for policy in control.description.policies.clone() {
            control.router.want_policy(policy.id());
        }
        control.handle_links(&[], now);
        control
    }

    /// Replaces what the relay says of itself, and tells everybody.
    pub fn describe(&mut self, description: SelfDescription) {
        for policy in &description.policies {
            self.router.want_policy(policy.id());
        }
        if self.description != description {
            self.description = description;
            self.advertiser.want_full();
        }
    }

    /// What the relay says of itself.
    pub fn description(&self) -> &SelfDescription {
        &self.description
    }

    /// What to tell at the other end of a new connection, without waiting for its hello: on a long
    /// link that would cost a round trip. Pass the cursor on to [`Self::handle_adjacent`].
    pub fn introduce(&self) -> (Cursor, Vec<Message>) {
        let mut cursor = Cursor::default();
        let messages = self.news_since(&mut cursor);
        (cursor, messages)
    }

    /// A neighbour said hello (or did anew): tell it what came since it was told up to `cursor`.
    pub fn handle_adjacent(&mut self, peer: PopKey, mut cursor: Cursor) {
        for message in self.news_since(&mut cursor) {
            self.outputs.push_back(ControlOutput::Tell(peer, message));
        }
        self.adjacent.insert(peer, cursor);
    }

    /// Our own statement goes first, so that the other end knows us before anything else.
    fn news_since(&self, cursor: &mut Cursor) -> Vec<Message> {
        let digest = self.lsdb.digest_since(cursor);
        let restated = digest.iter().any(|entry| entry.origin == self.own.key());
        let own = self.stated.iter().flatten().filter(|_| restated).cloned();
        let digest = (!digest.is_empty()).then_some(Message::Digest(digest));
        own.map(Message::Statement).chain(digest).collect()
    }

    /// The newest full statement held of `origin`, this relay included.
    pub fn newest_full(&self, origin: PopKey) -> Option<SignedStatement> {
        if origin == self.own.key() {
            return self.stated[0].clone();
        }
        self.lsdb.member(origin).map(|member| member.signed_full().clone())
    }

    /// A neighbour is gone.
    pub fn handle_lost(&mut self, peer: PopKey) {
        self.adjacent.remove(&peer);
        let news = self.router.set_suspect(peer, false);
        (self.dirty, self.pressing) = (self.dirty | news, self.pressing | news);
    }

    /// A neighbour passed on a statement.
    pub fn handle_statement(&mut self, peer: PopKey, signed: SignedStatement, now: Timestamp) {
        self.counters.statements_rx += 1;
        let Ok(statement) = signed.statement() else {
            self.counters.malformed += 1;
            return;
        };
        if let Some(cursor) = self.adjacent.get_mut(&peer) {
            cursor.heard(statement);
        }
        if !self.is_news(statement) {
            self.counters.stale += 1;
            return;
        }
        let Some((identity, statement)) = self.verified(&signed, statement, now) else {
            self.counters.forged += 1;
            return;
        };
        let (origin, incarnation) = (statement.origin.key(), statement.incarnation);
        let certificate = match &statement.body {
            Body::Full(state) => Some(state.certificate.clone()),
            Body::Delta { .. } => None,
        };
        match self.lsdb.insert(signed, statement, identity.labels(), now) {
            Ok(change) => {
                if let Some(certificate) = certificate {
                    self.known.insert(origin, (certificate, identity));
                }
                self.note(origin, change);
                if (change.joined || change.restarted) && peer == origin {
                    self.present(origin);
                }
                self.urgent |= change.down || change.joined || change.restarted;
                self.handle_timeout(now);
                if change.restarted {
                    self.outputs.push_back(ControlOutput::Restarted(origin, incarnation));
                }
            }
            Err(Rejected::Stale { .. }) => self.counters.stale += 1,
            Err(Rejected::UnknownBase { .. }) => self.counters.unknown_base += 1,
            Err(Rejected::KeyCollision { .. }) => self.counters.collisions += 1,
            Err(Rejected::Full { .. }) => self.counters.overflow += 1,
            Err(Rejected::OwnName { theirs, .. }) => {
                self.outputs.push_back(ControlOutput::Replaced(theirs));
            }
        }
    }

    /// A member said something that was taken. That somebody joined is urgent, and computed as such.
    /// What went down may be a detour's, so it presses in any case.
    fn note(&mut self, origin: PopKey, change: Change) {
        self.dirty |= change.is_visible();
        let presses = |member| change.links && self.router.presses(member);
        let pressing = change.node || change.down || self.lsdb.member(origin).is_some_and(presses);
        self.pressing |= pressing && !change.joined;
    }

    /// A newcomer, which we are the first to know, is passed on at once: those who want it as a
    /// neighbour should not wait for a digest.
    fn present(&mut self, newcomer: PopKey) {
        for (&peer, cursor) in &mut self.adjacent {
            for signed in self.lsdb.lacking_of(newcomer, cursor) {
                self.outputs.push_back(ControlOutput::Tell(peer, Message::Statement(signed)));
            }
        }
    }

    /// A cheap look before any signature is verified.
    fn is_news(&self, statement: &Statement) -> bool {
        let Some(member) = self.lsdb.member(statement.origin.key()) else { return true };
        (statement.incarnation, statement.seq) > (member.incarnation(), member.newest_seq())
    }

    /// The statement, if its origin really signed it, with the services that it may not advertise
    /// left out.
    fn verified(
        &self,
        signed: &SignedStatement,
        statement: &Arc<Statement>,
        now: Timestamp,
    ) -> Option<(Arc<PeerCertificate>, Arc<Statement>)> {
        let known = self.known.get(&statement.origin.key());
        let known = known.filter(|(_, identity)| *identity.id() == statement.origin);
        let identity = match &statement.body {
            Body::Full(state) if known.is_none_or(|(held, _)| *held != state.certificate) => {
                Arc::new(self.trust.verify_certificate(&state.certificate, now).ok()?)
            }
            _ => Arc::clone(&known?.1),
        };
        let in_force = now.as_micros() / 1_000_000 <= identity.not_after;
        let named = *identity.id() == statement.origin;
        let (body, signature) = (signed.body(), signed.signature());
        if !in_force
            || !named
            || !self.trust.verify_signature(&identity.public_key, body, signature)
        {
            return None;
        }
        let mut statement = Arc::clone(statement);
        if let (Body::Full(state), Some(allowed)) = (&statement.body, identity.services())
            && !state.services.iter().all(|service| allowed.contains(&service.name))
            && let Body::Full(state) = &mut Arc::make_mut(&mut statement).body
        {
            state.services.retain(|service| allowed.contains(&service.name));
        }
        Some((identity, statement))
    }

    /// A neighbour said what it has: send what it lacks.
    pub fn handle_digest(&mut self, peer: PopKey, digest: &[DigestEntry]) {
        let Some(cursor) = self.adjacent.get_mut(&peer) else { return };
        for signed in self.lsdb.lacking(peer, digest, cursor) {
            self.outputs.push_back(ControlOutput::Tell(peer, Message::Statement(signed)));
        }
    }

    /// The relay's own links were measured; call every [`MEASURE_INTERVAL`], and at once when a
    /// link comes or goes.
    pub fn handle_links(&mut self, links: &[Measured], now: Timestamp) {
        self.align_clock(links, now);
        let stated = links.iter().filter_map(|link| self.link_statement(link, now));
        let mut statements: Vec<_> = stated.collect();
        statements.sort_by_key(|link| link.to);
        if let Some(advert) = self.advertiser.poll(&statements, now) {
            self.state(advert, now);
        }
        if now >= self.next_digest {
            self.next_digest = now + DIGEST_INTERVAL;
            for origin in self.lsdb.expire(now) {
                self.known.remove(&origin.key());
                (self.dirty, self.pressing) = (true, true);
            }
            self.tell_digests();
        }
        let gap = (CALM_GAP_PER_MEMBER * self.members()).min(LONGEST_CALM_GAP);
        if self.pressing || now.since(self.computed_at) >= gap {
            self.dirty |= self.router.poll_timeout() <= now;
            self.recompute(now);
        }
    }

    fn align_clock(&mut self, links: &[Measured], now: Timestamp) {
        if self.aligned && now < self.next_alignment {
            return;
        }
        let samples: Vec<_> = links
            .iter()
            .filter_map(|Measured { to, quality, .. }| {
                Some(ClockSample {
                    peer: *to,
                    theirs: self.lsdb.member(*to)?.clock(),
                    raw_tx: quality.raw_delay_tx?,
                    raw_rx: quality.raw_delay_rx?,
                    rtt: quality.rtt?,
                })
            })
            .collect();
        if !self.aligned {
            if !self.may_align(links, &samples) {
                return;
            }
            self.aligned = true;
            self.advertiser.want_full();
        }
        self.next_alignment = now + CLOCK_INTERVAL;
        self.update_clock(samples, now);
    }

    /// Neighbours whose time can't be ours are followed or ignored: they, or we, are with the
    /// smaller part of the overlay.
    fn update_clock(&mut self, samples: Vec<ClockSample>, now: Timestamp) {
        let (agreeing, others): (Vec<_>, Vec<_>) =
            samples.into_iter().partition(|sample| self.clock.agrees(sample, now));
        if !others.is_empty() && now.since(self.adopted_at) >= ADOPTION_INTERVAL {
            let (own, times) = (self.own.key(), Times::new(&self.lsdb));
            let right = others.iter().filter(|sample| times.follows(own, sample.peer));
            if let Some(nearest) = right.min_by_key(|sample| sample.rtt) {
                self.clock.adopt(nearest, now);
                self.adopted_at = now;
                self.advertiser.want_full();
                return;
            }
        }
        self.clock.update(&agreeing, now);
    }

    /// A relay that has just started takes over the time of its neighbours. Of several that start
    /// together the one with the smallest key sets the time and the others wait for it: clocks that
    /// are far apart would take minutes to meet halfway.
    fn may_align(&self, links: &[Measured], samples: &[ClockSample]) -> bool {
        let stated = samples.iter().any(|sample| sample.theirs != ClockCoordinate::default());
        let first = links.iter().all(|link| self.own.key() < link.to);
        stated || (first && !samples.is_empty())
    }

    /// What to say of one link; nothing before it was measured.
    fn link_statement(&self, link: &Measured, now: Timestamp) -> Option<LinkStatement> {
        let Measured { to, liveness, quality, max_packet } = link;
        let rtt = quality.rtt?;
        let own = self.clock.coordinate(now);
        let theirs = self.lsdb.member(*to)?.clock();
        Some(LinkStatement {
            to: *to,
            up: !matches!(liveness, Liveness::Down | Liveness::Starting),
            delay_micros: normalised(quality.raw_delay_tx?, &own, &theirs, now),
            jitter: quality.jitter_tx,
            rtt,
            loss: quality.loss_tx_at_most,
            burst: quality.burst_tx,
            capacity_kbps: quality.capacity_bps.map_or(0, kbps),
            load_kbps: kbps(quality.demand_bps),
            cost: Duration::ZERO,
            max_packet: u16::try_from(*max_packet).unwrap_or(u16::MAX),
        })
    }

    /// Signs and spreads a statement.
    fn state(&mut self, advert: Advert, now: Timestamp) {
        let clock = self.clock.coordinate(now);
        let is_full = matches!(advert, Advert::Full { .. });
        let (seq, body) = match advert {
            Advert::Full { seq, links } => (seq, Body::Full(self.node_state(links, now))),
            Advert::Delta { seq, base, links, removed } => {
                (seq, Body::Delta { base, clock, links, removed })
            }
        };
        let statement =
            Statement { origin: self.own.clone(), incarnation: self.incarnation, seq, body };
        let body = statement.encode();
        let signature = self.trust.sign(&body);
        let signed = SignedStatement::new(body, signature);
        self.counters.statements_tx += 1;
        self.stated = match std::mem::take(&mut self.stated) {
            [full, _] if !is_full => [full, Some(signed.clone())],
            _ => [Some(signed.clone()), None],
        };
        for &peer in self.adjacent.keys() {
            self.outputs.push_back(ControlOutput::Tell(peer, Message::Statement(signed.clone())));
        }
        let inserted = self.lsdb.insert(signed, Arc::new(statement), &self.trust.labels(), now);
        debug_assert!(inserted.is_ok(), "{inserted:?}");
        self.note(self.own.key(), inserted.unwrap_or_default());
    }

    fn node_state(&self, links: Vec<LinkStatement>, now: Timestamp) -> NodeState {
        let description = self.description.clone();
        NodeState {
            certificate: self.trust.certificate(),
            addresses: description.addresses,
            location: description.location,
            services: description.services,
            policies: description.policies,
            draining: description.draining,
            load_permille: 0,
            clock: self.clock.coordinate(now),
            sealing_key: None,
            links,
        }
    }

    fn tell_digests(&mut self) {
        let mut digests = self.lsdb.digests();
        for (&peer, cursor) in &mut self.adjacent {
            let digest = Message::Digest(digests.since(cursor));
            self.outputs.push_back(ControlOutput::Tell(peer, digest));
        }
    }

    /// Routes under `policy` are needed: computes them at once, or when a member defines it. Packets
    /// may name what nobody defines: that costs no computation and little room.
    pub fn want_policy(&mut self, policy: PolicyId, now: Timestamp) {
        let defines = |member: &Member| member.policies().any(|(id, _)| id == policy);
        let defined = self.lsdb.members().any(defines);
        if !defined && self.router.unknown_policies().count() >= MAX_UNDEFINED_POLICIES {
            return;
        }
        if self.router.want_policy(policy) && defined {
            self.dirty = true;
            self.recompute(now);
        }
    }

    /// Two ways to `to` that share no relay between are needed: computes them at once.
    pub fn want_pair(&mut self, policy: PolicyId, to: PopKey, now: Timestamp) {
        if self.router.want_pair(policy, to) {
            self.dirty = true;
            self.recompute(now);
        }
    }

    /// Whether any two ways are computed.
    pub fn has_pairs(&self) -> bool {
        self.router.has_pairs()
    }

    /// No other two ways than these are needed any more.
    pub fn keep_pairs(&mut self, used: &BTreeSet<(PolicyId, PopKey)>) {
        self.router.keep_pairs(used);
    }

    /// A link of this relay turned suspect or sound again.
    pub fn set_suspect(&mut self, peer: PopKey, suspect: bool, now: Timestamp) {
        if self.router.set_suspect(peer, suspect) {
            self.dirty = true;
            self.recompute(now);
        }
    }

    /// Computes what can't wait, if it is time to.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        if self.poll_timeout() <= now {
            self.next_urgent = now + URGENT_GAP + URGENT_GAP_PER_MEMBER * self.members();
            self.recompute(now);
        }
    }

    fn members(&self) -> u32 {
        u32::try_from(self.lsdb.members().len()).unwrap_or(u32::MAX)
    }

    /// When to call [`Self::handle_timeout`], beside the calls of [`Self::handle_links`].
    pub fn poll_timeout(&self) -> Timestamp {
        if self.urgent { self.next_urgent } else { Timestamp::NEVER }
    }

    /// Computes routes if something changed.
    pub fn recompute(&mut self, now: Timestamp) {
        (self.urgent, self.pressing, self.computed_at) = (false, false, now);
        if std::mem::take(&mut self.dirty) {
            self.counters.computations += 1;
            self.router.update(&self.lsdb, now);
            self.outputs.push_back(ControlOutput::Tables(self.router.tables()));
        }
    }

    /// What is wanted, oldest first.
    pub fn poll_output(&mut self) -> Option<ControlOutput> {
        self.outputs.pop_front()
    }

    /// Everybody's link state.
    pub fn lsdb(&self) -> &Lsdb {
        &self.lsdb
    }

    /// Routes, and why.
    pub fn router(&self) -> &Router {
        &self.router
    }

    /// What was refused, by reason.
    pub fn counters(&self) -> &ControlCounters {
        &self.counters
    }

    /// Who signs and verifies.
    pub fn trust(&self) -> &T {
        &self.trust
    }
}

fn kbps(bps: u64) -> u32 {
    u32::try_from(bps / 1000).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
