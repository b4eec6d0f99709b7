//! From what a world file says to a world that holds together.

mod area;
mod events;
mod flow;
mod links;
mod made;
mod matrix;
mod pops;
mod traffic;

use std::collections::BTreeSet;
use std::time::Duration;

use toml::Spanned;
use tradewind_proto::link::Recovery;
use tradewind_router::metric::Metric;

use super::error::Fault;
use super::file::{AssertTable, LimitsTable, RecoveryMode, RecoveryTable, RunTable, WorldFile};
use super::quantity::Share;
use super::source::Sources;
use super::{PolicyRule, World};
use events::check_events;
use flow::Setting;
use links::check_links;
use pops::{Pops, check_pops};
use traffic::{Tables, check_traffic};

const DEFAULT_DURATION: Duration = Duration::from_secs(20);
/// Parity shards per packet.
const DEFAULT_PARITY: f64 = 0.2;
const DEFAULT_WARMUP: Duration = Duration::from_secs(3);

type Checked<T> = Result<T, Fault>;

/// `sources` reads the files that the world names.
pub(super) fn world(file: WorldFile, mut sources: Sources) -> Checked<World> {
    let RunTable { name, seed, duration, warmup, mesh, fidelity } = file.run;
    let duration = match duration {
        Some(span) if span.get_ref().0.is_zero() => {
            return Err(Fault::new(span.span(), "a run needs a duration above zero"));
        }
        Some(span) => span.into_inner().0,
        None => DEFAULT_DURATION,
    };
    let pops = check_pops(file.pop, file.pops, &sources)?;
    let policies = check_policies(file.policy, &pops)?;
    let links = check_links(file.link, file.links, &pops, &mut sources)?;
    let AssertTable { in_time, delay_median, delay_p99, longest_gap, wire } = file.assert;
    let all = LimitsTable { in_time, delay_median, delay_p99, longest_gap };
    let wire_limit = wire.map(check_wire_limit).transpose()?;
    let setting = Setting { policies: &policies, duration, asserted: all };
    let seed = seed.unwrap_or(1);
    let tables = Tables { traffic: file.traffic, demand: file.demand, calls: file.calls };
    let traffic = check_traffic(tables, &file.event, &pops, seed, setting, &mut sources)?;
    let events = check_events(file.event, &pops, &links, &traffic, duration, &mut sources)?;
    let recovery = file.recovery.map(check_recovery).transpose()?.unwrap_or_default();
    Ok(World {
        name: name.unwrap_or_else(|| "world".into()),
        seed,
        duration,
        warmup: warmup.map_or(DEFAULT_WARMUP, |span| span.0),
        mesh: mesh.0,
        fidelity,
        pops: pops.list,
        links,
        traffic,
        recovery,
        metric: Metric::default(),
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
