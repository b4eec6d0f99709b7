//! What is taken, refused, stated and told.

use super::super::double::{Papers, at, colliding, id, key, link};
use super::*;

fn control() -> Control<Papers> {
    let mut control = Control::new(
        id("fra"),
        Incarnation(100),
        SelfDescription::default(),
        Metric::default(),
        Papers::of(&id("fra")),
        at(0),
    );
    outputs(&mut control);
    control
}

fn outputs(control: &mut Control<Papers>) -> Vec<ControlOutput> {
    std::iter::from_fn(|| control.poll_output()).collect()
}

fn told(outputs: &[ControlOutput], peer: &str) -> Vec<Message> {
    let told = outputs.iter().filter_map(|output| match output {
        ControlOutput::Tell(to, message) if *to == key(peer) => Some(message.clone()),
        _ => None,
    });
    told.collect()
}

fn statements(outputs: &[ControlOutput], peer: &str) -> Vec<SignedStatement> {
    let statements = told(outputs, peer).into_iter().filter_map(|message| match message {
        Message::Statement(signed) => Some(signed),
        _ => None,
    });
    statements.collect()
}

/// What a neighbour passed on.
fn hear(control: &mut Control<Papers>, signed: SignedStatement, millis: u64) {
    control.handle_statement(key("nyc"), signed, at(millis));
}

fn papers(name: &str) -> Papers {
    Papers::of(&id(name))
}

fn measured(rtt_ms: u64) -> Quality {
    let half = i64::try_from(rtt_ms * 500).unwrap();
    Quality {
        rtt: Some(Duration::from_millis(rtt_ms)),
        raw_delay_tx: Some(half),
        raw_delay_rx: Some(half),
        burst_tx: 1.0,
        ..Quality::default()
    }
}

fn measure(control: &mut Control<Papers>, links: &[(&str, Liveness, Quality)], millis: u64) {
    let measured = |&(to, liveness, quality): &(&str, Liveness, Quality)| Measured {
        to: key(to),
        liveness,
        quality,
        max_packet: 1402,
    };
    let links: Vec<_> = links.iter().map(measured).collect();
    control.handle_links(&links, at(millis));
}

#[test]
fn statements_are_taken_once_and_in_order() {
    let mut control = control();
    let sgp = papers("sgp");
    let taken = ControlCounters { statements_rx: 1, ..*control.counters() };
    hear(&mut control, sgp.full(1, 2, vec![link("nyc", 20)]), 10);
    assert_eq!(ControlCounters { computations: taken.computations, ..*control.counters() }, taken);
    assert_eq!(control.lsdb().member(key("sgp")).unwrap().links().count(), 1);
    for (name, signed) in [
        ("the same", sgp.full(1, 2, vec![])),
        ("older", sgp.full(1, 1, vec![])),
        ("of an older start", sgp.full(0, 9, vec![])),
        ("our own, as we said it", papers("fra").full(100, 1, vec![])),
        ("our own of an older start", papers("fra").full(99, 7, vec![])),
    ] {
        let stale = control.counters().stale;
        hear(&mut control, signed, 20);
        assert_eq!(control.counters().stale, stale + 1, "{name}");
    }
    hear(&mut control, sgp.delta(3, 2, vec![link("lon", 5)]), 30);
    assert_eq!(control.lsdb().member(key("sgp")).unwrap().links().count(), 2);
}

