//! Clocks that are hours apart and drift change nothing.

use std::time::Duration;

use tradewind_simulator::overlay::{ClockError, FlowNumber, FlowSpec, Overlay, RelaySpec, pop};

use crate::world::{delay, ms, secs};

const HOUR: i64 = 3_600_000_000;

fn ring(clocks: [ClockError; 4]) -> (Overlay, FlowNumber) {
    let mut overlay = Overlay::new(7);
    let names = ["a", "b", "m", "n"];
    for (name, clock) in names.into_iter().zip(clocks) {
        overlay.add(RelaySpec { clock, ..RelaySpec::new(pop(name)).dialling(["a"]) });
    }
    for (a, b, millis) in [
        ("a", "b", 60),
        ("a", "m", 15),
        ("m", "b", 16),
        ("a", "n", 20),
        ("n", "b", 22),
        ("m", "n", 9),
    ] {
        overlay.link_both(a, b, &delay(millis));
    }
    overlay.start_all();
    // The tightest deadline that the path allows: a budget that clocks could eat would be gone.
    let flow = FlowSpec { deadline: ms(60), echo: true, ..FlowSpec::new("a", "b") };
    let flow = overlay.flow(flow.between(secs(5), secs(125)));
    overlay.run_for(secs(126));
    (overlay, flow)
}

#[test]
fn an_hour_of_difference_and_50_ppm_of_drift_change_neither_routes_nor_budgets() {
    let error = |offset_micros, drift_ppm| ClockError { offset_micros, drift_ppm };
    let (straight, flow) = ring([ClockError::default(); 4]);
    let (skewed, same) =
        ring([error(HOUR, 50), error(-HOUR, -50), error(HOUR / 3, -50), error(0, 50)]);
    assert_eq!(skewed.route("a", "b").unwrap_or_default(), ["a", "m", "b"]);
    assert_eq!(skewed.route("b", "a").unwrap_or_default(), ["b", "m", "a"]);
    for (overlay, flow) in [(&straight, flow), (&skewed, same)] {
        let record = overlay.record(flow);
        assert_eq!(record.sent.len(), 24_000);
        assert_eq!(record.delivered.len(), 24_000);
        assert!(record.answered.len() >= 23_999, "{}", record.answered.len());
        let slow: Vec<_> = record.delivered.iter().filter(|d| d.delay() > ms(33)).collect();
        assert!(slow.is_empty(), "{:?}", (slow.len(), slow.first(), slow.last(), &record.routes));
        // The first packet may take another way, before `b` has routes; none moves later.
        let moves = record.routes.iter().filter(|(at, _)| *at > record.sent[0]).count();
        assert_eq!(moves, 0, "{:?}", record.routes);
    }
    let delay = |overlay: &Overlay| {
        let node = overlay.node("a").unwrap();
        let entry = node.tables().route(tradewind_proto::units::PolicyId::NONE, pop("b").key());
        entry.unwrap().primary.delay
    };
    let apart = delay(&straight).abs_diff(delay(&skewed));
    // What 100 ppm bend a delay before it is worth telling anew.
    assert!(apart < ms(5), "{:?} {:?}", delay(&straight), delay(&skewed));
}

/// What all links between relays that run are said to take, beside half of their round trip.
fn worst_delay_error(overlay: &Overlay, names: &[&str]) -> Duration {
    let node = overlay.node(names[0]).unwrap();
    let links = node.control().lsdb().members().flat_map(|member| member.links());
    let error = |delay_micros: i32, rtt: Duration| {
        let half = i64::try_from(rtt.as_micros() / 2).unwrap();
        Duration::from_micros((i64::from(delay_micros) - half).unsigned_abs())
    };
    links.map(|link| error(link.statement.delay_micros, link.statement.rtt)).max().unwrap()
}

#[test]
fn two_parts_of_an_overlay_that_find_each_other_agree_on_the_time() {
    let names = ["a", "b", "c", "d", "e", "f", "g"];
    // The larger part has the wrong time, or the smaller one; the part with the smallest key either.
    for (seed, split) in [(1, 3), (2, 4), (3, 2), (4, 5)] {
        let mut overlay = Overlay::new(seed);
        let (left, right) = names.split_at(split);
        for (i, name) in names.into_iter().enumerate() {
            let offset_micros = if i < split { -900_000 } else { 40_000 * i as i64 };
            let clock = ClockError { offset_micros, drift_ppm: 10 };
            overlay.add(RelaySpec { clock, ..RelaySpec::new(pop(name)).dialling(names) });
        }
        for (i, a) in names.iter().enumerate() {
            for b in &names[i + 1..] {
                let near = left.contains(a) == left.contains(b);
                overlay.link_both(a, b, &delay(if near { 2 } else { 60 }));
                overlay.set_both_up(a, b, near);
            }
        }
        overlay.start_all();
        overlay.run_for(secs(30));
        for (a, b) in left.iter().flat_map(|a| right.iter().map(move |b| (a, b))) {
            overlay.set_both_up(a, b, true);
        }
        let flow = FlowSpec { deadline: ms(200), ..FlowSpec::new("a", "g") };
        let flow = overlay.flow(flow.between(secs(55), secs(60)));
        overlay.run_for(secs(32));
        let record = overlay.record(flow);
        assert_eq!(record.delivered.len(), record.sent.len(), "{split} of 7");
        let error = worst_delay_error(&overlay, &names);
        assert!(error < ms(10), "{split} of 7: a link's delay is off by {error:?}");
    }
}
