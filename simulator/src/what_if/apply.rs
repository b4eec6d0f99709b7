//! A world with a change.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use tradewind_proto::packet::MAX_PATH;
use tradewind_proto::units::PopId;
use tradewind_router::policy::Judge;

use super::{Change, Kind, Place, WhatIf};
use crate::link::{LinkSpec, Rate};
use crate::simulation::labels;
use crate::world::{Event, Happening, LinkId, PolicyRule, Pop, Traffic, World, hint};

/// What is worth knowing about a change that was made.
type Notes = Vec<String>;

impl WhatIf {
    /// Changes `world`; what is worth knowing about it, a line each.
    ///
    /// # Errors
    ///
    /// A change that makes no sense in this world, in one sentence.
    pub fn apply(&self, world: &mut World) -> Result<Notes, String> {
        match &self.change {
            Change::Remove(place) => remove(world, place),
            Change::Kill(place, at) => {
                let at = within(world, *at)?;
                let pops = place.pops(world)?;
                pops.into_iter().for_each(|pop| happen(world, at, Happening::Kill(pop)));
                Ok(Notes::new())
            }
            Change::Cut(ends, at) => {
                let (at, links) = (within(world, *at)?, links(world, ends)?);
                happen(world, at, Happening::Cut(links));
                Ok(Notes::new())
            }
            Change::Add(ends, delay, loss) => {
                let links = directions(world, ends)?;
                if links.iter().any(|link| world.links.contains_key(link)) {
                    let [a, b] = ends;
                    return Err(format!("{a} and {b} have a link; change its delay, loss or rate"));
                }
                let spec = LinkSpec { delay: *delay, loss: *loss, ..LinkSpec::default() };
                world.links.extend(links.into_iter().map(|link| (link, spec.clone())));
                Ok(Notes::new())
            }
            Change::Delay(ends, delay) => change(world, ends, |link| link.delay = *delay),
            Change::Loss(ends, loss) => change(world, ends, |link| link.loss = *loss),
            Change::Rate(ends, rate) => {
                change(world, ends, |link| link.rate = Some(Rate::with_default_queue(*rate)))
            }
            Change::Demand(factor, of) => demand(world, *factor, of.as_deref()),
            Change::Deny(place) => deny(world, place),
            Change::Policy(name) => bind(world, name),
        }
    }
}

impl Place {
    /// At least one PoP.
    fn pops(&self, world: &World) -> Result<BTreeSet<PopId>, String> {
        let fits = |pop: &&Pop| self.kinds().any(|kind| label(pop, kind) == Some(&self.name));
        let found: BTreeSet<_> = world.pops.iter().filter(fits).map(|pop| pop.id.clone()).collect();
        if !found.is_empty() {
            return Ok(found);
        }
        let labels = |pop| self.kinds().filter_map(move |kind| label(pop, kind));
        let hint = hint(&self.name, world.pops.iter().flat_map(labels));
        let what = match self.kind {
            None => "no PoP, region, country or provider is called",
            Some(Kind::Pop) => "there is no PoP",
            Some(Kind::Region) => "no PoP is in a region",
            Some(Kind::Country) => "no PoP is in a country",
            Some(Kind::Provider) => "no PoP is run by a provider",
        };
        Err(format!("{what} \"{}\"{hint}", self.name))
    }

    fn kinds(&self) -> impl Iterator<Item = Kind> + use<> {
        let kind = self.kind;
        let all = [Kind::Pop, Kind::Region, Kind::Country, Kind::Provider];
        all.into_iter().filter(move |other| kind.is_none_or(|kind| kind == *other))
    }
}

fn label(pop: &Pop, kind: Kind) -> Option<&str> {
    match kind {
        Kind::Pop => Some(pop.id.as_str()),
        Kind::Region => pop.region.as_ref().map(|label| label.as_str()),
        Kind::Country => pop.country.as_ref().map(|label| label.as_str()),
        Kind::Provider => pop.provider.as_ref().map(|label| label.as_str()),
    }
}

/// When something happens: by default halfway.
fn within(world: &World, at: Option<Duration>) -> Result<Duration, String> {
    let (at, whole) = (at.unwrap_or(world.duration / 2), world.duration);
    match at < whole {
        true => Ok(at),
        false => Err(format!("at {at:?} the run of {whole:?} is over")),
    }
}

fn happen(world: &mut World, at: Duration, what: Happening) {
    let place = world.events.partition_point(|event| event.at <= at);
    world.events.insert(place, Event { at, what, title: None });
}

