//! Areas: the PoPs of a region, of a country, of a provider, or a list; what is done to their links.

use std::collections::{BTreeMap, BTreeSet};
use std::f64::consts::PI;
use std::ops::Range;
use std::time::Duration;

use tradewind_proto::units::PopId;

use super::{Checked, Pops};
use crate::link::{LinkSpec, Rate};
use crate::world::error::{Fault, hint};
use crate::world::file::{AreaTable, CongestTable};
use crate::world::quantity::{Share, Span};
use crate::world::{Event, Happening, Label, LinkId, Pop};

/// In how many steps congestion rises and falls.
const STEPS: u32 = 20;

/// Some of the PoPs.
pub(super) struct Area {
    /// For titles.
    pub(super) name: String,
    pops: BTreeSet<PopId>,
}

impl Area {
    pub(super) fn find(table: &AreaTable, pops: &Pops, at: &Range<usize>) -> Checked<Self> {
        let AreaTable { region, country, provider, pops: listed } = table;
        match (region, country, provider, listed) {
            (Some(label), None, None, None) => {
                Self::labelled("region", label, |pop| pop.region.as_ref(), pops, at)
            }
            (None, Some(label), None, None) => {
                Self::labelled("country", label, |pop| pop.country.as_ref(), pops, at)
            }
            (None, None, Some(label), None) => {
                Self::labelled("provider", label, |pop| pop.provider.as_ref(), pops, at)
            }
            (None, None, None, Some(names)) if !names.is_empty() => {
                let pops = names.iter().map(|name| pops.named(name, at)).collect::<Checked<_>>()?;
                Ok(Self { name: names.join(", "), pops })
            }
            _ => Err(Fault::new(
                at.clone(),
                "an area is written with exactly one of region, country, provider, pops = [\"a\", …]",
            )),
        }
    }

    fn labelled(
        key: &str,
        label: &Label,
        of: impl Fn(&Pop) -> Option<&Label>,
        pops: &Pops,
        at: &Range<usize>,
    ) -> Checked<Self> {
        let inside = pops.list.iter().filter(|pop| of(pop) == Some(label));
        let inside: BTreeSet<PopId> = inside.map(|pop| pop.id.clone()).collect();
        if inside.is_empty() {
            let hint = hint(label.as_str(), pops.list.iter().filter_map(&of).map(Label::as_str));
            let message = format!("there is no [[pop]] with {key} = \"{}\"{hint}", label.as_str());
            return Err(Fault::new(at.clone(), message));
        }
        Ok(Self { name: format!("{key} {}", label.as_str()), pops: inside })
    }

    /// The links between inside and outside, both ways.
    pub(super) fn border(
        &self,
        links: &BTreeMap<LinkId, LinkSpec>,
        at: &Range<usize>,
    ) -> Checked<Vec<LinkId>> {
        let crosses = |(from, to): &&LinkId| self.pops.contains(from) != self.pops.contains(to);
        self.some(links.keys().filter(crosses).cloned().collect(), "leads out of", at)
    }

    /// The links with an end inside.
    fn touching(
        &self,
        links: &BTreeMap<LinkId, LinkSpec>,
        at: &Range<usize>,
    ) -> Checked<Vec<LinkId>> {
        let touches = |(from, to): &&LinkId| self.pops.contains(from) || self.pops.contains(to);
        self.some(links.keys().filter(touches).cloned().collect(), "touches", at)
    }

    fn some(&self, links: Vec<LinkId>, verb: &str, at: &Range<usize>) -> Checked<Vec<LinkId>> {
        match links.is_empty() {
            true => Err(Fault::new(at.clone(), format!("no [[link]] {verb} {}", self.name))),
            false => Ok(links),
        }
    }
}

/// Congestion that rises from `begin` on like half a wave of a sine, and falls, in [`STEPS`] steps;
/// after it links are as the file has them.
pub(super) fn congestion(
    table: &CongestTable,
    begin: Duration,
    pops: &Pops,
    links: &BTreeMap<LinkId, LinkSpec>,
    at: &Range<usize>,
) -> Checked<Vec<Event>> {
    let area = Area::find(&table.area(), pops, at)?;
    let touched = area.touching(links, at)?;
    let Span(over) = table.over;
    if over.is_zero() {
        return Err(Fault::new(at.clone(), "congestion takes longer than no time: over = \"10m\""));
    }
    if [table.delay, table.jitter].iter().all(Option::is_none)
        && [table.loss, table.rate].iter().all(Option::is_none)
    {
        let message =
            "congest needs its peak: delay, jitter or loss that is added, or rate that is left";
        return Err(Fault::new(at.clone(), message));
    }
    if table.loss == Some(Share(1.0)) || table.rate == Some(Share(0.0)) {
        let message = "congestion leaves something: to cut an area off, use isolate";
        return Err(Fault::new(at.clone(), message));
    }
    let degraded = |level: f64| {
        touched.iter().map(|link| (link.clone(), congested(table, level, &links[link]))).collect()
    };
    let steps = (0..STEPS).map(|step| {
        let level = (PI * (f64::from(step) + 0.5) / f64::from(STEPS)).sin();
        let title = match step {
            0 => format!("congestion of {} begins", area.name),
            _ if step == STEPS / 2 => format!("congestion of {} is at its peak", area.name),
            _ => String::new(),
        };
        let what = Happening::Degrade(degraded(level));
        Event { at: begin + over * step / STEPS, what, title: Some(title) }
    });
    let title = format!("congestion of {} is over", area.name);
    let end =
        Event { at: begin + over, what: Happening::Degrade(degraded(0.0)), title: Some(title) };
    Ok(steps.chain([end]).collect())
}

fn congested(table: &CongestTable, level: f64, spec: &LinkSpec) -> LinkSpec {
    let added = |span: Option<Span>| span.map_or(Duration::ZERO, |Span(span)| span.mul_f64(level));
    let left = table.rate.map_or(1.0, |Share(left)| 1.0 - level * (1.0 - left));
    let slowed = |rate: Rate| {
        let bits_per_second = ((rate.bits_per_second as f64 * left) as u64).max(1);
        Rate { bits_per_second, ..rate }
    };
    LinkSpec {
        delay: spec.delay + added(table.delay),
        jitter: spec.jitter + added(table.jitter),
        loss: spec.loss.and_independent(table.loss.map_or(0.0, |Share(loss)| loss * level)),
        rate: spec.rate.map(slowed),
        ..spec.clone()
    }
}
