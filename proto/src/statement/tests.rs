//! Statements: that they have one encoding, what is refused, and that nothing is lost on the way.

use std::collections::BTreeMap;

use proptest::collection::{btree_map, btree_set, vec};
use proptest::option;
use proptest::prelude::*;

use super::*;
use crate::control::MAX_MESSAGE;
use crate::units::PolicyId;
use crate::wire::WireError;
use crate::wire::mutation::mutated;

fn link(to: u32) -> LinkStatement {
    LinkStatement {
        to: PopKey(to),
        up: true,
        delay_micros: -2,
        jitter: Duration::from_micros(3),
        rtt: Duration::from_micros(4),
        loss: 0.25,
        burst: 1.5,
        capacity_kbps: 5,
        load_kbps: 6,
        cost: Duration::from_micros(7),
        max_packet: 1402,
    }
}

fn clock() -> ClockCoordinate {
    ClockCoordinate { at: Timestamp::from_micros(1), offset_micros: -1, drift_ppb: 2 }
}

fn delta() -> Statement {
    Statement {
        origin: "fra".parse().unwrap(),
        incarnation: Incarnation(9),
        seq: 3,
        body: Body::Delta { base: 2, clock: clock(), links: vec![link(8)], removed: keys(&[4, 5]) },
    }
}

fn keys(numbers: &[u32]) -> Vec<PopKey> {
    numbers.iter().copied().map(PopKey).collect()
}

fn state() -> NodeState {
    let service = |name: &str, ports| ServiceStatement { name: name.parse().unwrap(), ports };
    let rule = Rule { allow_regions: vec!["EU".into()], ..Rule::default() };
    NodeState {
        certificate: Bytes::from_static(b"DER"),
        addresses: vec!["a:1".into(), "[::1]:2".into()],
        location: Some((50.5, -8.25)),
        services: vec![service("a", 1), service("b", 20)],
        policies: vec![Policy::new("eu", rule).unwrap()],
        draining: true,
        load_permille: 500,
        clock: clock(),
        sealing_key: Some([0x5e; 32]),
        links: vec![link(8)],
    }
}

fn full(state: NodeState) -> Statement {
    let (origin, incarnation) = ("fra".parse().unwrap(), Incarnation(9));
    Statement { origin, incarnation, seq: 1, body: Body::Full(state) }
}

const HEAD: &[u8] = b"tradewind statement 1\0\x03fra\0\0\0\0\0\0\0\x09";
#[rustfmt::skip]
const CLOCK: [u8; 20] = [
    0, 0, 0, 0, 0, 0, 0, 1, 255, 255, 255, 255, 255, 255, 255, 255, 0, 0, 0, 2,
];
#[rustfmt::skip]
const LINK: [u8; 35] = [
    0, 0, 0, 8, 1, 255, 255, 255, 254, 0, 0, 0, 3, 0, 0, 0, 4, 0x40, 0, 0, 24,
    0, 0, 0, 5, 0, 0, 0, 6, 0, 0, 0, 7, 5, 122,
];

fn delta_bytes() -> Vec<u8> {
    let numbers = [0, 0, 0, 3, 1, 0, 0, 0, 2];
    let removed = [0, 2, 0, 0, 0, 4, 0, 0, 0, 5];
    [HEAD, &numbers, &CLOCK, &[0, 1], &LINK, &removed].concat()
}

fn full_bytes() -> Vec<u8> {
    let [north, east] = [50.5f32, -8.25].map(f32::to_be_bytes);
    [
        HEAD,
        &[0, 0, 0, 1, 0, 7, 1, 244],
        &CLOCK,
        &north,
        &east,
        &[0x5e; 32],
        b"\0\x03DER",
        b"\0\x02\x03a:1\x07[::1]:2",
        b"\0\x02\x01a\0\x01\x01b\0\x14",
        b"\0\x01\x02eu\0\x01\x02EU\0\0\0\0\0\0\0\0\0\0",
        &[0, 1],
        &LINK,
    ]
    .concat()
}

#[test]
fn the_bytes_are_those_of_the_protocol() {
    assert_eq!(delta().encode(), delta_bytes());
    assert_eq!(Statement::decode(&delta_bytes()), Ok(delta()));
    assert_eq!(full(state()).encode(), full_bytes());
    assert_eq!(Statement::decode(&full_bytes()), Ok(full(state())));
}

