//! What both ends of a link counted adds up, and agrees with what the link did.

use tradewind_simulator::link::{LinkSpec, Loss, Rate};
use tradewind_simulator::overlay::{FlowSpec, Overlay, pop};

use crate::world::{delay, ms, overlay, secs};

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

fn square(seed: u64, spec: &LinkSpec) -> Overlay {
    let mut links = Vec::new();
    for (i, a) in NAMES.into_iter().enumerate() {
        for (j, b) in NAMES.into_iter().enumerate().skip(i + 1) {
            let delay = spec.delay + ms((i * 3 + j) as u64);
            links.push((a, b, LinkSpec { delay, ..spec.clone() }));
        }
    }
    let mut overlay = overlay(seed, &NAMES, &links);
    for (from, to) in [("a", "b"), ("b", "c"), ("d", "a"), ("c", "d")] {
        let flow = FlowSpec { interval: ms(4), echo: true, ..FlowSpec::new(from, to) };
        overlay.flow(flow.between(secs(3), secs(6)));
    }
    overlay.run_for(secs(9));
    overlay
}

/// Every direction of every link.
fn assert_adds_up(overlay: &Overlay, what: &str) {
    for from in NAMES {
        for to in NAMES.into_iter().filter(|&to| to != from) {
            let counters = |at: &str, of: &str| {
                let node = overlay.node(at).unwrap();
                *node.neighbours().get(pop(of).key()).unwrap().line.link.counters()
            };
            let (tx, rx) = (counters(from, to), counters(to, from));
            let accounted = rx.data_first_rx + rx.repeated_rx + rx.decoded_rx + rx.lost_rx;
            assert_eq!(tx.data_tx, accounted, "{what}, {from} > {to}: {tx:?} {rx:?}");
            let carried = overlay.carried(from, to).unwrap();
            assert_eq!(tx.datagram_tx, carried.sent, "{what}, {from} > {to}: {carried:?}");
            // What came before the hello of its connection is held for it.
            let heard = carried.heard..=carried.heard + carried.unheard;
            assert!(heard.contains(&rx.datagram_rx), "{what}, {from} > {to}: {rx:?} {carried:?}");
            // At most what can be under way at the end: heartbeats.
            let arrived = carried.heard + carried.unheard + carried.dropped;
            assert!(arrived + 20 >= carried.sent && arrived <= carried.sent, "{carried:?}");
            let model = overlay.link_counters(from, to).unwrap();
            assert!(model.dropped() + model.corrupted >= carried.dropped, "{model:?} {carried:?}");
        }
    }
}

#[test]
fn both_ends_agree_after_two_quiet_seconds() {
    let rate = Some(Rate::with_default_queue(8_000_000));
    let cases = [
        ("clean", delay(10)),
        ("loss", LinkSpec { loss: Loss::Independent(0.1), ..delay(15) }),
        ("heavy loss", LinkSpec { loss: Loss::Independent(0.4), ..delay(15) }),
        ("bursts", LinkSpec { loss: Loss::in_bursts(0.05, 8.0).unwrap(), ..delay(20) }),
        ("outages", LinkSpec { loss: Loss::Outages { share: 0.05, mean: ms(30) }, ..delay(20) }),
        ("jitter", LinkSpec { jitter: ms(4), reorder: 0.05, duplicate: 0.02, ..delay(20) }),
        ("damage", LinkSpec { corrupt: 0.05, ..delay(12) }),
        ("narrow", LinkSpec { rate, loss: Loss::Independent(0.02), ..delay(10) }),
    ];
    for (name, spec) in cases {
        for seed in 0..2 {
            let overlay = square(seed, &spec);
            assert_adds_up(&overlay, &format!("{name}, seed {seed}"));
        }
    }
}
