//! Certificates made here are accepted here, and everything else is refused.

use super::*;

const NOW: u64 = 1_790_000_000;
const DAY: u64 = 86_400;

fn subject(uri: &str) -> Subject {
    uri.parse().expect(uri)
}

fn fra() -> Subject {
    subject("tradewind://pop/fra?region=EU&country=DE&provider=hetzner&service=sfu-fra")
}

fn identity(issuer: &Issuer, issued: &Issued, now: u64) -> Result<Identity, PemError> {
    let (certificate, key) = (issued.certificate.as_bytes(), issued.key.as_bytes());
    Identity::from_pem(issuer.certificate().as_bytes(), certificate, key, now)
}

#[test]
fn labels_come_back_from_the_certificate() {
    let issuer = Issuer::generate(NOW).unwrap();
    let issued = issuer.issue(&fra(), NOW, NODE_DAYS).unwrap();
    let identity = identity(&issuer, &issued, NOW).unwrap();
    assert_eq!(identity.certificate().subject, fra());
    assert_eq!(identity.certificate().not_after, NOW + u64::from(NODE_DAYS) * DAY);
    let of_peer = identity.authority().verify_certificate(identity.certificate_der(), NOW).unwrap();
    assert_eq!(&of_peer, identity.certificate());
    let signature = identity.sign(b"statement");
    assert!(verify_signature(&of_peer.public_key, b"statement", &signature));
    assert!(!verify_signature(&of_peer.public_key, b"Statement", &signature));
}

#[test]
fn a_ca_read_again_issues_the_same_overlay() {
    let first = Issuer::generate(NOW).unwrap();
    let again = Issuer::from_pem(&first.certificate, &first.key).unwrap();
    let issued = again.issue(&fra(), NOW, 1).unwrap();
    assert!(identity(&first, &issued, NOW).is_ok());
}

#[test]
fn a_ca_key_of_another_ca_is_refused() {
    let (one, other) = (Issuer::generate(NOW).unwrap(), Issuer::generate(NOW).unwrap());
    let error = Issuer::from_pem(&one.certificate, &other.key).err().unwrap().to_string();
    assert!(error.contains("ca.key is not the key of ca.pem"), "{error}");
}

#[test]
fn certificates_are_refused_with_the_reason() {
    let (issuer, other) = (Issuer::generate(NOW).unwrap(), Issuer::generate(NOW).unwrap());
    let issued = issuer.issue(&fra(), NOW, 10).unwrap();
    let refused = |issuer, issued, now| match identity(issuer, issued, now) {
        Err(PemError::Certificate(why)) => why,
        result => panic!("{result:?}"),
    };
    assert_eq!(refused(&other, &issued, NOW), CertificateError::OtherAuthority);
    assert_eq!(refused(&issuer, &issued, NOW + 13 * DAY), CertificateError::Expired(3));
    assert_eq!(refused(&issuer, &issued, NOW - 2 * DAY), CertificateError::NotYetValid);
    let ca = Issued { certificate: issuer.certificate.clone(), key: issuer.key.clone() };
    assert!(matches!(refused(&issuer, &ca, NOW), CertificateError::Purpose(_)));
    let garbled = Issued { certificate: "-----BEGIN".into(), key: issued.key.clone() };
    assert!(matches!(refused(&issuer, &garbled, NOW), CertificateError::Unreadable(_)));
}

#[test]
fn any_changed_byte_is_noticed() {
    let issuer = Issuer::generate(NOW).unwrap();
    let issued = issuer.issue(&fra(), NOW, 10).unwrap();
    let identity = identity(&issuer, &issued, NOW).unwrap();
    for at in 0..identity.certificate_der().len() {
        let mut der = identity.certificate_der().to_vec();
        der[at] ^= 1;
        assert!(identity.authority().verify_certificate(&der, NOW).is_err(), "byte {at}");
    }
}

#[test]
fn keys_are_checked_against_the_certificate() {
    let issuer = Issuer::generate(NOW).unwrap();
    let issued = issuer.issue(&fra(), NOW, 10).unwrap();
    let other = issuer.issue(&subject("tradewind://pop/mad"), NOW, 10).unwrap();
    let mixed = Issued { certificate: issued.certificate.clone(), key: other.key };
    assert_eq!(identity(&issuer, &mixed, NOW).err(), Some(PemError::KeyMismatch));
    let none = Issued { certificate: issued.certificate, key: String::new() };
    assert!(matches!(identity(&issuer, &none, NOW), Err(PemError::Key(_))));
}