/// Where things stand in the bytes of the full statement.
const FLAGS: usize = HEAD.len() + 5;
const LOCATION: usize = FLAGS + 3 + CLOCK.len();
const CERTIFICATE: usize = LOCATION + 8 + 32;
const ADDRESSES: usize = CERTIFICATE + 5;
const SERVICES: usize = ADDRESSES + 14;

#[test]
fn malformed_statements_are_refused() {
    let with = |changes: &[(usize, u8)]| {
        let mut bytes = full_bytes();
        changes.iter().for_each(|&(at, byte)| bytes[at] = byte);
        bytes
    };
    let last_link = full_bytes().len() - LINK.len();
    let reserved = |what, bits| WireError::ReservedBits { what, bits };
    let too_many = |what, count, limit| WireError::TooMany { what, count, limit };
    for (name, bytes, error) in [
        ("empty", vec![], WireError::Truncated { need: 22, got: 0 }),
        ("of another version", with(&[(20, b'2')]), WireError::NotAStatement),
        ("bad origin", with(&[(23, b'F')]), WireError::Text("origin")),
        ("number 0", with(&[(FLAGS - 2, 0)]), WireError::Range("number of a statement")),
        ("unknown type", with(&[(FLAGS - 1, 2)]), WireError::UnknownBody(2)),
        ("reserved flag", with(&[(FLAGS, 8)]), reserved("flags of a statement", 8)),
        ("load over all", with(&[(FLAGS + 1, 4)]), WireError::Range("load")),
        (
            "place that is no number",
            with(&[(LOCATION, 0x7f), (LOCATION + 1, 0xff)]),
            WireError::Range("location"),
        ),
        ("place beyond the pole", with(&[(LOCATION, 0x43)]), WireError::Range("location")),
        (
            "huge certificate",
            with(&[(CERTIFICATE, 0x11)]),
            WireError::Length { what: "certificate", len: 0x1103, limit: 4096 },
        ),
        ("many addresses", with(&[(ADDRESSES + 1, 5)]), too_many("addresses", 5, 4)),
        ("address with a space", with(&[(ADDRESSES + 3, b' ')]), WireError::Text("address")),
        ("many services", with(&[(SERVICES, 2)]), too_many("services", 0x202, 256)),
        ("service without ports", with(&[(SERVICES + 5, 0)]), range("ports of a service")),
        ("service twice", with(&[(SERVICES + 7, b'a')]), WireError::Order("services")),
        ("many links", with(&[(last_link - 2, 5)]), too_many("links", 0x501, 1024)),
        ("reserved flag of a link", with(&[(last_link + 4, 3)]), reserved("flags of a link", 2)),
        ("burst below 1", with(&[(last_link + 20, 15)]), range("burst")),
        ("link for small packets only", with(&[(last_link + 33, 4)]), range("largest packet")),
        ("more behind it", [&full_bytes()[..], &[0]].concat(), WireError::TrailingBytes(1)),
    ] {
        assert_eq!(Statement::decode(&bytes), Err(error), "{name}");
    }
}

fn range(what: &'static str) -> WireError {
    WireError::Range(what)
}

#[test]
fn malformed_deltas_are_refused() {
    let end = delta_bytes().len();
    let base = HEAD.len() + 8;
    for (name, at, byte, error) in [
        ("no base", base, 0, range("base of a delta")),
        ("base not older", base, 3, range("base of a delta")),
        ("removed twice", end - 1, 4, WireError::Order("removed links")),
        (
            "many removed",
            end - 10,
            9,
            WireError::TooMany { what: "removed links", count: 0x902, limit: 1024 },
        ),
    ] {
        let mut bytes = delta_bytes();
        bytes[at] = byte;
        assert_eq!(Statement::decode(&bytes), Err(error), "{name}");
    }
}

#[test]
fn lists_are_brought_into_order() {
    let mut unsorted = state();
    unsorted.services.reverse();
    unsorted.links = vec![link(9), LinkStatement { up: false, ..link(8) }, link(8)];
    let decoded = Statement::decode(&full(unsorted).encode());
    assert_eq!(decoded, Ok(full(NodeState { links: vec![link(8), link(9)], ..state() })));
}