fn directions(world: &World, [a, b]: &[String; 2]) -> Result<[LinkId; 2], String> {
    let ids = || world.pops.iter().map(|pop| &pop.id);
    let id = |name: &str| {
        let found = ids().find(|id| id.as_str() == name).cloned();
        found.ok_or_else(|| {
            format!("there is no PoP \"{name}\"{}", hint(name, ids().map(PopId::as_str)))
        })
    };
    let (a, b) = (id(a)?, id(b)?);
    match a == b {
        true => Err(format!("both ends of the link are \"{a}\"")),
        false => Ok([(a.clone(), b.clone()), (b, a)]),
    }
}

/// Those directions of the link between two PoPs that there are.
fn links(world: &World, ends: &[String; 2]) -> Result<Vec<LinkId>, String> {
    let both = directions(world, ends)?;
    let found: Vec<_> = both.into_iter().filter(|link| world.links.contains_key(link)).collect();
    match found.is_empty() {
        true => Err(format!("there is no link between {} and {}", ends[0], ends[1])),
        false => Ok(found),
    }
}

fn change(
    world: &mut World,
    ends: &[String; 2],
    mut how: impl FnMut(&mut LinkSpec),
) -> Result<Notes, String> {
    for link in links(world, ends)? {
        world.links.entry(link).and_modify(&mut how);
    }
    Ok(Notes::new())
}

fn remove(world: &mut World, place: &Place) -> Result<Notes, String> {
    let gone = place.pops(world)?;
    if world.pops.len() < gone.len() + 2 {
        return Err("a world needs at least two PoPs".into());
    }
    let touches = |(from, to): &LinkId| gone.contains(from) || gone.contains(to);
    world.pops.retain(|pop| !gone.contains(&pop.id));
    world.links.retain(|link, _| !touches(link));
    for rule in &mut world.policies {
        rule.deny_pops.retain(|pop| !gone.contains(pop));
    }
    let ends_there = |traffic: &Traffic| gone.contains(&traffic.from) || gone.contains(&traffic.to);
    let with_it = names(world.traffic.iter().filter(|traffic| ends_there(traffic)));
    world.traffic.retain(|traffic| !ends_there(traffic));
    world.events.retain_mut(|event| match &mut event.what {
        Happening::Kill(pop)
        | Happening::Drain(pop)
        | Happening::Join(pop)
        | Happening::Restart(pop) => !gone.contains(pop),
        Happening::Cut(links) | Happening::Restore(links) => {
            links.retain(|link| !touches(link));
            !links.is_empty()
        }
        Happening::Degrade(links) => {
            links.retain(|(link, _)| !touches(link));
            !links.is_empty()
        }
        Happening::KillRelayOf(_) | Happening::Crowd => true,
    });
    Ok(with_it
        .map(|names| format!("traffic that begins or ends there: {names}"))
        .into_iter()
        .collect())
}

fn demand(world: &mut World, factor: f64, of: Option<&str>) -> Result<Notes, String> {
    let called =
        |traffic: &Traffic, name| traffic.name == name || traffic.group.as_deref() == Some(name);
    if let Some(name) = of
        && !world.traffic.iter().any(|traffic| called(traffic, name))
    {
        let flows = world.traffic.iter().map(|traffic| traffic.name.as_str());
        let groups = world.traffic.iter().filter_map(|traffic| traffic.group.as_deref());
        return Err(format!("there is no traffic \"{name}\"{}", hint(name, flows.chain(groups))));
    }
    for traffic in &mut world.traffic {
        if of.is_none_or(|name| called(traffic, name)) {
            traffic.interval = traffic.interval.div_f64(factor);
            let pps = 1.0 / traffic.interval.as_secs_f64().max(1e-9);
            if pps > Traffic::MAX_PPS || traffic.packets() > World::MAX_PACKETS {
                return Err(format!("traffic \"{}\" would be {pps:.0} packets/s", traffic.name));
            }
        }
    }
    Ok(Notes::new())
}

/// The rules that bind traffic, each with what is denied in addition. Traffic that begins or ends
/// there could not obey.
fn deny(world: &mut World, place: &Place) -> Result<Notes, String> {
    let denied = place.pops(world)?;
    let ends_there =
        |traffic: &Traffic| denied.contains(&traffic.from) || denied.contains(&traffic.to);
    let untouched = names(world.traffic.iter().filter(|traffic| ends_there(traffic)));
    let mut made: BTreeMap<Option<String>, String> = BTreeMap::new();
    for at in 0..world.traffic.len() {
        if ends_there(&world.traffic[at]) {
            continue;
        }
        let old = world.traffic[at].policy.clone();
        let new = match made.get(&old) {
            Some(name) => name.clone(),
            None => {
                let rule = stricter(world, old.as_deref(), place, &denied)?;
                let name = rule.name.clone();
                world.policies.push(rule);
                made.entry(old).or_insert(name).clone()
            }
        };
        world.traffic[at].policy = Some(new);
    }
    let left = |names| format!("traffic that begins or ends there is as before: {names}");
    Ok(untouched.map(left).into_iter().collect())
}

