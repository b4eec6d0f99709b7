//! Certificates and signatures that cost nothing: everybody is who they say, and damage shows.
//!
//! A certificate is the relay's subject as text, a signature a keyed checksum. The rules above
//! them are the daemon's own; that real certificates and signatures hold is tested with the daemon.

use std::hash::{DefaultHasher, Hash, Hasher};

use bytes::Bytes;
use tradewind_proto::units::Timestamp;
use tradewind_relay::identity::{CertificateError, PeerCertificate, Subject};
use tradewind_relay::node::control::Trust;
use tradewind_router::lsdb::Labels;

/// The identity of a simulated relay.
#[derive(Clone, Debug)]
pub struct PlainTrust {
    subject: Subject,
}

impl PlainTrust {
    /// The identity of the relay that `subject` names.
    pub fn new(subject: Subject) -> Self {
        Self { subject }
    }
}

impl Trust for PlainTrust {
    fn certificate(&self) -> Bytes {
        self.subject.to_string().into()
    }

    fn labels(&self) -> Labels {
        self.subject.labels.clone()
    }

    fn sign(&self, body: &[u8]) -> [u8; 64] {
        signature(&key(&self.subject), body)
    }

    fn verify_certificate(
        &self,
        certificate: &[u8],
        _now: Timestamp,
    ) -> Result<PeerCertificate, CertificateError> {
        let text = std::str::from_utf8(certificate)
            .map_err(|error| CertificateError::Unreadable(error.to_string()))?;
        let subject: Subject = text.parse()?;
        Ok(PeerCertificate { public_key: key(&subject), subject, not_after: u64::MAX })
    }

    fn verify_signature(&self, public_key: &[u8; 32], body: &[u8], signed: &[u8; 64]) -> bool {
        signature(public_key, body) == *signed
    }
}

fn key(subject: &Subject) -> [u8; 32] {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&checksum(subject.to_string().as_bytes(), &[]).to_be_bytes());
    key
}

fn signature(key: &[u8; 32], body: &[u8]) -> [u8; 64] {
    let mut signature = [0; 64];
    signature[..8].copy_from_slice(&checksum(key, body).to_be_bytes());
    signature
}

fn checksum(key: &[u8], body: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    (key, body).hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trust(id: &str) -> PlainTrust {
        let id = id.parse().unwrap();
        PlainTrust::new(Subject { id, labels: Labels::default(), services: None })
    }

    #[test]
    fn certificates_are_read_back_and_signatures_are_told_apart() {
        let (a, b) = (trust("a"), trust("b"));
        let [of_a, of_b] =
            [&a, &b].map(|t| a.verify_certificate(&t.certificate(), Timestamp::ZERO).unwrap());
        assert_eq!((of_a.id().as_str(), of_b.id().as_str()), ("a", "b"));
        assert!(b.verify_signature(&of_a.public_key, b"body", &a.sign(b"body")));
        assert!(!b.verify_signature(&of_b.public_key, b"body", &a.sign(b"body")));
        assert!(!b.verify_signature(&of_a.public_key, b"bodx", &a.sign(b"body")));
        assert!(b.verify_certificate(b"\xff", Timestamp::ZERO).is_err());
    }
}
