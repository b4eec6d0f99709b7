//! A statement with its signature.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use super::Statement;
use crate::wire::WireError;

/// A signed statement as it travels. Copies are cheap and share what was decoded: relays that run in
/// one process and pass it on, as simulated ones do, keep it once between them.
#[derive(Clone, Debug)]
pub struct SignedStatement(Arc<Signed>);

#[derive(Debug)]
struct Signed {
    body: Bytes,
    signature: [u8; 64],
    decoded: OnceLock<Result<Arc<Statement>, WireError>>,
}

impl SignedStatement {
    /// A [`Statement`], encoded, and what should be its origin's Ed25519 signature over that
    /// (RFC 8032).
    pub fn new(body: Bytes, signature: [u8; 64]) -> Self {
        Self(Arc::new(Signed { body, signature, decoded: OnceLock::new() }))
    }

    /// What was signed.
    pub fn body(&self) -> &Bytes {
        &self.0.body
    }

    /// The signature.
    pub fn signature(&self) -> &[u8; 64] {
        &self.0.signature
    }

    /// What the body says, as [`Statement::decode`] reads it.
    pub fn statement(&self) -> Result<&Arc<Statement>, WireError> {
        let decode = || Statement::decode(&self.0.body).map(Arc::new);
        self.0.decoded.get_or_init(decode).as_ref().map_err(|error| *error)
    }
}

impl PartialEq for SignedStatement {
    fn eq(&self, other: &Self) -> bool {
        (self.body(), self.signature()) == (other.body(), other.signature())
    }
}

impl Eq for SignedStatement {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::statement::{Body, NodeState};
    use crate::units::Incarnation;

    #[test]
    fn copies_share_what_was_decoded() {
        let origin = "fra".parse().unwrap();
        let body = Body::Full(NodeState::default());
        let statement = Statement { origin, incarnation: Incarnation(1), seq: 1, body };
        let signed = SignedStatement::new(statement.encode(), [7; 64]);
        let copy = signed.clone();
        assert_eq!(**signed.statement().unwrap(), statement);
        assert!(Arc::ptr_eq(signed.statement().unwrap(), copy.statement().unwrap()));
        assert_eq!(copy, SignedStatement::new(statement.encode(), [7; 64]));
        assert_ne!(copy, SignedStatement::new(statement.encode(), [8; 64]));
        let garbage = SignedStatement::new(Bytes::from_static(b"?"), [0; 64]);
        assert_eq!(garbage.statement().err(), Statement::decode(b"?").err());
    }
}
