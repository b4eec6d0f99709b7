//! Judging the certificates of relays: signed by our CA, in force, naming a relay.

use std::sync::Arc;

use ring::signature::{ED25519, UnparsedPublicKey};
use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use tradewind_proto::units::{PopId, ServiceName};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::subject::{Labels, PREFIX, Subject, SubjectError};
use super::tls::provider;

/// The overlay's CA.
#[derive(Debug)]
pub struct Authority {
    /// Checks signature, validity and purpose. It is the one for *client* certificates because
    /// that one compares no host name: relays are dialled by address, and the name in the
    /// certificate is compared with the one in the hello. Every certificate serves both ends.
    pub(super) chain: Arc<dyn ClientCertVerifier>,
}

/// What a certificate that was found good says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerCertificate {
    /// The relay.
    pub subject: Subject,
    /// Its Ed25519 key (RFC 8032).
    pub public_key: [u8; 32],
    /// The last second in which it is in force, since the Unix epoch.
    pub not_after: u64,
}

impl PeerCertificate {
    /// The relay's name.
    pub fn id(&self) -> &PopId {
        &self.subject.id
    }

    /// Where it is and whose.
    pub fn labels(&self) -> &Labels {
        &self.subject.labels
    }

    /// The services that it may advertise; `None`: all.
    pub fn services(&self) -> Option<&[ServiceName]> {
        self.subject.services.as_deref()
    }
}

/// Why a relay's certificate is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// Its bytes make no sense.
    #[error("it cannot be read ({0})")]
    Unreadable(String),
    /// Its validity has ended.
    #[error("it expired {0} day(s) ago")]
    Expired(u64),
    /// Its validity has not begun.
    #[error("it is not valid yet; check the clock of this machine")]
    NotYetValid,
    /// It is not signed by our CA.
    #[error("it is from another CA")]
    OtherAuthority,
    /// It is ours, but not for a relay.
    #[error("it is not fit for a relay ({0})")]
    Purpose(String),
    /// The name is missing or wrong.
    #[error("it names no relay ({0})")]
    Subject(#[from] SubjectError),
    /// Not exactly one name.
    #[error("it names {0} relays instead of one")]
    Names(usize),
    /// It came with others, though the CA signs every relay's certificate directly.
    #[error("it came with intermediate certificates")]
    Intermediates,
    /// Its key is no Ed25519 key.
    #[error("its key is not an Ed25519 key")]
    KeyKind,
}

impl Authority {
    /// From the CA's certificate as PEM. The error says what is wrong with it.
    pub fn from_pem(pem: &[u8]) -> Result<Self, String> {
        Self::new(super::one_certificate(pem)?)
    }

    /// From the CA's certificate.
    pub fn new(certificate: CertificateDer<'static>) -> Result<Self, String> {
        let (rest, parsed) = X509Certificate::from_der(&certificate).map_err(|e| e.to_string())?;
        if !rest.is_empty() || !parsed.is_ca() {
            return Err("it is not the certificate of a CA".into());
        }
        let mut roots = RootCertStore::empty();
        roots.add(certificate).map_err(|error| error.to_string())?;
        let chain = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
        Ok(Self { chain: chain.build().map_err(|error| error.to_string())? })
    }

    /// Whether `der` is the certificate of a relay of this overlay, in force at
    /// `now_unix_seconds`; then what it says.
    pub fn verify_certificate(
        &self,
        der: &[u8],
        now_unix_seconds: u64,
    ) -> Result<PeerCertificate, CertificateError> {
        let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(now_unix_seconds));
        let checked = self.chain.verify_client_cert(&CertificateDer::from(der), &[], now);
        checked.map_err(|error| refusal(error, now_unix_seconds))?;
        read(der)
    }
}

/// Whether `signature` is that of `public_key` over `body` (Ed25519, RFC 8032).
pub fn verify_signature(public_key: &[u8; 32], body: &[u8], signature: &[u8; 64]) -> bool {
    UnparsedPublicKey::new(&ED25519, public_key).verify(body, signature).is_ok()
}

fn refusal(error: rustls::Error, now: u64) -> CertificateError {
    use rustls::CertificateError as Kind;
    let rustls::Error::InvalidCertificate(kind) = error else {
        return CertificateError::Unreadable(error.to_string());
    };
    match kind {
        Kind::Expired => CertificateError::Expired(0),
        Kind::ExpiredContext { not_after, .. } => {
            CertificateError::Expired(now.saturating_sub(not_after.as_secs()) / 86_400)
        }
        Kind::NotValidYet | Kind::NotValidYetContext { .. } => CertificateError::NotYetValid,
        Kind::UnknownIssuer | Kind::BadSignature => CertificateError::OtherAuthority,
        Kind::BadEncoding => CertificateError::Unreadable("its encoding is wrong".into()),
        other => CertificateError::Purpose(format!("{other:?}")),
    }
}

/// What a certificate says. Whether that is true, the chain tells.
fn read(der: &[u8]) -> Result<PeerCertificate, CertificateError> {
    let unreadable =
        |error: &dyn std::fmt::Display| CertificateError::Unreadable(error.to_string());
    let (_, parsed) = X509Certificate::from_der(der).map_err(|error| unreadable(&error))?;
    let names = parsed.subject_alternative_name().map_err(|error| unreadable(&error))?;
    let uris: Vec<&str> = names
        .iter()
        .flat_map(|extension| &extension.value.general_names)
        .filter_map(|name| match name {
            GeneralName::URI(uri) if uri.starts_with(PREFIX) => Some(*uri),
            _ => None,
        })
        .collect();
    let [uri] = uris[..] else { return Err(CertificateError::Names(uris.len())) };
    let key = parsed.public_key();
    let is_ed25519 = key.algorithm.algorithm == x509_parser::oid_registry::OID_SIG_ED25519;
    let public_key = key.subject_public_key.data.as_ref().try_into();
    Ok(PeerCertificate {
        subject: uri.parse()?,
        public_key: public_key.ok().filter(|_| is_ed25519).ok_or(CertificateError::KeyKind)?,
        not_after: u64::try_from(parsed.validity().not_after.timestamp()).unwrap_or(0),
    })
}
