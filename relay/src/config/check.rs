//! From tables of values to a [`Config`]: each value by itself, then all together.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tradewind_proto::statement::{Policy, Rule};
use tradewind_proto::units::{Class, PopId, Redundancy, ServiceName};

use super::address::{HostPort, PortRange};
use super::error::{ConfigError, Place, Problem, hint};
use super::read::{Document, Given, Section};
use super::{
    Admin, Config, DEADLINES, IdentityFiles, Log, LogFormat, MAX_ADVERTISED, MAX_PEERS,
    MAX_TUNNEL_PORTS, MTU, Mesh, Node, Overlay, Service, Tunnel,
};
use crate::identity::check_label;

const ADDRESS: &str = "a string such as \"127.0.0.1:7400\"";

pub(super) fn config(document: &Document<'_>, directory: &Path) -> Result<Config, ConfigError> {
    let (node, id_place) = node(&document.table("node"))?;
    let overlay = overlay(&document.table("overlay"))?;
    let identity = identity(&document.table("identity"), directory, id_place)?;
    let policies = policies(document)?;
    let services = services(document)?;
    let tunnels = tunnels(document, &overlay, &services, &policies)?;
    let admin = admin(&document.table("admin"))?;
    let log = log(&document.table("log"))?;
    Ok(Config { node, overlay, identity, admin, log, services, tunnels, policies })
}

fn node(section: &Section<'_>) -> Result<(Node, Place), ConfigError> {
    let id = section
        .text("id", "a string such as \"fra\"")?
        .ok_or_else(|| section.missing("id", "name this relay: write id = \"fra\" under [node]"))?;
    let place = id.place.clone();
    let id = id.check(|id| id.parse::<PopId>())?;
    let location = section
        .numbers("location", "a latitude and a longitude, such as [50.11, 8.68]")?
        .map(|given| given.check(|numbers| location(&numbers)))
        .transpose()?;
    Ok((Node { id, location }, place))
}

fn location(numbers: &[f64]) -> Result<(f32, f32), String> {
    match *numbers {
        [north, east] if north.abs() <= 90.0 && east.abs() <= 180.0 => {
            Ok((north as f32, east as f32))
        }
        _ => Err("must be two numbers, latitude (-90 to 90) and longitude (-180 to 180), such as [50.11, 8.68]".into()),
    }
}

fn overlay(section: &Section<'_>) -> Result<Overlay, ConfigError> {
    let given = section.text("listen", ADDRESS)?;
    let place = given.as_ref().map_or(section.place.clone(), |given| given.place.clone());
    let default = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 7400);
    let listen = given.map_or(Ok(default), |given| given.check(|text| socket_address(&text)))?;
    let mtu = section
        .integer("mtu", "a number of bytes such as 1452")?
        .map(|given| given.check(mtu))
        .transpose()?;
    Ok(Overlay {
        listen,
        advertise: advertise(section, listen, &place)?,
        peers: hosts(section, "peers", MAX_PEERS)?.unwrap_or_default(),
        mesh: choice(section, "mesh", &[Mesh::Auto, Mesh::Full, Mesh::Peers], Mesh::as_str)?
            .unwrap_or_default(),
        mtu,
    })
}

fn advertise(
    section: &Section<'_>,
    listen: SocketAddr,
    listen_place: &Place,
) -> Result<Vec<HostPort>, ConfigError> {
    if let Some(hosts) = hosts(section, "advertise", MAX_ADVERTISED)?.filter(|it| !it.is_empty()) {
        return Ok(hosts);
    }
    if listen.ip().is_unspecified() || listen.port() == 0 {
        let why = format!(
            "{listen} does not say where others reach this relay; add advertise = \"ADDRESS:{}\" under [overlay], with its public address or host name",
            if listen.port() == 0 { "PORT".into() } else { listen.port().to_string() },
        );
        return Err(Problem::value(section.key("listen"), why).at(listen_place));
    }
    Ok(vec![listen.into()])
}

fn mtu(bytes: i64) -> Result<u16, String> {
    u16::try_from(bytes).ok().filter(|bytes| MTU.contains(bytes)).ok_or_else(|| {
        format!(
            "{bytes} is not between {} and {} bytes; leave it out to take it from the route",
            MTU.start(),
            MTU.end()
        )
    })
}

