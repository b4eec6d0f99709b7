//! Who talks to whom: a weight for each ordered pair of PoPs.

use std::ops::Range;

use rand::Rng;
use tradewind_proto::units::PopId;

use super::{Checked, Pops};
use crate::world::Pop;
use crate::world::error::{Fault, nearest};
use crate::world::source::{Sources, distance_km, weights};

/// Pairs of PoPs, more likely the more weight they have.
pub(super) struct Matrix {
    pairs: Vec<(PopId, PopId)>,
    /// The sum of the weights up to and with each pair.
    sums: Vec<f64>,
}

const NAMES: [&str; 2] = ["gravity", "uniform"];

impl Matrix {
    /// `gravity`: the product of the populations of both ends, the gravity model of traffic
    /// matrices (Roughan, "Simplifying the synthesis of Internet traffic matrices", CCR 35, 2005),
    /// over a power of their distance, if one is given (2 in Krings, Calabrese, Ratti and Blondel,
    /// "Urban gravity", J. Stat. Mech. 2009, for telephone calls between cities). `uniform`: all
    /// pairs alike. Another name is that of a file with weights.
    pub(super) fn read(
        name: &str,
        distance: Option<f64>,
        pops: &Pops,
        sources: &Sources,
        at: &Range<usize>,
    ) -> Checked<Self> {
        let fault = |message: String| Fault::new(at.clone(), message);
        if distance.is_some() && name != "gravity" {
            return Err(fault("distance belongs to matrix = \"gravity\"".into()));
        }
        let matrix = match name {
            "uniform" => Self::of(pairs(pops).map(|(from, to)| (ends(from, to), 1.0))),
            "gravity" => {
                let gravity = Gravity::new(distance.unwrap_or_default(), pops).map_err(fault)?;
                Self::of(pairs(pops).map(|(from, to)| (ends(from, to), gravity.weight(from, to))))
            }
            file if file.ends_with(".csv") => {
                let read = sources.read(file).and_then(|source| weights(&source, &pops.numbers));
                let weights = read.map_err(|error| fault(error.to_string()))?;
                let id = |number: usize| pops.list[number].id.clone();
                Self::of(
                    weights.into_iter().map(|((from, to), weight)| ((id(from), id(to)), weight)),
                )
            }
            _ => {
                let near = nearest(name, NAMES.into_iter());
                let hint = near.map_or_else(
                    || format!("known: {}, and CSV files", NAMES.join(", ")),
                    |near| format!("did you mean \"{near}\"?"),
                );
                return Err(fault(format!("unknown matrix \"{name}\"; {hint}")));
            }
        };
        matrix.ok_or_else(|| fault(format!("matrix = \"{name}\" gives no pair of PoPs a weight")))
    }

    /// `None` if nothing has a weight.
    fn of(weighed: impl Iterator<Item = ((PopId, PopId), f64)>) -> Option<Self> {
        let (mut pairs, mut sums, mut sum) = (Vec::new(), Vec::new(), 0.0);
        for (pair, weight) in weighed.filter(|(_, weight)| *weight > 0.0) {
            sum += weight;
            pairs.push(pair);
            sums.push(sum);
        }
        (!pairs.is_empty()).then_some(Self { pairs, sums })
    }

    /// The pair at `share` of all weight, 0 to 1.
    fn at(&self, share: f64) -> (PopId, PopId) {
        let total = self.sums.last().copied().unwrap_or_default();
        let at = self.sums.partition_point(|sum| *sum <= share * total);
        self.pairs[at.min(self.pairs.len() - 1)].clone()
    }

    /// Any pair.
    pub(super) fn draw(&self, rng: &mut impl Rng) -> (PopId, PopId) {
        self.at(rng.random())
    }

    /// So many, spread out: each pair gets its share of them, rounded up or down (systematic
    /// sampling, Madow and Madow 1944).
    pub(super) fn spread(&self, count: usize, rng: &mut impl Rng) -> Vec<(PopId, PopId)> {
        let offset: f64 = rng.random();
        (0..count).map(|index| self.at((index as f64 + offset) / count as f64)).collect()
    }
}

/// All ordered pairs.
fn pairs(pops: &Pops) -> impl Iterator<Item = (&Pop, &Pop)> {
    let pairs = pops.list.iter().flat_map(|from| pops.list.iter().map(move |to| (from, to)));
    pairs.filter(|(from, to)| from.id != to.id)
}

fn ends(from: &Pop, to: &Pop) -> (PopId, PopId) {
    (from.id.clone(), to.id.clone())
}

/// Places nearer than this count as so far apart, in km: several PoPs of one city are.
const NEAR: f64 = 100.0;

struct Gravity {
    /// The power of the distance.
    power: f64,
}

impl Gravity {
    fn new(power: f64, pops: &Pops) -> Result<Self, String> {
        if !(0.0..=4.0).contains(&power) {
            return Err(format!("distance is the power of the distance, 0 to 4, not {power}"));
        }
        let without = |what: &str, pop: &Pop| {
            format!("matrix = \"gravity\" needs the {what} of every PoP, {} has none", pop.id)
        };
        let unpeopled = pops.list.iter().find(|pop| pop.population.is_none());
        let nowhere = pops.list.iter().find(|pop| power > 0.0 && pop.location.is_none());
        match (unpeopled, nowhere) {
            (Some(pop), _) => Err(without("population", pop)),
            (None, Some(pop)) => Err(without("location", pop)),
            (None, None) => Ok(Self { power }),
        }
    }

    fn weight(&self, from: &Pop, to: &Pop) -> f64 {
        let people = |pop: &Pop| pop.population.unwrap_or_default() as f64;
        let apart = from.location.zip(to.location).map_or(NEAR, |(a, b)| distance_km(a, b));
        people(from) * people(to) / apart.max(NEAR).powf(self.power)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use rand::SeedableRng;
    use rand::rngs::SmallRng;

    use super::*;

    proptest! {
        #[test]
        fn every_pair_gets_its_share_rounded_up_or_down(
            weights in prop::collection::vec(0..1000u32, 1..40), count in 1..2_000usize, seed: u64,
        ) {
            let pair = |at: usize| ("hub".parse().unwrap(), format!("n{at}").parse().unwrap());
            let weighed = weights.iter().enumerate().map(|(at, weight)| (pair(at), f64::from(*weight)));
            let total: u32 = weights.iter().sum();
            let Some(matrix) = Matrix::of(weighed) else {
                prop_assert_eq!(total, 0);
                return Ok(());
            };
            let mut got: BTreeMap<(PopId, PopId), f64> = BTreeMap::new();
            for pair in matrix.spread(count, &mut SmallRng::seed_from_u64(seed)) {
                *got.entry(pair).or_default() += 1.0;
            }
            for (at, weight) in weights.iter().enumerate() {
                let fair = f64::from(*weight) / f64::from(total) * count as f64;
                let got = got.get(&pair(at)).copied().unwrap_or_default();
                prop_assert!((got - fair).abs() < 1.0 + 1e-6, "{got} for {fair}");
            }
        }
    }
}
