//! Connections come and go: whom the node dials, welcomes and refuses, and what is said on them.

use std::collections::BTreeSet;
use std::time::Duration;

use tradewind_proto::control::{Hello, Message, VERSION};
use tradewind_proto::units::{Incarnation, PopId, PopKey, Timestamp};
use tradewind_router::lsdb::Cursor;

use super::control::Trust;
use super::dial::PATIENCE;
use super::neighbour::{Closed, ConnId, Connected, Neighbour, Refusal, Welcome};
use super::{Mesh, News, Node, Output, TIDYING, mesh};

impl<T: Trust> Node<T> {
    /// A connection was made and its two ends have proven who they are.
    pub fn handle_connected(&mut self, connected: Connected, now: Timestamp) {
        let (conn, peer) = (connected.conn, connected.peer.clone());
        let dialled = connected.dialled.clone();
        let hello = Hello {
            version: VERSION,
            id: self.id.clone(),
            incarnation: self.incarnation,
            now,
            mtu: connected.mtu,
        };
        let (told, introduction) = self.control.introduce();
        match self.neighbours.handle_connected(connected, told, now) {
            Ok(()) => {
                let messages = std::iter::once(Message::Hello(hello)).chain(introduction);
                self.outputs.extend(messages.map(|message| Output::Message(conn, message)));
            }
            Err(refusal) => {
                if let Some(address) = dialled {
                    self.dialler.handle_failed(&address, now);
                }
                self.refuse(conn, peer, refusal);
            }
        }
        self.settle(now);
    }

    /// An attempt to connect failed.
    pub fn handle_dial_failed(&mut self, address: &str, now: Timestamp) {
        self.dialler.handle_failed(address, now);
    }

    /// A connection ended.
    pub fn handle_closed(&mut self, conn: ConnId, reason: &str, now: Timestamp) {
        if let Some(address) = self.neighbours.pending_address(conn) {
            self.dialler.handle_failed(address, now);
        }
        match self.neighbours.handle_closed(conn) {
            Closed::Nothing => {}
            Closed::Replaced(key, former) => {
                self.renew(key, Cursor::default(), now);
                self.resend(*former, now);
            }
            Closed::Lost(lost) => {
                let (key, lived) = (lost.id.key(), now.since(lost.since));
                self.outputs.push_back(Output::News(News::Lost(lost.id, reason.to_owned())));
                self.control.handle_lost(key);
                self.dialler.handle_lost(key, lived, now);
                self.measure(now);
                self.resend(lost.line, now);
            }
        }
        self.settle(now);
    }

    /// A control message came.
    pub fn handle_message(&mut self, conn: ConnId, message: Message, now: Timestamp) {
        let pending = self.neighbours.pending_peer(conn).cloned();
        match (message, pending) {
            (Message::Hello(hello), _) => self.handle_hello(conn, &hello, now),
            (Message::Bye, _) => {
                self.handle_closed(conn, "it leaves", now);
                self.outputs.push_back(Output::Close(conn, "it leaves".to_owned()));
            }
            (_, Some(peer)) => self.refuse(conn, peer, Refusal::OutOfOrder),
            (Message::Statement(signed), None) => {
                if let Some(peer) = self.neighbours.peer_of(conn) {
                    self.control.handle_statement(peer, signed, now);
                }
            }
            (Message::Digest(digest), None) => {
                if let Some(peer) = self.neighbours.peer_of(conn) {
                    self.control.handle_digest(peer, &digest);
                }
            }
        }
        self.settle(now);
    }

    pub(super) fn handle_hello(&mut self, conn: ConnId, hello: &Hello, now: Timestamp) {
        let Some(peer) = self.neighbours.pending_peer(conn).cloned() else {
            if let Some(peer) = self.neighbours.peer_of(conn).and_then(|key| self.name(key)) {
                self.refuse(conn, peer, Refusal::OutOfOrder);
            }
            return;
        };
        if hello.id == self.id && peer == self.id && hello.incarnation > self.incarnation {
            self.replaced(hello.incarnation);
            return;
        }
        if let Some(refusal) = self.known_otherwise(hello) {
            self.refuse_with_proof(conn, peer, refusal, now);
            return;
        }
        let dialled = self.neighbours.pending_address(conn).map(str::to_owned);
        let (told, held) = self.neighbours.take_early(conn);
        let outcome = self.neighbours.handle_hello(conn, hello, now);
        if let Some(address) = dialled {
            match &outcome {
                Ok(_) | Err(Refusal::Duplicate | Refusal::Myself) => {
                    self.dialler.handle_connected(&address, peer.key(), now);
                }
                Err(_) => self.dialler.handle_failed(&address, now),
            }
        }
        match outcome {
            Ok(Welcome::Neighbour { peer: key, replaced }) => {
                self.begin(key, told, now);
                for former in replaced {
                    let reason = "a newer connection replaces it".to_owned();
                    self.outputs.push_back(Output::Close(former.conn, reason));
                    self.resend(former, now);
                }
            }
            Ok(Welcome::Candidate { replaced }) => {
                if let Some(former) = replaced {
                    let reason = "a newer connection replaces it".to_owned();
                    self.outputs.push_back(Output::Close(former, reason));
                }
            }
            Err(refusal) => self.refuse_with_proof(conn, peer, refusal, now),
        }
        for datagram in held {
            self.handle_datagram(conn, datagram, now);
        }
    }

