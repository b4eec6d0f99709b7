//! Which way packets take, where they may not go, and how long they have.

use super::*;

const RULE: PolicyId = PolicyId(77);

fn ruled() -> TunnelSpec {
    TunnelSpec { policy: RULE, ..tunnel_to("echo", None) }
}

/// The same routes under `RULE` as without a policy.
fn learn(world: &mut World, at: PopKey) {
    let map = &mut world.pop(at).map;
    map.policies.insert(RULE);
    let under = map.entries.iter().map(|((_, to), entry)| ((RULE, *to), entry.clone()));
    map.entries.extend(under.collect::<Vec<_>>());
}

#[test]
fn the_egress_keeps_its_identity_when_the_route_changes() {
    let mut world = World::new();
    world.client_sends(1, "x");
    let flow = world.last_flow();
    world.pop(FRA).map.entries.insert((PolicyId::NONE, SGP), entry(&[FRA, SGP], 30));
    world.client_sends(1, "y");
    assert_eq!(world.last_flow(), flow);
    assert_eq!(world.flow(FRA).path_tx, Some(path(&[FRA, SGP])));
}

#[test]
fn the_paths_of_arrivals_are_recorded_and_bounded() {
    let mut world = World::new();
    for via in 0..20 {
        let route = entry(&[FRA, PopKey(100 + via), SGP], 30);
        world.pop(FRA).map.entries.insert((PolicyId::NONE, SGP), route);
        world.wait(ms(1));
        world.client_sends(1, "x");
        world.client_sends(1, "x");
        let recorded = world.flow(SGP).paths_rx;
        let latest = recorded.iter().max_by_key(|path| path.last_at).expect("a path");
        assert_eq!(latest.path.pops(), [FRA, PopKey(100 + via), SGP]);
        assert_eq!(latest.packets, 2);
        assert!(recorded.len() <= MAX_RECORDED_PATHS);
    }
    assert_eq!(world.flow(FRA).paths_rx.len(), 1, "the way back did not change");
}

#[test]
fn a_deadline_that_no_packet_could_meet_is_stretched() {
    for (delay, expected) in [(40, 300), (275, 300), (276, 301), (900, 925)] {
        let mut world = World::new();
        world.pop(FRA).map.entries.insert((PolicyId::NONE, SGP), entry(&[FRA, SGP], delay));
        world.client_puts(1, "x");
        assert_eq!(world.wire[0].0.budget.span(), ms(expected));
        let open = world.wire[0].0.open.clone().expect("the first packet opens");
        assert_eq!(open.deadline, ms(300), "the egress judges for itself");
        let flow = world.flow(FRA);
        assert_eq!(flow.deadline_used, ms(expected));
        let warning = FlowWarning::DeadlineStretched { configured: ms(300), used: ms(expected) };
        assert_eq!(flow.warnings.contains(&warning), expected > 300);
    }
}

#[test]
fn a_queue_that_comes_over_a_path_stretches_no_deadline_unless_it_stands() {
    let mut world = World::new();
    let mut used_at = |at: u64, via: u32, delay: u64| {
        let path = entry(&[FRA, PopKey(via), SGP], delay);
        world.pop(FRA).map.entries.insert((PolicyId::NONE, SGP), path);
        world.now = START + ms(at);
        world.client_puts(1, "x");
        world.flow(FRA).deadline_used
    };
    assert_eq!(used_at(0, 50, 40), ms(300));
    assert_eq!(used_at(10, 50, 500), ms(300));
    assert_eq!(used_at(4_900, 50, 500), ms(300));
    assert_eq!(used_at(4_950, 50, 40), ms(300), "it has gone");
    assert_eq!(used_at(5_100, 50, 500), ms(300));
    assert_eq!(used_at(10_100, 50, 500), ms(525), "it stands");
    assert_eq!(used_at(10_200, 51, 600), ms(625), "another path may be longer");
}

fn disjoint() -> TunnelSpec {
    TunnelSpec { redundancy: Redundancy::Disjoint, ..tunnel_to("echo", None) }
}

fn pair_up(world: &mut World, pair: Pairing) {
    let entry = RouteEntry { pair, ..entry(&[FRA, SGP], 400) };
    world.pop(FRA).map.entries.insert((PolicyId::NONE, SGP), entry);
}

