//! Which members a relay keeps links to.

use tradewind_proto::units::{Incarnation, PolicyId, PopKey};
use tradewind_router::lsdb::Lsdb;
use tradewind_router::tables::Tables;

use super::Mesh;

/// Up to this many members everybody is everybody's neighbour.
pub const FULL_UP_TO: usize = 64;
/// Above that, so many of the nearest,
const NEAREST: usize = 16;
/// and so many spread evenly over the others.
const SPREAD: usize = 8;

/// The members that should be neighbours: key, address to dial, and which start of it is known.
pub fn wanted<'a>(
    lsdb: &'a Lsdb,
    tables: &Tables,
    own: PopKey,
    mesh: Mesh,
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
        others = near_and_spread(others);
    }
    others.into_iter().map(|(_, key, address, incarnation)| (key, address, incarnation)).collect()
}

/// Of all others, the nearest first, those that become neighbours in a large overlay.
pub fn near_and_spread<T: Copy>(mut others: Vec<T>) -> Vec<T> {
    let far = others.split_off(NEAREST.min(others.len()));
    others.extend((0..SPREAD).filter_map(|n| far.get(n * far.len() / SPREAD)));
    others
}

#[cfg(test)]
mod tests {
    use super::super::double::{Papers, at, id};
    use super::*;
    use tradewind_proto::statement::Statement;

    fn members(count: usize) -> Lsdb {
        let mut lsdb = Lsdb::new(id("pop-0"));
        for n in 0..count {
            let signed = Papers::of(&id(&format!("pop-{n}"))).full(1, 1, vec![]);
            let statement = Statement::decode(&signed.body).unwrap();
            lsdb.insert(signed, statement, Default::default(), at(0)).unwrap();
        }
        lsdb
    }

    #[test]
    fn all_of_64_members_are_wanted_and_24_of_more() {
        let own = id("pop-0").key();
        for (mesh, count, expected) in [
            (Mesh::Auto, 1, 0),
            (Mesh::Auto, 64, 63),
            (Mesh::Auto, 65, 24),
            (Mesh::Auto, 66, 24),
            (Mesh::Auto, 200, 24),
            (Mesh::Full, 200, 199),
        ] {
            let lsdb = members(count);
            let mut wanted: Vec<_> = wanted(&lsdb, &Tables::default(), own, mesh)
                .into_iter()
                .map(|(key, ..)| key)
                .collect();
            wanted.sort();
            wanted.dedup();
            assert_eq!(wanted.len(), expected, "{mesh:?} of {count}");
            assert!(!wanted.contains(&own));
        }
    }
}