#[test]
fn statements_that_prove_nothing_are_dropped_and_counted() {
    let sgp = papers("sgp");
    let forge = |signed: SignedStatement| {
        let mut signature = *signed.signature();
        signature[35] ^= 1;
        SignedStatement::new(signed.body().clone(), signature)
    };
    let with_certificate = |certificate: &[u8]| {
        let certificate = Bytes::copy_from_slice(certificate);
        sgp.says(1, 5, Body::Full(NodeState { certificate, ..sgp.state(vec![]) }))
    };
    let expired = Papers { not_after: at(0).as_micros() / 1_000_000 - 1, ..sgp.clone() };
    for (name, signed) in [
        ("signature", forge(sgp.full(1, 5, vec![]))),
        ("another's certificate", with_certificate(&papers("lon").certificate())),
        ("certificate of another CA", with_certificate(b"?")),
        ("expired certificate", expired.full(1, 5, vec![])),
        ("delta of nobody known", sgp.delta(5, 4, vec![])),
    ] {
        let mut control = control();
        hear(&mut control, signed, 1000);
        assert_eq!(control.counters().forged, 1, "{name}");
        assert!(control.lsdb().member(key("sgp")).is_none(), "{name}");
        assert!(control.known.is_empty(), "{name}");
    }
    let mut control = control();
    hear(&mut control, sgp.full(1, 1, vec![]), 10);
    hear(&mut control, forge(sgp.delta(2, 1, vec![link("lon", 1)])), 20);
    hear(&mut control, forge(sgp.full(1, 3, vec![link("lon", 1)])), 30);
    assert_eq!(control.counters().forged, 2);
    assert!(control.lsdb().member(key("sgp")).unwrap().links().next().is_none());
    let garbage = SignedStatement::new(Bytes::from_static(b"?"), [0; 64]);
    hear(&mut control, garbage, 40);
    assert_eq!(control.counters().malformed, 1);
}

#[test]
fn a_certificate_that_expires_ends_what_its_holder_may_say() {
    let mut control = control();
    let sgp = Papers { not_after: at(10_000).as_micros() / 1_000_000, ..papers("sgp") };
    hear(&mut control, sgp.full(1, 1, vec![]), 9_000);
    hear(&mut control, sgp.full(1, 2, vec![link("lon", 5)]), 12_000);
    hear(&mut control, sgp.delta(3, 1, vec![link("lon", 5)]), 12_000);
    assert_eq!(control.counters().forged, 2);
    assert!(control.lsdb().member(key("sgp")).unwrap().links().next().is_none());
}

#[test]
fn a_delta_on_a_statement_that_is_not_held_is_dropped_and_counted() {
    let mut control = control();
    hear(&mut control, papers("sgp").full(1, 1, vec![]), 10);
    hear(&mut control, papers("sgp").delta(4, 3, vec![link("lon", 5)]), 20);
    assert_eq!(control.counters().unknown_base, 1);
    hear(&mut control, papers("sgp").full(1, 3, vec![]), 30);
    hear(&mut control, papers("sgp").delta(4, 3, vec![link("lon", 5)]), 40);
    assert_eq!(control.lsdb().member(key("sgp")).unwrap().links().count(), 1);
}

#[test]
fn a_colliding_name_changes_nothing_for_the_one_that_was_there() {
    let (one, other) = colliding();
    let mut control = control();
    hear(&mut control, Papers::of(&one).full(1, 1, vec![]), 10);
    hear(&mut control, Papers::of(&other).full(9, 1, vec![]), 20);
    assert_eq!(control.counters().collisions, 1);
    hear(&mut control, Papers::of(&one).delta(2, 1, vec![link("lon", 5)]), 30);
    assert_eq!(control.counters().forged, 0);
    let member = control.lsdb().member(one.key()).unwrap();
    assert_eq!((member.id(), member.links().count()), (&one, 1));
}

#[test]
fn a_later_start_of_our_own_name_replaces_us_if_it_is_proven() {
    let mut control = control();
    let signed = papers("fra").full(101, 1, vec![]);
    let mut signature = *signed.signature();
    signature[40] ^= 1;
    hear(&mut control, SignedStatement::new(signed.body().clone(), signature), 10);
    assert!(outputs(&mut control).is_empty());
    hear(&mut control, papers("fra").full(101, 1, vec![]), 10);
    let outputs = outputs(&mut control);
    assert!(matches!(outputs[..], [ControlOutput::Replaced(Incarnation(101))]), "{outputs:?}");
}

#[test]
fn another_relay_that_starts_anew_is_reported() {
    let mut control = control();
    hear(&mut control, papers("sgp").full(1, 7, vec![]), 10);
    outputs(&mut control);
    hear(&mut control, papers("sgp").full(2, 1, vec![]), 20);
    let restarted = |output: &ControlOutput| matches!(output, ControlOutput::Restarted(who, Incarnation(2)) if *who == key("sgp"));
    assert!(outputs(&mut control).iter().any(restarted));
}