#[test]
fn a_pair_is_asked_for_at_both_ends_once_a_second_until_it_was_looked_for() {
    let mut world = World::new();
    world.set_tunnel(disjoint());
    let wanted = |world: &mut World| {
        let wishes = |out: &Out| matches!(out, Out::PairWanted(..));
        world.take_out().into_iter().filter(wishes).collect::<Vec<_>>()
    };
    let both = [Out::PairWanted(FRA, SGP), Out::PairWanted(SGP, FRA)];
    for (after, expected) in [(0, &both[..]), (600, &[]), (500, &both)] {
        world.wait(ms(after));
        world.client_sends(1, "x");
        let flow = world.last_flow();
        world.service_sends(SGP, flow, "y");
        assert_eq!(wanted(&mut world), expected);
    }
    assert_eq!(world.flow(FRA).warnings, [], "nobody knows yet");
    pair_up(&mut world, Pairing::Impossible);
    world.wait(ms(2_000));
    world.client_puts(1, "x");
    assert_eq!(
        world.flow(FRA).warnings,
        [
            FlowWarning::DeadlineStretched { configured: ms(300), used: ms(425) },
            FlowWarning::NoPair
        ]
    );
    assert_eq!(wanted(&mut world), [], "the router keeps looking");
}

#[test]
fn both_copies_are_cut_to_what_the_smaller_way_carries_so_that_pieces_mix() {
    for (a, b) in [(600, 300), (300, 600)] {
        let mut world = World::new();
        world.set_tunnel(disjoint());
        let near = Way { max_packet: a, ..way(&[FRA, VIA, SGP], 40) };
        let far = Way { max_packet: b, ..way(&[FRA, WIA, MAD, SGP], 50) };
        pair_up(&mut world, Pairing::Pair(near, far));
        world.client_puts(1, vec![9; 1_000]);
        let pieces = world.wire.len() / 2;
        assert!(world.wire.iter().all(|(h, part)| h.encoded_len() + part.len() + 8 <= 300));
        // Of each piece another copy is lost.
        let mut lost = 0;
        let wire = std::mem::take(&mut world.wire).into_iter().filter(|(header, _)| {
            let near = header.path.pops().len() == 3;
            let lose = near == (header.fragment.index % 2 == 0);
            lost += usize::from(lose);
            !lose
        });
        world.wire = wire.collect();
        assert!(pieces > 3 && world.wire.len() == pieces && lost == pieces);
        world.settle();
        assert!(
            matches!(&world.take_out()[..], [.., Out::Service(SGP, _, all)] if all.len() == 1_000)
        );
    }
}

#[test]
fn disjoint_flows_travel_twice_and_arrive_once() {
    let mut world = World::new();
    world.set_tunnel(disjoint());
    let long = way(&[FRA, WIA, VIA, MAD, SGP], 420);
    pair_up(&mut world, Pairing::Pair(way(&[FRA, VIA, SGP], 500), long));
    let back = RouteEntry { pair: Pairing::Impossible, ..entry(&[SGP, FRA], 40) };
    world.pop(SGP).map.entries.insert((PolicyId::NONE, FRA), back);
    for len in (MAX_PACKET - 110..MAX_PACKET - 40).chain([5, 2_000]) {
        world.take_out();
        world.client_puts(1, vec![1; len]);
        let (long, short): (Vec<_>, Vec<_>) =
            world.wire.iter().partition(|(header, _)| header.path.pops().len() == 5);
        assert!(!long.is_empty() && long.len() == short.len());
        for (header, payload) in &world.wire {
            assert!(header.encoded_len() + payload.len() + 8 <= MAX_PACKET);
            assert_eq!(header.budget.span(), ms(445), "by the faster of the two");
        }
        world.settle();
        let flow = world.last_flow();
        assert_eq!(world.take_out(), [Out::Service(SGP, flow, vec![1; len].into())]);
    }
    assert!(world.dropped(SGP, DropReason::Duplicate) >= 3);
    assert!(!world.flow(FRA).warnings.contains(&FlowWarning::NoPair));
    assert_eq!(world.flow(SGP).redundancy, Redundancy::Disjoint, "for the way back");
}

