//! Addresses as people write them: one port, a range of ports, or a host name with a port.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The most ports in one range: each is a socket at the ingress.
pub const MAX_PORTS: u16 = 4096;

/// One address with a run of consecutive ports, such as `127.0.0.1:6000-6019`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PortRange {
    /// The address with the first port. Port 0 (any free one) only if there is one.
    pub first: SocketAddr,
    /// How many ports, 1 to [`MAX_PORTS`].
    pub count: u16,
}

impl PortRange {
    /// The address of each port, in order.
    pub fn addresses(self) -> impl Iterator<Item = SocketAddr> {
        let ports = (self.first.port()..=u16::MAX).take(usize::from(self.count));
        ports.map(move |port| SocketAddr::new(self.first.ip(), port))
    }

    /// Whether two sockets bound to these would want the same port. A wildcard takes every
    /// address of its family, `[::]` those of IPv4 too.
    pub fn overlaps(self, other: Self) -> bool {
        let (a, b) = (u32::from(self.first.port()), u32::from(other.first.port()));
        let apart = a + u32::from(self.count) <= b || b + u32::from(other.count) <= a;
        let free = a == 0 || b == 0;
        !apart && !free && same_host(self.first.ip(), other.first.ip())
    }
}

fn same_host(a: IpAddr, b: IpAddr) -> bool {
    let takes =
        |wild: IpAddr, other: IpAddr| wild.is_unspecified() && (wild.is_ipv6() || other.is_ipv4());
    a == b || takes(a, b) || takes(b, a)
}

impl FromStr for PortRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || {
            format!(
                "{text:?} is no address with a port; write it as \"127.0.0.1:6004\" or \"[::1]:6004\", a range as \"127.0.0.1:6000-6019\""
            )
        };
        let (host, ports) = text.rsplit_once(':').ok_or_else(bad)?;
        let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
        let first: SocketAddr = format!("{host}:{first}").parse().map_err(|_| bad())?;
        let last: u16 = last.parse().map_err(|_| bad())?;
        if last < first.port() || (first.port() == 0 && last != 0) {
            return Err(format!("the range of ports in {text:?} must rise and not begin with 0"));
        }
        match last - first.port() {
            span if span < MAX_PORTS => Ok(Self { first, count: span + 1 }),
            span => Err(format!(
                "{text:?} has {} ports, a range has at most {MAX_PORTS}; split it into several",
                u32::from(span) + 1
            )),
        }
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.first)?;
        match self.count {
            0 | 1 => Ok(()),
            count => write!(f, "-{}", self.first.port().saturating_add(count - 1)),
        }
    }
}

/// Where a relay can be dialled: a host name or an IP address, and a port other than 0.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HostPort(String);

impl HostPort {
    /// As `tokio::net::lookup_host` takes it: `host:port`, IPv6 addresses in brackets.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The address, if no name needs to be looked up.
    pub fn address(&self) -> Option<SocketAddr> {
        self.0.parse().ok()
    }
}

impl From<SocketAddr> for HostPort {
    fn from(address: SocketAddr) -> Self {
        Self(address.to_string())
    }
}

impl From<HostPort> for String {
    fn from(host: HostPort) -> Self {
        host.0
    }
}

impl TryFrom<String> for HostPort {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl FromStr for HostPort {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || {
            format!(
                "{text:?} is no host with a port; write it as \"sgp.example.net:7400\", \"203.0.113.5:7400\" or \"[2001:db8::5]:7400\""
            )
        };
        if let Ok(address) = text.parse::<SocketAddr>() {
            let usable = address.port() != 0 && !address.ip().is_unspecified();
            return usable.then(|| Self(text.into())).ok_or_else(|| {
                format!(
                    "{text:?} can't be dialled; write an address that others reach, and its port"
                )
            });
        }
        let (host, port) = text.rsplit_once(':').ok_or_else(bad)?;
        let port_ok = port.parse::<u16>().is_ok_and(|port| port != 0);
        if port_ok && is_host_name(host) { Ok(Self(text.into())) } else { Err(bad()) }
    }
}

/// Letters, digits, `-`, `_` in labels of 1 to 63 characters, 253 in all (RFC 1123, section 2.1,
/// and the underscore that container networks use). Something that ends in a number is an IP
/// address gone wrong.
fn is_host_name(host: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))
    };
    let last = host.rsplit('.').next().unwrap_or_default();
    host.len() <= 253 && host.split('.').all(label) && !last.chars().all(|c| c.is_ascii_digit())
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_and_written() {
        for (text, first, count) in [
            ("127.0.0.1:6004", "127.0.0.1:6004", 1),
            ("127.0.0.1:6000-6019", "127.0.0.1:6000", 20),
            ("[::1]:1-4096", "[::1]:1", 4096),
            ("0.0.0.0:0", "0.0.0.0:0", 1),
            ("127.0.0.1:65535", "127.0.0.1:65535", 1),
        ] {
            let range: PortRange = text.parse().expect(text);
            assert_eq!((range.first, range.count), (first.parse().unwrap(), count), "{text}");
            assert_eq!(range.to_string(), text);
            assert_eq!(range.addresses().count(), usize::from(count));
        }
        for bad in [
            "",
            "6004",
            "localhost:6004",
            "127.0.0.1",
            "127.0.0.1:6019-6000",
            "127.0.0.1:1-4097",
            "127.0.0.1:0-5",
            "127.0.0.1:6000-",
            "127.0.0.1:70000",
            "127.0.0.1:60-70-80",
        ] {
            assert!(bad.parse::<PortRange>().is_err(), "{bad}");
        }
    }

    #[test]
    fn overlaps_are_seen() {
        for (a, b, overlap) in [
            ("127.0.0.1:6004", "127.0.0.1:6004", true),
            ("127.0.0.1:6004", "127.0.0.2:6004", false),
            ("127.0.0.1:6000-6019", "127.0.0.1:6019-6030", true),
            ("127.0.0.1:6000-6019", "127.0.0.1:6020", false),
            ("0.0.0.0:6004", "127.0.0.1:6004", true),
            ("0.0.0.0:6004", "[::1]:6004", false),
            ("[::]:6004", "127.0.0.1:6004", true),
            ("127.0.0.1:0", "127.0.0.1:0", false),
            ("127.0.0.1:65535", "127.0.0.1:65535", true),
        ] {
            let (left, right): (PortRange, PortRange) = (a.parse().unwrap(), b.parse().unwrap());
            assert_eq!(left.overlaps(right), overlap, "{a} {b}");
            assert_eq!(right.overlaps(left), overlap, "{b} {a}");
        }
    }

    #[test]
    fn hosts_are_checked() {
        for good in ["sgp.example.net:7400", "203.0.113.5:1", "[2001:db8::5]:7400", "relay_1:7400"]
        {
            assert_eq!(good.parse::<HostPort>().expect(good).as_str(), good);
        }
        for bad in [
            "",
            "sgp",
            "sgp:",
            "sgp:0",
            "sgp:x",
            "0.0.0.0:7400",
            "[::]:7400",
            "203.0.113.500:7400",
            "a..b:1",
            "a b:1",
            "2001:db8::5:7400",
            "203.0.113.5:0",
        ] {
            assert!(bad.parse::<HostPort>().is_err(), "{bad}");
        }
    }
}
