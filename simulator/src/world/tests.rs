use std::collections::BTreeSet;

use super::*;
use crate::link::{Loss, Rate};
use crate::traffic::Video;

const GOOD: &str = r#"
[run]
name = "triangle"
seed = 7
duration = "10s"

[[pop]]
id = "fra"
region = "EU"
location = [50.11, 8.68]
[[pop]]
id = "sgp"
[[pop]]
id = "mad"

[[link]]
between = ["fra", "sgp"]
delay = "75ms"
jitter = "1ms"
loss = "3%"
burst = 5
[[link]]
from = "fra"
to = "mad"
delay = "15ms"
rate = "10Mbit"
[[link]]
from = "mad"
to = "fra"
p = 0.01
r = 0.2

[[policy]]
name = "eu-only"
allow_regions = ["EU"]

[[traffic]]
name = "media"
from = "fra"
to = "sgp"
rate = "2.4Mbit"
size = 1200
[[traffic]]
from = "sgp"
to = "fra"
class = "audio"
pps = 50
size = 160
start = "1s"
policy = "eu-only"
redundancy = "disjoint"

[[event]]
at = "6s"
restore = ["fra", "sgp"]
[[event]]
at = "5s"
degrade = "fra>sgp"
loss = "30%"
[[event]]
at = "5s"
kill_relay_of = "media"
"#;

fn id(name: &str) -> PopId {
    name.parse().unwrap()
}

