use std::time::Duration;

use super::*;
use crate::baseline::{self, Way};
use crate::progress::Silent;
use crate::world::Fidelity;

fn report_of(world: &World) -> (Report, Outcome) {
    let mut silent = Silent;
    let mut recorder = Recorder::new(world, &mut silent);
    let outcome = baseline::run(world, &[Way::Routed], &mut recorder).unwrap();
    (Report::new(world, &outcome, &recorder), outcome)
}

fn demo() -> World {
    let demo = crate::demo::world().unwrap();
    World { duration: Duration::from_secs(6), ..short(demo) }
}

/// The first six seconds, with what the demo does after ten happening after three.
fn short(mut world: World) -> World {
    for traffic in &mut world.traffic {
        traffic.stop = traffic.stop.min(Duration::from_secs(6));
    }
    world.events.iter_mut().for_each(|event| event.at = Duration::from_secs(3));
    world
}

/// Checks that every element that is opened is closed again, in turn.
fn assert_well_formed(page: &str) {
    let mut open: Vec<&str> = Vec::new();
    let mut rest = page;
    while let Some(at) = rest.find('<') {
        let end = at + rest[at..].find('>').expect("a tag that ends");
        let tag = &rest[at + 1..end];
        rest = &rest[end + 1..];
        let name = tag.trim_start_matches('/').split([' ', '/', '\n']).next().unwrap_or_default();
        if tag.starts_with('!') || tag.starts_with('?') || tag.ends_with('/') {
            continue;
        }
        if tag.starts_with('/') {
            assert_eq!(open.pop(), Some(name), "before {}", &rest[..rest.len().min(80)]);
            continue;
        }
        open.push(name);
        if matches!(name, "style" | "script") {
            let close = format!("</{name}>");
            let at = rest.find(&close).expect("the end of a style or script");
            open.pop();
            rest = &rest[at + close.len()..];
        }
    }
    assert!(open.is_empty(), "{open:?} not closed");
}

#[test]
fn the_report_of_the_demo_is_whole_small_and_needs_nothing_else() {
    let (report, outcome) = report_of(&demo());
    let page = report.file("report.html").unwrap();
    assert_well_formed(page);
    assert!(page.len() < 2 << 20, "{} bytes", page.len());
    for flow in &outcome.flows {
        assert!(page.contains(&html::escaped(&flow.traffic.name)), "{}", flow.traffic.name);
    }
    assert!(!outcome.happened.is_empty());
    for (_, what) in &outcome.happened {
        assert!(page.contains(&html::escaped(what)), "{what}");
    }
    for way in ["direct", "routed", "overlay"] {
        assert!(page.contains(&format!("in time, {way}")), "{way}");
    }
    let outside = page.replace("http://www.w3.org/2000/svg", "").replace("href=\"#", "");
    for fetch in ["http:", "https:", "src=", "@import", "url(", "href="] {
        assert!(!outside.contains(fetch), "{fetch}");
    }
    let pictures: Vec<&str> = page.split("<svg").skip(1).collect();
    assert_eq!(pictures.len(), 1 + 3 * outcome.flows.len());
    for picture in pictures {
        let end = picture.find("</svg>").expect("the end of a picture");
        let picture = format!("<svg{}</svg>", &picture[..end]);
        roxmltree::Document::parse(&picture).unwrap();
    }
    for part in ["<a href=\"#route-0\"", "<details id=\"route-0\""] {
        assert!(page.contains(part), "{part}");
    }

    let csv = report.file("series.csv").unwrap();
    let columns = csv.lines().next().unwrap().split(',').count();
    for line in csv.lines() {
        assert_eq!(line.split(',').count(), columns, "{line}");
    }
    let sent = |flow: &str, way: &str| -> u64 {
        let start = format!("flow,{flow},{way},");
        csv.lines()
            .filter_map(|line| line.split_once(&start))
            .map(|(_, rest)| {
                rest.split(',').next().and_then(|sent| sent.parse::<u64>().ok()).unwrap()
            })
            .sum()
    };
    for flow in &outcome.flows {
        for way in ["direct", "routed", "overlay"] {
            assert_eq!(sent(&flow.traffic.name, way), flow.overlay.sent, "{way}");
        }
    }
    let events = report.file("events.ndjson").unwrap();
    let kinds: Vec<String> = events
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .map(|line| line["kind"].as_str().unwrap().to_owned())
        .collect();
    for kind in ["event", "route", "link"] {
        assert!(kinds.iter().any(|other| other == kind), "{kind}");
    }
    let summary: serde_json::Value =
        serde_json::from_str(report.file("summary.json").unwrap()).unwrap();
    assert_eq!(summary["flows"][0]["routed"]["sent"], outcome.flows[0].overlay.sent);
}

