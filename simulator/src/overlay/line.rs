//! Connections between relays as QUIC makes them, in terms of the link models.
//!
//! What is modelled, and how (times as in the daemon and RFC 9000):
//!
//! - *Handshake*: a full packet each way; the dialler is connected after one round trip, the other
//!   end when the first control message arrives. A lost packet is sent again every 300 ms; without
//!   an answer after 1 s the dialler tries once more with the smallest MTU, then gives up.
//! - *Control stream*: each message is cut into packets, each of which goes through the link model.
//!   A lost one is sent again after 9/8 of a round trip and 25 ms, as often as it takes (other
//!   packets flow all the time, so that its loss shows). Messages come whole and in order. What
//!   was written in the same turn in which the connection is closed is not sent any more.
//! - *Datagrams* go through the link model once. QUIC hides damage and duplicates: a damaged packet
//!   is lost, of two copies the first counts. Their acknowledgements only count among the link's
//!   bytes ([`acks`](super::acks)).
//! - *End*: a relay that closes tells the other end, with one packet and again in answer to each that
//!   still arrives. A relay that dies tells nobody; an end that hears nothing for 15 s gives up
//!   silently.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tradewind_proto::control::Message;
use tradewind_proto::units::Timestamp;
use tradewind_relay::node::neighbour::{ConnId, Connected};

use super::acks::QuicAcks;
use super::{Event, Overlay, sightings};
use crate::capture::Payload;
use crate::emulator::IP_UDP_HEADERS;
use crate::virtual_net::QUIC_OVERHEAD;

/// UDP payloads of the first attempt to connect, and of the second.
pub(crate) const MTU: [u16; 2] = [1452, 1200];
/// What quinn keeps of a UDP payload for itself, at most.
pub(crate) const RESERVED: usize = 38;
/// How long an attempt may take.
const PATIENCE: Duration = Duration::from_secs(1);
/// When a packet of the handshake is sent again.
pub(crate) const FLIGHT_REPEAT: Duration = Duration::from_millis(300);
/// An end that heard nothing for so long gives up.
pub(crate) const IDLE: Duration = Duration::from_secs(15);
/// How late an acknowledgement may be (RFC 9000, section 18.2: `max_ack_delay`).
pub(crate) const ACK_DELAY: Duration = Duration::from_millis(25);
/// Payload of a packet of the control stream.
pub(crate) const SEGMENT: usize = 1200;

/// Which end of a connection: the dialler is the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Dialler,
    Acceptor,
}

impl Side {
    fn other(self) -> Self {
        match self {
            Self::Dialler => Self::Acceptor,
            Self::Acceptor => Self::Dialler,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The handshake is not done.
    Waiting,
    Open,
    Closed,
}

/// One end of a connection.
struct End {
    host: usize,
    /// Which start of the relay there; 0 before the first packet reaches it.
    life: u32,
    state: State,
    heard_at: Timestamp,
    /// Messages on their way from here.
    stream: Stream,
    /// Of what came here.
    acks: QuicAcks,
}

/// One direction of the control stream.
#[derive(Default)]
struct Stream {
    next: u64,
    /// The next to hand out at the other end.
    next_out: u64,
    /// Not handed out yet, with how many packets are still missing.
    waiting: BTreeMap<u64, (Bytes, usize)>,
}

/// One connection.
pub(super) struct Line {
    address: String,
    attempt: usize,
    dialler: End,
    acceptor: End,
}

impl Line {
    fn end(&self, side: Side) -> &End {
        match side {
            Side::Dialler => &self.dialler,
            Side::Acceptor => &self.acceptor,
        }
    }

    fn end_mut(&mut self, side: Side) -> &mut End {
        match side {
            Side::Dialler => &mut self.dialler,
            Side::Acceptor => &mut self.acceptor,
        }
    }
}

/// What one direction of a connection carried, in datagrams of the relays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Carried {
    /// Handed to the network.
    pub sent: u64,
    /// Dropped by the link model, or damaged by it.
    pub dropped: u64,
    /// Came to a relay that was not there any more, had closed the connection, or did not know yet
    /// whose it was.
    pub unheard: u64,
    /// Given to the relay at the other end.
    pub heard: u64,
}

/// The number of the end of a connection, as its relay knows it, and back.
fn conn_id(line: u64, side: Side) -> ConnId {
    ConnId(line * 2 + u64::from(side == Side::Acceptor))
}

fn line_of(conn: ConnId) -> (u64, Side) {
    (conn.0 / 2, if conn.0.is_multiple_of(2) { Side::Dialler } else { Side::Acceptor })
}

impl Overlay {
    /// The relay at `host` wants a connection to `address`.
    pub(super) fn dial(&mut self, host: usize, address: String, attempt: usize) {
        let end = |host, life| End {
            host,
            life,
            state: State::Waiting,
            heard_at: self.now,
            stream: Stream::default(),
            acks: QuicAcks::default(),
        };
        let number = self.next_line;
        self.next_line += 1;
        self.events.schedule(self.now + PATIENCE, Event::Patience(number));
        let life = self.hosts[host].life;
        // Nobody is at an address without a host: then host and life are never reached.
        let remote = self.names.get(&address).copied();
        let line = Line {
            dialler: end(host, life),
            acceptor: end(remote.unwrap_or(host), 0),
            address,
            attempt,
        };
        self.lines.insert(number, line);
        if remote.is_some() {
            self.send_flight(number);
        }
    }

