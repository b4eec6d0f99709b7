//! Links that turn bad without falling silent: they are left by the metric, soon and once.

use std::time::Duration;

use tradewind_proto::units::Timestamp;
use tradewind_simulator::link::{LinkSpec, Loss};
use tradewind_simulator::overlay::{FlowNumber, FlowSpec, Overlay, START};

use crate::world::{delay, ms, overlay, secs};

fn link(millis: u64) -> LinkSpec {
    LinkSpec { jitter: Duration::from_micros(300), ..delay(millis) }
}

/// Two ways from `a` to `b`: over `m` (20 ms) and over `n` (24 ms), or `longer` times as long; the
/// direct link is far worse.
fn ways(seed: u64, longer: u64) -> (Overlay, FlowNumber) {
    let links = [
        ("a", "b", 80),
        ("a", "m", 10),
        ("m", "b", 10),
        ("a", "n", 12),
        ("n", "b", 12),
        ("m", "n", 5),
    ];
    let links: Vec<_> = links.iter().map(|&(a, b, millis)| (a, b, link(millis * longer))).collect();
    let mut overlay = overlay(seed, &["a", "b", "m", "n"], &links);
    let flow = overlay.flow(FlowSpec::new("a", "b").between(secs(6), secs(90)));
    overlay.run_until(START + secs(13) + Duration::from_micros(seed * 7_919 % 50_000));
    assert_eq!(overlay.route("a", "b").unwrap_or_default(), ["a", "m", "b"], "seed {seed}");
    (overlay, flow)
}

/// When the ingress left the path that it had at `since`, and how often it changed it in all.
fn moves(overlay: &Overlay, flow: FlowNumber, since: Timestamp) -> (Option<Duration>, usize) {
    let routes = overlay.record(flow).routes.iter().filter(|(at, _)| *at > since);
    let times: Vec<_> = routes.map(|(at, _)| at.since(since)).collect();
    (times.first().copied(), times.len())
}

/// How long after the harm the path over `m` is left for good, in each of these seeds.
fn left_after(
    seeds: std::ops::Range<u64>,
    longer: u64,
    (from, to): (&str, &str),
    harm: fn(LinkSpec) -> LinkSpec,
) -> Vec<Duration> {
    let one = |seed| {
        let (mut overlay, flow) = ways(seed, longer);
        let began = overlay.now();
        overlay.link(from, to, harm(link(10 * longer)));
        overlay.run_for(secs(4));
        let (first, moves) = moves(&overlay, flow, began);
        let what = format!("{from} > {to}, {longer} times as long, seed {seed}");
        assert_eq!(overlay.route("a", "b").unwrap_or_default(), ["a", "n", "b"], "{what}");
        assert!(moves <= 1, "{what}: {moves} moves");
        first.unwrap_or(Duration::MAX)
    };
    let mut left: Vec<_> = seeds.map(one).collect();
    left.sort_unstable();
    left
}

const HALF_A_SECOND: Duration = Duration::from_millis(500);

#[test]
fn a_link_that_loses_a_fifth_is_left_within_half_a_second_and_once() {
    for longer in [1, 3] {
        for hop in [("a", "m"), ("m", "b")] {
            let harm = |spec| LinkSpec { loss: Loss::Independent(0.2), ..spec };
            let left = left_after(0..16, longer, hop, harm);
            println!("20 % loss on {hop:?} x {longer}: left after {:?} to {:?}", left[8], left[15]);
            assert!(left[15] <= HALF_A_SECOND, "{hop:?} x {longer}: {left:?}");
        }
    }
}

#[test]
fn a_link_that_takes_longer_is_left_within_half_a_second_and_once() {
    for longer in [1, 3] {
        for hop in [("a", "m"), ("m", "b")] {
            let harm = |spec: LinkSpec| LinkSpec { delay: spec.delay + ms(100), ..spec };
            let left = left_after(0..6, longer, hop, harm);
            println!("100 ms on {hop:?} x {longer}: left after {:?} to {:?}", left[3], left[5]);
            assert!(left[5] <= HALF_A_SECOND, "{hop:?} x {longer}: {left:?}");
        }
    }
}

#[test]
fn a_minute_of_steady_loss_moves_nothing_more() {
    let cases = [("a", "m", 1), ("m", "b", 1), ("a", "m", 3), ("m", "b", 3)];
    for (seed, (from, to, longer)) in (0..).zip(cases) {
        let (mut overlay, flow) = ways(seed, longer);
        let began = overlay.now();
        overlay.link(from, to, LinkSpec { loss: Loss::Independent(0.2), ..link(10 * longer) });
        overlay.run_for(secs(60));
        assert_eq!(moves(&overlay, flow, began).1, 1, "{from} > {to} x {longer}, seed {seed}");
    }
}

#[test]
fn loss_that_goes_up_and_down_around_the_threshold_moves_little() {
    for seed in 0..4 {
        let (mut overlay, flow) = ways(seed, 1);
        let began = overlay.now();
        for second in 0..60 {
            // Where the two ways are about equally good, and clearly beyond.
            let loss = [0.08, 0.2, 0.12][(second * 7 + seed as usize) % 3];
            overlay.link("a", "m", LinkSpec { loss: Loss::Independent(loss), ..link(10) });
            overlay.run_for(secs(1));
        }
        let (_, moves) = moves(&overlay, flow, began);
        println!("seed {seed}: {moves} moves in a minute");
        assert!((1..=3).contains(&moves), "seed {seed}: {moves} moves in a minute");
    }
}

#[test]
fn a_link_that_turns_bad_again_and_again_is_not_followed_each_time() {
    for seed in 0..6 {
        let (mut overlay, flow) = ways(seed, 1);
        let began = overlay.now();
        for _ in 0..10 {
            overlay.link("a", "m", LinkSpec { loss: Loss::Independent(0.2), ..link(10) });
            overlay.run_for(secs(1));
            overlay.link("a", "m", link(10));
            overlay.run_for(secs(2));
        }
        let (_, moves) = moves(&overlay, flow, began);
        assert!(moves <= 6, "seed {seed}: {moves} moves");
    }
}

#[test]
fn where_all_links_lose_much_nobody_hurries_to_and_fro() {
    for seed in 0..4 {
        let (mut overlay, flow) = ways(seed, 1);
        for (a, b, millis) in [("a", "m", 10), ("m", "b", 10), ("a", "n", 12), ("n", "b", 12)] {
            let spec = LinkSpec { loss: Loss::Independent(0.3), ..link(millis) };
            overlay.link_both(a, b, &spec);
        }
        overlay.run_for(secs(15));
        let began = overlay.now();
        overlay.run_for(secs(30));
        let (_, moves) = moves(&overlay, flow, began);
        println!("seed {seed}: {moves} moves in 30 s");
        assert!(moves <= 6, "seed {seed}: {moves} moves in 30 s");
    }
}
