//! The two directions of one flow at one of its ends, the same at ingress and egress.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;

use tradewind_proto::flow::receiver::{FlowCounters, FlowReceiver};
use tradewind_proto::packet::{Fragment, Header, Open, PacketKind, Path, Signal};
use tradewind_proto::units::{Budget, FlowId, FlowSeq, Timestamp};

use super::counters::{DropReason, Tally};
use super::info::{FlowWarning, PathLog};
use super::outbox::Outbox;
use super::routes::{Alone, Terms, Ways};

/// Delay that comes over a path and stays for so long is there to stay.
const STANDING: Duration = Duration::from_secs(5);

/// What leaves.
#[derive(Clone, Debug, Default)]
pub(super) struct Outgoing {
    next_seq: FlowSeq,
    last: Option<(Ways, Duration)>,
    /// Since when the path would need more time than it is given.
    strained_since: Option<Timestamp>,
    pub(super) packets: u64,
    pub(super) bytes: u64,
    /// Why the last packet was not sent, if it wasn't.
    pub(super) blocked: Option<DropReason>,
}

impl Outgoing {
    /// Numbers from the time of the opening, in units of 64 us. An egress that restarts may see the
    /// same flow opened again, by a packet that was still under way: its numbers must not be those
    /// that the ingress has seen from its predecessor.
    pub(super) fn starting_at(now: Timestamp) -> Self {
        Self { next_seq: FlowSeq((now.as_micros() >> 6) as u32), ..Self::default() }
    }

    /// The header of the next packet over `ways`.
    pub(super) fn header(
        &mut self,
        flow: FlowId,
        reverse: bool,
        terms: &Terms,
        ways: Ways,
        now: Timestamp,
    ) -> Header {
        let used = self.deadline(&ways, terms, now);
        self.last = Some((ways, used));
        Header {
            kind: PacketKind::Data,
            class: terms.class,
            reverse,
            key_epoch: 0,
            policy: terms.policy,
            flow,
            seq: self.next_seq,
            fragment: Fragment::WHOLE,
            sent_at: now.wire(),
            budget: Budget::new(used),
            path: ways.path,
            open: None,
        }
    }

    /// The deadline to work with. A queue that comes over a path is no reason to wait for it: only
    /// what stands longer is the path's own delay.
    fn deadline(&mut self, ways: &Ways, terms: &Terms, now: Timestamp) -> Duration {
        let wanted = ways.stretch(terms.deadline);
        let before = self.last.filter(|(last, _)| last.path == ways.path).map(|(_, used)| used);
        let Some(before) = before.filter(|before| wanted > *before) else {
            self.strained_since = None;
            return wanted;
        };
        let since = *self.strained_since.get_or_insert(now);
        if now.since(since) < STANDING { before } else { wanted }
    }

    /// Sends a user's packet with the next sequence number, which `header` has.
    pub(super) fn send(
        &mut self,
        header: Header,
        open: Option<Open>,
        ways: &Ways,
        payload: Bytes,
        out: &mut Outbox,
    ) -> Result<(), DropReason> {
        let bytes = payload.len() as u64;
        out.send(Header { open, ..header }, ways, payload)?;
        self.next_seq = self.next_seq.next();
        self.packets += 1;
        self.bytes += bytes;
        Ok(())
    }

    /// Says that the flow is over, by the way that its last packet took.
    pub(super) fn farewell(
        &mut self,
        flow: FlowId,
        terms: &Terms,
        now: Timestamp,
        out: &mut Outbox,
    ) {
        if let Some((ways, _)) = self.last {
            let header = self.header(flow, false, terms, ways, now);
            out.signal(header, &ways, Signal::Reset);
        }
    }

    /// Numbers from the start, for a flow with a new id.
    pub(super) const fn restart(&mut self) {
        self.next_seq = FlowSeq(0);
    }

    pub(super) fn paths(&self) -> (Option<Path>, Option<Path>) {
        self.last.map_or((None, None), |(ways, _)| (Some(ways.path), ways.copy))
    }

    pub(super) fn deadline_used(&self, terms: &Terms) -> Duration {
        self.last.map_or(terms.deadline, |(_, used)| used)
    }

