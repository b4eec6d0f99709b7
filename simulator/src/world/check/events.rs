//! Events: `[[event]]`.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use toml::Spanned;

use super::links::{apply, existing};
use super::{Checked, Pops};
use crate::link::LinkSpec;
use crate::world::error::{Fault, hint};
use crate::world::file::{EventTable, LinkKeys, LinkName};
use crate::world::{Event, Happening, LinkId, Traffic};

pub(super) fn check_events(
    tables: Vec<Spanned<EventTable>>,
    pops: &Pops,
    links: &BTreeMap<LinkId, LinkSpec>,
    traffic: &[Traffic],
    duration: Duration,
) -> Checked<Vec<Event>> {
    let mut events = Vec::with_capacity(tables.len());
    for table in tables {
        let at = table.span();
        let table = table.into_inner();
        if table.at.0 > duration {
            let message =
                format!("an event at {:?} comes after the run's {duration:?}", table.at.0);
            return Err(Fault::new(at, message));
        }
        let what = happening(&table, pops, links, traffic, &at)?;
        events.push(Event { at: table.at.0, what });
    }
    events.sort_by_key(|event| event.at);
    Ok(events)
}

fn happening(
    table: &EventTable,
    pops: &Pops,
    links: &BTreeMap<LinkId, LinkSpec>,
    traffic: &[Traffic],
    at: &Range<usize>,
) -> Checked<Happening> {
    let fault = |message: String| Fault::new(at.clone(), message);
    let EventTable { kill, kill_relay_of, restart, cut, restore, degrade, .. } = table;
    let keys = table.link_keys();
    if degrade.is_none() && keys != LinkKeys::default() {
        return Err(fault("keys of a link belong to an [[event]] with degrade".into()));
    }
    let named = |name: &LinkName| existing(name, pops, links, at);
    match (kill, kill_relay_of, restart, cut, restore, degrade) {
        (Some(pop), None, None, None, None, None) => Ok(Happening::Kill(pops.named(pop, at)?)),
        (None, Some(name), None, None, None, None) => {
            if traffic.iter().any(|traffic| traffic.name == *name) {
                return Ok(Happening::KillRelayOf(name.clone()));
            }
            let hint = hint(name, traffic.iter().map(|traffic| traffic.name.as_str()));
            Err(fault(format!("there is no [[traffic]] named \"{name}\"{hint}")))
        }
        (None, None, Some(pop), None, None, None) => Ok(Happening::Restart(pops.named(pop, at)?)),
        (None, None, None, Some(link), None, None) => Ok(Happening::Cut(named(link)?)),
        (None, None, None, None, Some(link), None) => Ok(Happening::Restore(named(link)?)),
        (None, None, None, None, None, Some(link)) => {
            let changed = named(link)?.into_iter().map(|id| {
                let spec = apply(&keys, &links[&id], at)?;
                Ok((id, spec))
            });
            Ok(Happening::Degrade(changed.collect::<Checked<_>>()?))
        }
        _ => Err(fault(
            "[[event]] needs exactly one of kill, kill_relay_of, restart, cut, restore, degrade"
                .into(),
        )),
    }
}
