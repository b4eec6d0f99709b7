//! TLS 1.3 between relays: both ends show a certificate of the overlay's CA.
//!
//! Neither end compares host names: a relay is dialled by an address that says nothing about its
//! name. The node compares the name in the certificate with the one in the hello. Sessions are
//! never resumed, so every connection checks the certificate anew.

use std::sync::Arc;

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::{self, cipher_suite};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    ClientConfig, DigitallySignedStruct, DistinguishedName, ServerConfig, SignatureScheme,
};
use tradewind_proto::control::ALPN;

use super::{Authority, CertificateError, Identity};

/// The name to dial with: TLS wants one, nobody compares it.
pub const SERVER_NAME: &str = "relay.tradewind";

/// ring's algorithms, AES-128-GCM first: the fastest with AES instructions, and the only one
/// that QUIC can't do without (RFC 9001, section 5.2).
pub(super) fn provider() -> Arc<CryptoProvider> {
    let cipher_suites = vec![
        cipher_suite::TLS13_AES_128_GCM_SHA256,
        cipher_suite::TLS13_AES_256_GCM_SHA384,
        cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
    ];
    Arc::new(CryptoProvider { cipher_suites, ..ring::default_provider() })
}

impl Identity {
    /// For connections that come in. For quinn: `QuicServerConfig::try_from`.
    pub fn server_config(&self) -> Result<ServerConfig, rustls::Error> {
        let builder = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(Arc::new(Relays(Arc::clone(&self.authority))));
        let mut config =
            builder.with_single_cert(vec![self.der.clone()], self.key_der.clone_key())?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.send_tls13_tickets = 0;
        Ok(config)
    }

    /// For connections that go out. For quinn: `QuicClientConfig::try_from`, and dial with
    /// [`SERVER_NAME`].
    pub fn client_config(&self) -> Result<ClientConfig, rustls::Error> {
        let builder = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Relays(Arc::clone(&self.authority))));
        let mut config =
            builder.with_client_auth_cert(vec![self.der.clone()], self.key_der.clone_key())?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.resumption = Resumption::disabled();
        Ok(config)
    }
}

/// Accepts every relay of the overlay, at either end.
#[derive(Debug)]
struct Relays(Arc<Authority>);

impl Relays {
    fn verify(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), rustls::Error> {
        // As text: rustls shows other forms as code, and QUIC hands the text to the other side,
        // so that both logs tell the reason.
        let refused = |why: CertificateError| {
            rustls::Error::General(format!("the relay's certificate is refused: {why}"))
        };
        if !intermediates.is_empty() {
            return Err(refused(CertificateError::Intermediates));
        }
        self.0.verify_certificate(certificate, now.as_secs()).map(|_| ()).map_err(refused)
    }
}

impl ServerCertVerifier for Relays {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.verify(end_entity, intermediates, now).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.chain.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.chain.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.chain.supported_verify_schemes()
    }
}

impl ClientCertVerifier for Relays {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.chain.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.verify(end_entity, intermediates, now).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.chain.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.chain.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.chain.supported_verify_schemes()
    }
}
