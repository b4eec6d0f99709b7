//! A policy holds for every packet, whatever fails, and fails closed.

use std::collections::BTreeSet;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::IteratorRandom;
use rand::{Rng, SeedableRng};
use tradewind_proto::packet::Path;
use tradewind_proto::statement::{Policy, Rule};
use tradewind_proto::units::{PolicyId, PopKey};
use tradewind_relay::node::edge::DropReason;
use tradewind_router::explain::Target;
use tradewind_simulator::link::LinkSpec;
use tradewind_simulator::overlay::{FlowNumber, FlowSpec, Overlay, RelaySpec, pop};

use crate::world::{delay, ms, secs};

fn eu_only() -> Policy {
    let rule = Rule { allow_regions: vec!["EU".into()], ..Rule::default() };
    Policy::new("eu-only", rule).unwrap()
}

fn relay(name: &str, region: &str, peers: &[&str]) -> RelaySpec {
    let mut spec = RelaySpec::new(pop(name)).dialling(peers.iter().copied());
    spec.labels.region = Some(region.into());
    spec.policies = vec![eu_only()];
    spec
}

fn assert_no_loop(path: &Path) {
    let visited: BTreeSet<_> = path.pops().iter().collect();
    assert_eq!(visited.len(), path.pops().len(), "{path:?}");
}

/// A random world: 8 to 12 relays, some in the EU, a random graph over a ring.
pub struct RandomWorld {
    pub overlay: Overlay,
    pub names: Vec<String>,
    eu: BTreeSet<PopKey>,
    links: Vec<(usize, usize)>,
    rng: StdRng,
    down: BTreeSet<usize>,
    cut: BTreeSet<(usize, usize)>,
}

impl RandomWorld {
    pub fn new(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let count = rng.random_range(8..=12);
        let names: Vec<_> = (0..count).map(|i| format!("p{i}")).collect();
        let in_eu: Vec<_> = (0..count).map(|i| i < 2 || rng.random_bool(0.5)).collect();
        let mut overlay = Overlay::new(seed);
        for (name, &in_eu) in names.iter().zip(&in_eu) {
            let region = if in_eu { "EU" } else { "US" };
            let peers: Vec<_> = names.iter().filter(|n| *n != name).map(String::as_str).collect();
            overlay.add(relay(name, region, &peers));
        }
        let mut links = Vec::new();
        for a in 0..count {
            for b in a + 1..count {
                if b == a + 1 || rng.random_bool(0.5) {
                    links.push((a, b));
                    let spec = LinkSpec { jitter: ms(1), ..delay(rng.random_range(3..30)) };
                    overlay.link_both(&names[a], &names[b], &spec);
                }
            }
        }
        let eu = names.iter().zip(in_eu).filter(|(_, eu)| *eu).map(|(n, _)| pop(n).key()).collect();
        overlay.start_all();
        let (down, cut) = Default::default();
        Self { overlay, names, eu, links, rng, down, cut }
    }

    /// Kills or restarts a relay, cuts or restores a link; never the ends of the flow.
    pub fn mishap(&mut self) {
        if self.rng.random_bool(0.5) {
            let victim = self.rng.random_range(2..self.names.len());
            let name = &self.names[victim];
            match self.down.remove(&victim) {
                true => self.overlay.start(name),
                false => {
                    self.down.insert(victim);
                    self.overlay.kill(name);
                }
            }
        } else if let Some(&(a, b)) = self.links.iter().choose(&mut self.rng) {
            let was_cut = self.cut.remove(&(a, b));
            if !was_cut {
                self.cut.insert((a, b));
            }
            self.overlay.set_both_up(&self.names[a], &self.names[b], was_cut);
        }
    }

    fn assert_kept(&self, flow: FlowNumber, what: &str) -> usize {
        let record = self.overlay.record(flow);
        let all = record.delivered.iter().chain(&record.answered);
        let mut seen = BTreeSet::new();
        for delivery in &record.delivered {
            assert!(seen.insert(delivery.number), "{what}: {} came twice", delivery.number);
        }
        let mut paths = 0;
        for path in all.flat_map(|delivery| &delivery.paths) {
            paths += 1;
            assert_no_loop(path);
            let outside = path.pops().iter().find(|key| !self.eu.contains(key));
            assert!(outside.is_none(), "{what}: {path:?} leaves the EU");
        }
        // Not even packets that were never delivered were seen outside.
        for name in &self.names {
            if let Some(node) =
                self.overlay.node(name).filter(|_| !self.eu.contains(&pop(name).key()))
            {
                let counters = node.counters();
                assert_eq!(counters.forwarded + counters.ended, 0, "{what}: {name} {counters:?}");
            }
        }
        paths
    }
}

