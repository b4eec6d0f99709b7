//! Flows that an end has forgotten, refuses, or that move to another instance.

use tradewind_proto::packet::{Fragment, RefuseReason};
use tradewind_proto::units::FlowSeq;

use super::*;

impl World {
    /// A signal from SGP reaches FRA.
    fn signal(&mut self, flow: FlowId, signal: Signal) {
        let header = Header {
            kind: PacketKind::Signal,
            class: Class::Video,
            reverse: true,
            key_epoch: 0,
            policy: PolicyId::NONE,
            flow,
            seq: FlowSeq(0),
            fragment: Fragment::WHOLE,
            sent_at: self.now.wire(),
            budget: Default::default(),
            path: path(&[SGP, VIA, FRA]),
            open: None,
        };
        let mut payload = Vec::new();
        signal.encode(&mut payload);
        self.arrive(header, payload.into());
    }
}

#[test]
fn an_egress_that_restarted_has_the_flow_opened_anew() {
    let mut world = World::new();
    for _ in 0..5 {
        world.client_sends(1, "x");
    }
    let old = world.last_flow();
    world.restart(SGP);
    world.take_out();
    world.client_sends(1, "lost");
    assert_eq!(world.take_out(), []);
    assert_eq!(world.dropped(SGP, DropReason::UnknownFlow), 1);
    world.client_sends(1, "arrives");
    let new = world.last_flow();
    assert_ne!(old, new, "numbers of the new flow don't mix with the old");
    world.service_sends(SGP, new, "answer");
    let expected =
        [Out::Service(SGP, new, "arrives".into()), Out::Client(FRA, client(1), "answer".into())];
    assert_eq!(world.take_out(), expected);
    assert_eq!((world.flow(FRA).reset, world.flow(FRA).id), (1, new));
}

#[test]
fn resets_are_sent_once_in_a_while_and_late_ones_do_nothing() {
    let mut world = World::new();
    world.client_sends(1, "x");
    world.restart(SGP);
    for _ in 0..10 {
        world.client_puts(1, "lost");
    }
    world.settle();
    let counters = world.pops[&SGP].edge.counters();
    assert_eq!((counters.signals_tx, counters.signals_held), (1, 9));
    world.client_sends(1, "arrives");
    let flow = world.flow(FRA);
    world.signal(FlowId { number: 0, ..flow.id }, Signal::Reset); // of the old number
    world.settle();
    assert_eq!(world.flow(FRA), flow);
}

#[test]
fn an_ingress_that_forgot_a_flow_has_its_socket_closed() {
    let mut world = World::new();
    world.client_sends(1, "x");
    let flow = world.last_flow();
    world.restart(FRA);
    world.take_out();
    world.service_sends(SGP, flow, "to nobody");
    assert_eq!(world.take_out(), [Out::Closed(SGP, flow)]);
    assert_eq!((world.count(FRA), world.count(SGP)), (0, 0));
    world.service_sends(SGP, flow, "too late");
    assert_eq!(world.dropped(SGP, DropReason::UnknownFlow), 1);
}

#[test]
fn flows_of_earlier_starts_of_an_ingress_end_at_once() {
    let mut world = World::new();
    world.client_sends(1, "x");
    let flow = world.last_flow();
    world.take_out();
    for (ingress, incarnation, expected) in
        [(FRA, 1, vec![]), (MAD, 2, vec![]), (FRA, 2, vec![Out::Closed(SGP, flow)])]
    {
        world.pop(SGP).edge.handle_restart(ingress, Incarnation(incarnation));
        world.collect();
        assert_eq!(world.take_out(), expected);
    }
}

#[test]
fn a_refused_flow_waits_and_tries_again() {
    let mut world = World::new();
    world.pop(SGP).edge.set_services(Vec::new());
    world.client_sends(1, "refused");
    world.client_sends(1, "held back");
    let FlowState::Refused { reason, until } = world.flow(FRA).state else {
        panic!("the flow should be refused");
    };
    assert_eq!(until, world.now + ms(1_000));
    assert_eq!(reason, RefuseReason::UnknownService);
    assert_eq!(world.flow(FRA).blocked, Some(DropReason::Refused));
    assert_eq!(world.pops[&FRA].edge.counters().refusals_rx, 1);
    assert_eq!(world.pops[&SGP].edge.counters().overlay_rx, 1, "nothing was sent meanwhile");
    world.pop(SGP).edge.set_services(vec![ServiceSpec { name: name("echo"), ports: 1 }]);
    world.wait(ms(999));
    world.client_sends(1, "held back");
    assert_eq!(world.take_out(), []);
    world.wait(ms(1));
    world.client_sends(1, "served");
    assert!(matches!(world.take_out()[..], [Out::Service(SGP, ..)]));
    assert_eq!(world.flow(FRA).state, FlowState::Open);
}

#[test]
fn a_refusal_that_comes_after_the_acceptance_changes_nothing() {
    let mut world = World::new();
    world.client_sends(1, "x");
    let flow = world.last_flow();
    world.signal(flow, Signal::Refuse(RefuseReason::TooManyFlows));
    assert_eq!(world.flow(FRA).state, FlowState::Open);
}

#[test]
fn pings_are_not_for_the_edge() {
    let mut world = World::new();
    world.client_sends(1, "x");
    let (flow, before) = (world.last_flow(), *world.pops[&FRA].edge.counters());
    let sent_at = world.now.wire();
    world.signal(flow, Signal::Ping { id: 1, sent_at });
    world.signal(flow, Signal::Pong { id: 1, sent_at, received_at: sent_at });
    assert_eq!(*world.pops[&FRA].edge.counters(), before);
    assert!(world.wire.is_empty());
}

