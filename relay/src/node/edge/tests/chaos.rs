//! Whatever the network does to packets, what comes out was sent, came out once, and came to the right one.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use super::*;

/// What happens next.
#[derive(Clone, Debug)]
enum Step {
    Send {
        port: u16,
        len: usize,
    },
    /// The service answers whatever it has got and not answered.
    Answer {
        len: usize,
    },
    /// One packet in flight arrives, lost ones don't, and copies stay in flight.
    Arrive {
        which: Index,
        lost: bool,
        copy: bool,
    },
    Reroute {
        to: bool,
    },
    RestartEgress,
    Move,
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let len = prop_oneof![0..50usize, 400..2_500usize];
    prop_oneof![
        4 => (1..4u16, len.clone()).prop_map(|(port, len)| Step::Send { port, len }),
        2 => len.prop_map(|len| Step::Answer { len }),
        12 => (any::<Index>(), prop::bool::weighted(0.15), prop::bool::weighted(0.2))
            .prop_map(|(which, lost, copy)| Step::Arrive { which, lost, copy }),
        1 => any::<bool>().prop_map(|to| Step::Reroute { to }),
        1 => prop_oneof![3 => Just(None), 1 => Just(Some(Step::RestartEgress)), 1 => Just(Some(Step::Move))]
            .prop_map(|step| step.unwrap_or(Step::Wait(1))),
        2 => (0..400u64).prop_map(Step::Wait),
    ]
}

/// Payloads say who sent them and which they are; short ones can't and are equal.
fn payload(from: u16, number: u32, len: usize) -> Bytes {
    let mut bytes = vec![from as u8; len.max(8)];
    bytes[..4].copy_from_slice(&number.to_be_bytes());
    bytes.into()
}

/// What was sent and not yet received, each way.
#[derive(Default)]
struct Ledger {
    number: u32,
    there: BTreeMap<Bytes, u16>,
    back: BTreeMap<Bytes, u16>,
    /// Which client each flow belongs to, by what it brought.
    clients: BTreeMap<(PopKey, FlowId), u16>,
    unanswered: Vec<(PopKey, FlowId)>,
}

impl Ledger {
    fn check(&mut self, out: Vec<Out>, restarted: bool) -> Result<(), TestCaseError> {
        for out in out {
            match out {
                Out::Service(at, flow, bytes) => {
                    let from = self.there.remove(&bytes);
                    // A restarted egress can't know what its predecessor handed out.
                    prop_assert!(from.is_some() || restarted, "twice, or never sent");
                    let Some(from) = from else { continue };
                    let owner = *self.clients.entry((at, flow)).or_insert(from);
                    prop_assert_eq!(owner, from, "two clients share a flow");
                    self.unanswered.push((at, flow));
                }
                Out::Client(at, to, bytes) => {
                    prop_assert_eq!(at, FRA);
                    prop_assert_eq!(
                        self.back.remove(&bytes),
                        Some(to.port()),
                        "wrong client, or twice"
                    );
                }
                Out::Closed(..) | Out::Wanted(..) | Out::PairWanted(..) => {}
            }
        }
        Ok(())
    }
}

