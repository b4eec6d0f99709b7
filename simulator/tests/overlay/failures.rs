//! Relays that die, links that go dark: how long traffic waits, and who notices when.

use std::time::Duration;

use tradewind_proto::link::Liveness;
use tradewind_proto::units::Redundancy;
use tradewind_proto::units::Timestamp;
use tradewind_relay::node::News;
use tradewind_simulator::link::LinkSpec;
use tradewind_simulator::overlay::{FlowNumber, FlowSpec, Overlay, START};

use crate::mesh::{self, Fault, Scenario};
use crate::world::{delay, ms, overlay, secs};

/// Two ways from `a` to `b`: over `m` (20 ms) and over `n` (24 ms); the direct link is far worse.
fn diamond(seed: u64) -> (Overlay, FlowNumber) {
    let link = |millis| LinkSpec { jitter: Duration::from_micros(300), ..delay(millis) };
    let mut overlay = overlay(
        seed,
        &["a", "b", "m", "n"],
        &[
            ("a", "b", link(80)),
            ("a", "m", link(10)),
            ("m", "b", link(10)),
            ("a", "n", link(12)),
            ("n", "b", link(12)),
            ("m", "n", link(5)),
        ],
    );
    let flow = overlay.flow(FlowSpec::new("a", "b").between(secs(4), secs(60)));
    // Faults come at any phase of timers.
    overlay.run_until(START + secs(8) + Duration::from_micros(seed * 7_919 % 50_000));
    assert_eq!(overlay.route("a", "b").unwrap_or_default(), ["a", "m", "b"], "seed {seed}");
    (overlay, flow)
}

fn told(overlay: &Overlay, host: &str, since: Timestamp, state: Liveness) -> Option<Duration> {
    let wanted = |news: &News| matches!(news, News::Liveness(_, to) if *to == state);
    let mut news = overlay.news().iter();
    let found = news.find(|(at, at_host, news)| *at >= since && at_host == host && wanted(news));
    found.map(|(at, ..)| at.since(since))
}

fn spread(mut values: Vec<Duration>) -> (Duration, Duration) {
    values.sort_unstable();
    (values[values.len() / 2], values[values.len() - 1])
}

#[test]
fn a_relay_killed_under_traffic_is_gone_around_and_used_again() {
    let (mut gaps, mut downs, mut routes, mut returns) = (vec![], vec![], vec![], vec![]);
    let mut lost = Vec::new();
    for seed in 0..40 {
        let (mut overlay, flow) = diamond(seed);
        let killed = overlay.now();
        overlay.kill("m");
        overlay.run_for(secs(2));
        let record = overlay.record(flow);
        gaps.push(record.longest_gap(killed.minus(ms(5)), overlay.now()));
        let (delivered, sent) = record.delivered_of(killed.minus(ms(200)), killed + secs(1));
        lost.push(sent - delivered);
        downs.push(told(&overlay, "a", killed, Liveness::Down).expect("down"));
        let moved = record.routes.iter().find(|(at, _)| *at > killed);
        routes.push(moved.map_or(Duration::MAX, |(at, _)| at.since(killed)));
        assert_eq!(overlay.route("a", "b").unwrap_or_default(), ["a", "n", "b"]);

        overlay.start("m");
        let back =
            |overlay: &Overlay| overlay.route("a", "b").is_some_and(|path| path == ["a", "m", "b"]);
        let again = overlay.run_while_not(secs(10), back);
        returns.push(again.unwrap_or(Duration::MAX));
    }
    println!("gap        median, worst {:?}", spread(gaps.clone()));
    println!("down       median, worst {:?}", spread(downs));
    println!("route      median, worst {:?}", spread(routes));
    println!("back       median, worst {:?}", spread(returns.clone()));
    println!("lost       {lost:?}");
    assert!(spread(gaps).1 < ms(250));
    assert!(spread(returns).1 < secs(3));
}

#[test]
fn links_cut_one_way_are_left_and_used_again_when_they_return() {
    for (from, to) in [("a", "m"), ("m", "a"), ("m", "b"), ("b", "m")] {
        let mut gaps = Vec::new();
        for seed in 0..10 {
            let (mut overlay, flow) = diamond(seed);
            let cut = overlay.now();
            overlay.set_up(from, to, false);
            overlay.run_for(secs(3));
            gaps.push(overlay.record(flow).longest_gap(cut.minus(ms(5)), overlay.now()));
            let since = overlay.now().minus(secs(2));
            let (delivered, sent) = overlay.record(flow).delivered_of(since, overlay.now());
            assert!(delivered + 20 > sent, "{from} > {to}, seed {seed}: {delivered} of {sent}");
            overlay.set_up(from, to, true);
            let back = |overlay: &Overlay| {
                overlay.route("a", "b").is_some_and(|path| path == ["a", "m", "b"])
            };
            let again = overlay.run_while_not(secs(8), back);
            assert!(again.is_some(), "{from} > {to}, seed {seed}: never used again");
        }
        println!("{from} > {to}: gap median, worst {:?}", spread(gaps.clone()));
        assert!(spread(gaps).1 < ms(250), "{from} > {to}");
    }
}

#[test]
fn a_link_that_flaps_is_held_down_longer_and_longer() {
    for seed in 0..10 {
        let (mut overlay, flow) = diamond(seed);
        let began = overlay.now();
        for _ in 0..15 {
            overlay.set_both_up("a", "m", false);
            overlay.run_for(ms(400));
            overlay.set_both_up("a", "m", true);
            overlay.run_for(ms(1600));
        }
        let record = overlay.record(flow);
        let moves = record.routes.iter().filter(|(at, _)| *at > began).count();
        // Thirty turns of the link; the first few are followed, then it is left alone.
        assert!(moves <= 16, "seed {seed}: {moves} moves");
        let (delivered, sent) = record.delivered_of(began, overlay.now().minus(ms(500)));
        assert!(delivered * 1000 >= sent * 995, "seed {seed}: {delivered} of {sent}");
        let gap = record.longest_gap(began, overlay.now());
        assert!(gap < ms(250), "seed {seed}: {gap:?}");
    }
}

#[test]
fn in_a_mesh_of_twenty_a_death_is_a_blink_and_hitless_with_two_copies() {
    // `scripts/bench-failover` has the figures; these are a few cases with margins.
    for redundancy in [Redundancy::Single, Redundancy::Disjoint] {
        for (place, faults) in [(0, &[Fault::Relay]), (1, &[Fault::Link]), (2, &[Fault::OneWay])] {
            let scenario = Scenario { faults, loss: 0.0, longest: ms(20), redundancy };
            let Some(outcome) = mesh::run(&scenario, place, 1) else { continue };
            assert!(outcome.sent > 200 && outcome.calm > 300, "{outcome:?}");
            assert_eq!(
                (outcome.missed, outcome.suspects, outcome.detoured),
                (0, 0, 0),
                "{outcome:?}"
            );
            let single = redundancy == Redundancy::Single;
            let most = if single { outcome.hop + ms(120) } else { ms(60) };
            assert!(outcome.gap < most, "{outcome:?}");
        }
    }
}