#[test]
fn what_exceeds_a_limit_is_cut_rather_than_refused_everywhere() {
    let excess = NodeState {
        certificate: vec![1; 5000].into(),
        addresses: ["", "no spaces", "a:1", "b:1", "c:1", "d:1", "e:1"].map(String::from).into(),
        location: Some((f32::NAN, 0.0)),
        services: (0..300).map(service).collect(),
        policies: (0..70).map(|number| policy(number, 1)).collect(),
        load_permille: 2000,
        links: (0..1100).map(|to| LinkStatement { max_packet: 0, ..link(to) }).collect(),
        ..state()
    };
    let cut = NodeState {
        certificate: vec![1; 4096].into(),
        addresses: ["a:1", "b:1", "c:1", "d:1"].map(String::from).into(),
        location: None,
        services: (0..256).map(service).collect(),
        policies: (0..64).map(|number| policy(number, 1)).collect(),
        load_permille: 1000,
        links: (0..1024).map(|to| LinkStatement { max_packet: 1150, ..link(to) }).collect(),
        ..state()
    };
    assert_eq!(Statement::decode(&full(excess).encode()), Ok(full(cut)));
}

fn service(number: u16) -> ServiceStatement {
    ServiceStatement { name: format!("{number:064}").parse().unwrap(), ports: 1 }
}

/// A rule of that many countries, of which the longest allowed has 31.
fn policy(number: usize, countries: usize) -> Policy {
    let deny_countries = (0..countries).map(|country| format!("{country:064}")).collect();
    Policy::new(format!("{number:064}"), Rule { deny_countries, ..Rule::default() }).unwrap()
}

#[test]
fn the_longest_statement_fits_into_a_message() {
    let longest = NodeState {
        certificate: vec![1; MAX_CERTIFICATE].into(),
        addresses: vec!["x".repeat(MAX_ADDRESS); MAX_ADDRESSES],
        services: (0..300).map(service).collect(),
        policies: (0..MAX_POLICIES).map(|number| policy(number, 31)).collect(),
        links: (0..1024).map(link).collect(),
        ..state()
    };
    let body = full(longest).encode();
    // 31 countries leave 21 bytes of a rule unused.
    assert!(body.len() + MAX_POLICIES * 21 + 65 < MAX_MESSAGE, "{} bytes", body.len());
    assert!(Statement::decode(&body).is_ok());
}

#[test]
fn a_loss_is_never_rounded_to_none() {
    let coded = |loss, burst| {
        let links = vec![LinkStatement { loss, burst, ..link(1) }];
        let body = Body::Delta { base: 1, clock: clock(), links, removed: vec![] };
        match Statement::decode(&Statement { seq: 2, body, ..delta() }.encode()).unwrap().body {
            Body::Delta { links, .. } => (links[0].loss, links[0].burst),
            Body::Full(_) => unreachable!("a delta went in"),
        }
    };
    let step = 1.0 / 65_536.0;
    for (loss, burst, expected) in [
        (0.0, 1.0, (0.0, 1.0)),
        (1e-9, 1.03, (step, 1.0)),
        (1.5 * step, 1.04, (2.0 * step, 1.0625)),
        (1.0, 1e9, (1.0 - step, 65_535.0 / 16.0)),
        (f32::NAN, f32::NAN, (0.0, 1.0)),
        (-1.0, 0.0, (0.0, 1.0)),
    ] {
        assert_eq!(coded(loss, burst), expected, "{loss} {burst}");
    }
}

fn any_span() -> impl Strategy<Value = Duration> {
    any::<u32>().prop_map(|micros| Duration::from_micros(micros.into()))
}

fn any_clock() -> impl Strategy<Value = ClockCoordinate> {
    (any::<u64>(), any::<i64>(), any::<i32>()).prop_map(|(at, offset_micros, drift_ppb)| {
        ClockCoordinate { at: Timestamp::from_micros(at), offset_micros, drift_ppb }
    })
}

fn any_links() -> impl Strategy<Value = Vec<LinkStatement>> {
    let loss = any::<u16>().prop_map(|steps| f32::from(steps) / 65_536.0);
    let burst = (16u16..).prop_map(|steps| f32::from(steps) / 16.0);
    let spans = (any_span(), any_span(), any_span());
    let numbers = (any::<i32>(), any::<u32>(), any::<u32>());
    let values = (any::<bool>(), spans, loss, burst, numbers, LEAST_PACKET..);
    btree_map(any::<u32>(), values, 0..8).prop_map(|links| {
        let link = |(to, (up, (jitter, rtt, cost), loss, burst, numbers, max_packet))| {
            let (delay_micros, capacity_kbps, load_kbps) = numbers;
            let to = PopKey(to);
            LinkStatement {
                to,
                up,
                delay_micros,
                jitter,
                rtt,
                loss,
                burst,
                capacity_kbps,
                load_kbps,
                cost,
                max_packet,
            }
        };
        links.into_iter().map(link).collect()
    })
}