    /// An older start of a relay is shown what the newer one has signed, which makes it stop;
    /// others are just refused.
    pub(super) fn refuse_with_proof(
        &mut self,
        conn: ConnId,
        peer: PopId,
        refusal: Refusal,
        now: Timestamp,
    ) {
        let older = matches!(refusal, Refusal::OldIncarnation { .. });
        let proof = older.then(|| self.control.newest_full(peer.key())).flatten();
        let Some(proof) = proof else {
            return self.refuse(conn, peer, refusal);
        };
        self.outputs.push_back(Output::Message(conn, Message::Statement(proof)));
        if let Some(address) = self.neighbours.linger(conn, refusal.clone(), now) {
            self.dialler.handle_failed(&address, now);
        }
        self.outputs.push_back(Output::News(News::Refused(peer, refusal)));
    }

    /// What speaks against a hello in the link state of members that are no neighbours.
    pub(super) fn known_otherwise(&self, hello: &Hello) -> Option<Refusal> {
        let member = self.control.lsdb().member(hello.id.key())?;
        if *member.id() != hello.id {
            return Some(Refusal::KeyCollision(member.id().clone(), hello.id.clone()));
        }
        let (got, known) = (hello.incarnation.0, member.incarnation().0);
        let id = hello.id.clone();
        (got < known).then_some(Refusal::OldIncarnation { id, got, known })
    }

    /// A neighbour's link begins.
    pub(super) fn begin(&mut self, key: PopKey, told: Cursor, now: Timestamp) {
        if let Some(neighbour) = self.neighbours.get(key) {
            let remote = neighbour.line.remote.clone();
            self.outputs.push_back(Output::News(News::Joined(neighbour.id.clone(), remote)));
        }
        self.renew(key, told, now);
    }

    /// A neighbour's link begins, or begins anew over another connection.
    pub(super) fn renew(&mut self, key: PopKey, told: Cursor, now: Timestamp) {
        if let Some(neighbour) = self.neighbours.get_mut(key) {
            let heat = neighbour.heat(now);
            neighbour.line.link.set_heat(heat, now);
            neighbour.line.link.probe(now);
        }
        self.control.set_suspect(key, false, now);
        self.control.handle_adjacent(key, told);
        self.touch(key);
    }

    pub(super) fn refuse(&mut self, conn: ConnId, peer: PopId, refusal: Refusal) {
        self.outputs.push_back(Output::Close(conn, refusal.to_string()));
        if refusal != Refusal::Duplicate {
            self.outputs.push_back(Output::News(News::Refused(peer, refusal)));
        }
    }

    pub(super) fn replaced(&mut self, newer: Incarnation) {
        self.outputs.push_back(Output::Stop(format!(
            "another relay named {} was started later ({} ms after 1970): stop one of the two, or \
             give it another node.id and certificate",
            self.id, newer.0
        )));
    }

    pub(super) fn keep_house(&mut self, now: Timestamp) {
        for (conn, dialled, reason) in self.neighbours.expire(now) {
            if let Some(address) = dialled {
                self.dialler.handle_failed(&address, now);
            }
            self.outputs.push_back(Output::Close(conn, reason));
        }
        self.members = self.control.lsdb().members().len();
        if self.mesh != Mesh::Peers {
            let wanted = mesh::wanted(
                self.control.lsdb(),
                &self.tables,
                self.own,
                self.mesh,
                || self.edge.flows_by_peer(),
                |peer| self.neighbours.get(peer).is_some(),
            );
            let keys: BTreeSet<_> = wanted.iter().map(|(key, ..)| *key).collect();
            let own = (self.incarnation, self.own);
            let wanted = wanted.into_iter().map(|(key, address, incarnation)| {
                // The later started dials at once, the other gives it the time to.
                let wait = if own > (incarnation, key) { Duration::ZERO } else { PATIENCE };
                (key, address, now + wait)
            });
            self.dialler.set_learned(wanted, now);
            self.leave_unwanted(&keys, now);
        }
        if now >= self.next_tidying {
            self.next_tidying = now + TIDYING;
            if self.control.has_pairs() {
                self.control.keep_pairs(&self.edge.pairs());
            }
        }
    }

    /// Lets go of neighbours that this relay dialled and that the mesh no longer wants, unless they
    /// are of use. One that wants this relay dials it, and then stays.
    fn leave_unwanted(&mut self, wanted: &BTreeSet<PopKey>, now: Timestamp) {
        let mut unwanted = Vec::new();
        for (key, neighbour) in self.neighbours.iter_mut() {
            let known = self.control.lsdb().member(key).is_some();
            let wanted = !known || wanted.contains(&key) || self.dialler.is_configured(key);
            if neighbour.is_unwanted(wanted, now) {
                unwanted.push(neighbour.line.conn);
            }
        }
        for conn in unwanted {
            let reason = "the mesh does not need it any more";
            self.handle_closed(conn, reason, now);
            self.outputs.push_back(Output::Close(conn, reason.to_owned()));
        }
    }

    pub(super) fn dial(&mut self, now: Timestamp) {
        let neighbours = &self.neighbours;
        let reached = |peer| {
            let redial = |neighbour: &Neighbour| neighbour.redial_at().is_some_and(|at| at <= now);
            neighbours.get(peer).is_some_and(|neighbour| !redial(neighbour))
        };
        while let Some(address) = self.dialler.poll_dial(reached, now) {
            self.outputs.push_back(Output::Dial(address));
        }
    }
}