fn parsed(text: &str) -> World {
    World::parse("world.toml", text).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn a_world_is_read_as_written() {
    let world = parsed(GOOD);
    assert_eq!((world.seed, world.duration, world.pops.len()), (7, Duration::from_secs(10), 3));
    let there = &world.links[&(id("fra"), id("sgp"))];
    assert_eq!(there.delay, Duration::from_millis(75));
    assert_eq!(there.loss, Loss::in_bursts(0.03, 5.0).unwrap());
    assert_eq!(there, &world.links[&(id("sgp"), id("fra"))]);
    let one_way = &world.links[&(id("fra"), id("mad"))];
    assert_eq!(one_way.rate, Some(Rate { bits_per_second: 10_000_000, queue: 62_500 }));
    let [media, audio] = &world.traffic[..] else { panic!() };
    assert_eq!((media.interval, media.packets()), (Duration::from_millis(4), 2_500));
    assert_eq!(media.deadline, Duration::from_millis(300));
    assert_eq!((audio.name.as_str(), audio.packets()), ("traffic-2", 450));
    assert_eq!(audio.deadline, Duration::from_millis(200));
    let fra = id("fra");
    assert_eq!(world.neighbours(&fra).map(PopId::as_str).collect::<Vec<_>>(), ["sgp", "mad"]);
}

#[test]
fn events_are_in_order_and_degrading_changes_only_what_is_named() {
    let world = parsed(GOOD);
    let [degrade, kill, restore] = &world.events[..] else { panic!() };
    let Happening::Degrade(changed) = &degrade.what else { panic!() };
    let [(link, spec)] = &changed[..] else { panic!() };
    assert_eq!(link, &(id("fra"), id("sgp")));
    assert_eq!((spec.delay, spec.loss), (Duration::from_millis(75), Loss::Independent(0.3)));
    assert_eq!(kill.what, Happening::KillRelayOf("media".into()));
    assert!(matches!(&restore.what, Happening::Restore(links) if links.len() == 2));
}

#[test]
fn what_is_asserted_of_all_flows_holds_for_those_without_figures_of_their_own() {
    let own = "size = 1200\nassert = { in_time = \"99%\", delay_p99 = \"90ms\" }\n[[traffic]]";
    let text = GOOD.replace("size = 1200\n[[traffic]]", own);
    let world =
        parsed(&format!("{text}\n[assert]\nin_time = 0.999\nlongest_gap = \"1s\"\nwire = 1.3"));
    let [media, audio] = &world.traffic[..] else { panic!() };
    let second = Some(Duration::from_secs(1));
    let common = Limits { in_time: Some(0.999), longest_gap: second, ..Limits::default() };
    assert_eq!(audio.limits, common);
    let delay_p99 = Some(Duration::from_millis(90));
    assert_eq!(media.limits, Limits { in_time: Some(0.99), delay_p99, ..common });
    assert_eq!(world.wire_limit, Some(1.3));
}

#[test]
fn relays_that_learn_of_each_other_dial_few_and_find_all() {
    let chain = |mesh: &str| {
        let mut text = format!("[run]\nmesh = \"{mesh}\"\n");
        // All are linked to "hub", which comes last, and each to the one before.
        let names: Vec<String> = (0..9).map(|n| format!("p{n}")).chain(["hub".into()]).collect();
        names.iter().for_each(|name| text += &format!("[[pop]]\nid = \"{name}\"\n"));
        for pair in names.windows(2) {
            text += &format!("[[link]]\nbetween = [\"{}\", \"{}\"]\n", pair[0], pair[1]);
        }
        for name in &names[..8] {
            text += &format!("[[link]]\nbetween = [\"{name}\", \"hub\"]\n");
        }
        parsed(&text)
    };
    assert_eq!(parsed(GOOD).mesh, Mesh::Peers);
    let world = chain("peers");
    assert_eq!(world.peers()[&id("hub")].len(), 9);
    let world = chain("auto");
    assert_eq!(world.mesh, Mesh::Auto);
    let (hub, p8) = (id("hub"), id("p8"));
    let peers = world.peers();
    assert_eq!(peers[&hub], [&id("p0"), &id("p1"), &id("p2")]);
    assert_eq!(peers[&p8], [&id("p7"), &hub]);
    assert!(peers.values().all(|dialled| dialled.len() <= 4));
}

/// The good world with another event instead of the last one.
fn with_event(event: &str) -> String {
    assert!(GOOD.contains("at = \"5s\"\nkill_relay_of = \"media\""));
    GOOD.replace("at = \"5s\"\nkill_relay_of = \"media\"", event)
}

#[test]
fn an_area_is_cut_off_and_restored_at_its_border() {
    let area = "{ region = \"EU\" }";
    let text = format!("at = \"2s\"\nisolate = {area}\n[[event]]\nat = \"3s\"\nrestore = {area}");
    let world = parsed(&with_event(&text));
    let [cut, restored, ..] = &world.events[..] else { panic!() };
    // Frankfurt is all of it; the other two have no link between them.
    let border: Vec<_> = world.links.keys().cloned().collect();
    assert_eq!(cut.what, Happening::Cut(border.clone()));
    assert_eq!(cut.title.as_deref(), Some("cut region EU off from the rest"));
    assert_eq!(restored.what, Happening::Restore(border));
    let listed = parsed(&with_event("at = \"2s\"\nisolate = { pops = [\"fra\", \"sgp\"] }"));
    let Happening::Cut(links) = &listed.events[0].what else { panic!() };
    assert_eq!(links, &[(id("fra"), id("mad")), (id("mad"), id("fra"))]);
}

#[test]
fn congestion_rises_and_falls_in_steps_and_leaves_links_as_they_were() {
    let congest = "congest = { region = \"EU\", over = \"4s\", delay = \"40ms\", loss = \"10%\", rate = \"50%\" }";
    let world = parsed(&with_event(&format!("at = \"0s\"\n{congest}")));
    let steps: Vec<_> = world.events.iter().filter(|event| event.title.is_some()).collect();
    assert_eq!(steps.len(), 21);
    assert_eq!((steps[5].at, steps[20].at), (Duration::from_secs(1), Duration::from_secs(4)));
    let spec = |step: usize, from, to| {
        let Happening::Degrade(links) = &steps[step].what else { panic!() };
        links.iter().find(|(link, _)| *link == (id(from), id(to))).unwrap().1.clone()
    };
    let delays: Vec<_> = (0..20).map(|step| spec(step, "fra", "mad").delay).collect();
    assert!(delays[..10].is_sorted() && delays[10..].iter().rev().is_sorted());
    assert!((54..55).contains(&delays[9].as_millis()), "{:?}", delays[9]);
    let peak = spec(9, "fra", "mad");
    assert!((peak.loss.rate() - 0.1).abs() < 0.001);
    assert!((peak.rate.unwrap().bits_per_second as f64 / 5e6 - 1.0).abs() < 0.01);
    // Losses in bursts stay bursts, and what was lost before is lost on top.
    assert!((spec(9, "mad", "fra").loss.rate() - (1.0 - 20.0 / 21.0 * 0.9)).abs() < 0.001);
    for ((from, to), spec_before) in &world.links {
        assert_eq!(&spec(20, from.as_str(), to.as_str()), spec_before);
    }
    let told: Vec<&str> = steps.iter().filter_map(|step| step.title.as_deref()).collect();
    let of = |what: &str| format!("congestion of region EU {what}");
    assert_eq!([told[0], told[10], told[20]], [of("begins"), of("is at its peak"), of("is over")]);
    assert_eq!(told.iter().filter(|title| title.is_empty()).count(), 18);
}

#[test]
fn relays_join_and_leave() {
    let text = with_event("at = \"1s\"\njoin = \"mad\"\n[[event]]\nat = \"2s\"\ndrain = \"mad\"");
    let world = parsed(&text);
    assert_eq!(world.joining().into_iter().collect::<Vec<_>>(), [&id("mad")]);
    assert_eq!(world.events[1].what, Happening::Drain(id("mad")));
}

/// The good world with populations, ten seconds long, and these tables.
fn peopled(tables: &str) -> String {
    let mut text = GOOD.to_owned();
    for (pop, people) in [("fra", 6_000), ("sgp", 3_000), ("mad", 1_000)] {
        let id = format!("id = \"{pop}\"");
        text = text.replace(&id, &format!("{id}\npopulation = {people}"));
    }
    text + tables
}

fn ends(flows: &[&Traffic], from: &str, to: &str) -> usize {
    flows.iter().filter(|flow| flow.from == id(from) && flow.to == id(to)).count()
}

#[test]
fn a_demand_becomes_flows_by_gravity() {
    let table =
        "[[demand]]\nname = \"web\"\nmatrix = \"gravity\"\nflows = 540\npps = 10\nsize = 500";
    let text = peopled(table);
    let world = parsed(&text);
    let flows: Vec<_> = world.traffic.iter().filter(|flow| flow.group.is_some()).collect();
    // 6 * 3, 6 * 1 and 3 * 1, each way: 54 in all.
    let expected =
        [("fra", "sgp", 180), ("sgp", "fra", 180), ("fra", "mad", 60), ("mad", "sgp", 30)];
    for (from, to, count) in expected {
        assert!(ends(&flows, from, to).abs_diff(count) <= 1, "{from}>{to}");
    }
    assert_eq!((flows.len(), world.rows().len()), (540, 3));
    assert_eq!(world.rows()[2].0, "web");
    let starts: BTreeSet<_> = flows.iter().map(|flow| flow.start).collect();
    assert!(starts.len() > 500 && starts.iter().all(|start| *start < Duration::from_secs(1)));
    assert_eq!(parsed(&text), world);
    assert_ne!(parsed(&text.replace("seed = 7", "seed = 8")).traffic, world.traffic);
}

#[test]
fn a_demand_is_so_many_flows_or_so_much_in_all() {
    let flows = |keys: &str| {
        let table = format!("[[demand]]\nname = \"d\"\nmatrix = \"uniform\"\nsize = 1000\n{keys}");
        let world = parsed(&peopled(&table));
        let flows: Vec<_> = world.traffic.into_iter().filter(|flow| flow.group.is_some()).collect();
        (flows.len(), flows[0].interval)
    };
    let millis = Duration::from_millis;
    assert_eq!(flows("total = \"8Mbit\"\nflows = 10"), (10, millis(10)));
    assert_eq!(flows("total = \"8Mbit\"\npps = 100"), (10, millis(10)));
    assert_eq!(flows("flows = 10\nrate = \"800kbit\""), (10, millis(10)));
}

#[test]
fn calls_come_at_random_and_last_lognormally() {
    let table = "[[calls]]\nname = \"talk\"\nmatrix = \"gravity\"\narrivals = 300\nmedian = \"1s\"\n\
                 sigma = 0.5\nvideo = \"25%\"";
    let world = parsed(&peopled(table));
    let of = |group: &str| {
        let ours = |flow: &&Traffic| flow.group.as_deref() == Some(group);
        world.traffic.iter().filter(ours).collect::<Vec<_>>()
    };
    let (audio, video) = (of("talk audio"), of("talk video"));
    // Both ways; 3,000 calls with a deviation of 55.
    assert!((5_600..6_400).contains(&audio.len()), "{}", audio.len());
    let share = video.len() as f64 / audio.len() as f64;
    assert!((0.22..0.28).contains(&share), "{share}");
    assert_eq!(ends(&audio, "fra", "sgp"), ends(&audio, "sgp", "fra"));
    assert!((0.3..0.37).contains(&(ends(&audio, "fra", "sgp") as f64 / audio.len() as f64)));
    // Those that the end of the run does not cut short.
    let early = audio.iter().filter(|flow| flow.start < Duration::from_secs(4));
    let mut lasted: Vec<_> = early.map(|flow| flow.stop - flow.start).collect();
    lasted.sort();
    let quantile = |q: f64| lasted[(q * lasted.len() as f64) as usize].as_secs_f64();
    assert!((0.93..1.07).contains(&quantile(0.5)), "{}", quantile(0.5));
    // One deviation up: e^0.5.
    assert!((1.5..1.8).contains(&quantile(0.841)), "{}", quantile(0.841));
    assert!(world.traffic.iter().all(|flow| flow.stop <= world.duration));
    assert!(audio.iter().all(|flow| flow.class == Class::Audio && flow.size == 172));
    assert!(video.iter().all(|flow| matches!(flow.shape, Shape::Video(_))));
}

#[test]
fn a_crowd_makes_more_of_a_table_for_a_while() {
    let tables = "[[demand]]\nname = \"web\"\nmatrix = \"uniform\"\nflows = 10\npps = 10\nsize = 500\n\
                  [[calls]]\nname = \"talk\"\nmatrix = \"uniform\"\narrivals = 100\nmedian = \"1s\"\n\
                  one_way = true\n";
    let crowd = |of: &str| {
        format!("[[event]]\nat = \"4s\"\ncrowd = {{ of = \"{of}\", times = 5, for = \"2s\" }}\n")
    };
    let during = |of: &str, group: &str| {
        let world = parsed(&(peopled(tables) + &crowd(of)));
        let crowds = world.events.iter().filter(|event| event.what == Happening::Crowd);
        assert_eq!(crowds.count(), 1);
        let (from, to) = (Duration::from_secs(4), Duration::from_secs(6));
        let begins = |flow: &&Traffic| (from..to).contains(&flow.start);
        let ours = world.traffic.iter().filter(|flow| flow.group.as_deref() == Some(group));
        ours.filter(begins).map(|flow| flow.stop).collect::<Vec<_>>()
    };
    assert_eq!(during("web", "web"), [Duration::from_secs(6); 40]);
    assert_eq!(during("media", "media"), [Duration::from_secs(6); 4]);
    // 200 without a crowd.
    let calls = during("talk", "talk audio").len();
    assert!((850..1_150).contains(&calls), "{calls}");
}

#[test]
fn traffic_of_a_pop_that_joins_waits_for_it() {
    let table = "[[demand]]\nname = \"web\"\nmatrix = \"uniform\"\nflows = 60\npps = 10\nsize = 500\n\
                 [[event]]\nat = \"6s\"\njoin = \"mad\"\n";
    let world = parsed(&peopled(table));
    let touches = |flow: &&Traffic| flow.from == id("mad") || flow.to == id("mad");
    let (late, early): (Vec<_>, Vec<_>) =
        world.traffic.iter().filter(|flow| flow.group.is_some()).partition(touches);
    assert_eq!((late.len(), early.len()), (40, 20));
    assert!(late.iter().all(|flow| flow.start == Duration::from_secs(6)));
    assert!(early.iter().all(|flow| flow.start < Duration::from_secs(1)));
}

/// What is wrong with a table of traffic.
const BROKEN_DEMANDS: &[(&str, &str)] = &[
    ("[[demand]]\nmatrix = \"gravty\"\nflows = 1\npps = 9\nsize = 99", "did you mean \"gravity\"?"),
    ("[[demand]]\nmatrix = \"gravity\"\nflows = 1\npps = 9\nsize = 99", "fra has none"),
    ("[[demand]]\nmatrix = \"uniform\"\nflows = 1\nsize = 99", "[[demand]] needs two of: flows"),
    ("[[demand]]\nmatrix = \"uniform\"\ntotal = 9\nsize = 99", "[[demand]] needs two of: flows"),
    ("[[demand]]\nmatrix = \"uniform\"\nflows = 0\npps = 9\nsize = 99", "1 to 100000 flows, not 0"),
    ("[[demand]]\nmatrix = \"uniform\"\nflow = 1\npps = 9\nsize = 99", "did you mean \"flows\"?"),
    (
        "[[demand]]\nname = \"media\"\nmatrix = \"uniform\"\nflows = 1\npps = 9\nsize = 99",
        "a second [[demand]] named \"media\"",
    ),
    ("[[calls]]\nmatrix = \"uniform\"\narrivals = 1", "missing field `median`"),
    ("[[calls]]\nmatrix = \"uniform\"\narrivals = 0\nmedian = \"1m\"", "0 calls a second"),
    ("[[calls]]\nmatrix = \"uniform\"\narrivals = 1\nmedian = \"1ms\"", "calls last 100ms to 1day"),
    (
        "[[calls]]\nmatrix = \"uniform\"\narrivals = 1\nmedian = \"1m\"\nsigma = 9",
        "sigma is 0 to 3",
    ),
    (
        "[[calls]]\nmatrix = \"uniform\"\narrivals = 1\nmedian = \"1m\"\nvideo_rate = 9000",
        "without video",
    ),
    (
        "[[calls]]\nmatrix = \"uniform\"\narrivals = 10000\nmedian = \"1m\"\nvideo = 1",
        "more than 100000 flows",
    ),
    (
        "[[event]]\nat = \"1s\"\ncrowd = { of = \"medai\", times = 2, for = \"1s\" }",
        "did you mean \"media\"?",
    ),
    (
        "[[event]]\nat = \"1s\"\ncrowd = { of = \"media\", times = 1, for = \"1s\" }",
        "2 to 100 times",
    ),
    (
        "[[event]]\nat = \"1s\"\ncrowd = { of = \"media\", times = 2, for = \"10s\" }",
        "not within the run's 10s",
    ),
    ("[[event]]\nat = \"1s\"\ncrowd = { of = \"media\", times = 2 }", "missing field `for`"),
];

#[test]
fn what_is_wrong_with_demands_is_said_in_one_sentence() {
    for (table, wanted) in BROKEN_DEMANDS {
        let error = World::parse("world.toml", &format!("{GOOD}{table}")).unwrap_err().to_string();
        assert!(error.contains(wanted), "{table}:\n got {error}\nwant {wanted}");
        assert!(error.starts_with("world.toml:"), "{error}");
    }
}

#[test]
fn a_flow_has_the_shape_that_was_written() {
    let shape = |keys: &str| {
        let keys = format!("rate = \"2.4Mbit\"\n{keys}");
        parsed(&GOOD.replace("rate = \"2.4Mbit\"", &keys)).traffic.remove(0).shape
    };
    assert_eq!(shape(""), Shape::Constant);
    assert_eq!(shape("shape = \"poisson\""), Shape::Poisson);
    assert_eq!(shape("shape = \"video\""), Shape::Video(Video::default()));
    let video = Video { fps: 25.0, key_size: 3.0, ..Video::default() };
    let written = shape("shape = \"video\"\nvideo = { fps = 25, key_size = 3.0 }");
    assert_eq!(written, Shape::Video(video));
}

#[test]
fn recovery_follows_the_plan_unless_constrained() {
    let recovery = |keys: &str| parsed(&format!("{GOOD}\n{keys}")).recovery;
    assert_eq!(recovery(""), Recovery::Plan);
    assert_eq!(recovery("[recovery]\nmode = \"arq\""), Recovery::ArqOnly);
    assert_eq!(recovery("[recovery]\nmode = \"none\""), Recovery::None);
    let fec = recovery("[recovery]\nmode = \"fec\"\nparity = \"30%\"");
    assert_eq!(fec, Recovery::FixedFec { parity: 0.3 });
}

/// The good world with one thing wrong: what is replaced, by what, and the error.
const BROKEN: &[(&str, &str, &str)] = &[
    (
        "loss = \"3%\"\nburst = 5",
        "loss = \"75%\"\nburst = 2",
        "a loss of 0.75 in runs of 2 packets is impossible",
    ),
    (
        "redundancy = \"disjoint\"",
        "assert = { in_tme = \"99%\" }",
        "unknown key \"in_tme\"; did you mean \"in_time\"?",
    ),
    ("[[event]]\nat = \"6s\"", "[assert]\nwire = 0.9\n[[event]]\nat = \"6s\"", "never holds"),
    (
        "delay = \"75ms\"",
        "dealy = \"75ms\"",
        "world.toml:18: unknown key \"dealy\"; did you mean \"delay\"?",
    ),
    (
        "region = \"EU\"",
        "planet = \"EU\"",
        "world.toml:9: unknown key \"planet\"; known here: id, region, country, provider, location, population",
    ),
    ("class = \"audio\"", "class = \"audoi\"", "unknown value \"audoi\"; did you mean \"audio\"?"),
    (
        "[[policy]]",
        "[recovery]\nmode = \"arq\"\nparity = 0.1\n[[policy]]",
        "world.toml:33: only mode = \"fec\" has a fixed parity",
    ),
    ("[[policy]]", "[recovery]\nmode = \"fecc\"\n[[policy]]", "did you mean \"fec\"?"),
    ("[run]", "[rum]", "world.toml:2: unknown key \"rum\"; did you mean \"run\"?"),
    ("id = \"mad\"", "id = \"sgp\"", "a second [[pop]] with id \"sgp\""),
    (
        "id = \"mad\"",
        "id = \"MAD\"",
        "world.toml:14: \"MAD\" contains 'M'; a name is made of a-z, 0-9 and -",
    ),
    ("to = \"mad\"", "to = \"mda\"", "there is no [[pop]] with id \"mda\"; did you mean \"mad\"?"),
    ("to = \"mad\"", "to = \"sgp\"", "the link fra>sgp is described twice"),
    ("to = \"mad\"", "", "[[link]] needs either between"),
    ("loss = \"3%\"", "loss = 3", "a share, such as 0.03 or \"3%\""),
    ("burst = 5", "burst = 0.5", "a mean run of losses, such as 5 (packets)"),
    ("rate = \"10Mbit\"", "queue = \"10kB\"", "queue means nothing without a rate"),
    ("r = 0.2", "r = 0.0", "a burst never ends"),
    ("r = 0.2", "r = 0.2\nloss = 0.1", "write either loss and burst, or p, r"),
    ("r = 0.2", "", "needs both p and r"),
    ("rate = \"2.4Mbit\"", "", "[[traffic]] needs either rate or pps"),
    ("size = 160", "size = 16", "a packet's size is 24 to 65507 bytes, not 16"),
    ("size = 160", "", "[[traffic]] needs the size of its packets"),
    ("pps = 50", "pps = 50\nshape = \"viedo\"", "unknown value \"viedo\"; did you mean \"video\"?"),
    ("pps = 50", "pps = 50\nvideo = { fps = 25 }", "video = {} belongs to shape = \"video\""),
    ("pps = 50", "pps = 50\nshape = \"video\"\nvideo = { fps = 300 }", "fps is 1 to 240, not 300"),
    (
        "pps = 50",
        "pps = 50\nshape = \"video\"\nvideo = { keys = 300 }",
        "unknown key \"keys\"; known here: fps, key_every, key_size, spread, pace",
    ),
    ("pps = 50", "pps = 50\ndeadline = \"17s\"", "a deadline is 1 ms to 16 s, not 17s"),
    ("pps = 50", "pps = -1", "at least 0.001"),
    ("start = \"1s\"", "start = \"11s\"", "is not within the run's 10s"),
    ("duration = \"10s\"", "duration = \"0s\"", "world.toml:5: a run needs a duration above zero"),
    ("duration = \"10s\"", "duration = \"4s\"", "comes after the run's 4s"),
    ("policy = \"eu-only\"", "policy = \"eu\"", "there is no [[policy]] named \"eu\""),
    (
        "kill_relay_of = \"media\"",
        "kill_relay_of = \"medai\"",
        "no [[traffic]] named \"medai\"; did you mean \"media\"?",
    ),
    (
        "kill_relay_of = \"media\"",
        "isolate = { region = \"UE\" }",
        "there is no [[pop]] with region = \"UE\"; did you mean \"EU\"?",
    ),
    (
        "kill_relay_of = \"media\"",
        "isolate = { regoin = \"EU\" }",
        "unknown key \"regoin\"; did you mean \"region\"?",
    ),
    ("kill_relay_of = \"media\"", "isolate = {}", "exactly one of region, country, provider, pops"),
    (
        "kill_relay_of = \"media\"",
        "restore = { country = \"DE\" }",
        "there is no [[pop]] with country = \"DE\"",
    ),
    (
        "kill_relay_of = \"media\"",
        "isolate = { pops = [\"fra\", \"sgp\", \"mad\"] }",
        "no [[link]] leads out of fra, sgp, mad",
    ),
    ("kill_relay_of = \"media\"", "restore = 5", "or an area such as { region = \"EU\" }"),
    (
        "kill_relay_of = \"media\"",
        "congest = { region = \"EU\", over = \"1s\" }",
        "congest needs its peak",
    ),
    (
        "kill_relay_of = \"media\"",
        "congest = { region = \"EU\", delay = \"1s\" }",
        "missing field `over`",
    ),
    (
        "kill_relay_of = \"media\"",
        "congest = { region = \"EU\", over = \"1s\", loss = 1.0 }",
        "to cut an area off, use isolate",
    ),
    (
        "kill_relay_of = \"media\"",
        "congest = { region = \"EU\", over = \"6s\", loss = 0.5 }",
        "comes after the run's 10s",
    ),
    (
        "kill_relay_of = \"media\"",
        "join = \"sgp\"",
        "traffic \"media\" starts at 0ns, before the relay sgp joins at 5s",
    ),
    (
        "kill_relay_of = \"media\"",
        "join = \"mad\"\n[[event]]\nat = \"6s\"\njoin = \"mad\"",
        "the relay mad joins twice",
    ),
    ("kill_relay_of = \"media\"", "kill = \"lon\"", "there is no [[pop]] with id \"lon\""),
    ("kill_relay_of = \"media\"", "cut = [\"sgp\", \"mad\"]", "there is no [[link]] sgp>mad"),
    ("kill_relay_of = \"media\"", "cut = \"sgp\"", "\"sgp\" names no link"),
    ("kill_relay_of = \"media\"", "", "[[event]] needs exactly one of"),
    (
        "kill_relay_of = \"media\"",
        "kill = \"mad\"\ncut = \"fra>mad\"",
        "[[event]] needs exactly one of",
    ),
    ("kill_relay_of = \"media\"", "kill = \"mad\"\nloss = 0.1", "keys of a link belong to"),
    ("location = [50.11, 8.68]", "location = [150.11, 8.68]", "degrees north"),
    ("region = \"EU\"", "region = \"the moon\"", "world.toml:9: a label is 1 to 64 of"),
    ("seed = 7", "seed = ", "world.toml:4:"),
    ("seed = 7", "mesh = \"atuo\"", "world.toml:4: unknown value \"atuo\"; did you mean \"auto\"?"),
];

#[test]
fn what_is_wrong_with_a_world_is_said_in_one_sentence() {
    parsed(GOOD);
    for (from, to, wanted) in BROKEN {
        assert!(GOOD.contains(from), "{from}");
        let error =
            World::parse("world.toml", &GOOD.replacen(from, to, 1)).unwrap_err().to_string();
        assert!(error.contains(wanted), "{from} -> {to}:\n got {error}\nwant {wanted}");
        assert!(error.starts_with("world.toml:"), "{error}");
    }
    let error = World::parse("empty.toml", "").unwrap_err().to_string();
    assert_eq!(error, "empty.toml: a world needs at least two [[pop]]");
}
