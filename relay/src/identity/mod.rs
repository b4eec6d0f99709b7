//! Who a relay is: its certificate from the overlay's CA, the key to it, and what both are for.
//!
//! Every relay has an Ed25519 key and a certificate signed by the overlay's own CA *directly*
//! (no intermediates: statements carry one certificate). The certificate names the relay and its
//! labels in a URI, see [`Subject`]; policies judge by these labels only. The same key speaks TLS
//! with neighbours and signs link-state statements.
//!
//! This module reads PEM files but never a clock: whoever calls says what time it is.

mod authority;
mod issue;
mod subject;
#[cfg(test)]
mod tests;
mod tls;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ring::signature::{Ed25519KeyPair, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tradewind_proto::units::{PopId, ServiceName};

pub use authority::{Authority, CertificateError, PeerCertificate, verify_signature};
pub use issue::{
    AUTHORITY_DAYS, IssueError, Issued, Issuer, NODE_DAYS, write_authority, write_node,
};
pub use subject::{Labels, Subject, SubjectError, check_label};
pub use tls::SERVER_NAME;

use crate::config::IdentityFiles;

/// The most bytes of a PEM file.
const MAX_PEM: u64 = 1 << 20;

/// What TLS and link state need to speak for this relay.
pub struct Identity {
    authority: Arc<Authority>,
    certificate: PeerCertificate,
    der: CertificateDer<'static>,
    key_der: PrivateKeyDer<'static>,
    key: Ed25519KeyPair,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

/// Why a relay can't prove who it is.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The CA's certificate is of no use.
    #[error("{} is no CA certificate ({why}); name the ca.pem that `tradewind cert ca` wrote", path.display())]
    Authority {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The relay's certificate is of no use.
    #[error("{} is refused: {why}; make a new one with `tradewind cert node --ca DIR --id ID`", path.display())]
    Certificate {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: CertificateError,
    },
    /// The key can't be read.
    #[error("{} holds no Ed25519 key ({why}); name the key file that `tradewind cert node` wrote", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The key is another's.
    #[error("{} is not the key of the certificate {}; name the two files of one `tradewind cert node` run", path.display(), certificate.display())]
    KeyMismatch {
        /// The key file.
        path: PathBuf,
        /// The certificate file.
        certificate: PathBuf,
    },
}

impl Identity {
    /// Reads the files and checks that the certificate is the CA's, in force at `unix_seconds`,
    /// names a relay, and that the key is its.
    pub fn load(files: &IdentityFiles, unix_seconds: u64) -> Result<Self, IdentityError> {
        let (ca, cert, key) = (&files.ca, &files.cert, &files.key);
        let authority = |why| IdentityError::Authority { path: ca.clone(), why };
        let certificate = |why| IdentityError::Certificate { path: cert.clone(), why };
        let bad_key = |why| IdentityError::Key { path: key.clone(), why };
        let ca_pem = read(ca).map_err(authority)?;
        let cert_pem = read(cert).map_err(|why| certificate(CertificateError::Unreadable(why)))?;
        let key_pem = read(key).map_err(bad_key)?;
        Self::from_pem(&ca_pem, &cert_pem, &key_pem, unix_seconds).map_err(|error| match error {
            PemError::Authority(why) => authority(why),
            PemError::Certificate(why) => certificate(why),
            PemError::Key(why) => bad_key(why),
            PemError::KeyMismatch => {
                IdentityError::KeyMismatch { path: key.clone(), certificate: cert.clone() }
            }
        })
    }

    /// The same from the contents of the files.
    pub fn from_pem(
        ca: &[u8],
        certificate: &[u8],
        key: &[u8],
        unix_seconds: u64,
    ) -> Result<Self, PemError> {
        let authority = Authority::from_pem(ca).map_err(PemError::Authority)?;
        let der = one_certificate(certificate)
            .map_err(|why| PemError::Certificate(CertificateError::Unreadable(why)))?;
        let verified = authority.verify_certificate(&der, unix_seconds);
        let certificate = verified.map_err(PemError::Certificate)?;
        let key_der =
            PrivateKeyDer::from_pem_slice(key).map_err(|e| PemError::Key(e.to_string()))?;
        let PrivateKeyDer::Pkcs8(pkcs8) = &key_der else {
            return Err(PemError::Key("it is not in PKCS#8 form".into()));
        };
        // Version 1 keys, as openssl writes them, lack the public half: hence "unchecked", and
        // the comparison below.
        let key = Ed25519KeyPair::from_pkcs8_maybe_unchecked(pkcs8.secret_pkcs8_der())
            .map_err(|error| PemError::Key(error.to_string()))?;
        if key.public_key().as_ref() != certificate.public_key {
            return Err(PemError::KeyMismatch);
        }
        Ok(Self { authority: Arc::new(authority), certificate, der, key_der, key })
    }

    /// The relay's name.
    pub fn id(&self) -> &PopId {
        &self.certificate.subject.id
    }

    /// Where it is and whose.
    pub fn labels(&self) -> &Labels {
        &self.certificate.subject.labels
    }

    /// The services that it may advertise; `None`: all.
    pub fn services(&self) -> Option<&[ServiceName]> {
        self.certificate.subject.services.as_deref()
    }

    /// All that its certificate says.
    pub fn certificate(&self) -> &PeerCertificate {
        &self.certificate
    }

    /// Its certificate, for its statements.
    pub fn certificate_der(&self) -> &[u8] {
        &self.der
    }

    /// Who judges the certificates of others.
    pub fn authority(&self) -> &Arc<Authority> {
        &self.authority
    }

    /// Its Ed25519 signature over `body` (RFC 8032).
    pub fn sign(&self, body: &[u8]) -> [u8; 64] {
        let mut signature = [0; 64];
        signature.copy_from_slice(self.key.sign(body).as_ref());
        signature
    }
}

/// Why PEM texts make no [`Identity`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PemError {
    /// The CA's certificate.
    #[error("the CA's certificate: {0}")]
    Authority(String),
    /// The relay's certificate.
    #[error("the relay's certificate: {0}")]
    Certificate(CertificateError),
    /// The relay's key.
    #[error("the relay's key: {0}")]
    Key(String),
    /// The key is another's.
    #[error("the key is not that of the certificate")]
    KeyMismatch,
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let size = std::fs::metadata(path).map_err(|error| error.to_string())?.len();
    if size > MAX_PEM {
        return Err(format!("{size} bytes are too many"));
    }
    std::fs::read(path).map_err(|error| error.to_string())
}

/// The only certificate in a PEM text.
fn one_certificate(pem: &[u8]) -> Result<CertificateDer<'static>, String> {
    let mut all = CertificateDer::pem_slice_iter(pem);
    let first = all.next().ok_or("it holds no PEM certificate")?;
    if all.next().is_some() {
        return Err("it holds more than one certificate".into());
    }
    first.map_err(|error| error.to_string())
}
