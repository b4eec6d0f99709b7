//! Who talks to whom: a weight for each ordered pair of PoPs.

use std::ops::Range;

use rand::Rng;
use tradewind_proto::units::PopId;

use super::{Checked, Pops};
use crate::world::Pop;
use crate::world::error::{Fault, nearest};

/// Pairs of PoPs, more likely the more weight they have.
pub(super) struct Matrix {
    pairs: Vec<(PopId, PopId)>,
    /// The sum of the weights up to and with each pair.
    sums: Vec<f64>,
}

const NAMES: [&str; 2] = ["gravity", "uniform"];

impl Matrix {
    /// `gravity`: the product of the populations of both ends, the gravity model of traffic
    /// matrices (Roughan, "Simplifying the synthesis of Internet traffic matrices", CCR 35, 2005).
    /// `uniform`: all pairs alike.
    pub(super) fn read(name: &str, pops: &Pops, at: &Range<usize>) -> Checked<Self> {
        let weight: fn(&Pop, &Pop) -> f64 = match name {
            "uniform" => |_, _| 1.0,
            "gravity" => |from, to| people(from) * people(to),
            _ => {
                let near = nearest(name, NAMES.into_iter());
                let hint = near.map_or(format!("known: {}", NAMES.join(", ")), |near| {
                    format!("did you mean \"{near}\"?")
                });
                return Err(Fault::new(at.clone(), format!("unknown matrix \"{name}\"; {hint}")));
            }
        };
        let unknown = pops.list.iter().find(|pop| pop.population.is_none());
        if let Some(pop) = unknown.filter(|_| name == "gravity") {
            let message = format!(
                "matrix = \"gravity\" needs the population of every PoP, {} has none",
                pop.id
            );
            return Err(Fault::new(at.clone(), message));
        }
        let pairs = pops.list.iter().flat_map(|from| pops.list.iter().map(move |to| (from, to)));
        let pairs = pairs.filter(|(from, to)| from.id != to.id);
        Self::of(pairs.map(|(from, to)| ((from.id.clone(), to.id.clone()), weight(from, to))))
            .ok_or_else(|| Fault::new(at.clone(), "all weights of the matrix are 0"))
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

fn people(pop: &Pop) -> f64 {
    pop.population.unwrap_or_default() as f64
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
