//! What both halves of the edge share: the queue of outputs, the cutting of packets, signals, and
//! the counters.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;

use tradewind_proto::flow::fragment::{MAX_PAYLOAD, fragments};
use tradewind_proto::packet::{Fragment, Header, PacketKind, Path, Signal};
use tradewind_proto::units::{Budget, FlowId, FlowSeq, PolicyId, PopKey, Timestamp};

use super::counters::{DropReason, EdgeCounters};
use super::routes::{Alone, Ways};
use super::{EdgeLimits, EdgeOutput, LocalOutput};

/// Bytes kept free in every packet, for the two hops that a detour may insert.
pub const DETOUR_ROOM: usize = 2 * size_of::<PopKey>();
/// How long a signal that answers a packet of no known flow may take.
const SIGNAL_DEADLINE: Duration = Duration::from_secs(1);
/// The same signal about the same flow is sent at most this often.
pub(super) const SIGNAL_GAP: Duration = Duration::from_millis(20);
/// Routes that are still missing are asked for again after this long.
const WISH_GAP: Duration = Duration::from_secs(1);
/// The most wishes that are remembered at a time.
const MAX_WISHES: usize = 64;

/// Routes that the driver was asked for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Wish {
    Policy(PolicyId),
    Pair(PolicyId, PopKey),
}

pub(super) struct Outbox {
    own: PopKey,
    /// At most `limits.outputs` packets, and signals to the driver that are bounded by the flows.
    queue: VecDeque<EdgeOutput>,
    max_queue: usize,
    recent: RecentSignals,
    /// What was asked for, and when. At most [`MAX_WISHES`].
    wishes: BTreeMap<Wish, Timestamp>,
    pub(super) counters: EdgeCounters,
}

impl Outbox {
    pub(super) fn new(own: PopKey, limits: &EdgeLimits) -> Self {
        Self {
            own,
            queue: VecDeque::new(),
            max_queue: limits.outputs,
            recent: RecentSignals::new(),
            wishes: BTreeMap::new(),
            counters: EdgeCounters::default(),
        }
    }

    pub(super) const fn own(&self) -> PopKey {
        self.own
    }

    pub(super) fn pop(&mut self) -> Option<EdgeOutput> {
        self.queue.pop_front()
    }

    pub(super) fn drop(&mut self, reason: DropReason) {
        self.counters.drops.add(reason, 1);
    }

    /// Queues something that must not get lost and of which each flow or policy causes one.
    pub(super) fn push(&mut self, output: EdgeOutput) {
        self.queue.push_back(output);
    }

    /// Queues a packet for a local socket.
    pub(super) fn hand_out(&mut self, output: LocalOutput) -> Result<(), DropReason> {
        self.room_for(1)?;
        self.queue.push_back(EdgeOutput::Local(output));
        Ok(())
    }

    /// Puts a payload into the overlay over `ways`, whose path the header has. It is cut if a link
    /// could not carry it together with its header and the hops of a detour; both copies are cut
    /// alike, so that pieces of one fill gaps of the other.
    pub(super) fn send(
        &mut self,
        mut header: Header,
        ways: &Ways,
        payload: Bytes,
    ) -> Result<(), DropReason> {
        if payload.len() > MAX_PAYLOAD {
            return Err(DropReason::TooLarge);
        }
        let hops = header.path.pops().len();
        let longer = ways.copy.map_or(0, |copy| copy.pops().len().saturating_sub(hops));
        let used = header.encoded_len() + DETOUR_ROOM + longer * size_of::<PopKey>();
        let most = ways.max_packet.saturating_sub(used);
        header.fragment = Fragment::WHOLE;
        if payload.len() <= most {
            self.room_for(2)?;
            self.send_copies(header, ways.copy, payload);
            return Ok(());
        }
        let pieces = fragments(payload, most).ok_or(DropReason::TooLarge)?;
        self.room_for(2 * pieces.len())?;
        for (fragment, piece) in pieces {
            self.send_copies(Header { fragment, ..header.clone() }, ways.copy, piece);
        }
        Ok(())
    }

    fn send_copies(&mut self, header: Header, copy: Option<Path>, payload: Bytes) {
        let Some(path) = copy else { return self.push_packet(header, payload) };
        let kind = match header.kind {
            PacketKind::Data => PacketKind::Twin,
            kind => kind,
        };
        self.push_packet(Header { path, kind, ..header.clone() }, payload.clone());
        self.push_packet(Header { kind, ..header }, payload);
    }

