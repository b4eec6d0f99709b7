//! Which members a relay keeps links to.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use tradewind_proto::units::{Incarnation, PolicyId, PopKey};
use tradewind_router::lsdb::Lsdb;
use tradewind_router::tables::Tables;

use super::Mesh;

/// Up to this many members everybody is everybody's neighbour.
pub const FULL_UP_TO: usize = 64;
/// Above that, so many of the nearest,
const NEAREST: usize = 16;
/// so many spread evenly over the others,
const SPREAD: usize = 8;
/// and so many of the rest that flows go to or come from, so that the direct way is one of their
/// ways. The bound is for flows to everywhere; those beyond it go over other relays.
const PARTNERS: usize = 8;

/// The members that should be neighbours: key, address to dial, and which start of it is known.
/// `flows`, asked only where it matters: how many there are with each member; `linked`: whether one
/// is a neighbour already.
pub fn wanted<'a>(
    lsdb: &'a Lsdb,
    tables: &Tables,
    own: PopKey,
    mesh: Mesh,
    flows: impl FnOnce() -> BTreeMap<PopKey, usize>,
    linked: impl Fn(PopKey) -> bool,
) -> Vec<(PopKey, &'a str, Incarnation)> {
    let mut others: Vec<_> = lsdb
        .members()
        .filter(|member| member.key() != own)
        .filter_map(|member| {
            let key = member.key();
            let address = member.state().addresses.first()?;
            let delay = tables.route(PolicyId::NONE, key).map(|entry| entry.primary.delay);
            Some((delay, key, address.as_str(), member.incarnation()))
        })
        .collect();
    if mesh == Mesh::Auto && others.len() >= FULL_UP_TO {
        // Those without a route yet come last.
        others.sort_by_key(|&(delay, key, ..)| (delay.is_none(), delay, key));
        others = chosen(&others, |&(_, key, ..)| key, &flows(), linked);
    }
    others.into_iter().map(|(_, key, address, incarnation)| (key, address, incarnation)).collect()
}

/// Of all others, the nearest first, those that become neighbours in a large overlay.
///
/// Partners are those with most flows. The flows of one that is `linked` count twice, so that it
/// stays one while numbers go up and down.
pub fn chosen<T: Copy>(
    others: &[T],
    key: impl Fn(&T) -> PopKey,
    flows: &BTreeMap<PopKey, usize>,
    linked: impl Fn(PopKey) -> bool,
) -> Vec<T> {
    let (near, far) = others.split_at(NEAREST.min(others.len()));
    let spread = (0..SPREAD).filter_map(|n| far.get(n * far.len() / SPREAD));
    let mut chosen: Vec<T> = near.iter().chain(spread).copied().collect();
    let keys: Vec<PopKey> = chosen.iter().map(&key).collect();
    let free = |key: &PopKey| flows.contains_key(key) && !keys.contains(key);
    let mut partners: Vec<T> = far.iter().filter(|other| free(&key(other))).copied().collect();
    partners.sort_by_cached_key(|other| {
        let key = key(other);
        let linked = linked(key);
        (Reverse((flows[&key] << u32::from(linked), linked)), key)
    });
    chosen.extend(partners.into_iter().take(PARTNERS));
    chosen
}

#[cfg(test)]
mod tests {
    use super::super::double::{Papers, at, id};
    use super::*;

    fn members(count: usize) -> Lsdb {
        let mut lsdb = Lsdb::new(id("pop-0"));
        for n in 0..count {
            let signed = Papers::of(&id(&format!("pop-{n}"))).full(1, 1, vec![]);
            let statement = signed.statement().unwrap().clone();
            lsdb.insert(signed, statement, &Default::default(), at(0)).unwrap();
        }
        lsdb
    }

    #[test]
    fn all_of_64_members_are_wanted_and_24_of_more_and_8_that_flows_go_to() {
        let own = id("pop-0").key();
        for (mesh, count, flows, expected) in [
            (Mesh::Auto, 1, true, 0),
            (Mesh::Auto, 64, true, 63),
            (Mesh::Auto, 65, false, 24),
            (Mesh::Auto, 66, false, 24),
            (Mesh::Auto, 66, true, 32),
            (Mesh::Auto, 200, false, 24),
            (Mesh::Auto, 200, true, 32),
            (Mesh::Full, 200, true, 199),
        ] {
            let lsdb = members(count);
            let all = || lsdb.members().map(|member| (member.key(), 1)).collect();
            let flows = || if flows { all() } else { BTreeMap::new() };
            let wanted = wanted(&lsdb, &Tables::default(), own, mesh, flows, |_| false);
            let mut wanted: Vec<_> = wanted.into_iter().map(|(key, ..)| key).collect();
            wanted.sort();
            wanted.dedup();
            assert_eq!(wanted.len(), expected, "{mesh:?} of {count}");
            assert!(!wanted.contains(&own));
        }
    }

    #[test]
    fn partners_are_the_eight_with_most_flows_and_change_seldom() {
        let others: Vec<u32> = (1..=100).collect();
        let fixed = [17, 27, 38, 48, 59, 69, 80, 90];
        for (name, flows, linked, expected) in [
            ("nobody", vec![], vec![], vec![]),
            ("near or spread out already", vec![(5, vec![3, 27])], vec![], vec![]),
            ("no member", vec![(5, vec![500])], vec![], vec![]),
            (
                "most flows first, then by key",
                vec![(1, vec![21, 99]), (2, vec![34, 20, 23, 30, 31, 32, 33]), (9, vec![22])],
                vec![],
                vec![22, 20, 23, 30, 31, 32, 33, 34],
            ),
            (
                "who is linked gives way to more than twice as many flows only",
                vec![(1, vec![98, 99]), (2, vec![18, 20, 21, 22, 23, 24, 25]), (3, vec![19])],
                vec![97, 99],
                vec![19, 99, 18, 20, 21, 22, 23, 24],
            ),
            ("a link without flows counts for nothing", vec![(1, vec![50])], vec![51], vec![50]),
        ] {
            let count = |(count, keys): (usize, Vec<u32>)| {
                keys.into_iter().map(move |key| (PopKey(key), count))
            };
            let flows = flows.into_iter().flat_map(count).collect();
            let linked = |key: PopKey| linked.contains(&key.0);
            let chosen = chosen(&others, |&other| PopKey(other), &flows, linked);
            assert_eq!(chosen[..16], others[..16], "{name}");
            assert_eq!(chosen[16..24], fixed, "{name}");
            assert_eq!(chosen[24..], expected, "{name}");
        }
    }
}