    /// The dialler's first packet, until it is answered or the attempt is over.
    pub(super) fn send_flight(&mut self, number: u64) {
        let Some(line) = self.lines.get(&number) else { return };
        let (from, to, life) = (line.dialler.host, line.acceptor.host, line.dialler.life);
        if line.dialler.state != State::Waiting || !self.hosts[from].lives(life) {
            return;
        }
        self.events.schedule(self.now + FLIGHT_REPEAT, Event::SendFlight(number));
        let bytes = usize::from(MTU[line.attempt]) + IP_UDP_HEADERS;
        if let Some(at) = self.offer(from, to, bytes, Payload::Handshake) {
            self.events.schedule(at, Event::Flight(number, Side::Acceptor));
        }
    }

    /// A packet of the handshake arrives.
    pub(super) fn handle_flight(&mut self, number: u64, side: Side) {
        let now = self.now;
        let Some(line) = self.lines.get_mut(&number) else { return };
        let (here, there) = (line.end(side).host, line.end(side.other()).host);
        let host = &self.hosts[here];
        match side {
            Side::Acceptor if host.node.is_some() => {
                if line.acceptor.life == 0 {
                    line.acceptor.life = host.life;
                }
                let bytes = usize::from(MTU[line.attempt]) + IP_UDP_HEADERS;
                if let Some(at) = self.offer(here, there, bytes, Payload::Handshake) {
                    self.events.schedule(at, Event::Flight(number, Side::Dialler));
                }
            }
            Side::Dialler
                if line.dialler.state == State::Waiting && host.lives(line.dialler.life) =>
            {
                line.dialler.heard_at = now;
                self.open(number, side);
            }
            _ => {}
        }
    }

    /// The attempt has taken long enough.
    pub(super) fn handle_patience(&mut self, number: u64) {
        let Some(line) = self.lines.get_mut(&number) else { return };
        if line.dialler.state != State::Waiting {
            return;
        }
        line.dialler.state = State::Closed;
        let (host, life) = (line.dialler.host, line.dialler.life);
        let (address, next) = (line.address.clone(), line.attempt + 1);
        if !self.hosts[host].lives(life) {
            return;
        }
        if next < MTU.len() {
            self.dial(host, address, next);
        } else {
            self.with_node(host, |node, now| node.handle_dial_failed(&address, now));
        }
    }

    /// An end has finished its handshake.
    fn open(&mut self, number: u64, side: Side) {
        let Some(line) = self.lines.get_mut(&number) else { return };
        line.end_mut(side).state = State::Open;
        let (here, there) = (line.end(side).host, line.end(side.other()).host);
        let mtu = MTU[line.attempt];
        let dialled = (side == Side::Dialler).then(|| line.address.clone());
        let remote = &self.hosts[there].spec;
        let connected = Connected {
            conn: conn_id(number, side),
            peer: remote.id.clone(),
            dialled,
            remote: remote.host.clone(),
            datagram: usize::from(mtu) - RESERVED,
            mtu,
        };
        self.events.schedule(self.now + IDLE, Event::Idle(number, side));
        self.with_node(here, |node, now| node.handle_connected(connected, now));
    }

    /// A relay writes to its control stream.
    pub(super) fn send_message(&mut self, conn: ConnId, message: &Message) {
        let (number, side) = line_of(conn);
        let Some(line) = self.lines.get(&number) else { return };
        if line.end(side).state != State::Open {
            return;
        }
        let mut bytes = BytesMut::new();
        message.encode(&mut bytes);
        self.events.schedule(self.now, Event::Write(number, side, bytes.freeze()));
    }

