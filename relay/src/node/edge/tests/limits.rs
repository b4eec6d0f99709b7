//! Whatever grows has a bound.

use super::*;

fn small() -> EdgeLimits {
    EdgeLimits { ingress_flows: 4, flows_per_tunnel: 3, egress_flows: 2, ..limits() }
}

#[test]
fn silent_flows_end_at_the_ingress_first() {
    let mut world = World::new();
    world.client_sends(1, "x");
    let flow = world.last_flow();
    world.wait(ms(100_000));
    world.service_sends(SGP, flow, "an answer counts too");
    world.take_out();
    world.wait(ms(179_999));
    assert_eq!((world.count(FRA), world.count(SGP)), (1, 1));
    world.wait(ms(1));
    assert_eq!((world.count(FRA), world.count(SGP)), (0, 1));
    world.wait(ms(30_000));
    assert_eq!(world.count(SGP), 0);
    assert_eq!(world.take_out(), [Out::Closed(SGP, flow)]);
    for edge in world.pops.values().map(|pop| &pop.edge) {
        assert_eq!(edge.poll_timeout(), Timestamp::NEVER);
    }
}

#[test]
fn a_flow_that_ends_at_its_ingress_ends_at_its_egress_too() {
    let mut world = World::with(small());
    world.client_sends(1, "x");
    let first = world.last_flow();
    world.take_out();
    world.wait(ms(180_000));
    world.settle();
    assert_eq!(world.take_out(), [Out::Closed(SGP, first)]);
    world.client_sends(1, "again");
    let second = world.last_flow();
    world.take_out();
    world.set_tunnel(tunnel_to("echo", Some(MAD)));
    world.settle();
    assert!(world.take_out().contains(&Out::Closed(SGP, second)));
    assert_eq!((world.count(FRA), world.count(SGP)), (0, 0));
}

#[test]
fn a_flow_that_its_egress_ended_to_make_room_goes_on_without_loss() {
    let mut world = World::with(EdgeLimits { ingress_flows: 9, flows_per_tunnel: 9, ..small() });
    world.client_sends(1, "x");
    let flow = world.last_flow();
    world.wait(ms(10_000));
    world.client_sends(2, "x");
    world.client_sends(3, "takes the place of 1");
    assert_eq!((world.count(SGP), world.pops[&SGP].edge.counters().evicted), (2, 1));
    world.take_out();
    world.wait(ms(10_000));
    world.client_sends(1, "back");
    assert!(world.take_out().contains(&Out::Service(SGP, flow, "back".into())));
    assert_eq!((world.flow_of(1).reset, world.flow_of(1).state), (0, FlowState::Open));
}

#[test]
fn expiry_is_the_same_at_the_beginning_of_time() {
    let mut world = World::new();
    world.now = Timestamp::ZERO;
    world.client_sends(1, "x");
    world.wait(ms(1_000));
    assert_eq!((world.count(FRA), world.count(SGP)), (1, 1));
}

#[test]
fn a_full_tunnel_takes_newcomers_only_in_place_of_silent_flows() {
    let mut world = World::with(EdgeLimits { egress_flows: 100, ..small() });
    for port in 1..=4 {
        world.client_sends(port, "x");
        world.wait(ms(1));
    }
    assert_eq!(world.count(FRA), 3);
    assert_eq!(world.dropped(FRA, DropReason::TooManyFlows), 1);
    world.wait(ms(9_997));
    world.client_sends(1, "still here");
    world.client_sends(5, "takes the place of 2");
    world.client_sends(6, "3 is not silent for long enough");
    let flows: Vec<_> = world.pops[&FRA].edge.flows(world.now).map(|flow| flow.end).collect();
    let expected = [1, 3, 5].map(|port| FlowEnd::Ingress { tunnel: TUNNEL, source: client(port) });
    assert_eq!(flows, expected);
    assert_eq!(world.pops[&FRA].edge.counters().evicted, 1);
}

#[test]
fn one_flooded_tunnel_leaves_room_for_another() {
    let mut world = World::with(EdgeLimits { egress_flows: 100, ..small() });
    let other = TunnelId(8);
    let specs = [TUNNEL, other].map(|id| (id, tunnel_to("echo", None)));
    let now = world.now;
    world.pop(FRA).edge.set_tunnels(specs.into(), now);
    for port in 0..10 {
        world.client_sends(port, "x");
    }
    let Pop { edge, map } = world.pop(FRA);
    for port in 0..3 {
        edge.handle_tunnel(other, 0, client(port), "x".into(), map, now);
    }
    assert_eq!(world.count(FRA), 4);
    assert_eq!(world.dropped(FRA, DropReason::TooManyFlows), 7 + 2);
}

#[test]
fn a_full_egress_refuses_newcomers_but_for_silent_flows() {
    for per_ingress in [2, 100] {
        let limits = EdgeLimits { ingress_flows: 9, flows_per_tunnel: 9, ..small() };
        let mut world = World::with(EdgeLimits { flows_per_ingress: per_ingress, ..limits });
        for port in 1..=3 {
            world.client_sends(port, "x");
        }
        assert_eq!(world.count(SGP), 2);
        let refused = FlowState::Refused {
            reason: tradewind_proto::packet::RefuseReason::TooManyFlows,
            until: world.now + ms(1_000),
        };
        let third = world.pops[&FRA].edge.flows(world.now).last().expect("three flows");
        assert_eq!(third.state, refused);
        world.take_out();
        world.wait(ms(10_000));
        world.client_sends(3, "now");
        assert!(matches!(world.take_out()[..], [Out::Closed(SGP, _), Out::Service(SGP, ..)]));
        assert_eq!(world.pops[&SGP].edge.counters().evicted, 1);
    }
}

#[test]
fn outputs_that_nobody_takes_are_bounded_and_no_packet_is_queued_in_part() {
    let mut world = World::with(EdgeLimits { outputs: 10, ..limits() });
    let now = world.now;
    let Pop { edge, map } = world.pop(FRA);
    for _ in 0..5 {
        edge.handle_tunnel(TUNNEL, 0, client(1), vec![0; 1_500].into(), map, now);
    }
    let mut outputs = 0;
    while edge.poll_output().is_some() {
        outputs += 1;
    }
    assert!(outputs <= 10 && outputs % 3 == 0, "{outputs} pieces of three each");
    assert_eq!(world.dropped(FRA, DropReason::Backlog) as usize, 5 - outputs / 3);
}

#[test]
fn flows_that_wait_for_fragments_are_bounded_and_give_up_in_time() {
    let mut world = World::with(EdgeLimits { reassembling_flows: 2, ..limits() });
    let mut kept = Vec::new();
    for port in 1..=3 {
        world.client_puts(port, vec![port as u8; 1_000]);
        let last = world.wire.pop_back().expect("several pieces");
        kept.push(last);
        world.settle();
    }
    assert_eq!(world.take_out(), []);
    assert_eq!(world.dropped(SGP, DropReason::ReassemblyFull), 1);
    let (header, payload) = kept.remove(0);
    world.arrive(header, payload);
    assert!(matches!(world.take_out()[..], [Out::Service(SGP, ..)]), "the first is complete");
    world.wait(ms(301));
    assert_eq!(world.dropped(SGP, DropReason::Incomplete), 1, "the second is given up");
    world.client_sends(3, vec![3; 1_000]);
    assert!(matches!(world.take_out()[..], [Out::Service(SGP, ..)]), "the third has room now");
}
