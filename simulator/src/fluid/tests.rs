use super::*;
use crate::outcome::{FlowOutcome, RouteAt};
use crate::progress::Silent;
use crate::world::Fidelity;

fn world(text: &str, fidelity: Fidelity) -> World {
    World { fidelity, ..World::parse("test", text).unwrap() }
}

fn run(text: &str, fidelity: Fidelity) -> Outcome {
    crate::simulation::run(&world(text, fidelity), &mut Silent).unwrap()
}

/// Four PoPs, of which `c` or else `d` carries what goes from `a` to `b`.
const POPS: &str = "[run]\nduration='6s'\nwarmup='2s'\n[[pop]]\nid='a'\nregion='EU'\n[[pop]]\nid='b'\n\
    region='EU'\n[[pop]]\nid='c'\nregion='US'\n[[pop]]\nid='d'\nregion='EU'\n\
    [[link]]\nbetween=['a','b']\ndelay='80ms'\n\
    [[link]]\nbetween=['a','c']\ndelay='10ms'\njitter='1ms'\n\
    [[link]]\nbetween=['c','b']\ndelay='12ms'\nloss='3%'\n\
    [[link]]\nbetween=['a','d']\ndelay='15ms'\n[[link]]\nbetween=['d','b']\ndelay='16ms'\n\
    [[policy]]\nname='eu-only'\nallow_regions=['EU']\n";
const MEDIA: &str = "[[traffic]]\nname='media'\nfrom='a'\nto='b'\npps=250\nsize=1000\n";

#[test]
fn small_worlds_come_out_as_with_packets() {
    let kill = format!("{POPS}{MEDIA}[[event]]\nat='3s'\nkill_relay_of='media'\n");
    let cut = format!("{POPS}{MEDIA}[[event]]\nat='3s'\ncut=['a','c']\n");
    let disjoint =
        format!("{kill}[[traffic]]\nfrom='a'\nto='b'\npps=50\nsize=200\nredundancy='disjoint'\n");
    let bound = format!("{POPS}{MEDIA}policy='eu-only'\n");
    let large = format!("{POPS}[[traffic]]\nfrom='a'\nto='b'\npps=20\nsize=4000\n");
    for text in [&format!("{POPS}{MEDIA}"), &kill, &cut, &disjoint, &bound, &large] {
        let [exact, fluid] = [Fidelity::Packet, Fidelity::Flow].map(|fidelity| run(text, fidelity));
        for (exact, fluid) in exact.flows.iter().zip(&fluid.flows) {
            let paths = |flow: &FlowOutcome| -> Vec<String> {
                flow.routes.iter().map(RouteAt::path_text).collect()
            };
            assert_eq!(paths(exact).last(), paths(fluid).last(), "{text}");
            let (exact, fluid) = (&exact.overlay, &fluid.overlay);
            assert_eq!(exact.sent, fluid.sent);
            let shares = [exact, fluid].map(FlowReport::in_time_share);
            assert!((shares[0] - shares[1]).abs() < 0.01, "{shares:?} {text}");
            let medians = [exact, fluid].map(|report| report.delay_median_ms().unwrap());
            assert!((medians[0] - medians[1]).abs() < 0.05 * medians[0], "{medians:?} {text}");
            let gaps = [exact, fluid].map(FlowReport::longest_gap_ms);
            assert!((gaps[0] - gaps[1]).abs() < 10.0 + 0.35 * gaps[0], "{gaps:?} {text}");
        }
        let wire = [&exact, &fluid].map(|outcome| outcome.wire.per_crossing());
        assert!((wire[0] - wire[1]).abs() < 0.1 * wire[0], "{wire:?} {text}");
    }
}

#[test]
fn the_same_seed_gives_the_same_bytes_and_another_does_not() {
    let text =
        format!("{POPS}{MEDIA}[[event]]\nat='3s'\nkill='c'\n[[event]]\nat='4s'\nrestart='c'\n");
    let json = |seed| {
        let world = World { seed, ..world(&text, Fidelity::Flow) };
        crate::simulation::run(&world, &mut Silent).unwrap().to_json()
    };
    let first = json(1);
    assert_eq!(first, json(1));
    assert_ne!(first["flows"], json(2)["flows"]);
}

#[test]
fn a_relay_that_comes_back_is_used_again() {
    let text =
        format!("{POPS}{MEDIA}[[event]]\nat='1s'\nkill='c'\n[[event]]\nat='2s'\nrestart='c'\n");
    let text = text.replace("duration='6s'", "duration='15s'");
    let outcome = run(&text, Fidelity::Flow);
    let paths: Vec<String> = outcome.flows[0].routes.iter().map(RouteAt::path_text).collect();
    assert_eq!(paths, ["a > c > b", "a > d > b", "a > c > b"]);
}

#[test]
fn too_much_for_a_link_is_cut_by_class() {
    let text = "[run]\nduration='4s'\nwarmup='1s'\n[[pop]]\nid='a'\n[[pop]]\nid='b'\n\
        [[link]]\nbetween=['a','b']\ndelay='20ms'\nrate='8Mbit'\n";
    let flow = |class, pps| {
        format!("[[traffic]]\nfrom='a'\nto='b'\nclass='{class}'\npps={pps}\nsize=1000\n")
    };
    let text = [text, &flow("audio", 100), &flow("video", 1_000), &flow("bulk", 200)].concat();
    let outcome = run(&text, Fidelity::Flow);
    let shares: Vec<f64> = outcome.flows.iter().map(|flow| flow.overlay.in_time_share()).collect();
    assert!(shares[0] > 0.999 && (0.6..0.9).contains(&shares[1]) && shares[2] == 0.0, "{shares:?}");
    let direct = outcome.flows[1].direct.as_ref().unwrap().in_time_share();
    assert!((0.5..0.85).contains(&direct), "{direct}");
}

#[test]
fn a_world_without_a_way_is_refused() {
    let world = world(&format!("{POPS}{MEDIA}").replace("['a','b']", "['d','c']"), Fidelity::Flow);
    let links = world.links.iter().filter(|((_, to), _)| to.as_str() != "b");
    let links = links.map(|(id, spec)| (id.clone(), spec.clone())).collect();
    let world = World { links, ..world };
    let error = crate::simulation::run(&world, &mut Silent).unwrap_err().to_string();
    assert!(error.contains("no route for traffic \"media\" from a to b"), "{error}");
}

#[test]
fn a_large_mesh_has_the_direct_links_of_flows_and_few_others() {
    // In a row, so that the mesh of the first PoP leaves out the last.
    let mut text = "[run]\nmesh='auto'\nfidelity='flow'\n".to_owned();
    for a in 0..70 {
        text += &format!("[[pop]]\nid='p{a}'\n");
        for b in 0..a {
            text += &format!("[[link]]\nbetween=['p{a}','p{b}']\ndelay='{}ms'\n", 10 + a - b);
        }
    }
    let flow = |to| format!("[[traffic]]\nfrom='p0'\nto='p{to}'\npps=50\nsize=160\n");
    let joined = |text: &str| joined(&World::parse("test", text).unwrap());
    let without = joined(&format!("{text}{}", flow(1)));
    let with = joined(&[text, flow(1), flow(69)].concat());
    let added: Vec<_> = with.difference(&without).map(|((a, b), _)| format!("{a} {b}")).collect();
    assert_eq!(added, ["p0 p69"]);
    assert!(without.is_subset(&with) && without.len() < 70 * 24, "{}", without.len());
}
