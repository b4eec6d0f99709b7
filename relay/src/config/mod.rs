//! The configuration of a relay, checked: a [`Config`] that exists can be run.
//!
//! [`Source`] remembers the file and what overrides it, so that a reload reads the same again.
//! Reading is strict: an unknown key, a wrong type, a reference to nothing or two listeners on
//! one address refuse the whole, with one sentence that says where and what to do. This module
//! opens no socket and does not read certificates' contents; see [`crate::identity`].

mod address;
mod check;
mod error;
mod overrides;
mod print;
mod read;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tradewind_proto::statement::Policy;
use tradewind_proto::units::{Class, PolicyId, PopId, Redundancy, ServiceName};

pub use address::{HostPort, MAX_PORTS, PortRange};
pub use error::{ConfigError, Place, Problem};
pub use overrides::Overrides;
use read::Document;

use crate::identity::{Identity, IdentityError};

/// The most bytes of a configuration file.
pub const MAX_FILE: u64 = 1 << 20;
/// The most services: what a link-state statement holds.
pub const MAX_SERVICES: usize = 256;
/// The most policies: what a link-state statement holds.
pub const MAX_POLICIES: usize = 64;
/// The most tunnels.
pub const MAX_TUNNELS: usize = 1024;
/// The most ports of all tunnels together: each is a socket.
pub const MAX_TUNNEL_PORTS: usize = 16_384;
/// The most peers to dial first: others are learned from them.
pub const MAX_PEERS: usize = 64;
/// The most advertised addresses: what a link-state statement holds.
pub const MAX_ADVERTISED: usize = 4;
/// The UDP payload sizes that a link may use.
pub const MTU: std::ops::RangeInclusive<u16> = 1_200..=9_000;
/// The deadlines that a tunnel may have: packets carry them in 24 bits of microseconds.
pub const DEADLINES: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(1)..=Duration::from_secs(16);

/// Everything that a relay is told.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Who it is.
    pub node: Node,
    /// How it speaks with other relays.
    pub overlay: Overlay,
    /// Where its certificate is.
    pub identity: IdentityFiles,
    /// Its HTTP server.
    pub admin: Admin,
    /// Its logs.
    pub log: Log,
    /// Egresses.
    pub services: Vec<Service>,
    /// Ingresses. No two listeners want the same port.
    pub tunnels: Vec<Tunnel>,
    /// The rules that tunnels name.
    pub policies: Vec<Policy>,
}

/// `[node]`
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Its name: must be the one in its certificate.
    pub id: PopId,
    /// Degrees north and east, for maps.
    pub location: Option<(f32, f32)>,
}

/// `[overlay]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overlay {
    /// Where it receives QUIC.
    pub listen: SocketAddr,
    /// Where others dial it; never empty.
    pub advertise: Vec<HostPort>,
    /// Whom it dials first. Empty: it waits to be dialled.
    pub peers: Vec<HostPort>,
    /// With whom it keeps links.
    pub mesh: Mesh,
    /// Bytes of a UDP payload; `None`: from the route, at most 1,452.
    pub mtu: Option<u16>,
}

/// With which relays to keep links.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mesh {
    /// All up to 64 PoPs, above that the nearest 16, 8 spread out and up to 8 that flows go to or
    /// come from.
    #[default]
    Auto,
    /// All.
    Full,
    /// The configured peers only, and who dials.
    Peers,
}

impl Mesh {
    /// As configuration writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Full => "full",
            Self::Peers => "peers",
        }
    }
}

/// `[identity]`: paths of PEM files, relative ones resolved against the configuration's directory.
#[derive(Clone, Debug, Default)]
pub struct IdentityFiles {
    /// The overlay's CA certificate.
    pub ca: PathBuf,
    /// The relay's certificate.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// Where `node.id`, `ca`, `cert` and `key` were given, for errors about the files' contents.
    places: [Place; 4],
}

impl IdentityFiles {
    /// Files named by a program.
    pub fn new(ca: PathBuf, cert: PathBuf, key: PathBuf) -> Self {
        Self { ca, cert, key, places: Default::default() }
    }
}

impl PartialEq for IdentityFiles {
    fn eq(&self, other: &Self) -> bool {
        (&self.ca, &self.cert, &self.key) == (&other.ca, &other.cert, &other.key)
    }
}

/// `[admin]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admin {
    /// Where HTTP is served.
    pub listen: SocketAddr,
}

impl Default for Admin {
    fn default() -> Self {
        Self { listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 7480) }
    }
}

/// `[log]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// What to log, as `tracing_subscriber::EnvFilter` reads it: `info`, `tradewind_relay=debug`.
    pub filter: String,
    /// How to write it.
    pub format: LogFormat,
}

impl Default for Log {
    fn default() -> Self {
        Self { filter: "info".into(), format: LogFormat::Text }
    }
}

/// How to write logs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// Lines for people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

impl LogFormat {
    /// As configuration writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
        }
    }
}

/// `[[service]]`: where packets leave the overlay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Its name; no two services of a relay share one.
    pub name: ServiceName,
    /// Where packets are handed to.
    pub target: PortRange,
}