fn hosts(
    section: &Section<'_>,
    key: &str,
    most: usize,
) -> Result<Option<Vec<HostPort>>, ConfigError> {
    let wanted = "a list of strings such as [\"sgp.example.net:7400\"]";
    let Some(given) = section.texts(key, wanted)? else { return Ok(None) };
    let read = |texts: Vec<String>| {
        if texts.len() > most {
            return Err(format!("has {} entries, at most {most} are allowed", texts.len()));
        }
        texts.iter().map(|text| text.parse()).collect()
    };
    given.check(read).map(Some)
}

fn socket_address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        format!("{text:?} is no address with a port; write it as \"0.0.0.0:7400\" or \"[::]:7400\"")
    })
}

fn identity(
    section: &Section<'_>,
    directory: &Path,
    id_place: Place,
) -> Result<IdentityFiles, ConfigError> {
    let (ca, ca_place) = file(
        section,
        directory,
        "ca",
        "write ca = \"ca.pem\" under [identity]; `tradewind cert ca --out DIR` makes one",
    )?;
    let (cert, cert_place) = file(
        section,
        directory,
        "cert",
        "write cert = \"ID.pem\" under [identity]; `tradewind cert node` makes one",
    )?;
    let (key, key_place) = file(
        section,
        directory,
        "key",
        "write key = \"ID.key\" under [identity]; `tradewind cert node` makes one",
    )?;
    Ok(IdentityFiles { ca, cert, key, places: [id_place, ca_place, cert_place, key_place] })
}

fn file(
    section: &Section<'_>,
    directory: &Path,
    key: &str,
    todo: &'static str,
) -> Result<(PathBuf, Place), ConfigError> {
    let given = section.text(key, "a string with the path of a PEM file")?;
    let given = given.ok_or_else(|| section.missing(key, todo))?;
    let place = given.place.clone();
    let path = given.check(|path| existing(directory.join(path)))?;
    Ok((path, place))
}

fn existing(path: PathBuf) -> Result<PathBuf, String> {
    match std::fs::metadata(&path) {
        // Absolute, so that what `tradewind check` prints holds wherever it is put.
        Ok(data) if data.is_file() => Ok(std::path::absolute(&path).unwrap_or(path)),
        Ok(_) => Err(format!("{} is no file; name the PEM file itself", path.display())),
        Err(error) => Err(format!(
            "{} cannot be read ({error}); check the path (relative ones start at the configuration file) or make it with `tradewind cert`",
            path.display()
        )),
    }
}

fn admin(section: &Section<'_>) -> Result<Admin, ConfigError> {
    let listen = section.text("listen", ADDRESS)?;
    let listen = listen.map(|given| given.check(|text| socket_address(&text))).transpose()?;
    Ok(listen.map_or_else(Admin::default, |listen| Admin { listen }))
}

fn log(section: &Section<'_>) -> Result<Log, ConfigError> {
    let default = Log::default();
    let filter = section.text("filter", "a string such as \"info\"")?.map(|given| {
        given.check(|filter| {
            let parsed = tracing_subscriber::EnvFilter::try_new(&filter);
            parsed.map(|_| filter.clone()).map_err(|error| {
                format!("{filter:?} is no log filter ({error}); write for example \"info\" or \"info,tradewind_relay=debug\"")
            })
        })
    });
    Ok(Log {
        filter: filter.transpose()?.unwrap_or(default.filter),
        format: choice(section, "format", &[LogFormat::Text, LogFormat::Json], LogFormat::as_str)?
            .unwrap_or_default(),
    })
}

/// One of a few words.
fn choice<T: Copy>(
    section: &Section<'_>,
    key: &str,
    all: &[T],
    name: fn(T) -> &'static str,
) -> Result<Option<T>, ConfigError> {
    let Some(given) = section.text(key, "a string")? else { return Ok(None) };
    given
        .check(|word| {
            all.iter().copied().find(|&one| name(one) == word).ok_or_else(|| {
                format!("{word:?} is unknown; {}", hint(&word, all.iter().map(|&one| name(one))))
            })
        })
        .map(Some)
}

/// Refuses `given` if an earlier one had the same.
fn unique<T: PartialEq + std::fmt::Display>(
    seen: &mut Vec<(T, Place)>,
    value: T,
    key: String,
    place: Place,
) -> Result<(), ConfigError> {
    if let Some((_, first)) = seen.iter().find(|(earlier, _)| *earlier == value) {
        let why =
            format!("\"{value}\" is taken by the one at {first}; give one of them another name");
        return Err(Problem::value(key, why).at(&place));
    }
    seen.push((value, place));
    Ok(())
}

