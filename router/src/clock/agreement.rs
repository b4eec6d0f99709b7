//! Whose time holds where relays disagree by more than distance can explain.
//!
//! Averaging brings relays together that are a little apart. Two parts of an overlay that began
//! with different clocks and find each other later would take minutes: every relay's average is
//! ruled by the near neighbours, who share its error. But half the difference of a link's two
//! directions is never more than half its round trip, so such a link is *known* to be wrong, and
//! every relay can see from the link state which relays agree with each other. The smaller part
//! follows the larger one, relay after relay, from the border inwards.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::Duration;

use tradewind_proto::statement::LinkStatement;
use tradewind_proto::units::PopKey;

use crate::lsdb::Lsdb;

/// What statements and coordinates may be off by: links are restated when they change by some
/// milliseconds, coordinates move by one in a second.
const SLACK: Duration = Duration::from_millis(25);

/// Which relays agree on the time.
#[derive(Clone, Debug)]
pub struct Times {
    /// How many agree with each, and the first of them. The greatest is right.
    parts: BTreeMap<PopKey, (usize, Reverse<PopKey>)>,
}

impl Times {
    /// What the links that `lsdb` holds say.
    pub fn new(lsdb: &Lsdb) -> Self {
        let keys: Vec<PopKey> = lsdb.members().map(|member| member.key()).collect();
        // A forest; a root is its own parent and the first of its tree, as keys are in order.
        let mut parent: Vec<usize> = (0..keys.len()).collect();
        for (at, member) in lsdb.members().enumerate() {
            for there in member.stated().links().filter(|link| link.to > member.key()) {
                let Ok(to) = keys.binary_search(&there.to) else { continue };
                let back = lsdb.member(there.to).and_then(|other| other.link(member.key()));
                if back.is_some_and(|back| agree(there, back)) {
                    let (a, b) = (root(&mut parent, at), root(&mut parent, to));
                    parent[a.max(b)] = a.min(b);
                }
            }
        }
        let roots: Vec<usize> = (0..keys.len()).map(|at| root(&mut parent, at)).collect();
        let mut sizes = vec![0; keys.len()];
        for &root in &roots {
            sizes[root] += 1;
        }
        let part = |(&key, &root): (&PopKey, &usize)| (key, (sizes[root], Reverse(keys[root])));
        Self { parts: keys.iter().zip(&roots).map(part).collect() }
    }

    /// Whether `own`, which disagrees with `other`, should follow it.
    pub fn follows(&self, own: PopKey, other: PopKey) -> bool {
        self.parts.get(&other) > self.parts.get(&own)
    }
}

/// The root of the tree that `at` is in; halves the way there for the next time.
fn root(parent: &mut [usize], mut at: usize) -> usize {
    while parent[at] != at {
        parent[at] = parent[parent[at]];
        at = parent[at];
    }
    at
}

fn agree(there: &LinkStatement, back: &LinkStatement) -> bool {
    let apart = i64::from(there.delay_micros) - i64::from(back.delay_micros);
    there.up && back.up && plausible(apart / 2, there.rtt.max(back.rtt))
}

/// Whether two clocks that seem `apart` microseconds may be in step, over a link of this round trip.
pub(super) fn plausible(apart: i64, rtt: Duration) -> bool {
    Duration::from_micros(apart.unsigned_abs()) <= rtt / 2 + SLACK
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::{World, key};

    /// Parts `a b c` and `x y`, joined by the links `c - x` and `a - y` of 40 ms round trip, on
    /// which the clocks of the two parts are `apart` microseconds.
    fn times(apart: i32) -> Times {
        let near = [("a", "b", 5.0), ("b", "c", 5.0), ("x", "y", 5.0)];
        let mut world = World::new(&near);
        for (from, to) in [("c", "x"), ("a", "y")] {
            world.connect(from, crate::world::link(to, 20.0));
            world.connect(to, crate::world::link(from, 20.0));
            world.link(from, to).delay_micros += apart;
            world.link(to, from).delay_micros -= apart;
        }
        Times::new(&world.lsdb("a", crate::world::NOON))
    }

    #[test]
    fn the_smaller_part_follows_the_larger_one() {
        let follows = |times: &Times, own, other| times.follows(key(own), key(other));
        for apart in [900_000, -900_000, 46_000] {
            let times = times(apart);
            assert!(follows(&times, "x", "c") && follows(&times, "y", "a"), "{apart}");
            assert!(!follows(&times, "c", "x") && !follows(&times, "a", "y"), "{apart}");
            assert!(!follows(&times, "a", "c") && !follows(&times, "x", "y"), "{apart}");
        }
    }

    #[test]
    fn what_distance_may_explain_is_one_part() {
        let times = times(44_000);
        for (own, other) in [("x", "c"), ("c", "x"), ("y", "a")] {
            assert!(!times.follows(key(own), key(other)));
        }
    }

    #[test]
    fn of_two_parts_of_a_size_one_follows_the_other() {
        let mut world = World::new(&[("a", "b", 5.0), ("x", "y", 5.0), ("b", "x", 20.0)]);
        world.link("b", "x").delay_micros += 900_000;
        world.link("x", "b").delay_micros -= 900_000;
        let times = Times::new(&world.lsdb("a", crate::world::NOON));
        assert_ne!(times.follows(key("b"), key("x")), times.follows(key("x"), key("b")));
    }

    #[test]
    fn links_that_are_down_or_said_of_one_way_join_nothing() {
        let mut world = World::new(&[("a", "b", 5.0), ("b", "c", 5.0)]);
        world.link("b", "c").up = false;
        world.pop("b").links.remove(&key("a"));
        let times = Times::new(&world.lsdb("a", crate::world::NOON));
        assert!(times.parts.values().all(|(size, _)| *size == 1), "{times:?}");
    }
}