#[test]
fn packets_under_a_policy_never_leave_it_whatever_fails() {
    let (mut delivered, mut sent, mut detoured) = (0, 0, 0);
    for seed in 0..15 {
        let mut world = RandomWorld::new(seed);
        world.overlay.run_for(secs(5));
        let flow = FlowSpec { policy: eu_only().id(), echo: true, ..FlowSpec::new("p0", "p1") };
        let flow = world.overlay.flow(FlowSpec { interval: ms(10), ..flow });
        for _ in 0..8 {
            world.overlay.run_for(ms(world.rng.random_range(300..1500)));
            world.mishap();
        }
        world.overlay.run_for(secs(2));
        world.assert_kept(flow, &format!("seed {seed}"));
        let record = world.overlay.record(flow);
        delivered += record.delivered.len();
        sent += record.sent.len();
        let nodes = world.names.iter().filter_map(|name| world.overlay.node(name));
        detoured += nodes.map(|node| node.counters().detoured).sum::<u64>();
    }
    println!("{delivered} of {sent} delivered, {detoured} hops by detours");
    assert!(delivered * 10 > sent * 9, "{delivered} of {sent}");
    assert!(detoured > 20, "{detoured}: nothing tested");
}

/// `a` and `b` in the EU are joined by EU relays `e1`, `e2`, and by the far faster `us`.
fn bridge(seed: u64) -> (Overlay, FlowNumber) {
    let mut overlay = Overlay::new(seed);
    let names = [("a", "EU"), ("b", "EU"), ("e1", "EU"), ("e2", "EU"), ("us", "US")];
    for (name, region) in names {
        overlay.add(relay(name, region, &["a", "us"]));
    }
    for (via, millis) in [("e1", 15), ("e2", 20), ("us", 3)] {
        overlay.link_both("a", via, &delay(millis));
        overlay.link_both(via, "b", &delay(millis));
    }
    overlay.start_all();
    overlay.run_for(secs(5));
    let flow = FlowSpec { policy: eu_only().id(), echo: true, ..FlowSpec::new("a", "b") };
    let flow = overlay.flow(flow);
    overlay.run_for(secs(2));
    (overlay, flow)
}

fn delivered_within(overlay: &mut Overlay, flow: FlowNumber, span: Duration) -> usize {
    let before = overlay.record(flow).delivered.len();
    overlay.run_for(span);
    overlay.record(flow).delivered.len() - before
}

#[test]
fn without_an_allowed_way_nothing_is_delivered_and_the_reason_is_shown() {
    for seed in 0..10 {
        let (mut overlay, flow) = bridge(seed);
        assert!(delivered_within(&mut overlay, flow, secs(1)) >= 199, "seed {seed}");
        overlay.kill("e1");
        assert!(delivered_within(&mut overlay, flow, secs(1)) >= 180, "seed {seed}: the detour");
        overlay.kill("e2");
        overlay.run_for(secs(1));
        assert_eq!(delivered_within(&mut overlay, flow, secs(3)), 0, "seed {seed}");

        let node = overlay.node("a").unwrap();
        let now = overlay.clock("a");
        let target = Target::Pop(pop("b"));
        let free = node.control().router().explain(PolicyId::NONE, &target, now);
        assert!(free.chosen.is_some(), "seed {seed}: {}", free.summary);
        let bound = node.control().router().explain(eu_only().id(), &target, now);
        assert!(bound.chosen.is_none(), "seed {seed}: {}", bound.summary);
        assert!(bound.excluded.iter().any(|e| e.pop == pop("us")), "{:?}", bound.excluded);
        let info = node.edge().flows(now).next().expect("the flow");
        let closed = [DropReason::NoRoute, DropReason::NoInstance];
        assert!(info.blocked.is_some_and(|why| closed.contains(&why)), "{:?}", info.blocked);

        overlay.start("e2");
        overlay.run_for(secs(3));
        assert!(delivered_within(&mut overlay, flow, secs(1)) >= 199, "seed {seed}: not resumed");
        let us = overlay.node("us").unwrap().counters();
        assert_eq!(us.forwarded + us.ended, 0, "seed {seed}: {us:?}");
    }
}
