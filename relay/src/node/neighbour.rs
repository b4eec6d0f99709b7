//! Who is connected: the connections under each neighbour's link, and which of them is in use.
//!
//! A connection becomes a neighbour with the first valid hello on it. A newer incarnation replaces
//! an older one at once. Of two connections that both ends dialled at the same time, the one
//! dialled by the smaller [`PopId`] stays: it takes over with the first datagram that arrives on
//! it, and the other is closed then.

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use bytes::Bytes;
use tradewind_proto::control::{Hello, VERSION};
use tradewind_proto::link::{Heat, Link, LinkConfig, Liveness, Recovery};
use tradewind_proto::packet::Path;
use tradewind_proto::units::{Incarnation, PolicyId, PopId, PopKey, Timestamp};
use tradewind_router::lsdb::Cursor;

/// The most datagrams that are held until the hello comes.
const MAX_EARLY: usize = 32;
/// How long a connection may stay without a hello.
const HELLO_PATIENCE: Duration = Duration::from_secs(5);
/// Two connections begun within this time, one dialled by each end, are simultaneous. A later one
/// was dialled because its end found the former dead, and replaces it.
const SIMULTANEOUS: Duration = Duration::from_secs(2);
/// How long a refused connection stays, where the other end is to read why.
const LINGER: Duration = Duration::from_secs(1);
/// A link that has been down for this long is dialled anew: the other end may have forgotten it.
const REDIAL: Duration = Duration::from_secs(1);
/// The most connections that wait for their hello.
const MAX_PENDING: usize = 256;
/// The most neighbours.
pub const MAX_NEIGHBOURS: usize = 1024;
/// A link that has just begun is probed as if it were in use, so that routes know it soon.
pub const SETTLING: Duration = Duration::from_secs(3);
/// A neighbour that the mesh has not wanted, nor anybody used, for this long is let go.
const UNWANTED: Duration = Duration::from_secs(60);
/// How long after its last packet a link still counts as used.
pub const USED_FOR: Duration = Duration::from_secs(5);

/// One connection to another relay, numbered by whoever drives the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(pub u64);

/// A connection whose two ends have proven who they are.
#[derive(Clone, Debug)]
pub struct Connected {
    /// Its number.
    pub conn: ConnId,
    /// The name in the other end's certificate.
    pub peer: PopId,
    /// Whether we dialled it, and under which address.
    pub dialled: Option<String>,
    /// Where the other end is, for people to read.
    pub remote: String,
    /// The largest datagram it carries, in bytes.
    pub datagram: usize,
    /// The size of its UDP payloads, in bytes.
    pub mtu: u16,
}

/// Why a connection was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It speaks another version.
    #[error("it speaks protocol version {0}, this relay speaks {VERSION}")]
    Version(u16),
    /// Its hello and its certificate disagree.
    #[error("it calls itself {hello}, but its certificate is for {certificate}")]
    Name {
        /// The name in the hello.
        hello: PopId,
        /// The name in the certificate.
        certificate: PopId,
    },
    /// We dialled ourselves.
    #[error("it is this relay itself; remove the address from overlay.peers")]
    Myself,
    /// It is an older start of a relay that is known.
    #[error("it is an older start ({got}) of {id}, which runs since {known}")]
    OldIncarnation {
        /// The relay.
        id: PopId,
        /// The incarnation refused.
        got: u64,
        /// The incarnation known.
        known: u64,
    },
    /// Two names have one key.
    #[error("the names {0} and {1} have the same 4-byte key; rename one of the relays")]
    KeyCollision(PopId, PopId),
    /// Another connection to it is in use.
    #[error("another connection to it is in use")]
    Duplicate,
    /// There are as many neighbours or pending connections as there may be.
    #[error("there are too many connections")]
    TooMany,
    /// It said something before its hello, or a second hello.
    #[error("it broke the order of messages")]
    OutOfOrder,
}

