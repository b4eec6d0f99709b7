//! What local programs and services see.

use super::*;

#[test]
fn the_first_packet_needs_no_set_up_and_the_extension_goes_once_acknowledged() {
    let mut world = World::new();
    world.client_puts(1, "one");
    world.client_puts(1, "two");
    assert!(world.wire.iter().all(|(header, _)| header.open.is_some()), "not acknowledged yet");
    assert_eq!(world.flow(FRA).state, FlowState::Opening);
    world.settle();
    world.client_puts(1, "three");
    assert!(world.wire.iter().all(|(header, _)| header.open.is_none()));
    assert_eq!(world.flow(FRA).state, FlowState::Open);
    world.settle();
    let flow = world.last_flow();
    let expected = ["one", "two", "three"].map(|text| Out::Service(SGP, flow, text.into()));
    assert_eq!(world.take_out(), expected);
    assert_eq!(world.pops[&SGP].edge.counters().signals_tx, 1, "one acceptance is enough");
}

#[test]
fn an_answer_acknowledges_too() {
    let mut world = World::new();
    world.client_puts(1, "one");
    let first = world.wire.pop_front().expect("a packet");
    world.arrive(first.0, first.1);
    world.wire.clear(); // the acceptance is lost
    let flow = world.last_flow();
    world.service_sends(SGP, flow, "answer");
    assert_eq!(world.flow(FRA).state, FlowState::Open);
}

#[test]
fn a_lost_acceptance_is_repeated_while_the_extension_keeps_coming() {
    let mut world = World::new();
    for expected in [1, 1, 2] {
        world.client_puts(1, "hello");
        while let Some((header, payload)) = world.wire.pop_front() {
            if !header.reverse {
                world.arrive(header, payload);
            }
        }
        assert_eq!(world.pops[&SGP].edge.counters().signals_tx, expected);
        world.wait(ms(10));
    }
}

#[test]
fn payloads_of_any_size_pass_byte_for_byte_both_ways() {
    let mut world = World::new();
    for len in [0, 1, 160, 500, 560, 600, 1_200, 1_316, 1_332, 1_472, 9_000, 65_507] {
        let payload = Bytes::from((0..len).map(|i| (i % 251) as u8).collect::<Vec<_>>());
        world.client_puts(1, payload.clone());
        for (header, payload) in &world.wire {
            let room = 8; // two hops of a detour
            assert!(header.encoded_len() + payload.len() + room <= MAX_PACKET);
        }
        world.settle();
        let flow = world.last_flow();
        assert_eq!(world.take_out(), [Out::Service(SGP, flow, payload.clone())], "{len}");
        world.service_sends(SGP, flow, payload.clone());
        assert_eq!(world.take_out(), [Out::Client(FRA, client(1), payload)], "{len}");
    }
    let (there, here) = (world.flow(SGP), world.flow(FRA));
    assert_eq!((there.packets_rx, there.bytes_rx), (here.packets_tx, here.bytes_tx));
    assert_eq!((here.packets_rx, here.bytes_rx), (there.packets_tx, there.bytes_tx));
    assert_eq!(here.packets_tx, 12);
}

/// The route to SGP, over which packets have at most so many bytes.
fn carrying(max_packet: usize) -> RouteEntry {
    let primary = Way { max_packet, ..way(&[FRA, VIA, SGP], 40) };
    RouteEntry { primary, ..entry(&[FRA, VIA, SGP], 40) }
}

#[test]
fn payloads_are_cut_to_what_the_route_of_the_moment_carries() {
    let mut world = World::new();
    let least = usize::from(tradewind_proto::statement::LEAST_PACKET);
    world.client_sends(1, "the egress knows the flow");
    for max_packet in [least, 1_402, 9_000, 600] {
        world.pop(FRA).map.entries.insert((PolicyId::NONE, SGP), carrying(max_packet));
        let whole = max_packet - 8 - 39; // a detour's hops, the header over three relays
        for (len, pieces) in [(whole, 1), (whole + 1, 2), (3 * whole, 3)] {
            world.client_puts(1, vec![7; len]);
            assert_eq!(world.wire.len(), pieces, "{len} bytes over {max_packet}");
            let sizes = world.wire.iter().map(|(header, part)| header.encoded_len() + part.len());
            assert!(sizes.max() <= Some(max_packet - 8));
            world.take_out();
            world.settle();
            assert!(
                matches!(&world.take_out()[..], [Out::Service(SGP, _, all)] if all.len() == len)
            );
        }
    }
}

#[test]
fn answers_over_a_way_that_nobody_knows_fit_any_link() {
    let mut world = World::new();
    world.client_sends(1, "x");
    let flow = world.last_flow();
    world.pop(SGP).map = Map::default();
    let now = world.now;
    let Pop { edge, map } = world.pop(SGP);
    edge.handle_egress(flow, vec![0; 1_300].into(), map, now);
    world.collect();
    let sizes = world.wire.iter().map(|(header, part)| header.encoded_len() + part.len() + 8);
    let sizes: Vec<_> = sizes.collect();
    assert!(sizes.len() == 2 && sizes.iter().all(|&size| size <= 1_150), "{sizes:?}");
}

