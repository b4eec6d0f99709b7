//! Traffic: `[[traffic]]`, and what is asked of it.

use std::ops::Range;
use std::time::Duration;

use toml::Spanned;

use super::{Checked, Pops};
use crate::world::error::{Fault, hint};
use crate::world::file::{LimitsTable, TrafficTable};
use crate::world::quantity::{BitRate, Share, Span};
use crate::world::{Limits, PolicyRule, Traffic, World};

pub(super) fn check_traffic(
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
        group: None,
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