/// What a hello led to.
pub enum Welcome {
    /// A new neighbour, or the same anew: connections that it replaces are to be closed.
    Neighbour {
        /// The neighbour.
        peer: PopKey,
        /// Connections to close, and what they hold to be sent again.
        replaced: Vec<Line>,
    },
    /// A second connection, which takes over when the first datagram arrives on it.
    Candidate {
        /// A former candidate, to close.
        replaced: Option<ConnId>,
    },
}

/// What the end of a connection led to.
pub enum Closed {
    /// It was not in use.
    Nothing,
    /// Another connection to the neighbour took over from this line.
    Replaced(PopKey, Box<Line>),
    /// The neighbour is gone.
    Lost(Box<Neighbour>),
}

/// A connection in use, and the link over it.
pub struct Line {
    /// The connection.
    pub conn: ConnId,
    /// Whether this relay dialled it.
    pub dialled: bool,
    /// When it was made.
    pub since: Timestamp,
    /// Where the other end is.
    pub remote: String,
    /// The size of its UDP payloads.
    pub mtu: u16,
    /// The link's machine.
    pub link: Link,
}

/// Another relay that is connected.
pub struct Neighbour {
    /// Its name.
    pub id: PopId,
    /// Which start of it.
    pub incarnation: Incarnation,
    /// The connection in use.
    pub line: Line,
    /// One that may take over.
    candidate: Option<Line>,
    /// Since when it is a neighbour.
    pub since: Timestamp,
    /// When the last packet went over its link, either way.
    used_at: Timestamp,
    /// When it last stood by for a link in use.
    standby_at: Timestamp,
    /// Since when its link is down.
    down_since: Option<Timestamp>,
    /// Whether its link ever carried packets, as far as was told.
    came_up: bool,
    /// When the mesh wanted it last, or it was of use.
    wanted_at: Timestamp,
    /// A path that uses it, to find what stands by for it.
    pub sample: Option<(Path, PolicyId)>,
    /// When its link wants to be woken, unless somebody could have changed it since that was asked:
    /// most events concern one link of many.
    wake: Cell<Option<Timestamp>>,
}

impl Neighbour {
    /// Notes that a packet went over the link on `path`.
    pub fn note_use(&mut self, path: Path, policy: PolicyId, now: Timestamp) {
        self.used_at = now;
        self.sample = Some((path, policy));
    }

    /// Notes that the link is the detour or backup of one that is used.
    pub fn note_standby(&mut self, now: Timestamp) {
        self.standby_at = now;
    }

    /// Whether packets went over it lately.
    pub fn used(&self, now: Timestamp) -> bool {
        self.used_at != Timestamp::ZERO && now.since(self.used_at) < USED_FOR
    }

    /// How closely its link is to be watched.
    pub fn heat(&self, now: Timestamp) -> Heat {
        let standby = self.standby_at != Timestamp::ZERO && now.since(self.standby_at) < USED_FOR;
        let settling = now.since(self.line.since) < SETTLING;
        if self.used(now) || standby || settling { Heat::Hot } else { Heat::Cold }
    }

    /// Notes a new state of the link. Whether it is news to an operator: it went down, or carries
    /// packets for the first time or again. Suspicions come and go.
    pub fn note_liveness(&mut self, liveness: Liveness, now: Timestamp) -> bool {
        match liveness {
            Liveness::Starting | Liveness::Suspect => false,
            Liveness::Down => {
                let news = self.down_since.is_none();
                self.down_since.get_or_insert(now);
                news
            }
            Liveness::Up => {
                let news = self.down_since.take().is_some() || !self.came_up;
                self.came_up = true;
                news
            }
        }
    }

    /// Whether it should be dialled anew, or from when on if it stays down.
    pub fn redial_at(&self) -> Option<Timestamp> {
        self.down_since.map(|since| since + REDIAL)
    }

