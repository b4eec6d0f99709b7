//! Making the overlay's CA and the certificates of relays (RFC 5280, Ed25519 of RFC 8410).

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, PKCS_ED25519, SanType,
};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::subject::Subject;

/// How long a new CA is valid, in days.
pub const AUTHORITY_DAYS: u32 = 3653;
/// How long a relay's new certificate is valid, in days.
pub const NODE_DAYS: u32 = 730;
/// New certificates are valid from before now, for relays whose clocks are behind.
const LEEWAY: Duration = Duration::from_secs(86_400);

/// A certificate and its key, as PEM.
pub struct Issued {
    /// For everybody.
    pub certificate: String,
    /// For the owner only (PKCS#8).
    pub key: String,
}

/// The overlay's CA with its key: makes certificates for relays.
pub struct Issuer {
    pub(super) certificate: String,
    pub(super) key: String,
    rcgen: rcgen::Issuer<'static, KeyPair>,
}

/// Why no certificate was made.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// The name or a label can't stand in a certificate.
    #[error("{0}")]
    Subject(String),
    /// The file is there already. Keys are never overwritten.
    #[error("{} exists already; move it away or choose another --out", .0.display())]
    Exists(PathBuf),
    /// A file or directory can't be read or written.
    #[error("{} cannot be {action} ({error}); {todo}", path.display())]
    File {
        /// The file or directory.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// What failed.
        error: std::io::Error,
        /// What to do.
        todo: &'static str,
    },
    /// What is in `ca.pem` and `ca.key` is no CA.
    #[error("the CA cannot be used ({0}); make one with `tradewind cert ca --out DIR`")]
    Authority(String),
    /// The cryptography failed.
    #[error("the certificate could not be made ({0})")]
    Crypto(#[from] rcgen::Error),
}

impl Issuer {
    /// A new CA, valid for [`AUTHORITY_DAYS`] from `unix_seconds`.
    pub fn generate(unix_seconds: u64) -> Result<Self, IssueError> {
        let key = KeyPair::generate_for(&PKCS_ED25519)?;
        let mut params = params("Tradewind overlay CA", unix_seconds, AUTHORITY_DAYS)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key)?.pem();
        let key_pem = key.serialize_pem();
        Ok(Self { certificate, key: key_pem, rcgen: rcgen::Issuer::new(params, key) })
    }

    /// The CA from PEM texts.
    pub fn from_pem(certificate: &str, key: &str) -> Result<Self, IssueError> {
        let refused = |why: String| IssueError::Authority(why);
        let pair = KeyPair::from_pem(key).map_err(|error| refused(format!("its key: {error}")))?;
        let der = super::one_certificate(certificate.as_bytes()).map_err(refused)?;
        let (_, parsed) = X509Certificate::from_der(&der).map_err(|e| refused(e.to_string()))?;
        if !parsed.is_ca() {
            return Err(refused("ca.pem is not the certificate of a CA".into()));
        }
        if *parsed.public_key().subject_public_key.data != *pair.public_key_raw() {
            return Err(refused("ca.key is not the key of ca.pem".into()));
        }
        let rcgen = rcgen::Issuer::from_ca_cert_der(&der, pair)?;
        Ok(Self { certificate: certificate.into(), key: key.into(), rcgen })
    }

    /// The CA that [`write_authority`] put into `directory`.
    pub fn load(directory: &Path) -> Result<Self, IssueError> {
        let read = |name: &str| {
            let path = directory.join(name);
            std::fs::read_to_string(&path).map_err(|error| IssueError::File {
                path,
                action: "read",
                error,
                todo: "name the directory that `tradewind cert ca --out DIR` wrote with --ca DIR",
            })
        };
        Self::from_pem(&read("ca.pem")?, &read("ca.key")?)
    }

    /// The CA's certificate, as PEM.
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// A new key and certificate for a relay, valid for `days` from `unix_seconds`.
    pub fn issue(
        &self,
        subject: &Subject,
        unix_seconds: u64,
        days: u32,
    ) -> Result<Issued, IssueError> {
        subject.check().map_err(|error| IssueError::Subject(error.to_string()))?;
        let key = KeyPair::generate_for(&PKCS_ED25519)?;
        let mut params = params(subject.id.as_str(), unix_seconds, days)?;
        params.subject_alt_names = vec![
            SanType::URI(subject.to_string().try_into()?),
            SanType::DnsName(format!("{}.tradewind", subject.id).try_into()?),
        ];
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&key, &self.rcgen)?.pem();
        Ok(Issued { certificate, key: key.serialize_pem() })
    }
}

fn params(name: &str, unix_seconds: u64, days: u32) -> Result<CertificateParams, IssueError> {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let begins = Duration::from_secs(unix_seconds).saturating_sub(LEEWAY);
    let ends = Duration::from_secs(unix_seconds.saturating_add(u64::from(days) * 86_400));
    // Years of four digits: what certificates can hold.
    if ends.as_secs() > 253_402_300_799 {
        return Err(IssueError::Subject(format!("{days} days from now is after the year 9999")));
    }
    let mut params = CertificateParams::default();
    params.not_before = epoch + begins;
    params.not_after = epoch + ends;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    Ok(params)
}

/// Writes `ca.pem` and `ca.key` (mode 0600) into `directory`, which is made if it isn't there.
pub fn write_authority(issuer: &Issuer, directory: &Path) -> Result<[PathBuf; 2], IssueError> {
    write(directory, "ca", &issuer.certificate, &issuer.key)
}

/// Writes `ID.pem` and `ID.key` (mode 0600) into `directory`, which is made if it isn't there.
pub fn write_node(issued: &Issued, id: &str, directory: &Path) -> Result<[PathBuf; 2], IssueError> {
    write(directory, id, &issued.certificate, &issued.key)
}

fn write(
    directory: &Path,
    name: &str,
    certificate: &str,
    key: &str,
) -> Result<[PathBuf; 2], IssueError> {
    let paths = [format!("{name}.pem"), format!("{name}.key")].map(|name| directory.join(name));
    if let Some(there) = paths.iter().find(|path| path.exists()) {
        return Err(IssueError::Exists(there.clone()));
    }
    std::fs::create_dir_all(directory).map_err(|error| unwritable(directory, error))?;
    create(&paths[1], key, 0o600)?;
    create(&paths[0], certificate, 0o644)?;
    Ok(paths)
}

fn create(path: &Path, text: &str, mode: u32) -> Result<(), IssueError> {
    use std::os::unix::fs::OpenOptionsExt;
    // `create_new`: whoever else makes the file at this moment keeps it.
    let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(|error| unwritable(path, error))
}

fn unwritable(path: &Path, error: std::io::Error) -> IssueError {
    let todo = "choose a directory with --out that you may write to";
    IssueError::File { path: path.into(), action: "written", error, todo }
}
