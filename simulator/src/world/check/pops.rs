//! PoPs: `[[pop]]`, and `[pops]` from a file.

use std::collections::HashMap;
use std::ops::Range;

use toml::Spanned;
use tradewind_proto::units::PopId;

use super::Checked;
use crate::world::error::{Fault, hint};
use crate::world::file::{Pick, PickTable, PopTable, PopsTable};
use crate::world::source::{Names, Sources, spread};
use crate::world::{Label, LinkId, Pop, World};

/// The PoPs, to look names up in.
pub(super) struct Pops {
    pub(super) list: Vec<Pop>,
    /// Where each stands.
    pub(super) numbers: HashMap<PopId, usize>,
}

impl Pops {
    pub(super) fn named(&self, name: &str, at: &Range<usize>) -> Checked<PopId> {
        let number = name.parse().ok().and_then(|id: PopId| self.numbers.get(&id));
        number.map(|&number| self.list[number].id.clone()).ok_or_else(|| {
            let hint = hint(name, self.list.iter().map(|pop| pop.id.as_str()));
            Fault::new(at.clone(), format!("there is no [[pop]] with id \"{name}\"{hint}"))
        })
    }

    /// Two different ones.
    pub(super) fn pair(&self, [from, to]: &[String; 2], at: &Range<usize>) -> Checked<LinkId> {
        if from == to {
            return Err(Fault::new(at.clone(), format!("both ends of the link are \"{from}\"")));
        }
        Ok((self.named(from, at)?, self.named(to, at)?))
    }

    fn add(&mut self, pop: Pop, at: &Range<usize>) -> Checked<()> {
        if self.list.len() == World::MAX_POPS {
            let message = format!("more than {} PoPs are too many", World::MAX_POPS);
            return Err(Fault::new(at.clone(), message));
        }
        if self.numbers.insert(pop.id.clone(), self.list.len()).is_some() {
            let message = format!("a second [[pop]] with id \"{}\"", pop.id);
            return Err(Fault::new(at.clone(), message));
        }
        self.list.push(pop);
        Ok(())
    }
}

pub(super) fn check_pops(
    tables: Vec<PopTable>,
    from_file: Option<Spanned<PopsTable>>,
    sources: &Sources,
) -> Checked<Pops> {
    let mut pops = Pops { list: Vec::new(), numbers: HashMap::new() };
    for PopTable { id, region, country, provider, location, population } in tables {
        let at = id.span();
        if location.is_some_and(|[lat, lon]| !(lat.abs() <= 90.0 && lon.abs() <= 180.0)) {
            let message = "location is [degrees north, degrees east]: at most 90 and 180";
            return Err(Fault::new(at, message));
        }
        let id = id.into_inner();
        pops.add(Pop { id, region, country, provider, location, population }, &at)?;
    }
    if let Some(table) = from_file {
        let at = table.span();
        for pop in picked(&table.into_inner(), sources, &at)? {
            pops.add(pop, &at)?;
        }
    }
    match pops.list.len() < 2 {
        true => Err(Fault { at: None, message: "a world needs at least two [[pop]]".into() }),
        false => Ok(pops),
    }
}

fn picked(table: &PopsTable, sources: &Sources, at: &Range<usize>) -> Checked<Vec<Pop>> {
    let fault = |message: String| Fault::new(at.clone(), message);
    let read = sources.read(&table.from).and_then(|source| source.places());
    let places = read.map_err(|error| fault(error.to_string()))?;
    match &table.pick {
        None => Ok(places),
        Some(Pick::Spread(count)) => {
            if *count < 1 || *count > places.len() {
                let there = places.len();
                return Err(fault(format!(
                    "pick = {count} of the {there} places in {}",
                    table.from
                )));
            }
            pick_spread(places, *count).map_err(|name| {
                let file = &table.from;
                fault(format!("pick = {count} needs to know where places are: {file} has no lat and lon of \"{name}\""))
            })
        }
        Some(Pick::Named(names)) => names
            .iter()
            .map(|name| {
                let id = Names::plain(name);
                let found = places.iter().find(|place| Some(&place.id) == id.as_ref());
                found.cloned().ok_or_else(|| {
                    let hint = hint(name, places.iter().map(|place| place.id.as_str()));
                    fault(format!("there is no place \"{name}\" in {}{hint}", table.from))
                })
            })
            .collect(),
        Some(Pick::Labelled(wanted)) => {
            let places: Vec<_> =
                places.into_iter().filter(|place| is_labelled(place, wanted)).collect();
            match places.is_empty() {
                true => Err(fault(format!("no place in {} has these labels", table.from))),
                false => Ok(places),
            }
        }
    }
}

/// `count` places with people near one of them; an error names one whose location is unknown.
fn pick_spread(places: Vec<Pop>, count: usize) -> Result<Vec<Pop>, PopId> {
    let known = |place: &Pop| {
        let location = place.location.ok_or_else(|| place.id.clone())?;
        Ok((location, place.population.map_or(1.0, |people| people as f64)))
    };
    let located = places.iter().map(known).collect::<Result<Vec<_>, _>>()?;
    let mut picked = spread(&located, count).into_iter().peekable();
    let numbered = places.into_iter().enumerate();
    Ok(numbered.filter(|(at, _)| picked.next_if_eq(at).is_some()).map(|(_, pop)| pop).collect())
}

fn is_labelled(place: &Pop, wanted: &PickTable) -> bool {
    let lists = [
        (&wanted.regions, &place.region),
        (&wanted.countries, &place.country),
        (&wanted.providers, &place.provider),
    ];
    lists.iter().all(|(list, label)| {
        let label = label.as_ref().map(Label::as_str);
        list.is_empty() || list.iter().any(|wanted| label == Some(wanted))
    })
}