    fn push_packet(&mut self, header: Header, payload: Bytes) {
        self.counters.overlay_tx += 1;
        self.queue.push_back(EdgeOutput::Send { header, payload });
    }

    fn room_for(&self, packets: usize) -> Result<(), DropReason> {
        let fits = self.queue.len() + packets <= self.max_queue;
        if fits { Ok(()) } else { Err(DropReason::Backlog) }
    }

    /// Sends a signal of a flow; those stand outside the flow's sequence, as they may be repeated.
    pub(super) fn signal(&mut self, header: Header, ways: &Ways, signal: Signal) {
        let header = Header { kind: PacketKind::Signal, seq: FlowSeq(0), open: None, ..header };
        match self.send(header, ways, encoded(signal)) {
            Ok(()) => self.counters.signals_tx += 1,
            Err(reason) => self.drop(reason),
        }
    }

    /// Answers a packet of a flow that is not known (any more) with a signal over the way it came:
    /// the policy allowed that way, and nothing else is known of the flow. Never answers a signal,
    /// and one flow only once in [`SIGNAL_GAP`].
    pub(super) fn reply(&mut self, to: &Header, signal: Signal, now: Timestamp) {
        if to.kind == PacketKind::Signal {
            return;
        }
        if !self.recent.admit(to.flow, now) {
            self.counters.signals_held += 1;
            return;
        }
        let ways = Ways::over(to.path.reversed());
        let header = Header {
            kind: PacketKind::Signal,
            class: to.class,
            reverse: !to.reverse,
            key_epoch: 0,
            policy: to.policy,
            flow: to.flow,
            seq: FlowSeq(0),
            fragment: Fragment::WHOLE,
            sent_at: now.wire(),
            budget: Budget::new(SIGNAL_DEADLINE),
            path: ways.path,
            open: None,
        };
        self.signal(header, &ways, signal);
    }

    /// Asks the driver for routes under a policy, unless it was asked a moment ago.
    pub(super) fn want(&mut self, policy: PolicyId, now: Timestamp) {
        if self.wish(Wish::Policy(policy), now) {
            self.push(EdgeOutput::WantPolicy(policy));
        }
    }

    /// Asks the driver for the pair to `to` that `ways` lacks, if it lacks one that nobody has
    /// looked for, unless it was asked a moment ago.
    pub(super) fn want_pair(&mut self, ways: &Ways, policy: PolicyId, to: PopKey, now: Timestamp) {
        if ways.alone == Some(Alone::Unasked) && self.wish(Wish::Pair(policy, to), now) {
            self.push(EdgeOutput::WantPair(policy, to));
        }
    }

    /// Whether this is to be asked for now.
    fn wish(&mut self, wish: Wish, now: Timestamp) -> bool {
        let waiting = |asked: Timestamp| now < asked + WISH_GAP;
        if self.wishes.get(&wish).is_some_and(|&asked| waiting(asked)) {
            return false;
        }
        if self.wishes.len() >= MAX_WISHES {
            self.wishes.retain(|_, asked| waiting(*asked));
        }
        if self.wishes.len() >= MAX_WISHES {
            self.counters.wishes_held += 1;
            return false;
        }
        self.wishes.insert(wish, now);
        true
    }
}

fn encoded(signal: Signal) -> Bytes {
    let mut bytes = Vec::with_capacity(16);
    signal.encode(&mut bytes);
    bytes.into()
}

/// The flows that lately had a signal without being known: a table of fixed size, in which a
/// flow overwrites another that falls on its slot.
struct RecentSignals {
    slots: Box<[Option<(FlowId, Timestamp)>; Self::SLOTS]>,
}

impl RecentSignals {
    const SLOTS: usize = 256;

    fn new() -> Self {
        Self { slots: Box::new([None; Self::SLOTS]) }
    }

    fn admit(&mut self, flow: FlowId, now: Timestamp) -> bool {
        let mixed = (flow.ingress.0 ^ flow.number ^ flow.incarnation).wrapping_mul(0x9e37_79b1);
        let slot = &mut self.slots[(mixed >> 24) as usize % Self::SLOTS];
        if slot.is_some_and(|(last, at)| last == flow && now < at + SIGNAL_GAP) {
            return false;
        }
        *slot = Some((flow, now));
        true
    }
}
