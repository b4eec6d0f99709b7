//! From what a world file says to a world that holds together.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::time::Duration;

use toml::Spanned;
use tradewind_proto::units::PopId;

use super::error::{Fault, hint};
use super::file::{
    AssertTable, EventTable, LimitsTable, LinkKeys, LinkName, LinkTable, PopTable, RunTable,
    TrafficTable, WorldFile,
};
use super::quantity::{BitRate, Burst, Bytes, Share, Span};
use super::{Event, Happening, Limits, LinkId, PolicyRule, Pop, Traffic, World};
use crate::link::{Chain, LinkSpec, Loss, Rate};

const DEFAULT_DURATION: Duration = Duration::from_secs(20);
const DEFAULT_WARMUP: Duration = Duration::from_secs(3);

type Checked<T> = Result<T, Fault>;

pub(super) fn world(file: WorldFile) -> Checked<World> {
    let RunTable { name, seed, duration, warmup } = file.run;
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
    let traffic = check_traffic(file.traffic, &pops, &policies, (duration, all))?;
    let events = check_events(file.event, &pops, &links, &traffic, duration)?;
    Ok(World {
        name: name.unwrap_or_else(|| "world".into()),
        seed: seed.unwrap_or(1),
        duration,
        warmup: warmup.map_or(DEFAULT_WARMUP, |span| span.0),
        pops: pops.list,
        links,
        traffic,
        policies,
        events,
        wire_limit,
    })
}

fn check_wire_limit(limit: Spanned<f64>) -> Checked<f64> {
    let at = limit.span();
    let limit = limit.into_inner();
    let message = || format!("payload alone is 1 byte a payload byte: wire = {limit} never holds");
    if limit > 1.0 { Ok(limit) } else { Err(Fault::new(at, message())) }
}