    /// Whether this relay dialled it and has had no use for it for a while; `wanted`: the mesh wants
    /// it now.
    pub fn is_unwanted(&mut self, wanted: bool, now: Timestamp) -> bool {
        if wanted || !self.line.dialled || self.heat(now) == Heat::Hot {
            self.wanted_at = now;
        }
        now.since(self.wanted_at) >= UNWANTED
    }

    /// When its link wants to be woken.
    pub fn poll_timeout(&self) -> Timestamp {
        let wake = self.wake.get().unwrap_or_else(|| self.line.link.poll_timeout());
        self.wake.set(Some(wake));
        wake
    }

    /// Whoever is handed it may change its link.
    fn changing(&mut self) -> &mut Self {
        self.wake.set(None);
        self
    }

    /// Another connection carries the link from now on, which begins anew.
    fn take_over(&mut self, line: Line) -> Line {
        self.wake.set(None);
        // Where the former one was told to be down it is news when this one carries packets.
        self.came_up &= self.down_since.take().is_none();
        std::mem::replace(&mut self.line, line)
    }

    /// Whether its link takes packets without doubt.
    pub fn trusted(&self) -> bool {
        matches!(self.line.link.liveness(), Liveness::Up | Liveness::Starting)
    }
}

struct Pending {
    connected: Connected,
    since: Timestamp,
    /// What it was told before its hello.
    told: Cursor,
    /// Datagrams that overtook the hello, at most [`MAX_EARLY`]: without them a link would begin
    /// with losses that never were.
    early: Vec<Bytes>,
}

/// All connections of one relay.
pub struct Neighbours {
    own: PopId,
    incarnation: Incarnation,
    recovery: Recovery,
    pending: BTreeMap<ConnId, Pending>,
    /// Refused connections that stay a moment: since when, and why.
    lingering: BTreeMap<ConnId, (Timestamp, Refusal)>,
    by_key: BTreeMap<PopKey, Neighbour>,
    by_conn: HashMap<ConnId, PopKey>,
}

impl Neighbours {
    /// No connections yet; `recovery` is that of all links.
    pub fn new(own: PopId, incarnation: Incarnation, recovery: Recovery) -> Self {
        Self {
            own,
            incarnation,
            recovery,
            pending: BTreeMap::new(),
            lingering: BTreeMap::new(),
            by_key: BTreeMap::new(),
            by_conn: HashMap::new(),
        }
    }

    /// A connection was made and told up to `told`: it has five seconds to say hello.
    pub fn handle_connected(
        &mut self,
        connected: Connected,
        told: Cursor,
        now: Timestamp,
    ) -> Result<(), Refusal> {
        if self.pending.len() + self.lingering.len() >= MAX_PENDING {
            return Err(Refusal::TooMany);
        }
        let (conn, early) = (connected.conn, Vec::new());
        self.pending.insert(conn, Pending { connected, since: now, told, early });
        Ok(())
    }

    /// The hello of a connection came. Refused connections are forgotten: close them.
    pub fn handle_hello(
        &mut self,
        conn: ConnId,
        hello: &Hello,
        now: Timestamp,
    ) -> Result<Welcome, Refusal> {
        let Pending { connected, .. } = self.pending.remove(&conn).ok_or(Refusal::OutOfOrder)?;
        self.check(&connected, hello)?;
        let key = connected.peer.key();
        let dialled = connected.dialled.is_some();
        let offset = hello.now.micros_after(now);
        let config = LinkConfig {
            datagram: connected.datagram,
            peer_clock_offset: offset,
            recovery: self.recovery,
        };
        let line = Line {
            conn,
            dialled,
            since: now,
            remote: connected.remote,
            mtu: connected.mtu,
            link: Link::new(config, now),
        };
        let Some(held) = self.by_key.get_mut(&key) else {
            if self.by_key.len() >= MAX_NEIGHBOURS {
                return Err(Refusal::TooMany);
            }
            self.adopt(connected.peer, hello.incarnation, line, now);
            return Ok(Welcome::Neighbour { peer: key, replaced: Vec::new() });
        };
        let same_start = held.incarnation == hello.incarnation;
        let young = now.since(held.line.since) < SIMULTANEOUS;
        if same_start && young && held.line.dialled != dialled {
            // Both ends dialled: the one by the smaller name stays.
            let new_stays = dialled == (self.own < connected.peer);
            if !new_stays {
                return Err(Refusal::Duplicate);
            }
            self.by_conn.insert(conn, key);
            let replaced = held.candidate.replace(line).map(|former| former.conn);
            if let Some(former) = replaced {
                self.by_conn.remove(&former);
            }
            return Ok(Welcome::Candidate { replaced });
        }
        let former = self.by_key.remove(&key);
        let replaced = former.map_or(Vec::new(), |former| self.forget(former));
        self.adopt(connected.peer, hello.incarnation, line, now);
        Ok(Welcome::Neighbour { peer: key, replaced })
    }

