//! Clocks that are hours apart and drift change nothing.

use tradewind_simulator::overlay::{ClockError, FlowNumber, FlowSpec, Overlay, RelaySpec, pop};

use crate::world::{delay, ms, route, secs};

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
    assert_eq!(route(&skewed, "a", "b").unwrap_or_default(), ["a", "m", "b"]);
    assert_eq!(route(&skewed, "b", "a").unwrap_or_default(), ["b", "m", "a"]);
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
