//! From what a world file says to a world that holds together.

mod area;
mod events;
mod flow;
mod links;
mod traffic;

use std::collections::BTreeSet;
use std::ops::Range;
use std::time::Duration;

use toml::Spanned;
use tradewind_proto::link::Recovery;
use tradewind_proto::units::PopId;

use super::error::{Fault, hint};
use super::file::{
    AssertTable, LimitsTable, PopTable, RecoveryMode, RecoveryTable, RunTable, WorldFile,
};
use super::quantity::Share;
use super::{LinkId, PolicyRule, Pop, World};
use events::check_events;
use flow::Setting;
use links::check_links;
use traffic::check_traffic;

const DEFAULT_DURATION: Duration = Duration::from_secs(20);
/// Parity shards per packet.
const DEFAULT_PARITY: f64 = 0.2;
const DEFAULT_WARMUP: Duration = Duration::from_secs(3);

type Checked<T> = Result<T, Fault>;

pub(super) fn world(file: WorldFile) -> Checked<World> {
    let RunTable { name, seed, duration, warmup, mesh } = file.run;
    let duration = match duration {
        Some(span) if span.get_ref().0.is_zero() => {
            return Err(Fault::new(span.span(), "a run needs a duration above zero"));
        }
        Some(span) => span.into_inner().0,
        None => DEFAULT_DURATION,
    };
    let pops = check_pops(file.pop)?;
    let policies = check_policies(file.policy, &pops)?;
    let links = check_links(file.link, &pops)?;
    let AssertTable { in_time, delay_median, delay_p99, longest_gap, wire } = file.assert;
    let all = LimitsTable { in_time, delay_median, delay_p99, longest_gap };
    let wire_limit = wire.map(check_wire_limit).transpose()?;
    let setting = Setting { policies: &policies, duration, asserted: all };
    let traffic = check_traffic(file.traffic, &pops, setting)?;
    let events = check_events(file.event, &pops, &links, &traffic, duration)?;
    let recovery = file.recovery.map(check_recovery).transpose()?.unwrap_or_default();
    Ok(World {
        name: name.unwrap_or_else(|| "world".into()),
        seed: seed.unwrap_or(1),
        duration,
        warmup: warmup.map_or(DEFAULT_WARMUP, |span| span.0),
        mesh: mesh.0,
        pops: pops.list,
        links,
        traffic,
        recovery,
        policies,
        events,
        wire_limit,
    })
}

fn check_recovery(table: Spanned<RecoveryTable>) -> Checked<Recovery> {
    let at = table.span();
    let RecoveryTable { mode, parity } = table.into_inner();
    let parity = match (mode, parity) {
        (RecoveryMode::Fec, Some(Share(0.0))) => {
            return Err(Fault::new(at, "without parity the mode is \"none\""));
        }
        (RecoveryMode::Fec, parity) => parity.map_or(DEFAULT_PARITY, |Share(parity)| parity),
        (_, Some(_)) => return Err(Fault::new(at, "only mode = \"fec\" has a fixed parity")),
        (_, None) => DEFAULT_PARITY,
    };
    Ok(match mode {
        RecoveryMode::Plan => Recovery::Plan,
        RecoveryMode::Arq => Recovery::ArqOnly,
        RecoveryMode::Fec => Recovery::FixedFec { parity },
        RecoveryMode::None => Recovery::None,
    })
}

fn check_wire_limit(limit: Spanned<f64>) -> Checked<f64> {
    let at = limit.span();
    let limit = limit.into_inner();
    let message = || format!("payload alone is 1 byte a payload byte: wire = {limit} never holds");
    if limit > 1.0 { Ok(limit) } else { Err(Fault::new(at, message())) }
}

/// The PoPs, to look names up in.
struct Pops {
    list: Vec<Pop>,
}

impl Pops {
    fn named(&self, name: &str, at: &Range<usize>) -> Checked<PopId> {
        let ids = || self.list.iter().map(|pop| &pop.id);
        ids().find(|id| id.as_str() == name).cloned().ok_or_else(|| {
            let hint = hint(name, ids().map(PopId::as_str));
            Fault::new(at.clone(), format!("there is no [[pop]] with id \"{name}\"{hint}"))
        })
    }

    /// Two different ones.
    fn pair(&self, [from, to]: &[String; 2], at: &Range<usize>) -> Checked<LinkId> {
        if from == to {
            return Err(Fault::new(at.clone(), format!("both ends of the link are \"{from}\"")));
        }
        Ok((self.named(from, at)?, self.named(to, at)?))
    }
}

fn check_pops(tables: Vec<PopTable>) -> Checked<Pops> {
    if tables.len() < 2 {
        return Err(Fault { at: None, message: "a world needs at least two [[pop]]".into() });
    }
    if tables.len() > World::MAX_POPS {
        let message = format!("{} PoPs are too many, at most {}", tables.len(), World::MAX_POPS);
        return Err(Fault { at: None, message });
    }
    let mut seen = BTreeSet::new();
    let mut list = Vec::with_capacity(tables.len());
    for PopTable { id, region, country, provider, location, population } in tables {
        let span = id.span();
        if !seen.insert(id.get_ref().clone()) {
            return Err(Fault::new(span, format!("a second [[pop]] with id \"{}\"", id.get_ref())));
        }
        if location.is_some_and(|[lat, lon]| !(lat.abs() <= 90.0 && lon.abs() <= 180.0)) {
            let message = "location is [degrees north, degrees east]: at most 90 and 180";
            return Err(Fault::new(span, message));
        }
        list.push(Pop { id: id.into_inner(), region, country, provider, location, population });
    }
    Ok(Pops { list })
}

fn check_policies(tables: Vec<Spanned<PolicyRule>>, pops: &Pops) -> Checked<Vec<PolicyRule>> {
    let mut seen = BTreeSet::new();
    for table in &tables {
        let rule = table.get_ref();
        if rule.name.is_empty() || !seen.insert(rule.name.clone()) {
            let message = format!("[[policy]] needs a name of its own, not \"{}\"", rule.name);
            return Err(Fault::new(table.span(), message));
        }
        for pop in &rule.deny_pops {
            pops.named(pop.as_str(), &table.span())?;
        }
    }
    Ok(tables.into_iter().map(Spanned::into_inner).collect())
}