#[test]
fn routes_are_asked_for_before_the_first_packet_and_once_a_second_while_they_miss() {
    let mut world = World::new();
    world.set_tunnel(ruled());
    assert_eq!(world.take_out(), [Out::Wanted(FRA, RULE)]);
    for (after, expected) in [(500, vec![]), (600, vec![Out::Wanted(FRA, RULE)])] {
        world.wait(ms(after));
        world.client_sends(1, "x");
        world.client_sends(1, "x");
        assert_eq!(world.take_out(), expected);
        assert_eq!(world.flow(FRA).blocked, Some(DropReason::RoutesPending));
    }
    assert_eq!(world.dropped(FRA, DropReason::RoutesPending), 4);
    learn(&mut world, FRA);
    world.client_sends(1, "y");
    assert!(matches!(world.take_out()[0], Out::Service(SGP, ..)), "resumes by itself");
    assert_eq!(world.flow(FRA).blocked, None);
}

#[test]
fn wishes_for_routes_are_bounded() {
    let mut world = World::new();
    for rule in 1..=200 {
        world.set_tunnel(TunnelSpec { policy: PolicyId(rule), ..tunnel_to("echo", None) });
    }
    let wanted = world.take_out().len();
    assert!((60..=64).contains(&wanted), "{wanted}");
    assert!(world.pops[&FRA].edge.counters().wishes_held > 100);
    world.wait(ms(1_000));
    world.set_tunnel(ruled());
    assert_eq!(world.take_out(), [Out::Wanted(FRA, RULE)], "the old ones made room");
}

#[test]
fn an_egress_without_routes_answers_over_the_relays_that_the_policy_allowed() {
    let mut world = World::new();
    world.set_tunnel(ruled());
    learn(&mut world, FRA);
    let route = entry(&[FRA, WIA, SGP], 30);
    world.pop(FRA).map.entries.insert((RULE, SGP), route);
    world.client_sends(1, "x");
    assert!(world.take_out().contains(&Out::Wanted(SGP, RULE)));
    let flow = world.flow(SGP);
    assert_eq!(flow.path_tx, Some(path(&[SGP, WIA, FRA])), "not over VIA");
    learn(&mut world, SGP);
    world.service_sends(SGP, flow.id, "answer");
    assert_eq!(world.flow(SGP).path_tx, Some(path(&[SGP, VIA, FRA])), "its own routes");
}

#[test]
fn a_policy_that_leaves_no_way_fails_closed_and_resumes() {
    let mut world = World::new();
    world.set_tunnel(ruled());
    learn(&mut world, FRA);
    learn(&mut world, SGP);
    world.client_sends(1, "x");
    let flow = world.last_flow();
    world.take_out();
    let back = world.pop(SGP).map.entries.remove(&(RULE, FRA)).expect("a route");
    world.service_sends(SGP, flow, "lost");
    assert_eq!(world.flow(SGP).blocked, Some(DropReason::NoRoute));
    let there = world.pop(FRA).map.entries.remove(&(RULE, SGP)).expect("a route");
    world.client_sends(1, "lost");
    assert_eq!(world.flow(FRA).drops.of(DropReason::NoRoute), 1);
    assert_eq!(world.take_out(), []);
    world.pop(SGP).map.entries.insert((RULE, FRA), back);
    world.pop(FRA).map.entries.insert((RULE, SGP), there);
    world.client_sends(1, "there");
    world.service_sends(SGP, flow, "back");
    let expected =
        [Out::Service(SGP, flow, "there".into()), Out::Client(FRA, client(1), "back".into())];
    assert_eq!(world.take_out(), expected);
}

#[test]
fn answers_have_the_class_deadline_and_policy_of_the_flow() {
    let mut world = World::new();
    world.set_tunnel(TunnelSpec { class: Class::Audio, deadline: ms(123), ..ruled() });
    learn(&mut world, FRA);
    world.client_sends(1, "x");
    let flow = world.last_flow();
    let now = world.now;
    let Pop { edge, map } = world.pop(SGP);
    edge.handle_egress(flow, "answer".into(), map, now);
    world.collect();
    let header = &world.wire[0].0;
    assert_eq!((header.class, header.budget.span(), header.policy), (Class::Audio, ms(123), RULE));
    assert!(header.reverse && header.open.is_none());
}