fn run(steps: Vec<Step>, redundancy: Redundancy) -> Result<(World, Ledger), TestCaseError> {
    let mut world = World::new();
    world.set_tunnel(TunnelSpec { redundancy, ..tunnel_to("echo", None) });
    let pair = (way(&[FRA, VIA, SGP], 40), way(&[FRA, WIA, SGP], 50));
    let both = RouteEntry { pair: Pairing::Pair(pair.0, pair.1), ..entry(&[FRA, VIA, SGP], 40) };
    world.pop(FRA).map.entries.insert((PolicyId::NONE, SGP), both.clone());
    for egress in [SGP, MAD] {
        let alone = RouteEntry { pair: Pairing::Impossible, ..entry(&[egress, VIA, FRA], 40) };
        world.pop(egress).map.entries.insert((PolicyId::NONE, FRA), alone);
    }
    world.take_out();
    let (mut ledger, mut restarted) = (Ledger::default(), false);
    for step in steps {
        ledger.number += 1;
        match step {
            Step::Send { port, len } => {
                let bytes = payload(port, ledger.number, len);
                ledger.there.insert(bytes.clone(), port);
                world.client_puts(port, bytes);
            }
            Step::Answer { len } => {
                let Some((at, flow)) = ledger.unanswered.pop() else { continue };
                let port = ledger.clients[&(at, flow)];
                let bytes = payload(port, ledger.number, len);
                ledger.back.insert(bytes.clone(), port);
                let now = world.now;
                let Pop { edge, map } = world.pop(at);
                edge.handle_egress(flow, bytes, map, now);
                world.collect();
            }
            Step::Arrive { which, lost, copy } => {
                if world.wire.is_empty() {
                    continue;
                }
                let at = which.index(world.wire.len());
                let (header, bytes) = world.wire[at].clone();
                if !copy {
                    world.wire.remove(at);
                }
                if !lost {
                    world.arrive(header, bytes);
                }
            }
            Step::Reroute { to } => {
                let route = if to { entry(&[FRA, SGP], 20) } else { both.clone() };
                world.pop(FRA).map.entries.insert((PolicyId::NONE, SGP), route);
            }
            Step::RestartEgress => {
                world.wait(ms(100)); // no process starts sooner
                world.restart(SGP);
                restarted = true;
            }
            Step::Move => world.pop(FRA).map.instances.reverse(),
            Step::Wait(span) => world.wait(ms(span)),
        }
        let out = world.take_out();
        ledger.check(out, restarted)?;
    }
    Ok((world, ledger))
}

proptest! {
    #[test]
    fn each_payload_arrives_at_most_once_unchanged_and_at_the_right_client(
        steps in vec(step(), 1..200), disjoint in any::<bool>()
    ) {
        let redundancy = if disjoint { Redundancy::Disjoint } else { Redundancy::Single };
        let (mut world, mut ledger) = run(steps, redundancy)?;
        // Whatever went before: once the network behaves, traffic flows. The first packet may still
        // find an egress that forgot the flow, or a flow that was refused.
        world.settle();
        world.wait(ms(1_000));
        world.client_sends(1, payload(1, u32::MAX - 1, 9));
        world.take_out();
        world.client_sends(1, payload(1, u32::MAX, 1_000));
        let flow = world.last_flow();
        ledger.clients.clear();
        let Out::Service(at, _, bytes) = world.take_out()[0].clone() else {
            return Err(TestCaseError::fail("not delivered"));
        };
        prop_assert_eq!(bytes, payload(1, u32::MAX, 1_000));
        world.service_sends(at, flow, "answer");
        prop_assert_eq!(world.take_out(), [Out::Client(FRA, client(1), "answer".into())]);
    }

    /// While the egress stands, each client has one flow, whatever happens to packets and routes.
    #[test]
    fn the_egress_identity_of_a_flow_is_stable(steps in vec(step(), 1..200)) {
        let upsets = |step: &Step| matches!(step, Step::RestartEgress | Step::Move);
        let (_, ledger) = run(steps.into_iter().filter(|step| !upsets(step)).collect(), Redundancy::Single)?;
        let mut clients: Vec<_> = ledger.clients.values().collect();
        clients.sort_unstable();
        prop_assert!(clients.windows(2).all(|pair| pair[0] != pair[1]), "two flows of one client");
    }

    /// Any packets that links may hand over, in any order: no panic, and no flow without an opening.
    #[test]
    fn no_packet_panics(
        packets in vec((any::<bool>(), any::<bool>(), 0..4u32, 0..4u32, any::<u8>(), 1..=255u8, vec(any::<u8>(), 0..40)), 1..100)
    ) {
        let mut world = World::new();
        world.client_sends(1, "x");
        for (reverse, signal, number, seq, index, count, payload) in packets {
            let at = if reverse { FRA } else { SGP };
            let from = if reverse { SGP } else { FRA };
            let header = Header {
                kind: if signal { PacketKind::Signal } else { PacketKind::Data },
                class: Class::Bulk,
                reverse,
                key_epoch: 0,
                policy: PolicyId(5),
                flow: FlowId { ingress: FRA, incarnation: 1, number },
                seq: tradewind_proto::units::FlowSeq(seq.wrapping_sub(2)),
                fragment: tradewind_proto::packet::Fragment { index: index % count, count },
                sent_at: world.now.wire(),
                budget: Default::default(),
                path: path(&[from, at]),
                open: None,
            };
            world.arrive(header, payload.into());
            world.settle();
            prop_assert!(world.count(SGP) <= 1);
        }
    }
}