#[test]
fn services_that_the_certificate_does_not_allow_are_left_out() {
    for (query, advertised) in [("", &["sfu", "web"][..]), ("?service=sfu", &["sfu"])] {
        let sgp = Papers { query, ..papers("sgp") };
        let service = |name: &str| ServiceStatement { name: name.parse().unwrap(), ports: 1 };
        let services = vec![service("sfu"), service("web")];
        let state = NodeState { services, ..sgp.state(vec![]) };
        let mut control = control();
        hear(&mut control, sgp.says(1, 1, Body::Full(state)), 10);
        let held = &control.lsdb().member(key("sgp")).unwrap().state().services;
        let names: Vec<_> = held.iter().map(|service| service.name.as_str()).collect();
        assert_eq!(names, advertised, "{query:?}");
    }
}

#[test]
fn a_new_neighbour_hears_of_us_first_and_then_what_we_hold() {
    let mut control = control();
    hear(&mut control, papers("sgp").full(1, 1, vec![]), 10);
    outputs(&mut control);
    control.handle_adjacent(key("nyc"), Cursor::default());
    let outputs = outputs(&mut control);
    let told = told(&outputs, "nyc");
    let [Message::Statement(own), Message::Digest(digest)] = &told[..] else {
        panic!("{told:?}");
    };
    assert_eq!(Statement::decode(own.body()).unwrap().origin, id("fra"));
    let mut origins: Vec<_> = digest.iter().map(|entry| entry.origin).collect();
    origins.sort();
    let mut expected = vec![key("fra"), key("sgp")];
    expected.sort();
    assert_eq!(origins, expected);
}

#[test]
fn a_hello_is_followed_by_nothing_that_was_told_before_it() {
    let mut control = control();
    let (told_so_far, introduction) = control.introduce();
    assert!(matches!(&introduction[..], [Message::Statement(_), Message::Digest(_)]));
    control.handle_adjacent(key("nyc"), told_so_far);
    assert!(outputs(&mut control).is_empty());

    let (told_so_far, _) = control.introduce();
    hear(&mut control, papers("sgp").full(1, 1, vec![]), 10);
    control.handle_adjacent(key("lon"), told_so_far);
    let told = told(&outputs(&mut control), "lon");
    let [Message::Digest(digest)] = &told[..] else { panic!("{told:?}") };
    assert_eq!(digest.iter().map(|entry| entry.origin).collect::<Vec<_>>(), [key("sgp")]);
}

#[test]
fn a_newcomer_is_presented_at_once_by_those_who_hear_of_it_from_itself() {
    let mut control = control();
    for neighbour in ["nyc", "lon", "sgp"] {
        control.handle_adjacent(key(neighbour), Cursor::default());
    }
    outputs(&mut control);
    let joined = papers("sgp").full(1, 1, vec![]);
    let restarted = papers("sgp").full(2, 1, vec![]);
    for news in [joined, restarted] {
        control.handle_statement(key("sgp"), news.clone(), at(10));
        let outputs = outputs(&mut control);
        assert_eq!(statements(&outputs, "nyc"), std::slice::from_ref(&news));
        assert_eq!(statements(&outputs, "lon"), std::slice::from_ref(&news));
        assert!(statements(&outputs, "sgp").is_empty());
    }
    // Not what a neighbour passed on, nor later statements: they wait for digests.
    hear(&mut control, papers("ams").full(1, 1, vec![]), 30);
    control.handle_statement(key("sgp"), papers("sgp").full(2, 2, vec![]), at(40));
    assert!(statements(&outputs(&mut control), "lon").is_empty());
}

#[test]
fn a_digest_gets_what_its_sender_lacks_once() {
    let mut control = control();
    hear(&mut control, papers("sgp").full(1, 1, vec![]), 10);
    control.handle_digest(key("lon"), &[]);
    assert!(told(&outputs(&mut control), "lon").is_empty(), "nobody we are connected to");
    control.handle_adjacent(key("lon"), Cursor::default());
    outputs(&mut control);
    let own = control.lsdb().member(key("fra")).unwrap();
    let (incarnation, full) = (own.incarnation(), own.full_seq());
    let entry = |origin, incarnation| DigestEntry { origin, incarnation, full, newest: full };
    let has = [entry(key("fra"), incarnation), entry(PopKey(77), Incarnation(3))];
    control.handle_digest(key("lon"), &has);
    let sent = statements(&outputs(&mut control), "lon");
    assert_eq!(sent, [papers("sgp").full(1, 1, vec![])]);
    control.handle_digest(key("lon"), &has);
    assert!(outputs(&mut control).is_empty());
    control.handle_lost(key("lon"));
    control.handle_digest(key("lon"), &[]);
    assert!(outputs(&mut control).is_empty());
}