#[test]
fn what_no_packet_can_carry_is_dropped() {
    let mut world = World::new();
    world.client_sends(1, vec![0; 65_508]);
    world.pop(FRA).map.entries.insert((PolicyId::NONE, SGP), carrying(60));
    world.client_sends(1, vec![0; 9_000]);
    assert_eq!(world.take_out(), []);
    assert_eq!(world.dropped(FRA, DropReason::TooLarge), 2);
    assert_eq!(world.flow(FRA).blocked, Some(DropReason::TooLarge));
}

#[test]
fn clients_of_one_tunnel_do_not_see_each_others_answers() {
    let mut world = World::new();
    world.client_sends(1, "from 1");
    let first = world.last_flow();
    world.client_sends(2, "from 2");
    let second = world.last_flow();
    assert_ne!(first, second);
    world.take_out();
    world.service_sends(SGP, second, "to 2");
    world.service_sends(SGP, first, "to 1");
    let expected = [(2, "to 2"), (1, "to 1")];
    assert_eq!(
        world.take_out(),
        expected.map(|(port, text)| Out::Client(FRA, client(port), text.into()))
    );
}

#[test]
fn ports_of_a_range_are_flows_of_their_own_and_go_to_the_same_port_of_the_service() {
    let mut world = World::new();
    world.set_tunnel(TunnelSpec { ports: 3, ..tunnel_to("echo", None) });
    world.pop(FRA).map.instances = vec![(SGP, 2)];
    world.pop(SGP).edge.set_services(vec![ServiceSpec { name: name("echo"), ports: 2 }]);
    let now = world.now;
    let mut ports = Vec::new();
    for offset in 0..4 {
        let Pop { edge, map } = world.pop(FRA);
        edge.handle_tunnel(TUNNEL, offset, client(1), "x".into(), map, now);
        world.collect();
        for (header, _) in std::mem::take(&mut world.wire) {
            ports.push(header.open.map(|open| open.port_offset));
        }
    }
    assert_eq!(ports, [Some(0), Some(1)]);
    assert_eq!(world.dropped(FRA, DropReason::PortOutOfRange), 1, "the service has two");
    assert_eq!(world.dropped(FRA, DropReason::UnknownTunnel), 1, "the tunnel has three");
}

#[test]
fn a_service_on_this_relay_is_reached_without_another() {
    for pop in [None, Some(FRA)] {
        let mut world = World::new();
        world.set_tunnel(tunnel_to("echo", pop));
        world.pop(FRA).map.instances.insert(0, (FRA, 1));
        world.pop(FRA).edge.set_services(vec![ServiceSpec { name: name("echo"), ports: 1 }]);
        world.client_puts(1, vec![5; 65_507]);
        assert_eq!(world.wire.len(), 1, "no link, no limit");
        assert!(world.wire.iter().all(|(header, _)| header.path == path(&[FRA])));
        world.settle();
        let flow = world.last_flow();
        world.service_sends(FRA, flow, "answer");
        let expected = [
            Out::Service(FRA, flow, vec![5; 65_507].into()),
            Out::Client(FRA, client(1), "answer".into()),
        ];
        assert_eq!(world.take_out(), expected);
        assert_eq!(world.count(FRA), 2, "both ends are here");
        world.client_sends(1, vec![5; 65_508]);
        assert_eq!(world.dropped(FRA, DropReason::TooLarge), 1, "UDP has one");
    }
}

#[test]
fn reloading_ends_the_flows_of_what_changed_and_no_others() {
    let mut world = World::new();
    world.client_sends(1, "x");
    let flow = world.last_flow();
    world.set_tunnel(tunnel_to("echo", None));
    assert_eq!(world.flow(FRA).id, flow, "unchanged");
    world.pop(SGP).edge.set_services(vec![ServiceSpec { name: name("echo"), ports: 4 }]);
    world.collect();
    assert_eq!(world.flow(SGP).id, flow, "unchanged");
    world.take_out();

    world.set_tunnel(TunnelSpec { class: Class::Audio, ..tunnel_to("echo", None) });
    assert_eq!(world.count(FRA), 0);
    world.settle();
    assert_eq!(world.take_out(), [Out::Closed(SGP, flow)]);
    world.client_sends(1, "y");
    assert_ne!(world.last_flow(), flow);
    assert_eq!(world.flow(FRA).class, Class::Audio);

    world.take_out();
    world.pop(SGP).edge.set_services(Vec::new());
    world.collect();
    assert_eq!(world.count(SGP), 0);
    assert!(matches!(world.take_out()[..], [Out::Closed(SGP, _)]));
    let now = world.now;
    world.pop(FRA).edge.set_tunnels(BTreeMap::new(), now);
    assert_eq!(world.count(FRA), 0);
    world.client_sends(1, "z");
    assert_eq!(world.dropped(FRA, DropReason::UnknownTunnel), 1);
}