    /// A message gets its turn.
    pub(super) fn write(&mut self, number: u64, side: Side, bytes: Bytes) {
        let Some(line) = self.lines.get_mut(&number) else { return };
        let end = line.end_mut(side);
        if end.state != State::Open || !self.hosts[end.host].lives(end.life) {
            return;
        }
        let parts: Vec<Bytes> = bytes.chunks(SEGMENT).map(|part| bytes.slice_ref(part)).collect();
        let message = end.stream.next;
        end.stream.next += 1;
        end.stream.waiting.insert(message, (bytes, parts.len()));
        for part in parts {
            self.send_segment(Segment { line: number, from: side, message, part });
        }
    }

    /// A packet of the control stream leaves, again if it was lost.
    pub(super) fn send_segment(&mut self, segment: Segment) {
        let Some(line) = self.lines.get(&segment.line) else { return };
        let end = line.end(segment.from);
        let (from, to) = (end.host, line.end(segment.from.other()).host);
        if end.state != State::Open || !self.hosts[from].lives(end.life) {
            return;
        }
        let bytes = segment.part.len() + QUIC_OVERHEAD + IP_UDP_HEADERS;
        match self.offer(from, to, bytes, Payload::Control(&segment.part)) {
            Some(at) => self.events.schedule(at, Event::Segment(segment)),
            None => {
                let round_trip = self.delay(from, to) + self.delay(to, from);
                let again = self.now + round_trip + round_trip / 8 + ACK_DELAY;
                self.events.schedule(again, Event::SendSegment(segment));
            }
        }
    }

    /// A packet of the control stream arrives.
    pub(super) fn handle_segment(&mut self, segment: Segment) {
        let Segment { line: number, from, message, .. } = segment;
        let side = from.other();
        if !self.hears(number, side) {
            return;
        }
        let Some(line) = self.lines.get_mut(&number) else { return };
        if let Some((_, missing)) = line.end_mut(from).stream.waiting.get_mut(&message) {
            *missing -= 1;
        }
        while let Some(bytes) = self.next_message(number, from) {
            let is_waiting = |line: &Line| line.end(side).state == State::Waiting;
            if self.lines.get(&number).is_some_and(is_waiting) {
                self.open(number, side);
            }
            self.hand_message(number, side, bytes);
        }
    }

    /// The next message from `from` that has come whole and in turn.
    fn next_message(&mut self, number: u64, from: Side) -> Option<Bytes> {
        let stream = &mut self.lines.get_mut(&number)?.end_mut(from).stream;
        let entry = stream.waiting.first_entry()?;
        if *entry.key() != stream.next_out || entry.get().1 > 0 {
            return None;
        }
        stream.next_out += 1;
        Some(entry.remove().0)
    }

    fn hand_message(&mut self, number: u64, side: Side, bytes: Bytes) {
        let Some(line) = self.lines.get(&number) else { return };
        if line.end(side).state != State::Open {
            return;
        }
        let (host, conn) = (line.end(side).host, conn_id(number, side));
        self.trace.note(self.now, host, &bytes);
        match Message::decode(&mut BytesMut::from(&bytes[..])) {
            Ok(Some(message)) => {
                self.with_node(host, |node, now| node.handle_message(conn, message, now));
            }
            other => self.close(conn, &format!("a control message can't be read: {other:?}")),
        }
    }

    /// A relay sends a datagram.
    pub(super) fn send_datagram(&mut self, conn: ConnId, datagram: Bytes) {
        let (number, side) = line_of(conn);
        let Some(line) = self.lines.get_mut(&number) else { return };
        if line.end(side).state != State::Open {
            return;
        }
        let (from, to) = (line.end(side).host, line.end(side.other()).host);
        let ack_bytes = line.end_mut(side).acks.bundled();
        self.trace.note(self.now, from, &datagram);
        if let Some(sightings) = &mut self.sightings {
            sightings::note(sightings, &datagram);
        }
        let bytes = datagram.len() + QUIC_OVERHEAD + IP_UDP_HEADERS;
        let arrival = self.offer(from, to, bytes, Payload::Frames(&datagram));
        self.count_in(from, to, 0, ack_bytes);
        let carried = self.carried.entry((number, from, to)).or_default();
        carried.sent += 1;
        if let Some(at) = arrival {
            self.events.schedule(at, Event::Datagram(number, side.other(), datagram));
            return;
        }
        carried.dropped += 1;
        let round_trip = self.delay(from, to) + self.delay(to, from);
        if let Some(line) = self.lines.get_mut(&number) {
            line.end_mut(side.other()).acks.handle_loss(self.now, round_trip);
        }
    }