#[test]
fn what_a_neighbour_passed_on_is_not_sent_back_to_it() {
    let mut control = control();
    control.handle_adjacent(key("nyc"), Cursor::default());
    hear(&mut control, papers("nyc").full(1, 1, vec![]), 10);
    outputs(&mut control);
    control.handle_digest(key("nyc"), &[]);
    let sent = statements(&outputs(&mut control), "nyc");
    assert!(!sent.contains(&papers("nyc").full(1, 1, vec![])), "{sent:?}");
}

#[test]
fn links_are_stated_once_measured_and_again_when_they_change() {
    let mut control = control();
    hear(&mut control, papers("nyc").full(1, 1, vec![]), 10);
    control.handle_adjacent(key("nyc"), Cursor::default());
    outputs(&mut control);
    let made = |control: &Control<Papers>| control.counters().statements_tx;
    let first = made(&control);
    measure(&mut control, &[("nyc", Liveness::Starting, Quality::default())], 600);
    assert_eq!(made(&control), first, "nothing was measured yet");
    measure(&mut control, &[("nyc", Liveness::Up, measured(40))], 700);
    assert_eq!(made(&control), first + 1);
    let sent = statements(&outputs(&mut control), "nyc");
    assert_eq!(sent.len(), 1, "told at once");
    for millis in (750..5_000).step_by(50) {
        measure(&mut control, &[("nyc", Liveness::Up, measured(40 + millis % 2))], millis);
    }
    assert_eq!(made(&control), first + 1, "nothing of note changed");
    measure(&mut control, &[("nyc", Liveness::Up, measured(80))], 5_000);
    assert_eq!(made(&control), first + 2, "slower");
    measure(&mut control, &[("nyc", Liveness::Down, measured(80))], 5_001);
    assert_eq!(made(&control), first + 3, "down, at once");
    assert!(!control.lsdb().member(key("fra")).unwrap().link(key("nyc")).unwrap().up);
}

#[test]
fn routes_are_computed_together_except_for_what_cant_wait() {
    let mut control = control();
    hear(&mut control, papers("sgp").full(1, 1, vec![link("lon", 5), link("nyc", 9)]), 10);
    let computed = |control: &Control<Papers>| control.counters().computations;
    let before = computed(&control);
    for seq in 2..30 {
        let delay = i32::try_from(seq).unwrap();
        hear(&mut control, papers("sgp").delta(seq, 1, vec![link("lon", delay)]), 20);
    }
    assert_eq!(computed(&control), before);
    measure(&mut control, &[], 50);
    assert_eq!(computed(&control), before + 1);
    let down = LinkStatement { up: false, ..link("lon", 5) };
    hear(&mut control, papers("sgp").delta(30, 1, vec![down]), 60);
    assert_eq!(computed(&control), before + 2);
    hear(&mut control, papers("lon").full(1, 1, vec![]), 70);
    assert_eq!(computed(&control), before + 3, "somebody joined");
}