#[test]
fn the_same_seed_writes_the_same_bytes_and_worlds_without_places_have_a_circle() {
    let text = "[run]\nname='a <b> & \"c\"'\nduration='2s'\nwarmup='1s'\n\
                [[pop]]\nid='a'\n[[pop]]\nid='b'\n[[pop]]\nid='c'\n\
                [[link]]\nbetween=['a','b']\ndelay='20ms'\nloss=0.05\n\
                [[link]]\nbetween=['b','c']\ndelay='10ms'\n\
                [[traffic]]\nname='x<y>&z'\nfrom='a'\nto='c'\npps=100\nsize=500";
    let world = World::parse("test", text).unwrap();
    let (report, outcome) = report_of(&world);
    assert_eq!(report, report_of(&world).0);
    let page = report.file("report.html").unwrap();
    assert_well_formed(page);
    assert!(page.contains("x&lt;y&gt;&amp;z") && !page.contains("x<y>"));
    assert!(!page.contains("class=\"land\"") && page.contains("class=\"path "));
    assert_eq!(outcome.flows.len(), 1);
    let other = World { seed: 2, ..world };
    assert_ne!(report, report_of(&other).0);
}

#[test]
fn pairs_are_called_worst_for_what_they_lost_only_and_wording_follows_numbers() {
    let world = |loss: &str| {
        let text = format!(
            "[run]\nduration='3s'\nwarmup='1s'\n[[pop]]\nid='a'\n[[pop]]\nid='b'\n[[pop]]\nid='c'\n\
             [[link]]\nbetween=['a','b']\ndelay='20ms'\n{loss}\n[[link]]\nbetween=['b','c']\ndelay='20ms'\n\
             [[traffic]]\nfrom='a'\nto='b'\npps=100\nsize=500\n[recovery]\nmode='none'\n\
             [[traffic]]\nfrom='a'\nto='c'\npps=100\nsize=500\n\
             [[traffic]]\nfrom='b'\nto='c'\npps=100\nsize=500",
        );
        World::parse("test", &text).unwrap()
    };
    let page = |loss| report_of(&world(loss)).0.file("report.html").unwrap().to_owned();
    assert!(page("").contains("Every packet of every pair of PoPs came in time."));
    let page = page("loss='10%'");
    assert!(page.contains("The worst 2 pairs, and why") && page.contains("a &gt; b dropped"));
    for (number, text) in [(1, "1 change"), (2, "2 changes"), (1234, "1,234 changes")] {
        assert_eq!(html::counted(number, "change"), text);
    }
}

#[test]
fn both_fidelities_fill_the_report_alike() {
    let [packet, flow] = [Fidelity::Packet, Fidelity::Flow].map(|fidelity| {
        let (report, outcome) = report_of(&World { fidelity, ..demo() });
        let page = report.file("report.html").unwrap();
        let parts = ["<svg", "<polyline", "<details", "class=\"path "];
        let parts = parts.map(|part| page.matches(part).count());
        let mut rows = std::collections::BTreeMap::<String, u64>::new();
        for line in report.file("series.csv").unwrap().lines() {
            let cells: Vec<&str> = line.split(',').collect();
            if cells[1] == "flow" {
                *rows.entry(format!("{} {}", cells[2], cells[3])).or_default() += 1;
            }
        }
        assert!(outcome.flows.iter().all(|flow| flow.why.is_some()));
        (parts, rows)
    });
    // Give or take one: stragglers of packets may come after the last tick.
    let alike = packet.1.iter().zip(&flow.1).all(|(a, b)| a.0 == b.0 && a.1.abs_diff(*b.1) <= 1);
    assert!(alike && packet.1.len() == flow.1.len(), "{:?} {:?}", packet.1, flow.1);
    assert_eq!((packet.0[0], packet.0[2]), (flow.0[0], flow.0[2]));
    assert!(flow.0[1] * 10 >= packet.0[1] * 9, "{:?} {:?}", packet.0, flow.0);
}
