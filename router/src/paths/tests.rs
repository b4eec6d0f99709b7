//! Every search against all paths of random small graphs.

use proptest::prelude::*;

use super::pair::cheapest_beside;
use super::*;

const BOUND: usize = 4;

/// A directed graph whose costs are positive delays bent by the offsets of clocks: some costs are
/// negative, no cycle is.
#[derive(Clone, Debug)]
struct World {
    len: usize,
    edges: Vec<Edge>,
}

impl World {
    fn arrays(&self) -> Arrays {
        Arrays::new(self.len, 0, self.edges.iter().copied())
    }

    fn cost(&self, from: Node, to: Node) -> Option<i32> {
        self.edges.iter().find(|edge| (edge.from, edge.to) == (from, to)).map(|edge| edge.cost)
    }

    /// All loop-free paths to `to`, by cost, links, numbers from the end.
    fn all_paths(&self, to: Node) -> Vec<(i32, Trail)> {
        let mut found = Vec::new();
        self.grow(&mut vec![0], 0, to, &mut found);
        found.sort_by_key(|(cost, path)| (*cost, path.nodes().len()));
        found
    }

    fn grow(&self, path: &mut Vec<Node>, cost: i32, to: Node, found: &mut Vec<(i32, Trail)>) {
        let head = path[path.len() - 1];
        if head == to {
            found.push((cost, Trail::new(path).expect("loop-free and short")));
            return;
        }
        if path.len() > BOUND {
            return;
        }
        for next in 0..self.len as Node {
            if let Some(step) = self.cost(head, next).filter(|_| !path.contains(&next)) {
                path.push(next);
                self.grow(path, cost + step, to, found);
                path.pop();
            }
        }
    }
}

/// With `negative`, cycles may cost less than nothing, as noise can make it look.
fn world(negative: bool) -> impl Strategy<Value = World> {
    (2..8usize).prop_flat_map(move |len| {
        let link = prop::option::weighted(0.7, 1..100i32);
        let delays = prop::collection::vec(link, len * len);
        let clocks = prop::collection::vec(-30..30i32, len);
        (delays, clocks).prop_map(move |(delays, clocks)| {
            let ends = (0..len).flat_map(|from| (0..len).map(move |to| (from, to)));
            let edges = ends.zip(delays).filter(|((from, to), _)| from != to);
            let edges = edges.filter_map(|((from, to), delay)| {
                let bend = if negative { -20 } else { clocks[to] - clocks[from] };
                Some(Edge { from: from as Node, to: to as Node, cost: delay? + bend })
            });
            World { len, edges: edges.collect() }
        })
    })
}

fn shares(a: &Trail, b: &Trail) -> bool {
    (a.is_direct() && b.is_direct()) || a.between().iter().any(|node| b.between().contains(node))
}

