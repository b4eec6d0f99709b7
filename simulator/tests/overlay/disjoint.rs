//! Two copies on two ways: they never meet between the ends, whatever fails.

use std::collections::BTreeMap;

use tradewind_proto::units::Redundancy;
use tradewind_simulator::link::{LinkSpec, Loss};
use tradewind_simulator::overlay::{FlowSpec, Overlay, Sighting};

use crate::policies::RandomWorld;
use crate::world::{delay, ms, overlay, secs};

/// Asserts that no relay between the ends was on the paths of both copies of a packet. Gives how
/// many packets travelled twice, and how many once.
fn assert_apart(overlay: &Overlay, what: &str) -> (usize, usize) {
    let (mut twice, mut once) = (0, 0);
    for (packet, seen) in overlay.sightings().into_iter().flatten() {
        let twins: Vec<&Sighting> = seen.iter().filter(|sighting| sighting.twin).collect();
        if twins.is_empty() {
            once += 1;
            continue;
        }
        assert_eq!(twins.len(), seen.len(), "{what}: {packet:?} is both, {seen:?}");
        assert!(twins.len() <= 2, "{what}: {packet:?} was rerouted, {seen:?}");
        twice += usize::from(twins.len() == 2);
        let mut met = BTreeMap::new();
        for relay in twins.iter().flat_map(|sighting| &sighting.pops[1..sighting.pops.len() - 1]) {
            *met.entry(relay).or_insert(0) += 1;
        }
        assert!(met.values().all(|&times| times == 1), "{what}: {packet:?} meets itself, {seen:?}");
    }
    (twice, once)
}

#[test]
fn copies_never_share_a_relay_whatever_fails() {
    let (mut twice, mut once) = (0, 0);
    for seed in 0..24 {
        let mut world = RandomWorld::new(seed);
        let (from, to) = (world.names[0].clone(), world.names[1].clone());
        let spec = FlowSpec {
            redundancy: Redundancy::Disjoint,
            echo: true,
            interval: ms(10),
            ..FlowSpec::new(&from, &to)
        };
        world.overlay.watch_packets();
        world.overlay.flow(spec.between(secs(5), secs(60)));
        world.overlay.run_for(secs(6));
        for _ in 0..8 {
            world.mishap();
            world.overlay.run_for(ms(700));
        }
        let counts = assert_apart(&world.overlay, &format!("seed {seed}"));
        (twice, once) = (twice + counts.0, once + counts.1);
    }
    println!("{twice} packets twice, {once} once, as there was no second way");
    assert!(twice > 4 * once, "{twice} twice, {once} once");
}

#[test]
fn nothing_is_missed_and_nobody_meets_where_links_are_suspected_for_nothing() {
    for seed in 0..6 {
        let link = |millis| LinkSpec { loss: Loss::Independent(0.3), ..delay(millis) };
        let ways = [("a", "m", link(10)), ("m", "b", link(10)), ("a", "n", link(12))];
        let cross = [("n", "b", link(12)), ("m", "n", link(3)), ("a", "b", link(80))];
        let links: Vec<_> = ways.into_iter().chain(cross).collect();
        let mut overlay = overlay(seed, &["a", "b", "m", "n"], &links);
        overlay.watch_packets();
        let spec = FlowSpec { redundancy: Redundancy::Disjoint, ..FlowSpec::new("a", "b") };
        let flow = overlay.flow(spec.between(secs(6), secs(60)));
        overlay.run_for(secs(7));
        let began = overlay.now();
        overlay.run_for(secs(5));
        overlay.kill(["m", "n"][seed as usize % 2]);
        overlay.run_for(secs(2));
        assert_apart(&overlay, &format!("seed {seed}"));
        let record = overlay.record(flow);
        let (delivered, sent) = record.delivered_of(began, overlay.now().minus(ms(500)));
        assert!(delivered * 1000 >= sent * 999, "seed {seed}: {delivered} of {sent}");
    }
}
