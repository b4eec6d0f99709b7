//! A configuration as a file: what `tradewind check` prints.
//!
//! Written key by key in the order of the documentation, so that it can be read beside it. Read
//! again, it gives the same configuration.

use std::fmt::Write;

use toml::Value;
use tradewind_proto::statement::Policy;

use super::check::redundancy_name;
use super::{Config, HostPort, Service, Tunnel};

pub(super) fn to_toml(config: &Config) -> String {
    let mut out = Writer(String::new());
    singles(&mut out, config);
    for service in &config.services {
        service_table(&mut out, service);
    }
    for tunnel in &config.tunnels {
        tunnel_table(&mut out, tunnel);
    }
    for policy in &config.policies {
        policy_table(&mut out, policy);
    }
    out.0
}

struct Writer(String);

impl Writer {
    fn table(&mut self, header: &str) {
        let gap = if self.0.is_empty() { "" } else { "\n" };
        self.line(&format!("{gap}{header}"));
    }

    fn line(&mut self, line: &str) {
        self.0.push_str(line);
        self.0.push('\n');
    }

    fn key(&mut self, key: &str, value: impl Into<Value>) {
        let value: Value = value.into();
        // Writing to a string can't fail.
        let _ = writeln!(self.0, "{key} = {value}");
    }

    /// Lists that are empty are left out.
    fn list<'a>(&mut self, key: &str, values: impl IntoIterator<Item = &'a str>) {
        let values: Vec<&str> = values.into_iter().collect();
        if !values.is_empty() {
            self.key(key, values);
        }
    }
}

fn singles(out: &mut Writer, config: &Config) {
    out.table("[node]");
    out.key("id", config.node.id.as_str());
    if let Some((north, east)) = config.node.location {
        // Through their shortest decimal forms: 8.68, not 8.680000305175781.
        out.line(&format!("location = [{north:?}, {east:?}]"));
    }
    let overlay = &config.overlay;
    out.table("[overlay]");
    out.key("listen", overlay.listen.to_string());
    match overlay.advertise.as_slice() {
        [only] => out.key("advertise", only.as_str()),
        several => out.list("advertise", several.iter().map(HostPort::as_str)),
    }
    out.list("peers", overlay.peers.iter().map(HostPort::as_str));
    out.key("mesh", overlay.mesh.as_str());
    match overlay.mtu {
        Some(mtu) => out.key("mtu", i64::from(mtu)),
        None => out.line("# mtu: from the route, at most 1452"),
    }
    out.table("[identity]");
    out.key("ca", config.identity.ca.display().to_string());
    out.key("cert", config.identity.cert.display().to_string());
    out.key("key", config.identity.key.display().to_string());
    out.table("[admin]");
    out.key("listen", config.admin.listen.to_string());
    out.table("[log]");
    out.key("filter", config.log.filter.as_str());
    out.key("format", config.log.format.as_str());
}

fn service_table(out: &mut Writer, service: &Service) {
    out.table("[[service]]");
    out.key("name", service.name.as_str());
    out.key("target", service.target.to_string());
}

fn tunnel_table(out: &mut Writer, tunnel: &Tunnel) {
    out.table("[[tunnel]]");
    out.key("listen", tunnel.listen.to_string());
    let pop = tunnel.pop.as_ref().map_or(String::new(), |pop| format!("@{pop}"));
    out.key("service", format!("{}{pop}", tunnel.service));
    out.key("class", tunnel.class.as_str());
    out.key("deadline", humantime::format_duration(tunnel.deadline).to_string());
    if let Some(policy) = &tunnel.policy {
        out.key("policy", policy.as_str());
    }
    out.key("redundancy", redundancy_name(tunnel.redundancy));
}

fn policy_table(out: &mut Writer, policy: &Policy) {
    let rule = policy.rule();
    out.table("[[policy]]");
    out.key("name", policy.name());
    for (key, labels) in [
        ("allow_regions", &rule.allow_regions),
        ("deny_regions", &rule.deny_regions),
        ("allow_countries", &rule.allow_countries),
        ("deny_countries", &rule.deny_countries),
        ("deny_providers", &rule.deny_providers),
    ] {
        out.list(key, labels.iter().map(String::as_str));
    }
    out.list("deny_pops", rule.deny_pops.iter().map(|pop| pop.as_str()));
}
