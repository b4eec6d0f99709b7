//! The best path that shares no relay with a given one, and the cheapest pair of such paths.
//!
//! Suurballe's and Bhandari's algorithms find the pair without a bound on links; with one they may
//! miss it. So: take the paths in ascending order as the cheaper one of the pair, give each its
//! best partner, and stop once even two more of that cost are no better.

use super::labels::Repeats;
use super::{Arrays, Ascending, Labels, Node, Trail};

/// Two paths that share no relay between their ends, the cheaper first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pair {
    /// What both cost together.
    pub cost: i32,
    /// The paths.
    pub paths: [Trail; 2],
}

/// So many candidates for the cheaper path are tried. Beyond, the best pair found so far stands;
/// on a full mesh of 200 relays a dozen decides nearly always.
const MAX_CANDIDATES: usize = 256;

/// The cheapest disjoint pair of paths to `to`; `labels` are those of `arrays`.
pub fn cheapest_pair(arrays: &Arrays, labels: &Labels, to: Node) -> Option<Pair> {
    let mut best: Option<Pair> = None;
    let mut scratch = labels.clone();
    let mut candidates = Ascending::new(arrays, labels, to);
    for _ in 0..MAX_CANDIDATES {
        let Some((cost, path)) = candidates.next() else { break };
        let Some((other, partner)) = cheapest_beside(arrays, labels, &mut scratch, &path) else {
            continue;
        };
        if best.is_none_or(|best| cost + other < best.cost) {
            best = Some(Pair { cost: cost + other, paths: [path, partner] });
            // A pair of which this is the cheaper half costs as much again at least.
            candidates.set_limit((cost + other).div_euclid(2) + (cost + other).rem_euclid(2));
        }
    }
    best
}

/// The cheapest path between the ends of `path` that shares no relay between with it; where
/// `path` is the direct link, any other path. `labels` are those of `arrays`.
pub(crate) fn cheapest_beside(
    arrays: &Arrays,
    labels: &Labels,
    scratch: &mut Labels,
    path: &Trail,
) -> Option<(i32, Trail)> {
    let &to = path.nodes().last()?;
    let direct = path.is_direct();
    let avoided = if direct { std::slice::from_ref(&to) } else { path.between() };
    scratch.avoid(labels, arrays, avoided);
    beside(arrays, labels, scratch, path)
}

/// As [`cheapest_beside`], where `without` already avoids the relays between (those of the direct
/// link: its end).
pub(crate) fn beside(
    arrays: &Arrays,
    labels: &Labels,
    without: &Labels,
    path: &Trail,
) -> Option<(i32, Trail)> {
    let &to = path.nodes().last()?;
    let direct = path.is_direct();
    let found =
        if direct { without.trail_around(arrays, to, labels.bound()) } else { without.trail(to) };
    match found {
        Ok(trail) => trail.and_then(|trail| Some((arrays.cost_of(&trail)?, trail))),
        Err(Repeats) => {
            let paths = Ascending::new(arrays, labels, to).avoiding(path.between());
            if direct { paths.without_direct().next() } else { paths.into_iter().next() }
        }
    }
}
