//! Events: `[[event]]`.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use toml::Spanned;

use super::area::{Area, congestion};
use super::links::{apply, existing};
use super::{Checked, Pops};
use crate::link::LinkSpec;
use crate::world::error::{Fault, hint};
use crate::world::file::{EventTable, LinkKeys, LinkName, Place};
use crate::world::quantity::Span;
use crate::world::source::Sources;
use crate::world::{Event, Happening, LinkId, Traffic};

pub(super) fn check_events(
    tables: Vec<Spanned<EventTable>>,
    pops: &Pops,
    links: &BTreeMap<LinkId, LinkSpec>,
    traffic: &[Traffic],
    duration: Duration,
    sources: &mut Sources,
) -> Checked<Vec<Event>> {
    let mut events = Vec::with_capacity(tables.len());
    for table in tables {
        let at = table.span();
        let table = table.into_inner();
        let ends = table.at.0 + table.congest.as_ref().map_or(Duration::ZERO, |it| it.over.0);
        if ends > duration {
            let message = format!("an event at {ends:?} comes after the run's {duration:?}");
            return Err(Fault::new(at, message));
        }
        match &table.congest {
            Some(congest) if table.count() == 1 => {
                events.extend(congestion(congest, table.at.0, pops, links, &at)?);
            }
            _ => {
                let event = event(&table, pops, (links, traffic), &at, sources)?;
                check_joins(&event, &events, traffic, &at)?;
                events.push(event);
            }
        }
    }
    events.sort_by_key(|event| event.at);
    Ok(events)
}

fn event(
    table: &EventTable,
    pops: &Pops,
    (links, traffic): (&BTreeMap<LinkId, LinkSpec>, &[Traffic]),
    at: &Range<usize>,
    sources: &mut Sources,
) -> Checked<Event> {
    let fault = |message: String| Fault::new(at.clone(), message);
    let keys = table.link_keys();
    if table.degrade.is_none() && keys != LinkKeys::default() {
        return Err(fault("keys of a link belong to an [[event]] with degrade".into()));
    }
    if table.count() != 1 {
        let deeds = EventTable::DEEDS.join(", ");
        return Err(fault(format!("[[event]] needs exactly one of {deeds}")));
    }
    let named = |name: &LinkName| existing(name, pops, links, at);
    let mut title = None;
    let what = if let Some(pop) = &table.kill {
        Happening::Kill(pops.named(pop, at)?)
    } else if let Some(name) = &table.kill_relay_of {
        if !traffic.iter().any(|traffic| traffic.name == *name) {
            let hint = hint(name, traffic.iter().map(|traffic| traffic.name.as_str()));
            return Err(fault(format!("there is no [[traffic]] named \"{name}\"{hint}")));
        }
        Happening::KillRelayOf(name.clone())
    } else if let Some(pop) = &table.restart {
        Happening::Restart(pops.named(pop, at)?)
    } else if let Some(pop) = &table.drain {
        Happening::Drain(pops.named(pop, at)?)
    } else if let Some(pop) = &table.join {
        Happening::Join(pops.named(pop, at)?)
    } else if let Some(link) = &table.cut {
        Happening::Cut(named(link)?)
    } else if let Some(Place::Link(link)) = &table.restore {
        Happening::Restore(named(link)?)
    } else if let Some(Place::Area(area)) = &table.restore {
        let area = Area::find(area, pops, at)?;
        title = Some(format!("restored the links of {} with the rest", area.name));
        Happening::Restore(area.border(links, at)?)
    } else if let Some(area) = &table.isolate {
        let area = Area::find(area, pops, at)?;
        title = Some(format!("cut {} off from the rest", area.name));
        Happening::Cut(area.border(links, at)?)
    } else if let Some(crowd) = &table.crowd {
        let Span(lasting) = crowd.lasting;
        title = Some(format!("{} times as much of \"{}\" for {lasting:?}", crowd.times, crowd.of));
        Happening::Crowd
    } else {
        let changed = table.degrade.as_ref().map(named).transpose()?.unwrap_or_default();
        let changed = changed.into_iter().map(|id| {
            let spec = apply(&keys, &links[&id], at, sources)?;
            Ok((id, spec))
        });
        Happening::Degrade(changed.collect::<Checked<_>>()?)
    };
    Ok(Event { at: table.at.0, what, title })
}

/// A relay joins once, and traffic of a PoP waits until its relay has joined.
fn check_joins(
    event: &Event,
    others: &[Event],
    traffic: &[Traffic],
    at: &Range<usize>,
) -> Checked<()> {
    let Happening::Join(pop) = &event.what else { return Ok(()) };
    if others.iter().any(|other| other.what == event.what) {
        return Err(Fault::new(at.clone(), format!("the relay {pop} joins twice")));
    }
    let touches = |flow: &&Traffic| flow.from == *pop || flow.to == *pop;
    match traffic.iter().filter(touches).find(|flow| flow.start < event.at) {
        Some(Traffic { name, start, .. }) => Err(Fault::new(
            at.clone(),
            format!(
                "traffic \"{name}\" starts at {start:?}, before the relay {pop} joins at {:?}",
                event.at
            ),
        )),
        None => Ok(()),
    }
}