#[test]
fn only_what_fits_into_a_certificate_is_issued() {
    let issuer = Issuer::generate(NOW).unwrap();
    let mut bad = fra();
    bad.labels.region = Some("E U".into());
    assert!(matches!(issuer.issue(&bad, NOW, 1), Err(IssueError::Subject(_))));
    assert!(matches!(issuer.issue(&fra(), NOW, u32::MAX), Err(IssueError::Subject(_))));
}

#[test]
fn files_are_private_and_never_overwritten() {
    use std::os::unix::fs::PermissionsExt;
    let directory = std::env::temp_dir().join(format!("tradewind-cert-{}", std::process::id()));
    let issuer = Issuer::generate(NOW).unwrap();
    let [certificate, key] = write_authority(&issuer, &directory).unwrap();
    assert_eq!(std::fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    let refused = write_authority(&issuer, &directory).unwrap_err().to_string();
    assert!(refused.ends_with("ca.pem exists already; move it away or choose another --out"));
    assert_eq!(std::fs::read_to_string(certificate).unwrap(), issuer.certificate);
    let issued = Issuer::load(&directory).unwrap().issue(&fra(), NOW, 1).unwrap();
    let [cert, key] = write_node(&issued, "fra", &directory).unwrap();
    let files = IdentityFiles::new(directory.join("ca.pem"), cert, key);
    assert_eq!(Identity::load(&files, NOW).unwrap().id().as_str(), "fra");
    let wrong = IdentityFiles::new(files.ca, files.cert, directory.join("ca.key"));
    let error = Identity::load(&wrong, NOW).unwrap_err().to_string();
    assert!(error.contains("ca.key is not the key of the certificate"), "{error}");
    std::fs::remove_dir_all(&directory).unwrap();
}

/// One handshake in memory; what the two ends thought of it.
fn shake(client: &Identity, server: &Identity) -> Result<(), rustls::Error> {
    let name = rustls::pki_types::ServerName::try_from(SERVER_NAME).unwrap();
    let mut client =
        rustls::ClientConnection::new(Arc::new(client.client_config()?), name).unwrap();
    let mut server = rustls::ServerConnection::new(Arc::new(server.server_config()?)).unwrap();
    for _ in 0..8 {
        let mut wire = Vec::new();
        client.write_tls(&mut wire).unwrap();
        server.read_tls(&mut wire.as_slice()).unwrap();
        server.process_new_packets()?;
        let mut wire = Vec::new();
        server.write_tls(&mut wire).unwrap();
        client.read_tls(&mut wire.as_slice()).unwrap();
        client.process_new_packets()?;
    }
    assert!(!client.is_handshaking() && !server.is_handshaking());
    assert_eq!(client.alpn_protocol(), Some(tradewind_proto::control::ALPN));
    assert_eq!(client.peer_certificates().map(<[_]>::len), Some(1));
    assert_eq!(server.peer_certificates().map(<[_]>::len), Some(1));
    Ok(())
}

/// TLS reads the clock itself, so these certificates are of the real day.
#[expect(clippy::disallowed_methods, reason = "rustls compares with the real clock")]
fn today() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
}

#[test]
fn relays_of_one_overlay_shake_hands_and_others_do_not() {
    let now = today();
    let (issuer, other) = (Issuer::generate(now).unwrap(), Issuer::generate(now).unwrap());
    let relay = |issuer: &Issuer, name: &str| {
        let issued = issuer.issue(&subject(&format!("tradewind://pop/{name}")), now, 10).unwrap();
        identity(issuer, &issued, now).unwrap()
    };
    let (fra, mad, stranger) = (relay(&issuer, "fra"), relay(&issuer, "mad"), relay(&other, "fra"));
    shake(&fra, &mad).unwrap();
    for (client, server) in [(&stranger, &mad), (&mad, &stranger)] {
        let error = shake(client, server).unwrap_err().to_string();
        assert!(error.contains("certificate is refused: it is from another CA"), "{error}");
    }
}