    /// A datagram arrives.
    pub(super) fn handle_datagram(&mut self, number: u64, side: Side, datagram: Bytes) {
        let hears = self.hears(number, side);
        let Some(line) = self.lines.get_mut(&number) else { return };
        let (host, from) = (line.end(side).host, line.end(side.other()).host);
        if hears {
            let alone = line.end_mut(side).acks.handle_arrival(self.now, ACK_DELAY);
            alone.into_iter().for_each(|bytes| self.count_in(host, from, 1, bytes));
        }
        let conn = conn_id(number, side);
        let node = self.hosts[host].node.as_ref().filter(|_| hears);
        let known = node.is_some_and(|node| node.neighbours().peer_of(conn).is_some());
        let carried = self.carried.entry((number, from, host)).or_default();
        *if known { &mut carried.heard } else { &mut carried.unheard } += 1;
        if hears {
            self.with_node(host, |node, now| node.handle_datagram(conn, datagram, now));
        }
    }

    /// Whether the relay at an end still holds the connection. One that has closed it says so.
    fn hears(&mut self, number: u64, side: Side) -> bool {
        let now = self.now;
        let Some(line) = self.lines.get_mut(&number) else { return false };
        let end = line.end_mut(side);
        if !self.hosts[end.host].lives(end.life) {
            return false;
        }
        if end.state == State::Closed {
            self.tell_closed(number, side, "it is closed at the other end");
            return false;
        }
        end.heard_at = now;
        true
    }

    /// A relay closes a connection.
    pub(super) fn close(&mut self, conn: ConnId, reason: &str) {
        let (number, side) = line_of(conn);
        let Some(line) = self.lines.get_mut(&number) else { return };
        let end = line.end_mut(side);
        if end.state == State::Open {
            end.state = State::Closed;
            let host = end.host;
            self.tell_closed(number, side, reason);
            self.with_node(host, |node, now| node.handle_closed(conn, reason, now));
        }
    }

    /// All connections of the relay at `host` end with a word, and so does the relay.
    pub(super) fn close_all(&mut self, host: usize, reason: &str) {
        let life = self.hosts[host].life;
        let of_host = |line: &Line, side| {
            let end = line.end(side);
            end.host == host && end.life == life && end.state == State::Open
        };
        let sides = [Side::Dialler, Side::Acceptor];
        let ends = self.lines.iter().flat_map(|(&number, line)| {
            sides.into_iter().filter(move |&side| of_host(line, side)).map(move |s| (number, s))
        });
        let ends: Vec<_> = ends.collect();
        for (number, side) in ends {
            self.tell_closed(number, side, reason);
        }
    }

    fn tell_closed(&mut self, number: u64, side: Side, reason: &str) {
        let Some(line) = self.lines.get(&number) else { return };
        let (from, to) = (line.end(side).host, line.end(side.other()).host);
        let bytes = QUIC_OVERHEAD + IP_UDP_HEADERS + reason.len();
        if let Some(at) = self.offer(from, to, bytes, Payload::Close) {
            let farewell = Event::Farewell(number, side.other(), reason.to_owned());
            self.events.schedule(at, farewell);
        }
    }

    /// The other end has closed the connection.
    pub(super) fn handle_farewell(&mut self, number: u64, side: Side, reason: &str) {
        self.end_silently(number, side, reason);
    }

    /// It is time to look whether an end has heard anything lately.
    pub(super) fn handle_idle(&mut self, number: u64, side: Side) {
        let Some(line) = self.lines.get(&number) else { return };
        let end = line.end(side);
        let over_at = end.heard_at + IDLE;
        if end.state != State::Open || !self.hosts[end.host].lives(end.life) {
            return;
        }
        if over_at > self.now {
            self.events.schedule(over_at, Event::Idle(number, side));
        } else {
            self.end_silently(number, side, "timed out");
        }
    }

    fn end_silently(&mut self, number: u64, side: Side, reason: &str) {
        let Some(line) = self.lines.get_mut(&number) else { return };
        let end = line.end_mut(side);
        let (host, life, was) = (end.host, end.life, end.state);
        if was == State::Closed || !self.hosts[host].lives(life) {
            return;
        }
        end.state = State::Closed;
        if was == State::Open {
            let conn = conn_id(number, side);
            self.with_node(host, |node, now| node.handle_closed(conn, reason, now));
        }
    }
}

/// A packet of a control stream.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    pub(super) line: u64,
    pub(super) from: Side,
    pub(super) message: u64,
    pub(super) part: Bytes,
}