proptest! {
    #[test]
    fn the_cheapest_path_is_that_of_brute_force(world in world(false)) {
        let arrays = world.arrays();
        let labels = Labels::new(&arrays, BOUND);
        for to in 1..world.len as Node {
            let best = world.all_paths(to).first().map(|(cost, _)| *cost);
            prop_assert_eq!(labels.cost(to), best);
            let trail = labels.trail(to).expect("no cycle costs less than nothing");
            prop_assert_eq!(trail.and_then(|trail| arrays.cost_of(&trail)), best);
        }
    }

    #[test]
    fn paths_come_in_ascending_order_and_all_of_them(world in prop_oneof![world(false), world(true)]) {
        let arrays = world.arrays();
        let labels = Labels::new(&arrays, BOUND);
        for to in 1..world.len as Node {
            let listed: Vec<_> = Ascending::new(&arrays, &labels, to).collect();
            let mut all = world.all_paths(to);
            let costs = |paths: &[(i32, Trail)]| -> Vec<i32> { paths.iter().map(|path| path.0).collect() };
            prop_assert_eq!(costs(&listed), costs(&all));
            let mut listed = listed;
            listed.sort();
            all.sort();
            prop_assert_eq!(listed, all);
        }
    }

    #[test]
    fn ways_around_relays_are_those_of_brute_force(world in world(false), x in 1..8 as Node, y in 1..8 as Node) {
        let arrays = world.arrays();
        let labels = Labels::new(&arrays, BOUND);
        let avoided: Vec<Node> = [x, y].into_iter().filter(|node| usize::from(*node) < world.len).collect();
        let mut without = labels.clone();
        without.avoid(&labels, &arrays, &avoided);
        let rest = World {
            edges: world.edges.iter().filter(|e| !avoided.contains(&e.from) && !avoided.contains(&e.to)).copied().collect(),
            ..world.clone()
        };
        for to in 1..world.len as Node {
            let best = rest.all_paths(to).first().map(|(cost, _)| *cost);
            prop_assert_eq!(without.cost(to), best);
            let trail = without.trail(to).expect("no cycle costs less than nothing");
            prop_assert_eq!(trail.and_then(|trail| arrays.cost_of(&trail)), best);
        }
    }

    #[test]
    fn backups_are_disjoint_and_the_cheapest_such(world in prop_oneof![world(false), world(true)]) {
        let arrays = world.arrays();
        let labels = Labels::new(&arrays, BOUND);
        let mut scratch = labels.clone();
        for to in 1..world.len as Node {
            let all = world.all_paths(to);
            for (_, path) in all.iter().take(3) {
                let best = all.iter().find(|(_, other)| !shares(path, other)).map(|(cost, _)| *cost);
                let found = cheapest_beside(&arrays, &labels, &mut scratch, path);
                prop_assert_eq!(found.map(|(cost, _)| cost), best);
                prop_assert!(found.is_none_or(|(_, other)| !shares(path, &other)));
            }
        }
    }

    #[test]
    fn the_disjoint_pair_is_the_cheapest(world in prop_oneof![world(false), world(true)]) {
        let arrays = world.arrays();
        let labels = Labels::new(&arrays, BOUND);
        for to in 1..world.len as Node {
            let all = world.all_paths(to);
            let pairs = all.iter().flat_map(|a| all.iter().map(move |b| (a, b)));
            let best = pairs.filter(|(a, b)| !shares(&a.1, &b.1)).map(|(a, b)| a.0 + b.0).min();
            let found = cheapest_pair(&arrays, &labels, to);
            prop_assert_eq!(found.map(|pair| pair.cost), best);
            if let Some(Pair { cost, paths: [a, b] }) = found {
                prop_assert!(!shares(&a, &b));
                prop_assert_eq!(arrays.cost_of(&a).zip(arrays.cost_of(&b)).map(|(a, b)| a + b), Some(cost));
            }
        }
    }

    /// Paths rank by one-way delays as unsynchronised clocks show them as by the true delays.
    #[test]
    fn constant_clock_offsets_do_not_change_the_order(
        delays in prop::collection::vec(1..200_000i32, 36),
        clocks in prop::collection::vec(-10_000_000..10_000_000i32, 6),
    ) {
        let ends = || (0..6u16).flat_map(|from| (0..6u16).map(move |to| (from, to)));
        let edges = |offset: &dyn Fn(Node) -> i32| -> Vec<Edge> {
            let bent = |((from, to), delay): ((Node, Node), &i32)| {
                Edge { from, to, cost: delay + offset(to) - offset(from) }
            };
            ends().zip(&delays).map(bent).filter(|edge| edge.from != edge.to).collect()
        };
        let truth = Arrays::new(6, 0, edges(&|_| 0).into_iter());
        let raw = Arrays::new(6, 0, edges(&|node| clocks[usize::from(node)]).into_iter());
        let labels = Labels::new(&raw, BOUND);
        for to in 1..6 {
            let ranked: Vec<_> = Ascending::new(&raw, &labels, to).collect();
            prop_assert_eq!(ranked.len(), 1 + 4 + 12 + 24);
            let true_costs: Vec<_> = ranked.iter().map(|(_, path)| truth.cost_of(path)).collect();
            prop_assert!(true_costs.is_sorted(), "{:?}", true_costs);
            prop_assert_eq!(labels.trail(to).ok().flatten().and_then(|path| truth.cost_of(&path)), true_costs[0]);
        }
    }
}

#[test]
fn the_pair_can_be_cheaper_than_the_best_path_with_its_backup() {
    // The classic trap: the best path uses both middle relays and leaves no disjoint partner.
    let edge = |from, to, cost| Edge { from, to, cost };
    let edges = [edge(0, 1, 1), edge(1, 2, 1), edge(2, 3, 1), edge(0, 2, 5), edge(1, 3, 5)];
    let arrays = Arrays::new(4, 0, edges.into_iter());
    let labels = Labels::new(&arrays, BOUND);
    let best = labels.trail(3).unwrap().unwrap();
    assert_eq!(cheapest_beside(&arrays, &labels, &mut labels.clone(), &best), None);
    assert_eq!(cheapest_pair(&arrays, &labels, 3).map(|pair| pair.cost), Some(12));
}
