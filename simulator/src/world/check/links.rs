//! Links: `[[link]]` over those of `[links]`, and the keys of a link model wherever they stand.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use toml::Spanned;

use super::made::{Unlinked, make_links};
use super::{Checked, Pops};
use crate::link::{Chain, LinkSpec, Loss, Rate};
use crate::world::LinkId;
use crate::world::error::{Fault, WorldError};
use crate::world::file::{LinkKeys, LinkName, LinkTable, LinksTable};
use crate::world::quantity::{BitRate, Burst, Bytes, Share, Span};
use crate::world::source::Sources;

pub(super) fn check_links(
    tables: Vec<Spanned<LinkTable>>,
    made: Option<Spanned<LinksTable>>,
    pops: &Pops,
    sources: &mut Sources,
) -> Checked<BTreeMap<LinkId, LinkSpec>> {
    let mut links = BTreeMap::new();
    let unlinked = match &made {
        Some(made) => make_links(made, pops, sources, &mut links)?,
        None => Vec::new(),
    };
    let mut described = BTreeSet::new();
    for table in tables {
        let at = table.span();
        let table = table.into_inner();
        for link in ends_of(&table, pops, &at)? {
            let base = links.get(&link).cloned().unwrap_or_default();
            let spec = apply(&table.link_keys(), &base, &at, sources)?;
            if !described.insert(link.clone()) {
                let (from, to) = link;
                let message = format!("the link {from}>{to} is described twice");
                return Err(Fault::new(at, message));
            }
            links.insert(link, spec);
        }
    }
    let alone = |pop: &&Unlinked| !described.iter().any(|(a, b)| *a == pop.id || *b == pop.id);
    match unlinked.iter().find(alone) {
        Some(pop) => Err(Fault::new(pop.at.clone(), pop.why.clone())),
        None => Ok(links),
    }
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
pub(super) fn apply(
    keys: &LinkKeys,
    base: &LinkSpec,
    at: &Range<usize>,
    sources: &mut Sources,
) -> Checked<LinkSpec> {
    let span = |key: Option<Span>, old| key.map_or(old, |Span(new)| new);
    let share = |key: Option<Share>, old| key.map_or(old, |Share(new)| new);
    let traced = |error: WorldError| Fault::new(at.clone(), error.to_string());
    let rate_trace = match (&keys.rate_trace, keys.rate) {
        (Some(_), Some(_)) => {
            return Err(Fault::new(at.clone(), "write either rate or rate_trace"));
        }
        (Some(name), None) => Some(sources.rate_trace(name).map_err(traced)?),
        (None, Some(_)) => None,
        (None, None) => base.rate_trace.clone(),
    };
    let mean = keys.rate_trace.as_ref().and(rate_trace.as_ref()).map(|trace| BitRate(trace.mean()));
    let delay_trace = match &keys.delay_trace {
        Some(name) => Some(sources.delay_trace(name).map_err(traced)?),
        None => base.delay_trace.clone(),
    };
    let rate = match (keys.rate.or(mean), keys.queue) {
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
        rate_trace,
        delay_trace,
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

/// The directions that a name stands for, all of which must be described.
pub(super) fn existing(
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
