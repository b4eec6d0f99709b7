//! A bad direct link against a good way over a third relay.

use tradewind_proto::units::PolicyId;
use tradewind_router::explain::Target;
use tradewind_simulator::link::{LinkSpec, Loss};
use tradewind_simulator::overlay::{FlowSpec, Overlay, START, pop};

use crate::world::{delay, ms, overlay, secs};

/// The first of the three is the one that the others know.
fn triangle(seed: u64, names: [&str; 3]) -> Overlay {
    let direct = LinkSpec { loss: Loss::Independent(0.03), ..delay(150) };
    overlay(seed, &names, &[("a", "b", direct), ("a", "via", delay(30)), ("via", "b", delay(35))])
}

#[test]
fn the_way_over_a_third_relay_is_taken_within_two_seconds_of_the_start() {
    // Where it is not the one that the others know, the third relay is heard of over the bad link.
    let cases = [["via", "a", "b"], ["a", "b", "via"], ["b", "via", "a"]];
    for (seed, names) in (0..20).flat_map(|seed| cases.map(|names| (seed, names))) {
        let mut overlay = triangle(seed, names);
        let both = |overlay: &Overlay| {
            overlay.route("a", "b").is_some_and(|path| path == ["a", "via", "b"])
                && overlay.route("b", "a").is_some_and(|path| path == ["b", "via", "a"])
        };
        let took = overlay.run_while_not(secs(2), both);
        assert!(took.is_some(), "seed {seed}: {:?}", overlay.route("a", "b"));
        let flow = overlay.flow(FlowSpec { echo: true, ..FlowSpec::new("a", "b") });
        overlay.run_for(secs(10));
        assert!(both(&overlay), "seed {seed}");
        let record = overlay.record(flow);
        assert!(record.delivered.len() + 20 > record.sent.len(), "seed {seed}");
        assert!(record.delivered.iter().all(|d| d.delay() < ms(75)), "seed {seed}");
        assert!(record.answered.iter().all(|d| d.delay() < ms(150)), "seed {seed}");
    }
}

#[test]
fn the_explanation_names_the_figures() {
    let mut overlay = triangle(1, ["via", "a", "b"]);
    // Traffic: the direct link is its backup, and so closely watched.
    overlay.flow(FlowSpec::new("a", "b"));
    overlay.run_until(START + secs(20));
    let node = overlay.node("a").unwrap();
    let why =
        node.control().router().explain(PolicyId::NONE, &Target::Pop(pop("b")), overlay.clock("a"));
    let chosen = why.chosen.expect("a route");
    assert_eq!(chosen.path.pops, [pop("a"), pop("via"), pop("b")]);
    assert!((60.0..75.0).contains(&chosen.path.total_ms), "{chosen:?}");
    let direct = why.direct.expect("the direct link");
    let path = direct.path.expect("its figures");
    assert!((0.01..0.06).contains(&path.loss), "{path:?}");
    assert!(path.total_ms > 150.0 && path.links[0].rtt_ms > 299.0, "{path:?}");
    assert!(direct.behind_ms.is_some_and(|ms| ms > 80.0), "{:?}", direct.behind_ms);
    assert!(why.summary.contains("via"), "{}", why.summary);
    println!("{}\n{}", why.summary, direct.why);
}
