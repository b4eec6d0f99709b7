//! For tests: a [`Trust`] whose certificates are plain text and whose signatures are sums, so that
//! a test can say what is proven and what is forged.

use bytes::Bytes;
use tradewind_proto::statement::{
    Body, ClockCoordinate, LinkStatement, NodeState, SignedStatement, Statement,
};
use tradewind_proto::units::{Incarnation, PopId, PopKey, Timestamp};
use tradewind_router::lsdb::Labels;

use super::control::Trust;
use crate::identity::{CertificateError, PeerCertificate, Subject};

/// The time at which tests begin, in milliseconds after the epoch.
pub const START: u64 = 1_700_000_000_000;

/// `millis` after the beginning.
pub fn at(millis: u64) -> Timestamp {
    Timestamp::from_micros((START + millis) * 1000)
}

/// A relay's name.
pub fn id(name: &str) -> PopId {
    name.parse().unwrap()
}

/// A relay's name in packets.
pub fn key(name: &str) -> PopKey {
    id(name).key()
}

/// Two names with one key.
pub fn colliding() -> (PopId, PopId) {
    let pair = (id("pop-66498"), id("pop-1159120"));
    assert_eq!(pair.0.key(), pair.1.key());
    pair
}

/// A relay's papers.
#[derive(Clone, Debug)]
pub struct Papers {
    /// Whose.
    pub id: PopId,
    /// What the certificate says beside the name, such as `?service=sfu`.
    pub query: &'static str,
    /// The last second of the certificate.
    pub not_after: u64,
}

impl Papers {
    /// Papers that are in force for an hour.
    pub fn of(id: &PopId) -> Self {
        Self { id: id.clone(), query: "", not_after: START / 1000 + 3600 }
    }

    /// A statement by the holder.
    pub fn says(&self, incarnation: u64, seq: u32, body: Body) -> SignedStatement {
        let incarnation = Incarnation(incarnation);
        let body = Statement { origin: self.id.clone(), incarnation, seq, body }.encode();
        let signature = self.sign(&body);
        SignedStatement::new(body, signature)
    }

    /// Everything that the holder has to say.
    pub fn state(&self, links: Vec<LinkStatement>) -> NodeState {
        NodeState {
            certificate: self.certificate(),
            addresses: vec![format!("{}:7400", self.id)],
            links,
            ..NodeState::default()
        }
    }

    /// A full statement with nothing but links.
    pub fn full(&self, incarnation: u64, seq: u32, links: Vec<LinkStatement>) -> SignedStatement {
        self.says(incarnation, seq, Body::Full(self.state(links)))
    }

    /// A delta.
    pub fn delta(&self, seq: u32, base: u32, links: Vec<LinkStatement>) -> SignedStatement {
        let clock = ClockCoordinate::default();
        self.says(1, seq, Body::Delta { base, clock, links, removed: Vec::new() })
    }
}

/// A link that is up.
pub fn link(to: &str, delay_ms: i32) -> LinkStatement {
    LinkStatement {
        to: key(to),
        up: true,
        delay_micros: delay_ms * 1000,
        jitter: std::time::Duration::ZERO,
        rtt: std::time::Duration::from_millis(40),
        loss: 0.0,
        burst: 1.0,
        capacity_kbps: 0,
        load_kbps: 0,
        cost: std::time::Duration::ZERO,
        max_packet: 1402,
    }
}

impl Trust for Papers {
    fn certificate(&self) -> Bytes {
        format!("{} tradewind://pop/{}{}", self.not_after, self.id, self.query).into()
    }

    fn labels(&self) -> Labels {
        Labels::default()
    }

    fn sign(&self, body: &[u8]) -> [u8; 64] {
        stamp(&public_key(&self.id), body)
    }

    fn verify_certificate(
        &self,
        certificate: &[u8],
        now: Timestamp,
    ) -> Result<PeerCertificate, CertificateError> {
        let text = std::str::from_utf8(certificate).ok().and_then(|text| text.split_once(' '));
        let (not_after, subject) = text.ok_or(CertificateError::OtherAuthority)?;
        let not_after = not_after.parse().map_err(|_| CertificateError::OtherAuthority)?;
        if now.as_micros() / 1_000_000 > not_after {
            return Err(CertificateError::Expired(0));
        }
        let subject: Subject = subject.parse()?;
        Ok(PeerCertificate { public_key: public_key(&subject.id), subject, not_after })
    }

    fn verify_signature(&self, public_key: &[u8; 32], body: &[u8], signature: &[u8; 64]) -> bool {
        *signature == stamp(public_key, body)
    }
}

fn public_key(id: &PopId) -> [u8; 32] {
    let mut key = [0; 32];
    key[..id.as_str().len()].copy_from_slice(id.as_str().as_bytes());
    key
}

fn stamp(public_key: &[u8; 32], body: &[u8]) -> [u8; 64] {
    let sum =
        body.iter().fold(7_u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(*byte)));
    let mut stamp = [0; 64];
    stamp[..32].copy_from_slice(public_key);
    stamp[32..40].copy_from_slice(&sum.to_be_bytes());
    stamp
}
