//! Two relays, the counters of their link, and that a seed decides everything.

use tradewind_simulator::link::{LinkSpec, Loss};
use tradewind_simulator::overlay::{FlowNumber, FlowSpec, Overlay};

use crate::world::{delay, ms, overlay, secs};

fn two_relays(seed: u64, spec: LinkSpec) -> (Overlay, FlowNumber) {
    let mut overlay = overlay(seed, &["a", "b"], &[("a", "b", spec)]);
    let flow = FlowSpec { echo: true, ..FlowSpec::new("a", "b") };
    let flow = overlay.flow(flow.between(secs(2), secs(5)));
    overlay.run_for(secs(8));
    (overlay, flow)
}

#[test]
fn packets_cross_one_link_and_answers_come_back() {
    let (overlay, flow) = two_relays(1, delay(20));
    let record = overlay.record(flow);
    assert_eq!(record.sent.len(), 600);
    assert_eq!((record.delivered.len(), record.answered.len()), (600, 600));
    let slowest = record.delivered.iter().map(|d| d.delay()).max();
    assert!(slowest < Some(ms(22)), "{slowest:?}");
    assert!(record.delivered.iter().all(|d| d.paths.len() == 1), "{:?}", record.delivered[0]);
}

#[test]
fn the_seed_decides() {
    let lossy = LinkSpec { loss: Loss::Independent(0.1), jitter: ms(1), ..delay(20) };
    let hash = |seed| two_relays(seed, lossy.clone()).0.trace_hash();
    assert_eq!(hash(1), hash(1));
    assert_ne!(hash(1), hash(2));
}