/// What is asked of one flow: its own figures, and those of all flows where it has none.
fn limits(own: LimitsTable, all: LimitsTable) -> Limits {
    let span = |own: Option<Span>, all: Option<Span>| own.or(all).map(|Span(span)| span);
    Limits {
        in_time: own.in_time.or(all.in_time).map(|Share(share)| share),
        delay_median: span(own.delay_median, all.delay_median),
        delay_p99: span(own.delay_p99, all.delay_p99),
        longest_gap: span(own.longest_gap, all.longest_gap),
    }
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
    for PopTable { id, region, country, provider, location } in tables {
        let span = id.span();
        if !seen.insert(id.get_ref().clone()) {
            return Err(Fault::new(span, format!("a second [[pop]] with id \"{}\"", id.get_ref())));
        }
        if location.is_some_and(|[lat, lon]| !(lat.abs() <= 90.0 && lon.abs() <= 180.0)) {
            let message = "location is [degrees north, degrees east]: at most 90 and 180";
            return Err(Fault::new(span, message));
        }
        list.push(Pop { id: id.into_inner(), region, country, provider, location });
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

fn check_links(
    tables: Vec<Spanned<LinkTable>>,
    pops: &Pops,
) -> Checked<BTreeMap<LinkId, LinkSpec>> {
    let mut links = BTreeMap::new();
    for table in tables {
        let at = table.span();
        let table = table.into_inner();
        let spec = apply(&table.link_keys(), &LinkSpec::default(), &at)?;
        for link in ends_of(&table, pops, &at)? {
            let (from, to) = link.clone();
            if links.insert(link, spec.clone()).is_some() {
                let message = format!("the link {from}>{to} is described twice");
                return Err(Fault::new(at, message));
            }
        }
    }
    Ok(links)
}

fn ends_of(table: &LinkTable, pops: &Pops, at: &Range<usize>) -> Checked<Vec<LinkId>> {
    match (&table.between, &table.from, &table.to) {
        (Some(pair), None, None) => {
            let (a, b) = pops.pair(pair, at)?;
            Ok(vec![(a.clone(), b.clone()), (b, a)])
        }
        (None, Some(from), Some(to)) => Ok(vec![pops.pair(&[from.clone(), to.clone()], at)?]),
        _ => Err(Fault::new(
            at.clone(),
            "[[link]] needs either between = [\"a\", \"b\"] (both directions) or from and to (one)",
        )),
    }
}

/// `base` with the keys that were written.
fn apply(keys: &LinkKeys, base: &LinkSpec, at: &Range<usize>) -> Checked<LinkSpec> {
    let span = |key: Option<Span>, old| key.map_or(old, |Span(new)| new);
    let share = |key: Option<Share>, old| key.map_or(old, |Share(new)| new);
    let rate = match (keys.rate, keys.queue) {
        (Some(BitRate(rate)), None) => Some(Rate::with_default_queue(rate)),
        (Some(BitRate(bits_per_second)), Some(Bytes(queue))) => {
            Some(Rate { bits_per_second, queue })
        }
        (None, Some(Bytes(queue))) => {
            let rate = base.rate.ok_or_else(|| {
                Fault::new(
                    at.clone(),
                    "queue means nothing without a rate: name the link's rate too",
                )
            })?;
            Some(Rate { queue, ..rate })
        }
        (None, None) => base.rate,
    };
    if keys.mtu.is_some_and(|Bytes(mtu)| mtu < 576) {
        return Err(Fault::new(at.clone(), "mtu must be at least 576 bytes"));
    }
    Ok(LinkSpec {
        delay: span(keys.delay, base.delay),
        jitter: span(keys.jitter, base.jitter),
        loss: loss(keys, base.loss).map_err(|message| Fault::new(at.clone(), message))?,
        rate,
        reorder: share(keys.reorder, base.reorder),
        reorder_by: span(keys.reorder_by, base.reorder_by),
        duplicate: share(keys.duplicate, base.duplicate),
        corrupt: share(keys.corrupt, base.corrupt),
        mtu: keys.mtu.map_or(base.mtu, |Bytes(mtu)| mtu),
    })
}

fn loss(keys: &LinkKeys, base: Loss) -> Result<Loss, String> {
    let chain = [keys.p, keys.r, keys.loss_bad, keys.loss_good];
    if chain.iter().any(Option::is_some) {
        if keys.loss.is_some() || keys.burst.is_some() {
            return Err("write either loss and burst, or p, r, loss_bad and loss_good".into());
        }
        let (Some(Share(p)), Some(Share(r))) = (keys.p, keys.r) else {
            return Err("a Gilbert-Elliott loss needs both p and r".into());
        };
        if r == 0.0 {
            return Err("with r = 0 a burst never ends; to cut a link, use an [[event]]".into());
        }
        let [bad, good] = [(keys.loss_bad, 1.0), (keys.loss_good, 0.0)]
            .map(|(key, default)| key.map_or(default, |Share(share)| share));
        return Ok(Loss::Chain(Chain { p, r, bad, good }));
    }
    if keys.loss.is_none() && keys.burst.is_none() {
        return Ok(base);
    }
    let rate = keys.loss.map_or(base.rate(), |Share(rate)| rate);
    let loss = match keys.burst {
        _ if rate == 0.0 => Ok(Loss::None),
        None => Loss::independent(rate),
        Some(Burst::Packets(burst)) => Loss::in_bursts(rate, burst),
        Some(Burst::Time(mean)) => Loss::outages(rate, mean),
    };
    loss.map_err(|error| error.to_string())
}

fn check_traffic(
    tables: Vec<Spanned<TrafficTable>>,
    pops: &Pops,
    policies: &[PolicyRule],
    whole: (Duration, LimitsTable),
) -> Checked<Vec<Traffic>> {
    let mut list: Vec<Traffic> = Vec::with_capacity(tables.len());
    for (index, table) in tables.into_iter().enumerate() {
        let at = table.span();
        let traffic = one_traffic(index, table.into_inner(), pops, policies, whole, &at)?;
        if list.iter().any(|other| other.name == traffic.name) {
            return Err(Fault::new(at, format!("a second [[traffic]] named \"{}\"", traffic.name)));
        }
        list.push(traffic);
    }
    Ok(list)
}

fn one_traffic(
    index: usize,
    table: TrafficTable,
    pops: &Pops,
    policies: &[PolicyRule],
    (duration, asserted): (Duration, LimitsTable),
    at: &Range<usize>,
) -> Checked<Traffic> {
    let fault = |message: String| Fault::new(at.clone(), message);
    let (from, to) = pops.pair(&[table.from.clone(), table.to.clone()], at)?;
    if let Some(name) = &table.policy
        && !policies.iter().any(|rule| rule.name == *name)
    {
        let hint = hint(name, policies.iter().map(|rule| rule.name.as_str()));
        return Err(fault(format!("there is no [[policy]] named \"{name}\"{hint}")));
    }
    let size = table.size.0;
    if !(Traffic::MIN_SIZE..=Traffic::MAX_SIZE).contains(&size) {
        let (min, max) = (Traffic::MIN_SIZE, Traffic::MAX_SIZE);
        return Err(fault(format!("a packet's size is {min} to {max} bytes, not {size}")));
    }
    let pps = match (table.rate, table.pps) {
        (Some(BitRate(rate)), None) => rate as f64 / (size as f64 * 8.0),
        (None, Some(pps)) => pps,
        _ => return Err(fault("[[traffic]] needs either rate or pps".into())),
    };
    if !(0.001..=Traffic::MAX_PPS).contains(&pps) {
        return Err(fault(format!("{pps} packets per second: at least 0.001, at most 200,000")));
    }
    let deadline = table.deadline.map_or(table.class.default_deadline(), |Span(deadline)| deadline);
    if !Traffic::DEADLINES.contains(&deadline) {
        return Err(fault(format!("a deadline is 1 ms to 16 s, not {deadline:?}")));
    }
    let start = table.start.map_or(Duration::ZERO, |Span(start)| start);
    let stop = table.stop.map_or(duration, |Span(stop)| stop);
    if start >= stop || stop > duration {
        return Err(fault(format!(
            "traffic from {start:?} to {stop:?} is not within the run's {duration:?}"
        )));
    }
    let traffic = Traffic {
        name: table.name.unwrap_or_else(|| format!("traffic-{}", index + 1)),
        from,
        to,
        class: table.class,
        size,
        interval: Duration::from_secs_f64(1.0 / pps),
        deadline,
        policy: table.policy,
        redundancy: table.redundancy,
        start,
        stop,
        limits: limits(table.assert, asserted),
    };
    if traffic.packets() > World::MAX_PACKETS {
        return Err(fault(format!("{} packets are too many for one flow", traffic.packets())));
    }
    Ok(traffic)
}

fn check_events(
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

/// The directions that a name stands for, all of which must be described.
fn existing(
    name: &LinkName,
    pops: &Pops,
    links: &BTreeMap<LinkId, LinkSpec>,
    at: &Range<usize>,
) -> Checked<Vec<LinkId>> {
    let directions = match name {
        LinkName::OneWay(pair) => vec![pops.pair(pair, at)?],
        LinkName::Both(pair) => {
            let (a, b) = pops.pair(pair, at)?;
            vec![(a.clone(), b.clone()), (b, a)]
        }
    };
    match directions.iter().find(|id| !links.contains_key(id)) {
        Some((from, to)) => {
            Err(Fault::new(at.clone(), format!("there is no [[link]] {from}>{to}")))
        }
        None => Ok(directions),
    }
}