#[test]
fn among_many_only_what_makes_a_route_in_use_clearly_worse_is_computed_at_the_next_measurement() {
    let nyc = papers("nyc");
    for (name, next, soon) in [
        ("better", link("sgp", 10), false),
        ("a little worse", link("sgp", 25), false),
        ("much worse", link("sgp", 60), true),
        ("a link not in use", link("fra", 60), false),
        ("a link to where there is a way", link("lon", 60), false),
        ("a link to where there was no way", link("tyo", 60), true),
    ] {
        let mut control = control();
        // 60 members: what is not pressing waits 300 ms.
        for nth in 0..55 {
            hear(&mut control, papers(&format!("far{nth}")).full(1, 1, vec![]), 10);
        }
        for member in ["lon", "tyo"] {
            hear(&mut control, papers(member).full(1, 1, vec![]), 10);
        }
        hear(&mut control, papers("sgp").full(1, 1, vec![link("lon", 5)]), 10);
        hear(&mut control, nyc.full(1, 1, vec![link("fra", 20), link("sgp", 20)]), 10);
        let own = [("nyc", Liveness::Up, measured(40))];
        for millis in (50..2_000).step_by(50) {
            measure(&mut control, &own, millis);
        }
        assert!(control.router().route(PolicyId::NONE, key("lon")).is_some());
        // Right after a computation.
        control.recompute(at(2_000));
        let before = control.counters().computations;
        hear(&mut control, nyc.delta(2, 1, vec![next]), 2_010);
        measure(&mut control, &own, 2_050);
        assert_eq!(control.counters().computations - before, u64::from(soon), "{name}");
        measure(&mut control, &own, 2_310);
        assert_eq!(control.counters().computations - before, 1, "{name}");
    }
}

#[test]
fn a_link_of_ours_that_goes_down_is_computed_at_once_though_no_route_is_over_it() {
    let mut control = control();
    for nth in 0..60 {
        hear(&mut control, papers(&format!("far{nth}")).full(1, 1, vec![]), 10);
    }
    hear(&mut control, papers("sgp").full(1, 1, vec![link("nyc", 1)]), 10);
    hear(&mut control, papers("nyc").full(1, 1, vec![link("sgp", 1)]), 10);
    // To nyc it is shorter over sgp.
    let own = |nyc| [("sgp", Liveness::Up, measured(10)), ("nyc", nyc, measured(200))];
    for millis in (50..4_000).step_by(50) {
        measure(&mut control, &own(Liveness::Up), millis);
    }
    let used = control.router().route(PolicyId::NONE, key("nyc")).unwrap().primary.path;
    assert_eq!(used.pops().len(), 3);
    control.recompute(at(4_000));
    let before = control.counters().computations;
    measure(&mut control, &own(Liveness::Down), 4_050);
    assert_eq!(control.counters().computations, before + 1);
}

#[test]
fn a_member_that_cries_wolf_costs_few_computations() {
    let mut control = control();
    let sgp = papers("sgp");
    hear(&mut control, sgp.full(1, 1, vec![link("lon", 5)]), 10);
    let start = control.counters().computations;
    // A statement each millisecond for a second: the link is down, up, down, ...
    for seq in 2..1_002 {
        let millis = 100 + u64::from(seq);
        control.handle_timeout(at(millis));
        let turned = LinkStatement { up: seq % 2 == 1, ..link("lon", 5) };
        hear(&mut control, sgp.delta(seq, 1, vec![turned]), millis);
        let computed = control.counters().computations - start;
        assert!(computed > 0, "the first is not made to wait");
        assert!(computed <= 1 + u64::from(seq) / 5, "{computed} after {seq} ms");
    }
    // The last word holds, a moment later.
    hear(&mut control, sgp.delta(1_002, 1, vec![]), 1_102);
    hear(
        &mut control,
        sgp.delta(1_003, 1, vec![LinkStatement { up: false, ..link("lon", 5) }]),
        1_102,
    );
    let due = control.poll_timeout();
    assert!(due <= at(1_102) + URGENT_GAP, "{due:?}");
    let before = control.counters().computations;
    control.handle_timeout(due);
    assert_eq!(control.counters().computations, before + 1);
    assert_eq!(control.poll_timeout(), Timestamp::NEVER, "nothing is left to do");
}

#[test]
fn neighbours_hear_once_a_second_what_changed() {
    let mut control = control();
    control.handle_adjacent(key("nyc"), Cursor::default());
    outputs(&mut control);
    hear(&mut control, papers("sgp").full(1, 1, vec![]), 500);
    outputs(&mut control);
    let mut digests = Vec::new();
    for millis in (550..2_600).step_by(50) {
        measure(&mut control, &[], millis);
        digests.extend(told(&outputs(&mut control), "nyc").into_iter().filter_map(|message| {
            let Message::Digest(digest) = message else { return None };
            Some((millis, digest.len()))
        }));
    }
    assert_eq!(digests, [(1000, 1), (2000, 0)]);
}