fn services(document: &Document<'_>) -> Result<Vec<Service>, ConfigError> {
    let mut seen = Vec::new();
    let read = |section: Section<'_>| {
        let name = section.text("name", "a string such as \"sfu-fra\"")?.ok_or_else(|| {
            section.missing("name", "write name = \"sfu-fra\" under this [[service]]")
        })?;
        let place = name.place.clone();
        let name = name.check(|name| name.parse::<ServiceName>())?;
        unique(&mut seen, name.clone(), section.key("name"), place)?;
        let target = section.text("target", ADDRESS)?.ok_or_else(|| {
            section.missing("target", "write target = \"127.0.0.1:5004\" under this [[service]]")
        })?;
        Ok(Service { name, target: target.check(|text| target_range(&text))? })
    };
    document.array("service").into_iter().map(read).collect()
}

fn target_range(text: &str) -> Result<PortRange, String> {
    let range: PortRange = text.parse()?;
    if range.first.port() == 0 || range.first.ip().is_unspecified() {
        return Err(format!(
            "{text:?} can't be sent to; write the address and port of the media server"
        ));
    }
    Ok(range)
}

fn policies(document: &Document<'_>) -> Result<Vec<Policy>, ConfigError> {
    let mut seen = Vec::new();
    let read = |section: Section<'_>| {
        let name = section.text("name", "a string such as \"eu-only\"")?.ok_or_else(|| {
            section.missing("name", "write name = \"eu-only\" under this [[policy]]")
        })?;
        let place = name.place.clone();
        let name = name.check(|name| check_label(&name).map(|()| name))?;
        unique(&mut seen, name.clone(), section.key("name"), place.clone())?;
        let rule = rule(&section)?;
        if rule == Rule::default() {
            let why = format!(
                "\"{name}\" has no list and would allow everything; add for example allow_regions = [\"EU\"]"
            );
            return Err(Problem::value(section.key("name"), why).at(&place));
        }
        Policy::new(name, rule).map_err(|why| Problem::value("policy", why).at(&place))
    };
    document.array("policy").into_iter().map(read).collect()
}

fn rule(section: &Section<'_>) -> Result<Rule, ConfigError> {
    let labels = |key| labels(section, key);
    Ok(Rule {
        allow_regions: labels("allow_regions")?,
        deny_regions: labels("deny_regions")?,
        allow_countries: labels("allow_countries")?,
        deny_countries: labels("deny_countries")?,
        deny_pops: list(section, "deny_pops", |pop| pop.parse::<PopId>())?,
        deny_providers: labels("deny_providers")?,
    })
}

fn labels(section: &Section<'_>, key: &str) -> Result<Vec<String>, ConfigError> {
    list(section, key, |label| check_label(&label).map(|()| label))
}

/// The most entries of a policy's list.
const MAX_LIST: usize = 256;

fn list<T, E: std::fmt::Display>(
    section: &Section<'_>,
    key: &str,
    read: impl Fn(String) -> Result<T, E>,
) -> Result<Vec<T>, ConfigError> {
    let given = section.texts(key, "a list of strings such as [\"EU\"]")?;
    let Some(given) = given else { return Ok(Vec::new()) };
    given.check(|texts| {
        if texts.is_empty() {
            return Err("is an empty list, which could mean all or nothing; leave it out".into());
        }
        if texts.len() > MAX_LIST {
            return Err(format!("has {} entries, at most {MAX_LIST} are allowed", texts.len()));
        }
        texts.into_iter().map(|text| read(text).map_err(|error| error.to_string())).collect()
    })
}

/// A listener and where it was given, to find two on one address.
struct Listener {
    ports: PortRange,
    what: &'static str,
    place: Place,
}

fn tunnels(
    document: &Document<'_>,
    overlay: &Overlay,
    services: &[Service],
    policies: &[Policy],
) -> Result<Vec<Tunnel>, ConfigError> {
    let own = PortRange { first: overlay.listen, count: 1 };
    let mut taken = vec![Listener { ports: own, what: "overlay.listen", place: Place::Nowhere }];
    let mut tunnels = Vec::new();
    let mut ports = 0;
    for section in document.array("tunnel") {
        let (listen, place) = listen(&section)?;
        ports += usize::from(listen.count);
        if ports > MAX_TUNNEL_PORTS {
            let why = format!("all tunnels together have more than {MAX_TUNNEL_PORTS} ports");
            return Err(Problem::value(section.key("listen"), why).at(&place));
        }
        if let Some(other) = taken.iter().find(|other| other.ports.overlaps(listen)) {
            return Err(overlap(&section, listen, &place, other));
        }
        taken.push(Listener { ports: listen, what: "the tunnel", place: place.clone() });
        tunnels.push(tunnel(&section, listen, &place, services, policies)?);
    }
    Ok(tunnels)
}

