//! Small overlays to test with: relays and links said in a few words, and the statements that
//! such relays would make.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tradewind_proto::statement::{
    Body, LinkStatement, NodeState, Policy, Rule, ServiceStatement, SignedStatement, Statement,
};
use tradewind_proto::units::{Incarnation, PopId, PopKey, Timestamp};

use crate::lsdb::{Change, Labels, Lsdb, Rejected};

/// Long after the start of everything.
pub(crate) const NOON: Timestamp = Timestamp::from_micros(1_700_000_000_000_000);

pub(crate) fn id(name: &str) -> PopId {
    name.parse().expect("tests use valid names")
}

pub(crate) fn key(name: &str) -> PopKey {
    id(name).key()
}

/// A clean link of this delay; its round trip is twice that.
pub(crate) fn link(to: &str, delay_ms: f64) -> LinkStatement {
    LinkStatement {
        to: key(to),
        up: true,
        delay_micros: (delay_ms * 1_000.0) as i32,
        jitter: Duration::ZERO,
        rtt: Duration::from_secs_f64(2.0 * delay_ms.abs() / 1_000.0),
        loss: 0.0,
        burst: 1.0,
        capacity_kbps: 0,
        load_kbps: 0,
        cost: Duration::ZERO,
        max_packet: 1_402,
    }
}

pub(crate) fn eu_only() -> Policy {
    let rule = Rule { allow_regions: vec!["EU".into()], ..Rule::default() };
    Policy::new("eu-only", rule).expect("a valid policy")
}

/// The statement as the wire has it; the signature is not looked at here.
pub(crate) fn signed(statement: &Statement) -> SignedStatement {
    let mut signature = [0; 64];
    signature[..4].copy_from_slice(&statement.seq.to_be_bytes());
    SignedStatement::new(Bytes::from(statement.origin.as_str().to_owned()), signature)
}

/// A relay of a [`World`].
#[derive(Clone, Debug, Default)]
pub(crate) struct Pop {
    pub(crate) labels: Labels,
    pub(crate) services: Vec<&'static str>,
    pub(crate) policies: Vec<Policy>,
    pub(crate) draining: bool,
    pub(crate) links: BTreeMap<PopKey, LinkStatement>,
    seq: u32,
}

/// Relays by name.
#[derive(Clone, Debug, Default)]
pub(crate) struct World {
    pub(crate) pops: BTreeMap<String, Pop>,
}

impl World {
    /// Relays with links both ways, clean, of these delays in milliseconds.
    pub(crate) fn new(links: &[(&str, &str, f64)]) -> Self {
        let mut world = Self::default();
        for &(a, b, delay_ms) in links {
            world.connect(a, link(b, delay_ms));
            world.connect(b, link(a, delay_ms));
        }
        world
    }

    pub(crate) fn pop(&mut self, name: &str) -> &mut Pop {
        self.pops.entry(name.to_owned()).or_default()
    }

    pub(crate) fn connect(&mut self, from: &str, link: LinkStatement) {
        self.pop(from).links.insert(link.to, link);
    }

    pub(crate) fn link(&mut self, from: &str, to: &str) -> &mut LinkStatement {
        self.pop(from).links.get_mut(&key(to)).expect("tests change links that they made")
    }

    pub(crate) fn label(&mut self, region: &str, names: &[&str]) {
        for name in names {
            self.pop(name).labels.region = Some(region.to_owned());
        }
    }

    /// The full statement that `name` makes next.
    pub(crate) fn statement(&mut self, name: &str) -> Statement {
        let pop = self.pop(name);
        pop.seq += 1;
        let service = |name: &&str| ServiceStatement {
            name: name.parse().expect("tests use valid names"),
            ports: 1,
        };
        let state = NodeState {
            services: pop.services.iter().map(service).collect(),
            policies: pop.policies.clone(),
            draining: pop.draining,
            links: pop.links.values().copied().collect(),
            ..NodeState::default()
        };
        let (incarnation, seq) = (Incarnation(1), pop.seq);
        Statement { origin: id(name), incarnation, seq, body: Body::Full(state) }
    }

    /// `name` tells `lsdb` all about itself.
    pub(crate) fn say(&mut self, lsdb: &mut Lsdb, name: &str, now: Timestamp) -> Change {
        let statement = self.statement(name);
        let labels = self.pop(name).labels.clone();
        insert_labelled(lsdb, statement, labels, now).expect("a newer statement")
    }

    /// A database of `own` that has heard everybody.
    pub(crate) fn lsdb(&mut self, own: &str, now: Timestamp) -> Lsdb {
        let mut lsdb = Lsdb::new(id(own));
        for name in self.pops.keys().cloned().collect::<Vec<_>>() {
            self.say(&mut lsdb, &name, now);
        }
        lsdb
    }
}

pub(crate) fn insert(
    lsdb: &mut Lsdb,
    statement: Statement,
    now: Timestamp,
) -> Result<Change, Rejected> {
    insert_labelled(lsdb, statement, Labels::default(), now)
}

fn insert_labelled(
    lsdb: &mut Lsdb,
    statement: Statement,
    labels: Labels,
    now: Timestamp,
) -> Result<Change, Rejected> {
    lsdb.insert(signed(&statement), Arc::new(statement), &labels, now)
}