/// The rule that `old` names, or none, with the PoPs denied.
fn stricter(
    world: &World,
    old: Option<&str>,
    place: &Place,
    denied: &BTreeSet<PopId>,
) -> Result<PolicyRule, String> {
    let old = world.policies.iter().find(|rule| Some(rule.name.as_str()) == old);
    let mut rule = old.cloned().unwrap_or_default();
    let prefix = if rule.name.is_empty() { String::new() } else { format!("{}-", rule.name) };
    rule.name = format!("{prefix}not-{}", place.name);
    while world.policies.iter().any(|other| other.name == rule.name) {
        rule.name.push('+');
    }
    for pop in denied {
        if !rule.deny_pops.contains(pop) {
            rule.deny_pops.push(pop.clone());
        }
    }
    rule.policy().map_err(|error| format!("no policy can deny that: {error}"))?;
    Ok(rule)
}

fn bind(world: &mut World, name: &str) -> Result<Notes, String> {
    let rules = || world.policies.iter().map(|rule| rule.name.as_str());
    if !rules().any(|rule| rule == name) {
        return Err(format!("there is no [[policy]] named \"{name}\"{}", hint(name, rules())));
    }
    for traffic in &mut world.traffic {
        traffic.policy = Some(name.to_owned());
    }
    Ok(Notes::new())
}

/// The first few names of traffic, or of its groups, and how many more; `None` without any.
pub(super) fn names<'a>(traffic: impl Iterator<Item = &'a Traffic>) -> Option<String> {
    const SHOWN: usize = 5;
    let name = |traffic: &'a Traffic| traffic.group.as_deref().unwrap_or(&traffic.name);
    let names: BTreeSet<&str> = traffic.map(name).collect();
    let shown = names.iter().take(SHOWN).copied().collect::<Vec<_>>().join(", ");
    match names.len() {
        0 => None,
        count if count > SHOWN => Some(format!("{shown} and {} more", count - SHOWN)),
        _ => Some(shown),
    }
}

/// Takes the traffic out for which no path of the overlay's length is left that its policy allows:
/// those flows.
pub(super) fn take_out_cut_off(world: &mut World) -> Vec<Traffic> {
    let mut reached: BTreeMap<(PopId, Option<String>), BTreeSet<PopId>> = BTreeMap::new();
    let mut cut_off = Vec::new();
    let traffic = std::mem::take(&mut world.traffic);
    for flow in traffic {
        let key = (flow.from.clone(), flow.policy.clone());
        let within =
            reached.entry(key).or_insert_with(|| reach(world, &flow.from, flow.policy.as_deref()));
        let kept = within.contains(&flow.to);
        if kept { &mut world.traffic } else { &mut cut_off }.push(flow);
    }
    cut_off
}

/// The PoPs to which there is a path (breadth first).
pub(crate) fn reach(world: &World, from: &PopId, policy: Option<&str>) -> BTreeSet<PopId> {
    let rule = world.policies.iter().find(|rule| Some(rule.name.as_str()) == policy);
    let judge = rule.and_then(|rule| rule.policy().ok());
    let judge = judge.map_or_else(Judge::default, |policy| Judge::of(policy.rule().clone()));
    let admitted = |pop: &&Pop| judge.admit(&pop.id, &labels(pop)).is_ok();
    let admitted: BTreeSet<&PopId> =
        world.pops.iter().filter(admitted).map(|pop| &pop.id).collect();
    let mut links = BTreeMap::<&PopId, Vec<&PopId>>::new();
    for (a, b) in world.links.keys() {
        links.entry(a).or_default().push(b);
    }
    let mut reached = BTreeSet::new();
    let mut next: VecDeque<(&PopId, usize)> = [(from, 1)].into();
    while let Some((here, length)) = next.pop_front() {
        if !admitted.contains(here) || !reached.insert(here.clone()) || length == MAX_PATH {
            continue;
        }
        let onward = links.get(here).into_iter().flatten();
        next.extend(onward.map(|&pop| (pop, length + 1)));
    }
    reached
}
