//! Tradewind: the daemon's own relays in a row, whole, in virtual time.
//!
//! The flow enters at a tunnel of the first and leaves at a service of the last; every packet is
//! judged from its entering the tunnel. Each phase is a flow of its own. Relays join over clean links:
//! where half of a handshake's packets are lost, a link falls back to the smallest MTU, and packets of
//! 1,200 bytes are cut in two ever after.

use std::time::Duration;

use anyhow::Context;
use tradewind_relay::node::Mesh;
use tradewind_simulator::link::LinkSpec;
use tradewind_simulator::overlay::{FlowSpec, Overlay, RelaySpec, START, Watch, pop};

use crate::figures::{Phase, Spent};
use crate::scenario::Scenario;

/// How long relays may take until the flow has a route.
const READY_WITHIN: Duration = Duration::from_secs(20);
/// What then comes before the flow.
const WARMUP: Duration = Duration::from_secs(1);
/// Links change just before the first packet of a phase.
const JUST_BEFORE: Duration = Duration::from_micros(1);

/// Runs a scenario and gives the phases.
pub fn run(scenario: &Scenario, seed: u64) -> anyhow::Result<Vec<Phase>> {
    let first = scenario.phases.first().context("a scenario without phases")?;
    let mut overlay = overlay(scenario, seed);
    let spec = LinkSpec::with_delay(scenario.one_way());
    set(&mut overlay, scenario, &spec);
    overlay.start_all();
    let (from, to) = (name(0), name(scenario.hops));
    let ready = overlay.run_while_not(READY_WITHIN, |overlay| overlay.route(&from, &to).is_some());
    ready.context("no route")?;
    set(&mut overlay, scenario, &LinkSpec { loss: first.loss.model()?, ..spec.clone() });
    overlay.run_for(WARMUP);

    let mut start = overlay.now().since(START) + JUST_BEFORE;
    let mut phases = Vec::new();
    for phase in &scenario.phases {
        set(&mut overlay, scenario, &LinkSpec { loss: phase.loss.model()?, ..spec.clone() });
        let stop = start + scenario.span(phase.packets);
        let flow = overlay.flow(FlowSpec {
            size: scenario.payload,
            interval: scenario.span(1),
            class: scenario.class,
            deadline: scenario.deadline(),
            watch: Watch::Figures,
            ..FlowSpec::new(&from, &to).between(start, stop)
        });
        let before = spent(&overlay, scenario).context("a link is gone")?;
        overlay.run_until(START + stop.saturating_sub(JUST_BEFORE));
        let after = spent(&overlay, scenario).context("a link is gone")?;
        phases.push((flow, after.since(&before)));
        start = stop;
    }
    // What is under way for the last packets is as much as it was for those before the first.
    overlay.run_for(scenario.deadline() * 2);
    let phase = |(flow, spent)| {
        let flow = overlay.report(flow).context("a flow without figures")?;
        Ok(Phase { flow, spent })
    };
    phases.into_iter().map(phase).collect()
}

/// The relays, not started yet and without links.
fn overlay(scenario: &Scenario, seed: u64) -> Overlay {
    let mut overlay = Overlay::new(seed);
    for at in 0..=scenario.hops {
        let relay = RelaySpec { mesh: Mesh::Peers, ..RelaySpec::new(pop(&name(at))) };
        let before = at.checked_sub(1).map(name);
        overlay.add(relay.dialling(before.as_deref()));
    }
    overlay
}

fn name(at: usize) -> String {
    format!("p{at}")
}

fn set(overlay: &mut Overlay, scenario: &Scenario, spec: &LinkSpec) {
    for hop in 0..scenario.hops {
        overlay.link_both(&name(hop), &name(hop + 1), spec);
    }
}

/// Of shards the nodes' own counters; of bytes all that the links carried.
fn spent(overlay: &Overlay, scenario: &Scenario) -> Option<Spent> {
    let mut spent = Spent::default();
    for hop in 0..scenario.hops {
        let (near, far) = (name(hop), name(hop + 1));
        let neighbour = overlay.node(&near)?.neighbours().get(pop(&far).key())?;
        let counters = neighbour.line.link.counters();
        let more = counters.parity_tx + counters.repeat_tx;
        spent.shards.push((counters.data_tx, counters.data_tx + more));
        for (way, (from, to)) in [(&near, &far), (&far, &near)].into_iter().enumerate() {
            spent.wire[way] += overlay.link_counters(from, to)?.offered_bytes;
        }
    }
    Some(spent)
}