fn overlap(section: &Section<'_>, listen: PortRange, at: &Place, other: &Listener) -> ConfigError {
    let whose = match &other.place {
        Place::Nowhere => other.what.into(),
        place => format!("{} at {place}", other.what),
    };
    let why = format!(
        "{listen} is taken by {whose} ({}); two can't listen on one address, choose another port",
        other.ports
    );
    Problem::value(section.key("listen"), why).at(at)
}

fn listen(section: &Section<'_>) -> Result<(PortRange, Place), ConfigError> {
    let given =
        section.text("listen", "a string such as \"127.0.0.1:6004\"")?.ok_or_else(|| {
            section.missing("listen", "write listen = \"127.0.0.1:6004\" under this [[tunnel]]")
        })?;
    let place = given.place.clone();
    Ok((given.check(|text| text.parse::<PortRange>())?, place))
}

fn tunnel(
    section: &Section<'_>,
    listen: PortRange,
    at: &Place,
    services: &[Service],
    policies: &[Policy],
) -> Result<Tunnel, ConfigError> {
    let service = section.text("service", "a string such as \"sfu-mad\"")?.ok_or_else(|| {
        section.missing("service", "write service = \"sfu-mad\" under this [[tunnel]]")
    })?;
    let (service, pop) = service.check(|text| service_at(&text))?;
    let own = services.iter().find(|own| own.name == service);
    if let Some(own) = own.filter(|own| own.target.count != listen.count) {
        let why = format!(
            "{listen} has {} ports but service \"{service}\" has {}; the ranges must be of the same size",
            listen.count, own.target.count
        );
        return Err(Problem::value(section.key("listen"), why).at(at));
    }
    let class = choice(section, "class", &Class::ALL, Class::as_str)?.unwrap_or_default();
    let redundancies = [Redundancy::Single, Redundancy::Disjoint];
    let deadline = section.text("deadline", "a string such as \"300ms\"")?;
    Ok(Tunnel {
        listen,
        service,
        pop,
        class,
        deadline: deadline.map_or_else(
            || Ok(class.default_deadline()),
            |given| given.check(|it| deadline_of(&it)),
        )?,
        policy: section
            .text("policy", "a string: the name of a [[policy]]")?
            .map(|given| policy(given, policies))
            .transpose()?,
        redundancy: choice(section, "redundancy", &redundancies, redundancy_name)?
            .unwrap_or_default(),
    })
}

pub(super) fn redundancy_name(redundancy: Redundancy) -> &'static str {
    match redundancy {
        Redundancy::Single => "single",
        Redundancy::Disjoint => "disjoint",
    }
}

fn service_at(text: &str) -> Result<(ServiceName, Option<PopId>), String> {
    let (name, pop) = text.split_once('@').map_or((text, None), |(name, pop)| (name, Some(pop)));
    let name = name.parse::<ServiceName>().map_err(|error| error.to_string())?;
    let pop = pop.map(str::parse).transpose().map_err(|error| format!("{error}"))?;
    Ok((name, pop))
}

fn deadline_of(text: &str) -> Result<Duration, String> {
    let span = humantime::parse_duration(text).map_err(|error| {
        format!("{text:?} is no span of time ({error}); write for example \"300ms\" or \"2s\"")
    })?;
    if DEADLINES.contains(&span) {
        return Ok(span);
    }
    Err(format!("{text:?} is not between 1ms and 16s, what a packet can carry"))
}

fn policy(given: Given<String>, policies: &[Policy]) -> Result<String, ConfigError> {
    given.check(|name| {
        if policies.iter().any(|policy| policy.name() == name) {
            return Ok(name);
        }
        let advice = match policies {
            [] => "there is no [[policy]] in the file; add one with this name".into(),
            _ => hint(&name, policies.iter().map(Policy::name)),
        };
        Err(format!("no policy is called \"{name}\"; {advice}"))
    })
}