    /// Keeps a refused connection for a moment, so that the other end reads what it was told; what
    /// comes on it is not heard any more. Returns the address under which we dialled it, if its
    /// hello was still out.
    pub fn linger(&mut self, conn: ConnId, refusal: Refusal, now: Timestamp) -> Option<String> {
        self.lingering.insert(conn, (now, refusal));
        self.pending.remove(&conn)?.connected.dialled
    }

    fn check(&self, connected: &Connected, hello: &Hello) -> Result<(), Refusal> {
        if hello.version != VERSION {
            return Err(Refusal::Version(hello.version));
        }
        if hello.id != connected.peer {
            return Err(Refusal::Name {
                hello: hello.id.clone(),
                certificate: connected.peer.clone(),
            });
        }
        if hello.id == self.own && hello.incarnation == self.incarnation {
            return Err(Refusal::Myself);
        }
        let (known_id, known) = match self.by_key.get(&hello.id.key()) {
            Some(neighbour) => (&neighbour.id, neighbour.incarnation),
            None if hello.id.key() == self.own.key() => (&self.own, self.incarnation),
            None => return Ok(()),
        };
        if *known_id != hello.id {
            return Err(Refusal::KeyCollision(known_id.clone(), hello.id.clone()));
        }
        if hello.incarnation < known {
            let id = hello.id.clone();
            return Err(Refusal::OldIncarnation { id, got: hello.incarnation.0, known: known.0 });
        }
        Ok(())
    }

    fn adopt(&mut self, id: PopId, incarnation: Incarnation, line: Line, now: Timestamp) {
        let key = id.key();
        self.by_conn.insert(line.conn, key);
        let neighbour = Neighbour {
            id,
            incarnation,
            line,
            candidate: None,
            since: now,
            used_at: Timestamp::ZERO,
            standby_at: Timestamp::ZERO,
            down_since: None,
            came_up: false,
            wanted_at: now,
            sample: None,
            wake: Cell::new(None),
        };
        self.by_key.insert(key, neighbour);
    }

    fn forget(&mut self, former: Neighbour) -> Vec<Line> {
        let lines: Vec<_> = std::iter::once(former.line).chain(former.candidate).collect();
        for line in &lines {
            self.by_conn.remove(&line.conn);
        }
        lines
    }

    /// A datagram is about to be handled on `conn`: the neighbour it belongs to. If the connection
    /// was the candidate it takes over now, and the line it replaces is handed out.
    pub fn receiving(&mut self, conn: ConnId) -> Option<(PopKey, Option<Line>)> {
        let key = *self.by_conn.get(&conn)?;
        let neighbour = self.by_key.get_mut(&key)?;
        if neighbour.line.conn == conn {
            return Some((key, None));
        }
        let line = neighbour.candidate.take_if(|line| line.conn == conn)?;
        let former = neighbour.take_over(line);
        self.by_conn.remove(&former.conn);
        Some((key, Some(former)))
    }