    pub(super) fn warnings(&self, terms: &Terms) -> Vec<FlowWarning> {
        let Some((ways, used)) = self.last else { return Vec::new() };
        let configured = terms.deadline;
        let stretched = FlowWarning::DeadlineStretched { configured, used };
        let alone = ways.alone == Some(Alone::Impossible);
        let warnings = [(used > configured, stretched), (alone, FlowWarning::NoPair)];
        warnings.into_iter().filter(|&(holds, _)| holds).map(|(_, warning)| warning).collect()
    }
}

/// What arrives.
#[derive(Clone, Debug, Default)]
pub(super) struct Incoming {
    receiver: FlowReceiver,
    /// Where the flow stands among those that wait for fragments, if it does.
    due: Option<Timestamp>,
    pub(super) paths: PathLog,
    pub(super) packets: u64,
    pub(super) bytes: u64,
}

impl Incoming {
    /// Takes a packet and gives the payload that it completes.
    pub(super) fn receive<K: Ord + Copy>(
        &mut self,
        key: K,
        header: &Header,
        payload: Bytes,
        drops: &mut Tally<'_>,
        waiting: &mut Waiting<K>,
        now: Timestamp,
    ) -> Option<Bytes> {
        self.paths.record(&header.path, now);
        if header.fragment.count > 1 && self.due.is_none() && waiting.is_full() {
            drops.add(DropReason::ReassemblyFull, 1);
            return None;
        }
        let before = self.receiver.counters();
        let expires = now + header.budget.span();
        let whole = self.receiver.receive(header.seq, header.fragment, payload, expires, now);
        note(&before, &self.receiver.counters(), drops);
        if let Some(whole) = &whole {
            self.packets += 1;
            self.bytes += whole.len() as u64;
        }
        if header.fragment.count > 1 {
            self.wait(key, waiting);
        }
        whole
    }

    /// Gives up payloads that are incomplete at their deadline; to be called at the flow's turn in
    /// `waiting`, from which it has been taken.
    pub(super) fn expire<K: Ord + Copy>(
        &mut self,
        key: K,
        drops: &mut Tally<'_>,
        waiting: &mut Waiting<K>,
        now: Timestamp,
    ) {
        self.due = None;
        let before = self.receiver.counters();
        self.receiver.handle_timeout(now);
        note(&before, &self.receiver.counters(), drops);
        self.wait(key, waiting);
    }

    /// Forgets what was received, for a flow with a new id or none.
    pub(super) fn restart<K: Ord + Copy>(&mut self, key: K, waiting: &mut Waiting<K>) {
        if let Some(due) = self.due.take() {
            waiting.flows.remove(&(due, key));
        }
        self.receiver = FlowReceiver::new();
    }

    fn wait<K: Ord + Copy>(&mut self, key: K, waiting: &mut Waiting<K>) {
        let due = self.receiver.poll_timeout();
        if self.due.is_none() && due != Timestamp::NEVER {
            // The receiver gives up what expired *before* the time it is told.
            let due = due + Duration::from_micros(1);
            waiting.flows.insert((due, key));
            self.due = Some(due);
        }
    }
}

fn note(before: &FlowCounters, after: &FlowCounters, drops: &mut Tally<'_>) {
    drops.add(DropReason::Duplicate, after.duplicates - before.duplicates);
    drops.add(DropReason::TooOld, after.too_old - before.too_old);
    drops.add(DropReason::BadFragment, after.refused - before.refused);
    drops.add(DropReason::Incomplete, after.expired_partial - before.expired_partial);
}

/// The flows that wait for fragments: bounded, as each may hold 256 KiB.
#[derive(Clone, Debug)]
pub(super) struct Waiting<K> {
    flows: BTreeSet<(Timestamp, K)>,
    most: usize,
}

impl<K: Ord + Copy> Waiting<K> {
    pub(super) const fn new(most: usize) -> Self {
        Self { flows: BTreeSet::new(), most }
    }

    fn is_full(&self) -> bool {
        self.flows.len() >= self.most
    }

    /// The next flow whose turn it is.
    pub(super) fn pop(&mut self, now: Timestamp) -> Option<K> {
        self.flows.first().filter(|&&(at, _)| at <= now)?;
        self.flows.pop_first().map(|(_, key)| key)
    }

    pub(super) fn poll_timeout(&self) -> Timestamp {
        self.flows.first().map_or(Timestamp::NEVER, |&(at, _)| at)
    }
}