#[test]
fn after_a_refusal_another_instance_may_take_the_flow() {
    let mut world = World::new();
    world.pop(SGP).edge.set_draining(true);
    world.client_sends(1, "refused");
    world.pop(FRA).map.instances.swap(0, 1); // the tables leave draining relays out, in time
    world.wait(ms(1_000));
    world.client_sends(1, "served");
    assert!(matches!(world.take_out()[..], [Out::Service(MAD, ..)]));
}

#[test]
fn a_draining_relay_keeps_the_flows_it_has() {
    let mut world = World::new();
    world.client_sends(1, "x");
    world.pop(SGP).edge.set_draining(true);
    world.client_sends(1, "y");
    let flow = world.last_flow();
    world.client_sends(2, "refused");
    let expected = ["x", "y"].map(|text| Out::Service(SGP, flow, text.into()));
    assert_eq!(world.take_out(), expected);
}

#[test]
fn a_flow_stays_with_its_instance_while_that_is_up_and_moves_when_it_is_not() {
    let mut world = World::new();
    world.client_sends(1, "x");
    let first = world.last_flow();
    world.service_sends(SGP, first, "a");
    world.pop(FRA).map.instances.swap(0, 1);
    world.client_sends(1, "y");
    assert_eq!(world.last_flow(), first, "another one is nearer now, and that is no reason");
    assert_eq!(world.pops[&FRA].edge.flows_by_peer(), [(SGP, 1)].into());
    world.pop(FRA).map.instances = vec![(MAD, 1)];
    world.take_out();
    world.client_sends(1, "z");
    let second = world.last_flow();
    world.service_sends(MAD, second, "b");
    let expected = [Out::Service(MAD, second, "z".into()), Out::Client(FRA, client(1), "b".into())];
    assert_eq!(world.take_out(), expected);
    assert_ne!(first, second);
    assert_eq!((world.flow(FRA).reopened, world.pops[&FRA].edge.counters().reopened), (1, 1));
    for (at, peer) in [(FRA, MAD), (MAD, FRA)] {
        assert_eq!(world.pops[&at].edge.flows_by_peer(), [(peer, 1)].into());
    }
    world.service_sends(SGP, first, "the old instance");
    assert_eq!(world.take_out(), [Out::Closed(SGP, first)], "is told that the flow is over");
}

#[test]
fn without_an_instance_packets_are_dropped_until_there_is_one() {
    let mut world = World::new();
    world.client_sends(1, "x");
    let flow = world.last_flow();
    let instances = std::mem::take(&mut world.pop(FRA).map.instances);
    world.take_out();
    world.client_sends(1, "lost");
    assert_eq!(world.flow(FRA).blocked, Some(DropReason::NoInstance));
    world.pop(FRA).map.instances = instances;
    world.client_sends(1, "back");
    assert_eq!(world.take_out(), [Out::Service(SGP, flow, "back".into())]);
}

#[test]
fn a_flow_to_one_pop_never_moves() {
    let mut world = World::new();
    world.set_tunnel(tunnel_to("echo", Some(MAD)));
    world.client_sends(1, "x");
    assert!(matches!(world.take_out()[..], [Out::Service(MAD, ..)]));
    world.pop(FRA).map.instances = vec![(SGP, 1)];
    world.pop(FRA).map.entries.remove(&(PolicyId::NONE, MAD));
    world.client_sends(1, "y");
    assert_eq!(world.take_out(), []);
    assert_eq!(world.flow(FRA).blocked, Some(DropReason::NoRoute));
}

#[test]
fn strangers_and_strays_are_dropped() {
    let mut world = World::new();
    world.client_puts(1, "x");
    let (there, payload) = world.wire[0].clone();
    world.settle();
    let flow = world.last_flow();
    world.take_out();
    let end = |pops: &[PopKey]| Path::at(pops, pops.len() - 1).expect("a valid path");
    let mut give = |at: PopKey, header: Header, payload: Bytes| {
        let now = world.now;
        let Pop { edge, map } = world.pop(at);
        edge.handle_packet(header, payload, map, now);
        world.collect();
        world.wire.clear();
        assert_eq!(world.take_out(), []);
    };
    let not_there = Path::at(&[FRA, SGP, MAD], 1).expect("a valid path");
    // Not at the end of its path, at the wrong relay, with a flow of somebody else's.
    give(SGP, Header { path: not_there, ..there.clone() }, payload.clone());
    give(SGP, Header { path: end(&[FRA, MAD]), ..there.clone() }, payload.clone());
    give(SGP, Header { path: end(&[MAD, SGP]), ..there.clone() }, payload.clone());
    // An answer from a relay that the flow does not lead to.
    let back = Header { reverse: true, open: None, path: end(&[MAD, FRA]), ..there.clone() };
    give(FRA, back.clone(), payload.clone());
    // Signals that nobody can read, or that go the wrong way.
    let signal = Header { kind: PacketKind::Signal, path: end(&[SGP, FRA]), ..back };
    give(FRA, signal, "???".into());
    let signal = Header { kind: PacketKind::Signal, path: end(&[FRA, SGP]), ..there };
    give(SGP, signal, "???".into());
    assert_eq!(world.dropped(SGP, DropReason::Misrouted), 3);
    assert_eq!(world.dropped(FRA, DropReason::Misrouted), 1);
    assert_eq!(world.dropped(FRA, DropReason::BadSignal), 1);
    assert_eq!(world.dropped(SGP, DropReason::BadSignal), 1);
    assert_eq!(world.flow(SGP).id, flow);
}