fn any_labels() -> impl Strategy<Value = Vec<String>> {
    vec("[A-Za-z0-9 äß-]{1,12}", 0..4)
}

fn any_policies() -> impl Strategy<Value = Vec<Policy>> {
    let pops = vec("[a-z0-9-]{1,32}".prop_map(|name| name.parse().unwrap()), 0..4);
    let rule = (any_labels(), any_labels(), any_labels(), any_labels(), pops, any_labels());
    let rule = rule.prop_map(|lists| {
        let (allow_regions, deny_regions, allow_countries, deny_countries, ..) = lists;
        let (.., deny_pops, deny_providers) = lists;
        Rule {
            allow_regions,
            deny_regions,
            allow_countries,
            deny_countries,
            deny_pops,
            deny_providers,
        }
    });
    let policies = btree_map("[a-z-]{1,16}", rule, 0..4).prop_map(BTreeMap::into_iter);
    policies.prop_map(|named| named.map(|(name, rule)| Policy::new(name, rule).unwrap()).collect())
}

fn any_state() -> impl Strategy<Value = NodeState> {
    let services = btree_map("[A-Za-z0-9._-]{1,64}", 1u16.., 0..5).prop_map(|services| {
        let named = services.into_iter().map(|(name, ports)| (name.parse().unwrap(), ports));
        let mut list: Vec<_> =
            named.map(|(name, ports)| ServiceStatement { name, ports }).collect();
        list.sort_by(|a, b| a.name.cmp(&b.name));
        list
    });
    let place = option::of((-90.0f32..=90.0, -180.0f32..=180.0));
    let itself = (vec(any::<u8>(), 0..64), vec("[!-~]{1,255}", 0..=4), place);
    let small = (any::<bool>(), 0u16..=1000, any_clock(), option::of(any::<[u8; 32]>()));
    (itself, services, any_policies(), small, any_links()).prop_map(
        |((certificate, addresses, location), services, policies, small, links)| {
            let (draining, load_permille, clock, sealing_key) = small;
            let certificate = certificate.into();
            NodeState {
                certificate,
                addresses,
                location,
                services,
                policies,
                draining,
                load_permille,
                clock,
                sealing_key,
                links,
            }
        },
    )
}

fn any_statement() -> impl Strategy<Value = Statement> {
    let removed = btree_set(any::<u32>().prop_map(PopKey), 0..5);
    let delta = (any_clock(), any_links(), removed).prop_map(|(clock, links, removed)| {
        Body::Delta { base: 1, clock, links, removed: removed.into_iter().collect() }
    });
    let body = prop_oneof![any_state().prop_map(Body::Full), delta];
    ("[a-z0-9-]{1,32}", any::<u64>(), 2u32.., body).prop_map(|(origin, incarnation, seq, body)| {
        let incarnation = Incarnation(incarnation);
        Statement { origin: origin.parse().unwrap(), incarnation, seq, body }
    })
}

proptest! {
    #[test]
    fn statements_come_out_as_they_went_in(statement in any_statement()) {
        prop_assert_eq!(Statement::decode(&statement.encode()), Ok(statement));
    }

    #[test]
    fn ids_do_not_depend_on_the_order_of_labels(labels in any_labels().prop_shuffle()) {
        let policy = |deny_regions| Policy::new("p", Rule { deny_regions, ..Rule::default() });
        let reversed = labels.iter().rev().cloned().collect();
        let id = policy(labels).unwrap().id();
        prop_assert_eq!(policy(reversed).unwrap().id(), id);
        prop_assert_ne!(id, PolicyId::NONE);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn no_bytes_panic(tail in vec(any::<u8>(), 0..256)) {
        let _ = Statement::decode(&tail);
        let _ = Statement::decode(&[HEAD, &[0, 0, 0, 2], &tail].concat());
    }

    #[test]
    fn each_statement_has_one_encoding(
        body in mutated(any_statement().prop_map(|statement| statement.encode().to_vec())),
    ) {
        if let Ok(statement) = Statement::decode(&body) {
            prop_assert_eq!(statement.encode(), body);
        }
    }
}