/// `[[tunnel]]`: where packets enter the overlay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tunnel {
    /// Where it receives UDP.
    pub listen: PortRange,
    /// Where its packets go; a port goes to the port of the same place in the service's range.
    pub service: ServiceName,
    /// The one PoP to use (`name@pop`); `None`: the nearest that advertises the service.
    pub pop: Option<PopId>,
    /// Priority.
    pub class: Class,
    /// How long after entering a packet is worth delivering; in [`DEADLINES`].
    pub deadline: Duration,
    /// The name of one of [`Config::policies`].
    pub policy: Option<String>,
    /// How many copies travel.
    pub redundancy: Redundancy,
}

impl Config {
    /// Reads and checks `path`, with what `TRADEWIND_…` variables override.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        Source::new(path, &[])?.load()
    }

    /// The policy that binds `tunnel`.
    pub fn policy_of(&self, tunnel: &Tunnel) -> Option<&Policy> {
        let name = tunnel.policy.as_deref()?;
        self.policies.iter().find(|policy| policy.name() == name)
    }

    /// The id of the policy that binds `tunnel`.
    pub fn policy_id_of(&self, tunnel: &Tunnel) -> PolicyId {
        self.policy_of(tunnel).map_or(PolicyId::NONE, Policy::id)
    }

    /// Reads the certificate files, and checks that they belong together, are valid at
    /// `unix_seconds` and name this node.
    pub fn load_identity(&self, unix_seconds: u64) -> Result<Identity, ConfigError> {
        let identity = Identity::load(&self.identity, unix_seconds)
            .map_err(|error| self.identity_error(&error))?;
        if identity.id() != &self.node.id {
            let why = format!(
                "{:?} is not the name in the certificate {}, which is {:?}; write that name, or make a certificate with `tradewind cert node --id {}`",
                self.node.id.as_str(),
                self.identity.cert.display(),
                identity.id().as_str(),
                self.node.id,
            );
            return Err(Problem::value("node.id", why).at(&self.identity.places[0]));
        }
        Ok(identity)
    }

    fn identity_error(&self, error: &IdentityError) -> ConfigError {
        let (key, place) = match error {
            IdentityError::Authority { .. } => ("identity.ca", 1),
            IdentityError::Certificate { .. } => ("identity.cert", 2),
            IdentityError::Key { .. } | IdentityError::KeyMismatch { .. } => ("identity.key", 3),
        };
        Problem::value(key, error).at(&self.identity.places[place])
    }

    /// This configuration as a file, defaults filled in and paths resolved.
    pub fn to_toml(&self) -> String {
        print::to_toml(self)
    }

    /// The settings in which `new` differs and that a running relay can't change.
    ///
    /// Tunnels, services, policies and peers are not among them: a reload takes those.
    pub fn changes_needing_restart(&self, new: &Self) -> Vec<&'static str> {
        let differs = [
            ("node.id", self.node.id != new.node.id),
            ("node.location", self.node.location != new.node.location),
            ("overlay.listen", self.overlay.listen != new.overlay.listen),
            ("overlay.advertise", self.overlay.advertise != new.overlay.advertise),
            ("overlay.mesh", self.overlay.mesh != new.overlay.mesh),
            ("overlay.mtu", self.overlay.mtu != new.overlay.mtu),
            ("identity", self.identity != new.identity),
            ("admin.listen", self.admin != new.admin),
            ("log", self.log != new.log),
        ];
        differs.into_iter().filter(|&(_, differs)| differs).map(|(key, _)| key).collect()
    }
}

/// A configuration file and what overrides it.
#[derive(Clone, Debug)]
pub struct Source {
    path: Arc<PathBuf>,
    overrides: Overrides,
}

impl Source {
    /// The file at `path`, overridden by `TRADEWIND_…` variables, and those by the values of
    /// `--set` (`overlay.listen=0.0.0.0:7400`). Both are read now, the file by [`Self::load`].
    pub fn new(path: &Path, set: &[String]) -> Result<Self, ConfigError> {
        // A variable that is no Unicode is none of ours: our values are.
        let variables = std::env::vars_os().filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        });
        Ok(Self::with_overrides(path, Overrides::new(variables, set)?))
    }

    /// The file at `path` and overrides made elsewhere.
    pub fn with_overrides(path: &Path, overrides: Overrides) -> Self {
        Self { path: Arc::new(path.into()), overrides }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads and checks everything but the contents of certificate files.
    pub fn load(&self) -> Result<Config, ConfigError> {
        let text = self
            .read()
            .map_err(|why| Problem::Unreadable(why).at(&Place::File(Arc::clone(&self.path))))?;
        let document = Document::parse(Arc::clone(&self.path), &text, &self.overrides)?;
        check::config(&document, self.path.parent().unwrap_or(Path::new("")))
    }

    fn read(&self) -> Result<String, String> {
        let path = self.path.as_path();
        let size = std::fs::metadata(path).map_err(|error| error.to_string())?.len();
        if size > MAX_FILE {
            return Err(format!("{size} bytes are more than the {MAX_FILE} that are allowed"));
        }
        std::fs::read_to_string(path).map_err(|error| error.to_string())
    }
}