    /// A connection ended.
    pub fn handle_closed(&mut self, conn: ConnId) -> Closed {
        self.pending.remove(&conn);
        self.lingering.remove(&conn);
        let Some(key) = self.by_conn.remove(&conn) else { return Closed::Nothing };
        let Some(neighbour) = self.by_key.get_mut(&key) else { return Closed::Nothing };
        if neighbour.candidate.take_if(|line| line.conn == conn).is_some() {
            return Closed::Nothing;
        }
        if let Some(line) = neighbour.candidate.take() {
            return Closed::Replaced(key, Box::new(neighbour.take_over(line)));
        }
        self.by_key.remove(&key).map_or(Closed::Nothing, |lost| Closed::Lost(Box::new(lost)))
    }

    /// Connections that never said hello, or were refused a moment ago, to be closed: each with the
    /// address under which we dialled it, if its hello is still out, and the reason.
    pub fn expire(&mut self, now: Timestamp) -> Vec<(ConnId, Option<String>, String)> {
        let silent =
            self.pending.extract_if(.., |_, pending| now.since(pending.since) >= HELLO_PATIENCE);
        let silent =
            silent.map(|(conn, it)| (conn, it.connected.dialled, "it never said hello".to_owned()));
        let refused = self.lingering.extract_if(.., |_, (since, _)| now.since(*since) >= LINGER);
        let refused = refused.map(|(conn, (_, refusal))| (conn, None, refusal.to_string()));
        silent.chain(refused).collect()
    }

    /// Holds a datagram that came before the hello of its connection.
    pub fn hold(&mut self, conn: ConnId, datagram: Bytes) {
        if let Some(pending) = self.pending.get_mut(&conn)
            && pending.early.len() < MAX_EARLY
        {
            pending.early.push(datagram);
        }
    }

    /// What a connection was told before its hello, and the datagrams held for it, which are to be
    /// handled after that.
    pub fn take_early(&mut self, conn: ConnId) -> (Cursor, Vec<Bytes>) {
        let early = |pending: &mut Pending| {
            (std::mem::take(&mut pending.told), std::mem::take(&mut pending.early))
        };
        self.pending.get_mut(&conn).map(early).unwrap_or_default()
    }

    /// The neighbour that a connection belongs to.
    pub fn peer_of(&self, conn: ConnId) -> Option<PopKey> {
        self.by_conn.get(&conn).copied()
    }

    /// The name that a connection's certificate gave, as long as no hello came.
    pub fn pending_peer(&self, conn: ConnId) -> Option<&PopId> {
        self.pending.get(&conn).map(|pending| &pending.connected.peer)
    }

    /// The address under which we dialled a connection, as long as no hello came.
    pub fn pending_address(&self, conn: ConnId) -> Option<&str> {
        self.pending.get(&conn)?.connected.dialled.as_deref()
    }

    /// A neighbour.
    pub fn get(&self, key: PopKey) -> Option<&Neighbour> {
        self.by_key.get(&key)
    }

    /// A neighbour.
    pub fn get_mut(&mut self, key: PopKey) -> Option<&mut Neighbour> {
        self.by_key.get_mut(&key).map(Neighbour::changing)
    }

    /// All neighbours.
    pub fn iter(&self) -> impl Iterator<Item = (PopKey, &Neighbour)> {
        self.by_key.iter().map(|(&key, neighbour)| (key, neighbour))
    }

    /// All neighbours.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (PopKey, &mut Neighbour)> {
        self.by_key.iter_mut().map(|(&key, neighbour)| (key, neighbour.changing()))
    }

    /// A line that may take over has a machine too, which wants to be driven.
    pub fn candidates_mut(&mut self) -> impl Iterator<Item = &mut Line> {
        self.by_key.values_mut().filter_map(|neighbour| neighbour.candidate.as_mut())
    }
}

#[cfg(test)]
mod tests;
